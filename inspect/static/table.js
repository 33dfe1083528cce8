import { element, setText } from "./dom.js";

// Table shows rows with keys in the order in which they come. While the focus or the pointer is in the
// table, its rows stay where they are, and only their figures change.
export class Table {
  // columns are {label, title, name, cell}: cell(td, row) fills in a td; name marks the column that names
  // a row. note(held) is the line below the table.
  constructor(table, { columns, key, empty, note }) {
    Object.assign(this, { columns, key, empty, note });
    const head = element("tr");
    for (const { label, title, name } of columns) {
      head.append(element("th", { scope: "col", textContent: label, title: title ?? "", className: name ? "name" : "" }));
    }
    this.body = element("tbody");
    this.caption = element("caption");
    table.replaceChildren(...(note ? [this.caption] : []), element("thead", {}, head), this.body);
    this.table = table;
    this.rows = new Map();
    this.pointed = false; // a finger that has left the screen does not hold the rows
    this.body.addEventListener("focusout", () => setTimeout(() => this.arrange()));
    this.body.addEventListener("pointerenter", ({ pointerType }) => (this.pointed = pointerType === "mouse"));
    this.body.addEventListener("pointerleave", () => {
      this.pointed = false;
      this.arrange();
    });
  }

  get held() {
    return this.pointed || this.body.contains(document.activeElement);
  }

  update(rows) {
    this.latest = rows;
    for (const row of rows) this.rows.get(this.key(row))?.fill(row);
    this.arrange();
  }

  // arrange puts the rows into their order, unless that is held.
  arrange() {
    if (!this.latest) return;
    const held = this.held && this.rows.size > 0;
    const keys = new Set(this.latest.map(this.key));
    for (const [key, row] of this.rows) {
      row.tr.classList.toggle("gone", !keys.has(key));
      if (held || keys.has(key)) continue;
      row.tr.remove();
      this.rows.delete(key);
    }
    if (this.note) setText(this.caption, this.note(held));
    if (held) return;
    if (this.latest.length === 0) {
      this.showEmpty();
      return;
    }
    this.none?.remove();
    this.latest.forEach((row, i) => {
      const key = this.key(row);
      if (!this.rows.has(key)) this.rows.set(key, this.make(row));
      const { tr } = this.rows.get(key);
      if (this.body.children[i] !== tr) this.body.insertBefore(tr, this.body.children[i] ?? null);
    });
  }

  showEmpty() {
    this.none ??= element("tr", {}, element("td", { className: "empty", colSpan: this.columns.length }));
    setText(this.none.firstChild, this.empty);
    if (!this.none.isConnected) this.body.append(this.none);
  }

  make(row) {
    const tr = element("tr");
    const cells = this.columns.map(({ label, name }) => {
      const td = element("td", { className: name ? "name" : "" });
      td.dataset.label = label;
      tr.append(td);
      return td;
    });
    const fill = (next) => this.columns.forEach(({ cell }, i) => cell(cells[i], next));
    fill(row);
    return { tr, fill };
  }
}

// number shows value(row) as text, dimmed if it is zero, and as an alarm if alarm(row) says so.
export const number = (value, format, alarm = () => false) => (td, row) => {
  const n = value(row);
  if (!td.firstChild) td.append(element("span"));
  setText(td.firstChild, format(n, row));
  td.firstChild.className = n === 0 ? "zero" : "";
  td.classList.toggle("alarm", alarm(row));
};

export const text = (value) => (td, row) => {
  setText(td, value(row));
  td.title = value(row);
};

// link shows value(row) as a button that calls open(row).
export const link = (value, open) => (td, row) => {
  if (!td.firstChild) td.append(element("button", { type: "button", className: "link" }));
  setText(td.firstChild, value(row));
  td.firstChild.title = value(row);
  td.firstChild.onclick = () => open(row);
};
