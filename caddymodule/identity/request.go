package identity

import (
	"net/http"
	"strings"
)

// eventStream is the media type of WHATWG HTML 9.2.4.
const eventStream = "text/event-stream"

// AcceptsStream reports whether r's Accept includes text/event-stream with a
// weight above 0 (RFC 9110 section 12.5.1), perhaps among other types. Wildcards do
// not count: every fetch and every image sends them.
func AcceptsStream(r *http.Request) bool {
	named, _ := accepted(r)
	return named
}

// AsksForStream reports whether r accepts text/event-stream and nothing else. Who
// accepts other types too, as MCP and GraphQL clients do, mostly gets those.
func AsksForStream(r *http.Request) bool {
	named, others := accepted(r)
	return named && !others
}

// accepted reports what r's Accept has with a weight above 0: text/event-stream,
// and any other type or wildcard.
func accepted(r *http.Request) (stream, others bool) {
	for _, field := range r.Header["Accept"] {
		for field != "" {
			var mediaRange string
			mediaRange, field = cutUnquoted(field, ',')
			mediaType, params := cutUnquoted(mediaRange, ';')
			mediaType = trimOWS(mediaType)
			switch {
			case mediaType == "" || refused(params):
			case isEventStream(mediaType):
				stream = true
			default:
				others = true
			}
		}
	}
	return stream, others
}

// refused reports whether the parameters of one element of an Accept header give it
// the weight 0.
func refused(params string) bool {
	for params != "" {
		var param string
		param, params = cutUnquoted(params, ';')
		name, value, _ := strings.Cut(param, "=")
		if strings.EqualFold(trimOWS(name), "q") {
			return isZeroWeight(trimOWS(value))
		}
	}
	return false
}

// isZeroWeight reports whether a qvalue of RFC 9110 section 12.4.2 is 0.
func isZeroWeight(q string) bool {
	return strings.HasPrefix(q, "0") && strings.Trim(q, "0.") == ""
}

// IsEventStream reports whether a response with the header h is an event
// stream: the media type of its Content-Type is text/event-stream, in any case
// and with any parameters, also malformed ones. Where the header has several types,
// one of them is enough: clients disagree about which one counts (browsers take the
// last, Node and Go the first).
func IsEventStream(h http.Header) bool {
	for _, value := range h["Content-Type"] {
		for value != "" {
			var one string
			one, value = cutUnquoted(value, ',')
			mediaType, _, _ := strings.Cut(one, ";")
			if isEventStream(trimOWS(mediaType)) {
				return true
			}
		}
	}
	return false
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
