package stream

import (
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
)

// output is what goes to the client: the upstream's bytes, and the guard's own
// between them. The relay's mu guards it.
type output struct {
	r       *relay // not changed
	scanner eventstream.Scanner
	taken   int64 // how many bytes of the upstream's were sent, or dropped

	open   bool // the header is out, and the end is not
	dirty  bool // written since the last flush
	broken bool // a write has failed

	// retry, and that the client is to forget the id it holds, are due before the first
	// block that has data; 0 and false: nothing is.
	retry  time.Duration
	forget bool
	// first says that we wrote before the upstream did.
	first bool
	// lf says that we wrote the LF of the upstream's last CRLF, which is yet to come.
	lf bool
}

// framed reports whether an event with data, or a part of one, is with the client.
// Until then, what is held may be of a body that is no framed event stream.
func (o *output) framed() bool {
	block, ok := o.scanner.DataBlock()
	return ok && block < o.taken
}

// upstream sends what the upstream sent, and the opening lines where they belong.
func (o *output) upstream(p []byte) {
	if o.retry > 0 || o.forget {
		if at, ok := o.opensAt(); ok && at < int64(len(p)) {
			o.pass(p[:at])
			// Behind it a block begins: the upstream's LF is not missing there, whatever
			// its last bytes, which are yet to be sent, end with.
			o.first = o.first || o.taken == 0
			o.send(o.opening())
			p = p[at:]
		}
	}
	o.pass(p)
}

// opening takes out the lines that are due before the first block that has data.
func (o *output) opening() (lines []byte) {
	if o.forget && o.scanner.LastEventID() == "" { // else the application's takes it away
		lines = eventstream.AppendForgetID(lines)
	}
	if o.retry > 0 {
		lines = eventstream.AppendRetry(lines, o.retry)
	}
	o.forget, o.retry = false, 0
	return lines
}

// opensAt is where the first block with data begins, counted from what is to be
// sent next. One that is with the client in part comes too late.
func (o *output) opensAt() (at int64, ok bool) {
	block, ok := o.scanner.DataBlock()
	if ok && block < o.taken {
		o.scanner.SeekDataBlock()
		return 0, false
	}
	return block - o.taken, ok
}

// bomLength is the length of a byte order mark.
const bomLength = 3

// pass sends the upstream's next bytes. A byte order mark is one only at the very
// start of a stream: behind something we wrote it would spoil the first field.
func (o *output) pass(p []byte) {
	if o.first && o.taken < bomLength && o.scanner.HasBOM() {
		mark := min(int(bomLength-o.taken), len(p))
		o.taken += int64(mark)
		p = p[mark:]
	}
	o.taken += int64(len(p))
	if n := o.send(p); n > 0 {
		o.r.counts.bytes.Store(o.r.counts.bytes.Load() + int64(n))
	}
}

// ours sends what the guard inserts at a boundary. Clients that know no CR
// alone would read on in the upstream's line if its LF came behind that.
func (o *output) ours(p []byte) {
	o.first = o.first || o.taken == 0
	if len(o.r.held.bytes) == 0 && o.scanner.AwaitsLF() && !o.lf && len(p) > 0 {
		o.lf = true
		o.send([]byte{'\n'})
	}
	o.send(p)
}

// send writes p, unless a write has failed before.
func (o *output) send(p []byte) int {
	if len(p) == 0 || o.broken || !o.open {
		return 0
	}
	o.dirty = true
	n, err := o.r.s.sink.Write(p)
	if err != nil {
		o.r.failed()
	}
	return n
}

// flush sends what is buffered.
func (o *output) flush() {
	if !o.dirty || o.broken || !o.open {
		return
	}
	o.dirty = false
	if o.r.s.sink.Flush() != nil {
		o.r.failed()
	}
}
