// Ending and notifying streams, in two steps: what, and whether that is meant.
import { t, number } from "./text.js";
import { address } from "./feed.js";

const $ = (id) => document.getElementById(id);

export class Acting {
  constructor(table, toast) {
    Object.assign(this, { table, toast, dialog: $("acting") });
    $("form").addEventListener("submit", (e) => {
      e.preventDefault();
      if ($("step-sure").hidden) this.ask();
      else this.act();
    });
    $("back").addEventListener("click", () => this.step(false));
  }

  // open begins with a stream; null: with all. What is neither would be all by mistake.
  open(stream, verb) {
    if (stream === undefined) throw new Error("no stream is chosen");
    Object.assign(this, { stream, verb });
    const scopes = stream === null ? ["all"] : ["id", ...["key", "token", "subject"].filter((name) => stream[name])];
    $("scope").replaceChildren(...scopes.map((scope) => new Option(t(`scope_${scope}`, { subject: stream?.subject }), scope)));
    for (const id of ["message", "event", "data", "deny"]) $(id).value = "";
    $("reason").value = "revoked";
    $("for-end").hidden = verb !== "end";
    $("for-notify").hidden = verb !== "notify";
    $("data").required = verb === "notify";
    $("acting-title").textContent = t(`${verb}Title`);
    $("do").textContent = t(verb === "end" ? "doEnd" : "doNotify");
    $("do").className = verb === "end" ? "danger" : "";
    this.dialog.showModal();
    this.step(false);
  }

  step(sure) {
    $("step-what").hidden = sure;
    $("step-sure").hidden = !sure;
    $("problem").hidden = true;
    $(sure ? "do" : this.verb === "notify" ? "event" : "scope").focus();
  }

  get select() {
    const { stream } = this;
    switch ($("scope").value) {
      case "id": return { id: stream.id };
      case "key": return { zone: stream.zone, key: stream.key };
      case "token": return { token: stream.token };
      case "subject": return { subject: stream.subject };
      case "all": return {};
      default: throw new Error("no streams are chosen");
    }
  }

  ask() {
    const select = Object.entries(this.select);
    const n = [...this.table.rows.values()].filter((s) => s.state !== "ending" && select.every(([name, value]) => s[name] === value)).length;
    let text = t(`${this.verb === "end" ? "sureEnd" : "sureNotify"}${n === 1 ? "1" : ""}`, { n: number(n) });
    if (this.verb === "end" && $("deny").value) text += ` ${t("sureDeny", { deny: $("deny").selectedOptions[0].textContent })}`;
    $("sure").textContent = text;
    this.step(true);
  }

  async act() {
    const body = { select: this.select };
    if ($("scope").value === "all") body.all = true;
    if (this.verb === "end") {
      body.reason = $("reason").value;
      if ($("message").value.trim() && body.reason !== "max_age") body.message = $("message").value;
      if ($("deny").value) body.deny = $("deny").value;
    } else {
      body.event = $("event").value;
      body.data = $("data").value;
    }
    $("do").disabled = true;
    try {
      const answer = await this.post(body);
      this.dialog.close();
      this.toast(answer);
    } catch (e) {
      $("problem").textContent = t("failed", { why: e.message });
      $("problem").hidden = false;
    } finally {
      $("do").disabled = false;
    }
  }

  async post(body) {
    let response, answer;
    try {
      response = await fetch(address(this.verb), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      answer = await response.json();
    } catch {
      throw new Error(response ? `${response.status} ${response.statusText}` : t("noAnswer"));
    }
    if (!response.ok) throw new Error([answer.title, answer.detail].filter(Boolean).join(": "));
    const told = this.verb === "end" ? t("ended", { n: number(answer.ended) }) : t("notified", { n: number(answer.notified) });
    return [told, answer.warning].filter(Boolean).join(". ");
  }
}
