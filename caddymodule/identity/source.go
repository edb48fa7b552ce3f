package identity

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// From is the part of a request that a source looks at.
type From string

const (
	// Header reads a request header.
	Header From = "header"
	// Query reads a parameter of the query string.
	Query From = "query"
	// Cookie reads a cookie.
	Cookie From = "cookie"
	// Path reads a parameter of the path: /events;jsessionid=1234. Servlet containers
	// look there for the session of a browser without cookies.
	Path From = "path"
)

// Scope is what a client id names.
type Scope string

const (
	// Device: a browser profile, an app on a phone. All its tabs send the same
	// id. It is the default.
	Device Scope = "device"
	// Tab: a single tab, or a single stream of a program.
	Tab Scope = "tab"
)

// TokenSource is a place where a request may carry its token.
type TokenSource struct {
	// From is "header", "query", "cookie" or "path", which counts only if no other
	// source has a token.
	From From `json:"from"`
	// Name is the name of the header, parameter or cookie. It matches in any
	// case, since some backends read them that way. The header Authorization is
	// read with the scheme Bearer only.
	Name string `json:"name"`
}

// ClientSource is a place where a request may carry its client id.
type ClientSource struct {
	// From is "header", "query" or "cookie".
	From From `json:"from"`
	// Name is the name of the header, parameter or cookie, in any case.
	Name string `json:"name"`
	// Scope says what the id names: "device" (the default) or "tab".
	Scope Scope `json:"scope,omitempty"`
}

// DefaultTokens returns the places where a token is looked for if none is
// configured: the three of RFC 6750 that a GET has, and the names that pages
// with the browser's EventSource use because it cannot set a header.
func DefaultTokens() []TokenSource {
	return []TokenSource{
		{From: Header, Name: "Authorization"},
		{From: Query, Name: "token"},
		{From: Query, Name: "access_token"},
		{From: Cookie, Name: "access_token"},
	}
}

// DefaultClients returns the places where a client id is looked for if none is
// configured.
func DefaultClients() []ClientSource {
	return []ClientSource{
		{From: Header, Name: "X-Client-Id", Scope: Device},
		{From: Query, Name: "client_id", Scope: Device},
	}
}

// Validate returns an error if s cannot be read from a request. The error says
// what was given and what is allowed.
func (s TokenSource) Validate() error {
	if err := validatePlace(s.From, s.Name, Header, Query, Cookie, Path); err != nil {
		return fmt.Errorf("token source: %w", err)
	}
	return nil
}

// Validate returns an error if s cannot be read from a request. The error says
// what was given and what is allowed.
func (s ClientSource) Validate() error {
	if err := validatePlace(s.From, s.Name, Header, Query, Cookie); err != nil {
		return fmt.Errorf("client source: %w", err)
	}
	switch s.Scope {
	case "", Device, Tab:
		return nil
	}
	return fmt.Errorf("client source %s %s: unknown scope %q, expected %q or %q",
		s.From, s.Name, s.Scope, Device, Tab)
}

// ValidateTokens validates each source, and that none is given twice.
func ValidateTokens(sources []TokenSource) error {
	for i, s := range sources {
		if err := s.Validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(sources[:i], func(earlier TokenSource) bool {
			return samePlace(earlier.From, earlier.Name, s.From, s.Name)
		}) {
			return fmt.Errorf("token source %s %s is given twice, expected each place once", s.From, s.Name)
		}
	}
	return nil
}

// ValidateClients validates each source, and that none is given twice, also not
// with two scopes.
func ValidateClients(sources []ClientSource) error {
	for i, s := range sources {
		if err := s.Validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(sources[:i], func(earlier ClientSource) bool {
			return samePlace(earlier.From, earlier.Name, s.From, s.Name)
		}) {
			return fmt.Errorf("client source %s %s is given twice, expected each place once, with one scope",
				s.From, s.Name)
		}
	}
	return nil
}

func validatePlace(from From, name string, allowed ...From) error {
	if !slices.Contains(allowed, from) {
		return fmt.Errorf("unknown place %q, expected %s", from, listOf(allowed))
	}
	if name == "" {
		return fmt.Errorf("%s without a name, expected the name of the %s", from, placeNoun(from))
	}
	if from != Query && !isToken(name) {
		return fmt.Errorf("%q cannot be the name of a %s, expected letters, digits and !#$%%&'*+-.^_`|~ only",
			name, placeNoun(from))
	}
	return nil
}

// listOf is the places in words.
func listOf(places []From) string {
	last := len(places) - 1
	quoted := make([]string, len(places))
	for i, p := range places {
		quoted[i] = strconv.Quote(string(p))
	}
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

func placeNoun(from From) string {
	switch from {
	case Query:
		return "query parameter"
	case Path:
		return "path parameter"
	default:
		return string(from)
	}
}

func samePlace(from1 From, name1 string, from2 From, name2 string) bool {
	return from1 == from2 && strings.EqualFold(name1, name2)
}

// isToken reports whether s is a token of RFC 9110 section 5.6.2, which the
// names of headers and cookies have to be.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
