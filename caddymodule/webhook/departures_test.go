package webhook

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// direct hands requests to a receiver without a network, so that time can be a test's.
type direct struct{ *receiver }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result(), nil
}

// room is a guard, who holds its keys, and a receiver; time passes where a test lets it.
type room struct {
	*receiver
	keys     *keys
	sender   *Sender
	observer *Observer
}

func newRoom(t *testing.T, source func(*Source)) *room {
	rm := &room{receiver: &receiver{t: t}, keys: new(keys)}
	rm.sender = newSender(&url.URL{Scheme: "http", Host: "app", Path: "/hook"}, []byte(testSecret), zap.NewNop(), usual)
	rm.sender.client = &http.Client{Transport: direct{rm.receiver}}
	s := everything(rm.keys)
	if source != nil {
		source(&s)
	}
	rm.observer = rm.sender.Observe(s)
	return rm
}

func inRoom(t *testing.T, test func(*testing.T, *room)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rm := newRoom(t, nil)
		test(t, rm)
		rm.sender.Close()
	})
}

func (rm *room) come(h *registry.Holder) *registry.Holder {
	rm.keys.hold(h)
	rm.observer.Observe(admitted(h))
	return h
}

func (rm *room) leave(h *registry.Holder, why reason.Reason) {
	rm.keys.leave(h)
	rm.observer.Observe(closed(h, why))
}

// waiting counts the keys, and the clients, of those that may come back.
func (rm *room) waiting() (places, clients int) {
	ds := &rm.sender.departures
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return len(ds.waiting), len(ds.clients)
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// ends lists, behind a second for posting, the reasons of what ended, or "returned".
func (rm *room) ends() (ends []string) {
	pass(time.Second)
	for _, r := range rm.told() {
		switch r.Event {
		case Ended:
			ends = append(ends, string(r.Reason))
		case Returned:
			ends = append(ends, "returned")
		}
	}
	return ends
}

func TestLeft_IsToldAfterReserve(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		ann := rm.come(holder('k', 'a'))
		left := time.Now()
		rm.leave(ann, event.Left)
		pass(1900 * time.Millisecond)
		require.Empty(t, rm.ends(), "2.9 s are over")
		require.Equal(t, []string{"left"}, rm.ends())
		told := rm.told()
		require.Equal(t, stamp(left), told[len(told)-1].Time, "when it left")
		require.Equal(t, 0, *told[len(told)-1].Holders)
	})
}

func TestLeft_IsNotToldOfAPageThatReloads(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		ann := rm.come(holder('k', 'a'))
		rm.leave(ann, event.Left)
		pass(2 * time.Second)
		again := rm.come(holder('k', 'a'))
		pass(time.Minute)
		require.Equal(t, []string{"returned"}, rm.ends())
		told := rm.told()
		i := slices.IndexFunc(told, func(r Record) bool { return r.Event == Returned })
		require.Equal(t, ann.ID.String(), told[i].Stream)
		require.Equal(t, again.ID.String(), told[i].As)
		rm.leave(again, event.Left)
		pass(3 * time.Second)
		require.Equal(t, []string{"returned", "left"}, rm.ends(), "once")
	})
}

func TestLeft_WhoReloadsAndThenLeavesIsToldOnce(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		rm.leave(rm.come(holder('k', 'a')), event.Left)
		pass(time.Second)
		rm.leave(rm.come(holder('k', 'a')), event.Left)
		pass(time.Second)
		rm.leave(rm.come(holder('k', 'a')), event.Left)
		pass(time.Minute)
		require.Equal(t, []string{"returned", "returned", "left"}, rm.ends())
	})
}

// A stream's end may be told after its client's next stream was admitted.
func TestLeft_OfAClientWithTwoStreamsIsToldOnceOfTheLast(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		first, second := rm.come(holder('k', 'a')), rm.come(holder('k', 'a'))
		rm.leave(first, event.Left)
		pass(time.Second)
		rm.leave(second, event.Left)
		pass(time.Minute)
		require.Equal(t, []string{"returned", "left"}, rm.ends())
	})
}

// Its own newest stream may end at once for another reason: that one is told, and the
// key's new holder is not thrown out for the older one.
func TestLeft_IsNotToldOfWhoWasBackAndLostTheKeySince(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		rm.leave(rm.come(holder('k', 'a')), event.Left)
		pass(time.Second)
		back := rm.come(holder('k', 'a'))
		rm.come(holder('k', 'b'))
		rm.leave(back, reason.Superseded)
		pass(time.Minute)
		require.Equal(t, []string{"returned", "superseded"}, rm.ends())
	})
}

func TestLeft_IsToldThoughAnotherClientHasTheKey(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		rm.leave(rm.come(holder('k', 'a')), event.Left)
		rm.come(holder('k', 'b'))
		rm.come(holder('j', 'a'))
		pass(time.Minute)
		require.Equal(t, []string{"left"}, rm.ends())
		told := rm.told()
		require.Equal(t, 1, *told[len(told)-1].Holders, "so that nobody is thrown out who is still there")
	})
}

