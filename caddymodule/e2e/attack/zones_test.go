package attack

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// User 1 of one site ends the stream of user 1 of another, since both sites leave the
// zone out: Caddy does not start with them. With the zones that it names, the streams
// do not meet.
func TestAttack_EndTheStreamOfTheSameUserOfAnotherSite(t *testing.T) {
	app := harness.StartFastAPI(t)
	shop, blog := harness.FreePort(t), harness.FreePort(t)
	sites := func(shopZone, blogZone string) string {
		const site = "http://localhost:%d {\nsse_guard {\n%s\nkey {query.user}\n}\nreverse_proxy %s\n}\n"
		return fmt.Sprintf(site+site, shop, shopZone, app.URL, blog, blogZone, app.URL)
	}
	_, err := harness.LoadSites(t, "", sites("", ""))
	require.ErrorContains(t, err, "share the zone")
	require.ErrorContains(t, err, "Caddyfile:")

	_, err = harness.LoadSites(t, "", sites("zone shop", "zone blog"))
	require.NoError(t, err)
	open := func(port int) *harness.Stream {
		return harness.NewClient(t, harness.HTTP1).Open(t, fmt.Sprintf("http://localhost:%d/raw?interval=0.05&user=1", port))
	}
	victim := open(shop)
	victim.Next(t)
	open(blog).Next(t)
	for range 5 { // it goes on
		require.NotEqual(t, harness.Duplicated, victim.Next(t).Type)
	}
}
