package expiry_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/expiry"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

const benchKnown = 100_000

// crowd is Deadlines of 100,000 streams, two per session, that end between one
// and two hours from now.
func crowd(b *testing.B) (*expiry.Deadlines, []registry.ID) {
	d := expiry.New(func([]*registry.Stream) {})
	b.Cleanup(d.Close)
	rnd := rand.New(rand.NewPCG(1, 2))
	sessions := make([]registry.ID, benchKnown/2)
	for i := range sessions {
		binary.LittleEndian.PutUint64(sessions[i][:], rnd.Uint64())
		for range 2 {
			d.Add(stream("a"), sessions[i], soon(rnd))
		}
	}
	return d, sessions
}

func soon(rnd *rand.Rand) time.Time {
	return time.Now().Add(time.Hour + time.Duration(rnd.Int64N(int64(time.Hour))))
}

// BenchmarkAddStop_100kKnown opens and closes a stream.
func BenchmarkAddStop_100kKnown(b *testing.B) {
	d, _ := crowd(b)
	rnd, s := rand.New(rand.NewPCG(3, 4)), stream("a")
	var session registry.ID
	b.ReportAllocs()
	for b.Loop() {
		binary.LittleEndian.PutUint64(session[:], rnd.Uint64())
		d.Add(s, session, soon(rnd)).Stop()
	}
}

// BenchmarkAddStopEarliest_100kKnown does so with a stream that ends before all
// others, so that the timer is set each time.
func BenchmarkAddStopEarliest_100kKnown(b *testing.B) {
	d, _ := crowd(b)
	s, session := stream("a"), id("session")
	b.ReportAllocs()
	for b.Loop() {
		d.Add(s, session, time.Now().Add(time.Second)).Stop()
	}
}

// BenchmarkSweepStep_100kKnown is how long the lock is held at most by a sweep.
func BenchmarkSweepStep_100kKnown(b *testing.B) {
	var ahead time.Duration
	d := expiry.NewAt(func([]*registry.Stream) {}, func() time.Time { return time.Now().Round(0).Add(ahead) })
	b.Cleanup(d.Close)
	rnd := rand.New(rand.NewPCG(5, 6))
	add := func(n int) {
		var session registry.ID
		for range n {
			binary.LittleEndian.PutUint64(session[:], rnd.Uint64())
			d.Add(stream("a"), session, soon(rnd))
		}
	}
	add(benchKnown)
	d.HoldSweeps()
	ahead = 24 * time.Hour
	b.ReportAllocs()
	for b.Loop() {
		due := d.Step()
		b.StopTimer()
		if len(due) != expiry.MaxBatch {
			b.Fatalf("took %d streams", len(due))
		}
		add(len(due))
		b.StartTimer()
	}
}

// BenchmarkRenew_100kKnown renews the two streams of a session.
func BenchmarkRenew_100kKnown(b *testing.B) {
	d, sessions := crowd(b)
	token, at := id("token"), time.Now().Add(2*time.Hour)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		at = at.Add(1)
		if n := d.Renew(sessions[i], token, at); n != 2 {
			b.Fatalf("moved %d streams", n)
		}
		i = (i + 1) % len(sessions)
	}
}

// BenchmarkRenewUnknown_100kKnown is what a request pays whose session has no
// stream.
func BenchmarkRenewUnknown_100kKnown(b *testing.B) {
	d, _ := crowd(b)
	session, token, at := id("session"), id("token"), time.Now().Add(2*time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		d.Renew(session, token, at)
	}
}

// BenchmarkRenewedBy_100kKnown lists the two streams of a session.
func BenchmarkRenewedBy_100kKnown(b *testing.B) {
	d, sessions := crowd(b)
	token := id("token")
	for _, s := range sessions {
		d.Renew(s, token, time.Now().Add(3*time.Hour))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		d.RenewedBy(sessions[i], token)
		i = (i + 1) % len(sessions)
	}
}
