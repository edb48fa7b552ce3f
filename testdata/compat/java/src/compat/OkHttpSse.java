package compat;

import java.time.Duration;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.sse.EventSource;
import okhttp3.sse.EventSourceListener;
import okhttp3.sse.EventSources;

/** com.squareup.okhttp3:okhttp-sse, which opens one stream and never another. */
public final class OkHttpSse {
	private static EventSource source;

	public static void main(String[] args) throws Exception {
		var client = new OkHttpClient.Builder().readTimeout(Duration.ZERO).build();
		var request = new Request.Builder().url(Compat.EVENTS).build();
		Compat.run(() -> {
			if (source != null) {
				source.cancel();
			}
			source = EventSources.createFactory(client).newEventSource(request, new EventSourceListener() {
				@Override
				public void onEvent(EventSource source, String id, String type, String data) {
					Compat.event(type, data, id);
				}

				@Override
				public void onClosed(EventSource source) {
					Compat.end();
				}

				@Override
				public void onFailure(EventSource source, Throwable t, Response response) {
					Compat.error(t != null ? t : new Exception("status " + response.code()));
				}
			});
		});
	}
}
