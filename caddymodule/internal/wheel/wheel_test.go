package wheel_test

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/internal/wheel"
)

const ms = time.Millisecond

func TestVisits_ComeWhenTheyWereAskedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		s.Enter(s.named("a", 500*ms, time.Second, 250*ms), time.Second)
		s.Enter(s.named("b", time.Hour), 15*time.Second)
		s.pass(time.Second - 1)
		require.Empty(t, s.visits())
		s.pass(1)
		require.Equal(t, []string{"a at 1s"}, s.visits())
		s.pass(10 * time.Second)
		require.Equal(t, []string{"a at 1.5s", "a at 2.5s", "a at 2.8s"}, s.visits())
		require.Equal(t, 1, s.Len())
		s.pass(5 * time.Second)
		require.Equal(t, []string{"b at 15s"}, s.visits())
		s.pass(2 * time.Hour)
		require.Equal(t, []string{"b at 1h0m15s"}, s.visits())
		require.Zero(t, s.Len())
	})
}

func TestEnter_VisitsAtTheTimeOrUpToATickLater(t *testing.T) {
	for _, tc := range []struct {
		entered, in, want time.Duration
	}{
		{0, 0, 100 * ms},
		{0, -time.Hour, 100 * ms},
		{0, 1, 100 * ms},
		{0, 100 * ms, 100 * ms},
		{0, 100*ms + 1, 200 * ms},
		{30 * ms, 0, 100 * ms},
		{30 * ms, 70 * ms, 100 * ms},
		{30 * ms, 71 * ms, 200 * ms},
		{99 * ms, 15 * time.Second, 15100 * ms},
		{time.Second, wheel.Revolution, wheel.Revolution + time.Second},
		{time.Second, wheel.Revolution - 100*ms, wheel.Revolution + 900*ms},
		{time.Second, 10*wheel.Revolution + 50*ms, 10*wheel.Revolution + 1100*ms},
	} {
		for _, alone := range []bool{true, false} {
			inBubble(t, func(t *testing.T, s *site) {
				if !alone { // then the clock goes already
					s.Enter(visitor(func(wheel.Tick) time.Duration { return 70 * ms }), 0)
				}
				s.pass(tc.entered)
				s.Enter(s.named("a"), tc.in)
				s.pass(tc.want - tc.entered - 1)
				require.Empty(t, s.visits(), tc)
				s.pass(1)
				require.Equal(t, []string{"a at " + tc.want.String()}, s.visits(), tc)
			})
		}
	}
}

func TestEnter_NeverIsAVeryLongTime(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		s.pass(time.Hour)
		defer s.Enter(s.named("a"), math.MaxInt64).Leave()
		s.Enter(s.named("b", math.MaxInt64), 0)
		s.pass(time.Hour)
		require.Equal(t, []string{"b at 1h0m0.1s"}, s.visits())
		require.Equal(t, 2, s.Len())
	})
}

func TestEnter_SpareTheTimerWhereNobodyIs(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		require.False(t, s.Ticking())
		e := s.Enter(s.named("a"), time.Hour)
		s.pass(time.Minute)
		require.True(t, s.Ticking())
		e.Leave()
		s.pass(wheel.Precision)
		require.False(t, s.Ticking())

		s.pass(time.Hour)
		s.Enter(s.named("b"), time.Second)
		require.True(t, s.Ticking())
		s.pass(time.Minute)
		require.False(t, s.Ticking())
		require.Equal(t, []string{"b at 1h1m1.1s"}, s.visits())
	})
}

func TestNow_GoesOnWhileSomebodyIsThere(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		s.pass(time.Minute)
		require.Zero(t, s.Now())
		e := s.Enter(s.named("a"), 24*time.Hour)
		entered := s.Now()
		require.Equal(t, time.Minute, entered.Since(0))
		s.pass(time.Hour + wheel.Precision - 1)
		require.Equal(t, time.Hour, s.Now().Since(entered))
		s.pass(1)
		require.Equal(t, time.Hour+wheel.Precision, s.Now().Since(entered))
		e.Leave()
		s.pass(time.Hour)
		require.Less(t, s.Now().Since(entered), 2*time.Hour)
		defer s.Enter(s.named("a"), time.Hour).Leave()
		require.Equal(t, 2*time.Hour+wheel.Precision, s.Now().Since(entered))
	})
}

func TestNow_IsWhatVisitorsAreTold(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		var told wheel.Tick
		s.Enter(visitor(func(now wheel.Tick) time.Duration {
			told = now
			require.Equal(t, now, s.Now())
			return 0
		}), 3*time.Second)
		s.pass(time.Minute)
		require.Equal(t, wheel.Tick(30), told)
	})
}

func TestLeave_IsVisitedNoMore(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		a := s.Enter(s.always("a", time.Second), time.Second)
		b := s.Enter(s.always("b", time.Second), time.Second)
		c := s.Enter(s.always("c", time.Second), time.Second)
		never := s.Enter(s.named("never"), wheel.Revolution+time.Second)
		s.pass(time.Second)
		require.Len(t, s.visits(), 3)
		a.Leave()
		a.Leave()
		c.Leave()
		never.Leave()
		require.Equal(t, 1, s.Len())
		s.pass(time.Second)
		require.Equal(t, []string{"b at 2s"}, s.visits())
		b.Leave()
		require.Zero(t, s.Len())
		s.pass(time.Hour)
		require.Empty(t, s.visits())
		(*wheel.Entry)(nil).Leave()
	})
}

func TestLeave_AfterTheLastVisit(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		e := s.Enter(s.named("a"), 0)
		defer s.Enter(s.named("b"), time.Hour).Leave()
		s.pass(time.Second)
		e.Leave()
		require.Equal(t, 1, s.Len())
	})
}

