package conflict

import (
	"math"
	"slices"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// history is who lost one key to whom lately. It is guarded by the lock of the
// Damping that has it.
type history struct {
	// losses are those of the last excuseTime, the latest last.
	losses []*loss
	// counted are the take-backs whose losses are older and did count.
	counted []takeBack
	// shown counts the losses whose tombstones were shown since the key was at rest.
	shown int
	// keep is how long a take-back is remembered: for the longest half-life asked for.
	keep time.Duration
	// parked says that a newcomer was to be parked since the key was at rest: that
	// nobody loses it is no sign of pages at rest then.
	parked bool
	// takes are the newcomers of the last minute that a person asked for.
	takes []takeBack
	// aging is the key's place in the queue of that name.
	aging due.Entry[registry.ID, struct{}]
	// asking is that in the other.
	asking due.Entry[registry.ID, struct{}]
}

// takeBack is that a newcomer took the key back.
type takeBack struct {
	by registry.StreamID
	at time.Time
	// shown says that the tombstone was shown of the loss that caused it.
	shown bool
}

// loss is a Loss that may cause a take-back. Its Gone is nil where it was not given,
// or has nothing to tell any more; its By becomes whom the key went to then when the
// loss of the one that took it is forgotten.
type loss struct {
	Loss
	at time.Time
	// shown says that its tombstone was shown.
	shown bool
	// forgiven says that it counts no more: its client had gone before it was told, or
	// came to rest.
	forgiven bool
	// gone says that its client had gone: it causes no take-back.
	gone bool
	// asked says that it was asked for the other nodes whether its client had gone.
	asked bool
	// back is the newcomer that this loss seems to have caused, and backTime when it
	// was first asked about; zero: none.
	back     registry.StreamID
	backTime time.Time
}

// advance brings h up to date before anything else happens to the key.
func (h *history) advance(now time.Time) {
	if h.atRest(now) {
		h.rest()
	}
	h.age(now)
}

// age forgets the losses that are older than excuseTime, and what they caused when that
// counts no more.
func (h *history) age(now time.Time) {
	h.losses = slices.DeleteFunc(h.losses, func(l *loss) bool {
		if now.Sub(l.at) < excuseTime {
			return false
		}
		if l.caused() && !l.forgiven {
			h.counted = append(h.counted, takeBack{by: l.back, at: l.backTime, shown: l.shown})
		}
		return true
	})
	h.counted = slices.DeleteFunc(h.counted, func(b takeBack) bool { return now.Sub(b.at) >= h.keep })
	if more := len(h.counted) - 2*MaxCount; more > 0 {
		h.counted = slices.Delete(h.counted, 0, more)
	}
}

// atRest reports whether nobody has lost the key for so long that pages which build a
// new EventSource would have come back.
func (h *history) atRest(now time.Time) bool {
	return len(h.losses) == 0 || now.Sub(h.losses[len(h.losses)-1].at) >= takeBackTime
}

// rest forgets the losses whose tombstones were shown: the clients stayed away.
func (h *history) rest() {
	if h.parked {
		h.parked = false // once they have flapped, their count has to fall
		return
	}
	for _, l := range h.losses {
		l.forgiven = l.forgiven || l.shown
	}
	h.counted = slices.DeleteFunc(h.counted, func(b takeBack) bool { return b.shown })
	h.shown = 0
}

// add notes l in its turn: another node may have told of a later one before.
func (h *history) add(l *loss) {
	if len(h.losses) == maxLosses {
		h.makeRoom()
	}
	i := len(h.losses)
	for i > 0 && h.losses[i-1].at.After(l.at) {
		i--
	}
	h.losses = slices.Insert(h.losses, i, l)
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

// leastUseful returns the index of a loss that counts no more, else of the latest one
// that was shown or caused no take-back: the older ones are to count first.
func (h *history) leastUseful() int {
	latest, latestShown, shown := len(h.losses)-1, 0, 0
	for i, l := range h.losses {
		switch {
		case l.forgiven:
			return i
		case l.shown:
			latestShown = i
			shown++
		case !l.caused():
			latest = i
		}
	}
	if shown > maxLosses/2 {
		return latestShown
	}
	return latest
}

// show notes that a tombstone of the client was shown, made then: that is the oldest
// loss that it can be about. It reports whether there is one.
func (h *history) show(client *registry.Holder, made time.Time) bool {
	for _, l := range h.losses {
		if l.of(client) && !l.shown && !l.gone && l.told(made) {
			l.shown, l.Gone = true, nil
			h.shown++
			return true
		}
	}
	return false
}

// suspects reports whether newcomer takes the key back, whoever holds it.
func (h *history) suspects(newcomer *registry.Holder, now time.Time) bool {
	return slices.ContainsFunc(h.losses, func(l *loss) bool { return l.suspect(newcomer, now) })
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

// cause reports whether newcomer takes the key back while held hold it, and returns
// the oldest of the losses that may have caused that and no other take-back yet; nil:
// the newcomer is one of several that one loss caused, and counts no more.
func (h *history) cause(newcomer *registry.Holder, held []registry.StreamID, now time.Time) (isBack bool, oldest *loss) {
	// way are the streams through which the key came to those who hold it, and these
	// themselves. What a stream lost, it took before.
	way := make(map[registry.StreamID]bool, len(held)+len(h.losses))
	for _, id := range held {
		way[id] = true
	}
	for _, l := range slices.Backward(h.losses) {
		if !way[l.By] {
			continue
		}
		way[l.Stream] = true
		if l.suspect(newcomer, now) {
			isBack = true
			if !l.caused() {
				oldest = l
			}
		}
	}
	return isBack, oldest
}

// hold holds the newcomer's take-back against its cause, unless it is known already, or
// the cause has caused another. It reports whether it was neither.
func (h *history) hold(newcomer registry.StreamID, cause *loss, now time.Time) bool {
	known := func(l *loss) bool { return l.caused() && l.back == newcomer }
	if cause == nil || cause.caused() || slices.ContainsFunc(h.losses, known) {
		return false
	}
	cause.back, cause.backTime = newcomer, now
	return true
}

// take reports whether the newcomer may have the key since a person asked for it, and
// whether that was not known before.
func (h *history) take(newcomer registry.StreamID, now time.Time) (may, isNew bool) {
	h.takes = slices.DeleteFunc(h.takes, func(t takeBack) bool { return now.Sub(t.at) >= minute })
	if slices.ContainsFunc(h.takes, func(t takeBack) bool { return t.by == newcomer }) {
		return true, false // it was asked about before
	}
	if len(h.takes) == MaxTakes {
		return false, false
	}
	h.takes = append(h.takes, takeBack{by: newcomer, at: now})
	return true, true
}

// count is that of the take-backs. Each counts half as much with each half-life.
func (h *history) count(now time.Time, halfLife time.Duration) (n float64) {
	weight := func(at time.Time) float64 { return math.Exp2(-float64(now.Sub(at) / halfLife)) }
	for _, l := range h.losses {
		if l.caused() && l.counts(now) {
			n += weight(l.backTime)
		}
	}
	for _, b := range h.counted {
		if !b.shown || h.shown > excused {
			n += weight(b.at)
		}
	}
	return n
}

// counts reports whether l counts, which is younger than excuseTime.
func (l *loss) counts(now time.Time) bool {
	return !l.forgiven && !l.shown && now.Sub(l.at) >= showTime
}

// suspect reports whether l may cause newcomer to take the key back.
func (l *loss) suspect(newcomer *registry.Holder, now time.Time) bool {
	return !l.gone && l.of(newcomer) && now.Sub(l.at) < takeBackTime
}

// caused reports whether l seems to have caused a take-back.
func (l *loss) caused() bool { return !l.backTime.IsZero() }

// isToBeAsked reports whether it is yet to be asked, for the other nodes, whether the
// client of l had gone.
func (l *loss) isToBeAsked() bool { return l.Gone != nil && !l.asked }

// toAsk returns those that are to be asked now.
func (h *history) toAsk(now time.Time) (losses []unasked) {
	for _, l := range h.losses {
		if l.isToBeAsked() && now.Sub(l.at) >= askTime {
			l.asked = true
			losses = append(losses, unasked{l, l.Stream, l.Gone})
		}
	}
	return losses
}

// forgive notes that the client of l had gone.
func (l *loss) forgive() { l.gone, l.forgiven, l.Gone = true, true, nil }

// told reports whether a tombstone made then, in whole seconds, can be the one
// of l.
func (l *loss) told(made time.Time) bool {
	if made.IsZero() {
		return true
	}
	return made.Add(time.Second).After(l.at) && made.Before(l.at.Add(tellTime))
}
