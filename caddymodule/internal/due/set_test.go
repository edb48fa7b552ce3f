package due_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/internal/due"
)

func TestSet_RemembersUntilTheTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := due.NewSet[string](2)
		defer s.Close()
		now := time.Now()
		require.True(t, s.Until("a").IsZero())
		s.Add("a", now.Add(time.Second))
		s.Add("a", now.Add(3*time.Second))
		s.Add("a", now.Add(2*time.Second))
		s.Add("b", now.Add(2*time.Second))
		require.Equal(t, now.Add(3*time.Second), s.Until("a"))
		s.Add("c", now.Add(time.Minute))
		require.True(t, s.Until("b").IsZero(), "there is room for two")
		pass(3*time.Second - 1)
		require.Equal(t, 2, s.Len())
		pass(1)
		require.Equal(t, 1, s.Len(), "although nothing else happens")
		pass(time.Minute)
		require.Zero(t, s.Len())
	})
}

func TestSet_ForgetsManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := due.NewSet[int](5000)
		defer s.Close()
		for i := range 5000 {
			s.Add(i, time.Now().Add(time.Second))
		}
		pass(time.Second)
		require.Zero(t, s.Len())
	})
}

func TestSet_IsEmptyForGoodOnceItIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := due.NewSet[int](5)
		s.Add(1, time.Now().Add(time.Hour))
		s.Close()
		require.Zero(t, s.Len())
		s.Add(1, time.Now().Add(time.Hour))
		require.Zero(t, s.Len())
		s.Close()
	})
}
