"use strict";

// The whole client. The page shows these lines, and a test keeps the two alike.
function connect(url) {
  const source = new EventSource(url);
  source.onopen = opened;
  source.onerror = failed;
  source.addEventListener("tick", ticked);
  source.addEventListener("DUPLICATED_CONNECTION", ended);
  source.addEventListener("DUPLICATE_SESSION", ended);
  return source;
}

// What this tab knows. The four functions below keep it, draw() shows it.
const tab = {
  number: Math.min(Math.max(parseInt(new URLSearchParams(location.search).get("tab"), 10) || 1, 1), 99),
  source: null, // the EventSource; window.__source is the same
  state: "connecting", // then live, superseded, rejected, ended or closed
  ticks: 0, // received by this tab
  stream: "", // the backend's name for the stream
  open: null, // streams the backend has open for this browser
  errors: [], // when onerror fired, and the readyState it met
  ending: null, // the guard's event, and when it came
  released: null, // the backend's account, once the stream is gone from it
  takenBack: false, // "Use here" was pressed
  tokenless: false, // the backend has seen no cookie
};

function opened(e) {
  if (e.target !== tab.source) return;
  log("open", "plain");
  draw();
}

function ticked(e) {
  if (e.target !== tab.source) return;
  const data = JSON.parse(e.data);
  tab.ticks++;
  tab.stream = data.stream;
  tab.open = data.open;
  tab.ending = null;
  tab.released = null;
  tab.state = "live";
  log(e.type, "tick", e.data);
  scope.beat();
  draw();
}

// ended shows what the guard has said. It does not close the EventSource: the
// event's id stops it, one reconnect later.
function ended(e) {
  if (e.target !== tab.source) return;
  tab.ending = { ...JSON.parse(e.data), name: e.type, id: e.lastEventId, at: new Date(), stream: tab.stream };
  tab.state = { DUPLICATED_CONNECTION: "superseded", DUPLICATE_SESSION: "rejected" }[e.type] || "ended";
  log(e.type, "told", e.data);
  scope.stop();
  draw();
  askBackend(tab.ending);
}

function failed(e) {
  if (e.target !== tab.source) return;
  tab.errors.push({ at: new Date(), readyState: tab.source.readyState });
  log("error", "plain", `readyState ${readyState()}`);
  if (tab.source.readyState === EventSource.CLOSED) tab.state = "closed";
  else if (!tab.ending) tab.state = "connecting";
  scope.stop();
  draw();
  if (tab.state === "closed") askBackend(tab.ending);
}

// start makes the EventSource, at first and for "Use here", where the guard is told
// that a person asks for it. The one before it, if any, is left alone: it comes to
// rest, and is listened to no longer.
function start(url) {
  Object.assign(tab, { state: "connecting", stream: "", errors: [], ending: null, released: null });
  tab.source = window.__source = connect(url);
  draw();
}

// askBackend asks what the backend holds for this browser, a few times if need
// be, until the ended stream is no longer among it.
async function askBackend(ending, tries = 10) {
  let held;
  try {
    const answer = await fetch("/state");
    tab.tokenless = answer.status === 401;
    if (!answer.ok) return draw();
    held = await answer.json();
  } catch {
    return; // no backend, no account
  }
  if (ending !== tab.ending) return;
  tab.open = held.open;
  if (ending && ending.stream) {
    if (!held.streams.includes(ending.stream)) tab.released = { at: new Date(), ...held, ...tab.released };
    else if (tries > 1) setTimeout(askBackend, 300, ending, tries - 1);
  }
  draw();
}

// From here on: drawing.

const $ = (id) => document.getElementById(id);
const seconds = (date) => date.toTimeString().slice(0, 8);
const clock = (date) => seconds(date) + "." + String(date.getMilliseconds()).padStart(3, "0");
const readyState = () => tab.source.readyState + " " + ["CONNECTING", "OPEN", "CLOSED"][tab.source.readyState];
const times = (n) => (n === 1 ? "once" : n === 2 ? "twice" : n + " times");
const short = (id) => (id.length > 24 ? id.slice(0, 23) + "…" : id);

const calm = matchMedia("(prefers-reduced-motion: reduce)");

function draw() {
  const { state, ending } = tab;
  const words = wording();
  document.body.dataset.state = state;
  document.title = `${words.mark} ${words.status} · tab ${tab.number} · sse_guard`;
  $("icon").href = state === "live" || state === "connecting" ? "/live.svg" : "/ended.svg";
  say($("announce"), words.title ? `${words.status}. ${words.title}` : words.status);

  say($("status"), words.status);
  say($("tab"), `tab ${tab.number}`);
  say($("stream"), tab.stream && `stream ${tab.stream}`);
  say($("ticks"), String(tab.ticks));
  say($("ready-state"), readyState());
  say($("errors"), tab.errors.length === 1 ? "1 time" : tab.errors.length + " times");
  say($("open"), tab.open === null ? "–" : `${tab.open} open`);

  const over = Boolean(ending) || state === "closed";
  $("invite").hidden = over;
  $("panel").hidden = !over;
  if (over) drawPanel(words);
  else drawInvitation();
  drawTimeline();
}

