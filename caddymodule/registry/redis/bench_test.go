package redis_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/registry/redis"
	"github.com/sse-guard/sse-guard/caddymodule/registry/registrytest"
)

// BenchmarkTakeover is from the newcomer's question until the older stream's node is
// told, on one node, on one with Redis, and across two.
func BenchmarkTakeover(b *testing.B) {
	server := harness.StartRedis(b)
	b.Run("memory", func(b *testing.B) {
		node := new(registrytest.FakeNode)
		r := memory.New(node)
		defer r.Close()
		takeovers(b, [2]registry.Registry{r, r}, [2]*registrytest.FakeNode{node, node})
	})
	b.Run("redis/one node", func(b *testing.B) {
		s := openSite(b, options(b, server.Addr))
		takeovers(b, [2]registry.Registry{s, s}, [2]*registrytest.FakeNode{s.node, s.node})
	})
	b.Run("redis/two nodes", func(b *testing.B) {
		s := sites(b, options(b, server.Addr), 2)
		takeovers(b, [2]registry.Registry{s[0], s[1]}, [2]*registrytest.FakeNode{s[0].node, s[1].node})
	})
}

// takeovers has the key go to and fro.
func takeovers(b *testing.B, registries [2]registry.Registry, nodes [2]*registrytest.FakeNode) {
	ended := make(chan struct{}, 1)
	for _, n := range nodes {
		n.OnEnd = func(registry.StreamID, registry.Ending) { ended <- struct{}{} }
	}
	var took []time.Duration
	var last registry.Place
	for i := range b.N + 1 {
		began := time.Now()
		as, err := registries[i%2].Admit(b.Context(), registry.Header, registry.Consent{}, []registry.Ask{{Holder: anon("h"), Rule: one}}, nil)
		if err != nil || as[0].Outcome != registry.Admitted {
			b.Fatal(as, err)
		}
		if last != nil {
			<-ended
			took = append(took, time.Since(began))
			leaveAndDepart(last)
		}
		last = as[0].Place
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// BenchmarkScripts is how long Redis takes for each script, as its slow log has it. Nothing
// else runs meanwhile; beside the key that is asked for, the bucket has none, or many.
func BenchmarkScripts(b *testing.B) {
	for _, others := range []int{0, 1000} {
		b.Run(fmt.Sprint(others, "_others"), func(b *testing.B) {
			server := harness.StartRedis(b)
			o := options(b, server.Addr)
			o.Lease = time.Hour // nothing is renewed but by the benchmark
			s := sites(b, o, 2)
			for i := range others {
				h := anon(fmt.Sprint("other", i))
				h.Key = registrytest.ID(fmt.Sprint("other", i))
				h.Key[0] = registrytest.ID("key")[0]
				s[0].hold(b, h, one)
			}
			server.Do(b, "CONFIG", "SET", "slowlog-max-len", "1000000")
			server.Do(b, "CONFIG", "SET", "slowlog-log-slower-than", "0")
			b.ResetTimer()
			var last registry.Place
			for i := range b.N + 1 {
				older := last
				newcomer := s[i%2]
				switch i % 3 {
				case 0: // a newcomer that is asked for early
					h := anon("h")
					newcomer.ask(b, registry.Early, h, one)
					last = newcomer.hold(b, h, one)
				case 1: // one that has several guards
					last = newcomer.reserve(b, anon("h"), one)
					_, err := last.Commit(b.Context())
					require.NoError(b, err)
				case 2: // a logout
					_, err := newcomer.End(b.Context(), registry.Selector{Key: registrytest.ID("key")}, registry.Ending{Reason: reason.Logout})
					require.NoError(b, err)
					last = newcomer.hold(b, anon("h"), one)
				}
				if older != nil {
					leaveAndDepart(older)
				}
				s[0].Settle()
				s[1].Settle()
				s[i%2].Renew()
			}
			b.StopTimer()
			for name, all := range took(b, server) {
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)/2].Microseconds()), name+"-us")
			}
		})
	}
}

// BenchmarkManyHolders is how long Redis takes for an admission to a key that many hold: it
// reads and writes what it has of the key as a whole.
func BenchmarkManyHolders(b *testing.B) {
	for _, limit := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint("limit_", limit), func(b *testing.B) {
			server := harness.StartRedis(b)
			o := options(b, server.Addr)
			o.Lease = time.Hour // nothing is renewed
			s := openSite(b, o)
			rule := registrytest.Supersede(limit, registry.Streams)
			places := make([]registry.Place, 0, limit)
			for i := range limit {
				places = append(places, s.hold(b, anon(strconv.Itoa(i)), rule))
			}
			server.Do(b, "CONFIG", "SET", "slowlog-max-len", "1000000")
			server.Do(b, "CONFIG", "SET", "slowlog-log-slower-than", "0")
			b.ResetTimer()
			for i := range b.N {
				next := s.hold(b, anon("n"+strconv.Itoa(i)), rule)
				leaveAndDepart(places[0]) // it was superseded
				places = append(places[1:], next)
				s.Settle()
			}
			b.StopTimer()
			admissions := took(b, server)["admit"]
			slices.Sort(admissions)
			b.ReportMetric(float64(admissions[len(admissions)/2].Microseconds()), "admit-us")
		})
	}
}

