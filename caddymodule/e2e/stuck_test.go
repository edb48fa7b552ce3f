package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	quichttp3 "github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// flood sends events as fast as they go, on /flood, nothing on /ping, and one every 20 ms
// elsewhere.
type flood struct {
	*httptest.Server

	floods  atomic.Int32
	written atomic.Int64
}

// waitStuck waits until the one flood is held up: nothing of it was written while others
// were answered, time and again, through the same Caddy. That buffers have filled, and not
// the machine has been busy with something else, is what that tells.
func (f *flood) waitStuck(t testing.TB, server *harness.Caddy) {
	t.Helper()
	client := harness.NewClient(t, harness.HTTP1)
	last, same := int64(-1), 0
	require.Eventually(t, func() bool {
		answer, err := client.HTTP.Get(server.URL + "/ping")
		if !assert.NoError(t, err) {
			return false
		}
		answer.Body.Close()
		now := f.written.Load()
		if now == last && now > 0 {
			same++
		} else {
			last, same = now, 0
		}
		return same == 30
	}, harness.Patience, 10*time.Millisecond)
}

func startFlood(t testing.TB) *flood {
	t.Helper()
	f := new(flood)
	event := "data: " + strings.Repeat("x", 8<<10) + "\n\n"
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ping" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		if r.URL.Path == "/flood" {
			f.floods.Add(1)
			defer f.floods.Add(-1)
			for r.Context().Err() == nil {
				n, err := io.WriteString(w, event)
				if err != nil {
					return
				}
				f.written.Add(int64(n))
			}
			return
		}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			_, _ = io.WriteString(w, "data: tick\n\n")
			w.(http.Flusher).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(f.Close)
	return f
}

const stuckSite = "sse_guard {\nend_timeout 300ms\n}\nreverse_proxy "

// TestStuckClient_IsCutWithinEndTimeout: a client that does not read is
// superseded all the same, and its upstream released.
func TestStuckClient_IsCutWithinEndTimeout(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			upstream := startFlood(t)
			server := harness.StartCaddyScheme(t, scheme, stuckSite+upstream.URL)
			_, address, _ := strings.Cut(server.URL, "://")
			var conn net.Conn
			conn, err := net.Dial("tcp", address)
			require.NoError(t, err)
			if scheme == "https" {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"})
			}
			defer conn.Close()
			_, err = fmt.Fprintf(conn, "GET /flood HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer alice\r\n\r\n")
			require.NoError(t, err)
			response, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
			require.NoError(t, err)
			defer response.Body.Close()
			upstream.waitStuck(t, server)

			supersedeStuck(t, upstream, server)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(harness.Patience)))
			_, err = io.Copy(io.Discard, response.Body)
			assert.Error(t, err, "the connection is cut")
		})
	}
}

// supersedeStuck opens the newer stream, and waits until the older one's
// upstream request is gone.
func supersedeStuck(t testing.TB, upstream *flood, server *harness.Caddy) {
	t.Helper()
	opened := time.Now()
	newer := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/flood", harness.WithBearer("alice"))
	newer.Next(t)
	assert.Less(t, time.Since(opened), 5*time.Second, "the newcomer waits no longer than it must")
	require.Eventually(t, func() bool { return upstream.floods.Load() == 1 }, harness.Patience, time.Millisecond)
	lines := server.WaitLogs(t, 2)
	require.Len(t, lines, 2)
	newer.Close()
	require.Eventually(t, func() bool { return upstream.floods.Load() == 0 }, harness.Patience, time.Millisecond)
}

// TestStuckStream_OnHealthyHTTP2Connection is reset, and the connection's other
// streams go on.
func TestStuckStream_OnHealthyHTTP2Connection(t *testing.T) {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: &protocols, DisableCompression: true}
	defer transport.CloseIdleConnections()
	require.ErrorContains(t, supersedeOneOfTwo(t, transport), "stream error")
}

// TestStuckStream_OnHTTP3 is reset; QUIC's connection goes on with others. What
// was cut off must not look whole.
func TestStuckStream_OnHTTP3(t *testing.T) {
	transport := &quichttp3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true}
	defer transport.Close()
	require.Error(t, supersedeOneOfTwo(t, transport))
}

// supersedeOneOfTwo opens two streams on one connection, and has the one that
// nobody reads superseded while the other one goes on. It returns how the body
// of the first one ended.
func supersedeOneOfTwo(t testing.TB, transport http.RoundTripper) error {
	t.Helper()
	upstream := startFlood(t)
	server := harness.StartCaddyTLS(t, stuckSite+upstream.URL)
	ask := func(path, token string) *http.Response {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
		require.NoError(t, err)
		request.Header.Set("Accept", "text/event-stream")
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := transport.RoundTrip(request)
		require.NoError(t, err)
		t.Cleanup(func() { response.Body.Close() })
		return response
	}
	healthy := ask("/ticks", "bob")
	line := make([]byte, 12)
	_, err := io.ReadFull(healthy.Body, line)
	require.NoError(t, err)
	stuck := ask("/flood", "alice") // whose body nobody reads: its flow control window fills
	upstream.waitStuck(t, server)

	supersedeStuck(t, upstream, server)
	_, ending := io.Copy(io.Discard, stuck.Body)
	for range 20 {
		_, err := io.ReadFull(healthy.Body, line)
		require.NoError(t, err)
	}
	return ending
}

// TestStuckHTTP2Connection is closed: none of its streams can be served.
func TestStuckHTTP2Connection(t *testing.T) {
	upstream := startFlood(t)
	server := harness.StartCaddyTLS(t, stuckSite+upstream.URL)
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	frozen := make(chan struct{})
	defer close(frozen)
	var freeze atomic.Bool
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: &protocols, DisableCompression: true,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 1 << 26, MaxReceiveBufferPerConnection: 1 << 28},
	}
	transport.DialContext = (&freezingDialer{freeze: &freeze, until: frozen}).dial
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/flood", nil)
	require.NoError(t, err)
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("Authorization", "Bearer alice")
	response, err := transport.RoundTrip(request)
	require.NoError(t, err)
	defer response.Body.Close()
	freeze.Store(true)
	upstream.waitStuck(t, server)
	supersedeStuck(t, upstream, server)
}

// freezingDialer makes connections that stop reading when told.
type freezingDialer struct {
	freeze *atomic.Bool
	until  chan struct{}
}

type freezingConn struct {
	net.Conn
	*freezingDialer
}

func (c freezingConn) Read(p []byte) (int, error) {
	if c.freeze.Load() {
		<-c.until
	}
	return c.Conn.Read(p)
}

func (d *freezingDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	return freezingConn{conn, d}, err
}
