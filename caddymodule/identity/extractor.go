package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// ErrTokensDiffer says that a request carries two different tokens, so that
// nobody can tell which one the backend will take (RFC 6750 section 2).
var ErrTokensDiffer = errors.New("the request carries two different tokens, expected one")

// errDecodersDisagree is the other way of carrying two tokens: in one text.
var errDecodersDisagree = fmt.Errorf(
	"the token's signature is not base64url, and decoders disagree about what it says: %w", ErrTokensDiffer)

// Extractor finds the token and the client id of a request in the configured
// places. It is immutable, and safe for concurrent use.
type Extractor struct {
	headers []headerSource
	query   []string
	cookies []string
	clients []ClientSource
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

	x := &Extractor{clients: slices.Clone(clients)}
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
		}
	}
	return x, nil
}

// Token returns the token that r carries, or the zero Token if it carries none.
// A value that is empty, or just the word Bearer, is none.
//
// The error is ErrTokensDiffer (test with errors.Is) if the configured places
// hold two different tokens, or one token that backends read as two different
// ones. The Token is then zero, but the request is not one without a token.
func (x *Extractor) Token(r *http.Request) (Token, error) {
	var found tokens
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
	if found.err != nil {
		return Token{}, found.err
	}
	return found.token, nil
}

// Client returns the hash of the client id that r carries in the first
// configured place with a value, and whether it names a tab. Clients choose
// their ids, so the hash covers scope, the token's hash or the verified
// subject's: within another scope the same id is another client. Without a
// scope, or an id, it is zero.
func (x *Extractor) Client(r *http.Request, scope Hash) (id Hash, tab bool) {
	if scope.IsZero() {
		return Hash{}, false
	}
	for _, source := range x.clients {
		if value := source.value(r); value != "" {
			tab = source.Scope == Tab
			return hashClient(scope, value, tab), tab
		}
	}
	return Hash{}, false
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

func hashClient(scope Hash, value string, tab bool) Hash {
	domain := deviceDomain
	if tab {
		domain = tabDomain
	}
	var stack [512]byte
	buf := append(stack[:0], domain...)
	buf = append(buf, scope[:]...)
	return sha256.Sum256(append(buf, value...))
}

// tokens collects the tokens of one request.
type tokens struct {
	token Token
	err   error
}

func (t *tokens) add(text string) {
	if text == "" || t.err != nil {
		return
	}
	hash, agreed := hashToken(text)
	switch {
	case !agreed:
		t.err = errDecodersDisagree
	case t.token.Hash.IsZero():
		t.token = Token{hash, text}
	case t.token.Hash != hash:
		t.err = ErrTokensDiffer
	}
}

func matchesAny(name string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(name, n) })
}
