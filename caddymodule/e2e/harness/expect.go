package harness

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// RequireEnded waits for the end of a stream that the guard ended: its last
// event is the notice, of that type and reason, and its end is clean. It returns
// the notice.
func RequireEnded(t testing.TB, s *Stream, eventType, reason string) Event {
	t.Helper()
	notice := s.NextOfType(t, eventType)
	end := s.Wait(t)
	require.NoError(t, end.Err)
	require.False(t, end.Torn)
	require.Empty(t, s.Rest(t), "events after the notice")
	require.Equal(t, reason, NoticeOf(t, notice).Reason)
	return notice
}

// RequireCut waits for the end of a stream whose client is to come back: it is cut off
// between two events, and its client was told when.
func RequireCut(t testing.TB, s *Stream) (retry time.Duration) {
	t.Helper()
	end := s.Wait(t)
	require.True(t, end.Cut(), "%v; all it sent:\n%s", end.Err, s.Bytes())
	require.NotContains(t, end.Err.Error(), "NO_ERROR", "browsers take it for a clean end")
	require.False(t, end.Torn, "all it sent:\n%s", s.Bytes())
	require.NotNil(t, s.Retry(), "all it sent:\n%s", s.Bytes())
	return *s.Retry()
}

// RequireRejected waits for the end of a stream that was refused for its holder's
// sake, and returns the notice.
func RequireRejected(t testing.TB, s *Stream) Event {
	t.Helper()
	notice := s.NextOfType(t, DuplicateSession)
	RequireCut(t, s)
	require.Empty(t, s.Rest(t), "events after the notice")
	require.Equal(t, "rejected", NoticeOf(t, notice).Reason)
	return notice
}

// RequireAdmitted waits for the first event of a stream, which is the application's.
func RequireAdmitted(t testing.TB, s *Stream) {
	t.Helper()
	require.Equal(t, 200, s.Status, "%s", s.Bytes())
	require.Equal(t, "message", s.Next(t).Type)
}

// RequireLoggedOut waits for the end of a stream that a logout ended, and returns
// the notice.
func RequireLoggedOut(t testing.TB, s *Stream) Event {
	t.Helper()
	notice := RequireEnded(t, s, LoggedOut, "logout")
	data := NoticeOf(t, notice)
	require.Equal(t, LoggedOut, data.Code)
	require.NotEmpty(t, data.Message)
	require.Contains(t, notice.ID, "sse-guard", "it is told to stay away")
	return notice
}

// RequireDenied asks for a stream with a token that was logged out, and asserts that
// it is refused for that.
func RequireDenied(t testing.TB, url string, options ...RequestOption) {
	t.Helper()
	s := NewClient(t, HTTP1).Open(t, url, options...)
	s.Wait(t)
	require.Equal(t, 401, s.Status, "%s", s.Bytes())
	require.Contains(t, s.Header.Get("WWW-Authenticate"), `error="invalid_token"`)
	require.Contains(t, string(s.Bytes()), "logged out")
}

// RequireLive waits for an event of the application's that was not there before.
func RequireLive(t testing.TB, s *Stream) {
	t.Helper()
	for range len(s.Events()) {
		require.Equal(t, "message", s.Next(t).Type)
	}
	require.Equal(t, "message", s.Next(t).Type)
}

// Refusal waits for the end of an answer that refuses a stream with a problem of
// RFC 9457. It returns its challenge, and its header and body as one text.
func Refusal(t testing.TB, s *Stream) (challenge, all string) {
	t.Helper()
	s.Wait(t)
	assert.Equal(t, "application/problem+json", s.Header.Get("Content-Type"))
	assert.Equal(t, "no-store", s.Header.Get("Cache-Control"))
	var problem struct{ Status int }
	require.NoError(t, json.Unmarshal(s.Bytes(), &problem))
	assert.Equal(t, s.Status, problem.Status)
	return s.Header.Get("WWW-Authenticate"), fmt.Sprint(s.Header, string(s.Bytes()))
}

// RequireInvalid asserts that a request was refused for its token, as RFC 6750
// section 3 says, and why.
func RequireInvalid(t testing.TB, s *Stream, why string) (answer string) {
	t.Helper()
	require.Equal(t, http.StatusUnauthorized, s.Status)
	challenge, answer := Refusal(t, s)
	require.Regexp(t, `^Bearer realm="sse_guard", error="invalid_token", error_description="[^"\\]+"$`, challenge)
	require.Contains(t, challenge, why)
	return answer
}

// RequireNoTombstoneSeen asserts that no tombstone has reached the application.
func RequireNoTombstoneSeen(t testing.TB, app *FastAPI) {
	t.Helper()
	for _, request := range app.Requests(t) {
		require.NotContains(t, request.Query, "sse-guard")
		for _, header := range request.Headers {
			require.NotContains(t, header[1], "sse-guard", header[0])
		}
	}
}

// Rest lets so much time pass, in which something is not to happen.
func Rest(t testing.TB, d time.Duration) {
	t.Helper()
	until := time.Now().Add(d)
	require.Eventually(t, func() bool { return time.Now().After(until) }, d+Patience, 50*time.Millisecond)
}
