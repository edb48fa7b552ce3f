package eventstream_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
)

// BenchmarkScan shows the cost of finding boundaries. The rate of short lines
// must not fall with the size of the chunk: that would be quadratic.
func BenchmarkScan(b *testing.B) {
	event := []byte("id: 1234567\nevent: price\ndata: {\"symbol\":\"ACME\",\"bid\":101.25,\"ask\":101.27,\"time\":\"2026-01-02T03:04:05Z\",\"venue\":\"XNAS\",\"n\":1}\n\n")
	withCR := bytes.ReplaceAll(event, []byte("\n"), []byte("\r"))
	withCRLF := bytes.ReplaceAll(event, []byte("\n"), []byte("\r\n"))
	shortLF, shortCR := []byte("data:a\n\n"), []byte("data:a\r\r")

	for _, bc := range []struct {
		name   string
		stream []byte
		chunk  int
	}{
		{"event", event, len(event)},
		{"event_CRLF", withCRLF, len(withCRLF)},
		{"event_CR", withCR, len(withCR)},
		{"32KB", event, 32 << 10},
		{"32KB_CRLF", withCRLF, 32 << 10},
		{"32KB_CR", withCR, 32 << 10},
		{"32KB_one_line", bytes.Repeat([]byte("x"), 32<<10), 32 << 10},
		{"1KB_short_lines_LF", shortLF, 1 << 10},
		{"32KB_short_lines_LF", shortLF, 32 << 10},
		{"1KB_short_lines_CR", shortCR, 1 << 10},
		{"32KB_short_lines_CR", shortCR, 32 << 10},
		{"1MB_short_lines_CR", shortCR, 1 << 20},
	} {
		b.Run(bc.name, func(b *testing.B) {
			// Whole copies of the stream, so that it goes on over the chunks' ends.
			stream := bytes.Repeat(bc.stream, (bc.chunk+len(bc.stream)-1)/len(bc.stream))
			stream = bytes.Repeat(stream, max(1, (32<<10)/len(stream)))
			chunks := slices.Collect(slices.Chunk(stream, bc.chunk))
			b.SetBytes(int64(len(stream)) / int64(len(chunks)))
			b.ReportAllocs()
			var s eventstream.Scanner
			for i := 0; b.Loop(); i++ {
				s.Scan(chunks[i%len(chunks)])
			}
		})
	}
}

func BenchmarkEventAppend(b *testing.B) {
	event := eventstream.Event{ID: "1234567", Name: "DUPLICATED_CONNECTION", Data: `{"code":"DUPLICATED_CONNECTION","reason":"superseded"}`}
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		dst, _ = event.Append(dst[:0])
	}
}
