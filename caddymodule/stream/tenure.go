package stream

import "github.com/sse-guard/sse-guard/caddymodule/registry"

// tenure is a stream's place in the registry. life.mu guards its other fields.
type tenure struct {
	life  *life
	place registry.Place // nil: none, or not yet
	// given says that the place was given back, or is to be as soon as there is one,
	// and keep how.
	given bool
	keep  registry.Keep
	// departed says that the upstream's request is gone.
	departed bool
}

// begin takes a place, and passes on what has happened before.
func (t *tenure) begin(p registry.Place) {
	t.life.mu.Lock()
	t.place = p
	given, keep, departed := t.given, t.keep, t.departed
	t.life.mu.Unlock()
	if given {
		p.Leave(keep)
	}
	if departed {
		p.Departed()
	}
}

// leave gives the place back, the first time.
func (t *tenure) leave(keep registry.Keep) {
	t.life.mu.Lock()
	first := !t.given
	if first {
		t.given, t.keep = true, keep
	}
	place := t.place
	t.life.mu.Unlock()
	if first && place != nil {
		place.Leave(keep)
	}
}

// depart says that the upstream's request is gone.
func (t *tenure) depart() {
	t.life.mu.Lock()
	t.departed = true
	place := t.place
	t.life.mu.Unlock()
	if place != nil {
		place.Departed()
	}
}

func (t *tenure) holds() bool {
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	return t.place != nil && !t.given
}
