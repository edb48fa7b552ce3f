package eventstream

import (
	"bytes"
	"unicode/utf8"
)

// MaxIDLength is the length in bytes up to which a Scanner remembers an id.
const MaxIDLength = 4096

// lastID is the "last event ID string" and the "last event ID buffer" of WHATWG
// HTML 9.2.6. It swaps two byte slices, so that a steady stream of ids of
// similar length costs no allocation.
type lastID struct {
	committed []byte // the string: what the last complete event block left
	pending   []byte // the buffer: accepted, then the value being read
	accepted  int    // length of the value at the front of pending
	set       bool   // the current event block has set the buffer
	nul       bool   // the value being read contains a NUL
	long      bool   // the value being read exceeds MaxIDLength
}

// read takes the next bytes of the id line being read.
func (l *lastID) read(part []byte) {
	// A NUL counts even in an id too long to keep: the line is ignored then,
	// and the id before it stays.
	l.nul = l.nul || bytes.IndexByte(part, 0) >= 0
	l.long = l.long || len(l.pending)-l.accepted+len(part) > MaxIDLength
	if l.nul || l.long {
		l.pending = l.pending[:l.accepted]
		return
	}
	l.pending = append(l.pending, part...)
}

// endValue ends an id line: its value becomes the buffer, unless it had a NUL.
func (l *lastID) endValue() {
	if !l.nul {
		l.accepted = copy(l.pending, l.pending[l.accepted:])
		l.pending = l.pending[:l.accepted]
		l.set = true
	}
	l.nul, l.long = false, false
}

// commit ends the event block: the buffer, if it was set, becomes the string.
func (l *lastID) commit() {
	if !l.set {
		return
	}
	l.committed, l.pending = l.pending, l.committed[:0]
	l.accepted, l.set = 0, false
}

// decodeUTF8 decodes b as the Encoding Standard does: each longest start of a
// character that does not go on becomes one U+FFFD. (A conversion in Go makes
// one of each byte.)
func decodeUTF8(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	decoded := make([]byte, 0, len(b)+utf8.UTFMax)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			for size < len(b) && !utf8.FullRune(b[:size+1]) {
				size++
			}
		}
		decoded = utf8.AppendRune(decoded, r)
		b = b[size:]
	}
	return string(decoded)
}
