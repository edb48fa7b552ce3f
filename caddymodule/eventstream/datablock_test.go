package eventstream_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/stretchr/testify/require"
)

// dataBlockOf is where the first block of prefix that is known to have data
// begins; -1: there is none. It is computed from the boundaries of each prefix.
func dataBlockOf(prefix []byte, want []state) int {
	block := 0
	line := 0
	if strings.HasPrefix(string(prefix), string(bom)) {
		line = len(bom)
	}
	for n := 1; n <= len(prefix); n++ {
		end := prefix[n-1] == '\n' || prefix[n-1] == '\r'
		text := string(prefix[min(line, n):n])
		if strings.HasPrefix(text, "data:") || text == "data\n" || text == "data\r" {
			return block
		}
		if end {
			line = n
		}
		if want[n].Boundary {
			block = n
		}
	}
	return -1
}

func TestScanner_DataBlock_InEveryCut(t *testing.T) {
	more := []string{
		": connected\n\ndata: a\n\n", ":\n: b\nevent: x\ndata: a\n\n", "retry: 1\n\nid: 7\n\n: c\nid\ndata\n\n",
		"date: 1\ndatax\ndat\n\nxdata: 1\n\ndata:", "\ufeffdata: a\n\n", "\ufeff: c\ndata:", "\r\n\r\ndata: a", "words\nand more\n",
		": c\r\n\r\nevent: x\r\ndata: a\r\n\r\n", ": data: a\n",
	}
	var streams [][]byte
	for _, m := range allStreams() {
		stream, _ := m.bytes()
		streams = append(streams, stream)
	}
	for _, s := range more {
		streams = append(streams, []byte(s))
	}
	for _, stream := range streams {
		want := reference(stream)
		for first := 0; first <= len(stream); first++ {
			for _, size := range []int{1, 3, max(1, len(stream))} {
				var s eventstream.Scanner
				s.Scan(stream[:first])
				for piece := range slices.Chunk(stream[first:], size) {
					s.Scan(piece)
				}
				offset, ok := s.DataBlock()
				wanted := dataBlockOf(stream, want)
				require.Equal(t, wanted >= 0, ok, "%q", stream)
				if ok {
					require.EqualValues(t, wanted, offset, "%q", stream)
				}
			}
		}
	}
}

func TestScanner_SeekDataBlock_FindsTheNext(t *testing.T) {
	var s eventstream.Scanner
	require.Equal(t, 9, s.Scan([]byte("data: a\n\nevent: b\n")))
	s.SeekDataBlock()
	_, ok := s.DataBlock()
	require.False(t, ok)
	s.Scan([]byte("data: b\n\n"))
	offset, ok := s.DataBlock()
	require.True(t, ok)
	require.EqualValues(t, 9, offset)
}

func TestScanner_AwaitsLF_WhereLinesEndWithCRLF(t *testing.T) {
	for stream, want := range map[string]bool{
		"data: a\r\n\r":   true,
		"data: a\r\n\r\n": false,
		"data: a\r\r":     false,
		": b\r\na\r\r":    false,
		": b\r\na\n\r":    false,
		"data: a\n\r":     false,
		"":                false,
	} {
		var s eventstream.Scanner
		s.Scan([]byte(stream))
		require.Equal(t, want, s.AwaitsLF(), "%q", stream)
	}
}

func TestScanner_OnlyBOM(t *testing.T) {
	var s eventstream.Scanner
	for _, step := range []struct {
		piece string
		want  bool
	}{{"", false}, {"\xef", true}, {"\xbb", true}, {"\xbf", true}, {":", false}} {
		s.Scan([]byte(step.piece))
		require.Equal(t, step.want, s.OnlyBOM())
	}
	require.True(t, s.HasBOM())
	s = eventstream.Scanner{}
	s.Scan([]byte("\xefx"))
	require.False(t, s.OnlyBOM())
}
