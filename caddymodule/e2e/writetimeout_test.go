package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// A server with a write timeout cuts streams off, which looks as if their clients had
// left: somebody has to be told.
func TestWriteTimeout_LeavesALine(t *testing.T) {
	for _, protocol := range []harness.Protocol{harness.HTTP1, harness.H2C} {
		t.Run(string(protocol), func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddy(t, "respond 404")
			require.NoError(t, server.Load(t, "sse_guard\nreverse_proxy "+app.URL, "timeouts {\nwrite 1s\n}"))
			s := harness.NewClient(t, protocol).Open(t, server.URL+"/raw?interval=0.1", harness.WithBearer("alice"))
			require.True(t, s.Wait(t).Cut())
			lines := server.WaitLogs(t, 1)
			require.Equal(t, "warn", lines[0].Level)
			require.True(t, strings.Contains(lines[0].Msg, "write timeout"), lines[0].Raw)
			require.GreaterOrEqual(t, lines[0].Age, 0.9)
		})
	}
}
