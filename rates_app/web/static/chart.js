// Reads the figure out: under the pointer, or day by day with the arrow keys; a drag across zooms in.

const money = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const whole = new Intl.NumberFormat("en");
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const MIN_DRAG = 12;

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function label(series, index) {
  const [from, to] = [series.from[index], series.to[index]].map((text) => day.format(new Date(text)));
  return from === to ? from : `${from} – ${to}`;
}

function words([count, low, average, median, high]) {
  if (average === undefined) return count ? `${whole.format(count)} prices: too few for a rate` : "no prices";
  return `${money.format(average)} (${money.format(low)} to ${money.format(high)}, median ${money.format(median)}), ${whole.format(count)} prices`;
}

/** Make a figure tell its values; `zoom` is called with the first and last day of a range dragged across. */
export function readable(figure, zoom) {
  const series = JSON.parse(figure.dataset.series);
  const count = series.from.length;
  const plot = figure.querySelector(".plot");
  const ruler = element("div", "ruler");
  const zone = element("div", "zone");
  const tip = element("div", "tip");
  const spots = series.lanes.map((_, lane) => element("div", `spot lane-${lane + 1}`));
  const parts = [ruler, zone, tip, ...spots];
  let at = null;
  let began = null;

  const share = (index) => (count > 1 ? index / (count - 1) : 0.5);
  const nearest = (event) => {
    const box = plot.getBoundingClientRect();
    const across = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    return count > 1 ? Math.round(across * (count - 1)) : 0;
  };

  function read(index) {
    at = index;
    const left = `${share(index) * 100}%`;
    ruler.style.left = left;
    tip.replaceChildren(element("b", "", label(series, index)));
    series.lanes.forEach((lane, number) => {
      const rate = lane.rates[index];
      const line = element("p", `lane-${number + 1}`, words(rate));
      if (series.lanes.length > 1) line.prepend(element("span", "swatch"), `${lane.name}: `);
      tip.append(line);
      spots[number].hidden = rate.length < 6;
      if (rate.length === 6) Object.assign(spots[number].style, { left, top: `${rate[5]}%` });
    });
    ruler.hidden = tip.hidden = false;
    const room = plot.clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, share(index) * plot.clientWidth + (share(index) < 0.5 ? 14 : -14 - tip.offsetWidth)))}px`;
    plot.setAttribute("aria-valuenow", index);
    plot.setAttribute("aria-valuetext", [...tip.children].map((part) => part.textContent).join(". "));
  }

  function rest() {
    parts.forEach((part) => (part.hidden = true));
    began = null;
  }

  plot.append(...parts);
  rest();
  const description = plot.querySelector("svg");
  plot.setAttribute("aria-label", "Rates; the arrow keys read them one by one");
  description.removeAttribute("role");
  description.removeAttribute("aria-label");
  description.setAttribute("aria-hidden", "true");
  plot.setAttribute("role", "slider");
  plot.setAttribute("aria-valuemin", 0);
  plot.setAttribute("aria-valuemax", count - 1);
  plot.setAttribute("aria-valuenow", count - 1);
  plot.setAttribute("aria-valuetext", label(series, count - 1));
  plot.tabIndex = 0;
  figure.querySelector(".hint").hidden = false;

  plot.addEventListener("pointermove", (event) => {
    read(nearest(event));
    if (began === null) return;
    const [first, last] = [began, at].sort((a, b) => a - b);
    zone.hidden = first === last;
    Object.assign(zone.style, { left: `${share(first) * 100}%`, width: `${(share(last) - share(first)) * 100}%` });
  });
  plot.addEventListener("pointerdown", (event) => {
    read(nearest(event));
    if (event.pointerType !== "mouse" || event.button !== 0) return; // a finger scrolls the page, or reads
    event.preventDefault();
    plot.focus({ preventScroll: true });
    began = at;
    plot.dataset.x = event.clientX;
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointerup", (event) => {
    if (began === null) return;
    const [first, last] = [began, nearest(event)].sort((a, b) => a - b);
    const dragged = Math.abs(event.clientX - plot.dataset.x) > MIN_DRAG && first < last;
    began = null;
    zone.hidden = true;
    if (dragged) zoom(series.from[first], series.to[last]);
  });
  // A finger that lifts leaves the plot, too: its tooltip stays until a tap elsewhere takes the focus away.
  plot.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && rest());
  plot.addEventListener("pointercancel", rest);
  plot.addEventListener("blur", rest);
  plot.addEventListener("focus", () => began === null && plot.matches(":focus-visible") && read(at ?? count - 1));
  plot.addEventListener("keydown", (event) => {
    const now = at ?? count - 1;
    const next = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, Home: 0, End: count - 1,
      PageUp: now + 7, PageDown: now - 7 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    read(Math.min(count - 1, Math.max(0, next)));
  });
}
