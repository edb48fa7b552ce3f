package eventstream_test

import (
	"slices"
	"testing"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/stretchr/testify/require"
)

// relay passes pieces on up to each boundary, as a guarded response does, and
// returns the chunks that went out; the last is what was held at the end.
func relay(pieces ...[]byte) (chunks [][]byte) {
	var (
		s    eventstream.Scanner
		held []byte
	)
	for _, piece := range pieces {
		if cut := s.Scan(piece); cut >= 0 {
			chunks = append(chunks, append(held, piece[:cut]...))
			held, piece = nil, piece[cut:]
		}
		held = append(held, piece...)
	}
	return append(chunks, held)
}

// insert returns stream with block inserted at n. A byte order mark that no
// longer comes first is dropped, as Scanner asks.
func insert(stream []byte, n int, block []byte) []byte {
	if n == 0 {
		return append(slices.Clone(block), withoutBOM(stream)...)
	}
	return slices.Insert(slices.Clone(stream), n, block...)
}

// requireInsertable requires that a foreign event and a comment can be inserted
// in stream at n, which leaves the client with the events of the stream, the
// foreign one among them, and nothing else.
func requireInsertable(t testing.TB, stream []byte, n int) {
	t.Helper()
	whole, before := parse(stream), parse(stream[:n])

	foreign := eventstream.Event{Name: "foreign", Data: "a\nb", Retry: 5}
	block, err := foreign.Append(nil)
	require.NoError(t, err)
	want := slices.Insert(slices.Clone(whole.events), len(before.events),
		dispatched{ID: before.lastEventID, Type: "foreign", Data: "a\nb"})
	got := parse(insert(stream, n, block))
	require.Equal(t, want, got.events, "event at %d of %q", n, stream)
	require.Equal(t, whole.lastEventID, got.lastEventID, "event at %d of %q", n, stream)

	comment := eventstream.AppendComment(nil, "foreign\r\ncomment")
	require.Equal(t, whole.events, parse(insert(stream, n, comment)).events, "comment at %d of %q", n, stream)
}

func TestRelay_ForeignBlockAtAnyBoundary_TearsNothing(t *testing.T) {
	for _, m := range allStreams() {
		t.Run(m.name, func(t *testing.T) {
			stream, boundaries := m.bytes()
			for _, n := range boundaries {
				requireInsertable(t, stream, n)
			}
		})
	}
}

func TestRelay_ForeignID_IsTheLastUntilTheNext(t *testing.T) {
	block, err := eventstream.Event{ID: "T", Data: "end"}.Append(nil)
	require.NoError(t, err)
	stream := []byte("id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\n")
	require.Equal(t, []dispatched{
		{"1", "message", "a"},
		{"T", "message", "end"},
		{"T", "message", "b"},
		{"2", "message", "c"},
	}, parse(insert(stream, 15, block)).events)
}

func TestRelay_ChunksAreTheStream(t *testing.T) {
	for _, m := range allStreams() {
		t.Run(m.name, func(t *testing.T) {
			stream, boundaries := m.bytes()
			for size := 1; size <= max(1, len(stream)); size++ {
				chunks := relay(slices.Collect(slices.Chunk(stream, size))...)
				require.Equal(t, string(stream), string(slices.Concat(chunks...)))

				done := 0
				for _, chunk := range chunks[:len(chunks)-1] {
					done += len(chunk)
					require.Contains(t, boundaries, done)
				}
				require.Equal(t, boundaries[len(boundaries)-1], done, "held at the end is only what follows the last boundary")
			}
		})
	}
}
