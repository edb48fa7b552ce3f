package harness

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// connections is a server that answers each connect by the next of its handlers
// and notes the Last-Event-ID that came with it.
type connections struct {
	handlers chan http.HandlerFunc
	lastIDs  chan string
}

func newConnections(handlers ...http.HandlerFunc) *connections {
	c := &connections{make(chan http.HandlerFunc, len(handlers)), make(chan string, len(handlers))}
	for _, handler := range handlers {
		c.handlers <- handler
	}
	close(c.handlers)
	return c
}

func (c *connections) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler, ok := <-c.handlers
	if !ok {
		handler = answers(http.StatusGone) // one connect more than the test expects
	} else {
		c.lastIDs <- r.Header.Get("Last-Event-ID")
	}
	handler(w, r)
}

func sends(stream string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		fmt.Fprint(w, stream)
	}
}

func answers(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

func cuts(stream string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		sends(stream)(w, r)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func TestEventSource_ComesBackAsABrowserDoes(t *testing.T) {
	tests := []struct {
		name     string
		handlers []http.HandlerFunc
		lastIDs  []string
		statuses []int
		data     []string
	}{
		{
			name:     "after a clean end, with the last id",
			handlers: []http.HandlerFunc{sends("id: 1\ndata: a\n\nid: 2\ndata: b\n\n"), sends("data: c\n\n"), answers(204)},
			lastIDs:  []string{"", "2", "2"},
			statuses: []int{200, 200, 204},
			data:     []string{"a", "b", "c"},
		},
		{
			name:     "after a cut, without the id of a torn event",
			handlers: []http.HandlerFunc{cuts("id: 1\ndata: a\n\nid: 2\ndata"), answers(204)},
			lastIDs:  []string{"", "1"},
			statuses: []int{200, 204},
			data:     []string{"a"},
		},
		{
			name:     "never after 401",
			handlers: []http.HandlerFunc{answers(401)},
			lastIDs:  []string{""},
			statuses: []int{401},
		},
		{
			name:     "never after 503",
			handlers: []http.HandlerFunc{sends("id: 1\n\n"), answers(503)},
			lastIDs:  []string{"", "1"},
			statuses: []int{200, 503},
		},
		{
			name: "never after a 200 that is no event stream",
			handlers: []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				fmt.Fprint(w, "data: not an event\n\n")
			}},
			lastIDs:  []string{""},
			statuses: []int{200},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := newConnections(test.handlers...)
			es := NewEventSource(t, NewClient(t, HTTP1), serve(t, HTTP1, server))
			require.Equal(t, test.statuses, es.WaitClosed(t))
			require.Equal(t, len(test.statuses), es.Count())
			require.Equal(t, "CLOSED", es.ReadyState())
			for _, id := range test.lastIDs {
				require.Equal(t, id, <-server.lastIDs)
			}
			var data []string
			for e := range es.Events() {
				data = append(data, e.Data)
			}
			require.Equal(t, test.data, data)
		})
	}
}

func TestEventSource_KeepsTheRetryItWasTold(t *testing.T) {
	const told = 300 * time.Millisecond
	server := newConnections(sends(fmt.Sprintf("retry: %d\n\n", told.Milliseconds())), sends("data: x\n\n"), answers(204))
	start := time.Now()
	es := NewEventSource(t, NewClient(t, HTTP1), serve(t, HTTP1, server))
	require.Equal(t, []int{200, 200, 204}, es.WaitClosed(t))
	require.GreaterOrEqual(t, time.Since(start), 2*told, "it waits that long before each of its two returns")
}

func TestEventSource_ComesBackAfterAConnectionError(t *testing.T) {
	// A handler that answers nothing and closes the connection.
	hangUp := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	server := newConnections(hangUp, hangUp, sends("data: x\n\n"), answers(204))
	es := NewEventSource(t, NewClient(t, HTTP1), serve(t, HTTP1, server))
	require.Equal(t, "x", es.Next(t).Data)
	require.Equal(t, []int{200, 204}, es.WaitClosed(t))
	require.Equal(t, 4, es.Count())
}

func TestEventSource_OpensAndCloses(t *testing.T) {
	es := NewEventSource(t, NewClient(t, HTTP1), serve(t, HTTP1, streamServer{})+"/endless")
	es.Next(t)
	require.Equal(t, "OPEN", es.ReadyState())
	es.Close()
	require.Equal(t, "CLOSED", es.ReadyState())
	require.Equal(t, 1, es.Count())
}
