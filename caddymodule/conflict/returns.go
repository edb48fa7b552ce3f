package conflict

import (
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Returns knows when newcomers are to come back that were parked and have left by
// themselves. Some clients do so at once, again and again. All methods may be called
// concurrently.
type Returns struct {
	// mu guards known.
	mu    sync.Mutex
	known *due.Map[parked, struct{}]
}

// parked is who was parked: any client of the token, as client ids are the clients'
// to choose.
type parked struct{ key, token registry.ID }

// NewReturns returns a Returns that knows of nobody.
func NewReturns() *Returns { return newReturns(maxKeys) }

func newReturns(keys int) *Returns { return &Returns{known: due.NewMap[parked, struct{}](keys)} }

// Left notes that newcomer has left, who is to come back in the given time.
func (r *Returns) Left(newcomer *registry.Holder, back time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for range 2 { // one more than is added
		if e := r.known.Due(now); e != nil {
			r.known.Remove(e)
		}
	}
	who := parked{newcomer.Key, newcomer.Token}
	e := r.known.Find(who)
	if e == nil {
		e, _ = r.known.Add(who, now.Add(back))
	}
	r.known.Extend(e, now.Add(back))
}

// Early returns how much earlier than it was to newcomer is back; 0: it is not.
func (r *Returns) Early(newcomer *registry.Holder) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.known.Find(parked{newcomer.Key, newcomer.Token})
	if e == nil {
		return 0
	}
	return max(time.Until(e.At()), 0)
}