func TestVisitor_MayEnterAndLeave(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		var e atomic.Pointer[wheel.Entry]
		e.Store(s.Enter(visitor(func(wheel.Tick) time.Duration {
			e.Load().Leave()
			s.Enter(s.named("heir"), time.Second)
			return time.Second
		}), 500*ms))
		s.pass(time.Minute)
		require.Equal(t, []string{"heir at 1.5s"}, s.visits())
		require.Zero(t, s.Len())
	})
}

// Others are due with the first that is visited, and leave meanwhile.
func TestLeave_WhileOthersAreVisited(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		var visits atomic.Int32
		s.enterAll(3*wheel.MaxBatch, time.Second, func(all []*wheel.Entry, i int) time.Duration {
			visits.Add(1)
			for other, e := range all {
				if other != i {
					e.Leave()
				}
			}
			return time.Second
		})
		s.pass(time.Second)
		require.Equal(t, int32(1), visits.Load())
		require.Equal(t, 1, s.Len())
		s.pass(time.Second)
		require.Equal(t, int32(2), visits.Load())
	})
}

func TestLeave_DuringTheVisit(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		begun, goOn := make(chan struct{}), make(chan struct{})
		e := s.Enter(visitor(func(wheel.Tick) time.Duration {
			close(begun) // a second time, it would panic
			<-goOn
			return time.Second
		}), time.Second)
		<-begun
		e.Leave()
		require.Zero(t, s.Len())
		close(goOn)
		s.pass(time.Hour)
		require.Zero(t, s.Len())
		require.False(t, s.Ticking())
	})
}

// A timer that comes late, for the machine is busy or a visitor blocks after all,
// has everybody visited who was due meanwhile, once.
func TestLateTimer_SkipsNobody(t *testing.T) {
	for _, late := range []time.Duration{time.Second, wheel.Revolution, 10*wheel.Revolution + 7*time.Second} {
		t.Run(late.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *site) {
				const every = 300 * ms
				visits := make([]atomic.Int32, 5000)
				for i := range visits {
					s.Enter(visitor(func(wheel.Tick) time.Duration {
						visits[i].Add(1)
						return time.Hour
					}), every*time.Duration(i+1))
				}
				blocked := visitor(func(wheel.Tick) time.Duration {
					<-time.After(late)
					return 0
				})
				s.Enter(blocked, 150*ms)
				s.pass(200*ms + late)
				for i := range visits {
					want := int32(0)
					if every*time.Duration(i+1) <= 200*ms+late {
						want = 1
					}
					require.Equal(t, want, visits[i].Load(), "entry %d", i)
				}
				s.pass(time.Hour - late - 300*ms)
				for i := range visits {
					require.Equal(t, int32(1), visits[i].Load(), "entry %d", i)
				}
			})
		})
	}
}

// The clock is told anew before each batch.
func TestLateTimer_VisitorsAreToldTheTime(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		var last wheel.Tick
		for range 2 * wheel.MaxBatch {
			s.Enter(visitor(func(now wheel.Tick) time.Duration {
				last = now
				<-time.After(10 * ms)
				return 0
			}), time.Second)
		}
		s.pass(time.Minute)
		require.Equal(t, wheel.Tick(10+wheel.MaxBatch/10), last)
	})
}

func TestBatches_AreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		const n = 10_000
		for _, in := range []time.Duration{time.Second, wheel.Revolution + time.Second} {
			for range n {
				s.Enter(s.named("a"), in)
			}
		}
		s.pass(950 * ms)
		s.Hold()
		s.Age(50 * ms)
		taken := 0
		for range 2 * (n/wheel.MaxBatch + 1) {
			batch := s.Step(0)
			require.LessOrEqual(t, batch, wheel.MaxBatch)
			taken += batch
		}
		require.Equal(t, n, taken) // the others' revolution is still to come
		require.Equal(t, n, s.Len())
		s.pass(2 * wheel.Revolution)
		require.Len(t, s.visits(), n)
	})
}

func TestClose_EndsTheVisits(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		a := s.Enter(s.always("a", time.Second), time.Second)
		s.pass(time.Second)
		require.Len(t, s.visits(), 1)
		s.Close()
		s.Close()
		require.Nil(t, s.Enter(s.named("b"), 0))
		s.pass(time.Hour)
		require.Empty(t, s.visits())
		require.Equal(t, 1, s.Len())
		a.Leave()
		require.Zero(t, s.Len())
	})
}

func TestClose_WaitsForTheVisitUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		var begun sync.WaitGroup
		var visits atomic.Int32
		begun.Add(1)
		for range 2 * wheel.MaxBatch {
			s.Enter(visitor(func(wheel.Tick) time.Duration {
				if visits.Add(1) == 1 {
					begun.Done()
					<-time.After(time.Second)
				}
				return time.Second
			}), time.Second)
		}
		begun.Wait()
		begin := time.Now()
		s.Close()
		require.Equal(t, time.Second, time.Since(begin))
		after := visits.Load()
		s.pass(time.Hour)
		require.Equal(t, after, visits.Load())
		require.LessOrEqual(t, after, int32(wheel.MaxBatch))
	})
}

func TestWheel_ManyComeAndGoInRealTime(t *testing.T) {
	w := wheel.New()
	defer w.Close()
	var visits atomic.Int64
	v := visitor(func(wheel.Tick) time.Duration {
		visits.Add(1)
		return 1
	})
	stay := w.Enter(v, 0)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for visits.Load() < 2000 {
				e := w.Enter(v, 0)
				w.Enter(v, time.Hour).Leave()
				w.Now()
				wg.Go(e.Leave)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, w.Len())
	stay.Leave()
	require.Zero(t, w.Len())
}

func TestEntry_IsSmall(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(wheel.Entry{}), uintptr(48))
}
