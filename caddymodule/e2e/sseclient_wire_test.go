package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	quichttp3 "github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"
)

// streamServer answers with two events, then ends as the path says.
type streamServer struct {
	cut chan struct{} // closed by the client when /cut may cut
}

func (s streamServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, "retry: 1234\nid: a\ndata: 1\n\n")
	fmt.Fprintf(w, ": proto %s\n\ndata: 2\n\n", r.Proto)
	_ = http.NewResponseController(w).Flush()
	switch r.URL.Path {
	case "/torn":
		fmt.Fprint(w, "data: 3")
	case "/cut":
		<-s.cut // a reset may overtake what was sent before
		panic(http.ErrAbortHandler)
	case "/endless":
		<-r.Context().Done()
	}
}

// serve starts a server for the protocol and returns its URL.
func serve(t *testing.T, p protocol, handler http.Handler) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	switch p {
	case http1:
		server.Start()
	case h2c:
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
	case http2, http3:
		server.EnableHTTP2 = true
		server.StartTLS()
	}
	t.Cleanup(server.Close)
	if p == http3 {
		return serveHTTP3(t, server.TLS.Certificates, handler)
	}
	return server.URL
}

func serveHTTP3(t *testing.T, certificates []tls.Certificate, handler http.Handler) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &quichttp3.Server{Handler: handler, TLSConfig: quichttp3.ConfigureTLSConfig(&tls.Config{Certificates: certificates})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(conn) }()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
		require.NoError(t, conn.Close())
	})
	return "https://" + conn.LocalAddr().String()
}

var protocols = map[protocol]string{http1: "HTTP/1.1", http2: "HTTP/2.0", h2c: "HTTP/2.0", http3: "HTTP/3.0"}

func TestSSEClient_ReadsEventsOverEveryProtocol(t *testing.T) {
	for p, proto := range protocols {
		t.Run(string(p), func(t *testing.T) {
			url := serve(t, p, streamServer{})
			s := newSSEClient(t, p).open(t, url)
			require.Equal(t, http.StatusOK, s.Status)
			require.Equal(t, proto, s.Proto)
			require.Equal(t, "text/event-stream", s.Header.Get("Content-Type"))
			require.Equal(t, sseEvent{ID: "a", Type: "message", Data: "1", Retry: ms(1234)}, s.next(t))
			require.Equal(t, []sseEvent{{ID: "a", Type: "message", Data: "2", Comments: []string{"proto " + proto}}}, s.rest(t))
			require.True(t, s.end.clean(), "%v", s.end.Err)
			require.Equal(t, "retry: 1234\nid: a\ndata: 1\n\n: proto "+proto+"\n\ndata: 2\n\n", string(s.bytes()))
		})
	}
}

func TestSSEClient_TellsACutFromACleanEnd(t *testing.T) {
	for p := range protocols {
		t.Run(string(p), func(t *testing.T) {
			server := streamServer{cut: make(chan struct{})}
			url := serve(t, p, server)
			client := newSSEClient(t, p)

			cut := client.open(t, url+"/cut")
			cut.next(t)
			cut.next(t)
			close(server.cut)
			require.Empty(t, cut.rest(t))
			require.Error(t, cut.end.Err)
			require.NotErrorIs(t, cut.end.Err, errClientLeft)

			torn := client.open(t, url+"/torn")
			require.Len(t, torn.rest(t), 2)
			require.True(t, torn.end.clean(), "%v", torn.end.Err)
			require.True(t, torn.end.Torn)

			left := client.open(t, url+"/endless")
			left.next(t)
			require.False(t, left.ended())
			left.close()
			require.ErrorIs(t, left.end.Err, errClientLeft)
			require.False(t, left.end.Torn)
		})
	}
}

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
			es := newEventSource(t, newSSEClient(t, http1), serve(t, http1, server))
			require.Equal(t, test.statuses, es.waitClosed(t))
			require.Equal(t, len(test.statuses), es.count())
			require.Equal(t, "CLOSED", es.readyState())
			for _, id := range test.lastIDs {
				require.Equal(t, id, <-server.lastIDs)
			}
			var data []string
			for e := range es.events {
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
	es := newEventSource(t, newSSEClient(t, http1), serve(t, http1, server))
	require.Equal(t, []int{200, 200, 204}, es.waitClosed(t))
	require.GreaterOrEqual(t, time.Since(start), 2*told, "it waits that long before each of its two returns")
}

func TestEventSource_ComesBackAfterAConnectionError(t *testing.T) {
	// A handler that answers nothing and closes the connection.
	hangUp := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	server := newConnections(hangUp, hangUp, sends("data: x\n\n"), answers(204))
	es := newEventSource(t, newSSEClient(t, http1), serve(t, http1, server))
	require.Equal(t, "x", es.next(t).Data)
	require.Equal(t, []int{200, 204}, es.waitClosed(t))
	require.Equal(t, 4, es.count())
}

func TestEventSource_OpensAndCloses(t *testing.T) {
	es := newEventSource(t, newSSEClient(t, http1), serve(t, http1, streamServer{})+"/endless")
	es.next(t)
	require.Equal(t, "OPEN", es.readyState())
	es.close()
	require.Equal(t, "CLOSED", es.readyState())
	require.Equal(t, 1, es.count())
}
