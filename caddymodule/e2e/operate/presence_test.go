package operate

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestPresence_OfARoom: who comes, goes, takes over and reloads its page, over a reload of
// the configuration.
func TestPresence_OfARoom(t *testing.T) {
	app := harness.StartFastAPI(t)
	site := "sse_guard {\n" + harness.PresenceLines + "\n%s\n}\nreverse_proxy " + app.URL
	server := harness.StartAdminCaddy(t, fmt.Sprintf(site, ""))
	open := func(user, room string) *harness.Stream {
		return harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/raw?room="+room, harness.WithBearer(user))
	}
	ann, other := open("ann", "one"), open("cid", "two")
	e := ann.NextOfType(t, "PRESENCE")
	var said struct {
		Label, Value string
		Count        int
	}
	require.NoError(t, json.Unmarshal([]byte(e.Data), &said))
	assert.Equal(t, "room", said.Label)
	assert.Equal(t, "one", said.Value)
	assert.Equal(t, 1, said.Count)
	bob := open("bob", "one")
	harness.RequireCount(t, ann, 2)
	harness.RequireCount(t, bob, 2)
	newer := open("bob", "one")
	harness.RequireEnded(t, bob, harness.Duplicated, "superseded")
	harness.RequireCount(t, newer, 2)

	server.Reload(t, fmt.Sprintf(site, "retry 7s"))
	dan := open("dan", "one")
	harness.RequireCount(t, ann, 3)
	harness.RequireCount(t, dan, 3)
	dan.Close()
	harness.RequireCount(t, ann, 2)
	newer.Close()
	harness.RequireCount(t, ann, 1)
	harness.WaitTold(t)
	assert.Equal(t, []int{1, 2, 3, 2, 1}, ann.Counts(), "nobody counted twice")
	assert.Equal(t, []int{1}, other.Counts())
	app.WaitOpen(t, 2)
}

// TestPresence_InABrowser: README's page.
func TestPresence_InABrowser(t *testing.T) {
	app := harness.StartFastAPI(t)
	server := harness.StartCaddy(t, "sse_guard {\n"+harness.PresenceLines+"\n}\nreverse_proxy "+app.URL)
	browser := harness.StartBrowser(t)
	page := func(user string) *harness.Tab {
		tab := browser.NewTab(t, server.URL+"/login")
		tab.Eval(t, fmt.Sprintf(`new EventSource("/raw?room=one&token=%s").addEventListener("PRESENCE", (e) => {
			document.body.dataset.state = JSON.parse(e.data).count;
		})`, user))
		return tab
	}
	ann := page("ann")
	ann.WaitState(t, "1")
	bob := page("bob")
	ann.WaitState(t, "2")
	bob.WaitState(t, "2")
	bob.Close()
	ann.WaitState(t, "1")
}
