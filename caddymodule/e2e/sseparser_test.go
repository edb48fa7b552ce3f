package e2e

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// sseEvent is one event as a page's listener gets it, with the retry and the
// comments that came since the event before.
type sseEvent struct {
	ID       string // the last event id at this event, which may be an older event's
	Type     string // "message" unless the event names another
	Data     string
	Retry    *time.Duration
	Comments []string
}

// sseParser interprets an event stream as WHATWG HTML 9.2.6 says. It is the
// tests' own and shares no code with the guard, so that it can find it wrong.
type sseParser struct {
	// onEvent gets every event that is dispatched.
	onEvent func(sseEvent)

	lastID string // of the last complete block
	retry  *time.Duration

	line      []byte
	afterCR   bool
	pastBOM   bool
	midEvent  bool // the block has lines, and no blank one yet
	id        string
	eventType string
	data      strings.Builder
	pending   sseEvent // collects Retry and Comments
}

// newSSEParser starts with the last event id of an earlier connection: the
// standard starts with an empty one, browsers keep it.
func newSSEParser(lastID string, onEvent func(sseEvent)) *sseParser {
	return &sseParser{onEvent: onEvent, lastID: lastID, id: lastID}
}

var bom = []byte("\uFEFF")

func (p *sseParser) Write(b []byte) (int, error) {
	for _, c := range b {
		switch {
		case c == '\n' && p.afterCR:
			p.afterCR = false
		case c == '\n' || c == '\r':
			p.afterCR = c == '\r'
			p.endLine()
		default:
			p.afterCR = false
			p.line = append(p.line, c)
		}
	}
	return len(b), nil
}

// torn reports whether the stream, if it ended here, would end inside an event.
func (p *sseParser) torn() bool { return p.midEvent || len(p.line) > 0 }

func (p *sseParser) endLine() {
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
	p.midEvent = true
	name, value, _ := strings.Cut(text, ":")
	p.field(name, strings.TrimPrefix(value, " "))
}

func (p *sseParser) field(name, value string) {
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

func (p *sseParser) dispatch() {
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
	p.pending = sseEvent{}
	p.onEvent(event)
}
