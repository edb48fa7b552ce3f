package livepage

import (
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/steer"
)

// listing has the streams that one look has seen.
type listing struct {
	streams []steer.Stream
	at      map[string]int // by their IDs
	// cut says that there are more than the table shows.
	cut        bool
	incomplete string
}

func newListing(page steer.Page) *listing {
	l := &listing{
		streams: page.Streams, at: make(map[string]int, len(page.Streams)),
		cut: page.Next != "", incomplete: page.Incomplete,
	}
	for i := range l.streams {
		l.at[l.streams[i].ID] = i
	}
	return l
}

// change is the data of the event "streams": what changes in the table. Large ones are
// several events.
type change struct {
	// Reset says that the table is empty before.
	Reset bool `json:"reset,omitempty"`
	// Put are rows that are new, or other than before.
	Put []*steer.Stream `json:"put,omitempty"`
	// Counts are those of rows that are as before but for these.
	Counts []counts `json:"counts,omitempty"`
	// Gone are the IDs of rows that are no more.
	Gone []string `json:"gone,omitempty"`
	// Cut and Incomplete say what the table does not have.
	Cut        bool   `json:"cut,omitempty"`
	Incomplete string `json:"incomplete,omitempty"`
}

// counts has id, events, bytes, and when the last event and acknowledgment were, in
// milliseconds since 1970, 0: not known.
type counts [5]any

func countsOf(s *steer.Stream) counts {
	return counts{s.ID, s.Events, s.Bytes, millis(s.LastEventAt), millis(s.LastAckAt)}
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// mostRows is how many rows one event has.
const mostRows = 500

// changesTo lists what changes from l, which may be nil, to the listing to.
func (l *listing) changesTo(to *listing) (changes []change) {
	c := change{Reset: l == nil, Cut: to.cut, Incomplete: to.incomplete}
	rows := 0
	count := func() {
		if rows++; rows%mostRows == 0 {
			changes = append(changes, c)
			c = change{Cut: to.cut, Incomplete: to.incomplete}
		}
	}
	for i := range to.streams {
		s := &to.streams[i]
		before := l.stream(s.ID)
		switch {
		case before == nil || before.State != s.State || !before.Since.Equal(s.Since) || before.Zone != s.Zone || before.Subject != s.Subject:
			c.Put = append(c.Put, s)
		case countsOf(before) != countsOf(s):
			c.Counts = append(c.Counts, countsOf(s))
		default:
			continue
		}
		count()
	}
	if l != nil {
		for i := range l.streams {
			if id := l.streams[i].ID; to.stream(id) == nil {
				c.Gone = append(c.Gone, id)
				count()
			}
		}
	}
	told := l != nil && l.cut == to.cut && l.incomplete == to.incomplete
	if !told || rows%mostRows != 0 {
		changes = append(changes, c)
	}
	return changes
}

func (l *listing) stream(id string) *steer.Stream {
	if l == nil {
		return nil
	}
	if i, ok := l.at[id]; ok {
		return &l.streams[i]
	}
	return nil
}
