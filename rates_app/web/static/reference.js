// Sends requests from the API reference and shows their responses as they arrive.

const MAX_SHOWN = 20_000;

function address(form) {
  let path = form.dataset.path;
  const query = new URLSearchParams();
  for (const input of form.querySelectorAll("input")) {
    if (input.dataset.place === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.value) query.set(input.name, input.value);
  }
  return query.size ? `${path}?${query}` : path;
}

function pretty(text, type) {
  const shown = type.includes("json") && !type.includes("ndjson") ? JSON.stringify(JSON.parse(text), null, 2) : text;
  return shown.length > MAX_SHOWN ? `${shown.slice(0, MAX_SHOWN)}\n… ${shown.length - MAX_SHOWN} more characters` : shown;
}

async function send(form) {
  const status = form.querySelector("[role=status]");
  const output = form.querySelector("pre");
  const began = performance.now();
  status.textContent = "Waiting for the response";
  try {
    const asked = address(form);
    const response = await fetch(asked);
    const type = response.headers.get("Content-Type") ?? "";
    output.textContent = pretty(await response.text(), type);
    output.hidden = false;
    status.textContent = `${response.status} in ${Math.round(performance.now() - began)} ms: GET ${asked}`;
  } catch (error) {
    status.textContent = `The request failed: ${error.message}. Check the connection and send it again.`;
  }
}

for (const form of document.querySelectorAll("form.trial")) {
  form.closest("details").hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form);
  });
}
