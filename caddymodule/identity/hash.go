// Package identity tells from a request who asks: the hash of its token, its
// client id and the key it wants to hold, and whether the request is one that
// the guard governs at all. Raw tokens never leave the package, not even in
// its errors.
//
// The guard sits between a client and a backend that may read the same bytes
// differently, and a client that finds a spelling which only the backend
// understands evades its limit. So this package reads leniently: where two
// readings exist it takes the most tolerant one, and where they would name
// different tokens it says so.
package identity

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Hash is a SHA-256 that stands for a token, a client id, a key or a subject. The zero
// Hash means "none".
type Hash [sha256.Size]byte

// IsZero reports whether h stands for nothing.
func (h Hash) IsZero() bool { return h == Hash{} }

// Short returns the first 8 bytes of h as 16 hex digits, for log lines. It is
// empty for the zero Hash.
func (h Hash) Short() string {
	if h.IsZero() {
		return ""
	}
	return hex.EncodeToString(h[:8])
}

// Every hash begins with the name of what it stands for, so that equal bytes
// used for two purposes give two hashes. The NUL ends the name: no domain is
// the beginning of another.
const (
	jwtDomain     = "sse_guard jwt\x00"
	opaqueDomain  = "sse_guard opaque token\x00"
	deviceDomain  = "sse_guard client device\x00"
	tabDomain     = "sse_guard client tab\x00"
	keyDomain     = "sse_guard key\x00"
	subjectDomain = "sse_guard subject\x00"
	sessionDomain = "sse_guard session\x00"
)

// lengthSize is the number of bytes in which a part's length is written.
const lengthSize = 8

// appendPart appends part behind its length. A list of parts written this way
// can be read back in one way only.
func appendPart(dst []byte, part string) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(len(part)))
	return append(dst, part...)
}
