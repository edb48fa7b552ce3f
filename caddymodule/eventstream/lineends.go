package eventstream

import "bytes"

// lineEnds finds the line ends of one chunk, from left to right. It remembers
// the next LF and the next CR, so that each byte is searched once for either,
// also where a chunk has many of one and none of the other. Both start as -1.
type lineEnds struct {
	lf, cr int
}

// next returns the index of the first LF or CR in p at or after from, or len(p)
// if there is none. From must not decrease between calls.
func (e *lineEnds) next(p []byte, from int) int {
	if e.lf < from {
		e.lf = indexFrom(p, from, '\n')
	}
	if e.cr < from {
		e.cr = indexFrom(p, from, '\r')
	}
	return min(e.lf, e.cr)
}

// indexFrom returns the index of the first c in p at or after from, or len(p).
func indexFrom(p []byte, from int, c byte) int {
	if i := bytes.IndexByte(p[from:], c); i >= 0 {
		return from + i
	}
	return len(p)
}
