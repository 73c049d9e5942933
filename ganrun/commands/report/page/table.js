// The table: which runs are shown, in which order. Curves and pictures follow it.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const runs = new Map(data.runs.map((run) => [run.number, run]));
const rows = all("#table tbody tr");
const numberOf = (row) => Number(row.dataset.number);
const ticked = (row) => byId(`show-${row.dataset.number}`).checked;

/** The numbers of the runs to show: ticked, and not filtered out. */
const shown = () => rows.filter((row) => !row.hidden && ticked(row)).map(numberOf);

function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const status = byId("status").value;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word)) || (status !== "" && row.dataset.status !== status);
  }
  const left = rows.filter((row) => !row.hidden).length;
  byId("count").textContent = `${left === rows.length ? left : `${left} of ${rows.length}`} run${rows.length === 1 ? "" : "s"}`;
  update();
}

/** Curves and pictures of the runs that are shown now. */
function update() {
  const inTable = rows.filter((row) => !row.hidden);
  const number = inTable.filter(ticked).length;
  byId("all").checked = number > 0 && number === inTable.length;
  byId("all").indeterminate = number > 0 && number < inTable.length;
  document.dispatchEvent(new Event("shown"));
}

/** What a cell is sorted by: a number where it is one; null, which comes last, where there is nothing. */
function valueOf(row, column) {
  const cell = row.cells[column];
  const text = (cell.dataset.value ?? cell.textContent).trim();
  return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), "en", { numeric: true });
}

function sortBy(heading, direction) {
  for (const other of all("#table thead th")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const found = rows.map((row) => [row, valueOf(row, heading.cellIndex)]);
  found.sort(([, one], [, other]) => {
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * compare(one, other);
  });
  byId("table").tBodies[0].append(...found.map(([row]) => row));
}

function prepareTable() {
  for (const heading of all("#table thead th[data-key]")) {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      sortBy(heading, heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
    });
  }
  byId("filter").addEventListener("input", filter);
  byId("status").addEventListener("change", filter);
  byId("all").addEventListener("change", (event) => {
    for (const row of rows) if (!row.hidden) byId(`show-${row.dataset.number}`).checked = event.target.checked;
    update();
  });
  for (const row of rows) byId(`show-${row.dataset.number}`).addEventListener("change", update);
}
