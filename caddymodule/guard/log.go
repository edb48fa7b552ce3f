package guard

import (
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

func (v *visit) zone() zap.Field { return zap.String("zone", v.guard.Zone.Name) }
func (v *visit) key() zap.Field  { return zap.String("key", v.shortKey()) }

// sub is the field of the verified user, if there is one.
func (v *visit) sub() zap.Field {
	if !v.verified() || v.claims.Sub == "" {
		return zap.Skip()
	}
	return zap.String("sub", v.claims.Sub)
}

// logEnding writes the line of a stream that the guard ended.
func (v *visit) logEnding(sum stream.Summary) {
	if sum.Ending == nil {
		return
	}
	level := zap.InfoLevel
	if r := sum.Ending.Reason; r == registry.MaxAge || r == registry.Shutdown {
		level = zap.DebugLevel // they come in crowds, and nobody did anything
	}
	v.guard.Logger.Log(level, "stream ended",
		v.zone(), v.key(),
		zap.String("reason", string(sum.Ending.Reason)),
		zap.Bool("event_sent", sum.Delivered),
		zap.Duration("age", time.Since(v.admitted)),
		zap.Uint64("events", sum.Events),
		zap.Int64("bytes", sum.Bytes),
		zap.String("client_ip", v.stream.Addr),
	)
}

// logSuperseded writes a security line for each holder that another client
// lost its stream to this one.
func (v *visit) logSuperseded(ended []registry.Victim) {
	for _, victim := range ended {
		if victim.Reason != registry.Superseded {
			continue
		}
		if old, ok := victim.Stream.Handle.(*visit); ok {
			old.lost(v)
		}
		v.guard.Security.Warn("stream superseded",
			v.zone(), v.key(), v.sub(),
			zap.String("holder_ip", victim.Stream.Addr),
			zap.String("newcomer_ip", v.stream.Addr),
		)
		v.logSharing()
	}
}

// logSharing writes a line when the key goes from address to address, as that of
// an account does which many people share.
func (v *visit) logSharing() {
	s := v.guard.Sharing
	if s.Addrs == 0 {
		return
	}
	if addrs := v.guard.Zone.contests.TakenOver(v.stream.Key, v.stream.Addr, s.Addrs, s.Window); addrs != nil {
		v.guard.Security.Warn("shared account?",
			v.zone(), v.key(), v.sub(),
			zap.Strings("newcomer_ips", addrs),
			zap.Duration("window", s.Window),
		)
	}
}

// loggedHolders bounds a log line of a key with many holders.
const loggedHolders = 5

// logRejected writes the security line of a refused newcomer: at once for the
// first of a minute, and one for all that follow in it.
func (v *visit) logRejected(holders []*registry.Stream) {
	addrs := make([]string, 0, loggedHolders)
	for _, h := range holders[:min(len(holders), loggedHolders)] {
		addrs = append(addrs, h.Addr)
	}
	security := v.guard.Security
	fields := []zap.Field{
		v.zone(), v.key(), v.sub(),
		zap.Strings("holder_ips", addrs),
		zap.String("newcomer_ip", v.stream.Addr),
	}
	v.guard.Zone.contests.Rejected(v.stream.Key, func(attempts int) {
		security.Warn("newcomer rejected", append(fields, zap.Int("attempts", attempts))...)
	})
}

// warnIfEncoded says once that this guard's upstream compresses streams.
func (v *visit) warnIfEncoded(h http.Header) {
	if ce := h.Get("Content-Encoding"); ce != "" && ce != "identity" {
		v.guard.warnEncoded.Do(func() {
			v.guard.Logger.Warn("the upstream compresses event streams: they are ended without an event; let it send them uncompressed",
				v.zone(), zap.String("content_encoding", ce))
		})
	}
}
