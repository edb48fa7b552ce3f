// What happened: takeovers, refusals, untracked streams with their cause, ends.
import { t, number, clock } from "./text.js";

function told(l) {
  const from = [l.subject, l.remote_ip].filter(Boolean).join(", ") || "–";
  switch (l.event) {
    case "superseded": return t("line_superseded", { from, by: l.by?.remote_ip || "–" });
    case "refused": return t(`outcome_${l.outcome}`, { from });
    case "untracked": return `${from}: ${t(`cause_${l.cause}`)}`;
    case "ended": {
      const known = `why_${l.reason}`;
      const reason = t(known);
      return t("line_ended", { from, reason: reason === known ? l.reason : reason });
    }
    case "logout": return t("line_logout", { from, n: number(l.streams ?? 0) });
    default: return t("line_dropped");
  }
}

export class Lines {
  all = []; // the newest first
  most = 200;
  waiting = false;

  constructor(list, none, search) {
    Object.assign(this, { list, none, search });
  }

  reset(most) {
    this.all = [];
    this.most = most;
    this.drawSoon();
  }

  add(lines) {
    this.all = [...lines.reverse(), ...this.all].slice(0, this.most);
    this.drawSoon();
  }

  drawSoon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  draw() {
    this.none.hidden = this.all.length > 0;
    // Lines do not change: those that are shown stay, so that focus does.
    const shown = new Map([...this.list.children].map((e) => [e.line, e]));
    this.list.replaceChildren(...this.all.map((l) => shown.get(l) ?? this.make(l)));
  }

  translate() {
    this.list.replaceChildren();
    this.draw();
  }

  make(l) {
    const e = document.createElement("li");
    e.line = l;
    e.dataset.event = l.event;
    const head = document.createElement("p");
    head.className = "line-head";
    const tag = document.createElement("b");
    tag.textContent = t(`tag_${l.event === "missed" ? "dropped" : l.event}`);
    head.append(tag);
    if (l.time) {
      const time = document.createElement("time");
      time.dateTime = l.time;
      time.textContent = clock(Date.parse(l.time));
      head.append(time);
    }
    if (l.zone) {
      const zone = document.createElement("span");
      zone.textContent = l.zone;
      head.append(zone);
    }
    if (l.key) {
      const key = document.createElement("button");
      key.type = "button";
      key.textContent = l.key;
      key.title = t("searchKey", { key: l.key });
      key.addEventListener("click", () => this.search(l.key));
      head.append(key);
    }
    const text = document.createElement("p");
    text.textContent = told(l);
    e.append(head, text);
    return e;
  }
}
