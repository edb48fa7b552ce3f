package harness

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// Parser interprets an event stream as WHATWG HTML 9.2.6 says. It is the
// tests' own and shares no code with the guard, so that it can find it wrong.
type Parser struct {
	// onEvent gets every event that is dispatched, within Write.
	onEvent func(Event)

	lastID string // of the last complete block
	retry  *time.Duration

	line      []byte
	afterCR   bool
	pastBOM   bool
	midEvent  bool // the block has lines, and no blank one yet
	id        string
	eventType string
	data      strings.Builder
	pending   Event // collects Retry and Comments
}

// NewParser makes a parser that calls onEvent for every event, within Write. It
// starts with the last event id of an earlier connection: the standard starts with
// an empty one, browsers keep it.
func NewParser(lastID string, onEvent func(Event)) *Parser {
	return &Parser{onEvent: onEvent, lastID: lastID, id: lastID}
}

var bom = []byte("\uFEFF")

// Write takes the next bytes of the stream, and never fails.
func (p *Parser) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		if p.afterCR && rest[0] == '\n' {
			p.afterCR, rest = false, rest[1:]
			continue
		}
		line, ends := rest, false
		for _, end := range []byte("\r\n") {
			if n := bytes.IndexByte(line, end); n >= 0 {
				line, ends = line[:n], true
			}
		}
		p.line = append(p.line, line...)
		p.afterCR = ends && rest[len(line)] == '\r'
		rest = rest[len(line):]
		if ends {
			p.endLine()
			rest = rest[1:]
		}
	}
	return len(b), nil
}

// Torn reports whether the stream, if it ended here, would end inside an event.
func (p *Parser) Torn() bool { return p.midEvent || len(p.line) > 0 }

func (p *Parser) endLine() {
	line := p.line
	if !p.pastBOM {
		line = bytes.TrimPrefix(line, bom)
		p.pastBOM = true
	}
	text := strings.ToValidUTF8(string(line), "\uFFFD")
	p.line = p.line[:0]

	if text == "" {
		p.dispatch()
		return
	}
	if comment, ok := strings.CutPrefix(text, ":"); ok {
		p.pending.Comments = append(p.pending.Comments, strings.TrimPrefix(comment, " "))
		return
	}
	name, value, _ := strings.Cut(text, ":")
	p.midEvent = p.midEvent || name != "retry" // which counts at once
	p.field(name, strings.TrimPrefix(value, " "))
}

func (p *Parser) field(name, value string) {
	switch name {
	case "event":
		p.eventType = value
	case "data":
		p.data.WriteString(value)
		p.data.WriteByte('\n')
	case "id":
		if !strings.ContainsRune(value, 0) {
			p.id = value
		}
	case "retry":
		if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
			retry := time.Duration(ms) * time.Millisecond
			p.retry, p.pending.Retry = &retry, &retry
		}
	}
}

func (p *Parser) dispatch() {
	p.midEvent = false
	p.lastID = p.id
	eventType := p.eventType
	p.eventType = ""
	if p.data.Len() == 0 {
		return
	}
	event := p.pending
	event.ID = p.lastID
	event.Type = eventType
	if eventType == "" {
		event.Type = "message"
	}
	event.Data = strings.TrimSuffix(p.data.String(), "\n")
	p.data.Reset()
	p.pending = Event{}
	p.onEvent(event)
}
