package campaign

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/checker"
)

// worker is one client. What it does is decided by its own random numbers, so that it
// does the same whatever the others do.
type worker struct {
	c      *crowd
	rand   *rand.Rand
	client string // its client id; empty: it has none
	// pause is the longest time between two things that it does, and keeps says that it
	// closes no stream for another.
	pause time.Duration
	keeps bool
	open  []*stream
	// tombstones has the last that it got, by zone and user.
	tombstones map[string]string
}

const (
	workers = 12
	// quick and calm are how clients are: the streams of those that are calm live long.
	quick, calm = 300 * time.Millisecond, 3 * time.Second
	// mostOpen is how many streams a worker has at once.
	mostOpen = 6
	// fewUsers share most streams, manyUsers the others.
	fewUsers, manyUsers = 5, 60
)

func newWorker(c *crowd, seed uint64, number int) *worker {
	w := &worker{c: c, rand: rand.New(rand.NewPCG(seed, uint64(number))), pause: quick, tombstones: make(map[string]string)}
	if number%4 < 2 {
		w.client = fmt.Sprint("client", number)
	}
	if number%2 == 0 {
		w.pause, w.keeps = calm, true
	}
	return w
}

// work does one thing after the other until done is closed.
func (w *worker) work(done <-chan struct{}) {
	for {
		w.act()
		timer := time.NewTimer(time.Duration(w.rand.Int64N(int64(w.pause))))
		select {
		case <-timer.C:
		case <-done:
			timer.Stop()
			return
		}
	}
}

// choice is where a request goes, and as whom.
type choice struct {
	zone, user string
	node       *node
}

func (w *worker) choose() choice {
	user := fmt.Sprint("few", w.rand.IntN(fewUsers))
	if w.rand.IntN(5) == 0 {
		user = fmt.Sprint("many", w.rand.IntN(manyUsers))
	}
	world := w.c.w
	return choice{world.zones[w.rand.IntN(len(world.zones))].name, user, world.nodes[w.rand.IntN(len(world.nodes))]}
}

func (w *worker) act() {
	to, what := w.choose(), w.rand.IntN(100)
	switch {
	case what < 50:
		w.ask(to, 0, "", patience)
	case what < 65: // comes back fast, wherever the load balancer sends it
		for range 2 + w.rand.IntN(4) {
			w.ask(to, 0, "", patience)
			to.node = w.choose().node
			if w.rand.IntN(2) == 0 {
				w.closeLast()
			}
		}
	case what < 80:
		w.closeOne()
	case what < 85:
		w.ask(to, 0, w.tombstones[to.zone+"/"+to.user], patience)
	case what < 90: // leaves at once
		w.ask(to, 0, "", time.Duration(w.rand.IntN(20))*time.Millisecond)
	case what < 95:
		w.ask(to, 1, "", patience) // with the token of before the last logout
	default:
		w.c.logOut(to.zone, to.user, token(to, w.c.login(to.zone, to.user)), to.node)
	}
}

func token(to choice, login int) string { return fmt.Sprintf("%s-%s-%d", to.zone, to.user, login) }

// ask opens a stream with the token of so many logouts ago.
func (w *worker) ask(to choice, ago int, tombstone string, giveUp time.Duration) {
	for i, s := range slices.Backward(w.open) {
		if s.isOver() {
			w.close(i)
		}
	}
	switch {
	case len(w.open) < mostOpen:
	case w.keeps:
		return
	default:
		w.closeOne()
	}
	login := max(0, w.c.login(to.zone, to.user)-ago)
	s := w.c.open(checker.Stream{
		Zone: to.zone, Key: to.user, Node: to.node.name, Client: w.client, Token: token(to, login),
	}, to.node.url, tombstone, giveUp)
	if s != nil {
		w.open = append(w.open, s)
	}
}

func (w *worker) closeOne() {
	if len(w.open) > 0 {
		w.close(w.rand.IntN(len(w.open)))
	}
}

func (w *worker) closeLast() {
	if len(w.open) > 0 {
		w.close(len(w.open) - 1)
	}
}

func (w *worker) close(i int) {
	s := w.open[i]
	w.open = append(w.open[:i:i], w.open[i+1:]...)
	s.close()
	if s.tombstone != "" {
		w.tombstones[s.zone+"/"+s.user] = s.tombstone
	}
}

func (w *worker) closeAll() {
	for len(w.open) > 0 {
		w.closeLast()
	}
}
