package check

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// maxEvent is how many bytes of one event are kept. What is longer is the
// application's, and is only counted.
const maxEvent = 64 << 10

// maxRetry is the longest time of a retry field that is believed.
const maxRetry = 24 * time.Hour

// event is one event as a page's listener gets it.
type event struct {
	name string // "message" unless the event names another
	data string // empty if it was longer than maxEvent
}

// parser interprets an event stream as WHATWG HTML 9.2.6 says. It shares no code with
// the guard: it is to see what a browser sees.
type parser struct {
	onEvent func(event) // gets every event, within Write

	lastID string         // of the last complete block: what a reconnect sends
	retry  *time.Duration // nil: the stream has set none

	line    []byte
	afterCR bool
	pastBOM bool
	long    bool // the line is longer than maxEvent
	id      string
	name    string
	data    []byte
	hasData bool
	dropped bool // the event's data is longer than maxEvent
}

var byteOrderMark = []byte("\uFEFF")

// Write takes the next bytes of the stream, and never fails.
func (p *parser) Write(b []byte) (int, error) {
	for _, c := range b {
		switch {
		case c == '\n' && p.afterCR:
			p.afterCR = false
		case c == '\n' || c == '\r':
			p.afterCR = c == '\r'
			p.endLine()
		case len(p.line) < maxEvent:
			p.afterCR = false
			p.line = append(p.line, c)
		default:
			p.afterCR, p.long = false, true
		}
	}
	return len(b), nil
}

func (p *parser) endLine() {
	line := p.line
	if !p.pastBOM {
		line = bytes.TrimPrefix(line, byteOrderMark)
		p.pastBOM = true
	}
	p.line = p.line[:0]
	p.dropped = p.dropped || p.long
	p.long = false
	if len(line) == 0 {
		p.dispatch()
		return
	}
	name, value, _ := bytes.Cut(line, []byte(":")) // a comment has no name
	p.field(string(name), string(bytes.TrimPrefix(value, []byte(" "))))
}

func (p *parser) field(name, value string) {
	switch name {
	case "event":
		p.name = value
	case "data":
		p.hasData = true
		if len(p.data)+len(value) > maxEvent {
			p.dropped = true
			return
		}
		p.data = append(append(p.data, value...), '\n')
	case "id":
		if !strings.ContainsRune(value, 0) {
			p.id = value
		}
	case "retry":
		if ms, err := strconv.ParseUint(value, 10, 32); err == nil {
			retry := min(time.Duration(ms)*time.Millisecond, maxRetry)
			p.retry = &retry
		}
	}
}

func (p *parser) dispatch() {
	p.lastID = p.id
	e := event{name: p.name, data: strings.TrimSuffix(string(p.data), "\n")}
	hadData, dropped := p.hasData, p.dropped
	p.name, p.data, p.hasData, p.dropped = "", p.data[:0], false, false
	if !hadData {
		return
	}
	if e.name == "" {
		e.name = "message"
	}
	if dropped {
		e.data = ""
	}
	p.onEvent(e)
}
