package compat;

import java.io.BufferedReader;
import java.io.InputStreamReader;

/**
 * What the Java clients share: they read what to do from their environment and standard input, and print what they
 * see as JSON lines. See ../../../README.md.
 */
final class Compat {
	static final String EVENTS = System.getenv("COMPAT_URL") + "/events?token=" + System.getenv("COMPAT_TOKEN") + "&n="
			+ System.getenv("COMPAT_N");

	private Compat() {}

	interface Connect {
		void connect() throws Exception;
	}

	/** Connects now, and once more for each line of standard input. */
	static void run(Connect connect) throws Exception {
		attempt(connect);
		var in = new BufferedReader(new InputStreamReader(System.in));
		while (in.readLine() != null) {
			attempt(connect);
		}
		System.exit(0);
	}

	private static void attempt(Connect connect) {
		try {
			connect.connect();
		} catch (Exception e) {
			error(e);
		}
	}

	static void event(String name, String data, String id) {
		print("{\"saw\":\"event\",\"name\":" + quote(name == null ? "message" : name) + ",\"data\":" + quote(data)
				+ ",\"id\":" + quote(id) + "}");
	}

	static void error(Throwable e) {
		print("{\"saw\":\"error\",\"text\":" + quote(String.valueOf(e)) + "}");
	}

	static void end() {
		print("{\"saw\":\"end\"}");
	}

	private static synchronized void print(String line) {
		System.out.println(line);
	}

	private static String quote(String s) {
		if (s == null) {
			return "\"\"";
		}
		var quoted = new StringBuilder("\"");
		for (char c : s.toCharArray()) {
			if (c < ' ' || c == '"' || c == '\\' || c > '~') {
				quoted.append(String.format("\\u%04x", (int) c));
			} else {
				quoted.append(c);
			}
		}
		return quoted.append('"').toString();
	}
}
