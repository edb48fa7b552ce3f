package harness

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// PresenceLines have a guard tell the streams of a room, which the query names, how many
// they are.
const PresenceLines = "label room {query.room}\npresence room PRESENCE 200ms"

var presence = regexp.MustCompile(`(?m)^event: PRESENCE\r?\ndata: .*"count":(\d+)}$`)

// Counts are the numbers that a stream was told so far of how many there are.
func (s *Stream) Counts() (told []int) {
	for _, m := range presence.FindAllSubmatch(s.Bytes(), -1) {
		n, _ := strconv.Atoi(string(m[1]))
		told = append(told, n)
	}
	return told
}

// RequireCount waits until n is the last number that the stream was told.
func RequireCount(t testing.TB, s *Stream, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		told := s.Counts()
		return len(told) > 0 && told[len(told)-1] == n
	}, Patience, 10*time.Millisecond, "not %d", n)
}

// WaitTold waits for as long as it takes to tell a room of a change, several times over.
func WaitTold(t testing.TB) {
	t.Helper()
	until := time.Now().Add(1500 * time.Millisecond)
	require.Eventually(t, func() bool { return time.Now().After(until) }, Patience, 50*time.Millisecond)
}
