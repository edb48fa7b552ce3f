package identity

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

// The functions of this file make of what an administrator writes the hashes that a
// guard makes of requests.

// ErrNoToken says that a text holds no token.
var ErrNoToken = errors.New("there is no token in it")

// HashOfToken returns the hash of a token as Credentials.Token does. Its errors hold
// nothing of the token.
func HashOfToken(text string) (Hash, error) {
	token, _ := cutBearer(text)
	if token == "" {
		return Hash{}, ErrNoToken
	}
	hash, agreed := hashToken(token)
	if !agreed {
		return Hash{}, errDecodersDisagree
	}
	return hash, nil
}

// IsClient reports whether h is the hash of the client id in text within scope,
// whether it names a device or a tab.
func (h Hash) IsClient(text string, scope Hash) bool {
	text = trim(text)
	if text == "" || scope.IsZero() || h.IsZero() {
		return false
	}
	return h == hashClient(scope, text, false) || h == hashClient(scope, text, true)
}

// HashOfSubject returns what stands for sub within iss, which may be empty.
func HashOfSubject(iss, sub string) Hash { return hashParts(subjectDomain, iss, sub) }

// HashPart is the hash of a token or a client as a part of a key: as the placeholders of
// the guard have
// it. It is empty for the zero Hash.
func HashPart(h Hash) string {
	if h.IsZero() {
		return ""
	}
	return hex.EncodeToString(h[:])
}

// SubjectPart is a verified subject as a part of a key: the claim sub counts only
// within iss, if the token says who that is. It begins with what no claim can be, which
// is text: it is not UTF-8.
func SubjectPart(subject Hash) string { return "\xff" + string(subject[:]) }

// WithoutParameters returns path without the parameters of its segments, in which
// tokens may be.
func WithoutParameters(path string) string { return withoutParameters(path) }

// Shows reports whether text is, or holds, a token that the request presents. One of
// few characters may be anywhere by chance: it is only compared.
func (c *Credentials) Shows(text string) bool {
	const few = 8
	holds := func(token string) bool {
		return token != "" && (text == token || len(token) >= few && strings.Contains(text, token))
	}
	return holds(c.token) || slices.ContainsFunc(c.others, holds)
}
