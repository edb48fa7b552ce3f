package conflict

import (
	"slices"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// history is who lost one key to whom lately. It is guarded by the lock of the
// Damping that has it.
type history struct {
	// losses has the latest last.
	losses []*loss
	// keep is how long flaps are remembered: the longest window asked for.
	keep time.Duration
	// since is when the first of the flaps came that have not been at rest all at
	// once since.
	since time.Time
}

// loss is a Loss that may yet cause a flap. Its Gone is nil where it was not given,
// or has nothing to tell any more; its By becomes whom the key went to then when the
// loss of the one that took it is forgotten.
type loss struct {
	Loss
	at time.Time
	// rests says that the client that lost stays away, or had gone before.
	rests bool
	// flap is the newcomer that this loss seems to have caused, and flapTime when it
	// was first asked about; zero: none.
	flap     registry.StreamID
	flapTime time.Time
}

// add notes l, the latest loss.
func (h *history) add(l *loss) {
	h.losses = slices.DeleteFunc(h.losses, func(old *loss) bool { return old.over(l.at, h.keep) })
	if len(h.losses) == maxLosses {
		h.makeRoom()
	}
	h.losses = append(h.losses, l)
}

// makeRoom forgets a loss.
func (h *history) makeRoom() {
	i := h.leastUseful()
	forgotten := h.losses[i]
	h.losses = slices.Delete(h.losses, i, i+1)
	for _, l := range h.losses {
		if l.By == forgotten.Stream {
			l.By = forgotten.By // the way of the key stays known
		}
	}
}

// leastUseful returns the index of the oldest loss that causes no flap, or that
// caused one too many to matter, else of the latest one that caused none yet. Were
// it the oldest of these, whose client comes back first, many pages could take
// turns unnoticed.
func (h *history) leastUseful() int {
	if i := slices.IndexFunc(h.losses, func(l *loss) bool { return l.rests }); i >= 0 {
		return i
	}
	oldest, latest, flaps := 0, 0, 0
	for i, l := range slices.Backward(h.losses) {
		if !l.flapped() {
			latest = max(latest, i)
		} else {
			oldest = i
			flaps++
		}
	}
	if flaps > MaxFlaps {
		return oldest
	}
	return latest
}

// rest puts the oldest loss of fingerprint to rest that a tombstone made then can be
// about.
func (h *history) rest(fingerprint registry.ID, made time.Time) {
	for _, l := range h.losses {
		if l.Fingerprint == fingerprint && !l.rests && l.told(made) {
			l.restNow()
			return
		}
	}
}

// suspects reports whether a newcomer of fingerprint may flap, whoever holds the key.
func (h *history) suspects(fingerprint registry.ID, now time.Time) bool {
	return slices.ContainsFunc(h.losses, func(l *loss) bool { return l.suspect(fingerprint, now) })
}

// takers returns, once each, who took the key.
func (h *history) takers() []registry.StreamID {
	out := make([]registry.StreamID, 0, len(h.losses))
	for _, l := range h.losses {
		if !slices.Contains(out, l.By) {
			out = append(out, l.By)
		}
	}
	return out
}

// flap reports whether newcomer flaps while held hold the key, and holds that
// against the loss that seems to have caused it. If there is none, the newcomer is
// one of several that one loss caused, and counts no more.
func (h *history) flap(newcomer *registry.Holder, held []registry.StreamID, now time.Time) bool {
	flaps, cause := h.cause(newcomer.Fingerprint, held, now)
	if cause == nil {
		return flaps
	}
	known := func(l *loss) bool { return l.flapped() && l.flap == newcomer.ID }
	if !slices.ContainsFunc(h.losses, known) {
		cause.flap, cause.flapTime = newcomer.ID, now
	}
	return true
}

// cause reports whether a newcomer of fingerprint flaps while held hold the key, and
// returns the oldest of the losses that may have caused it and no other flap yet.
func (h *history) cause(fingerprint registry.ID, held []registry.StreamID, now time.Time) (flaps bool, oldest *loss) {
	// way are the streams through which the key came to those who hold it, and these
	// themselves. What a stream lost, it took before.
	way := append(make([]registry.StreamID, 0, 2*maxLosses), held...)
	for _, l := range slices.Backward(h.losses) {
		if !slices.Contains(way, l.By) {
			continue
		}
		way = append(way, l.Stream)
		if l.suspect(fingerprint, now) {
			flaps = true
			if !l.flapped() {
				oldest = l
			}
		}
	}
	return flaps, oldest
}

// flaps counts the flaps within window whose cause is not at rest.
func (h *history) flaps(now time.Time, window time.Duration) int {
	n := 0
	for _, l := range h.losses {
		if l.flapped() && now.Sub(l.flapTime) < window && !l.rests {
			n++
		}
	}
	return n
}

// suspect reports whether l may cause a newcomer of fingerprint to flap.
func (l *loss) suspect(fingerprint registry.ID, now time.Time) bool {
	return l.Fingerprint == fingerprint && now.Sub(l.at) < minute && !l.rests
}

// flapped reports whether l seems to have caused a flap.
func (l *loss) flapped() bool { return !l.flapTime.IsZero() }

// over reports whether l is of no account any more.
func (l *loss) over(now time.Time, keep time.Duration) bool {
	return now.Sub(l.at) >= minute && (!l.flapped() || now.Sub(l.flapTime) >= keep)
}

func (l *loss) restNow() { l.rests, l.Gone = true, nil }

// told reports whether a tombstone made then, in whole seconds, can be the one
// of l.
func (l *loss) told(made time.Time) bool {
	if made.IsZero() {
		return true
	}
	return made.Add(time.Second).After(l.at) && made.Before(l.at.Add(tellTime))
}
