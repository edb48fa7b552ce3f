package attack

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// An Extended CONNECT (RFC 8441, RFC 9220) that names the protocol websocket reaches
// the backend as a GET: reverse_proxy makes one of it.

// connecting sends an Extended CONNECT on a connection of its own. The body of the
// answer is there until the test ends.
type connecting func(t testing.TB, to string, options ...harness.RequestOption) (status int, body *stub)

func connectRequest(t testing.TB, to string, options []harness.RequestOption) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, to, http.NoBody)
	require.NoError(t, err)
	r.Proto = "websocket"
	r.Header.Set("Sec-WebSocket-Version", "13")
	for _, option := range options {
		option(r)
	}
	return r
}

// stub is the beginning of a body.
type stub struct {
	mu    sync.Mutex // guards the fields below
	bytes bytes.Buffer
	over  bool
}

func (s *stub) add(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes.Write(b)
}

func (s *stub) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}

func (s *stub) text() (text string, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes.String(), s.over
}

// requireText waits for that text.
func (s *stub) requireText(t testing.TB, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		got, _ := s.text()
		return bytes.Contains([]byte(got), []byte(text))
	}, harness.Patience, time.Millisecond)
}

// requireWithout waits for the end of the body, which must not have that text.
func (s *stub) requireWithout(t testing.TB, text string) {
	t.Helper()
	require.Eventually(t, func() bool { _, over := s.text(); return over }, harness.Patience, time.Millisecond)
	got, _ := s.text()
	assert.NotContains(t, got, text)
}

func connectHTTP3(t testing.TB, to string, options ...harness.RequestOption) (int, *stub) {
	t.Helper()
	r := connectRequest(t, to, options)
	conn, err := quic.DialAddr(t.Context(), r.URL.Host, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}, nil)
	require.NoError(t, err)
	client := new(http3.Transport).NewClientConn(conn)
	s, err := client.OpenRequestStream(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.SendRequestHeader(r))
	require.NoError(t, s.SetReadDeadline(time.Now().Add(harness.Patience)))
	response, err := s.ReadResponse()
	require.NoError(t, err)
	body := new(stub)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer body.end()
		_, _ = io.Copy(writerTo(body.add), response.Body)
	})
	t.Cleanup(func() {
		assert.NoError(t, client.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), ""))
		reading.Wait()
	})
	return response.StatusCode, body
}

type writerTo func([]byte)

// Write implements io.Writer.
func (w writerTo) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}

// connectHTTP2 needs frames of its own: neither net/http nor x/net has a client for it.
func connectHTTP2(t testing.TB, to string, options ...harness.RequestOption) (int, *stub) {
	t.Helper()
	r := connectRequest(t, to, options)
	conn, err := tls.Dial("tcp", r.URL.Host, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(harness.Patience)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	require.NoError(t, framer.WriteSettings())

	var fields bytes.Buffer
	encoder := hpack.NewEncoder(&fields)
	for _, field := range [][2]string{
		{":method", r.Method}, {":protocol", r.Proto}, {":scheme", r.URL.Scheme},
		{":authority", r.URL.Host}, {":path", r.URL.RequestURI()},
	} {
		require.NoError(t, encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
	}
	for name, values := range r.Header {
		for _, value := range values {
			require.NoError(t, encoder.WriteField(hpack.HeaderField{Name: lower(name), Value: value}))
		}
	}
	allowed, sent := false, false
	status := make(chan int, 1)
	body := new(stub)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer body.end()
		defer close(status)
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			switch f := frame.(type) {
			case *http2.SettingsFrame:
				if value, ok := f.Value(http2.SettingEnableConnectProtocol); ok {
					allowed = value == 1
				}
				if !f.IsAck() {
					_ = framer.WriteSettingsAck()
				}
				if allowed && !sent {
					sent = true
					_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields.Bytes(), EndHeaders: true})
				}
			case *http2.MetaHeadersFrame:
				var code int
				if _, err := fmt.Sscan(f.PseudoValue("status"), &code); err == nil {
					status <- code
				}
				if f.StreamEnded() {
					return
				}
			case *http2.DataFrame:
				body.add(f.Data())
				if f.StreamEnded() {
					return
				}
			case *http2.RSTStreamFrame:
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		reading.Wait()
	})
	code, ok := <-status
	require.True(t, ok, "the server answers an Extended CONNECT")
	return code, body
}

