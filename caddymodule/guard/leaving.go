package guard

import (
	"slices"
	"sync"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// leaving knows, by key, the streams whose clients have left while the upstream
// has yet to hear of it. They hold nothing any more, but a newcomer that reached
// a backend before the news would be refused there, or lose its emitter to their
// clean-up.
type leaving struct {
	mu    sync.Mutex
	byKey map[registry.ID][]*registry.Stream
}

func (l *leaving) enter(s *registry.Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byKey == nil {
		l.byKey = make(map[registry.ID][]*registry.Stream)
	}
	l.byKey[s.Key] = append(l.byKey[s.Key], s)
}

// leave forgets s, if it is known.
func (l *leaving) leave(s *registry.Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	streams := l.byKey[s.Key]
	at := slices.Index(streams, s)
	switch {
	case at < 0:
	case len(streams) == 1:
		delete(l.byKey, s.Key)
	default:
		l.byKey[s.Key] = slices.Delete(streams, at, at+1)
	}
}

func (l *leaving) of(key registry.ID) []*registry.Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.byKey[key])
}
