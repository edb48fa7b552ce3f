// The table of streams. Only the rows in sight are elements, so that 10,000 cost no more
// than 30 do.
import { t, number, eventsOf, age, size } from "./text.js";

const byText = (name) => (a, b) => (a[name] ?? "").localeCompare(b[name] ?? "");
const byNumber = (name) => (a, b) => a[name] - b[name];

export const columns = [
  { name: "state", compare: byText("state") },
  { name: "key", compare: byText("key") },
  { name: "subject", compare: byText("subject") },
  { name: "zone", compare: byText("zone") },
  { name: "remote_ip", compare: byText("remote_ip") },
  { name: "path", compare: byText("path") },
  { name: "since", compare: (a, b) => b.opened - a.opened }, // the younger first
  { name: "events", compare: byNumber("events") },
  { name: "bytes", compare: byNumber("bytes") },
];

const spare = 6; // rows outside of sight that are kept ready
const spacing = 250; // the least milliseconds between two sorts

export class Table {
  rows = new Map(); // all streams by id
  view = []; // those that match, in order
  words = [];
  state = "";
  sort = "since";
  down = false;
  active = ""; // the id of the chosen stream
  at = 0; // its index in view, or where it was
  elements = new Map(); // by id
  sorted = 0;
  waiting = false;

  constructor({ grid, header, body, none, shown, now, open }) {
    Object.assign(this, { grid, header, body, none, shown, now, open });
    this.makeHeader();
    grid.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(grid);
    grid.addEventListener("keydown", (e) => this.key(e));
    body.addEventListener("click", (e) => {
      const row = e.target.closest("[data-id]");
      if (!row) return;
      const chosen = this.rows.get(row.dataset.id);
      if (!chosen) return;
      this.choose(this.view.indexOf(chosen));
      this.open(chosen, "details");
    });
    setInterval(() => { for (const [id, e] of this.elements) this.fillAge(e, this.rows.get(id)); }, 1000);
  }

  makeHeader() {
    this.header.replaceChildren(...columns.map(({ name }) => {
      const cell = document.createElement("span");
      cell.setAttribute("role", "columnheader");
      cell.className = name;
      const button = document.createElement("button");
      button.type = "button";
      button.addEventListener("click", () => this.sortBy(name, this.sort === name && !this.down));
      cell.append(button);
      return cell;
    }));
    this.nameHeader();
  }

  nameHeader() {
    for (const [i, cell] of [...this.header.children].entries()) {
      const { name } = columns[i];
      cell.firstChild.textContent = t(name);
      cell.setAttribute("aria-sort", this.sort !== name ? "none" : this.down ? "descending" : "ascending");
    }
  }

  sortBy(name, down) {
    this.sort = name;
    this.down = down;
    this.nameHeader();
    this.arrange();
  }

  // apply takes a change of the feed.
  apply(change) {
    if (change.reset) this.rows.clear();
    for (const s of change.put ?? []) {
      s.opened = Date.parse(s.since);
      s.lastEvent = s.last_event_at ? Date.parse(s.last_event_at) : 0;
      s.lastAck = s.last_ack_at ? Date.parse(s.last_ack_at) : 0;
      const labels = Object.entries(s.labels).map(([name, value]) => `${name}=${value}`).join(" ");
      s.text = [s.id, s.zone, s.state, s.key, s.token, s.client, s.subject, s.remote_ip, s.node, s.protocol, s.path, labels]
        .join(" ").toLowerCase();
      this.rows.set(s.id, s);
    }
    for (const [id, events, bytes, lastEvent, lastAck] of change.counts ?? []) {
      const s = this.rows.get(id);
      if (s) Object.assign(s, { events, bytes, lastEvent, lastAck });
    }
    for (const id of change.gone ?? []) this.rows.delete(id);
    this.arrangeSoon();
  }

  arrangeSoon() {
    if (this.waiting) return;
    this.waiting = true;
    setTimeout(() => { this.waiting = false; this.arrange(); }, Math.max(0, this.sorted + spacing - performance.now()));
  }

