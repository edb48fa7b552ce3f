package conflict

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// note is what a node tells the others of a key, so that each knows all that happens to
// it: a client may come to another node each time. It has hashes only.
type note struct {
	What noteKind
	// Key is the key, and Token and Subject those of the client.
	Key, Token, Subject registry.ID
	// Stream is the one that lost the key, or that a person asked for, and By the one that
	// took the key, or took it back.
	Stream, By registry.StreamID
	// Made is when the tombstone was made that was shown, in Unix seconds; 0: not known.
	Made int64
	// HalfLife is that of the newcomer's rule.
	HalfLife time.Duration
	// Parked says that the newcomer was to be parked.
	Parked bool
}

type noteKind uint8

const (
	noteLost  noteKind = iota + 1 // Stream lost the key to By
	noteShown                     // a client showed its tombstone
	noteGone                      // the client of Stream had gone before it was told that it lost the key
	noteBack                      // By took the key back since Stream lost it
	noteTaken                     // a person asked for Stream
)

// Share has the others told, by tell, what this node learns of those who lose keys. They
// are to Hear it. It is called before all other methods, once at most.
func (d *Damping) Share(tell func(at time.Time, b []byte)) { d.tellOthers = tell }

// tell tells the other nodes, if there are any. No lock is held.
func (d *Damping) tell(at time.Time, notes ...note) {
	if d.tellOthers == nil {
		return
	}
	for i := range notes {
		if b, err := binary.Append(nil, binary.BigEndian, &notes[i]); err == nil { // its size is fixed: it never fails
			d.tellOthers(at, b)
		}
	}
}

// Hear takes what another node has told, and when that happened. What it cannot read it
// leaves alone: a node of another version may have told it.
func (d *Damping) Hear(at time.Time, b []byte) {
	var n note
	if read, err := binary.Decode(b, binary.BigEndian, &n); err != nil || read != len(b) {
		return
	}
	now := time.Now()
	age := max(now.Sub(at), 0)
	at = now.Add(-age) // by the monotonic clock
	if n.What == noteLost {
		if age < excuseTime {
			d.lost(Loss{Stream: n.Stream, By: n.By, Key: n.Key, Token: n.Token, Subject: n.Subject}, at)
		}
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.known.Find(n.Key)
	if e == nil {
		return
	}
	h := &e.Value
	switch n.What {
	case noteShown:
		h.show(&registry.Holder{Token: n.Token, Subject: n.Subject}, n.made())
	case noteGone:
		if l := h.lossOf(n.Stream); l != nil {
			l.forgive()
		}
	case noteBack:
		h.advance(now)
		h.hold(n.By, h.lossOf(n.Stream), at)
		h.parked = h.parked || n.Parked
		d.remember(e, n.HalfLife, now)
	case noteTaken:
		h.take(n.Stream, at)
	}
}

func (n *note) made() time.Time {
	if n.Made == 0 {
		return time.Time{}
	}
	return time.Unix(n.Made, 0)
}

// lossOf returns that of the stream; nil: none is known.
func (h *history) lossOf(stream registry.StreamID) *loss {
	i := slices.IndexFunc(h.losses, func(l *loss) bool { return l.Stream == stream })
	if i < 0 {
		return nil
	}
	return h.losses[i]
}
