package caddymodule

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// placeholder is one that the guard sets. The tables of placeholders in README and
// in Handler's comment are written from it.
type placeholder struct {
	// name is what is between the braces; * at its end stands for any text.
	name string
	doc  string
	// inKey is whether a part of the key may have it.
	inKey bool
}

// claimsPlaceholder begins the placeholders of a token's claims.
const claimsPlaceholder = ownPlaceholders + "claims."

// guardPlaceholders are all that the guard sets, for its key and for the handlers
// behind it.
var guardPlaceholders = []placeholder{
	{name: ownPlaceholders + "key", doc: "A short hash of the key, as in log lines; no part of the key itself"},
	{name: ownPlaceholders + "token", doc: "A hash of the token; empty without one", inKey: true},
	{name: ownPlaceholders + "client", doc: "A hash of the client id, within its token or verified user; empty without one", inKey: true},
	{name: claimsPlaceholder + "*", doc: "A claim of the token, if it is good: `sub`, `realm_access.roles`; dots lead into objects, arrays are joined with commas", inKey: true},
}

// matches reports whether p stands for the placeholder of this name.
func (p placeholder) matches(name string) bool {
	prefix, more := strings.CutSuffix(p.name, "*")
	if more {
		return strings.HasPrefix(name, prefix) && name != prefix
	}
	return name == p.name
}

// validateKeyPlaceholders refuses placeholders of the guard that no part of a key
// can have. They would be empty, or the same for all requests.
func (h *Handler) validateKeyPlaceholders() error {
	var allowed []placeholder
	for _, p := range guardPlaceholders {
		if p.inKey {
			allowed = append(allowed, p)
		}
	}
	return ownPlaceholdersAmong("key", "a key", h.Key, allowed)
}

// ownPlaceholdersAmong refuses placeholders of the guard in an option's texts that
// are not among the allowed ones. What is what may have those, for the error.
func ownPlaceholdersAmong(option, what string, texts []string, allowed []placeholder) error {
	names := make([]string, len(allowed))
	for i, p := range allowed {
		names[i] = "{" + p.name + "}"
	}
	for text := range placeholders(texts) {
		name, _, _ := strings.Cut(text, "}")
		if strings.HasPrefix(name, ownPlaceholders) && !slices.ContainsFunc(allowed, func(p placeholder) bool { return p.matches(name) }) {
			return fmt.Errorf("%s: {%s} is not allowed; of the guard's placeholders, %s may have: %s", option, name, what, strings.Join(names, ", "))
		}
	}
	return nil
}

// requestPlaceholders begin the names of placeholders whose values are known
// when a request comes in. Others may come from its response.
var requestPlaceholders = []string{
	"http.request.", "http.auth.", "http.regexp.", "http.vars.",
	ownPlaceholders, "env.", "system.", "file.",
}

// keyFromRequest reports whether the key can be computed before the upstream
// has answered.
func (h *Handler) keyFromRequest() bool {
	if h.JWT != nil && h.JWT.Unverified && h.keyHasClaims() {
		return false
	}
	for name := range placeholders(h.Key) {
		if !slices.ContainsFunc(requestPlaceholders, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			return false
		}
	}
	return true
}

// keyHasClaims reports whether a part of the key has a claim of the token.
func (h *Handler) keyHasClaims() bool {
	for name := range placeholders(h.Key) {
		if strings.HasPrefix(name, claimsPlaceholder) {
			return true
		}
	}
	return false
}

// placeholders yields the beginnings of texts behind each opening brace.
func placeholders(texts []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, text := range texts {
			for {
				_, rest, found := strings.Cut(text, "{")
				if !found {
					break
				}
				if !yield(rest) {
					return
				}
				text = rest
			}
		}
	}
}
