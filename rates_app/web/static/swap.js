// Loads the next view without leaving the page, so that the page can report slow, failed and offline requests.
// Links and forms also work without this script.

const SLOW_MS = 2500;
const WORDS = {
  429: "Too many requests. Wait a minute, then try again.",
  503: "The service is temporarily unavailable. Try again in a few seconds.",
};

let asking = null;
let shown = location.pathname + location.search;

function setText(id, text) {
  const place = document.getElementById(id);
  place.hidden = !text;
  (place.querySelector("p") ?? place).textContent = text;
}

function fail(text, again) {
  setText("failure", text);
  document.querySelector("#failure button").onclick = again;
}

/** Load an address and show it; `push` adds it to the browser's history. */
export async function show(address, { push, arrive }) {
  asking?.abort();
  const controller = (asking = new AbortController());
  const main = document.getElementById("main");
  main.setAttribute("aria-busy", "true");
  setText("failure", "");
  setText("progress", "");
  const slow = setTimeout(() => setText("progress", "The service is slow. Still waiting for the result …"), SLOW_MS);
  const again = () => show(address, { push, arrive });
  try {
    const response = await fetch(address, { headers: { Accept: "text/html" }, signal: controller.signal });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.getElementById("main");
    if (!response.ok || !fresh) {
      fail(WORDS[response.status] ?? `The service responded with an error (${response.status}). Try again.`, again);
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
    fail(navigator.onLine ? "The service is unreachable. Try again in a moment."
      : "You are offline. Try again when you are online.", again);
  } finally {
    clearTimeout(slow);
    if (asking === controller) {
      setText("progress", "");
      main.removeAttribute("aria-busy");
    }
  }
}

/** Follow the browser's back and forward; a jump within the page loads nothing. */
export function followHistory(arrive) {
  addEventListener("popstate", () => {
    const address = location.pathname + location.search;
    if (address !== shown) show(address, { push: false, arrive });
  });
}
