"use strict";
const PAGE = 50;

function cell(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function trialsTable(data, row) {
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const name of data.columns) {
    const made = cell("th", name);
    made.scope = "col";
    head.append(made);
  }
  const body = table.createTBody();
  for (const trial of data.rows[row]) {
    const line = body.insertRow();
    for (const value of trial) line.append(cell("td", value));
  }
  return table;
}

function close(row) {
  const button = row.querySelector("button.open");
  if (button.getAttribute("aria-expanded") === "true") {
    button.setAttribute("aria-expanded", "false");
    button.textContent = "+";
    row.nextElementSibling.remove();
  }
}

function open(row, data) {
  const button = row.querySelector("button.open");
  button.setAttribute("aria-expanded", "true");
  button.textContent = "\u2212";
  const line = document.createElement("tr");
  line.className = "trials";
  const place = document.createElement("td");
  place.colSpan = row.cells.length;
  place.append(trialsTable(data, Number(row.dataset.row)));
  line.append(place);
  row.after(line);
}

function compare(a, b) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const x = Number(a), y = Number(b);
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
}

function start(table) {
  const id = table.dataset.section;
  const data = JSON.parse(document.getElementById(id + "-trials").textContent);
  const body = table.tBodies[0], pages = table.closest("section").querySelector(".pages");
  let rows = Array.from(body.rows), page = 0;

  function show() {
    const last = Math.max(0, Math.ceil(rows.length / PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    rows.forEach((row, i) => { close(row); row.hidden = Math.floor(i / PAGE) !== page; });
    pages.hidden = last === 0;
    pages.querySelector("span").textContent =
      `rows ${page * PAGE + 1} to ${Math.min(rows.length, (page + 1) * PAGE)} of ${rows.length}`;
    pages.querySelector(".before").disabled = page === 0;
    pages.querySelector(".next").disabled = page === last;
  }

  table.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.classList.contains("open")) {
      const row = button.closest("tr");
      if (button.getAttribute("aria-expanded") === "true") close(row); else open(row, data);
      return;
    }
    const head = button.closest("th"), column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    rows.forEach(close);
    const value = row => row.cells[column].dataset.value;
    rows.sort((a, b) => {
      const order = compare(value(a), value(b));
      return down && value(a) !== "" && value(b) !== "" ? -order : order;
    });
    body.append(...rows);
    page = 0;
    show();
  });
  pages.querySelector(".before").addEventListener("click", () => { page -= 1; show(); });
  pages.querySelector(".next").addEventListener("click", () => { page += 1; show(); });
  show();
}

document.querySelectorAll("table.main").forEach(start);
