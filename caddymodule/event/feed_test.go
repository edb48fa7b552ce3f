package event_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func admitted(addr string) event.Event {
	return event.Admitted{Stream: event.Who{Holder: &registry.Holder{Addr: addr}, Sub: "ann"}}
}

func TestFeed_TellsAllWhoListen(t *testing.T) {
	f, other := event.NewFeed("zone"), event.NewFeed("other")
	one, both := event.NewListener(9), event.NewListener(9)
	f.Observe(admitted("before"))
	f.Join(one)
	f.Join(both)
	other.Join(both)
	f.Observe(admitted("a"))
	other.Observe(event.Closed{Stream: &registry.Holder{Addr: "b"}, Ending: &registry.Ending{Reason: reason.Revoked}})
	f.Observe(event.Lost{})  // is not shown
	f.Observe(event.Ended{}) // is what Closed tells
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
	f := event.NewFeed("zone")
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
	f, e := event.NewFeed("zone"), admitted("a")
	l := event.NewListener(1)
	f.Join(l)
	f.Leave(l)
	require.Zero(t, testing.AllocsPerRun(100, func() { f.Observe(e) }))
}
