package identity

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
)

// String is the source as the option token names it.
func (s TokenSource) String() string { return string(s.From) + " " + s.Name }

// String is the source as the option client names it, without its scope.
func (s ClientSource) String() string { return string(s.From) + " " + s.Name }

// Presented is the names of what a request presents that may be credentials.
type Presented struct {
	// Sources are places where a token could be looked for, likely ones first. A
	// scheme of Authorization other than Bearer cannot be read.
	Sources []TokenSource
	// Schemes are those of Authorization fields.
	Schemes []string
}

const (
	mostPresented = 8
	longestName   = 64
)

// PresentedBy finds what r presents, for somebody who wonders why no token was found.
// It returns names only, never values, and nothing that may be a value: no name
// without a value, since a token that stands alone looks like one, and no scheme but
// well-known ones.
func PresentedBy(r *http.Request) (p Presented) {
	for _, value := range r.Header["Authorization"] {
		if scheme := schemeOf(value); scheme != "" && !slices.Contains(p.Schemes, scheme) {
			p.Schemes = append(p.Schemes, scheme)
		}
	}
	var found []TokenSource
	add := func(from From, name, value string) {
		if strings.Trim(value, "=") == "" || len(name) > longestName || !isToken(name) {
			return // base64 ends with =
		}
		s := TokenSource{From: from, Name: name}
		if !slices.ContainsFunc(found, func(f TokenSource) bool { return samePlace(f.From, f.Name, from, name) }) {
			found = append(found, s)
		}
	}
	for name, value := range cookiePairs(r.Header["Cookie"]) {
		add(Cookie, name, value)
	}
	for name, value := range queryPairs(r.URL.RawQuery) {
		if name = unescapeQuery(name); likely(name) {
			add(Query, name, value)
		}
	}
	for name, value := range pathPairs(r.URL.EscapedPath()) {
		if likely(name) {
			add(Path, name, value)
		}
	}
	for name, values := range r.Header {
		if name != "Authorization" && name != "Cookie" && likely(name) {
			add(Header, name, strings.Join(values, ""))
		}
	}
	slices.SortStableFunc(found, func(a, b TokenSource) int {
		return cmp.Or(rank(a)-rank(b), strings.Compare(string(a.From), string(b.From)), strings.Compare(a.Name, b.Name))
	})
	p.Sources = found[:min(len(found), mostPresented)]
	return p
}

// likelyNames are parts of the names that credentials have, in lower case.
var likelyNames = []string{"token", "auth", "sess", "jwt", "sid", "api-key", "api_key", "apikey", "ticket", "login"}

// likely reports whether something of that name may be a credential.
func likely(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(likelyNames, func(part string) bool { return strings.Contains(name, part) })
}

func rank(s TokenSource) int {
	if likely(s.Name) {
		return 0
	}
	return 1
}

// knownSchemes are the schemes of Authorization that are told by their names: those of
// the IANA registry, and what is common besides.
var knownSchemes = []string{
	"Basic", "Bearer", "Concealed", "Digest", "DPoP", "GNAP", "HOBA", "Mutual", "Negotiate", "OAuth",
	"PrivateToken", "SCRAM-SHA-1", "SCRAM-SHA-256", "vapid",
	"ApiKey", "Api-Key", "AWS4-HMAC-SHA256", "Hawk", "HMAC", "JWT", "Key", "NTLM", "Session", "Token",
}

// schemeOf is the scheme of an Authorization field: its name if that is known, else
// that there is another one, which may be the credential itself. Empty: there is none.
func schemeOf(value string) string {
	value = trim(value)
	if value == "" {
		return ""
	}
	given, _, _ := strings.Cut(value, " ")
	for _, scheme := range knownSchemes {
		if strings.EqualFold(given, scheme) {
			return scheme
		}
	}
	return "another"
}

// Tokens are the places where x looks for tokens.
func (x *Extractor) Tokens() []TokenSource { return x.tokens }

// Clients are the places where x looks for client ids.
func (x *Extractor) Clients() []ClientSource { return x.clients }

// Differing returns two sources of r with tokens that differ, in the order in which
// they are configured. Both are the same if one place holds both, or the one text of a
// token is read as two. It is for the log: Credentials say whether there are any.
func (x *Extractor) Differing(r *http.Request) []TokenSource {
	var first TokenSource
	var known Hash
	for _, s := range x.tokens {
		one, err := NewExtractor([]TokenSource{s}, []ClientSource{})
		if err != nil {
			continue // s was validated
		}
		token, err := one.Token(r)
		switch {
		case err != nil:
			return []TokenSource{s, s}
		case token.Hash.IsZero():
		case known.IsZero():
			first, known = s, token.Hash
		case token.Hash != known:
			return []TokenSource{first, s}
		}
	}
	return nil
}
