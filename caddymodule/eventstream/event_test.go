package eventstream_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/stretchr/testify/require"
)

func TestEvent_Append(t *testing.T) {
	for _, tc := range []struct {
		name  string
		event eventstream.Event
		want  string
	}{
		{"every field, in order", eventstream.Event{ID: "41", Retry: 5 * time.Second, Name: "tick", Data: "{}"}, "id: 41\nretry: 5000\nevent: tick\ndata: {}\n\n"},
		{"data", eventstream.Event{Data: "a"}, "data: a\n\n"},
		{"id", eventstream.Event{ID: "1"}, "id: 1\n\n"},
		{"name", eventstream.Event{Name: "tick"}, "event: tick\n\n"},
		{"retry", eventstream.Event{Retry: time.Minute}, "retry: 60000\n\n"},
		{"retry of a nanosecond rounds up", eventstream.Event{Retry: 1}, "retry: 1\n\n"},
		{"retry over a millisecond rounds up", eventstream.Event{Retry: time.Millisecond + 1}, "retry: 2\n\n"},
		{"retry of a millisecond", eventstream.Event{Retry: time.Millisecond}, "retry: 1\n\n"},
		{"longest retry", eventstream.Event{Retry: math.MaxInt64}, "retry: 9223372036855\n\n"},
		{"data with LF", eventstream.Event{Data: "a\nb"}, "data: a\ndata: b\n\n"},
		{"data with CR", eventstream.Event{Data: "a\rb"}, "data: a\ndata: b\n\n"},
		{"data with CRLF", eventstream.Event{Data: "a\r\nb"}, "data: a\ndata: b\n\n"},
		{"data with LFCR", eventstream.Event{Data: "a\n\rb"}, "data: a\ndata:\ndata: b\n\n"},
		{"data with a blank line", eventstream.Event{Data: "a\n\nb"}, "data: a\ndata:\ndata: b\n\n"},
		{"data that ends with LF", eventstream.Event{Data: "a\n"}, "data: a\ndata:\n\n"},
		{"data that begins with LF", eventstream.Event{Data: "\na"}, "data:\ndata: a\n\n"},
		{"data of one LF", eventstream.Event{Data: "\n"}, "data:\ndata:\n\n"},
		{"spaces are kept", eventstream.Event{ID: " 1", Name: " tick", Data: " a\n b "}, "id:  1\nevent:  tick\ndata:  a\ndata:  b \n\n"},
		{"colons are kept", eventstream.Event{ID: ":", Name: "a:b", Data: ": not a comment"}, "id: :\nevent: a:b\ndata: : not a comment\n\n"},
		{"data with NUL", eventstream.Event{Data: "a\x00b"}, "data: a\x00b\n\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.event.Append([]byte("before\n\n"))
			require.NoError(t, err)
			require.Equal(t, "before\n\n"+tc.want, string(got))
			requireReadsBack(t, tc.event, got[len("before\n\n"):])
		})
	}
}

func TestEvent_Append_RefusesWhatNoClientReadsBack(t *testing.T) {
	for _, tc := range []struct {
		name  string
		event eventstream.Event
		want  error
	}{
		{"no field", eventstream.Event{}, eventstream.ErrEmptyEvent},
		{"id with NUL", eventstream.Event{ID: "1\x00", Data: "a"}, eventstream.ErrInvalidID},
		{"id with LF", eventstream.Event{ID: "1\ndata: b", Data: "a"}, eventstream.ErrInvalidID},
		{"id with CR", eventstream.Event{ID: "\r", Data: "a"}, eventstream.ErrInvalidID},
		{"name with LF", eventstream.Event{Name: "tick\n", Data: "a"}, eventstream.ErrInvalidName},
		{"name with CR", eventstream.Event{Name: "tick\rdata: b", Data: "a"}, eventstream.ErrInvalidName},
		{"negative retry", eventstream.Event{Retry: -1, Data: "a"}, eventstream.ErrNegativeRetry},
		{"negative retry alone", eventstream.Event{Retry: math.MinInt64}, eventstream.ErrNegativeRetry},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.event.Append([]byte("before"))
			require.ErrorIs(t, err, tc.want)
			require.Equal(t, "before", string(got), "dst is left as it was")
		})
	}
}

