package e2e

import (
	"fmt"
	"net/http"
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
			url := fmt.Sprintf("http://localhost:%d", harness.FreePort(t))
			log, err := harness.LoadSites(t, "servers {\nprotocols h1 h2 h2c\ntimeouts {\nwrite 1s\n}\n}",
				url+" {\nsse_guard\nreverse_proxy "+app.URL+"\n}")
			require.NoError(t, err)
			s := harness.NewClient(t, protocol).Open(t, url+"/raw?interval=0.1", harness.WithBearer("alice"))
			require.Equal(t, http.StatusOK, s.Status)
			require.True(t, s.Wait(t).Cut())
			lines := log.WaitLogs(t, 1)
			require.Equal(t, "warn", lines[0].Level)
			require.Contains(t, lines[0].Msg, "write timeout")
			require.GreaterOrEqual(t, lines[0].Age, 0.9)
		})
	}
}