// A receiver that has whoever leaves last leave the room does so once.
func TestLeft_OfManyTheLastIsTheOneThatLeavesNobody(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		ann, bob, cid := rm.come(holder('k', 'a')), rm.come(holder('k', 'b')), rm.come(holder('k', 'c'))
		rm.leave(ann, event.Left)
		rm.observer.Observe(closed(bob, event.Left)) // policy reject keeps its place
		rm.leave(cid, reason.Dead)
		pass(time.Second)
		rm.keys.leave(bob)
		pass(time.Minute)
		var holders []int
		for _, r := range rm.told() {
			if r.Event == Ended {
				holders = append(holders, *r.Holders)
			}
		}
		require.Equal(t, []int{2, 1, 0}, holders)
	})
}

// The registry knows of streams on other nodes, of which nobody tells this one.
func TestLeft_IsNotToldOfWhoIsBackOnAnotherNode(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		ann := rm.come(holder('k', 'a'))
		rm.leave(ann, event.Left)
		elsewhere := holder('k', 'a')
		rm.keys.hold(elsewhere)
		pass(time.Minute)
		require.Equal(t, []string{"returned"}, rm.ends())
	})
}

func TestLeft_IsNotToldOfOneOfManyHolders(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		for range 3 * manyHolders {
			rm.keys.hold(holder('k', 'b'))
		}
		ann := rm.come(holder('k', 'a'))
		rm.leave(ann, event.Left)
		rm.keys.hold(holder('k', 'a'))
		pass(time.Minute)
		require.Equal(t, []string{"returned"}, rm.ends())
	})
}

func TestLeft_StreamsThatYieldBringNobodyBack(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		rm.leave(rm.come(holder('k', 'a')), event.Left)
		image := holder('k', 'a')
		image.Yields = true
		rm.come(image)
		pass(time.Minute)
		require.Equal(t, []string{"left"}, rm.ends())
	})
}

func TestEnded_IsToldAtOnceForOtherReasons(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		var want []string
		for _, why := range append(reason.All(), event.Finished) {
			rm.leave(rm.come(holder('k', 'a')), why)
			want = append(want, string(why))
			require.Equal(t, want, rm.ends())
		}
	})
}

func TestReserve_OffTellsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rm := newRoom(t, func(s *Source) { s.Reserve = 0 })
		rm.leave(rm.come(holder('k', 'a')), event.Left)
		require.Equal(t, []string{"left"}, rm.ends())
		rm.sender.Close()
	})
}

func TestReturned_IsToldOnlyToWhoWantsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rm := newRoom(t, func(s *Source) { s.Kinds = []Kind{Ended} })
		rm.leave(rm.come(holder('k', 'a')), event.Left)
		rm.come(holder('k', 'a'))
		pass(time.Minute)
		require.Empty(t, rm.told(), "a reload is nothing")
		rm.sender.Close()
	})
}

// A process that ends does not know who would have come back.
func TestFlush_TellsOfWhoHasJustLeft(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		rm.leave(rm.come(holder('k', 'a')), event.Left)
		rm.leave(rm.come(holder('j', 'a')), event.Left)
		rm.keys.hold(holder('j', 'a'))
		pass(time.Second)
		began := time.Now()
		rm.sender.Flush(t.Context())
		require.Less(t, time.Since(began), 3*time.Second)
		require.ElementsMatch(t, []string{"shutdown", "returned"}, rm.ends())
	})
}

func TestRegistry_ThatFailsIsNotAskedForAWhile(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		rm.keys.fail(errors.New("unreachable"))
		for range 100 {
			rm.leave(rm.come(holder('k', 'a')), reason.Dead)
		}
		require.Len(t, rm.ends(), 100)
		require.Nil(t, rm.told()[150].Holders)
		require.Equal(t, 1, rm.keys.asked)
		rm.keys.fail(nil)
		pass(silentFor)
		rm.leave(rm.come(holder('k', 'a')), reason.Dead)
		rm.ends()
		told := rm.told()
		require.NotNil(t, told[len(told)-1].Holders)
	})
}

func TestDepartures_AreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rm := newRoom(t, nil)
		rm.sender.limits.departures = 10
		for i := range 50 {
			rm.leave(holder('k', byte(i)), event.Left)
		}
		require.Equal(t, uint64(40), rm.sender.Dropped())
		pass(time.Minute)
		require.Len(t, rm.ends(), 10)
		require.Empty(t, rm.sender.departures.waiting)
		rm.sender.Close()
	})
}

