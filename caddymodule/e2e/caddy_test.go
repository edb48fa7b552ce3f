package e2e

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/stretchr/testify/require"

	_ "github.com/sse-guard/sse-guard/caddymodule"
)

// caddyServer is a Caddy in this process, configured by a Caddyfile. There is
// one at a time: tests that start one do not run in parallel.
type caddyServer struct {
	// URL is where its site listens, without a final slash.
	URL string

	tls  string // directive
	dir  string
	logs string
}

// startCaddy runs a site with the given directives over clear-text HTTP.
func startCaddy(t testing.TB, site string) *caddyServer {
	t.Helper()
	return startCaddyScheme(t, "http", site)
}

// startCaddyTLS runs it over HTTPS, for HTTP/1.1, HTTP/2 and HTTP/3.
func startCaddyTLS(t testing.TB, site string) *caddyServer {
	t.Helper()
	return startCaddyScheme(t, "https", site)
}

func startCaddyScheme(t testing.TB, scheme, site string) *caddyServer {
	t.Helper()
	port := freePort(t)
	dir := t.TempDir()
	c := &caddyServer{
		URL:  fmt.Sprintf("%s://localhost:%d", scheme, port),
		dir:  dir,
		logs: filepath.Join(dir, "caddy.log"),
	}
	if scheme == "https" {
		certificate := writeCertificate(t, dir)
		c.tls = fmt.Sprintf("tls %q %q", certificate, certificate)
	}
	t.Cleanup(func() {
		require.NoError(t, caddy.Stop())
		if t.Failed() {
			content, _ := os.ReadFile(c.logs)
			t.Logf("Caddy's log:\n%s", content)
		}
	})
	c.reload(t, site)
	return c
}

// reload puts a site with other directives in the place of the present one.
func (c *caddyServer) reload(t testing.TB, site string) {
	t.Helper()
	text := fmt.Sprintf(`{
		admin off
		persist_config off
		skip_install_trust
		grace_period 1s
		auto_https disable_redirects
		storage file_system %q
		log default {
			output file %q {
				roll_disabled
			}
			format json
		}
		servers {
			protocols h1 h2 h2c h3
			trusted_proxies static 127.0.0.0/8 ::1
		}
	}
	%s {
		%s
		%s
	}`, c.dir, c.logs, c.URL, c.tls, site)
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	require.NoError(t, err, text)
	for _, w := range warnings {
		require.Contains(t, w.Message, "not formatted", "the tests' Caddyfiles are indented by their own taste, nothing else")
	}
	require.NoError(t, caddy.Load(adapted, true))
}

// writeCertificate makes a self-signed certificate for localhost, and returns
// the file that has it and its key.
func writeCertificate(t testing.TB, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(0, 1, 0),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	content := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	content = append(content, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	path := filepath.Join(dir, "localhost.pem")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func freePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// logLine is one line of Caddy's log.
type logLine struct {
	Level  string `json:"level"`
	Logger string `json:"logger"`
	Msg    string `json:"msg"`

	Zone       string   `json:"zone"`
	Key        string   `json:"key"`
	Reason     string   `json:"reason"`
	EventSent  bool     `json:"event_sent"`
	Age        float64  `json:"age"`
	Events     int      `json:"events"`
	Bytes      int      `json:"bytes"`
	ClientIP   string   `json:"client_ip"`
	HolderIP   string   `json:"holder_ip"`
	HolderIPs  []string `json:"holder_ips"`
	NewcomerIP string   `json:"newcomer_ip"`

	raw string
}

const (
	guardLogger    = "http.handlers.sse_guard"
	securityLogger = "http.handlers.sse_guard.security"
)

// startupWarnings are those that any such configuration gets.
var startupWarnings = map[string]bool{
	"admin endpoint disabled":                true,
	"HTTP/2 skipped because it requires TLS": true,
	"HTTP/3 skipped because it requires TLS": true,
}

// handlerLogs returns what request handlers have logged, and whatever else is
// a warning or worse.
func (c *caddyServer) handlerLogs(t testing.TB) []logLine {
	t.Helper()
	content, err := os.ReadFile(c.logs)
	require.NoError(t, err)
	var lines []logLine
	scanner := bufio.NewScanner(bytes.NewReader(content))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := logLine{raw: scanner.Text()}
		require.NoError(t, json.Unmarshal(scanner.Bytes(), &line), line.raw)
		ofHandler := strings.HasPrefix(line.Logger, "http.handlers") || strings.HasPrefix(line.Logger, "http.log")
		if ofHandler && line.Msg != "server running" || line.Level != "info" && !startupWarnings[line.Msg] {
			lines = append(lines, line)
		}
	}
	require.NoError(t, scanner.Err())
	return lines
}

// waitLogs waits until n such lines are there, and returns them.
func (c *caddyServer) waitLogs(t testing.TB, n int) []logLine {
	t.Helper()
	var lines []logLine
	require.Eventually(t, func() bool {
		lines = c.handlerLogs(t)
		return len(lines) >= n
	}, patience, 10*time.Millisecond, "fewer than %d log lines: %v", n, lines)
	return lines
}

// get sends a plain request, without Accept, and returns the answer with its
// body read.
func get(t testing.TB, url string, options ...requestOption) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	for _, option := range options {
		option(request)
	}
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	require.NoError(t, err)
	defer response.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(response.Body)
	require.NoError(t, err)
	return response, body.String()
}
