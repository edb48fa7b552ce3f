package eventstream_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/stretchr/testify/require"
)

// stateOf returns what s says.
func stateOf(s *eventstream.Scanner) state {
	return state{Boundary: s.AtBoundary(), ID: s.LastEventID(), Events: s.Events(), BOM: s.HasBOM()}
}

// requireScan feeds stream to a Scanner in pieces of the given sizes, over and
// over, and requires after each piece what want says of the bytes so far. It
// also requires that the Scanner neither changes a piece nor keeps it.
func requireScan(t testing.TB, stream []byte, want []state, sizes ...int) {
	t.Helper()
	var s eventstream.Scanner
	require.Equal(t, want[0], stateOf(&s), "before the first byte")
	for i, done := 0, 0; done < len(stream); i++ {
		end := min(done+sizes[i%len(sizes)], len(stream))
		piece := slices.Clone(stream[done:end])
		cut := s.Scan(piece)
		require.Equal(t, stream[done:end], piece, "Scan changed its argument")
		copy(piece, bytes.Repeat([]byte("id:\n"), len(piece)))

		wantCut := -1
		for n := done + 1; n <= end; n++ {
			if want[n].Boundary {
				wantCut = n - done
			}
		}
		if cut != wantCut || stateOf(&s) != want[end] {
			require.Equal(t, wantCut, cut, "cut of %q after %q", stream[done:end], stream[:done])
			require.Equal(t, want[end], stateOf(&s), "after %q, the last piece being %q", stream[:end], stream[done:end])
		}
		done = end
	}
}

// requireScanAnyCut feeds stream whole, byte by byte, and in two parts, cut at
// every place.
func requireScanAnyCut(t testing.TB, stream []byte, want []state) {
	t.Helper()
	requireScan(t, stream, want, 1)
	requireScan(t, stream, want, max(1, len(stream)))
	for first := 1; first < len(stream); first++ {
		requireScan(t, stream, want, first, len(stream)-first)
	}
}

// The reference is only worth something if it is right itself.
func TestReference_AgreesWithTheTables(t *testing.T) {
	for _, m := range allStreams() {
		t.Run(m.name, func(t *testing.T) {
			stream, boundaries := m.bytes()
			states := reference(stream)
			for n, s := range states {
				require.Equal(t, slices.Contains(boundaries, n), s.Boundary, "boundary after %q", stream[:n])
			}
			last := states[len(stream)]
			require.Equal(t, m.blocks, last.Events)
			require.Equal(t, m.id, last.ID)
			require.Equal(t, m.events, parse(stream).events)
		})
	}
}

func TestScanner_FindsTheBoundariesOfTheTables_InEveryCut(t *testing.T) {
	for _, m := range allStreams() {
		t.Run(m.name, func(t *testing.T) {
			stream, _ := m.bytes()
			requireScanAnyCut(t, stream, reference(stream))
		})
	}
}

func TestScanner_FollowsAllTablesInOneStream(t *testing.T) {
	var stream []byte
	for _, m := range slices.Concat(mixedStreams, lfStreams) {
		part, _ := m.bytes()
		stream = append(append(stream, part...), "\n\n"...)
	}
	want := reference(stream)
	for _, size := range []int{1, 2, 3, 7, 64, 1000, len(stream)} {
		requireScan(t, stream, want, size)
	}
}

func TestScanner_NothingScanned(t *testing.T) {
	var s eventstream.Scanner
	require.True(t, s.AtBoundary())
	require.Equal(t, -1, s.Scan(nil), "a boundary reached before is not reported")
	require.Equal(t, -1, s.Scan([]byte{}))
	require.Equal(t, state{Boundary: true}, stateOf(&s))
}

func TestScanner_NothingFurtherScanned_ReportsNoBoundaryTwice(t *testing.T) {
	var s eventstream.Scanner
	require.Equal(t, 9, s.Scan([]byte("data: a\n\n")))
	require.Equal(t, -1, s.Scan(nil))
	require.True(t, s.AtBoundary())
	require.Equal(t, -1, s.Scan([]byte("d")))
	require.False(t, s.AtBoundary())
}

func TestScanner_HoldsBackNeitherTheCRNorTheLFOfAnEnd(t *testing.T) {
	var s eventstream.Scanner
	require.Equal(t, 10, s.Scan([]byte("data: a\r\n\r")), "complete without the LF")
	require.Equal(t, 1, s.Scan([]byte("\n")), "the LF passes at once")
	require.Equal(t, 1, s.Scan([]byte("\n")), "a further blank line")
	require.EqualValues(t, 1, s.Events())

	require.Equal(t, 9, s.Scan([]byte("data: b\r\r")))
	require.Equal(t, 1, s.Scan([]byte("\ndata: c")), "the LF passes, the event after it is held")
	require.Equal(t, -1, s.Scan([]byte("\r")))
	require.Equal(t, -1, s.Scan([]byte("\n")), "the LF of a line inside an event")
	require.EqualValues(t, 2, s.Events())
}

