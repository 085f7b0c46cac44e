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

// Rows stand in groups; once they are sorted they stand in one body, and their groups' fields are columns.
function start(table) {
  const id = table.dataset.section;
  const data = JSON.parse(document.getElementById(id + "-trials").textContent);
  const section = table.closest("section"), pages = section.querySelector(".pages");
  const tools = section.querySelector(".tools"), filter = tools.querySelector("input");
  const groups = Array.from(table.tBodies), flat = document.createElement("tbody");
  const home = new Map(), all = [];
  for (const group of groups) {
    for (const row of group.querySelectorAll("tr[data-row]")) {
      home.set(row, group);
      all.push(row);
    }
  }
  table.append(flat);
  let rows = all, page = 0;

  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter(row => words.every(word => row.dataset.words.includes(word)));
    const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    const shown = new Set(found.slice(page * PAGE, (page + 1) * PAGE));
    for (const row of rows) {
      close(row);
      row.hidden = !shown.has(row);
    }
    for (const group of groups) group.hidden = !Array.from(group.rows).some(row => shown.has(row));
    pages.hidden = last === 0 && found.length === all.length;
    pages.querySelector("span").textContent = found.length === 0 ? "no rows" :
      `rows ${page * PAGE + 1} to ${Math.min(found.length, (page + 1) * PAGE)} of ${found.length}`;
    pages.querySelector(".before").disabled = page === 0;
    pages.querySelector(".next").disabled = page === last;
  }

  function sort(head) {
    const now = head.getAttribute("aria-sort"), column = head.cellIndex;
    const next = now === "none" ? "ascending" : now === "ascending" ? "descending" : "none";
    for (const other of head.parentElement.cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", next);
    rows.forEach(close);
    const value = row => row.cells[column].dataset.value;
    rows = next === "none" ? all : Array.from(all).sort((a, b) => {
      const order = compare(value(a), value(b));
      return next === "descending" && value(a) !== "" && value(b) !== "" ? -order : order;
    });
    table.classList.toggle("flat", next !== "none");
    for (const row of rows) (next === "none" ? home.get(row) : flat).append(row);
    page = 0;
    show();
  }

  table.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    if (!button.classList.contains("open")) {
      sort(button.closest("th"));
      return;
    }
    const row = button.closest("tr");
    if (button.getAttribute("aria-expanded") === "true") close(row); else open(row, data);
  });
  filter.addEventListener("input", () => { page = 0; show(); });
  pages.querySelector(".before").addEventListener("click", () => { page -= 1; show(); });
  pages.querySelector(".next").addEventListener("click", () => { page += 1; show(); });
  tools.hidden = all.length < 2;
  show();
}

document.querySelectorAll("table.main").forEach(start);