// took returns how long the scripts took that the slow log has, by their names.
func took(b *testing.B, server *harness.Redis) map[string][]time.Duration {
	answer := server.Do(b, "SLOWLOG", "GET", "-1")
	names, all := redis.ScriptNames(), make(map[string][]time.Duration)
	entries, err := answer.ToArray()
	require.NoError(b, err)
	for _, e := range entries {
		fields, err := e.ToArray()
		require.NoError(b, err)
		us, err := fields[2].AsInt64()
		require.NoError(b, err)
		command, err := fields[3].AsStrSlice()
		require.NoError(b, err)
		if len(command) > 1 && names[command[1]] != "" {
			all[names[command[1]]] = append(all[names[command[1]]], time.Duration(us)*time.Microsecond)
		}
	}
	return all
}

// BenchmarkBusy has as many takeovers as Redis carries, each of a key that another node
// has.
func BenchmarkBusy(b *testing.B) {
	server := harness.StartRedis(b)
	o := options(b, server.Addr)
	o.Lease = time.Hour
	s := sites(b, o, 2)
	var workers atomic.Int64
	b.SetParallelism(16)
	server.Do(b, "CONFIG", "RESETSTAT")
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		worker := workers.Add(1)
		var last registry.Place
		for i := 0; pb.Next(); i++ {
			h := registrytest.Anon("h")
			h.Asked, h.Key = time.Now(), registrytest.ID(fmt.Sprint("key", worker))
			as, err := s[i%2].Admit(b.Context(), registry.Header, registry.Consent{}, []registry.Ask{{Holder: h, Rule: one}}, nil)
			if err != nil || as[0].Outcome != registry.Admitted {
				b.Error(as, err)
				return
			}
			if last != nil {
				leaveAndDepart(last)
			}
			last = as[0].Place
		}
	})
	b.StopTimer()
	answer := server.Do(b, "INFO", "commandstats")
	stats, err := answer.ToString()
	require.NoError(b, err)
	for line := range strings.SplitSeq(stats, "\r\n") {
		if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:"); ok {
			var calls, us int64
			_, err := fmt.Sscanf(rest, "calls=%d,usec=%d,", &calls, &us)
			require.NoError(b, err)
			b.ReportMetric(float64(us)/float64(calls), "us/script")
			b.ReportMetric(float64(us)/float64(b.N), "us-of-redis/takeover")
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "takeovers/s")
}

// BenchmarkWayBack is from when Redis can be reached again until all nodes of a large zone
// reach it, and until it has all that they have.
func BenchmarkWayBack(b *testing.B) {
	const streams, nodes = 200_000, 4
	server := harness.StartRedis(b)
	server.Do(b, "CONFIG", "SET", "slowlog-log-slower-than", "500", "slowlog-max-len", "100000")
	o := options(b, server.Addr)
	o.OnError, o.Lease, o.Timeout = redis.Allow, 10*time.Second, 500*time.Millisecond
	sites, cables := make([]site, nodes), make([]*cable, nodes)
	for i := range sites {
		cables[i] = newCable(b, server)
		sites[i] = openSite(b, by(o, cables[i]))
	}
	await := func(is func(site) bool) {
		for _, s := range sites {
			require.Eventually(b, func() bool { return is(s) }, 5*time.Minute, aWhile)
		}
	}
	cut := func() {
		for _, c := range cables {
			c.cut()
		}
		await(func(s site) bool { return s.Away() != nil })
	}
	back := func(b *testing.B) {
		server.Do(b, "SLOWLOG", "RESET")
		busy := busyFor(b, server)
		began := time.Now()
		for _, c := range cables {
			c.mend(b)
		}
		await(func(s site) bool { return s.Away() == nil })
		b.ReportMetric(time.Since(began).Seconds(), "s-until-reached")
		await(func(s site) bool { return s.Away() == nil && s.Known() == streams/nodes })
		b.ReportMetric(time.Since(began).Seconds(), "s-until-all-known")
		b.ReportMetric(longest(b, server), "ms-longest-script")
		b.ReportMetric(busyFor(b, server)-busy, "s-CPU-of-Redis")
	}
	cut()
	for i, s := range sites {
		for j := range streams / nodes {
			h := registrytest.Device("192.0.2.1", fmt.Sprint("client", j))
			h.Key = registrytest.ID(fmt.Sprint("key", i, "/", j))
			s.hold(b, h, one)
		}
	}
	b.Run("all is lost", func(b *testing.B) {
		for range b.N {
			cut()
			server.Do(b, "FLUSHALL")
			back(b)
		}
	})
	b.Run("nothing has changed", func(b *testing.B) {
		for range b.N {
			cut()
			back(b)
		}
	})
}

// longest is how many milliseconds the longest command took of those that Redis has logged.
func longest(b *testing.B, server *harness.Redis) (ms float64) {
	answer := server.Do(b, "SLOWLOG", "GET", "-1")
	entries, err := answer.ToArray()
	if err != nil {
		b.Fatal(err)
	}
	for i := range entries {
		fields, err := entries[i].ToArray()
		if err != nil {
			b.Fatal(err)
		}
		us, err := fields[2].AsInt64()
		if err != nil {
			b.Fatal(err)
		}
		ms = max(ms, float64(us)/1000)
	}
	return ms
}

// busyFor is for how many seconds Redis has had a processor.
func busyFor(b *testing.B, server *harness.Redis) (seconds float64) {
	answer := server.Do(b, "INFO", "cpu")
	info, err := answer.ToString()
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(info) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), ":"); name == "used_cpu_user" || name == "used_cpu_sys" {
			s, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			seconds += s
		}
	}
	return seconds
}
