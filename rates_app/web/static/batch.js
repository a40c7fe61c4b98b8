// Follow a batch, withdraw it, and decide about it when it is held.

const card = document.getElementById("batch");
const live = document.getElementById("live");
const withdrawal = document.getElementById("withdraw");
const decision = document.getElementById("decide");
const number = card.dataset.batch;

function offer() {
  const button = card.querySelector("[data-withdraw]");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      document.getElementById("withdraw-rows").textContent = button.dataset.withdraw;
      withdrawal.showModal();
    });
  }
  const choices = card.querySelector("[data-decide]");
  if (!choices) return;
  choices.hidden = false;
  choices.addEventListener("click", (event) => {
    const choice = event.target.value;
    if (!choice) return;
    const confirm = decision.querySelector("button[value=decide]");
    confirm.textContent = `${choice === "publish" ? "Publish" : "Refuse"} batch ${number}`;
    confirm.className = choice === "refuse" ? "danger" : "";
    document.getElementById("reason-field").hidden = choice !== "refuse";
    decision.dataset.choice = choice;
    decision.showModal();
  });
}

function follow() {
  const events = new EventSource(`/batches/${number}/events`);
  const take = (event) => {
    card.innerHTML = event.data;
    live.textContent = "This page updates itself.";
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
    // The server ends each stream after a while. Report only a connection that stays lost.
    clearTimeout(lost);
    lost = setTimeout(() => (live.textContent = "The connection is lost. Trying again."), 4000);
    if (events.readyState === EventSource.CLOSED) {
      live.textContent = "The service is not available. Trying again.";
      setTimeout(follow, 5000);
    }
  };
}

// Send a request when a dialog's form is submitted, and show the problem in the dialog if there is one.
function onSubmit(dialog, tokenField, request) {
  const alert = dialog.querySelector("[role=alert]");
  const refuse = (text) => {
    alert.textContent = text;
    alert.hidden = false;
  };
  dialog.querySelector("form").addEventListener("submit", async (event) => {
    if (event.submitter.value === "cancel") return;
    event.preventDefault();
    event.submitter.disabled = true;
    try {
      const token = document.getElementById(tokenField).value.trim();
      const [method, address] = request();
      const response = await fetch(address, { method, headers: { Authorization: `Bearer ${token}` } });
      if (response.ok) {
        location.reload();
        return;
      }
      const problem = await response.json();
      refuse(`${problem.title}. ${problem.detail}`);
    } catch {
      refuse("The service cannot be reached. Reload the page to see the state of the batch.");
    } finally {
      event.submitter.disabled = false;
    }
  });
}

onSubmit(withdrawal, "withdraw-token", () => ["DELETE", `/v1/batches/${number}`]);
onSubmit(decision, "decide-token", () => {
  const reason = document.getElementById("reason").value.trim();
  const query = decision.dataset.choice === "refuse" && reason ? `?${new URLSearchParams({ reason })}` : "";
  return ["POST", `/v1/batches/${number}/${decision.dataset.choice}${query}`];
});
offer();
if ("live" in card.dataset) follow();
