package guard

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// A page says that a person asks for the stream by this parameter of the query, or
// by this field of the header, both with the value take.
const (
	wishParam = "sse_guard"
	wishField = "X-Sse-Guard"
	wishTake  = "take"
)

type takeKey struct{}

// takeWish removes from r that a person asks for the stream, so that no upstream
// sees it, and keeps that in the context for guards further inside too.
func takeWish(r *http.Request, original *url.URL) *http.Request {
	wished := false
	if r.Header.Get(wishField) == wishTake {
		r.Header.Del(wishField)
		wished = true
	}
	if len(takeFromQuery(r, original, wishIn)) > 0 {
		wished = true
	}
	if !wished {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), takeKey{}, true))
}

// wishIn returns the wish that a query's pair is, empty if it is none.
func wishIn(pair string) string {
	if pair == wishParam+"="+wishTake {
		return wishTake
	}
	return ""
}

// takes reports whether a person asks for the stream.
func (s *sender) takes() bool {
	_, wished := s.r.Context().Value(takeKey{}).(bool)
	return wished
}

// takeFromQuery removes the pairs from r's query of which in finds something, and
// leaves the rest as it was spelled. The same is done to r.RequestURI, and to
// original, the URL as the server received it; nil: that is not known. FastCGI
// applications are told that one.
func takeFromQuery(r *http.Request, original *url.URL, in func(pair string) string) (found []string) {
	query := r.URL.RawQuery
	r.URL.RawQuery, found = cutPairs(query, in)
	if original != nil && original.RawQuery == query {
		original.RawQuery = r.URL.RawQuery
	} else if original != nil { // after a rewrite
		var more []string
		if original.RawQuery, more = cutPairs(original.RawQuery, in); len(found) == 0 {
			found = more
		}
	}
	if len(found) == 0 {
		return nil
	}
	if path, query, has := strings.Cut(r.RequestURI, "?"); has {
		query, _ = cutPairs(query, in)
		r.RequestURI = withQuery(path, query)
	}
	return found
}

func withQuery(path, query string) string {
	if query == "" {
		return path
	}
	return path + "?" + query
}

// cutPairs returns the query without the pairs of which in finds something, and what
// it found.
func cutPairs(query string, in func(pair string) string) (kept string, found []string) {
	if query == "" {
		return "", nil
	}
	for pair := range strings.SplitSeq(query, "&") {
		if v := in(pair); v != "" {
			found = append(found, v)
		}
	}
	if len(found) == 0 {
		return query, nil
	}
	var left []string
	for pair := range strings.SplitSeq(query, "&") {
		if in(pair) == "" {
			left = append(left, pair)
		}
	}
	return strings.Join(left, "&"), found
}
