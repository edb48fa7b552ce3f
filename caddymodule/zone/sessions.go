package zone

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Sessions finds the streams whose end moves when a later token of their session
// is shown. All methods may be called concurrently.
type Sessions struct {
	// size is the number of members, for who need not look while there are none.
	size atomic.Int64

	// mu guards bySession and its members. Member.Renew is called with it held.
	mu        sync.Mutex
	bySession map[registry.ID][]*member
}

// Member is a stream whose end can be moved.
type Member interface {
	// Renew moves the stream's end; zero: it never expires. It does not block.
	Renew(until time.Time)
}

type member struct {
	id     registry.StreamID
	stream Member
	// ends is when the stream ends; zero: never.
	ends time.Time
	// renewedBy is the token that moved the end last; zero: none did.
	renewedBy registry.ID
}

// Add enters the stream of h, which ends at h.Expires, into its session, if it
// has both.
func (ss *Sessions) Add(h *registry.Holder, s Member) {
	if h.Session.IsZero() || h.Expires.IsZero() {
		return
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.bySession == nil {
		ss.bySession = make(map[registry.ID][]*member)
	}
	ss.bySession[h.Session] = append(ss.bySession[h.Session], &member{id: h.ID, stream: s, ends: h.Expires.Round(0)})
	ss.size.Add(1)
}

// remove takes the stream of h out, if it is in.
func (ss *Sessions) remove(h *registry.Holder) {
	if h.Session.IsZero() || ss.Len() == 0 {
		return
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	members := ss.bySession[h.Session]
	for i, m := range members {
		if m.id != h.ID {
			continue
		}
		ss.size.Add(-1)
		if len(members) == 1 {
			delete(ss.bySession, h.Session)
			return
		}
		members[i] = nil
		ss.bySession[h.Session] = append(members[:i:i], members[i+1:]...)
		return
	}
}

// Renew moves the ends of the session's streams to until, where that is later,
// on the strength of token, and returns how many it moved. A zero until is later
// than any other: the token never expires.
//
// Who may be logging token out meanwhile asks whether it is denied after Renew,
// not before.
func (ss *Sessions) Renew(session, token registry.ID, until time.Time) int {
	until = until.Round(0) // the wall clock's time, by which tokens expire
	ss.mu.Lock()
	defer ss.mu.Unlock()
	moved := 0
	for _, m := range ss.bySession[session] {
		if !m.endsBefore(until) {
			continue
		}
		m.ends, m.renewedBy = until, token
		m.stream.Renew(until)
		moved++
	}
	return moved
}

// endsBefore tells whether m has an end that is earlier than t, whose zero is later
// than all.
func (m *member) endsBefore(t time.Time) bool {
	return !m.ends.IsZero() && (t.IsZero() || m.ends.Before(t))
}

// RenewedBy lists, oldest first, the session's streams whose end was last moved
// by token. They carry an older token, so that a logout of this one does not find
// them otherwise.
func (ss *Sessions) RenewedBy(session, token registry.ID) (ids []registry.StreamID) {
	if token.IsZero() {
		return nil // it is what a member carries that was never renewed
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, m := range ss.bySession[session] {
		if m.renewedBy == token {
			ids = append(ids, m.id)
		}
	}
	return ids
}

// Len returns how many streams are known. It takes no lock, so that a request
// costs nothing while no stream expires.
func (ss *Sessions) Len() int { return int(ss.size.Load()) }
