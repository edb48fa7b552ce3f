package guard

import (
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/conflict"
	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// eventLog writes down what happens, line by line. Nothing depends on it.
type eventLog struct {
	zone             string
	logger, security *zap.Logger
}

func (g *Guard) zoneField() zap.Field { return zap.String("zone", g.Zone.Name) }

func keyField(h *registry.Holder) zap.Field {
	return zap.String("key", identity.Hash(h.Key).Short())
}

// whoFields name the zone, the key and, if there is one, the verified user.
func whoFields(zone string, who event.Who, more ...zap.Field) []zap.Field {
	fields := make([]zap.Field, 0, 3+len(more))
	fields = append(fields, zap.String("zone", zone), keyField(who.Holder))
	if who.Sub != "" {
		fields = append(fields, zap.String("sub", who.Sub))
	}
	return append(fields, more...)
}

// Observe implements event.Observer.
func (l *eventLog) Observe(e event.Event) {
	switch e := e.(type) {
	case event.Admitted:
		if c := l.logger.Check(zap.DebugLevel, "stream admitted"); c != nil {
			c.Write(zap.String("zone", l.zone), keyField(e.Stream.Holder), zap.String("client_ip", e.Stream.Holder.Addr))
		}
	case event.Entombed:
		if c := l.logger.Check(zap.DebugLevel, "ended client came back"); c != nil {
			c.Write(zap.String("zone", l.zone), keyField(e.Client.Holder), zap.String("reason", string(e.Reason)))
		}
	case event.Superseded:
		l.security.Warn("stream superseded", whoFields(l.zone, e.Newcomer,
			zap.String("holder_ip", e.Loser.Addr),
			zap.String("newcomer_ip", e.Newcomer.Holder.Addr),
		)...)
	case event.Ended:
		if e.Ending != nil {
			l.ended(e)
		}
	case event.LoggedOut:
		l.loggedOut(e)
	}
}

func (l *eventLog) ended(e event.Ended) {
	level := zap.InfoLevel
	if e.Reason.Meaning().Quiet {
		level = zap.DebugLevel
	}
	l.logger.Log(level, "stream ended",
		zap.String("zone", l.zone), keyField(e.Stream.Holder),
		zap.String("reason", string(e.Reason)),
		zap.Bool("event_sent", e.Delivered),
		zap.Duration("age", e.Age),
		zap.Uint64("events", e.Events),
		zap.Int64("bytes", e.Bytes),
		zap.String("client_ip", e.Stream.Holder.Addr),
	)
}

func (l *eventLog) loggedOut(e event.LoggedOut) {
	fields := []zap.Field{zap.String("zone", l.zone)}
	if e.By.Sub != "" {
		fields = append(fields, zap.String("sub", e.By.Sub))
	}
	l.logger.Info("logout", append(fields,
		zap.String("scope", e.Scope),
		zap.Int("streams", e.Streams),
		zap.String("client_ip", e.By.Holder.Addr),
	)...)
}

// tellOrigin says that a page of another origin gets a stream, or is refused one, that
// yields, since it cannot read it as far as the guard could see, or at all. A page of any
// site can cause it.
func (g *Guard) tellOrigin(reader identity.Reader, readable bool) {
	if g.Rule.Limit == 0 {
		return
	}
	fields := []zap.Field{g.zoneField(), zap.String("cause", "cors"), zap.String("origin", reader.Origin)}
	switch {
	case !readable && g.lines.may("another origin", time.Hour):
		g.Logger.Warn("a page of another origin gets a stream that it cannot read as far as the guard sees: it takes no key from others, and gives its own to the first who asks; if the answer's Access-Control-Allow-Origin is set behind the guard's back, write: allow_origin <origin>", fields...)
	case readable && g.lines.may("another origin, deferred", time.Hour):
		g.Logger.Info("a page of another origin can read its stream by an Access-Control-Allow-Origin that is set behind the guard's back, as by a deferred header directive: the guard knows it from now on; to have it know before the first stream, write: allow_origin <origin>", fields...)
	}
}

// warnOfDenials says that more tokens are logged out than can be remembered.
func (g *Guard) warnOfDenials() {
	if g.lines.may("many denials", time.Minute) {
		g.Logger.Warn("too many logged-out tokens to remember: the first to expire are forgotten", g.zoneField())
	}
}

// warnOfLogout says that a request may have logged out, which its method keeps from
// counting.
func (q *request) warnOfLogout(l *Logout) {
	q.identify()
	if q.holder.Token.IsZero() || !q.guard.lines.may("a logout", time.Hour) {
		return
	}
	q.guard.Logger.Warn("a request to a logout path succeeded and ends no stream, since only POST and DELETE count there; if it logs out, add: logout "+q.r.Method+" "+l.Path,
		q.guard.zoneField(), zap.String("method", q.r.Method))
}

// endedNothing says why a logout ended no stream.
func (q *request) endedNothing(l *Logout, why string) {
	q.guard.Logger.Debug("a logout ended no stream: "+why,
		q.guard.zoneField(), zap.String("path", l.Path), zap.String("client_ip", q.holder.Addr))
}

// auditLog tells what happens to contested keys, seldom enough to be read.
type auditLog struct {
	zone     string
	audit    *conflict.Audit
	sharing  Sharing
	security *zap.Logger
}

// Observe implements event.Observer.
func (l *auditLog) Observe(e event.Event) {
	switch e := e.(type) {
	case event.Rejected:
		l.rejected(e)
	case event.Damped:
		l.parked(e)
	case event.Superseded:
		l.takenOver(e.Newcomer)
	}
}

// rejected tells of a refused newcomer: at once of the first of a minute, and in
// one line of all that follow in it.
func (l *auditLog) rejected(e event.Rejected) {
	addrs := make([]string, len(e.Holders))
	for i, h := range e.Holders {
		addrs[i] = h.Addr
	}
	fields := whoFields(l.zone, e.Newcomer,
		zap.Strings("holder_ips", addrs),
		zap.String("newcomer_ip", e.Newcomer.Holder.Addr),
	)
	l.audit.Rejected(e.Newcomer.Holder.Key, func(attempts int) {
		l.security.Warn("newcomer rejected", append(fields, zap.Int("attempts", attempts))...)
	})
}

// parked tells of a newcomer that flaps, as rejected does of a refused one: some
// clients come back at once, whatever they are told.
func (l *auditLog) parked(e event.Damped) {
	fields := whoFields(l.zone, e.Newcomer, zap.String("newcomer_ip", e.Newcomer.Holder.Addr))
	l.audit.Parked(e.Newcomer.Holder.Key, func(attempts int) {
		l.security.Warn("newcomer parked: it takes the key back again and again", append(fields, zap.Int("attempts", attempts))...)
	})
}

// takenOver tells when the key goes from address to address, as that of an account
// does which many people share.
func (l *auditLog) takenOver(newcomer event.Who) {
	if l.sharing.Addrs == 0 {
		return
	}
	h := newcomer.Holder
	if addrs := l.audit.TakenOver(h.Key, h.Addr, l.sharing.Addrs, l.sharing.Window); addrs != nil {
		l.security.Warn("shared account?", whoFields(l.zone, newcomer,
			zap.Strings("newcomer_ips", addrs),
			zap.Duration("window", l.sharing.Window),
		)...)
	}
}
