package harness

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// AppData is the data of the application's events. Stream is the number that the
// stream has in AppStats.
type AppData struct {
	N           int     `json:"n"`
	User        string  `json:"user"`
	Stream      int     `json:"stream"`
	LastEventID *string `json:"lastEventId"`
	Data        string  `json:"data"`
}

// DataOf decodes the data of an event of the application's.
func DataOf(t testing.TB, e Event) AppData {
	t.Helper()
	var d AppData
	require.NoError(t, json.Unmarshal([]byte(e.Data), &d), "data %q", e.Data)
	return d
}
