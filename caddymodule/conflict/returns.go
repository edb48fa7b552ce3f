package conflict

import (
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Returns knows when newcomers are to come back that were parked and have left by
// themselves. Some clients do so at once, again and again. All methods may be called
// concurrently.
type Returns struct {
	known *due.Set[parked]
}

// parked is who was parked: any client of the token, as client ids are the clients'
// to choose.
type parked struct{ key, token registry.ID }

// NewReturns returns a Returns that knows of nobody.
func NewReturns() *Returns { return newReturns(maxKeys) }

func newReturns(keys int) *Returns { return &Returns{known: due.NewSet[parked](keys)} }

// Close forgets everybody.
func (r *Returns) Close() { r.known.Close() }

// Left notes that newcomer has left, who is to come back in the given time.
func (r *Returns) Left(newcomer *registry.Holder, back time.Duration) {
	r.known.Add(parked{newcomer.Key, newcomer.Token}, time.Now().Add(back))
}

// Early returns how much earlier than it was to newcomer is back; 0: it is not.
func (r *Returns) Early(newcomer *registry.Holder) time.Duration {
	until := r.known.Until(parked{newcomer.Key, newcomer.Token})
	if until.IsZero() {
		return 0
	}
	return max(time.Until(until), 0)
}
