from ld_eventsource import SSEClient
from ld_eventsource.actions import Event
from ld_eventsource.config import ConnectStrategy, ErrorStrategy

import compat

source = None


def connect():
    global source
    if source:
        source.close()
    source = SSEClient(ConnectStrategy.http(compat.EVENTS), error_strategy=ErrorStrategy.always_continue())
    for e in source.all:
        if isinstance(e, Event):
            compat.event(e.event, e.data, e.last_event_id)


compat.run(connect)
