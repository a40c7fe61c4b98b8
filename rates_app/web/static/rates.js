// The rates page: autocompletion, results without a page load, and the interactive chart.

import "./vendor/auto-complete-element/bundle.js";
import { readable } from "./chart.js";
import { savePng } from "./picture.js";
import { followHistory, show } from "./swap.js";
import { sortable } from "./table.js";

const main = document.getElementById("main");

function prepare() {
  for (const input of main.querySelectorAll("input[list]")) input.removeAttribute("list"); // for browsers without scripts
  main.querySelectorAll("table[data-sort]").forEach(sortable);
  const figure = main.querySelector("figure[data-series]");
  if (figure) readable(figure, zoom);
  const png = document.getElementById("png");
  if (png) {
    png.hidden = false;
    png.onclick = () => savePng(png.previousElementSibling.href);
  }
  const link = document.getElementById("link");
  if (link && navigator.clipboard) {
    link.hidden = false;
    link.onclick = async () => {
      await navigator.clipboard.writeText(location.href);
      link.textContent = "Link copied";
    };
  }
}

function arrive() {
  prepare();
  // Move the focus to the result, or to the missing field, for users of screen readers.
  const place = document.getElementById("result") ?? main.querySelector("[role=alert]:not([hidden])") ?? main;
  const empty = [...main.querySelectorAll(".lane + .lane input")].find((input) => !input.value);
  (empty ?? place).focus({ preventScroll: true });
}

function go(address) {
  return show(address, { push: true, arrive });
}

function zoom(first, last) {
  const address = new URL(document.querySelector("link[rel=canonical]")?.href ?? location.href, location.href);
  const asked = new URL(location.href);
  if (asked.searchParams.has("origin")) address.search = asked.search;
  for (const name of ["span", "do"]) address.searchParams.delete(name);
  address.searchParams.set("date_from", first);
  address.searchParams.set("date_to", last);
  go(address.pathname + address.search);
}

main.addEventListener("submit", (event) => {
  if (!event.target.matches(".search")) return;
  event.preventDefault();
  const fields = new URLSearchParams(new FormData(event.target, event.submitter));
  for (const [name, value] of [...fields]) if (!value && name.startsWith("date")) fields.delete(name);
  go(`/?${fields}`);
});

main.addEventListener("click", async (event) => {
  const link = event.target.closest("a[href^='/?']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  await go(link.getAttribute("href"));
  scrollTo(0, 0);
});

// Enter selects the first option. The element marks it only if its list is already open, so it is marked here as well.
// Results that arrive after the field has lost the focus must not open the list: it would cover the page.
main.addEventListener("load", ({ target }) => {
  if (!target.matches("auto-complete")) return;
  if (!target.contains(document.activeElement)) target.open = false;
  target.querySelector("[role=option]")?.setAttribute("data-combobox-option-default", "true");
}, true);

// Close the list of options when the user leaves the field with the keyboard or the pointer.
main.addEventListener("focusout", (event) => {
  const box = event.target.closest("auto-complete");
  if (box && event.relatedTarget && !box.contains(event.relatedTarget)) box.open = false;
});
document.addEventListener("pointerdown", (event) => {
  for (const box of main.querySelectorAll("auto-complete[open]")) if (!box.contains(event.target)) box.open = false;
});

followHistory(arrive);
addEventListener("offline", () => {
  const place = document.getElementById("progress");
  place.textContent = "You are offline. The page shows the last result; new queries need a connection.";
  place.hidden = false;
});
addEventListener("online", () => (document.getElementById("progress").hidden = true));

prepare();
