package fights

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Party returns who asks for s, as far as that can be told of a client that
// comes back without a word: the client id if it has one, else the verified
// user, else the token; its address, and its User-Agent. Tabs of one browser are
// one party.
//
// A user counts before the token, since a page may fetch a new token for each
// EventSource.
func Party(s *registry.Stream, userAgent string) registry.ID {
	var kind byte
	var who registry.ID
	switch {
	case !s.Client.IsZero():
		kind, who = 'c', s.Client
	case !s.Subject.IsZero():
		kind, who = 's', s.Subject
	default:
		kind, who = 't', s.Token
	}
	var stack [512]byte
	buf := append(stack[:0], kind)
	buf = append(buf, who[:]...)
	buf = binary.BigEndian.AppendUint64(buf, uint64(len(s.Addr)))
	buf = append(buf, s.Addr...)
	buf = append(buf, userAgent...)
	return sha256.Sum256(buf)
}
