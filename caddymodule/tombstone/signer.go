package tombstone

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Errors of Verify. They hold nothing of the id.
var (
	// ErrForeign: the id is an application's, not a tombstone.
	ErrForeign = errors.New("the event id is not a tombstone")
	// ErrInvalid: the id begins like a tombstone, and this Signer did not sign
	// it.
	ErrInvalid = errors.New("the tombstone is not one that was signed here")
	// ErrExpired: the tombstone is older than MaxAge, or further in the future
	// than MaxSkew.
	ErrExpired = errors.New("the tombstone is out of date")
)

// MinSecret is the least number of bytes in a secret.
const MinSecret = 16

// macSize is the number of bytes that are kept of the HMAC-SHA-256.
const macSize = 16

// What follows the prefix, in base64url without padding: kind, binding, time as
// seconds since 1970, reason, MAC. All but the reason have a fixed length.
const (
	bindingAt = 1
	timeAt    = bindingAt + len(binding{})
	reasonAt  = timeAt + 8
	minBody   = reasonAt + 1 + macSize
	maxBody   = reasonAt + MaxReason + macSize
)

// The decoder must refuse what the encoder does not write.
var encoding = base64.RawURLEncoding.Strict()

// Signer makes and verifies tombstones. It is immutable, and safe for
// concurrent use.
type Signer struct {
	key [sha256.Size]byte
}

// NewSigner returns a Signer whose tombstones only a Signer with the same
// secret accepts. The secret is not kept; it needs at least MinSecret bytes.
func NewSigner(secret []byte) (*Signer, error) {
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("tombstone secret has %d bytes, expected at least %d random ones", len(secret), MinSecret)
	}
	// The same secret may serve other purposes.
	const label = "sse_guard tombstone key 1"
	derive := hmac.New(sha256.New, secret)
	derive.Write([]byte(label))
	s := new(Signer)
	derive.Sum(s.key[:0])
	return s, nil
}

// Sign returns the id of a tombstone for subject, the SHA-256 of a key or a
// token, in zone. The error says which argument cannot be signed.
func (s *Signer) Sign(kind Kind, zone string, subject [32]byte, reason string, now time.Time) (string, error) {
	if !isKind(kind) {
		return "", fmt.Errorf("signing a tombstone: unknown kind %d, expected %d (key) or %d (token)", kind, Key, Token)
	}
	if subject == ([32]byte{}) {
		// It would stop everyone who has no key or token.
		return "", errors.New("signing a tombstone: the subject is empty, expected the hash of a key or a token")
	}
	if !isReason(reason) {
		return "", fmt.Errorf("signing a tombstone: reason %q, expected 1 to %d letters a to z and underscores",
			reason, MaxReason)
	}
	var stack [maxBody]byte
	body := append(stack[:0], byte(kind))
	bound := bind(kind, zone, subject)
	body = append(body, bound[:]...)
	body = binary.BigEndian.AppendUint64(body, uint64(now.Unix()))
	body = append(body, reason...)
	mac := s.mac(body)
	body = append(body, mac[:]...)
	return Prefix + encoding.EncodeToString(body), nil
}

// Verify returns what the tombstone id says. The error is ErrForeign,
// ErrInvalid or ErrExpired. Whether it concerns a request is for
// Tombstone.Binds to say.
func (s *Signer) Verify(id string, now time.Time) (Tombstone, error) {
	if !Has(id) {
		return Tombstone{}, ErrForeign
	}
	var stack [maxBody]byte
	body, ok := decode(stack[:], id[len(Prefix):])
	if !ok {
		return Tombstone{}, ErrInvalid
	}
	body, mac := body[:len(body)-macSize], body[len(body)-macSize:]
	if want := s.mac(body); !hmac.Equal(mac, want[:]) {
		return Tombstone{}, ErrInvalid
	}
	t := Tombstone{
		Kind:    Kind(body[0]),
		Reason:  string(body[reasonAt:]),
		Time:    time.Unix(int64(binary.BigEndian.Uint64(body[timeAt:reasonAt])), 0),
		binding: binding(body[bindingAt:timeAt]),
	}
	if age := now.Sub(t.Time); age > MaxAge || age < -MaxSkew {
		return Tombstone{}, ErrExpired
	}
	return t, nil
}

// decode decodes text into dst if it is what encoding writes for a body.
func decode(dst []byte, text string) (body []byte, ok bool) {
	if n := encoding.DecodedLen(len(text)); n < minBody || n > maxBody {
		return nil, false
	}
	n, err := encoding.Decode(dst, []byte(text))
	if err != nil {
		return nil, false
	}
	// A decoder of encoding/base64 skips CR and LF, also a strict one.
	return dst[:n], encoding.EncodedLen(n) == len(text)
}

func (s *Signer) mac(body []byte) (mac [macSize]byte) {
	h := hmac.New(sha256.New, s.key[:])
	h.Write(body)
	var sum [sha256.Size]byte
	copy(mac[:], h.Sum(sum[:0]))
	return mac
}

func isKind(kind Kind) bool { return kind == Key || kind == Token }

func isReason(reason string) bool {
	for i := range len(reason) {
		if c := reason[i]; c != '_' && (c < 'a' || c > 'z') {
			return false
		}
	}
	return 1 <= len(reason) && len(reason) <= MaxReason
}
