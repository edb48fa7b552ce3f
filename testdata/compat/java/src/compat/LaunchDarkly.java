package compat;

import com.launchdarkly.eventsource.ConnectStrategy;
import com.launchdarkly.eventsource.ErrorStrategy;
import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.MessageEvent;
import java.net.URI;

/** com.launchdarkly:okhttp-eventsource. */
public final class LaunchDarkly {
	private static EventSource source;

	public static void main(String[] args) throws Exception {
		Compat.run(() -> {
			if (source != null) {
				source.close();
			}
			source = new EventSource.Builder(ConnectStrategy.http(URI.create(Compat.EVENTS)))
					.errorStrategy(ErrorStrategy.alwaysContinue())
					.build();
			var mine = source;
			var reader = new Thread(() -> {
				try {
					for (MessageEvent e : mine.messages()) {
						Compat.event(e.getEventName(), e.getData(), e.getLastEventId());
					}
					Compat.end();
				} catch (RuntimeException e) {
					Compat.error(e);
				}
			});
			reader.setDaemon(true);
			reader.start();
		});
	}
}