func TestEvent_Append_IntoSpareCapacity_AllocatesNothing(t *testing.T) {
	event := eventstream.Event{ID: "41", Retry: time.Second, Name: "tick", Data: "a\r\nb"}
	dst := make([]byte, 0, 256)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = event.Append(dst) }))
	require.Zero(t, testing.AllocsPerRun(100, func() { eventstream.AppendComment(dst, "a\nb") }))
}

func TestAppendComment(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"one line", "hb", ": hb\n"},
		{"nothing", "", ":\n"},
		{"lines", "a\nb\rc\r\nd", ": a\n: b\n: c\n: d\n"},
		{"blank lines", "a\n\nb\n", ": a\n:\n: b\n:\n"},
		{"what looks like fields", "data: a\nid: 1", ": data: a\n: id: 1\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := string(eventstream.AppendComment([]byte("before\n\n"), tc.text))
			require.Equal(t, "before\n\n"+tc.want, got)

			var s eventstream.Scanner
			require.Equal(t, len(tc.want), s.Scan([]byte(tc.want)))
			require.Zero(t, s.Events())
			require.Empty(t, parse([]byte(tc.want)).events)
			require.NotContains(t, tc.want, "\n\n", "a blank line is an event to some")
		})
	}
}

func TestAppendRetry(t *testing.T) {
	for after, want := range map[time.Duration]string{
		0:                       "retry: 0\n",
		-1:                      "retry: 0\n",
		1:                       "retry: 1\n",
		1500 * time.Millisecond: "retry: 1500\n",
	} {
		got := string(eventstream.AppendRetry([]byte("before\n\n"), after))
		require.Equal(t, "before\n\n"+want, got)
		last := parse([]byte("data: a\n\n" + want))
		require.Len(t, last.events, 1)
		require.Equal(t, after > 0, last.retry > 0, "it counts as the last line of all")
	}
}

// requireReadsBack requires that block is one event, no more and no less, and
// that a client reads the fields of event from it.
func requireReadsBack(t testing.TB, event eventstream.Event, block []byte) {
	t.Helper()
	require.EqualValues(t, 1, countBlocks(block), "%q", block)

	got := parse(block)
	id := decode([]byte(event.ID))
	require.Equal(t, id, got.lastEventID)
	var want []dispatched
	if event.Data != "" {
		want = []dispatched{{ID: id, Type: "message", Data: toLF.Replace(decode([]byte(event.Data)))}}
		if event.Name != "" {
			want[0].Type = decode([]byte(event.Name))
		}
	}
	require.Equal(t, want, got.events, "%q", block)
	if event.Name != "" {
		require.Contains(t, string(block), "event: "+event.Name+"\n", "also where the client drops it")
	}

	if event.Retry == 0 {
		require.EqualValues(t, -1, got.retry, "never received")
	} else {
		written := uint64(got.retry) * uint64(time.Millisecond)
		require.GreaterOrEqual(t, written, uint64(event.Retry))
		require.Less(t, written-uint64(event.Retry), uint64(time.Millisecond))
	}

	// It is whole only at its very end.
	var s eventstream.Scanner
	for i := range block {
		boundary := s.Scan(block[i:i+1]) == 1
		require.Equal(t, i == len(block)-1, boundary, "after %q", block[:i+1])
	}
	require.EqualValues(t, 1, s.Events())
	if len(event.ID) <= eventstream.MaxIDLength {
		require.Equal(t, id, s.LastEventID())
	}
	require.False(t, strings.Contains(string(block), "\r"))
}
