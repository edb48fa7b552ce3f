// What the Node clients share: they read what to do from their environment and
// standard input, and print what they see as JSON lines. See ../../README.md.
import { createInterface } from "node:readline"

export const { COMPAT_URL: url, COMPAT_TOKEN: token, COMPAT_N: n } = process.env
export const events = `${url}/events?token=${token}&n=${n}`
export const headers = { "X-Instance": n }

export const saw = (what, more = {}) => process.stdout.write(JSON.stringify({ saw: what, ...more }) + "\n")
export const event = e => saw("event", { name: e.type ?? e.event ?? "message", data: String(e.data), id: e.lastEventId ?? e.id ?? "" })
export const error = e => saw("error", { text: String(e?.message ?? e) + " " + JSON.stringify(e?.error ?? e?.data ?? "") })

// run connects now, and once more for each line of standard input.
export function run(connect) {
	const attempt = async () => {
		try {
			await connect()
		} catch (e) {
			error(e)
		}
	}
	createInterface({ input: process.stdin }).on("line", attempt).on("close", () => process.exit(0))
	process.on("unhandledRejection", error)
	attempt()
}
