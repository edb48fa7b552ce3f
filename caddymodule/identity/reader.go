package identity

import (
	"net/http"
	"strings"
)

// Reader is what a request says of the page that asks, if a browser sent it: whether
// that can read the answer. Any site can have a browser send requests with the user's
// cookies; what it cannot do is read an answer that CORS does not let it read.
type Reader struct {
	// Nobody says that no page reads the answer, whatever its header says: the request
	// is for a document, an image, a frame, a WebSocket, or is made ahead of time.
	Nobody bool
	// Cross says that the page is of another origin than the one it asks, and Perhaps
	// that it may be: an Origin that is no web site's is an app's, or a sandbox's.
	Cross, Perhaps bool
	// Origin is that of the page; empty: it is not known, or no page asks.
	Origin string
	// Credentials says that the browser added what it has of the user's: cookies, or a
	// client certificate.
	Credentials bool
}

// Forwarder tells which hosts the client asked for, as trusted proxies say: fields with
// one or several, separated by commas.
type Forwarder interface{ ForwardedHosts() []string }

// ReaderOf returns who reads the answer to r. It goes by the fields of Fetch Metadata,
// which scripts cannot set. Browsers send them to https and to localhost; where they
// are absent, an Origin that is neither the Host nor one of the forwarded ones is
// another one.
func ReaderOf(r *http.Request, forwarded Forwarder) Reader {
	h := r.Header
	reader := Reader{
		Nobody:      isUnread(r),
		Origin:      h.Get("Origin"),
		Credentials: len(h["Cookie"]) > 0 || hasClientCertificate(r),
	}
	if site := h["Sec-Fetch-Site"]; len(site) > 0 {
		reader.Cross = !all(site, "same-origin", "none")
	} else {
		reader.Cross = isOther(reader.Origin, r.Host, forwarded)
		reader.Perhaps = reader.Origin != "" && !isWeb(reader.Origin)
	}
	return reader
}

// hasClientCertificate reports whether the browser has shown a certificate of the user's.
// A proxy in between shows its own. It says so in fields that a page cannot have a browser
// send with a certificate, unless a preflight allows it to.
func hasClientCertificate(r *http.Request) bool {
	return r.TLS != nil && len(r.TLS.PeerCertificates) > 0 &&
		len(r.Header["X-Forwarded-For"]) == 0 && len(r.Header["Forwarded"]) == 0 && len(r.Header["Via"]) == 0
}

func isWeb(origin string) bool {
	return strings.HasPrefix(origin, "http://") || strings.HasPrefix(origin, "https://")
}

// Doubted returns the reader as it is if all is so that it may not be able to read.
func (reader Reader) Doubted() Reader {
	reader.Cross = reader.Cross || reader.Perhaps
	return reader
}

// isUnread reports whether no page reads the answer to r.
func isUnread(r *http.Request) bool {
	h := r.Header
	return !all(h["Sec-Fetch-Mode"], "cors", "same-origin") ||
		!all(h["Sec-Fetch-Dest"], "empty") || // an image may be asked for with CORS too
		len(h["Sec-Purpose"]) > 0 ||
		r.Method == http.MethodConnect || // WebSocket over HTTP/2 and HTTP/3 (RFC 8441)
		upgradesToWebSocket(h)
}

// all reports whether each of the values is one of those.
func all(values []string, those ...string) bool {
	for _, value := range values {
		if !matchesAny(trimOWS(value), those) {
			return false
		}
	}
	return true
}

// upgradesToWebSocket reports whether WebSocket is among the protocols that the
// client offers to go on with. Others mean nothing: Java's client offers h2c.
func upgradesToWebSocket(h http.Header) bool {
	for _, field := range h["Upgrade"] {
		for protocol := range strings.SplitSeq(field, ",") {
			if strings.EqualFold(trimOWS(protocol), "websocket") {
				return true
			}
		}
	}
	return false
}

// isOther reports whether origin is one of the web's, and of another host.
func isOther(origin, host string, forwarded Forwarder) bool {
	scheme, own, _ := strings.Cut(origin, "://")
	port := ""
	switch scheme {
	case "http":
		port = ":80"
	case "https":
		port = ":443"
	default:
		return false // none, or an app's: those have no cookies that others may use
	}
	same := func(host string) bool { return strings.EqualFold(own, strings.TrimSuffix(trimOWS(host), port)) }
	if same(host) {
		return false
	}
	for _, field := range forwarded.ForwardedHosts() {
		for host := range strings.SplitSeq(field, ",") {
			if same(host) {
				return false
			}
		}
	}
	return true
}

const (
	allowOrigin      = "Access-Control-Allow-Origin"
	allowCredentials = "Access-Control-Allow-Credentials"
)

// Reads reports whether an answer with the header h can be read (Fetch section 4.10).
// An origin of "*" lets nobody read what the browser has asked for with the user's
// cookies.
func (reader Reader) Reads(h http.Header) bool {
	return reader.ReadsIf(h[allowOrigin], h[allowCredentials])
}

// ReadsIf is Reads, given the values of Access-Control-Allow-Origin and
// Access-Control-Allow-Credentials.
func (reader Reader) ReadsIf(origins, credentials []string) bool {
	switch {
	case reader.Nobody:
		return false
	case !reader.Cross:
		return true
	case len(origins) != 1: // browsers refuse two as well
		return false
	case origins[0] == "*":
		return !reader.Credentials
	default:
		return reader.Origin != "" && origins[0] == reader.Origin &&
			(!reader.Credentials || len(credentials) == 1 && credentials[0] == "true")
	}
}
