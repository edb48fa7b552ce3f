package eventstream_test

import (
	"slices"
	"strings"
)

// marked is a stream with its safe boundaries drawn in, as "|".
type marked struct {
	name   string
	stream string
	blocks uint64
	id     string
	events []dispatched
}

// bytes returns the stream without its marks, and the offsets of the marks. The
// start of a stream is a boundary that is not drawn.
func (m marked) bytes() (stream []byte, boundaries []int) {
	boundaries = []int{0}
	for i, part := range strings.Split(m.stream, "|") {
		if i > 0 {
			boundaries = append(boundaries, len(stream))
		}
		stream = append(stream, part...)
	}
	return stream, boundaries
}

// withLineEnds returns m with each LF replaced, in turn, by one of ends.
func (m marked) withLineEnds(ends ...string) marked {
	var b strings.Builder
	lines := strings.SplitAfter(m.stream, "\n")
	for i, line := range lines {
		text, isLine := strings.CutSuffix(line, "\n")
		b.WriteString(text)
		if !isLine {
			continue
		}
		end := ends[i%len(ends)]
		if end == "\r\n" && strings.HasPrefix(lines[i+1], "|") {
			end = "\r|\n" // the CR is a boundary already
		}
		b.WriteString(end)
	}
	m.stream = b.String()
	return m
}

func message(data string) dispatched { return dispatched{Type: "message", Data: data} }

