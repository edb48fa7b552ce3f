package identity

import (
	"net/http"
	"strings"
)

// eventStream is the media type of WHATWG HTML 9.2.4.
const eventStream = "text/event-stream"

// Governed reports whether the guard looks after r: a GET, or with anyMethod
// any request that can have a streamed answer.
//
// A request that asks for an upgrade is governed too: a server may ignore that
// wish (RFC 9110 section 7.8) and answer with a stream. A WebSocket is known
// by its answer, which is no stream.
func Governed(r *http.Request, anyMethod bool) bool {
	switch r.Method {
	case http.MethodGet:
		return true
	case http.MethodHead, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return false
	default:
		return anyMethod
	}
}

// AsksForStream reports whether r's Accept includes text/event-stream with a
// weight above 0 (RFC 9110 section 12.5.1). Wildcards do not count: every fetch
// and every image sends them.
func AsksForStream(r *http.Request) bool {
	for _, field := range r.Header["Accept"] {
		for field != "" {
			var mediaRange string
			mediaRange, field = cutUnquoted(field, ',')
			if acceptsStream(mediaRange) {
				return true
			}
		}
	}
	return false
}

// acceptsStream judges one element of an Accept header.
func acceptsStream(mediaRange string) bool {
	mediaType, params := cutUnquoted(mediaRange, ';')
	if !isEventStream(trimOWS(mediaType)) {
		return false
	}
	for params != "" {
		var param string
		param, params = cutUnquoted(params, ';')
		name, value, _ := strings.Cut(param, "=")
		if strings.EqualFold(trimOWS(name), "q") {
			return !isZeroWeight(trimOWS(value))
		}
	}
	return true
}

// isZeroWeight reports whether a qvalue of RFC 9110 section 12.4.2 is 0.
func isZeroWeight(q string) bool {
	return strings.HasPrefix(q, "0") && strings.Trim(q, "0.") == ""
}

// Navigation reports whether a browser sent r for something else than a script:
// a page, an image, a frame. Any site can trigger these, with cookies. It goes
// by Sec-Fetch-Dest, which scripts cannot set (Fetch Metadata section 2.1) and
// which is "empty" for EventSource and fetch.
func Navigation(r *http.Request) bool {
	for _, dest := range r.Header["Sec-Fetch-Dest"] {
		if !strings.EqualFold(trimOWS(dest), "empty") {
			return true
		}
	}
	return false
}

// IsEventStream reports whether a response with the header h is an event
// stream: the media type of its Content-Type is text/event-stream, in any case
// and with any parameters, also malformed ones.
func IsEventStream(h http.Header) bool {
	values := h["Content-Type"]
	if len(values) == 0 {
		return false
	}
	mediaType, _, _ := strings.Cut(values[0], ";")
	return isEventStream(trimOWS(mediaType))
}

// isEventStream compares without Unicode's case folding: its other letters that
// fold to ASCII ones are longer.
func isEventStream(mediaType string) bool {
	return len(mediaType) == len(eventStream) && strings.EqualFold(mediaType, eventStream)
}

// cutUnquoted cuts s at the first sep that is not in a quoted-string (RFC 9110
// section 5.6.4). A quoted-string that does not end takes the rest.
func cutUnquoted(s string, sep byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == sep && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// trimOWS returns s without optional white space (RFC 9110 section 5.6.3).
func trimOWS(s string) string { return strings.Trim(s, " \t") }
