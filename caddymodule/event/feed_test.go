package event_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func admitted(addr string) event.Event {
	return event.Admitted{Stream: event.Who{Holder: &registry.Holder{Addr: addr}, Sub: "ann"}}
}

func TestFeed_TellsAllWhoListen(t *testing.T) {
	f, other := event.NewFeed("zone", "node"), event.NewFeed("other", "node")
	one, both := event.NewListener(9), event.NewListener(9)
	f.Observe(admitted("before"))
	f.Join(one)
	f.Join(both)
	other.Join(both)
	f.Observe(admitted("a"))
	other.Observe(event.Ended{Stream: event.Who{Holder: &registry.Holder{Addr: "b"}}, Reason: reason.Revoked})
	f.Observe(event.Lost{}) // is not shown
	f.Leave(one)
	f.Leave(one)
	f.Observe(admitted("after"))

	require.Len(t, one.Entries(), 1)
	e := <-one.Entries()
	require.Equal(t, "zone", e.Zone)
	require.Equal(t, event.WhatAdmitted, e.What)
	require.Equal(t, "a", e.Stream.Addr)
	require.Equal(t, "ann", e.Sub)
	require.NotZero(t, e.Time)
	require.Len(t, both.Entries(), 3)
	<-both.Entries()
	e = <-both.Entries()
	require.Equal(t, "other", e.Zone)
	require.Equal(t, reason.Revoked, e.Reason)
}

func TestFeed_DropsWhoIsSlow(t *testing.T) {
	f := event.NewFeed("zone", "node")
	slow, quick := event.NewListener(2), event.NewListener(9)
	f.Join(slow)
	f.Join(quick)
	for range 2 {
		f.Observe(admitted("a"))
	}
	select {
	case <-slow.Slow():
		t.Fatal("there was room for both")
	default:
	}
	f.Observe(admitted("a"))
	<-slow.Slow()
	<-slow.Entries()
	f.Observe(admitted("a"))
	require.Len(t, slow.Entries(), 1, "it was dropped")
	require.Len(t, quick.Entries(), 4)
}

func TestFeed_CostsNothingWhileNobodyListens(t *testing.T) {
	f, e := event.NewFeed("zone", "node"), admitted("a")
	l := event.NewListener(1)
	f.Join(l)
	f.Leave(l)
	require.Zero(t, testing.AllocsPerRun(100, func() { f.Observe(e) }))
}

// others are the other nodes of a zone.
type others struct {
	heard     bool
	listening int
	told      []string
	hear      func(at time.Time, b []byte, missed int)
}

func (o *others) Hear(hear func(at time.Time, b []byte, missed int)) { o.hear = hear }
func (o *others) Listen(more int)                                    { o.listening += more }
func (o *others) Heard() bool                                        { return o.heard }
func (o *others) Tell(_ time.Time, b []byte)                         { o.told = append(o.told, string(b)) }

func TestFeed_IsSharedWithOtherNodesThatListen(t *testing.T) {
	f, o := event.NewFeed("zone", "here"), new(others)
	f.Share(o)
	f.Observe(admitted("nobody listens"))
	require.Empty(t, o.told)
	o.heard = true
	f.Observe(admitted("a"))
	require.Len(t, o.told, 1)

	there, at := event.NewFeed("zone", "there"), time.Now().Add(-time.Hour)
	all := new(others)
	there.Share(all)
	l, slow := event.NewListener(9), event.NewListener(1)
	there.Join(l)
	there.Join(l)
	there.Join(slow)
	require.Equal(t, 2, all.listening)
	all.hear(at, []byte(o.told[0]), 0)
	all.hear(at, []byte(`{"What":`), 2)
	require.Equal(t, 1, all.listening, "one was too slow")
	there.Leave(l)
	there.Leave(slow)
	require.Zero(t, all.listening)
	all.hear(at, []byte(o.told[0]), 0)
	require.Empty(t, all.told, "what was heard is not told again")

	require.Len(t, l.Entries(), 2)
	e := <-l.Entries()
	require.Equal(t, "a", e.Stream.Addr)
	require.Equal(t, "ann", e.Sub)
	require.Equal(t, "here", e.Node)
	require.Equal(t, at, e.Time)
	e = <-l.Entries()
	require.Equal(t, event.WhatMissed, e.What)
	require.Equal(t, 3, e.Missed, "with the one that cannot be read")
}
