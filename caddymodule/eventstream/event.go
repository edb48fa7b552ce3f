package eventstream

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Event is one event to write. Fields with their zero value are left out.
//
// The strings should be UTF-8; a client reads malformed bytes as U+FFFD.
type Event struct {
	// ID becomes the client's last event ID, which it sends when it reconnects.
	// It must not contain NUL, CR or LF.
	ID string

	// Retry tells the client how long to wait before it reconnects. It is
	// written in whole milliseconds, rounded up. It must not be negative.
	Retry time.Duration

	// Name is the type of the event, "message" to the client if empty. It must
	// not contain CR or LF. A client dispatches nothing unless there is Data.
	Name string

	// Data is the payload. Each of its lines is written as a data line, and the
	// client gets them back joined with LF: a CR or CRLF in Data becomes LF.
	Data string
}

// What Event.Append refuses.
var (
	ErrInvalidID     = errors.New("event id contains NUL, CR or LF, which no client can read back")
	ErrInvalidName   = errors.New("event name contains CR or LF, which would break the event apart")
	ErrNegativeRetry = errors.New("event retry is negative; leave it zero to send none")
	ErrEmptyEvent    = errors.New("event has no field; set an ID, Retry, Name or Data")
)

// Append appends e in wire format to dst and returns the extended slice: the
// lines id, retry, event, data, and the blank line that ends the event, each
// ended by LF (WHATWG HTML 9.2.5). The result may be written wherever a Scanner
// reports a boundary.
//
// On error it returns dst as it was, and ErrInvalidID, ErrInvalidName,
// ErrNegativeRetry or ErrEmptyEvent.
func (e Event) Append(dst []byte) ([]byte, error) {
	if err := e.validate(); err != nil {
		return dst, err
	}
	if e.ID != "" {
		dst = appendLine(dst, "id", e.ID)
	}
	if e.Retry != 0 {
		dst = AppendRetry(dst, e.Retry)
	}
	if e.Name != "" {
		dst = appendLine(dst, "event", e.Name)
	}
	if e.Data != "" {
		dst = appendLines(dst, "data", e.Data)
	}
	return append(dst, '\n'), nil
}

func (e Event) validate() error {
	switch {
	case e == Event{}:
		return ErrEmptyEvent
	case strings.ContainsAny(e.ID, "\x00\r\n"):
		return ErrInvalidID
	case strings.ContainsAny(e.Name, "\r\n"):
		return ErrInvalidName
	case e.Retry < 0:
		return ErrNegativeRetry
	}
	return nil
}

// AppendComment appends text as comment lines to dst, one for each of its lines,
// and returns the extended slice. There is no blank line behind them: to some
// clients one is an event. Write the result only where a Scanner reports a
// boundary, which it leaves as one.
func AppendComment(dst []byte, text string) []byte { return appendLines(dst, "", text) }

// AppendRetry appends a retry line to dst and returns the extended slice: how long
// to wait before reconnecting, in whole milliseconds, rounded up, and not negative.
// It is no event by itself. Write it where a Scanner's DataBlock begins, so that it
// becomes part of that event, or as the last line of a stream: a client takes the
// time as soon as it has read the line (WHATWG HTML 9.2.6).
func AppendRetry(dst []byte, after time.Duration) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, milliseconds(max(after, 0)), 10)
	return append(dst, '\n')
}

// AppendForgetID appends an id line without an id: the client holds none from the event
// on that it becomes part of (WHATWG HTML 9.2.6), if that has none of its own. Write it
// where a Scanner's DataBlock begins.
func AppendForgetID(dst []byte) []byte { return append(dst, "id:\n"...) }

// appendLines appends one line of the named field for each line of text.
func appendLines(dst []byte, field, text string) []byte {
	for {
		end := strings.IndexAny(text, "\r\n")
		if end < 0 {
			return appendLine(dst, field, text)
		}
		dst = appendLine(dst, field, text[:end])
		if strings.HasPrefix(text[end:], "\r\n") {
			end++
		}
		text = text[end+1:]
	}
}

// appendLine appends one line; without a field name it is a comment. The space
// is always written before a value: the client strips one, so that a value
// which begins with a space keeps it.
func appendLine(dst []byte, field, value string) []byte {
	dst = append(dst, field...)
	dst = append(dst, ':')
	if value != "" {
		dst = append(dst, ' ')
		dst = append(dst, value...)
	}
	return append(dst, '\n')
}

// milliseconds returns d in milliseconds, rounded up. (Adding first and
// dividing then could overflow.)
func milliseconds(d time.Duration) int64 {
	ms := d.Milliseconds()
	if d%time.Millisecond > 0 {
		ms++
	}
	return ms
}
