package livepage

import (
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/steer"
)

const (
	// feedHeartbeat is the time between events of a feed with nothing new, by which a page
	// knows that it is connected, and the feed that the page is there.
	feedHeartbeat = 10 * time.Second
	// feedPause is the least time between two rounds of events, which then have more in one.
	feedPause = 100 * time.Millisecond
	// statsPause is the least time between two events with stats, which may be long: they
	// have the values of all labels.
	statsPause   = time.Second
	writeTimeout = 10 * time.Second
	// mostReaders is how many pages are open at the same time.
	mostReaders = 64
)

// hello is the data of the event "hello", the first of a feed: what the page shows from
// before is no longer so.
type hello struct {
	// Time is the clock here, by which the page tells ages.
	Time time.Time `json:"time"`
	// Period is the time between two samples.
	PeriodSeconds float64 `json:"period_seconds"`
	MostSamples   int     `json:"most_samples"`
	MostLines     int     `json:"most_lines"`
}

// counted is the data of the event "stats".
type counted struct {
	Time  time.Time   `json:"time"`
	Stats steer.Stats `json:"stats"`
}

// feed writes what is on the board to one page.
type feed struct {
	board *Board
	out   *steer.FeedWriter
	read  read
	// counted is which stats were told last, as counted in Board, and when.
	counted int
	told    time.Time
}

// serve writes until the page is closed, does not read, or stop is closed.
func (f *feed) serve(left, stop <-chan struct{}) {
	defer f.out.End()
	err := f.out.Event("hello", hello{time.Now().UTC(), f.board.period.Seconds(), mostSamples, mostLines})
	wait := time.NewTimer(0)
	defer wait.Stop()
	for err == nil {
		n := f.board.news(&f.read)
		if err = f.write(n); err != nil {
			return
		}
		wait.Reset(feedPause)
		select {
		case <-wait.C:
		case <-left:
			return
		case <-stop:
			return
		}
		owes := n.counted != f.counted
		if owes {
			wait.Reset(statsPause)
		} else {
			wait.Reset(feedHeartbeat)
		}
		select {
		case <-n.changed:
		case <-wait.C:
			if !owes {
				err = f.out.Event("beat", struct{}{})
			}
		case <-left:
			return
		case <-stop:
			return
		}
	}
}

func (f *feed) write(n news) error {
	if n.list != nil && n.list != n.before {
		for _, c := range n.before.changesTo(n.list) {
			if err := f.out.Event("streams", c); err != nil {
				return err
			}
		}
	}
	if len(n.samples) > 0 {
		if err := f.out.Event("samples", n.samples); err != nil {
			return err
		}
	}
	if len(n.lines) > 0 {
		if err := f.out.Event("lines", n.lines); err != nil {
			return err
		}
	}
	now := time.Now()
	if n.stats.Zones == nil || n.counted == f.counted || now.Sub(f.told) < statsPause {
		return nil // nobody has looked yet, or nothing has changed, or it is too soon
	}
	f.counted, f.told = n.counted, now
	return f.out.Event("stats", counted{now.UTC(), n.stats})
}
