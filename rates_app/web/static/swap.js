// Asks for the next view without leaving the page, so that waiting, failing and being offline can be said in words.
// Links and forms work the same without this.

const SLOW_MS = 2500;
const WORDS = {
  429: "Too many requests came from here in the last minute. Wait a moment, then try again.",
  503: "The service cannot answer at the moment. Nothing is lost; try again in a few seconds.",
};

let asking = null;
let shown = location.pathname + location.search;

function tell(id, text) {
  const place = document.getElementById(id);
  place.hidden = !text;
  (place.querySelector("p") ?? place).textContent = text;
}

function fail(text, again) {
  tell("failure", text);
  document.querySelector("#failure button").onclick = again;
}

/** Show what an address answers; `push` adds it to the browser's history. */
export async function show(address, { push, arrive }) {
  asking?.abort();
  const controller = (asking = new AbortController());
  const main = document.getElementById("main");
  main.setAttribute("aria-busy", "true");
  tell("failure", "");
  tell("progress", "");
  const slow = setTimeout(() => tell("progress", "The service is slow at the moment; still waiting for the answer …"), SLOW_MS);
  const again = () => show(address, { push, arrive });
  try {
    const response = await fetch(address, { headers: { Accept: "text/html" }, signal: controller.signal });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.getElementById("main");
    if (!response.ok || !fresh) {
      fail(WORDS[response.status] ?? `The service answered with an error (${response.status}). Try again.`, again);
      return;
    }
    const canonical = page.querySelector("link[rel=canonical]")?.getAttribute("href") ?? address;
    if (push) history.pushState(null, "", canonical);
    else if (canonical !== address) history.replaceState(null, "", canonical);
    shown = canonical;
    document.title = page.title;
    main.replaceChildren(...fresh.childNodes);
    arrive();
  } catch (error) {
    if (error.name === "AbortError") return;
    fail(navigator.onLine ? "The service cannot be reached. Try again in a moment."
      : "You are offline. What is shown stays; ask again when you are back.", again);
  } finally {
    clearTimeout(slow);
    if (asking === controller) {
      tell("progress", "");
      main.removeAttribute("aria-busy");
    }
  }
}

/** Follow the browser's back and forward; a jump within the page asks for nothing. */
export function followHistory(arrive) {
  addEventListener("popstate", () => {
    const address = location.pathname + location.search;
    if (address !== shown) show(address, { push: false, arrive });
  });
}
