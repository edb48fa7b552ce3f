package fights

import (
	"slices"
	"time"
	"weak"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// feud is who lost one key to whom lately.
type feud struct {
	key   registry.ID
	over  time.Time // when it is of no account any more
	index int       // in the queue

	// losses has the latest last.
	losses []*loss
	// keep is how long flaps are remembered: the longest window asked for.
	keep time.Duration
	// since is when the first of the flaps came that have not been at rest all at
	// once since.
	since time.Time
}

// loss is a Loss that may yet cause a flap.
type loss struct {
	stream name
	// by is who took the key from stream, or whom it went to then.
	by    name
	party registry.ID
	at    time.Time
	// gone is nil where it was not given, or has nothing to tell any more.
	gone func() bool
	// rests says that the client that lost stays away.
	rests bool
	// flap is the newcomer that this loss seems to have caused, and when it was
	// first asked about; zero: none.
	flap     name
	flapTime time.Time
}

// name tells streams apart and does not keep them alive.
type name = weak.Pointer[registry.Stream]

// add notes l, the latest loss.
func (f *feud) add(l *loss) {
	f.losses = slices.DeleteFunc(f.losses, func(old *loss) bool { return old.over(l.at, f.keep) })
	if len(f.losses) == maxLosses {
		f.makeRoom()
	}
	f.losses = append(f.losses, l)
}

// makeRoom forgets a loss.
func (f *feud) makeRoom() {
	i := f.leastUseful()
	forgotten := f.losses[i]
	f.losses = slices.Delete(f.losses, i, i+1)
	for _, l := range f.losses {
		if l.by == forgotten.stream {
			l.by = forgotten.by // the way of the key stays known
		}
	}
}

// leastUseful returns the index of the oldest loss that causes no flap, or that
// caused one too many to matter, else of the latest one that caused none yet. Were
// it the oldest of these, whose client comes back first, many pages could take
// turns unnoticed.
func (f *feud) leastUseful() int {
	if i := slices.IndexFunc(f.losses, (*loss).atRest); i >= 0 {
		return i
	}
	oldest, latest, flaps := 0, 0, 0
	for i, l := range slices.Backward(f.losses) {
		if l.flapTime.IsZero() {
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

// rest puts the oldest loss of party to rest that a tombstone made then can be
// about.
func (f *feud) rest(party registry.ID, made time.Time) {
	for _, l := range f.losses {
		if l.party == party && !l.atRest() && l.told(made) {
			l.restNow()
			return
		}
	}
}

// flap reports whether newcomer flaps, and holds that against the loss that seems
// to have caused it. If there is none, the newcomer is one of several that one
// loss caused, and counts no more.
func (f *feud) flap(newcomer *registry.Stream, party registry.ID, holds func(*registry.Stream) bool, now time.Time) bool {
	flaps, cause := f.cause(party, holds, now)
	if cause == nil {
		return flaps
	}
	n := weak.Make(newcomer)
	if !slices.ContainsFunc(f.losses, func(l *loss) bool { return l.flap == n }) {
		cause.flap, cause.flapTime = n, now
	}
	return true
}

// cause reports whether a newcomer of party flaps, and returns the oldest of the
// losses that may have caused it and no other flap yet.
func (f *feud) cause(party registry.ID, holds func(*registry.Stream) bool, now time.Time) (flaps bool, oldest *loss) {
	suspect := func(l *loss) bool { return l.party == party && now.Sub(l.at) < minute && !l.atRest() }
	if !slices.ContainsFunc(f.losses, suspect) {
		return false, nil // as usual: holds need not be asked
	}
	// way are the streams through which the key came to a present holder. What
	// a stream lost, it took before.
	way := make([]name, 0, maxLosses)
	for _, l := range slices.Backward(f.losses) {
		if !slices.Contains(way, l.by) {
			by := l.by.Value()
			if by == nil || !holds(by) {
				continue
			}
		}
		way = append(way, l.stream)
		if suspect(l) {
			flaps = true
			if l.flapTime.IsZero() {
				oldest = l
			}
		}
	}
	return flaps, oldest
}

// flaps counts the flaps within window whose cause is not at rest.
func (f *feud) flaps(now time.Time, window time.Duration) int {
	n := 0
	for _, l := range f.losses {
		if !l.flapTime.IsZero() && now.Sub(l.flapTime) < window && !l.atRest() {
			n++
		}
	}
	return n
}

// over reports whether l is of no account any more.
func (l *loss) over(now time.Time, keep time.Duration) bool {
	return now.Sub(l.at) >= minute && (l.flapTime.IsZero() || now.Sub(l.flapTime) >= keep)
}

// atRest reports whether the client that lost stays away, or had gone before.
func (l *loss) atRest() bool {
	if !l.rests && l.gone != nil && l.gone() {
		l.restNow()
	}
	return l.rests
}

func (l *loss) restNow() { l.rests, l.gone = true, nil }

// told reports whether a tombstone made then, in whole seconds, can be the one
// of l.
func (l *loss) told(made time.Time) bool {
	if made.IsZero() {
		return true
	}
	return made.Add(time.Second).After(l.at) && made.Before(l.at.Add(tellTime))
}
