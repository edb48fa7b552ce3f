package registrytest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// denialsFrom makes denials at one moment.
type denialsFrom struct{ now time.Time }

func (d denialsFrom) ofToken(name string, until time.Duration) registry.Denial {
	return registry.Denial{Token: ID(name), Until: d.now.Add(until)}
}

func (d denialsFrom) ofClient(token, client string, until time.Duration) registry.Denial {
	return registry.Denial{Token: ID(token), Client: ID(client), Until: d.now.Add(until)}
}

func (d denialsFrom) ofSubject(name string, issuedBefore, until time.Duration) registry.Denial {
	return registry.Denial{Subject: ID(name), IssuedBefore: d.now.Add(issuedBefore), Until: d.now.Add(until)}
}

// deniable returns a stream that has everything that can be denied. Its token was
// issued an hour ago.
func (d denialsFrom) deniable(name string) *registry.Holder {
	h := Device(name, "client")
	h.Subject, h.IssuedAt = ID("subject"), d.now.Add(-time.Hour)
	return h
}

// denialCase is a denial, and whether it names a stream.
type denialCase struct {
	name   string
	denial registry.Denial
	stream func(*registry.Holder) // changes a deniable one
	denied bool
}

func (d denialsFrom) cases() []denialCase {
	const hour = time.Hour
	zero := registry.ID{}
	ofToken, ofClient, ofSubject := d.ofToken, d.ofClient, d.ofSubject
	return []denialCase{
		{name: "Token", denial: ofToken("token", hour), denied: true},
		{name: "Token_WithWhateverClient", denial: ofToken("token", hour),
			stream: func(h *registry.Holder) { h.Client = ID("another") }, denied: true},
		{name: "Token_WithoutClient", denial: ofToken("token", hour),
			stream: func(h *registry.Holder) { h.Client = zero }, denied: true},
		{name: "Token_Another", denial: ofToken("another", hour)},
		{name: "Token_NotAsASubject", denial: ofToken("subject", hour)},
		{name: "Token_StreamWithoutOne", denial: ofToken("token", hour),
			stream: func(h *registry.Holder) { h.Token = zero }},
		{name: "Token_UntilNow", denial: ofToken("token", 0)},

		{name: "Client", denial: ofClient("token", "client", hour), denied: true},
		{name: "Client_Another", denial: ofClient("token", "another", hour)},
		{name: "Client_OfAnotherToken", denial: ofClient("another", "client", hour)},
		{name: "Client_StreamWithoutOne", denial: ofClient("token", "client", hour),
			stream: func(h *registry.Holder) { h.Client = zero }},
		{name: "Client_WithoutToken", denial: ofClient("", "client", hour)},
		{name: "Client_StreamAndDenialWithoutToken", denial: ofClient("", "client", hour),
			stream: func(h *registry.Holder) { h.Token = zero }},

		{name: "Subject_OlderToken", denial: ofSubject("subject", -hour+time.Second, hour), denied: true},
		{name: "Subject_TokenIssuedThen", denial: ofSubject("subject", -hour, hour)},
		{name: "Subject_NewerToken", denial: ofSubject("subject", -2*hour, hour)},
		{name: "Subject_TokenThatDoesNotTellWhen", denial: ofSubject("subject", 0, hour),
			stream: func(h *registry.Holder) { h.IssuedAt = time.Time{} }},
		{name: "Subject_WhateverTokenUntilThen", denial: ofSubject("subject", hour, hour), denied: true},
		{name: "Subject_TokenThatDoesNotTellWhenUntilThen", denial: ofSubject("subject", hour, hour),
			stream: func(h *registry.Holder) { h.IssuedAt = time.Time{} }, denied: true},
		{name: "Subject_WithWhateverToken", denial: ofSubject("subject", 0, hour),
			stream: func(h *registry.Holder) { h.Token, h.Client = zero, zero }, denied: true},
		{name: "Subject_Another", denial: ofSubject("another", 0, hour)},
		{name: "Subject_NotAsAToken", denial: ofSubject("token", 0, hour)},
		{name: "Subject_StreamWithoutOne", denial: ofSubject("subject", 0, hour),
			stream: func(h *registry.Holder) { h.Subject = zero }},
		{name: "Subject_UntilNow", denial: ofSubject("subject", 0, 0)},
		{name: "Subject_BeforeNothing", denial: registry.Denial{Subject: ID("subject"), Until: d.now.Add(hour)}},

		{name: "Nothing", denial: registry.Denial{Until: d.now.Add(hour), IssuedBefore: d.now}},
		{name: "Nothing_StreamOfNobody", denial: registry.Denial{Until: d.now.Add(hour), IssuedBefore: d.now},
			stream: func(h *registry.Holder) { h.Token, h.Client, h.Subject = zero, zero, zero }},
	}
}