// lfStreams use LF alone; every one holds for the other line ends too.
var lfStreams = []marked{
	// The examples of WHATWG HTML 9.2.1 and 9.2.6.
	{
		name:   "three messages",
		stream: "data: This is the first message.\n\n|data: This is the second message, it\ndata: has two lines.\n\n|data: This is the third message.\n\n|",
		blocks: 3,
		events: []dispatched{message("This is the first message."), message("This is the second message, it\nhas two lines."), message("This is the third message.")},
	},
	{
		name:   "two event types",
		stream: "event: add\ndata: 73857293\n\n|event: remove\ndata: 2153\n\n|event: add\ndata: 113411\n\n|",
		blocks: 3,
		events: []dispatched{{Type: "add", Data: "73857293"}, {Type: "remove", Data: "2153"}, {Type: "add", Data: "113411"}},
	},
	{
		name:   "ticker",
		stream: "data: YHOO\ndata: +2\ndata: 10\n\n|",
		blocks: 1,
		events: []dispatched{message("YHOO\n+2\n10")},
	},
	{
		name:   "four blocks",
		stream: ": test stream\n|\n|data: first event\nid: 1\n\n|data:second event\nid\n\n|data:  third event\n\n|",
		blocks: 3,
		events: []dispatched{{ID: "1", Type: "message", Data: "first event"}, message("second event"), message(" third event")},
	},
	{
		name:   "four blocks, the last without its blank line",
		stream: ": test stream\n|\n|data: first event\nid: 1\n\n|data:second event\nid\n\n|data:  third event\n",
		blocks: 2,
		events: []dispatched{{ID: "1", Type: "message", Data: "first event"}, message("second event")},
	},
	{
		name:   "empty data, a newline, and an unfinished block",
		stream: "data\n\n|data\ndata\n\n|data:",
		blocks: 2,
		events: []dispatched{message(""), message("\n")},
	},
	{
		name:   "the space after the colon is optional",
		stream: "data:test\n\n|data: test\n\n|",
		blocks: 2,
		events: []dispatched{message("test"), message("test")},
	},

	// Blank lines and unfinished lines.
	{name: "nothing", stream: ""},
	{name: "a blank line", stream: "\n|"},
	{name: "blank lines", stream: "\n|\n|\n|"},
	{name: "further blank lines", stream: "data: a\n\n|\n|\n|data: b\n\n|", blocks: 2, events: []dispatched{message("a"), message("b")}},
	{name: "half a line", stream: "data: a"},
	{name: "half an event", stream: "data: a\nid: 1\n"},
	{name: "half a second event", stream: "data: a\n\n|data: b\n", blocks: 1, events: []dispatched{message("a")}},
	{name: "a line of one space is a field", stream: " \n\n|", blocks: 1},

	// Comments.
	{name: "comment", stream: ": hb\n|"},
	{name: "bare colon", stream: ":\n|:\n|"},
	{name: "half a comment", stream: ": hb\n|: h"},
	{name: "comment between events", stream: "data: a\n\n|: hb\n|data: b\n\n|", blocks: 2, events: []dispatched{message("a"), message("b")}},
	{name: "comment inside an event", stream: "data: a\n: hb\ndata: b\n: hb\n\n|: hb\n|", blocks: 1, events: []dispatched{message("a\nb")}},
	{name: "comment before the first field of an event", stream: ": hb\n|event: x\n: hb\ndata: a\n\n|", blocks: 1, events: []dispatched{{Type: "x", Data: "a"}}},
	{name: "comment of fields", stream: ":id: 1\n|:data: a\n|\n|"},
	{name: "comment block after a comment block", stream: ": a\n|: b\n|\n|: c\n|\n|"},

	// Field names and values (the names of ignored fields are from the Web
	// Platform Tests).
	{
		name:   "field parsing",
		stream: "data:\x00\ndata:  2\nData:1\ndata\x00:2\ndata:1\n\x00data:4\nda-ta:3\ndata_5\ndata:3\ndata:\n data:32\ndata:4\n\n|",
		blocks: 1,
		events: []dispatched{message("\x00\n 2\n1\n3\n\n4")},
	},
	{name: "unknown field alone", stream: "foo: bar\n\n|", blocks: 1},
	{name: "field name alone", stream: "foo\n\n|", blocks: 1},
	{name: "value with colons", stream: "data: a:b: c\n\n|", blocks: 1, events: []dispatched{message("a:b: c")}},
	{name: "empty event name", stream: "event: \ndata: a\n\n|", blocks: 1, events: []dispatched{message("a")}},
	{name: "last event name wins", stream: "event: a\nevent: b\ndata: c\n\n|", blocks: 1, events: []dispatched{{Type: "b", Data: "c"}}},
	{name: "event name without data is forgotten", stream: "event: a\n\n|data: b\n\n|", blocks: 2, events: []dispatched{message("b")}},
	{name: "retry alone", stream: "retry: 1000\n\n|", blocks: 1},
	{name: "other line separators are text", stream: "data: a\v\f\u0085\u2028\u2029b\n\n|", blocks: 1, events: []dispatched{message("a\v\f\u0085\u2028\u2029b")}},
	{name: "not ASCII", stream: "data: ok…\n\n|data…:ok\n\n|data: \U0001F600\n\n|", blocks: 3, events: []dispatched{message("ok…"), message("\U0001F600")}},

	// Ids.
	{name: "id", stream: "id: 1\ndata: a\n\n|", blocks: 1, id: "1", events: []dispatched{{"1", "message", "a"}}},
	{name: "id counts at the blank line", stream: "id: 1\n\n|id: 2\n", blocks: 1, id: "1"},
	{name: "id without data", stream: "id: 1\n\n|data: a\n\n|", blocks: 2, id: "1", events: []dispatched{{"1", "message", "a"}}},
	{name: "id persists", stream: "id: 1\ndata: a\n\n|data: b\n\n|: hb\n|\n|", blocks: 2, id: "1", events: []dispatched{{"1", "message", "a"}, {"1", "message", "b"}}},
	{name: "id changes", stream: "id: 1\n\n|id: 23\n\n|id: 4\n\n|id: 567\n\n|", blocks: 4, id: "567"},
	{name: "id without a space", stream: "id:1\n\n|", blocks: 1, id: "1"},
	{name: "id with two spaces", stream: "id:  1 \n\n|", blocks: 1, id: " 1 "},
	{name: "id with a tab", stream: "id:\t1\n\n|", blocks: 1, id: "\t1"},
	{name: "id with colons", stream: "id:1: 2:\n\n|", blocks: 1, id: "1: 2:"},
	{name: "id of one colon", stream: "id::\n\n|", blocks: 1, id: ":"},
	{name: "id without a colon resets", stream: "id: 1\n\n|id\n\n|", blocks: 2},
	{name: "id without a value resets", stream: "id: 1\n\n|id:\n\n|", blocks: 2},
	{name: "id of a space resets", stream: "id: 1\n\n|id: \n\n|", blocks: 2},
	{name: "last id of an event wins", stream: "id: 1\nid: 23\nid: 4\n\n|", blocks: 1, id: "4"},
	{name: "last id of an event wins, also when empty", stream: "id: 1\nid\n\n|", blocks: 1},
	{name: "id with NUL is ignored", stream: "id: 1\n\n|id: \x00\x00\ndata: a\n\n|", blocks: 2, id: "1", events: []dispatched{{"1", "message", "a"}}},
	{name: "id with NUL leaves an id of the same event", stream: "id: 1\nid: 2\x003\n\n|", blocks: 1, id: "1"},
	{name: "id after an id with NUL", stream: "id: \x00\nid: 2\n\n|", blocks: 1, id: "2"},
	{name: "id not ASCII", stream: "id: …\n\n|data: …\n\n|", blocks: 2, id: "…", events: []dispatched{{"…", "message", "…"}}},
	{name: "id not UTF-8", stream: "id: a\xE2\x80\xFFb\xF0\x80\x80\n\n|", blocks: 1, id: "a\uFFFD\uFFFDb\uFFFD\uFFFD\uFFFD"},
	{name: "id cut inside a character", stream: "id: \xF0\x9F\x98\n\n|", blocks: 1, id: "\uFFFD"},
	{name: "names that are almost id", stream: "ID: 1\nId: 1\niD: 1\ni: 1\ni\nidx: 1\nidx\nid : 1\n id: 1\n\tid: 1\nid\x00: 1\nxid: 1\nii: 1\nidd: 1\n\n|", blocks: 1},
	{name: "id in the value of another field", stream: "data: id: 1\ndata:id:1\n\n|", blocks: 1, events: []dispatched{message("id: 1\nid:1")}},

	// Byte order marks.
	{name: "mark", stream: "\uFEFFdata: a\n\n|", blocks: 1, events: []dispatched{message("a")}},
	{name: "mark alone", stream: "\uFEFF"},
	{name: "mark and a blank line", stream: "\uFEFF\n|"},
	{name: "mark and a comment", stream: "\uFEFF: hb\n|data: a\n\n|", blocks: 1, events: []dispatched{message("a")}},
	{name: "mark and an id", stream: "\uFEFFid: 1\n\n|", blocks: 1, id: "1"},
	{name: "two marks", stream: "\uFEFF\uFEFFdata: 1\n\n|data: 2\n\n|", blocks: 2, events: []dispatched{message("2")}},
	{name: "two marks and a blank line", stream: "\uFEFF\uFEFF\n\n|", blocks: 1},
	{name: "mark later", stream: "data: 1\n\n|\uFEFFdata: 2\n\n|\uFEFF: hb\n\n|", blocks: 3, events: []dispatched{message("1")}},
	{name: "mark after a blank line", stream: "\n|\uFEFFid: 1\n\n|", blocks: 1},
	{name: "first byte of a mark", stream: "\xEF"},
	{name: "first byte of a mark, then a line end", stream: "\xEF\n\n|", blocks: 1},
	{name: "first byte of a mark, then a field", stream: "\xEFid: 1\n\n|", blocks: 1},
	{name: "first byte of a mark, then a colon", stream: "\xEF: hb\n\n|", blocks: 1},
	{name: "two bytes of a mark", stream: "\xEF\xBB"},
	{name: "two bytes of a mark, then a line end", stream: "\xEF\xBB\n\n|", blocks: 1},
	{name: "two bytes of a mark, then a field", stream: "\xEF\xBBid: 1\n\n|", blocks: 1},
	{name: "two bytes of a mark, then a colon", stream: "\xEF\xBB: hb\n\n|", blocks: 1},
}

