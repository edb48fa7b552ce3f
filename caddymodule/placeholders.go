package caddymodule

import (
	"fmt"
	"iter"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
)

// placeholder is one that the guard sets. The tables of placeholders in README and
// in Handler's comment are written from it.
type placeholder struct {
	// name is what is between the braces; * at its end stands for any text.
	name string
	doc  string
	// inKey is whether a part of the key may have it.
	inKey bool
	// later is whether it has a value only once the answer is known.
	later bool
}

// standingPlaceholders tell how the request stands.
var standingPlaceholders = []placeholder{
	{name: ownPlaceholders + "stream", doc: "The stream's id; empty while the answer is none", later: true},
	{name: ownPlaceholders + "state", doc: "`live`, `untracked`, `parked` or `refused`; empty while the answer is no stream", later: true},
	{name: ownPlaceholders + "reason", doc: "Why the stream is over, or the request was refused: a `reason` or an `outcome` of the metrics; empty before", later: true},
}

// claimsPlaceholder begins the placeholders of a token's claims.
const claimsPlaceholder = ownPlaceholders + "claims."

// guardPlaceholders are all that the guard sets, for its key and for the handlers
// behind it.
var guardPlaceholders = append([]placeholder{
	{name: ownPlaceholders + "key", doc: "A short hash of the key, as in log lines; no part of the key itself"},
	{name: ownPlaceholders + "token", doc: "A hash of the token; empty without one", inKey: true},
	{name: ownPlaceholders + "client", doc: "A hash of the client id, within its token or verified user; empty without one", inKey: true},
	{name: claimsPlaceholder + "*", doc: "A claim of the token, if it is good: `sub`, `realm_access.roles`; dots lead into objects, arrays are joined with commas", inKey: true},
}, standingPlaceholders...)

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
			if len(allowed) == 0 {
				return fmt.Errorf("%s: {%s} is not allowed; %s may have none of the guard's placeholders", option, name, what)
			}
			return fmt.Errorf("%s: {%s} is not allowed; of the guard's placeholders, %s may have: %s", option, name, what, strings.Join(names, ", "))
		}
	}
	return nil
}

// responseField is a placeholder of a field of the backend's response header, whose
// name Caddy knows in its canonical spelling only.
var responseField = regexp.MustCompile(`\{http\.(reverse_proxy|intercept)\.header\.([^{}]+)\}`)

// canonicalFields spells the names of response header fields in text as Caddy does.
func canonicalFields(text string) string {
	return responseField.ReplaceAllStringFunc(text, func(found string) string {
		at := strings.LastIndex(found, ".header.") + len(".header.")
		return found[:at] + http.CanonicalHeaderKey(found[at:len(found)-1]) + "}"
	})
}

// canonicalKey is the key with canonicalFields.
func (h *Handler) canonicalKey() []string {
	if len(h.Key) == 0 {
		return nil
	}
	parts := make([]string, len(h.Key))
	for i, part := range h.Key {
		parts[i] = canonicalFields(part)
	}
	return parts
}

// canonicalMessages is the messages with canonicalFields.
func (h *Handler) canonicalMessages() map[reason.Reason]string {
	messages := maps.Clone(h.Messages)
	for of, text := range messages {
		messages[of] = canonicalFields(text)
	}
	return messages
}

// constantPlaceholders begin the names of placeholders whose values are the same for
// all requests.
var constantPlaceholders = []string{"env.", "system.", "file."}

// isConstantKey reports whether all requests have the same key.
func (h *Handler) isConstantKey() bool {
	for name := range placeholders(h.Key) {
		if !hasPrefixOf(name, constantPlaceholders) {
			return false
		}
	}
	return len(h.Key) > 0
}

// meansWhole reports whether a constant key is likely to be meant: as the name of the
// whole site, of which a limit other than one stream bounds, or counts, all streams. A
// part with a dot is rather a placeholder whose braces were forgotten.
func (h *Handler) meansWhole() bool {
	return *h.Limit != 1 && !slices.ContainsFunc(h.Key, func(part string) bool {
		return !strings.Contains(part, "{") && strings.Contains(part, ".")
	})
}

// noPlaceholders refuses placeholders in a text where none is replaced.
func noPlaceholders(option, text string) error {
	for rest := range placeholders([]string{text}) {
		if name, _, closed := strings.Cut(rest, "}"); closed && (hasPrefixOf(name, requestPlaceholders) || hasPrefixOf(name, otherPlaceholders)) {
			return fmt.Errorf("%s: {%s} is not allowed: placeholders are not replaced here; write the text itself", option, name)
		}
	}
	return nil
}

// otherPlaceholders begin names besides requestPlaceholders.
var otherPlaceholders = []string{"http.", "time."}

func hasPrefixOf(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
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
		if !hasPrefixOf(name, requestPlaceholders) {
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
