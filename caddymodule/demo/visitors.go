package demo

import (
	"crypto/sha256"
	"slices"
	"sync"
)

// maxVisitors bounds what is remembered of visitors who have left. A visitor
// with an open stream is never forgotten.
const maxVisitors = 1024

// visitors knows which streams are open for which token. A cookie of this name
// may belong to another application on the same host, so tokens are kept
// hashed.
type visitors struct {
	mu     sync.Mutex
	byHash map[[sha256.Size]byte]*state
}

// state is what the backend holds for one token.
type state struct {
	Open    int      `json:"open"`
	Opened  int      `json:"opened"`  // so far
	Closed  int      `json:"closed"`  // so far
	Streams []string `json:"streams"` // those open, the oldest first
}

func newVisitors() *visitors {
	return &visitors{byHash: make(map[[sha256.Size]byte]*state)}
}

// open notes that a stream of the token has begun.
func (v *visitors) open(token, stream string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	hash := sha256.Sum256([]byte(token))
	s := v.byHash[hash]
	if s == nil {
		v.makeRoom()
		s = &state{}
		v.byHash[hash] = s
	}
	s.Streams = append(s.Streams, stream)
	s.Opened++
}

// close notes that a stream of the token has ended.
func (v *visitors) close(token, stream string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.byHash[sha256.Sum256([]byte(token))]
	if i := slices.Index(s.Streams, stream); i >= 0 {
		s.Streams = slices.Delete(s.Streams, i, i+1)
		s.Closed++
	}
}

// state returns a copy of what is held for the token.
func (v *visitors) state(token string) state {
	v.mu.Lock()
	defer v.mu.Unlock()
	var held state
	if s := v.byHash[sha256.Sum256([]byte(token))]; s != nil {
		held = *s
	}
	held.Open = len(held.Streams)
	held.Streams = append([]string{}, held.Streams...) // never null in JSON
	return held
}

// makeRoom forgets visitors without a stream until there is room for one more.
// The caller holds the lock.
func (v *visitors) makeRoom() {
	for hash, s := range v.byHash {
		if len(v.byHash) < maxVisitors {
			return
		}
		if len(s.Streams) == 0 {
			delete(v.byHash, hash)
		}
	}
}
