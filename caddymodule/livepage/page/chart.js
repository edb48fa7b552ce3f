// The chart: how many streams are live, and below, on a scale of its own, what happened
// in each period.
import { t, number, clock } from "./text.js";

const kinds = ["takeovers", "refused", "untracked"];
const upper = 84, lower = 44, gap = 16, left = 44, right = 8, top = 8;

function svg(name, attributes, text) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  if (text !== undefined) e.textContent = text;
  return e;
}

// ceiling is a round number that is not below n.
function ceiling(n) {
  if (n <= 4) return 4;
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((f) => f * power).find((c) => c >= n);
}

export class Chart {
  samples = [];
  most = 120;
  at = -1; // the sample under the pointer

  constructor(box, legend) {
    Object.assign(this, { box, legend });
    new ResizeObserver(() => this.draw()).observe(box);
    box.addEventListener("pointermove", (e) => {
      const x = e.clientX - box.getBoundingClientRect().left;
      this.point(Math.floor((x - left) / this.step) - (this.most - this.samples.length));
    });
    box.addEventListener("pointerleave", () => this.point(-1));
  }

  reset(most) {
    this.samples = [];
    this.most = most;
    this.draw();
  }

  add(samples) {
    this.samples = [...this.samples, ...samples].slice(-this.most);
    this.draw();
  }

  point(i) {
    this.at = i >= 0 && i < this.samples.length ? i : -1;
    this.draw();
  }

  get step() { return (this.box.clientWidth - left - right) / this.most; }

  told(s) {
    const told = t("chartAt", {
      time: clock(Date.parse(s.time)), live: number(s.streams.live),
      takeovers: number(s.takeovers), refused: number(s.refused), untracked: number(s.untracked),
    });
    return s.here ? `${told} (${t("chartHere")})` : told;
  }

  draw() {
    const width = this.box.clientWidth;
    if (width === 0) return;
    const height = top + upper + gap + lower + 4;
    const { samples, step } = this;
    const x = (i) => left + (this.most - samples.length + i + 0.5) * step;
    const highest = ceiling(Math.max(0, ...samples.map((s) => s.streams.live)));
    const most = ceiling(Math.max(0, ...samples.map((s) => kinds.reduce((sum, k) => sum + s[k], 0))));
    const y = (n) => top + upper * (1 - n / highest);
    const ground = top + upper + gap + lower;
    const last = samples[this.at] ?? samples.at(-1);
    const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": last ? this.told(last) : t("chart") });
    for (const [at, text] of [[y(highest), number(highest)], [y(highest / 2), number(highest / 2)], [y(0), "0"], [ground - lower, number(most)], [ground, "0"]]) {
      drawing.append(svg("line", { class: "rule", x1: left, x2: width - right, y1: at, y2: at }),
        svg("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, text));
    }
    samples.forEach((s, i) => { // when no page was open, only the streams of this node were counted
      if (s.here) drawing.append(svg("rect", { class: "here", x: x(i) - step / 2, width: step, y: top, height: ground - top }));
    });
    if (samples.length > 0) {
      const points = samples.map((s, i) => `${x(i).toFixed(1)},${y(s.streams.live).toFixed(1)}`);
      drawing.append(svg("path", { class: "area", d: `M${x(0).toFixed(1)},${y(0)}L${points.join("L")}L${x(samples.length - 1).toFixed(1)},${y(0)}Z` }),
        svg("path", { class: "live", d: `M${points.join("L")}` }));
      if (samples.length === 1) drawing.append(svg("circle", { class: "dot", cx: x(0), cy: y(samples[0].streams.live), r: 3 }));
    }
    samples.forEach((s, i) => {
      let from = ground;
      for (const kind of kinds) {
        if (s[kind] === 0) continue;
        const h = Math.max(2, (s[kind] / most) * lower);
        drawing.append(svg("rect", { class: kind, x: x(i) - step * 0.4, width: Math.max(1.5, step * 0.8), y: from - h, height: h }));
        from -= h;
      }
    });
    if (this.at >= 0) drawing.append(svg("line", { class: "cursor", x1: x(this.at), x2: x(this.at), y1: top, y2: ground }));
    this.box.replaceChildren(drawing);
    this.legend.textContent = last ? this.told(last) : "\u00a0";
  }
}
