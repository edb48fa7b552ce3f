package harness

import (
	"bytes"
	"sync"
)

// lockedBuffer is written by a process while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex // guards b; nothing is called with it held
	b  bytes.Buffer
}

// Write never fails.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns all that was written so far.
func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