  // find shows the streams that have all the words.
  find(text, state) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.state = state;
    this.grid.scrollTop = 0;
    this.at = 0;
    this.arrange();
  }

  matches(s) {
    return (this.state === "" || s.state === this.state) && this.words.every((w) => s.text.includes(w));
  }

  arrange() {
    const { compare } = columns.find((c) => c.name === this.sort);
    const sign = this.down ? -1 : 1;
    this.view = [...this.rows.values()].filter((s) => this.matches(s));
    this.view.sort((a, b) => sign * compare(a, b) || (a.id < b.id ? -1 : 1));
    this.sorted = performance.now();
    const at = this.active === "" ? -1 : this.view.findIndex((s) => s.id === this.active);
    if (at >= 0) this.at = at;
    else this.active = "";
    this.shown.textContent = t("shown", { shown: number(this.view.length), all: number(this.rows.size) });
    this.none.hidden = this.view.length > 0;
    this.none.textContent = t(this.rows.size > 0 ? "nothingFound" : "nothing");
    this.grid.setAttribute("aria-rowcount", this.view.length + 1);
    this.draw();
  }

  get height() { return parseFloat(getComputedStyle(this.grid).getPropertyValue("--row")); }

  // draw makes elements of the rows in sight.
  draw() {
    const height = this.height;
    this.body.style.height = `${this.view.length * height}px`;
    const first = Math.max(0, Math.floor(this.grid.scrollTop / height) - spare);
    const last = Math.min(this.view.length, Math.ceil((this.grid.scrollTop + this.grid.clientHeight) / height) + spare);
    const before = this.elements;
    this.elements = new Map();
    const unused = [];
    const seen = new Set(this.view.slice(first, last).map((s) => s.id));
    for (const [id, e] of before) if (!seen.has(id)) unused.push(e);
    for (let i = first; i < last; i++) {
      const s = this.view[i];
      const e = before.get(s.id) ?? unused.pop() ?? this.makeRow();
      this.fill(e, s, i);
      e.style.transform = `translateY(${i * height}px)`;
      this.elements.set(s.id, e);
    }
    for (const e of unused) e.remove();
    if (this.elements.has(this.active)) this.grid.setAttribute("aria-activedescendant", `row-${this.active}`);
    else this.grid.removeAttribute("aria-activedescendant");
  }

  makeRow() {
    const e = document.createElement("div");
    e.className = "row";
    e.setAttribute("role", "row");
    for (const { name } of columns) {
      const cell = document.createElement("span");
      cell.className = name;
      cell.setAttribute("role", "gridcell");
      e.append(cell);
    }
    this.body.append(e);
    return e;
  }

  fill(e, s, i) {
    e.id = `row-${s.id}`;
    e.dataset.id = s.id;
    e.dataset.state = s.state;
    e.setAttribute("aria-rowindex", i + 2);
    e.setAttribute("aria-selected", s.id === this.active);
    const values = [t(s.state), s.key ?? "–", s.subject ?? "–", s.zone, s.remote_ip, s.path, "", eventsOf(s), size(s.bytes)];
    values.forEach((value, c) => {
      const cell = e.children[c];
      if (columns[c].name !== "since" && cell.textContent !== value) {
        cell.textContent = value;
        cell.title = value;
      }
    });
    this.fillAge(e, s);
  }

  fillAge(e, s) {
    if (s) e.children[6].textContent = age((this.now() - s.opened) / 1000);
  }

  choose(i) {
    if (this.view.length === 0) return;
    this.at = Math.min(Math.max(0, i), this.view.length - 1);
    this.active = this.view[this.at].id;
    const height = this.height;
    const top = this.at * height;
    const room = this.grid.clientHeight - this.header.offsetHeight;
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    else if (top + height > this.grid.scrollTop + room) this.grid.scrollTop = top + height - room;
    this.draw();
  }

  key(e) {
    if (e.target !== this.grid || e.ctrlKey || e.metaKey || e.altKey) return;
    const page = Math.max(1, Math.floor(this.grid.clientHeight / this.height) - 2);
    const to = {
      ArrowDown: this.active ? this.at + 1 : this.at, ArrowUp: this.at - 1, PageDown: this.at + page, PageUp: this.at - page,
      Home: 0, End: this.view.length - 1,
    }[e.key];
    const does = { Enter: "details", Delete: "end", n: "notify", N: "notify" }[e.key];
    if (to === undefined && !does) return;
    e.preventDefault();
    const chosen = this.rows.get(this.active); // undefined: none is, or it is gone
    if (to !== undefined) this.choose(to);
    else if (chosen) this.open(chosen, does);
  }
}
