package guard

import (
	"net/http"
	"net/url"
	"strings"
)

// crossOrigin reports whether the page that asks is of another origin than
// the one it asks, so that it reads only answers that CORS allows.
func (s *sender) crossOrigin() bool {
	origin := s.r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, s.r.Host)
}

// noteCORS takes down with which fields the upstream lets the page read its
// answer: a later newcomer of the same origin that is refused reads that with the
// same.
func (s *sender) noteCORS(header http.Header) {
	if s.holder.Origin != "" {
		s.holder.CORS = corsHeader(header)
	}
}

// corsHeader picks the fields that let a cross-origin page read a response.
func corsHeader(h http.Header) http.Header {
	kept := http.Header{}
	for name, values := range h {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			kept[name] = values
		}
	}
	return kept
}