func TestScanner_LongID_IsNotRemembered(t *testing.T) {
	const limit = eventstream.MaxIDLength
	longest := strings.Repeat("x", limit)
	for _, tc := range []struct {
		name, stream, want string
	}{
		{"at the limit", "id: " + longest + "\n\n", longest},
		{"at the limit, without the space", "id:" + longest + "\n\n", longest},
		{"over the limit", "id: " + longest + "y\n\n", ""},
		{"over the limit, after a short one", "id: 1\n\nid: " + longest + "y\n\n", ""},
		{"over the limit, after one of the same event", "id: 1\nid: " + longest + "y\n\n", ""},
		{"far over the limit", "id: " + strings.Repeat(longest, 5) + "\n\ndata: a\n\n", ""},
		{"over the limit, unfinished", "id: 1\n\nid: " + longest + "y", "1"},
		{"over the limit, its event unfinished", "id: 1\n\nid: " + longest + "y\n", "1"},
		{"over the limit, then a short one", "id: " + longest + "y\n\nid: 2\n\n", "2"},
		{"over the limit, then a short one in the same event", "id: " + longest + "y\nid: 2\n\n", "2"},
		{"over the limit, with NUL at its end", "id: 1\n\nid: " + longest + "y\x00\n\n", "1"},
		{"over the limit, with NUL at its start", "id: 1\n\nid: \x00" + longest + "\n\n", "1"},
		{"over the limit, with NUL, after one of the same event", "id: 1\nid: " + longest + "y\x00\n\n", "1"},
		{"over the limit, then one with NUL", "id: 1\n\nid: " + longest + "y\nid: \x00\n\n", ""},
		{"at the limit, after one of the same event", "id: y\nid: " + longest + "\n\n", longest},
		{"two at the limit in one event", "id: y\nid: " + longest + "\nid: z" + longest[1:] + "\n\n", "z" + longest[1:]},
		{"two at the limit in two events", "id: y" + longest[1:] + "\n\nid: " + longest + "\n\ndata: a\n\n", longest},
		{"not an id", "id: 1\nidx: " + longest + "y\ndata: " + longest + "\n\n", "1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 100, limit - 1, limit, limit + 1, limit + 4, len(tc.stream)} {
				var s eventstream.Scanner
				for piece := range slices.Chunk([]byte(tc.stream), size) {
					s.Scan(piece)
				}
				require.True(t, tc.want == s.LastEventID(), "in pieces of %d bytes, the id has %d", size, len(s.LastEventID()))
			}
		})
	}
}

func TestScanner_MalformedID_ReadsAsInTheClient(t *testing.T) {
	for _, tc := range []struct{ id, want string }{
		{"\x80", "\uFFFD"},
		{"\x80\x80", "\uFFFD\uFFFD"},
		{"\xC0\xAF", "\uFFFD\uFFFD"},
		{"\xC2", "\uFFFD"},
		{"\xC2a", "\uFFFDa"},
		{"\xE0\x80\x80", "\uFFFD\uFFFD\uFFFD"},
		{"\xE0\xA0", "\uFFFD"},
		{"\xE2\x82a", "\uFFFDa"},
		{"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"}, // a surrogate
		{"\xF0\x9F\x98a", "\uFFFDa"},
		{"\xF0\x9F\xF0\x9F\x98\x80", "\uFFFD\U0001F600"},
		{"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"}, // above U+10FFFF
		{"\xF5\xFF", "\uFFFD\uFFFD"},
		{"\uFFFD", "\uFFFD"},
	} {
		var s eventstream.Scanner
		s.Scan([]byte("id: " + tc.id + "\n\n"))
		require.Equal(t, tc.want, s.LastEventID(), "%q", tc.id)
		require.Equal(t, tc.want, decode([]byte(tc.id)), "reference, %q", tc.id)
	}
}

func TestScanner_SteadyStream_AllocatesNothing(t *testing.T) {
	for _, tc := range []struct{ name, a, b string }{
		{"ids", "id: 1001\nevent: tick\ndata: {}\n\n", "id: 999\ndata: {}\n\n"},
		{"ids split", "data: {}\n\nid: 10", "01\ndata: {}\n\nid: 2\r"},
		{"ids ignored or replaced", "id: 1\nid: 22\nid: \x00\n\n", "id\nid:   3\n\n"},
		{"longest ids", "id: " + strings.Repeat("x", eventstream.MaxIDLength) + "\n\n", "id: " + strings.Repeat("y", eventstream.MaxIDLength+9) + "\n\n"},
		{"CR and comments", ": hb\rdata: a\r\r", ": hb\r\n\r\n\r"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s eventstream.Scanner
			a, b := []byte(tc.a), []byte(tc.b)
			run := func() {
				s.Scan(a)
				s.Scan(b)
			}
			run() // both buffers reach their size
			require.Zero(t, testing.AllocsPerRun(100, run))
		})
	}
}
