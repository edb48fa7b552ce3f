package harness

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

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
func serve(t *testing.T, p Protocol, handler http.Handler) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	switch p {
	case HTTP1:
		server.Start()
	case H2C:
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
	case HTTP2, HTTP3:
		server.EnableHTTP2 = true
		server.StartTLS()
	}
	t.Cleanup(server.Close)
	if p == HTTP3 {
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

var protocols = map[Protocol]string{HTTP1: "HTTP/1.1", HTTP2: "HTTP/2.0", H2C: "HTTP/2.0", HTTP3: "HTTP/3.0"}

func TestClient_ReadsEventsOverEveryProtocol(t *testing.T) {
	for p, proto := range protocols {
		t.Run(string(p), func(t *testing.T) {
			url := serve(t, p, streamServer{})
			s := NewClient(t, p).Open(t, url)
			require.Equal(t, http.StatusOK, s.Status)
			require.Equal(t, proto, s.Proto)
			require.Equal(t, "text/event-stream", s.Header.Get("Content-Type"))
			require.Equal(t, Event{ID: "a", Type: "message", Data: "1", Retry: ms(1234)}, s.Next(t))
			require.Equal(t, []Event{{ID: "a", Type: "message", Data: "2", Comments: []string{"proto " + proto}}}, s.Rest(t))
			require.True(t, s.Wait(t).Clean(), "%v", s.Wait(t).Err)
			require.Equal(t, "retry: 1234\nid: a\ndata: 1\n\n: proto "+proto+"\n\ndata: 2\n\n", string(s.Bytes()))
		})
	}
}

func TestClient_TellsACutFromACleanEnd(t *testing.T) {
	for p := range protocols {
		t.Run(string(p), func(t *testing.T) {
			server := streamServer{cut: make(chan struct{})}
			url := serve(t, p, server)
			client := NewClient(t, p)

			cut := client.Open(t, url+"/cut")
			cut.Next(t)
			cut.Next(t)
			close(server.cut)
			require.Empty(t, cut.Rest(t))
			require.Error(t, cut.Wait(t).Err)
			require.NotErrorIs(t, cut.Wait(t).Err, ErrClientLeft)

			torn := client.Open(t, url+"/torn")
			require.Len(t, torn.Rest(t), 2)
			require.True(t, torn.Wait(t).Clean(), "%v", torn.Wait(t).Err)
			require.True(t, torn.Wait(t).Torn)

			left := client.Open(t, url+"/endless")
			left.Next(t)
			require.False(t, left.Ended())
			left.Close()
			require.ErrorIs(t, left.Wait(t).Err, ErrClientLeft)
			require.False(t, left.Wait(t).Torn)
		})
	}
}
