package guard

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// findKey computes the key from what is known by now.
func (q *request) findKey() {
	q.identify()
	var key identity.Hash
	if len(q.guard.Key) == 0 {
		key, _ = identity.DefaultKey(identity.Hash(q.holder.Token), q.r.Host, q.guard.Identity.Path(q.env.Path()))
	} else {
		parts := make([]string, len(q.guard.Key))
		for i, template := range q.guard.Key {
			parts[i] = q.env.Expand(template, q.keyPlaceholder)
		}
		key, _ = identity.Key(parts...)
		q.lacks = ""
		if i := slices.Index(parts, ""); i >= 0 {
			q.lacks = q.guard.Key[i]
		}
	}
	q.holder.Key = registry.ID(key)
}

// keyed reports whether the key is known.
func (s *sender) keyed() bool { return s.holder != nil && !s.holder.Key.IsZero() }

// placeholder is the value of {sse_guard.*} as the innermost guard knows it, which
// is what the handlers behind the guards see.
func (c *chain) placeholder(name string) string {
	if value, ok := c.standing(name); ok {
		return value
	}
	return c.innermost.placeholder(name)
}

// keyPlaceholder is placeholder for a part of the key. There, sub counts only within
// iss, if the token says who that is: two issuers may name different people alike.
func (q *request) keyPlaceholder(name string) string {
	if name == claimsPlaceholder+"sub" {
		if c := q.goodClaims(); c != nil && c.Sub != "" && c.Text("iss") != "" {
			return notText + string(c.Subject[:])
		}
	}
	return q.placeholder(name)
}

// notText begins what no claim can be, which is text: it is not UTF-8.
const notText = "\xff"

// goodClaims are what the good token says, to this guard or to one further out; nil: there
// is none.
func (q *request) goodClaims() *identity.Claims {
	q.identify()
	switch {
	case q.claims != nil && q.claimsErr == nil:
		return q.claims
	case q.guard.Verifier == nil && q.outer != nil:
		return q.outer.goodClaims() // a guard further out may know
	default:
		return nil
	}
}

// claimsPlaceholder begins the placeholders of a token's claims.
const claimsPlaceholder = "sse_guard.claims."

// placeholder is the value of {sse_guard.*}: hashes, and what a good token says.
func (q *request) placeholder(name string) string {
	q.identify()
	switch name {
	case "sse_guard.key":
		if !q.keyed() && q.guard.KeyFromRequest && q.governed {
			q.findKey()
		}
		return identity.Hash(q.holder.Key).Short()
	case "sse_guard.client":
		return fullHash(q.holder.Client)
	case "sse_guard.token":
		return fullHash(q.holder.Token)
	}
	claim, ok := strings.CutPrefix(name, claimsPlaceholder)
	if !ok {
		q.guard.tellUnknown(name)
		return ""
	}
	if c := q.goodClaims(); c != nil {
		return c.Text(claim)
	}
	return ""
}

func fullHash(id registry.ID) string {
	if id.IsZero() {
		return ""
	}
	return hex.EncodeToString(id[:])
}
