package conflict

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func TestReturns_TellHowEarlySomebodyIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReturns(2)
		defer r.Close()
		ann := &registry.Holder{Key: registry.ID{1}, Token: registry.ID{1}}
		bob := &registry.Holder{Key: registry.ID{1}, Token: registry.ID{2}}
		eve := &registry.Holder{Key: registry.ID{2}, Token: registry.ID{1}}
		require.Zero(t, r.Early(ann))
		r.Left(ann, 5*time.Second)
		require.Equal(t, 5*time.Second, r.Early(&registry.Holder{Key: ann.Key, Token: ann.Token, Client: registry.ID{9}}))
		require.Zero(t, r.Early(bob))
		require.Zero(t, r.Early(eve))
		<-time.After(4 * time.Second)
		r.Left(ann, 500*time.Millisecond)
		require.Equal(t, time.Second, r.Early(ann), "what it was told last does not count less")
		<-time.After(2 * time.Second)
		require.Zero(t, r.Early(ann))

		r.Left(bob, time.Second)
		require.Equal(t, 1, r.known.Len(), "ann's time is over")
		<-time.After(2 * time.Second)
		require.Zero(t, r.known.Len(), "also if nothing else happens")
		r.Left(bob, time.Second)
		r.Left(ann, time.Minute)
		r.Left(eve, time.Minute)
		require.Equal(t, 2, r.known.Len(), "there is room for two")
		require.Zero(t, r.Early(bob))
	})
}
