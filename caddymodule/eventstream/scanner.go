// Package eventstream is the wire format of server-sent events, as WHATWG HTML
// section 9.2 defines it. Scanner finds the places in a stream where something
// may be inserted; Event, AppendComment and AppendRetry write what is inserted.
//
// The package does no I/O and keeps no reference to the bytes it is given.
package eventstream

// Scanner follows one event stream and finds its safe boundaries: the places
// where a whole foreign event may be inserted without tearing anything. They
// are
//
//   - after the blank line that ends an event,
//   - after any further blank line,
//   - after a complete comment line, when no field line has been seen since the
//     last blank line. A comment inside an event is no boundary.
//
// A line ends with LF, CR or CRLF (9.2.5), however the stream is cut into Scan
// calls. A CR ends its line at once, so that an event is never held back for
// an LF that may not come. If the LF does come, it belongs to that CR: it makes
// no further line, and after a boundary it is a boundary again. An insertion
// between the two is harmless: the LF becomes one more blank line.
//
// A byte order mark at the start of the stream is not part of the first line,
// and there is no boundary right after it. What is inserted before the first
// byte of a stream displaces the mark, which would then spoil the first field:
// drop the mark if HasBOM.
//
// The zero value is ready to use, for one stream. A Scanner is not safe for
// concurrent use.
type Scanner struct {
	id      lastID
	events  uint64
	scanned int64 // how many bytes earlier calls of Scan have consumed
	block   int64 // where the last boundary is, in bytes of the stream
	data    int64 // where the block begins that was found to have data
	hasData bool  // there is one
	state   lineState
	inEvent bool // a field line has ended since the last blank line
	afterCR bool // the last byte was a CR: an LF now belongs to it
	crlf    bool // the line before the last one ended with CRLF
	bom     bool
}

// Scan consumes p, the next bytes of the stream, and returns the index in p
// just after the last safe boundary within p, or -1 if p holds none. It never
// returns 0: a boundary that an earlier call has reached is not reported again.
// If p begins with the LF of a CRLF whose CR ended the previous call at a
// boundary, that LF is a boundary and the result is at least 1.
//
// Scan does not keep p, and allocates only to remember an id longer than all
// before it.
func (s *Scanner) Scan(p []byte) (cut int) {
	cut = -1
	ends := lineEnds{lf: -1, cr: -1}
	for i := 0; i < len(p); {
		if s.afterCR {
			s.afterCR = false
			if p[i] == '\n' {
				s.crlf = true
				i++
				if s.AtBoundary() {
					cut = s.bound(i)
				}
				continue
			}
			s.crlf = false
		}
		end := ends.next(p, i)
		s.text(p[i:end])
		if end == len(p) {
			break
		}
		s.endLine()
		if s.afterCR = p[end] == '\r'; !s.afterCR {
			s.crlf = false
		}
		i = end + 1
		if s.AtBoundary() {
			cut = s.bound(i)
		}
	}
	s.scanned += int64(len(p))
	return cut
}

// bound notes a boundary after i bytes of the present chunk, and returns i.
func (s *Scanner) bound(i int) int {
	s.block = s.scanned + int64(i)
	return i
}

// AtBoundary reports whether everything scanned so far ends at a safe boundary.
// It is true before the first byte.
func (s *Scanner) AtBoundary() bool {
	return !s.inEvent && (s.state == lineStart || s.state == streamStart)
}

// LastEventID returns the last event ID string that a conforming client holds
// after the last event block that is complete (9.2.6): that of the newest id
// line in it or before it, blocks without data included. Ids with a NUL are
// ignored. Malformed UTF-8 reads as U+FFFD, as in the client. After an id
// longer than MaxIDLength it is empty, until the next id.
func (s *Scanner) LastEventID() string { return decodeUTF8(s.id.committed) }

// Events returns how many event blocks are complete: blank lines after at least
// one field line. A block without data counts, though a client dispatches
// nothing for it.
func (s *Scanner) Events() uint64 { return s.events }

