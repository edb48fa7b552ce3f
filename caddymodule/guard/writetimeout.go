package guard

import (
	"time"

	"go.uber.org/zap"
)

const (
	// writeTimeoutEvery is how often a line above debug says that the server cuts
	// streams.
	writeTimeoutEvery = time.Hour
	// writeTimeoutEarly is how much earlier than Env says a server may cut: its time
	// begins before the request is handled.
	writeTimeoutEarly = 50 * time.Millisecond
)

// tellWriteTimeout says that the server's write timeout has cut the stream off, which
// looks like a client that has left. HTTP/3 knows no such timeout.
func (q *request) tellWriteTimeout() {
	at := q.env.WriteDeadline()
	if at.IsZero() || q.r.ProtoMajor >= 3 || time.Now().Before(at.Add(-writeTimeoutEarly)) {
		return
	}
	level := zap.DebugLevel
	if q.guard.lines.may("write timeout", writeTimeoutEvery) {
		level = zap.WarnLevel
	}
	q.guard.Logger.Log(level, "the server's write timeout has cut a stream off; in the global option servers, leave out: timeouts { write }; or end streams in good order before, with max_age",
		q.guard.zoneField(), zap.Duration("age", time.Since(q.holder.Since)), zap.String("client_ip", q.holder.Addr))
}
