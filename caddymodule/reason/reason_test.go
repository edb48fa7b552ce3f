package reason_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/tombstone"
)

func TestMeaning_OfEveryReason(t *testing.T) {
	all := []reason.Reason{
		reason.Superseded, reason.Replaced, reason.Parked, reason.Rejected, reason.Logout, reason.Expired,
		reason.MaxAge, reason.Shutdown, reason.Stalled, reason.Fenced, reason.Dead,
	}
	require.Equal(t, all, reason.All())
	for _, r := range all {
		m := r.Meaning()
		require.Regexp(t, `^[a-z_]+$`, string(r))
		require.LessOrEqual(t, len(r), tombstone.MaxReason, "%s does not fit into a tombstone", r)
		require.NotEmpty(t, m.Why, r)
		require.NotEmpty(t, m.Back, r)
		require.Equal(t, m.Event(), m.Message != "", "%s: an event has a message", r)
		if m.Tombstone != reason.Nobody {
			require.True(t, m.Event(), "%s: a tombstone is the id of an event", r)
			require.Equal(t, reason.AtOnce, m.Return, "%s: the tombstone is to be shown soon", r)
			require.False(t, m.Cut, "%s: who is to stay away gets a response that is finished", r)
		}
	}
}

func TestMeaning_OfAnUnknownReasonIsNothing(t *testing.T) {
	require.Zero(t, reason.Reason("bored").Meaning())
}

func TestWithEvent_ListsThoseThatClientsAreTold(t *testing.T) {
	require.Equal(t, []reason.Reason{
		reason.Superseded, reason.Replaced, reason.Parked, reason.Rejected, reason.Logout, reason.Expired,
	}, reason.WithEvent())
}
