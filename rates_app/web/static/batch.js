// A batch as it goes, and its withdrawal.

const card = document.getElementById("batch");
const live = document.getElementById("live");
const dialog = document.getElementById("withdraw");
const number = card.dataset.batch;

function offer() {
  const button = card.querySelector("[data-withdraw]");
  if (!button) return;
  button.hidden = false;
  button.addEventListener("click", () => {
    document.getElementById("withdraw-rows").textContent = button.dataset.withdraw;
    dialog.showModal();
  });
}

function follow() {
  const events = new EventSource(`/batches/${number}/events`);
  const take = (event) => {
    card.innerHTML = event.data;
    live.textContent = "This page follows the batch.";
  };
  events.addEventListener("state", take);
  events.addEventListener("ended", (event) => {
    events.close();
    take(event);
    live.textContent = "The batch has ended.";
    offer();
  });
  let lost = null;
  events.onopen = () => clearTimeout(lost);
  events.onerror = () => {
    // The server ends each stream after a while; only a connection that does not come back is worth a word.
    clearTimeout(lost);
    lost = setTimeout(() => (live.textContent = "The connection is lost; trying again."), 4000);
    if (events.readyState === EventSource.CLOSED) {
      live.textContent = "The service cannot tell at the moment; trying again.";
      setTimeout(follow, 5000);
    }
  };
}

function refuse(text) {
  const place = dialog.querySelector("[role=alert]");
  place.textContent = text;
  place.hidden = false;
}

dialog.querySelector("form").addEventListener("submit", async (event) => {
  if (event.submitter.value !== "withdraw") return;
  event.preventDefault();
  event.submitter.disabled = true;
  try {
    const token = document.getElementById("withdraw-token").value.trim();
    const response = await fetch(`/v1/batches/${number}`, { method: "DELETE", headers: { Authorization: `Bearer ${token}` } });
    if (response.ok) {
      location.reload();
      return;
    }
    const problem = await response.json();
    refuse(`${problem.title}. ${problem.detail}`);
  } catch {
    refuse("The service cannot be reached. Nothing was withdrawn as far as we know; load the page to see.");
  } finally {
    event.submitter.disabled = false;
  }
});

offer();
if ("live" in card.dataset) follow();