func testDenials(t *testing.T, open Open) {
	d := denialsFrom{time.Now().Truncate(time.Second)}
	for _, test := range d.cases() {
		t.Run("NamesItsStreamsOnly/"+test.name, func(t *testing.T) { test.run(t, open, d) })
	}
	runSpecs(t, open, []spec{
		{"OfATokenAndASubjectIsBoth", func(t *testing.T, s site) {
			both := d.ofSubject("subject", 0, time.Hour)
			both.Token = ID("token")
			s.deny(t, both)
			byToken, bySubject := d.deniable("a"), d.deniable("b")
			byToken.Subject, bySubject.Token = ID("another"), ID("another")
			require.True(t, s.Denied(byToken))
			require.True(t, s.Denied(bySubject))
		}},
		{"DeniedGoesBeforeRejected", func(t *testing.T, s site) {
			s.hold(t, withToken(Anon("holder"), "another token"), Track)
			s.deny(t, d.ofToken("token", time.Hour))
			for _, phase := range []registry.Phase{registry.Early, registry.Header, registry.Reserve} {
				require.Equal(t, registry.Denied, s.ask(t, phase, Anon("n"), Reject(1, registry.Streams)).Outcome)
			}
		}},
		{"OneOfSeveralIsDenied", func(t *testing.T, s site) {
			s.holdAll(t, withToken(withKey(Anon("a"), "store"), "another"), withToken(withKey(Anon("b"), "user"), "another"))
			one := Supersede(1, registry.Streams)
			r := newResponse("n").of("store", one).of("user", one).of("site", one)
			r.asks[1].Holder.Token, r.asks[0].Holder.Token = ID("denied"), ID("fine")
			s.deny(t, d.ofToken("denied", time.Hour))
			for _, phase := range []registry.Phase{registry.Early, registry.Header, registry.Reserve} {
				out, _ := outcomes(s.askAll(t, phase, r))
				require.Equal(t, []registry.Outcome{undecided, denied, undecided}, out)
			}
			require.Equal(t, []string{"a", "b"}, sorted(s.find(t, registry.Selector{All: true})))
			require.Empty(t, s.node.Ended())
		}},
		{"CommitGivesThePlaceBack", func(t *testing.T, s site) { testDeniedCommit(t, s, d) }},
		{"EndNobody", func(t *testing.T, s site) {
			s.hold(t, d.deniable("s"), Track)
			s.deny(t, d.ofToken("token", time.Hour), d.ofSubject("subject", 0, time.Hour))
			require.Empty(t, s.node.Ended())
			require.Equal(t, []string{"s"}, s.holders(t, "key"))
		}},
		{"DenyThenEndLeavesNobody", func(t *testing.T, s site) {
			s.hold(t, d.deniable("s"), Track)
			p := s.reserve(t, d.deniable("r"), Track)
			s.deny(t, d.ofToken("token", time.Hour))
			s.end(t, registry.Selector{Token: ID("token")}, registry.Ending{Reason: reason.Logout})
			_, err := p.Commit(context.Background())
			require.ErrorIs(t, err, registry.ErrDenied)
			require.Empty(t, s.holders(t, "key"))
		}},
		{"AreOfTheirRegistryOnly", func(t *testing.T, s site) {
			other := open.site(t)
			s.deny(t, d.ofToken("token", time.Hour))
			require.False(t, other.Denied(d.deniable("s")))
		}},
	})
}

func (c denialCase) run(t *testing.T, open Open, d denialsFrom) {
	for _, phase := range []registry.Phase{registry.Early, registry.Header, registry.Reserve} {
		s := open.site(t)
		h := d.deniable("s")
		if c.stream != nil {
			c.stream(h)
		}
		p := s.reserve(t, h, Track)
		// Others are denied too, so that the question is never cut short.
		s.deny(t, d.ofToken("x", time.Hour), d.ofClient("x", "y", time.Hour), d.ofSubject("x", 0, time.Hour))
		s.deny(t, c.denial)
		require.Equal(t, c.denied, s.Denied(h))
		again := *h
		again.ID = registry.NewStreamID()
		require.Equal(t, c.denied, s.ask(t, phase, &again, Track).Outcome == registry.Denied)
		_, err := p.Commit(context.Background())
		if c.denied {
			require.ErrorIs(t, err, registry.ErrDenied)
		} else {
			require.NoError(t, err)
		}
	}
}

func testDeniedCommit(t *testing.T, s site, d denialsFrom) {
	rule := Supersede(1, registry.Streams)
	h := d.deniable("s")
	holder := s.hold(t, withToken(Anon("holder"), "another token"), rule)
	a := s.ask(t, registry.Reserve, h, rule)
	require.Equal(t, []string{"holder superseded"}, told(a.Ends))
	s.deny(t, d.ofToken("token", time.Hour))

	victims, err := a.Place.Commit(context.Background())
	require.ErrorIs(t, err, registry.ErrDenied)
	require.Empty(t, victims)
	require.Equal(t, []string{"holder"}, s.holders(t, "key"))
	require.Empty(t, s.node.Ended(), "who is denied ends nobody, and who never held is not ended")
	for _, sel := range []registry.Selector{{ID: h.ID}, {Token: h.Token}, {Client: h.Client}, {Subject: h.Subject}} {
		require.Empty(t, s.find(t, sel))
	}
	_, err = a.Place.Commit(context.Background())
	require.Error(t, err)
	leaveAndDepart(a.Place)
	require.Equal(t, []string{"holder"}, s.holders(t, "key"))
	leaveAndDepart(holder)
	s.requireEmpty(t)
}
