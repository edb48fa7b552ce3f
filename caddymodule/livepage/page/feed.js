// The page's event stream. It comes back by itself, whatever ended it.
const silence = 25_000; // the server sends something every 10 seconds
const pauses = [1000, 2000, 5000, 10_000];

// address is that of a file beside the page, without the name and password that the
// page's own address may have, which a script must not send.
export function address(name) {
  const url = new URL(name, location.href);
  url.username = url.password = url.hash = url.search = "";
  return url.href;
}

export class Feed {
  failed = 0; // tries since it was open

  constructor(handlers, connected) {
    Object.assign(this, { handlers, connected });
    addEventListener("online", () => this.open());
    addEventListener("pageshow", (e) => { if (e.persisted) this.open(); });
    addEventListener("pagehide", () => this.close());
    this.open();
  }

  close() {
    this.source?.close();
    clearTimeout(this.timer);
  }

  open() {
    this.close();
    this.source = new EventSource(address("feed"));
    for (const [name, handle] of Object.entries(this.handlers)) {
      this.source.addEventListener(name, (e) => {
        this.heard();
        handle(JSON.parse(e.data));
      });
    }
    this.source.addEventListener("error", () => this.again());
    this.timer = setTimeout(() => this.again(), silence);
  }

  heard() {
    this.failed = 0;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.again(), silence);
    this.connected(true);
  }

  again() {
    this.close();
    this.connected(false);
    this.timer = setTimeout(() => this.open(), pauses[Math.min(this.failed, pauses.length - 1)]);
    this.failed++;
  }
}
