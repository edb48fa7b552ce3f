package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/internal/printable"
)

// Top shows the streams that matter most, again and again.
type Top struct {
	Client *Client
	Filter Filter
	// Interval is the time between two looks.
	Interval time.Duration
	// Order is by what streams are sorted: one of Orders.
	Order Order
}

// Order is by what streams are sorted, the greatest first.
type Order string

// Orders are those that there are. In the live view the first letter chooses one.
var Orders = []Order{"rate", "age", "events", "bytes"}

// Intervals that are allowed.
const (
	LeastInterval = 100 * time.Millisecond
	MostInterval  = time.Hour
)

// Check says what cannot be meant.
func (t *Top) Check() error {
	switch {
	case t.Interval < LeastInterval || t.Interval > MostInterval:
		return fmt.Errorf("--interval %s is not allowed; it is from %s to %s", t.Interval, LeastInterval, MostInterval)
	case !slices.Contains(Orders, t.Order):
		return fmt.Errorf("--sort %q is not allowed; it is one of %s", t.Order, list(Orders))
	default:
		return nil
	}
}

func list[T ~string](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	return strings.Join(texts, ", ")
}

// answerTimeout is how long a look may take.
const answerTimeout = 10 * time.Second

// Look is what there is at one time.
type Look struct {
	At      time.Time `json:"at"`
	Stats   *Stats    `json:"stats"`
	Streams []Stream  `json:"streams"`
	// More says that there are more streams than those.
	More    bool   `json:"more"`
	Missing string `json:"incomplete,omitempty"`

	rates map[string]float64 // of events, by stream; nil at the first look
}

// Look looks once.
func (t *Top) Look(ctx context.Context) (*Look, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	stats, err := t.Client.Stats(ctx, t.Filter.Zone)
	if err != nil {
		return nil, late(err)
	}
	page, err := t.Client.Streams(ctx, t.Filter, MostOfPage)
	if err != nil {
		return nil, late(err)
	}
	return &Look{
		At: time.Now(), Stats: stats, Streams: page.Streams, More: page.Next != "",
		Missing: cmp.Or(stats.Warning(), page.Warning()),
	}, nil
}

func late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the admin endpoint has not answered for %s", answerTimeout)
	}
	return err
}

// since computes rates from an earlier look.
func (l *Look) since(before *Look) {
	passed := l.At.Sub(before.At).Seconds()
	if passed <= 0 {
		return
	}
	events := make(map[string]uint64, len(before.Streams))
	for i := range before.Streams {
		events[before.Streams[i].ID] = before.Streams[i].Events
	}
	l.rates = make(map[string]float64, len(l.Streams))
	for i := range l.Streams {
		s := &l.Streams[i]
		if old, ok := events[s.ID]; ok && s.Events >= old {
			l.rates[s.ID] = float64(s.Events-old) / passed
		}
	}
}

func (l *Look) sort(by Order) {
	value := func(s *Stream) float64 {
		switch by {
		case "age":
			return s.AgeSeconds
		case "events":
			return float64(s.Events)
		case "bytes":
			return float64(s.Bytes)
		default:
			return l.rates[s.ID]
		}
	}
	slices.SortStableFunc(l.Streams, func(a, b Stream) int {
		return cmp.Or(cmp.Compare(value(&b), value(&a)), cmp.Compare(b.Events, a.Events), strings.Compare(a.ID, b.ID))
	})
}