// wording says in words what the state is. A title is for a tab without stream.
function wording() {
  const { state, ending } = tab;
  if (state === "connecting") return { mark: "○", status: "Connecting" };
  if (state === "live") return { mark: "●", status: "Live" };
  if (!ending) {
    return {
      mark: "■", status: "Closed", title: "The stream was refused.",
      text: tab.tokenless
        ? "This browser sent no cookie, and the cookie carries this page’s token. If it blocks cookies, allow them here and try again."
        : "The server answered with an error status, and that ends an EventSource for good.",
      button: "Try again",
    };
  }
  if (ending.reason === "parked") {
    return {
      mark: "◆", status: "Waiting", title: "A newer tab has the stream.",
      text: "This tab came back again and again, so the guard keeps its request waiting, without the backend. It goes on by itself once the newer tab leaves.",
    };
  }
  switch (ending.name) {
    case "DUPLICATED_CONNECTION":
      return {
        mark: "■", status: state === "closed" ? "Closed" : "Taken over", title: "A newer tab has the stream now.",
        text: "This one was told so by an event, before its stream ended.",
        button: "Use here",
      };
    case "DUPLICATE_SESSION":
      return {
        mark: "◆", status: state === "closed" ? "Closed" : "Waiting", title: "Another tab holds the stream, and keeps it.",
        text: "This guard protects the first tab (policy reject). The other tab noticed nothing of this request. EventSource asks again by itself, and gets the stream when the other tab leaves.",
        button: state === "closed" ? "Try again" : "",
      };
    default:
      return {
        mark: "■", status: state === "closed" ? "Closed" : "Ended", title: "The stream was ended by an administrator.",
        text: "This tab was told so by an event, before its stream ended.",
        button: "Connect again",
      };
  }
}

function drawInvitation() {
  const hint = tab.takenBack
    ? ["The stream is back in this tab.", "The other tab has been told, and comes to rest in its turn."]
    : tab.number > 1
      ? ["This tab has the stream now.", `Look at tab ${tab.number - 1}: it was told why, and its EventSource comes to rest.`]
      : ["Now open this page again.", "This tab will lose its stream, and its title will tell you so."];
  say($("hint-title"), hint[0]);
  say($("hint"), hint[1]);
  // Tab 1 looks ahead to tab 2, unless the stream has come back to it.
  const newer = tab.takenBack ? tab.number : Math.max(tab.number, 2);
  say($("strip-older"), tab.takenBack ? "■ Taken over" : `■ Taken over · tab ${newer - 1}`);
  say($("strip-newer"), `● Live · tab ${newer}`);
  say($("address"), location.host + (newer > 1 ? `/?tab=${newer}` : "/"));
}

function drawPanel(words) {
  const { ending } = tab;
  say($("panel-title"), words.title);
  say($("explanation"), words.text);
  $("event").hidden = !ending;
  if (ending) {
    say($("code"), ending.name);
    say($("reason"), ending.reason);
    say($("message"), ending.message);
    say($("received"), clock(ending.at));
    say($("last"), ending.lastEventId || "");
    $("last-row").hidden = !ending.lastEventId;
  }
  $("again").hidden = !words.button;
  say($("use-here"), words.button || "");
  $("use-here-hint").hidden = words.button !== "Use here";
}

// The steps as they stand before anything has happened.
const plan = new Map([...document.querySelectorAll(".timeline li")].map((li) => [li.id, li.innerHTML]));

function drawTimeline() {
  const { ending, errors, released, state } = tab;
  // A refusal and a parked stream take another course, and have no steps to show.
  const other = ending ? ending.name === "DUPLICATE_SESSION" || ending.reason === "parked" : state === "closed";
  $("course").hidden = other;
  document.querySelector(".story").classList.toggle("single", other);
  if (other) return;

  const closed = ending && state === "closed" ? errors.at(-1) : null;
  say($("course-title"), ending ? "What happened" : "What happens to the older tab");
  const cause = { superseded: "A newer tab connected", replaced: "This client connected again" };
  step("step-newer", ending && {
    title: cause[ending.reason] || "An administrator ended the stream", at: seconds(new Date(ending.time)), detail: "by the guard’s clock",
  });
  step("step-told", ending && {
    title: "The guard ended this stream with an event", at: clock(ending.at), detail: ending.name,
  });
  step("step-released", released && {
    title: "The backend let go of it", at: clock(released.at),
    detail: `stream ${ending.stream} is gone: ${released.opened} opened, ${released.closed} closed`,
  });
  step("step-again", closed && {
    title: "EventSource reconnected by itself", at: clock(closed.at), detail: `Last-Event-ID: ${short(ending.id)}`,
  });
  step("step-closed", closed && {
    title: "The guard answered 204", at: clock(closed.at), detail: `readyState ${readyState()}`,
  });
  const next = ending && document.querySelector(".timeline li:not(.done)");
  for (const li of document.querySelectorAll(".timeline li")) li.classList.toggle("next", li === next);

  $("verdict").hidden = !closed;
  say($("verdict"), closed ? verdict() : "");
}

