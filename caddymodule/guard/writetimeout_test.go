package guard

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

func TestWriteTimeout_ThatCutsAStreamIsToldOnceAnHour(t *testing.T) {
	atSite(t, func(t *testing.T, s *site) {
		lines := func() int { return s.logs.FilterMessageSnippet("write timeout").Len() }
		limited := func(c *client) { c.deadline = time.Now().Add(10 * time.Second) }
		open := func(user string, stays time.Duration, edits ...func(*client)) {
			c := s.open(append(edits, token(user))...)
			s.pass(stays)
			c.leave()
			s.settle()
		}
		open("ann", time.Minute)
		open("bob", 9*time.Second, limited)
		require.Zero(t, lines(), "these clients have left")
		open("ann", 10*time.Second, limited)
		open("bob", time.Minute, limited)
		require.Equal(t, 2, lines())
		require.Equal(t, 1, s.logs.FilterMessageSnippet("write timeout").FilterLevelExact(zap.WarnLevel).Len())
		http3 := func(c *client) { c.r.ProtoMajor = 3 }
		open("cat", time.Minute, limited, http3)
		require.Equal(t, 2, lines())

		limited3 := s.open(token("dan"), limited)
		s.pass(time.Minute)
		s.open(token("dan"))
		require.True(t, limited3.ends())
		require.Equal(t, 2, lines(), "the guard has ended it")
	})
}
