// Package tombstone signs and verifies the event ids that ended streams carry
// away. A page's EventSource sends the last id it saw when it reconnects; one
// that presents a tombstone is told to stay away, for as long as MaxAge.
//
// A tombstone is bound to what was ended, and does not tell it: it holds a
// short hash of zone and key, or token. Only the Signer's secret makes one.
package tombstone

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"strings"
	"time"
)

// Prefix begins every tombstone. The number is the version of the format.
const Prefix = "sse-guard.1."

// MaxLen is the number of bytes that no tombstone exceeds.
const MaxLen = 128

// MaxAge is how long a tombstone is accepted.
const MaxAge = 24 * time.Hour

// MaxSkew is how far in the future a tombstone may be made: the clocks of
// several nodes differ.
const MaxSkew = 5 * time.Minute

// MaxReason is the greatest number of bytes in a reason.
const MaxReason = 16

// Kind is what a tombstone is bound to.
type Kind uint8

const (
	// Key: a stream that holds this key must not come back by itself.
	Key Kind = 1
	// Token: nothing that carries this token may come back.
	Token Kind = 2
)

// Tombstone is what a verified id says.
type Tombstone struct {
	// Kind is what the tombstone is bound to.
	Kind Kind
	// Reason is why the stream was ended: 1 to 16 letters a to z and
	// underscores.
	Reason string
	// Time is when the stream was ended, in whole seconds.
	Time time.Time

	binding binding
}

// Has reports whether id begins like a tombstone, valid or not. Such an id is
// the guard's own and means nothing to a backend.
func Has(id string) bool { return strings.HasPrefix(id, Prefix) }

// Binds reports whether t was made for this subject, the SHA-256 of a key or a
// token, in this zone. It takes the same time for every answer.
func (t Tombstone) Binds(kind Kind, zone string, subject [32]byte) bool {
	want := bind(kind, zone, subject)
	return subtle.ConstantTimeCompare(t.binding[:], want[:]) == 1
}

// binding is the first half of a SHA-256 over kind, zone and subject. Nobody
// can sign one without the secret, so a collision would have to come by chance.
type binding [16]byte

func bind(kind Kind, zone string, subject [32]byte) binding {
	const domain = "sse_guard tombstone binding\x00"
	var stack [256]byte
	buf := append(stack[:0], domain...)
	buf = append(buf, byte(kind))
	buf = binary.BigEndian.AppendUint64(buf, uint64(len(zone)))
	buf = append(buf, zone...)
	buf = append(buf, subject[:]...)
	sum := sha256.Sum256(buf)
	return binding(sum[:len(binding{})])
}