func lower(name string) string { return string(bytes.ToLower([]byte(name))) }

// extendedConnects runs test over HTTP/3, which always has Extended CONNECT, and over
// HTTP/2, which has it where the environment says so.
func extendedConnects(t *testing.T, b *carefreeBackend, test func(t *testing.T, url string, connect connecting), options ...string) {
	t.Run("HTTP3", func(t *testing.T) {
		b.reached.Store(0)
		test(t, harness.StartCaddyTLS(t, b.behind(options...)).URL, connectHTTP3)
	})
	t.Run("HTTP2", func(t *testing.T) {
		b.reached.Store(0)
		test(t, startWithConnect(t, b.behind(options...)), connectHTTP2)
	})
}

// startWithConnect runs the site in a process of its own, which reads its environment
// as it starts, and returns its URL.
func startWithConnect(t *testing.T, site string) (url string) {
	t.Helper()
	t.Setenv("GODEBUG", "http2xconnect=1")
	certificate := harness.WriteCertificate(t, t.TempDir())
	ready := fmt.Sprintf("http://localhost:%d", harness.FreePort(t))
	url = fmt.Sprintf("https://localhost:%d", harness.FreePort(t))
	harness.StartCaddySites(t, ready, "grace_period 1s",
		fmt.Sprintf("%s {\nrespond ok\n}\n%s {\ntls %q %q\n%s\n}", ready, url, certificate, certificate, site))
	return url
}

// TestAttack_ExtendedConnectWithoutToken: a stream that needs a token, without one.
func TestAttack_ExtendedConnectWithoutToken(t *testing.T) {
	issuer := harness.NewIssuer(t, "ES256")
	for name, demand := range map[string]string{
		"a token":      "require_token",
		"a good token": "jwt {\n" + issuer.KeyOption(t) + "\n}",
	} {
		t.Run(name, func(t *testing.T) {
			backend := startBackend(t)
			extendedConnects(t, backend, func(t *testing.T, url string, connect connecting) {
				status, body := connect(t, url+"/events", harness.WithHeader("Accept", "text/event-stream"))
				assert.Equal(t, http.StatusUnauthorized, status)
				body.requireWithout(t, secretText)
				assert.Zero(t, backend.reached.Load(), "the backend is not asked")

				status, body = connect(t, url+"/events")
				assert.Equal(t, http.StatusUnauthorized, status)
				body.requireWithout(t, secretText)
				backend.requireOpen(t, 0)

				status, body = connect(t, url+"/events", harness.WithBearer(issuer.Token(t)))
				assert.Equal(t, http.StatusOK, status)
				body.requireText(t, secretText)
			}, demand)
		})
	}
}

// TestAttack_ExtendedConnectBeyondTheLimit: more streams than the limit allows.
func TestAttack_ExtendedConnectBeyondTheLimit(t *testing.T) {
	backend := startBackend(t)
	extendedConnects(t, backend, func(t *testing.T, url string, connect connecting) {
		harness.NewClient(t, harness.HTTP1).Open(t, url+"/events", harness.WithBearer("alice")).Next(t)
		for range 3 {
			connect(t, url+"/events", harness.WithBearer("alice"))
		}
		backend.requireOpen(t, 1)
	}, "limit 1")
	backend.CloseClientConnections()
	extendedConnects(t, backend, func(t *testing.T, url string, connect connecting) {
		harness.NewClient(t, harness.HTTP1).Open(t, url+"/events", harness.WithBearer("alice")).Next(t)
		status, body := connect(t, url+"/events", harness.WithBearer("alice"))
		assert.Equal(t, http.StatusConflict, status)
		body.requireWithout(t, secretText)
		backend.requireOpen(t, 1)
	}, "policy reject")
}
