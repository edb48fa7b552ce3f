from sseclient import SSEClient

import compat


def connect():
    for e in SSEClient(compat.EVENTS):
        compat.event(e.event, e.data, e.id)


compat.run(connect)
