package main

import (
	"bytes"
	"io"
)

// eventReader takes a stream apart into events. It knows as much of the format
// as the benchmark's own events and the guard's need: lines end with LF, and a
// line fits into its buffer or its beginning is all that matters.
type eventReader struct {
	r    io.Reader
	line []byte // of the present line what has come
	name string
	data bool // the present event has some field
}

const maxLine = 256

// read calls event with each event's name, "" if it has none, until the
// stream ends. The error is nil after a clean end.
func (e *eventReader) read(event func(name string)) error {
	buf := make([]byte, 512)
	for {
		n, err := e.r.Read(buf)
		e.feed(buf[:n], event)
		switch err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

func (e *eventReader) feed(p []byte, event func(name string)) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			e.keep(p)
			return
		}
		e.keep(p[:i])
		e.endLine(event)
		p = p[i+1:]
	}
}

func (e *eventReader) keep(p []byte) {
	e.line = append(e.line, p[:min(len(p), maxLine-len(e.line))]...)
}

func (e *eventReader) endLine(event func(name string)) {
	if len(e.line) == 0 {
		if e.data {
			event(e.name)
		}
		e.name, e.data = "", false
		return
	}
	if name, ok := bytes.CutPrefix(e.line, []byte("event: ")); ok {
		e.name = string(name)
	}
	e.data = e.data || e.line[0] != ':' // else a comment
	e.line = e.line[:0]
}
