// Sorts tables by their columns (WAI-ARIA Authoring Practices, "Sortable Table").

function value(cell) {
  const text = cell.dataset.value ?? (cell.querySelector(".strong") ?? cell).textContent.trim();
  const number = Number(text.replace(/[,%+]/g, "").replace("−", "-"));
  return text !== "" && !Number.isNaN(number) ? number : text;
}

function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? 1 : -1; // a dash is less than any number
  return typeof a === "number" ? a - b : a.localeCompare(b, "en");
}

function sort(table, header) {
  const descending = header.getAttribute("aria-sort") !== "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[header.cellIndex]), row]);
  rows.sort(([a], [b]) => (descending ? compare(b, a) : compare(a, b)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

/** Give every column of a table a button that sorts by it. */
export function sortable(table) {
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(table, header));
    header.append(button);
  }
}

if (!document.querySelector(".search")) document.querySelectorAll("table[data-sort]").forEach(sortable);