// Whatever happens, each stream that was admitted has one end, or its client is back,
// and never both.
func TestEnded_EachStreamHasOneEnd(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			rm := newRoom(t, nil)
			var live []*registry.Holder
			streams := 0
			whys := append(reason.All(), event.Left, event.Left, event.Left, event.Left, event.Finished)
			for range rapid.IntRange(1, 60).Draw(rt, "steps") {
				switch rapid.IntRange(0, 2).Draw(rt, "what") {
				case 0:
					streams++
					live = append(live, rm.come(holder(byte(rapid.IntRange('j', 'k').Draw(rt, "key")), byte(rapid.IntRange('a', 'b').Draw(rt, "client")))))
				case 1:
					if len(live) > 0 {
						i := rapid.IntRange(0, len(live)-1).Draw(rt, "which")
						rm.leave(live[i], rapid.SampledFrom(whys).Draw(rt, "why"))
						live = slices.Delete(live, i, i+1)
					}
				default:
					pass(time.Duration(rapid.IntRange(0, 4000).Draw(rt, "ms")) * time.Millisecond)
				}
			}
			for _, h := range live {
				rm.leave(h, event.Left)
			}
			pass(time.Minute)
			ended := make(map[string]int)
			for _, r := range rm.told() {
				if r.Event != Admitted {
					ended[r.Stream]++
				}
			}
			require.Len(rt, ended, streams)
			for _, n := range ended {
				require.Equal(rt, 1, n)
			}
			require.Zero(rt, rm.sender.Dropped())
			rm.sender.Close()
		})
	})
}

// TestLeft_ManyOfOneKeyAtOnce cost each as much as one: what is copied for each of the
// others grows with their square.
func TestLeft_ManyOfOneKeyAtOnce(t *testing.T) {
	const many = 10_000
	inRoom(t, func(t *testing.T, rm *room) {
		of := func(i int) *registry.Holder {
			h := holder('k', 0)
			binary.BigEndian.PutUint32(h.Client[:], uint32(i+1))
			return h
		}
		allocated := func() uint64 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.TotalAlloc
		}
		before := allocated()
		for i := range many {
			rm.observer.Observe(closed(of(i), event.Left))
		}
		places, clients := rm.waiting()
		require.Equal(t, 1, places)
		require.Equal(t, many, clients)
		for i := range many {
			rm.observer.Observe(admitted(of(i)))
		}
		require.Less(t, allocated()-before, uint64(many)*10_000)
		places, clients = rm.waiting()
		require.Zero(t, places)
		require.Zero(t, clients)
		pass(time.Minute)
		returned := 0
		for _, r := range rm.told() {
			if r.Event == Returned {
				returned++
			}
		}
		require.Equal(t, many, returned)
	})
}

// TestLeft_LongIDsAreNotKept while clients have time to come back.
func TestLeft_LongIDsAreNotKept(t *testing.T) {
	inRoom(t, func(t *testing.T, rm *room) {
		for _, n := range []int{longestID, longestID + 1} {
			e, ok := closed(holder('k', 'a'), event.Left).(event.Ended)
			require.True(t, ok)
			e.LastEventID = strings.Repeat("x", n)
			rm.observer.Observe(e)
		}
		var kept []int
		rm.sender.departures.mu.Lock()
		for e := range rm.sender.departures.waiting[place{"shop", id('k')}] {
			kept = append(kept, len(e.Value.record.LastEventID))
		}
		rm.sender.departures.mu.Unlock()
		require.Equal(t, []int{0}, kept, "the first is told of by now: its client was still there")
		pass(time.Minute)
		told := rm.told()
		require.Len(t, told, 2)
		require.Len(t, told[0].LastEventID, longestID)
		require.Empty(t, told[1].LastEventID)
	})
}

func FuzzEncode(f *testing.F) {
	f.Add("ann", "41", "shop", 3)
	f.Add("\xff<>&\u2028", strings.Repeat("é", 600), "", 600)
	f.Fuzz(func(t *testing.T, sub, last, zone string, n int) {
		n = 1 + max(n, 0)%1000
		records := make([]*Record, n)
		for i := range records {
			records[i] = &Record{Event: Ended, Sub: sub, Zone: zone, Life: &Life{LastEventID: last, Events: uint64(i)}}
		}
		seen := uint64(0)
		for len(records) > 0 {
			text, taken, err := encode("id", records)
			require.NoError(t, err)
			require.Positive(t, taken)
			require.True(t, taken == 1 || len(text) <= mostBody+100, "%d bytes", len(text))
			records = records[taken:]
			p := readBody(t, text)
			require.Len(t, p.Batch, taken)
			for _, r := range p.Batch {
				require.Equal(t, strings.ToValidUTF8(sub, "\ufffd"), strings.ToValidUTF8(r.Sub, "\ufffd"))
				require.Equal(t, seen, r.Life.Events)
				seen++
			}
		}
		require.Equal(t, uint64(n), seen)
	})
}

func readBody(t *testing.T, text []byte) received {
	t.Helper()
	rc := &receiver{t: t}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", io.NopCloser(strings.NewReader(string(text))))
	rc.ServeHTTP(httptest.NewRecorder(), r)
	return rc.all()[0]
}
