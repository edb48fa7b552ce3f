package eventstream_test

import (
	"bytes"
	"strconv"
	"strings"
)

// client is a conforming user agent, written down step by step from WHATWG HTML
// 9.2.6. It reads a whole stream at once, and is slow and plain on purpose: it
// is what the Scanner and the writers are judged by.
type client struct {
	events      []dispatched
	lastEventID string
	retry       int64 // milliseconds; -1: never received

	data, eventType, id string // the buffers
}

// dispatched is an event as a page's listener sees it.
type dispatched struct {
	ID, Type, Data string
}

// parse returns the client after it has read stream and met its end.
func parse(stream []byte) *client {
	c := &client{retry: -1}
	lines, _ := splitLines(decode(withoutBOM(stream)))
	for _, line := range lines {
		name, value, colon := strings.Cut(line, ":")
		switch {
		case line == "":
			c.dispatch()
		case colon && name == "":
		default:
			c.process(name, strings.TrimPrefix(value, " "))
		}
	}
	return c
}

func (c *client) process(name, value string) {
	switch name {
	case "event":
		c.eventType = value
	case "data":
		c.data += value + "\n"
	case "id":
		if !strings.Contains(value, "\x00") {
			c.id = value
		}
	case "retry":
		if ms, err := strconv.ParseUint(value, 10, 63); err == nil {
			c.retry = int64(ms)
		}
	}
}

func (c *client) dispatch() {
	c.lastEventID = c.id
	if c.data != "" {
		event := dispatched{ID: c.lastEventID, Type: "message", Data: strings.TrimSuffix(c.data, "\n")}
		if c.eventType != "" {
			event.Type = c.eventType
		}
		c.events = append(c.events, event)
	}
	c.data, c.eventType = "", ""
}

// state is what a Scanner should say after a prefix of a stream.
type state struct {
	Boundary bool
	ID       string
	Events   uint64
	BOM      bool
}

// reference returns the state after each prefix of stream, the empty and the
// whole one included, each computed from nothing but the prefix. It does not
// know MaxIDLength.
func reference(stream []byte) []state {
	var states []state
	for n := range len(stream) + 1 {
		prefix := stream[:n]
		states = append(states, state{
			Boundary: endsAtBoundary(prefix),
			ID:       parse(prefix).lastEventID,
			Events:   countBlocks(prefix),
			BOM:      bytes.HasPrefix(prefix, bom),
		})
	}
	return states
}

// endsAtBoundary looks back from the end: over whole comment lines, to a blank
// line or to the start of the stream.
func endsAtBoundary(prefix []byte) bool {
	if len(prefix) == 0 {
		return true
	}
	lines, rest := splitLines(string(withoutBOM(prefix)))
	if len(lines) == 0 || rest != "" {
		return false
	}
	last := len(lines) - 1
	for last >= 0 && strings.HasPrefix(lines[last], ":") {
		last--
	}
	return last < 0 || lines[last] == ""
}

// countBlocks counts the runs of lines, between blank lines, with a field.
func countBlocks(prefix []byte) uint64 {
	lines, _ := splitLines(string(withoutBOM(prefix)))
	blocks := strings.Split(strings.Join(lines, "\n")+"\n", "\n\n")
	count := uint64(0)
	for i, block := range blocks {
		complete := i < len(blocks)-1
		hasField := false
		for line := range strings.SplitSeq(block, "\n") {
			hasField = hasField || (line != "" && !strings.HasPrefix(line, ":"))
		}
		if complete && hasField {
			count++
		}
	}
	return count
}

var bom = []byte("\xEF\xBB\xBF")

func withoutBOM(stream []byte) []byte { return bytes.TrimPrefix(stream, bom) }

// toLF turns every line end into LF.
var toLF = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// splitLines returns the complete lines of text and what follows the last.
func splitLines(text string) (lines []string, rest string) {
	lines = strings.Split(toLF.Replace(text), "\n")
	return lines[:len(lines)-1], lines[len(lines)-1]
}

// decode is the UTF-8 decoder of the Encoding Standard, section 8.1.1.
func decode(stream []byte) string {
	var (
		out          strings.Builder
		point        rune
		needed       int
		lower, upper byte = 0x80, 0xBF
	)
	start := func(continuations int, bits byte) { needed, point = continuations, rune(bits) }
	replace := func() { out.WriteRune('\uFFFD') }
	for i := 0; i < len(stream); i++ {
		b := stream[i]
		switch {
		case needed > 0 && (b < lower || b > upper):
			needed, lower, upper = 0, 0x80, 0xBF
			replace()
			i-- // the byte is read again, as the start of a character
		case needed > 0:
			lower, upper = 0x80, 0xBF
			point = point<<6 | rune(b&0x3F)
			if needed--; needed == 0 {
				out.WriteRune(point)
			}
		case b <= 0x7F:
			out.WriteByte(b)
		case b >= 0xC2 && b <= 0xDF:
			start(1, b&0x1F)
		case b >= 0xE0 && b <= 0xEF:
			switch b {
			case 0xE0:
				lower = 0xA0
			case 0xED:
				upper = 0x9F
			}
			start(2, b&0xF)
		case b >= 0xF0 && b <= 0xF4:
			switch b {
			case 0xF0:
				lower = 0x90
			case 0xF4:
				upper = 0x8F
			}
			start(3, b&0x7)
		default:
			replace()
		}
	}
	if needed > 0 {
		replace()
	}
	return out.String()
}
