package livepage

import (
	"cmp"
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/steer"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

const (
	usualPeriod = 5 * time.Second
	usualLinger = time.Minute
	// mostSamples is how many points the chart has.
	mostSamples = 120
	// mostLines is how many lines the list of what happened has.
	mostLines = 200
	// mostStreams is how many streams the table has at most. All are counted.
	mostStreams = 20_000
	// leastPause is the least time between two looks at the streams. It is longer where a
	// look takes long: at most a fifth of the time is spent looking.
	leastPause = 300 * time.Millisecond
	// joinPeriod is the time after which a new zone is listened to.
	joinPeriod = time.Second
	// mostWaiting is how many entries wait for the board until it misses some.
	mostWaiting = 4096
	lookTimeout = 5 * time.Second
)

// Board has what the pages show: who is connected, what happened lately, and how many
// there were in the last minutes. It looks at the streams once for all of its readers,
// and lists them only while there are some. While there are none it asks no other node,
// and hears none: what a page then shows from before is of this node. It must be closed.
type Board struct {
	api *steer.API
	// period is the time between two points of the chart.
	period time.Duration
	// linger is how long other nodes are heard and asked once the last page is closed, so
	// that one which is loaded again finds the chart as it was.
	linger time.Duration
	ctx    context.Context // until Close
	stop   context.CancelFunc
	work   sync.WaitGroup // its two goroutines
	look   chan struct{}  // has one element while streams have changed since the last look
	join   chan chan struct{}
	// wasFar says that other nodes were of interest when the last sample was made. It
	// belongs to the goroutine that watches.
	wasFar bool

	mu sync.Mutex // guards what follows; nothing is called with it held
	// changed is closed at the next change.
	changed chan struct{}
	readers int
	// until is when other nodes are of no interest any more, where there are no readers.
	until time.Time
	list  *listing // the last one, which does not change; nil: none yet
	stats steer.Stats
	// counted is how often stats were others than before.
	counted int
	samples journal[Sample]
	lines   journal[json.RawMessage]
	now     Sample // the one that is being made
}

// Sample is one point of the chart.
type Sample struct {
	Time time.Time `json:"time"`
	// Streams is how many there were at the end.
	Streams steer.States `json:"streams"`
	// Admitted, Takeovers, Refused and Untracked is how many there were since the point
	// before, on the nodes that are heard.
	Admitted  int `json:"admitted"`
	Takeovers int `json:"takeovers"`
	Refused   int `json:"refused"`
	Untracked int `json:"untracked"`
	// Here says that other nodes have not been asked, or heard all the while.
	Here bool `json:"here,omitempty"`
}

// journal keeps the last entries, and how many there were.
type journal[T any] struct {
	entries []T
	written int
}

func (j *journal[T]) add(entry T, most int) {
	if len(j.entries) >= most {
		j.entries = slices.Clone(j.entries[len(j.entries)-most+1:]) // readers may have the others
	}
	j.entries = append(j.entries, entry)
	j.written++
}

// since lists the entries behind the first so many.
func (j *journal[T]) since(read int) []T {
	return slices.Clone(j.entries[max(0, len(j.entries)-(j.written-read)):])
}

// NewBoard returns a Board of what api sees.
func NewBoard(api *steer.API) *Board { return newBoard(api, usualPeriod, usualLinger) }

func newBoard(api *steer.API, period, linger time.Duration) *Board {
	ctx, stop := context.WithCancel(context.Background())
	b := &Board{
		api: api, period: period, linger: linger, ctx: ctx, stop: stop,
		look: make(chan struct{}, 1), join: make(chan chan struct{}), changed: make(chan struct{}),
	}
	b.work.Go(b.listen)
	b.work.Go(b.watch)
	return b
}

// Join listens to zones that were opened just now, which it would find by itself a little
// later.
func (b *Board) Join() {
	joined := make(chan struct{})
	select {
	case b.join <- joined:
		<-joined
	case <-b.ctx.Done():
	}
}

// Close ends its work. Its readers must have left, or be leaving.
func (b *Board) Close() {
	b.stop()
	b.work.Wait()
}

// change calls f with mu held, and wakes the readers.
func (b *Board) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

// enter counts a reader, who leaves again; false: there are too many.
func (b *Board) enter() bool {
	b.mu.Lock()
	entered := b.readers < mostReaders
	if entered {
		b.readers++
	}
	b.mu.Unlock()
	b.lookSoon()
	return entered
}

func (b *Board) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.readers--; b.readers == 0 {
		b.list, b.stats, b.until = nil, steer.Stats{}, time.Now().Add(b.linger)
	}
}

func (b *Board) hasReaders() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.readers > 0
}

// isFar reports whether other nodes are of interest.
func (b *Board) isFar() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.readers > 0 || time.Now().Before(b.until)
}

func (b *Board) lookSoon() {
	select {
	case b.look <- struct{}{}:
	default:
	}
}

