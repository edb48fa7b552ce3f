package guard

import (
	"maps"
	"net/http"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

// isStream reports whether an answer with that status and header is a stream: any
// success that has a body. No request here is a HEAD.
func isStream(status int, header http.Header) bool {
	success := status >= 200 && status < 300
	return success && status != http.StatusNoContent && status != http.StatusResetContent &&
		identity.IsEventStream(header) && !isEmpty(header)
}

// isEmpty reports whether the answer says that its body has no bytes.
func isEmpty(header http.Header) bool {
	length := header["Content-Length"]
	return len(length) == 1 && length[0] == "0"
}

// isSafe reports whether a request of the method asks for something, and does
// nothing (RFC 9110 section 9.2.1).
func isSafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	default:
		return false
	}
}

// headerSnapshot is a header as it once was. Those that servers begin a response
// with are small, and kept without allocating.
type headerSnapshot struct {
	few [fewFields]headerField
	all http.Header // instead, where there are more
}

type headerField struct {
	name   string
	values []string
}

const fewFields = 2

func (s *headerSnapshot) take(h http.Header) {
	if len(h) > fewFields {
		s.all = maps.Clone(h)
		return
	}
	i := 0
	for name, values := range h {
		s.few[i] = headerField{name, values}
		i++
	}
}

// forget lets go of what is not needed any more.
func (s *headerSnapshot) forget() { *s = headerSnapshot{} }

// restore puts the header back to what it was, but keeps what lets a
// cross-origin page read the answer.
func (s *headerSnapshot) restore(h http.Header) {
	kept := corsHeader(h)
	clear(h)
	maps.Copy(h, s.all)
	for _, f := range s.few {
		if f.name != "" {
			h[f.name] = f.values
		}
	}
	maps.Copy(h, kept)
}
