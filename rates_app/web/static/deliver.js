// Delivers a file from the browser: dropped or chosen, as it is, with its progress.

const form = document.getElementById("deliver");
const drop = document.getElementById("drop");
const file = document.getElementById("file");
const outcome = document.getElementById("outcome");
const upload = document.getElementById("upload");
const cancel = document.getElementById("cancel");

// The API accepts letters, digits, dots, dashes and underscores in a name.
const named = (name) => name.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 200) || "delivery";

function say(text, bad, address) {
  const line = document.createElement("p");
  line.className = bad ? "notice bad" : "notice";
  line.textContent = text;
  if (address) {
    const link = document.createElement("a");
    link.href = address;
    link.textContent = "Open the batch";
    line.append(" ", link);
  }
  outcome.replaceChildren(line);
}

function sent(done, total) {
  upload.querySelector("label").textContent = done < total
    ? `${Math.floor((done / total) * 100)}% of ${file.files[0].name} sent` : "Sent. The service is reading the file.";
  upload.querySelector("progress").value = total ? done / total : 1;
}

function answered(request) {
  if (request.status === 202) {
    location.assign(`/batches/${JSON.parse(request.responseText).id}`);
  } else if (request.status === 200) {
    const batch = JSON.parse(request.responseText);
    const advice = batch.next_step ? ` ${batch.next_step}` : "";
    say(`This content was delivered before as batch ${batch.id}, which is ${batch.state}.${advice}`, false, `/batches/${batch.id}`);
  } else {
    let problem = { title: `The service responded with an error (${request.status})`, detail: "Try again in a moment." };
    try {
      problem = JSON.parse(request.responseText);
    } catch { /* the response is not from the service, but from a proxy */ }
    say(`${problem.title}. ${problem.detail}`, true);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const body = file.files[0];
  const query = new URLSearchParams({ name: named(body.name), max_rejected_rows: document.getElementById("max-rejected-rows").value });
  if (document.getElementById("resubmit").checked) query.set("resubmit", "true");
  if (document.getElementById("replaces").value) query.set("replaces", document.getElementById("replaces").value);
  if (event.submitter.value === "check") query.set("check", "true");
  const request = new XMLHttpRequest(); // fetch reports no upload progress
  request.open("POST", `/v1/batches?${query}`);
  request.setRequestHeader("Authorization", `Bearer ${document.getElementById("token").value.trim()}`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.upload.onprogress = (progress) => sent(progress.loaded, progress.total);
  request.onload = () => answered(request);
  request.onerror = () => say("The connection was lost. Deliver the file again: the same content is never published twice.", true);
  request.onabort = () => say("The delivery was cancelled. Nothing was stored.", false);
  request.onloadend = () => {
    for (const button of form.querySelectorAll("button[value]")) button.disabled = false;
    cancel.hidden = upload.hidden = true;
  };
  cancel.onclick = () => request.abort();
  for (const button of form.querySelectorAll("button[value]")) button.disabled = true;
  cancel.hidden = upload.hidden = false;
  outcome.replaceChildren();
  sent(0, body.size || 1);
  request.send(body);
});

for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) file.files = event.dataTransfer.files;
});

form.hidden = false;
