package eventstream_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/stretchr/testify/require"
)

// FuzzScanner compares the Scanner with the reference, in many cuts: sizes are
// the sizes of the pieces, in turn.
func FuzzScanner(f *testing.F) {
	for i, m := range allStreams() {
		stream, _ := m.bytes()
		f.Add(stream, []byte{byte(i % 7), byte(i % 5), byte(i % 11)})
	}
	f.Add([]byte("id: 1\nid: 2\x00\nid\r\r\nid: 3\n\n: a\r: b\n\r\n"), []byte{2, 1, 30})

	f.Fuzz(func(t *testing.T, stream, sizes []byte) {
		stream = stream[:min(len(stream), 300)] // the reference is quadratic
		want := reference(stream)
		requireScan(t, stream, want, 1)
		requireScan(t, stream, want, max(1, len(stream)))

		pieces := []int{1}
		for _, size := range sizes[:min(len(sizes), 64)] {
			pieces = append(pieces, 1+int(size))
			requireScan(t, stream, want, 1+int(size), max(1, len(stream)))
		}
		requireScan(t, stream, want, pieces...)

		done := 0
		for _, chunk := range relay(slices.Collect(slices.Chunk(stream, pieces[len(pieces)-1]))...) {
			require.Equal(t, string(stream[done:done+len(chunk)]), string(chunk))
			if done += len(chunk); want[done].Boundary {
				requireInsertable(t, stream, done)
			}
		}
		require.Equal(t, len(stream), done)
	})
}

// FuzzEventAppend requires of any event an error, or one block that reads back.
func FuzzEventAppend(f *testing.F) {
	f.Add("", int64(0), "", "")
	f.Add("41", int64(5*time.Second), "tick", "{}")
	f.Add(" 1", int64(1), " a:b", "a\r\nb\rc\n\n")
	f.Add("\x00", int64(-1), "a\rb", "\uFEFFa")
	f.Add("\xE2\x80", int64(math.MaxInt64), "\xFF", "\xF0\x9F\n\x98\x80")
	f.Add("1", int64(0), "", "\n")
	f.Add("1", int64(0), "", "data: a\n\nid: 2\n\n")
	f.Add(strings.Repeat("x", eventstream.MaxIDLength+1), int64(0), "\x00", "\x00")

	f.Fuzz(func(t *testing.T, id string, retry int64, name, data string) {
		event := eventstream.Event{ID: id, Retry: time.Duration(retry), Name: name, Data: data}
		got, err := event.Append([]byte("before"))
		block, kept := strings.CutPrefix(string(got), "before")
		require.True(t, kept)

		badID := strings.ContainsAny(id, "\x00\r\n")
		badName := strings.ContainsAny(name, "\r\n")
		if badID || badName || retry < 0 || event == (eventstream.Event{}) {
			require.Empty(t, block)
			require.Equal(t, event == eventstream.Event{}, errors.Is(err, eventstream.ErrEmptyEvent))
			require.True(t, badID || !errors.Is(err, eventstream.ErrInvalidID))
			require.True(t, badName || !errors.Is(err, eventstream.ErrInvalidName))
			require.True(t, retry < 0 || !errors.Is(err, eventstream.ErrNegativeRetry))
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		requireReadsBack(t, event, []byte(block))
	})
}
