package stream

import (
	"net/http"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Parking is how a refused newcomer waits: its response stays open, without an
// upstream, until it would be admitted. A client whose stream is open does not
// come back to ask again.
type Parking struct {
	// Notice is sent first.
	Notice []byte
	// Waiter tells when the newcomer would be admitted.
	Waiter registry.Waiter
	// Free asks the same again at each heartbeat: whoever was told first may
	// not have come back.
	Free func() bool
	// Heartbeat is the time between comment lines.
	Heartbeat time.Duration
	// Return is the retry that the client is told when it may come back.
	Return time.Duration
	// Drain is closed when all have to go; Later is the retry that they are told.
	Drain <-chan struct{}
	Later time.Duration
	// Connection is the client's; DeadAfter is how long it may acknowledge nothing.
	Connection Connection
	DeadAfter  time.Duration
}

// Park answers r with a parked stream, and returns when the client left or was
// told to come back. The caller has set what the header needs besides.
func Park(w http.ResponseWriter, r *http.Request, p Parking) {
	defer p.Waiter.Stop()
	defer p.Connection.TCP.Watch(p.DeadAfter)()
	rc := http.NewResponseController(w)
	send := func(b []byte) bool {
		_, err := w.Write(b)
		return err == nil && rc.Flush() == nil
	}

	SetHeader(w.Header())
	w.WriteHeader(http.StatusOK)
	if !send(p.Notice) {
		return
	}
	beat := time.NewTicker(p.Heartbeat)
	defer beat.Stop()
	retry := p.Return
	for free := false; !free; {
		select {
		case <-r.Context().Done():
			return
		case <-p.Waiter.Free():
			free = true
		case <-p.Drain:
			free, retry = true, p.Later
		case <-beat.C:
			free = p.Free()
			if !free && !send(heartbeat) {
				return
			}
		}
	}
	if b, err := (eventstream.Event{Retry: retry}).Append(nil); err == nil {
		send(b)
	}
}

// SetHeader sets the header of an event stream that the guard itself writes.
func SetHeader(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
}