// step shows one step as planned, or, once it is done, as past.
function step(id, past) {
  const li = $(id);
  if (li.classList.toggle("done", Boolean(past))) {
    const time = document.createElement("time");
    time.textContent = past.at;
    say(li.querySelector("b"), past.title);
    li.querySelector("small").replaceChildren(time, " ", past.detail);
  } else if (li.innerHTML !== plan.get(id)) {
    li.innerHTML = plan.get(id);
  }
}

// verdict sums up. A script cannot see a reconnect's status, so it says who can.
function verdict() {
  const n = tab.errors.length;
  const why = n === 2 ? ": when the stream ended, and when the reconnect was answered" : "";
  return `The page did nothing for this. onerror fired ${times(n)}${why}. It will not fire again. The 204 itself is in the browser’s network panel.`;
}

function log(name, kind, data) {
  const entry = document.createElement("li");
  entry.className = kind;
  for (const [tag, text] of [["time", clock(new Date())], ["b", name], ["code", data]]) {
    if (!text) continue;
    const part = document.createElement(tag);
    part.textContent = text;
    entry.append(part);
  }
  $("log").prepend(entry);
  while ($("log").childElementCount > 200) $("log").lastElementChild.remove();
}

// say sets a text only where it differs, so that nothing is read out twice.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// scope draws the ticks as a line that glides to the left, one bump a tick.
const scope = {
  perSecond: 26, // pixels
  runs: [], // one for each time the stream was live: its start, ticks and end, in seconds

  beat() {
    const now = performance.now() / 1000;
    let run = this.runs.at(-1);
    if (!run || run.to !== null) this.runs.push(run = { from: now - .5, ticks: [], to: null });
    run.ticks.push(now);
    this.forget(now);
    this.paint();
    this.glide(calm.matches ? now + .4 : now, now + (calm.matches ? .4 : 1));
    if (!calm.matches) $("ring").animate([{ opacity: .8, r: "5px" }, { opacity: 0, r: "17px" }], { duration: 900, easing: "ease-out" });
  },

  stop() {
    const run = this.runs.at(-1);
    if (!run || run.to !== null) return;
    run.to = Math.max(performance.now() / 1000, run.ticks.at(-1) + .4); // after its last bump
    this.paint();
    this.glide(run.to + .1, run.to + .1); // the mark, too, is in the picture
  },

  // forget drops what has long left the picture.
  forget(now) {
    const oldest = now - 60;
    this.runs = this.runs.filter((run) => run.to === null || run.to > oldest);
    for (const run of this.runs) {
      run.ticks = run.ticks.filter((at) => at > oldest);
      run.from = Math.max(run.from, oldest);
    }
  },

  glide(from, to) {
    const at = (t) => ({ transform: `translateX(${-t * this.perSecond}px)` });
    const trace = $("trace");
    for (const old of trace.getAnimations()) old.cancel();
    trace.style.transform = at(to).transform;
    if (from !== to) trace.animate([at(from), at(to)], { duration: (to - from) * 1000, easing: "linear" });
  },

  paint() {
    $("trace").replaceChildren(...this.runs.flatMap((run) => this.shapes(run)));
  },

  shapes(run) {
    const x = (t) => (t * this.perSecond).toFixed(1);
    let d = `M${x(run.from)} 0`;
    let free = -Infinity;
    for (const at of run.ticks) {
      const left = Math.max(at * this.perSecond - 8, free); // ticks that come in a bunch stand side by side
      d += `L${left.toFixed(1)} 0c4 0 4 -30 8 -30s4 30 8 30`;
      free = left + 16;
    }
    // A live line goes on beyond the picture's edge, and glides into it.
    if (run.to === null) d += `h${3 * this.perSecond}`;
    else d += `L${x(run.to)} 0`;
    const line = shape("path", { d, class: run.to === null ? "trace now" : "trace" });
    if (run.to === null) return [line];
    return [line, shape("rect", { class: "stop", x: run.to * this.perSecond - 2, y: -17, width: 4, height: 34, rx: 2 })];
  },
};

function shape(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

$("second").href = `/?tab=${tab.number + 1}`;
if (tab.number > 1) say($("second"), "Open another tab");
$("use-here").onclick = () => {
  if (tab.tokenless) return location.reload(); // the page brings the cookie
  tab.takenBack = Boolean(tab.ending);
  start("/events?sse_guard=take");
  $("status").focus(); // the button is gone now
};
$("beside").hidden = false; // only where there is room, and a script
$("beside").onclick = () => {
  const width = Math.min(560, Math.round(screen.availWidth / 2));
  const left = (screen.availLeft || 0) + screen.availWidth - width;
  window.open($("second").href, "_blank", `popup,noopener,width=${width},height=${screen.availHeight},left=${left},top=0`);
};
// Someone who comes back to an ended tab sees what the backend holds by now.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && tab.state !== "live") askBackend(tab.ending);
});

start("/events");