// HasBOM reports whether the stream began with a byte order mark. It is false
// until all three bytes of the mark have been scanned.
func (s *Scanner) HasBOM() bool { return s.bom }

// OnlyBOM reports whether the stream so far is a byte order mark, or one or two bytes
// that begin one. A client has nothing to show of it.
func (s *Scanner) OnlyBOM() bool {
	return s.state == bomFirst || s.state == bomSecond || s.state == bomDone
}

// AwaitsLF reports whether the last byte scanned is a CR, and the line before ended
// with CRLF: the LF is on its way. Clients that know no CR alone take the line
// for unfinished until it comes.
func (s *Scanner) AwaitsLF() bool { return s.afterCR && s.crlf }

// DataBlock returns where the first block with data begins, as the number of bytes
// of the stream before it. It is known once the name of a data line is: the block
// need not be complete. Comment lines before a block are not part of it. What is
// inserted there without a blank line becomes part of a block that a client
// dispatches.
func (s *Scanner) DataBlock() (offset int64, ok bool) { return s.data, s.hasData }

// SeekDataBlock has DataBlock return the next block with data that begins at, or
// after, the last boundary; so a block that was found is found again if a data line
// of it is yet to come.
func (s *Scanner) SeekDataBlock() { s.hasData = false }

// text consumes bytes of the current line, without its end.
func (s *Scanner) text(part []byte) {
	for i, c := range part {
		switch s.state {
		case inComment, inField:
			return
		case idValue:
			s.id.read(part[i:])
			return
		case idColon:
			// One leading space is not part of the value.
			s.state = idValue
			if c != ' ' {
				s.id.read(part[i:])
				return
			}
		case nameDATA:
			s.foundName(c)
		default:
			s.state = s.state.after(c)
			s.bom = s.bom || s.state == bomDone
			if s.state == nameD && s.hasData {
				s.state = inField // nobody looks for data any more
			}
		}
	}
}

// foundName ends the name "data" with c, if it does end there.
func (s *Scanner) foundName(c byte) {
	if c == ':' {
		s.foundData()
	}
	s.state = inField
}

// foundData notes that the current block has data.
func (s *Scanner) foundData() { s.data, s.hasData = s.block, true }

// endLine ends the current line: a blank line, a comment or a field.
func (s *Scanner) endLine() {
	switch s.state {
	case streamStart, bomDone, lineStart:
		if s.inEvent {
			s.inEvent = false
			s.events++
			s.id.commit()
		}
	case inComment:
	case nameID, idColon, idValue:
		s.id.endValue()
		s.inEvent = true
	case nameDATA:
		s.foundData() // a line without a colon
		s.inEvent = true
	default:
		s.inEvent = true
	}
	s.state = lineStart
}

// lineState is what the bytes of the current line, so far, can be.
type lineState uint8

const (
	streamStart lineState = iota // nothing yet, a byte order mark may come
	bomFirst                     // EF, at the start of the stream
	bomSecond                    // EF BB
	bomDone                      // EF BB BF, the first line has not begun
	lineStart                    // nothing yet
	inComment
	inField // a field that needs no further look
	nameI   // "i"
	nameID  // "id"
	idColon // "id:"
	idValue
	nameD // "d"
	nameDA
	nameDAT
	nameDATA
)

// after returns the state that follows st when the line goes on with c, for a
// line whose kind is not yet known.
func (st lineState) after(c byte) lineState {
	switch {
	case st == streamStart && c == 0xEF:
		return bomFirst
	case st == bomFirst && c == 0xBB:
		return bomSecond
	case st == bomSecond && c == 0xBF:
		return bomDone
	case st == streamStart, st == bomDone, st == lineStart:
		switch c {
		case ':':
			return inComment
		case 'i':
			return nameI
		case 'd':
			return nameD
		}
	case st == nameI && c == 'd':
		return nameID
	case st == nameID && c == ':':
		return idColon
	case st == nameD && c == 'a':
		return nameDA
	case st == nameDA && c == 't':
		return nameDAT
	case st == nameDAT && c == 'a':
		return nameDATA
	}
	return inField
}
