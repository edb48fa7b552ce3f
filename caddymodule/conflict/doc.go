// Package conflict looks after keys that clients take from each other again and
// again.
//
// Damping is flap damping: it notices clients that do so without end, so that they
// are parked. Returns knows which of those that were parked come back too early. Audit
// is the audit log of contested keys: it counts what happens to a key, so that the log
// tells it in few lines.
//
// Memory of all is bounded by the number of keys. A key is forgotten when its time
// is over, or earlier to make room: the one first whose time is over first.
package conflict
