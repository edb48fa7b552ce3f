package redis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// A holder is kept in Redis as one string, which only nodes write. The scripts read
// its first fields; see parse in scripts/bucket.lua:
//
//	version    1 byte
//	flags      2 bytes, which of the optional fields follow, and what is true
//	ID         16 bytes
//	hashes     32 bytes each: Token, Subject, Client, Session, Fingerprint
//	times      8 bytes each: IssuedAt, Expires, Since, Asked
//	address    and its length in the last byte
//
// The key is not in it: it is the name of the record. A Fingerprint is left out where
// there is a Client, since it does not count then.
const holderVersion = 1

const (
	hasToken = 1 << iota
	hasSubject
	hasClient
	hasSession
	hasFingerprint
	isTab
	isYielding
	hasIssuedAt
	hasExpires
	hasSince
	hasAsked
)

var errHolder = errors.New("what Redis has of a stream cannot be read")

// encodeHolder spells h.
func encodeHolder(h *registry.Holder) string {
	b := make([]byte, 3, 3+len(h.ID)+5*len(h.Key)+4*8+len(h.Addr)+1)
	flags := 0
	b = append(b, h.ID[:]...)
	id := func(flag int, id registry.ID) {
		if !id.IsZero() {
			flags |= flag
			b = append(b, id[:]...)
		}
	}
	id(hasToken, h.Token)
	id(hasSubject, h.Subject)
	id(hasClient, h.Client)
	id(hasSession, h.Session)
	if h.Client.IsZero() {
		id(hasFingerprint, h.Fingerprint)
	}
	moment := func(flag int, t time.Time) {
		if !t.IsZero() {
			flags |= flag
			b = binary.BigEndian.AppendUint64(b, uint64(t.UnixNano()))
		}
	}
	moment(hasIssuedAt, h.IssuedAt)
	moment(hasExpires, h.Expires)
	moment(hasSince, h.Since)
	moment(hasAsked, h.Asked)
	if h.Tab {
		flags |= isTab
	}
	if h.Yields {
		flags |= isYielding
	}
	addr := h.Addr[:min(len(h.Addr), math.MaxUint8)]
	b = append(append(b, addr...), byte(len(addr)))
	b[0], b[1], b[2] = holderVersion, byte(flags>>8), byte(flags)
	return string(b)
}

// decodeHolder reads what encodeHolder has spelled.
func decodeHolder(key registry.ID, s string) (*registry.Holder, error) {
	h := &registry.Holder{Key: key}
	if len(s) < 3+len(h.ID)+1 || s[0] != holderVersion {
		return nil, fmt.Errorf("%w: %d bytes, of version %v", errHolder, len(s), s[:min(len(s), 1)])
	}
	flags, rest := int(s[1])<<8|int(s[2]), s[3:]
	take := func(n int) string {
		if len(rest) < n {
			rest = ""
			return ""
		}
		part := rest[:n]
		rest = rest[n:]
		return part
	}
	copy(h.ID[:], take(len(h.ID)))
	id := func(flag int, id *registry.ID) {
		if flags&flag != 0 {
			copy(id[:], take(len(id)))
		}
	}
	id(hasToken, &h.Token)
	id(hasSubject, &h.Subject)
	id(hasClient, &h.Client)
	id(hasSession, &h.Session)
	id(hasFingerprint, &h.Fingerprint)
	moment := func(flag int, t *time.Time) {
		if flags&flag == 0 {
			return
		}
		if part := take(8); part != "" {
			*t = time.Unix(0, int64(binary.BigEndian.Uint64([]byte(part))))
		}
	}
	moment(hasIssuedAt, &h.IssuedAt)
	moment(hasExpires, &h.Expires)
	moment(hasSince, &h.Since)
	moment(hasAsked, &h.Asked)
	h.Tab, h.Yields = flags&isTab != 0, flags&isYielding != 0
	if rest == "" || len(rest) != int(rest[len(rest)-1])+1 {
		return nil, fmt.Errorf("%w: its parts are not as long as they say", errHolder)
	}
	h.Addr = rest[:len(rest)-1]
	return h, nil
}

// encodeRule spells a rule as the scripts read it: see scripts/rules.lua.
func encodeRule(rule registry.Rule) string {
	n := min(max(rule.Limit, 0), math.MaxInt32) * 4
	if rule.Policy == registry.Reject {
		n |= 1
	}
	if rule.Unit == registry.Clients {
		n |= 2
	}
	return strconv.Itoa(n)
}

// A denial is kept as one string: its hashes, and the two times.
const denialSize = 3*32 + 2*8

func encodeDenial(d registry.Denial) string {
	b := make([]byte, 0, denialSize)
	b = append(b, d.Token[:]...)
	b = append(b, d.Client[:]...)
	b = append(b, d.Subject[:]...)
	var before int64
	if !d.IssuedBefore.IsZero() {
		before = d.IssuedBefore.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(before))
	b = binary.BigEndian.AppendUint64(b, uint64(d.Until.UnixNano()))
	return string(b)
}

func decodeDenial(s string) (d registry.Denial, err error) {
	if len(s) != denialSize {
		return d, fmt.Errorf("what Redis has of a denial cannot be read: it has %d bytes, not %d", len(s), denialSize)
	}
	copy(d.Token[:], s)
	copy(d.Client[:], s[32:])
	copy(d.Subject[:], s[64:])
	if before := int64(binary.BigEndian.Uint64([]byte(s[96:]))); before != 0 {
		d.IssuedBefore = time.Unix(0, before)
	}
	d.Until = time.Unix(0, int64(binary.BigEndian.Uint64([]byte(s[104:]))))
	return d, nil
}
