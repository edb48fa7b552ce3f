package conflict

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Fingerprint returns who asks for h, as far as that can be told of a client that
// comes back without a word: the client id if it has one, else the verified
// subject, else the token; its address, and its User-Agent. Tabs of one browser have
// the same fingerprint.
//
// A subject counts before the token, since a page may fetch a new token for each
// EventSource.
func Fingerprint(h *registry.Holder, userAgent string) registry.ID {
	var kind byte
	var who registry.ID
	switch {
	case !h.Client.IsZero():
		kind, who = 'c', h.Client
	case !h.Subject.IsZero():
		kind, who = 's', h.Subject
	default:
		kind, who = 't', h.Token
	}
	var stack [512]byte
	buf := append(stack[:0], kind)
	buf = append(buf, who[:]...)
	buf = binary.BigEndian.AppendUint64(buf, uint64(len(h.Addr)))
	buf = append(buf, h.Addr...)
	buf = append(buf, userAgent...)
	return sha256.Sum256(buf)
}
