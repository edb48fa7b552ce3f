package harness

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// Notice is the data of an event that the guard injects.
type Notice struct {
	Code        string `json:"code"`
	Reason      string `json:"reason"`
	Message     string `json:"message"`
	Time        string `json:"time"` // RFC 3339
	LastEventID string `json:"lastEventId"`
	Error       struct {
		Type    string `json:"type"`
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// NoticeOf decodes the data of an event that the guard has injected.
func NoticeOf(t testing.TB, e Event) Notice {
	t.Helper()
	var data Notice
	require.NoError(t, json.Unmarshal([]byte(e.Data), &data), e.Data)
	return data
}

// Types of the events that the guard injects, which are also their codes, unless
// the configuration renames the type.
const (
	Duplicated       = "DUPLICATED_CONNECTION" // superseded, replaced
	DuplicateSession = "DUPLICATE_SESSION"     // rejected
	LoggedOut        = "LOGGED_OUT"            // logout
	TokenExpired     = "TOKEN_EXPIRED"         // expired
	Revoked          = "REVOKED"               // revoked
)
