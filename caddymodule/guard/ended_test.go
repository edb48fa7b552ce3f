package guard

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// witness keeps what it is told of streams that open and close.
type witness struct {
	mu       sync.Mutex
	admitted []registry.StreamID
	ended    []event.Ended
}

func (w *witness) Observe(e event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e := e.(type) {
	case event.Admitted:
		w.admitted = append(w.admitted, e.Stream.Holder.ID)
	case event.Ended:
		w.ended = append(w.ended, e)
	}
}

// held lists the streams that are over, and had held their key.
func (w *witness) held() (held []registry.StreamID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.ended {
		if e.Held {
			held = append(held, e.Stream.Holder.ID)
		}
	}
	return held
}

// revokeAll has an administrator end all streams of the outermost guard's zone.
func (s *site) revokeAll() {
	for _, row := range s.rows() {
		s.guards[0].Zone.Streams.End(row.Holder.ID, registry.Ending{Reason: reason.Revoked})
	}
}

// reasons are those of the streams that are over, in order.
func (w *witness) reasons() (reasons []reason.Reason) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.ended {
		reasons = append(reasons, e.Reason)
	}
	return reasons
}

func watchedBy(w *witness) func(*Config) {
	return func(g *Config) { g.Observers = event.Observers{w} }
}

func TestEnded_TellsOnceWhyAStreamIsOver(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*Config)
		end       func(*site)
		want      []reason.Reason // in the order of the ends
	}{
		"the client leaves": {tended, func(s *site) { s.open(token("ann")).leave() }, []reason.Reason{event.Left}},
		"also under reject": {rejecting, func(s *site) { s.open(token("ann")).leave() }, []reason.Reason{event.Left}},
		"the backend finishes": {tended, func(s *site) {
			s.backend.answer = func(w http.ResponseWriter, _ *http.Request) error {
				w.Header().Set("Content-Type", "text/event-stream")
				_, err := w.Write([]byte(hello))
				return err
			}
			s.open(token("ann"))
		}, []reason.Reason{event.Finished}},
		"the backend fails": {tended, func(s *site) {
			s.backend.answer = func(w http.ResponseWriter, _ *http.Request) error {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = w.Write([]byte(hello))
				panic(http.ErrAbortHandler) // as reverse_proxy does
			}
			s.open(token("ann"))
		}, []reason.Reason{event.Finished}},
		"superseded": {tended, func(s *site) {
			s.open(token("ann"))
			s.open(token("ann"))
		}, []reason.Reason{reason.Superseded}},
		"shutdown": {tended, func(s *site) {
			s.open(token("ann"))
			go s.guards[0].Zone.Drain(s.guards[0].Drain, s.guards[0].Logger)
			s.pass(10 * time.Second)
		}, []reason.Reason{reason.Shutdown}},
		"a refused newcomer": {rejecting, func(s *site) {
			s.open(token("ann"))
			s.open(token("ann")).leave()
		}, nil},
		"a parked newcomer": {parking, func(s *site) {
			s.open(token("ann"))
			s.open(token("ann")).leave()
		}, nil},
		"an untracked stream":              {tended, func(s *site) { s.open().leave() }, []reason.Reason{event.Left}},
		"an untracked one that is revoked": {tended, func(s *site) { s.open(); s.revokeAll() }, []reason.Reason{reason.Revoked}},
		"no stream at all":                 {tended, func(s *site) { s.open(token("ann"), method(http.MethodHead)).leave() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := new(witness)
			atSite(t, func(t *testing.T, s *site) {
				test.end(s)
				s.pass(time.Second)
				require.Equal(t, test.want, w.reasons())
				s.leaveAll()
				s.pass(time.Second)
				require.Equal(t, w.admitted, w.held(), "one for each that was admitted")
			}, all(test.configure, watchedBy(w)))
		})
	}
}

func TestEnded_TellsWhatWasRelayed(t *testing.T) {
	w := new(witness)
	atSite(t, func(t *testing.T, s *site) {
		c := s.open(token("ann"))
		s.pass(5 * time.Second)
		s.backend.say("more")
		c.leave()
		s.settle()
		require.Len(t, w.ended, 1)
		got := w.ended[0]
		require.Equal(t, "7", got.LastEventID, "the last that the application sent")
		require.Equal(t, uint64(2), got.Events)
		require.Equal(t, int64(len(hello+"data: more\n\n")), got.Bytes)
		require.Equal(t, 5*time.Second, got.Age)
		require.Equal(t, w.admitted[0], got.Stream.Holder.ID)
		require.Nil(t, got.Ending)
		require.False(t, got.Delivered)
	}, watchedBy(w))
}

func TestEnded_TellsHowTheGuardEndedTheStream(t *testing.T) {
	w := new(witness)
	atSite(t, func(t *testing.T, s *site) {
		s.open(token("ann"))
		s.revokeAll()
		s.settle()
		require.Len(t, w.ended, 1)
		require.Equal(t, &registry.Ending{Reason: reason.Revoked}, w.ended[0].Ending)
		require.True(t, w.ended[0].Delivered)
		require.True(t, w.ended[0].Held)
		require.Zero(t, s.guards[0].Zone.Streams.Len(), "the stream is listed no more when it is told")
	}, watchedBy(w))
}

// The feed and the metrics read the same event as the webhook.
func TestEnded_IsToldOnceToEachObserver(t *testing.T) {
	w := new(witness)
	atSite(t, func(t *testing.T, s *site) {
		l := event.NewListener(9)
		s.guards[0].Zone.Feed.Join(l)
		defer s.guards[0].Zone.Feed.Leave(l)
		s.open(token("ann"))
		s.revokeAll()
		s.settle()
		require.Len(t, l.Entries(), 2)
		require.Equal(t, event.WhatAdmitted, (<-l.Entries()).What)
		e := <-l.Entries()
		require.Equal(t, event.WhatEnded, e.What)
		require.Equal(t, reason.Revoked, e.Reason)
		require.Len(t, w.ended, 1)
	}, watchedBy(w))
}

// The guards of one request see different things of one end, and tell the same.
func TestEnded_GuardsOfOneRequestTellTheSameReason(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*site)
		want reason.Reason
	}{
		"the client leaves":    {func(s *site) { s.open(in("books", "ann")).leave() }, event.Left},
		"the outer guard ends": {func(s *site) { s.open(in("books", "ann")); s.open(in("books", "bob")) }, reason.Superseded},
		"the inner guard ends": {func(s *site) { s.open(in("books", "ann")); s.open(in("toys", "ann")) }, reason.Superseded},
		"the backend finishes": {func(s *site) {
			s.backend.answer = func(w http.ResponseWriter, _ *http.Request) error {
				w.Header().Set("Content-Type", "text/event-stream")
				_, err := w.Write([]byte(hello))
				return err
			}
			s.open(in("books", "ann"))
		}, event.Finished},
	} {
		t.Run(name, func(t *testing.T) {
			outside, inside := new(witness), new(witness)
			atSite(t, func(t *testing.T, s *site) {
				test.end(s)
				s.pass(2 * time.Second)
				require.Equal(t, []reason.Reason{test.want}, outside.reasons(), "outer")
				require.Equal(t, []reason.Reason{test.want}, inside.reasons(), "inner")
			}, perStore(watchedBy(outside)), perUser(watchedBy(inside)))
		})
	}
}
