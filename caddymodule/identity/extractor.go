package identity

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// ErrTokensDiffer says that a request carries two different tokens, so that
// nobody can tell which one the backend will take (RFC 6750 section 2).
var ErrTokensDiffer = errors.New("the request carries two different tokens, expected one")

// errDecodersDisagree is the other way of carrying two tokens: in one text.
var errDecodersDisagree = fmt.Errorf(
	"the token's signature is spelled so that decoders disagree about what it says: %w", ErrTokensDiffer)

// Extractor finds the token and the client id of a request in the configured
// places. It is immutable, and safe for concurrent use.
type Extractor struct {
	tokens  []TokenSource // as configured
	headers []headerSource
	query   []string
	cookies []string
	paths   []string
	clients []ClientSource
	// original is the URL that the client asked for; nil: that of the request.
	original func(*http.Request) *url.URL
}

// headerSource is a header that may hold a token.
type headerSource struct {
	name          string // canonical
	authorization bool
}

// NewExtractor returns an Extractor that looks in the given places. A list that
// is nil means the default one; an empty list means nowhere.
func NewExtractor(tokens []TokenSource, clients []ClientSource) (*Extractor, error) {
	if tokens == nil {
		tokens = DefaultTokens()
	}
	if clients == nil {
		clients = DefaultClients()
	}
	if err := ValidateTokens(tokens); err != nil {
		return nil, err
	}
	if err := ValidateClients(clients); err != nil {
		return nil, err
	}

	x := &Extractor{tokens: slices.Clone(tokens), clients: slices.Clone(clients)}
	for i, c := range x.clients {
		if c.From == Header {
			x.clients[i].Name = http.CanonicalHeaderKey(c.Name)
		}
	}
	for _, t := range tokens {
		switch t.From {
		case Header:
			name := http.CanonicalHeaderKey(t.Name)
			x.headers = append(x.headers, headerSource{name, name == "Authorization"})
		case Query:
			x.query = append(x.query, t.Name)
		case Cookie:
			x.cookies = append(x.cookies, t.Name)
		case Path:
			x.paths = append(x.paths, t.Name)
		}
	}
	return x, nil
}

// WithOriginal returns an Extractor like x for requests that may have been rewritten:
// original tells the URL that the client asked for, nil if that is the request's.
func (x *Extractor) WithOriginal(original func(*http.Request) *url.URL) *Extractor {
	y := *x
	y.original = original
	return &y
}

// Path returns path, not escaped, as backends understand it that have tokens in the
// places of x: without parameters if one of these is there.
func (x *Extractor) Path(path string) string {
	if len(x.paths) == 0 {
		return path
	}
	return withoutParameters(path)
}

// Token returns the token that r carries, as Credentials.Token does.
func (x *Extractor) Token(r *http.Request) (Token, error) {
	found := x.Find(r)
	return found.Token()
}

// Client returns the hash of the client id that r carries, as Credentials.Client
// does.
func (x *Extractor) Client(r *http.Request, scope Hash) (id Hash, tab bool) {
	found := Credentials{}
	x.findClient(r, &found)
	return found.Client(scope)
}

// Find takes down what r presents, so that it is known whatever handlers further
// inside do to r. It hashes nothing: most requests are never asked who they are.
func (x *Extractor) Find(r *http.Request) (found Credentials) {
	for _, h := range x.headers {
		for _, value := range r.Header[h.name] {
			token, bearer := cutBearer(value)
			if bearer || !h.authorization {
				found.add(token)
			}
		}
	}
	if len(x.query) > 0 && r.URL.RawQuery != "" {
		for name, value := range queryPairs(r.URL.RawQuery) {
			if matchesAny(unescapeQuery(name), x.query) {
				token, _ := cutBearer(unescapeQuery(value))
				found.add(token)
			}
		}
	}
	if len(x.cookies) > 0 {
		for name, value := range cookiePairs(r.Header["Cookie"]) {
			if matchesAny(name, x.cookies) {
				token, _ := cutBearer(unescapeCookie(value))
				found.add(token)
			}
		}
	}
	if len(x.paths) > 0 && found.Tokenless() {
		x.findInPath(r, &found)
	}
	x.findClient(r, &found)
	return found
}

// findInPath looks for tokens in the path that the client asked for. Servlet
// containers look there only where there is none else.
func (x *Extractor) findInPath(r *http.Request, found *Credentials) {
	asked := r.URL
	if x.original != nil {
		if u := x.original(r); u != nil {
			asked = u
		}
	}
	for name, value := range pathPairs(asked.EscapedPath()) {
		if matchesAny(name, x.paths) {
			token, _ := cutBearer(value)
			found.add(token)
		}
	}
}

func (x *Extractor) findClient(r *http.Request, found *Credentials) {
	for i := range x.clients {
		if value := x.clients[i].value(r); value != "" {
			found.client, found.tab = value, x.clients[i].Scope == Tab
			return
		}
	}
}

// value returns the first value that r has at s, without surrounding white
// space.
func (s ClientSource) value(r *http.Request) string {
	switch s.From {
	case Header:
		for _, value := range r.Header[s.Name] {
			if value = trim(value); value != "" {
				return value
			}
		}
	case Query:
		for name, value := range queryPairs(r.URL.RawQuery) {
			if strings.EqualFold(unescapeQuery(name), s.Name) {
				if value = trim(unescapeQuery(value)); value != "" {
					return value
				}
			}
		}
	case Cookie:
		for name, value := range cookiePairs(r.Header["Cookie"]) {
			if value != "" && strings.EqualFold(name, s.Name) {
				return value
			}
		}
	}
	return ""
}

func matchesAny(name string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(name, n) })
}