// mixedStreams have line ends that the same stream with LF alone cannot show.
var mixedStreams = []marked{
	{name: "CRLF, then CR", stream: "data: a\r\n\r|", blocks: 1, events: []dispatched{message("a")}},
	{name: "CRLF, then CRLF", stream: "data: a\r\n\r|\n|", blocks: 1, events: []dispatched{message("a")}},
	{name: "CRLF, then LF", stream: "data: a\r\n\n|", blocks: 1, events: []dispatched{message("a")}},
	{name: "CR, then CRLF", stream: "data: a\r\r|\n|", blocks: 1, events: []dispatched{message("a")}},
	{name: "CR, then LF, is one line end", stream: "data: a\r\ndata: b\r\n", blocks: 0},
	{name: "LF, then CR", stream: "data: a\n\r|", blocks: 1, events: []dispatched{message("a")}},
	{name: "LF, then CRLF", stream: "data: a\n\r|\n|", blocks: 1, events: []dispatched{message("a")}},
	{name: "LF, CR, LF, CR, LF", stream: "\n|\r|\n|\r|\n|"},
	{name: "CR, CR, LF, LF", stream: "\r|\r|\n|\n|"},
	{name: "comment, CR, then LF", stream: ": hb\r|\n|\n|"},
	{name: "comment inside an event, CRLF", stream: "data: a\r\n: hb\r\n\r|\n|", blocks: 1, events: []dispatched{message("a")}},
	{name: "id, CR, then the id of the next event", stream: "id: 1\r\r|id: 2\r\n\r|\n|id: 3\r", blocks: 2, id: "2"},
	{name: "id without a colon, CR", stream: "id: 1\n\n|id\r\r|", blocks: 2},
	{
		name:   "comment fest",
		stream: "data:1\r:\x00\n:\r\ndata:2\n:" + strings.Repeat("x", 64) + "\rdata:3\n:data:fail\r:" + strings.Repeat("x", 64) + "\ndata:4\n\n|",
		blocks: 1,
		events: []dispatched{message("1\n2\n3\n4")},
	},
}

// allStreams returns every stream above, those of LF alone with all line ends.
func allStreams() []marked {
	all := slices.Clone(mixedStreams)
	for _, m := range lfStreams {
		for _, variant := range []struct {
			name string
			ends []string
		}{
			{"LF", []string{"\n"}},
			{"CR", []string{"\r"}},
			{"CRLF", []string{"\r\n"}},
			// Never a CR and then an LF: together they would be one line end.
			{"LF CR CRLF", []string{"\n", "\r", "\r\n"}},
			{"CR CRLF LF", []string{"\r", "\r\n", "\n"}},
			{"CRLF LF CR", []string{"\r\n", "\n", "\r"}},
		} {
			v := m.withLineEnds(variant.ends...)
			v.name += ", " + variant.name
			all = append(all, v)
		}
	}
	return all
}