// lines are the look as text, at most that wide and that many; 0: as many as there are.
func (l *Look) lines(title, trouble string, width, height int) []string {
	c := l.Stats.Streams
	nodes := make(map[string]bool)
	for _, z := range l.Stats.Zones {
		for _, n := range z.Nodes {
			nodes[n.Node] = true
		}
	}
	total := 0.0
	for _, rate := range l.rates {
		total += rate
	}
	head := []string{
		title,
		fmt.Sprintf("live %d  parked %d  untracked %d  ending %d  zones %d  nodes %d%s", c.Live, c.Parked, c.Untracked, c.Ending,
			len(l.Stats.Zones), len(nodes), map[bool]string{true: "  events/s " + perSecond(total, true)}[l.rates != nil]),
	}
	if trouble = cmp.Or(trouble, l.Missing); trouble != "" {
		head = append(head, trouble)
	}
	head = append(head, "")
	t := table{
		head:     []string{"STATE", "AGE", "EV/S", "EVENTS", "BYTES", "ZONE", "KEY", "CLIENT", "SUBJECT", "ADDRESS", "NODE", "PATH", "LABELS"},
		right:    []int{1, 2, 3, 4},
		optional: []int{7, 8, 12},
	}
	shown := len(l.Streams)
	if height > 0 {
		shown = max(0, min(shown, height-len(head)-2)) // the table's head, and what follows it
	}
	for i := range l.Streams[:shown] {
		s := &l.Streams[i]
		rate, known := l.rates[s.ID]
		t.row(s.State, age(s.AgeSeconds), perSecond(rate, known), s.events(), size(s.Bytes), s.Zone, s.Key,
			s.Client, s.Subject, s.RemoteIP, s.Node, s.Path, labels(s.Labels))
	}
	lines := slices.Concat(head, t.lines(width))
	switch {
	case l.More:
		lines = append(lines, fmt.Sprintf("%d of the first %d are shown; there are more: choose with --zone, --state and the like.", shown, len(l.Streams)))
	case shown < len(l.Streams):
		lines = append(lines, fmt.Sprintf("%d of %d are shown.", shown, len(l.Streams)))
	}
	for i := range lines[:len(head)] {
		lines[i] = printable.Text(lines[i], width)
	}
	if height > 0 {
		lines = lines[:min(len(lines), height)]
	}
	return lines
}

func perSecond(rate float64, known bool) string {
	switch {
	case !known:
		return "-"
	case rate >= 100:
		return strconv.FormatInt(int64(math.Round(rate)), 10)
	default:
		return strconv.FormatFloat(rate, 'f', 1, 64)
	}
}

// Print looks once, and writes it as a table.
func (l *Look) Print(out io.Writer, by Order, address string) {
	l.sort(by)
	const wide = 240
	title := fmt.Sprintf("sse_guard at %s  %s", address, l.At.Format(time.TimeOnly))
	for _, line := range l.lines(title, "", wide, 0) {
		fmt.Fprintln(out, line)
	}
}

// Warning is what is missing in the look; empty: nothing.
func (l *Look) Warning() string { return l.Missing }

// Screen is where Run shows what it sees.
type Screen interface {
	// Size is how many columns and lines there are.
	Size() (width, height int)
	// Draw shows lines in place of those before.
	Draw(lines []string) error
	// Keys are what the user has typed. It may be nil.
	Keys() <-chan byte
}

// Run shows the streams until the user has enough of it, or ctx ends, beginning with a
// look that was taken. Where the admin endpoint does not answer later on, it says so,
// and goes on asking.
func (t *Top) Run(ctx context.Context, screen Screen, now *Look) error {
	clock := time.NewTicker(t.Interval)
	defer clock.Stop()
	trouble := ""
	for {
		width, height := screen.Size()
		now.sort(t.Order)
		title := fmt.Sprintf("sse_guard at %s  %s  every %s  by %s  (q quits; r, a, e, b: sorted by rate, age, events, bytes)",
			t.Client.Address, now.At.Format(time.TimeOnly), t.Interval, t.Order)
		if err := screen.Draw(now.lines(title, trouble, width, height)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case key := <-screen.Keys():
			if !t.typed(key) {
				return nil
			}
			continue
		case <-clock.C:
		}
		next, err := t.Look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			trouble = err.Error()
			continue
		}
		next.since(now)
		now, trouble = next, ""
	}
}

// typed does what a key says. It reports whether to go on.
func (t *Top) typed(key byte) bool {
	const interrupt = 3 // Ctrl-C, where the terminal does not make a signal of it
	if key == 'q' || key == interrupt {
		return false
	}
	for _, order := range Orders {
		if order[0] == key {
			t.Order = order
		}
	}
	return true
}
