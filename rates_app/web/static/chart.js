// Shows the chart's values under the pointer or finger, or interval by interval with the arrow keys. Dragging across,
// or two fingers, select a range. A lane of the legend can be shown alone.

const money = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const whole = new Intl.NumberFormat("en");
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const MIN_DRAG = 12;
const COLUMNS = [["Average", 2], ["Median", 3], ["Low", 1], ["High", 4]];

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function label(series, index) {
  const [from, to] = [series.from[index], series.to[index]].map((text) => day.format(new Date(text)));
  return (from === to ? from : `${from} – ${to}`) + (series.partial.includes(index) ? " (part of the interval)" : "");
}

function words([count, low, average, median, high]) {
  if (average === undefined) return count ? `${whole.format(count)} prices: too few for a rate` : "no prices";
  return `${money.format(average)} (${money.format(low)} to ${money.format(high)}, median ${money.format(median)}), ${whole.format(count)} prices`;
}

function row(...cells) {
  const made = document.createElement("tr");
  cells.forEach(([name, text]) => made.append(element(name, "", text)));
  return made;
}

/** Show one interval as a small table: a row for each value of a lane, or a row for each of several lanes. */
function table(series, index) {
  const made = document.createElement("table");
  if (series.lanes.length === 1) {
    const rate = series.lanes[0].rates[index];
    if (rate.length > 1) for (const [name, at] of COLUMNS) made.append(row(["th", name], ["td", money.format(rate[at])]));
    made.append(row(["th", "Prices"], ["td", whole.format(rate[0])]));
    if (series.pairs) {
      const part = series.pairs.intervals[index];
      if (part.index !== null) made.append(row(["th", "Constant mix"], ["td", money.format(part.index)]));
      made.append(row(["th", "Port pairs"], ["td", `${whole.format(part.port_pairs)} of ${whole.format(series.pairs.all)}`]));
    }
    return made;
  }
  made.append(row(["th", ""], ["th", "Average"], ["th", "Median"], ["th", "Prices"]));
  series.lanes.forEach((lane, number) => {
    const rate = lane.rates[index];
    const values = [2, 3].map((at) => ["td", rate.length > 1 ? money.format(rate[at]) : "–"]);
    const line = row(["th", lane.name], ...values, ["td", whole.format(rate[0])]);
    line.firstChild.prepend(element("span", `swatch lane-${number + 1}`));
    made.append(line);
  });
  return made;
}

/** Show a lane of the legend alone, or all lanes again. */
function isolate(figure) {
  const legend = figure.querySelector(".legend");
  if (!legend) return;
  legend.hidden = false;
  legend.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    const alone = button.getAttribute("aria-pressed") !== "true";
    for (const each of legend.querySelectorAll("button")) each.setAttribute("aria-pressed", alone && each === button);
    for (const part of figure.querySelectorAll(".plot [class*='lane-']")) {
      part.classList.toggle("muted", alone && !part.classList.contains(`lane-${button.dataset.lane}`));
    }
  });
}

/** Make a chart's values readable; `zoom` is called with the first and last day of a range that was chosen. */
export function readable(figure, zoom) {
  const series = JSON.parse(figure.dataset.series);
  const count = series.from.length;
  const plot = figure.querySelector(".plot");
  const ruler = element("div", "ruler");
  const zone = element("div", "zone");
  const tip = element("div", "tip");
  const spots = series.lanes.map((_, lane) => element("div", `spot lane-${lane + 1}`));
  const parts = [ruler, zone, tip, ...spots];
  const fingers = new Map();
  let at = null;
  let began = null;

  const share = (index) => series.x[index] / 100;
  const nearest = (event) => {
    const box = plot.getBoundingClientRect();
    const across = ((event.clientX - box.left) / box.width) * 100;
    return series.x.reduce((best, x, index) => (Math.abs(x - across) < Math.abs(series.x[best] - across) ? index : best), 0);
  };

  function read(index) {
    at = index;
    const left = `${series.x[index]}%`;
    ruler.style.left = left;
    tip.replaceChildren(element("b", "", label(series, index)), table(series, index));
    series.lanes.forEach((lane, number) => {
      const rate = lane.rates[index];
      spots[number].hidden = rate.length < 6;
      if (rate.length === 6) Object.assign(spots[number].style, { left, top: `${rate[5]}%` });
    });
    ruler.hidden = tip.hidden = false;
    const room = plot.clientWidth - tip.offsetWidth;
    const side = share(index) < 0.5 ? 14 : -14 - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, share(index) * plot.clientWidth + side))}px`;
    plot.setAttribute("aria-valuenow", index);
    const spoken = series.lanes.map((lane) => (series.lanes.length > 1 ? `${lane.name}: ` : "") + words(lane.rates[index]));
    plot.setAttribute("aria-valuetext", [label(series, index), ...spoken].join(". "));
  }

  function mark(first, last) {
    zone.hidden = first === last;
    Object.assign(zone.style, { left: `${share(first) * 100}%`, width: `${(share(last) - share(first)) * 100}%` });
  }

  function rest() {
    parts.forEach((part) => (part.hidden = true));
    began = null;
  }

  plot.append(...parts);
  rest();
  isolate(figure);
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

  function pinched() {
    return [...fingers.values()].sort((a, b) => a - b);
  }

  plot.addEventListener("pointermove", (event) => {
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, nearest(event));
    if (fingers.size === 2) {
      mark(...pinched());
      return;
    }
    read(nearest(event));
    if (began !== null) mark(...[began, at].sort((a, b) => a - b));
  });
  plot.addEventListener("pointerdown", (event) => {
    read(nearest(event));
    if (event.pointerType === "touch") {
      fingers.set(event.pointerId, at); // one finger reads or scrolls the page, two choose a range
      return;
    }
    if (event.button !== 0) return;
    event.preventDefault();
    plot.focus({ preventScroll: true });
    began = at;
    plot.dataset.x = event.clientX;
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointerup", (event) => {
    if (event.pointerType === "touch") {
      const [first, last] = fingers.size === 2 ? pinched() : [0, 0];
      fingers.delete(event.pointerId);
      if (first < last) {
        fingers.clear();
        zoom(series.from[first], series.to[last]);
      }
      return;
    }
    if (began === null) return;
    const [first, last] = [began, nearest(event)].sort((a, b) => a - b);
    const dragged = Math.abs(event.clientX - plot.dataset.x) > MIN_DRAG && first < last;
    began = null;
    zone.hidden = true;
    if (dragged) zoom(series.from[first], series.to[last]);
  });
  // A finger that lifts leaves the plot, too: its tooltip stays until a tap elsewhere takes the focus away.
  plot.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && rest());
  plot.addEventListener("pointercancel", (event) => {
    fingers.delete(event.pointerId);
    rest();
  });
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
