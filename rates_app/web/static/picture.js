// Converts the chart's picture to PNG, for slides and documents.

const SCALE = 2;

/** Save the picture at an address, which is SVG, as PNG. */
export async function savePng(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`the picture is not there (${response.status})`);
  const source = URL.createObjectURL(await response.blob());
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.width * SCALE;
  canvas.height = image.height * SCALE;
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(source);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = "rates.png";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
