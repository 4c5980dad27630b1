"use strict";
document.body.classList.add("scripted");
const number = text => text === "" ? null : Number(text);
for (const table of document.querySelectorAll(".results")) {
  const heads = [...table.tHead.rows[1].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.key ?? "";
    const compare = (a, b) => {
      if (column === 0) return direction * key(a).localeCompare(key(b));
      const x = number(key(a)), y = number(key(b));
      return x === null || y === null ? (x === null) - (y === null) : direction * (x - y);
    };
    for (const body of table.tBodies) {
      const rows = [...body.rows], title = rows.filter(row => row.cells.length === 1 && heads.length > 1);
      const perfect = rows.filter(row => row.className === "perfect");
      body.append(...title, ...rows.filter(row => !title.includes(row) && !perfect.includes(row)).sort(compare), ...perfect);
    }
  }));
}
for (const table of document.querySelectorAll(".results")) {
  for (const button of table.querySelectorAll("button[data-group]")) {
    const head = button.closest("th"), extra = table.querySelectorAll(`[data-extra="${button.dataset.group}"]:not(button)`);
    const fold = folded => {
      head.classList.toggle("folded", folded);
      head.colSpan = head.dataset.size - (folded ? button.dataset.extra : 0);
      button.setAttribute("aria-expanded", String(!folded));
      extra.forEach(cell => { cell.hidden = folded; });
    };
    fold(true);
    button.addEventListener("click", () => fold(!head.classList.contains("folded")));
  }
}
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".picture")) {
  button.addEventListener("click", () => {
    const image = button.querySelector("img"), large = dialog.querySelector("img");
    large.src = image.src;
    large.alt = image.alt;
    dialog.showModal();
  });
}
dialog.addEventListener("click", () => dialog.close());
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open]):not(.long):not(.long details)")];
  opened.forEach(part => { part.open = true; });
});
addEventListener("afterprint", () => opened.forEach(part => { part.open = false; }));
