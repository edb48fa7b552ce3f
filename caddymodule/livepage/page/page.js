import { t, choose, chooseFirst, remember, number, eventsOf, clock, moment, age, size } from "./text.js";
import { Table, columns } from "./table.js";
import { Chart } from "./chart.js";
import { Lines } from "./lines.js";
import { Acting } from "./act.js";
import { Feed } from "./feed.js";

const $ = (id) => document.getElementById(id);

$("language").value = chooseFirst();

let ahead = 0; // milliseconds by which the server's clock is ahead of this one
let heard = 0; // when the server last told something, by this clock
const now = () => Date.now() + ahead;

const table = new Table({
  grid: $("grid"), header: $("header"), body: $("body"), none: $("none"), shown: $("shown"), now,
  open: (stream, verb) => (verb === "details" ? showDetails(stream) : acting.open(stream, verb)),
});
const chart = new Chart($("chart"), $("chart-at"));
const lines = new Lines($("lines"), $("no-lines"), (text) => { $("search").value = text; find(); $("grid").focus(); });
const acting = new Acting(table, toast);

let toasts;
function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toasts);
  toasts = setTimeout(() => { $("toast").hidden = true; }, 6000);
}

// Searching and sorting

function find() { table.find($("search").value, $("state").value); }
$("search").addEventListener("input", find);
$("state").addEventListener("change", find);
$("search").addEventListener("keydown", (e) => {
  if (e.key !== "ArrowDown" && e.key !== "Enter") return;
  e.preventDefault();
  $("grid").focus();
  table.choose(0);
});

function listSorts() {
  $("sort").replaceChildren(...columns.flatMap(({ name }) => [
    new Option(`${t("sortBy")}: ${t(name)} ↑`, name), new Option(`${t("sortBy")}: ${t(name)} ↓`, `${name} down`),
  ]));
  $("sort").value = table.sort + (table.down ? " down" : "");
}
listSorts();
$("sort").addEventListener("change", () => {
  const [name, down] = $("sort").value.split(" ");
  table.sortBy(name, Boolean(down));
});
$("header").addEventListener("click", listSorts);

// Details

let detailed;
function showDetails(s) {
  detailed = s;
  const time = (ms) => (ms ? `${moment(ms)} (${age((now() - ms) / 1000)})` : "–");
  const fields = [
    ["id", s.id], ["state", t(s.state)], ["zone", s.zone], ["key", s.key], ["token", s.token], ["client", s.client], ["subject", s.subject],
    ["remote_ip", s.remote_ip], ["path", s.path], ["protocol", s.protocol], ["node", s.node], ["opened", time(s.opened)],
    ["events", eventsOf(s)], ["bytes", size(s.bytes)], ["last_event_at", time(s.lastEvent)], ["last_ack_at", time(s.lastAck)],
    ["labels", Object.entries(s.labels).map(([name, value]) => `${name} = ${value}`).join(", ")],
  ];
  $("fields").replaceChildren(...fields.filter(([, value]) => value).flatMap(([name, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = t(name);
    dd.textContent = value;
    return [dt, dd];
  }));
  $("details").showModal();
}
for (const verb of ["end", "notify"]) {
  $(`details-${verb}`).addEventListener("click", () => { $("details").close(); acting.open(detailed, verb); });
}
$("notify-all").addEventListener("click", () => acting.open(null, "notify"));
for (const button of document.querySelectorAll("dialog .close")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
addEventListener("keydown", (e) => {
  if (e.key === "/" && !e.target.closest("input, textarea, select, dialog")) {
    e.preventDefault();
    $("search").focus();
  }
});

// Language

$("language").addEventListener("change", () => {
  remember(choose($("language").value));
  listSorts();
  table.nameHeader();
  table.arrange();
  chart.draw();
  lines.translate();
  showConnection();
  showMissing();
});

// The feed

let connection = "opening";
function showConnection() {
  document.body.dataset.connection = connection;
  $("connection").textContent = t(connection);
  $("lost").hidden = connection !== "closed";
  if (connection === "closed") $("lost").textContent = t("lost", { time: heard ? clock(heard) : "–" });
}

let missing = { table: "", cut: false, stats: "" };
function showMissing() {
  const why = missing.stats || missing.table;
  const texts = [why && t("incomplete", { why }), missing.cut && t("cut")].filter(Boolean);
  $("incomplete").hidden = texts.length === 0;
  $("incomplete").textContent = texts.join(" ");
}

new Feed({
  hello(h) {
    ahead = Date.parse(h.time) - Date.now();
    chart.reset(h.most_samples);
    lines.reset(h.most_lines);
  },
  streams(change) {
    missing.table = change.incomplete ?? "";
    missing.cut = Boolean(change.cut);
    table.apply(change);
    showMissing();
  },
  stats({ stats }) {
    for (const [state, n] of Object.entries(stats.streams)) $(`count-${state}`).textContent = number(n);
    missing.stats = stats.zones.map((z) => z.incomplete).filter(Boolean).join("; ");
    showMissing();
  },
  samples: (samples) => chart.add(samples),
  lines: (added) => lines.add(added),
  beat() { /* it is connected */ },
}, (connected) => {
  if (connected) heard = Date.now();
  const is = connected ? "open" : "closed";
  if (is === connection) return;
  connection = is;
  showConnection();
});
