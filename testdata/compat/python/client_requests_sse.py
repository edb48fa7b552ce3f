from requests_sse import EventSource

import compat


def connect():
    with EventSource(compat.EVENTS, timeout=None) as source:
        for e in source:
            compat.event(e.type, e.data, e.last_event_id)


compat.run(connect)
