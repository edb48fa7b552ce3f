package identity

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReaderOf_NobodyReadsWhatIsNotForAScript(t *testing.T) {
	for name, test := range map[string]struct {
		field, value string
		want         bool
	}{
		"no browser":             {"Accept", "text/event-stream", false},
		"fetch, EventSource":     {"Sec-Fetch-Mode", "cors", false},
		"of the same origin":     {"Sec-Fetch-Mode", "same-origin", false},
		"any case":               {"Sec-Fetch-Mode", " CORS\t", false},
		"no-cors":                {"Sec-Fetch-Mode", "no-cors", true},
		"a link, a frame":        {"Sec-Fetch-Mode", "navigate", true},
		"a WebSocket":            {"Sec-Fetch-Mode", "websocket", true},
		"an unknown mode":        {"Sec-Fetch-Mode", "corsish", true},
		"a blank mode":           {"Sec-Fetch-Mode", "", true},
		"for a script":           {"Sec-Fetch-Dest", "empty", false},
		"an image with CORS":     {"Sec-Fetch-Dest", "image", true},
		"a document":             {"Sec-Fetch-Dest", "document", true},
		"prefetch":               {"Sec-Purpose", "prefetch", true},
		"prerender":              {"Sec-Purpose", "prefetch;prerender", true},
		"a handshake":            {"Upgrade", "websocket", true},
		"a handshake, among two": {"Upgrade", "h2c, WebSocket", true},
		"Java's client":          {"Upgrade", "h2c", false},
		"something like it":      {"Upgrade", "websocket2", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := request("/")
			r.Header.Set(test.field, test.value)
			require.Equal(t, test.want, ReaderOf(r, none).Nobody)
		})
	}
	r := request("/")
	r.Header["Sec-Fetch-Mode"] = []string{"cors", "no-cors"}
	require.True(t, ReaderOf(r, none).Nobody)
	r = request("/")
	r.Method = http.MethodConnect
	require.True(t, ReaderOf(r, none).Nobody)
}

// hosts is a Forwarder.
type hosts []string

func (hs hosts) ForwardedHosts() []string { return hs }

var none hosts

func TestReaderOf_AnotherOrigin(t *testing.T) {
	for name, test := range map[string]struct {
		site, origin string
		forwarded    []string
		want         bool
	}{
		"says so":                   {site: "cross-site", want: true},
		"another port":              {site: "same-site", origin: "https://example.com", want: true},
		"unknown":                   {site: "other", want: true},
		"the site's own":            {site: "same-origin", origin: "https://other.example"},
		"a person":                  {site: "none"},
		"no field, no origin":       {},
		"no field, its own":         {origin: "http://Example.com"},
		"no field, behind TLS":      {origin: "https://example.com"},
		"no field, a default port":  {origin: "https://public.example", forwarded: []string{"public.example:443"}},
		"no field, a port":          {origin: "https://example.com:8443", want: true},
		"no field, another":         {origin: "https://other.example", want: true},
		"no field, a part of it":    {origin: "https://example.com.other.example", want: true},
		"no field, of an app":       {origin: "capacitor://localhost"},
		"no field, null":            {origin: "null"},
		"no field, forwarded":       {origin: "https://public.example", forwarded: []string{"a.example, public.example"}},
		"no field, other forwarded": {origin: "https://other.example", forwarded: []string{"public.example"}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := request("/")
			r.Host = "example.com"
			for field, value := range map[string]string{"Sec-Fetch-Site": test.site, "Origin": test.origin} {
				if value != "" {
					r.Header.Set(field, value)
				}
			}
			require.Equal(t, test.want, ReaderOf(r, hosts(test.forwarded)).Cross)
		})
	}
}

func TestReader_ReadsWhatCORSLetsIt(t *testing.T) {
	const app = "https://app.example"
	for name, test := range map[string]struct {
		reader      Reader
		origins     []string
		credentials string
		want        bool
	}{
		"its own":                     {reader: Reader{}, want: true},
		"nobody":                      {reader: Reader{Nobody: true}, origins: []string{"*"}},
		"nothing said":                {reader: Reader{Cross: true, Origin: app}},
		"it":                          {reader: Reader{Cross: true, Origin: app}, origins: []string{app}, want: true},
		"another":                     {reader: Reader{Cross: true, Origin: app}, origins: []string{"https://app.example.net"}},
		"another case":                {reader: Reader{Cross: true, Origin: app}, origins: []string{"https://App.example"}},
		"two":                         {reader: Reader{Cross: true, Origin: app}, origins: []string{app, app}},
		"anybody":                     {reader: Reader{Cross: true, Origin: app}, origins: []string{"*"}, want: true},
		"not known":                   {reader: Reader{Cross: true}, origins: []string{""}},
		"cookies, anybody":            {reader: Reader{Cross: true, Origin: app, Credentials: true}, origins: []string{"*"}, credentials: "true"},
		"cookies, it":                 {reader: Reader{Cross: true, Origin: app, Credentials: true}, origins: []string{app}, credentials: "true", want: true},
		"cookies, it, without":        {reader: Reader{Cross: true, Origin: app, Credentials: true}, origins: []string{app}},
		"cookies, it, something else": {reader: Reader{Cross: true, Origin: app, Credentials: true}, origins: []string{app}, credentials: "True"},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{allowOrigin: test.origins}
			if test.credentials != "" {
				h.Set(allowCredentials, test.credentials)
			}
			require.Equal(t, test.want, test.reader.Reads(h))
		})
	}
}

func TestReaderOf_Credentials(t *testing.T) {
	r := request("/")
	require.False(t, ReaderOf(r, none).Credentials)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
	require.True(t, ReaderOf(r, none).Credentials)
	for _, field := range []string{"X-Forwarded-For", "Forwarded", "Via"} {
		r.Header = http.Header{field: {"192.0.2.1"}}
		require.False(t, ReaderOf(r, none).Credentials, "a proxy's own certificate, for example a content delivery network's")
	}
	r = request("/")
	r.Header.Set("Cookie", "a=b")
	require.True(t, ReaderOf(r, none).Credentials)
}
