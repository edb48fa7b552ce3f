package spring;

import jakarta.servlet.http.HttpSession;
import java.io.IOException;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.http.MediaType;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.servlet.mvc.method.annotation.SseEmitter;

/** A Spring Boot application of the usual kind: one emitter per session, in a map, as README's recipe has it. */
@SpringBootApplication
@RestController
public class Application {
	/** Those that the application still sends to. */
	private final Map<String, SseEmitter> emitters = new ConcurrentHashMap<>();

	/** How many the servlet container still keeps. */
	private final AtomicInteger open = new AtomicInteger();

	public static void main(String[] args) {
		SpringApplication.run(Application.class, args);
	}

	@GetMapping("/login")
	String login(HttpSession session) {
		return session.getId();
	}

	@GetMapping(path = "/events", produces = MediaType.TEXT_EVENT_STREAM_VALUE)
	SseEmitter events(HttpSession session) throws IOException {
		String user = session.getId();
		var emitter = new SseEmitter(0L);
		open.incrementAndGet();
		emitter.onCompletion(() -> {
			open.decrementAndGet();
			emitters.remove(user, emitter);
		});
		var old = emitters.put(user, emitter);
		if (old != null) {
			old.complete();
		}
		emitter.send(SseEmitter.event().id("1").data("hello"));
		return emitter;
	}

	@GetMapping("/open")
	int open() {
		return open.get();
	}
}
