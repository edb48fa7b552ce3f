package compat;

import java.time.Duration;
import org.springframework.core.ParameterizedTypeReference;
import org.springframework.http.MediaType;
import org.springframework.http.codec.ServerSentEvent;
import org.springframework.web.reactive.function.client.WebClient;
import reactor.core.Disposable;
import reactor.util.retry.Retry;

/** Spring WebFlux's WebClient, which asks again after an error as its users have it do, and not after an end. */
public final class WebFlux {
	private static Disposable subscription;

	public static void main(String[] args) throws Exception {
		var client = WebClient.create();
		Compat.run(() -> {
			if (subscription != null) {
				subscription.dispose();
			}
			subscription = client.get()
					.uri(java.net.URI.create(Compat.EVENTS))
					.accept(MediaType.TEXT_EVENT_STREAM)
					.retrieve()
					.bodyToFlux(new ParameterizedTypeReference<ServerSentEvent<String>>() {})
					.retryWhen(Retry.fixedDelay(Long.MAX_VALUE, Duration.ofSeconds(1)).doBeforeRetry(r -> Compat.error(r.failure())))
					.subscribe(e -> Compat.event(e.event(), e.data(), e.id()), Compat::error, Compat::end);
		});
	}
}