// listen notes what happens in the zones that there are.
func (b *Board) listen() {
	joined := make(map[*zone.Zone]bool) // and whether other nodes are heard, too
	l := event.NewListener(mostWaiting)
	join := func() {
		open, far := b.api.Zones(), b.isFar()
		for _, z := range open {
			switch before, known := joined[z]; {
			case known && before == far:
				continue
			case far:
				z.Feed.Join(l)
			default:
				z.Feed.JoinHere(l)
			}
			joined[z] = far
		}
		for z := range joined {
			if !slices.Contains(open, z) {
				z.Feed.Leave(l)
				delete(joined, z)
			}
		}
	}
	leave := func() {
		for z := range joined {
			z.Feed.Leave(l)
		}
		clear(joined)
	}
	defer leave()
	join()
	tick := time.NewTicker(joinPeriod)
	defer tick.Stop()
	for {
		select {
		case e := <-l.Entries():
			b.note(e)
		case <-l.Slow():
			leave()
			l = event.NewListener(mostWaiting)
			join()
			b.change(func() { b.lines.add(json.RawMessage(`{"event":"dropped"}`), mostLines) })
		case <-tick.C:
			join()
		case joined := <-b.join:
			join()
			close(joined)
		case <-b.ctx.Done():
			return
		}
	}
}

// note counts an entry, and writes a line of it where it is worth one.
func (b *Board) note(e event.Entry) {
	var line json.RawMessage
	if isWorthALine(e) {
		line, _ = json.Marshal(steer.HappenedAs(e)) // a struct of texts and numbers
	}
	b.mu.Lock()
	switch e.What {
	case event.WhatAdmitted:
		b.now.Admitted++
	case event.WhatSuperseded:
		b.now.Takeovers++
	case event.WhatRefused:
		b.now.Refused++
	case event.WhatUntracked:
		b.now.Untracked++
	case event.WhatEnded, event.WhatLogout:
	}
	read := b.readers > 0
	b.mu.Unlock()
	if line != nil {
		b.change(func() { b.lines.add(line, mostLines) })
	}
	if read {
		b.lookSoon()
	}
}

// isWorthALine leaves out what happens all the time, and what another line tells.
func isWorthALine(e event.Entry) bool {
	switch e.What {
	case event.WhatAdmitted:
		return false
	case event.WhatEnded:
		return !slices.Contains([]reason.Reason{event.Left, event.Finished, reason.Superseded, reason.MaxAge, reason.Shutdown}, e.Reason)
	default:
		return true
	}
}

// watch looks at the streams from time to time: for the chart, and for readers when
// something has happened.
func (b *Board) watch() {
	sampled := time.Now()
	for {
		began := time.Now()
		sample := began.Sub(sampled) >= b.period
		if sample {
			sampled = began
		}
		if sample || b.hasReaders() {
			b.takeLook(sample)
		}
		pause := time.NewTimer(max(leastPause, 4*time.Since(began)))
		select {
		case <-pause.C:
		case <-b.ctx.Done():
			pause.Stop()
			return
		}
		next := time.NewTimer(max(0, time.Until(sampled.Add(b.period))))
		select {
		case <-b.look:
		case <-next.C:
		case <-b.ctx.Done():
		}
		next.Stop()
	}
}

func (b *Board) takeLook(sample bool) {
	ctx, cancel := context.WithTimeout(b.ctx, lookTimeout)
	defer cancel()
	far, here := b.isFar(), false
	var stats steer.Stats
	var list *listing
	if far {
		stats = b.api.Stats(ctx)
	}
	if !far || !b.wasFar {
		var states steer.States
		if states, here = b.api.StatesHere(ctx); !far {
			stats.Streams = states
		}
	}
	if b.hasReaders() {
		list = newListing(b.api.Streams(ctx, mostStreams))
	}
	if b.ctx.Err() != nil {
		return
	}
	now := time.Now()
	b.change(func() {
		if b.readers > 0 && far {
			if !reflect.DeepEqual(b.stats, stats) {
				b.stats = stats
				b.counted++
			}
			b.list = cmp.Or(list, b.list)
		}
		if sample {
			b.now.Time, b.now.Streams, b.now.Here = now.UTC(), stats.Streams, here
			b.samples.add(b.now, mostSamples)
			b.now = Sample{}
		}
	})
	if sample {
		b.wasFar = far
	}
}

// read is what a reader has read so far.
type read struct {
	list           *listing
	samples, lines int
}

// news is what it has not.
type news struct {
	before, list *listing // the same: nothing is new
	stats        steer.Stats
	counted      int // as in Board; 0: not yet
	samples      []Sample
	lines        []json.RawMessage
	changed      <-chan struct{} // closed when there is more
}

func (b *Board) news(r *read) news {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := news{
		before: r.list, list: b.list, stats: b.stats, counted: b.counted,
		samples: b.samples.since(r.samples), lines: b.lines.since(r.lines), changed: b.changed,
	}
	*r = read{b.list, b.samples.written, b.lines.written}
	return n
}
