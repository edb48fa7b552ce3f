package nodes

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// TestWebhook_AClientThatIsBackOnAnotherNodeHasNotLeft: each node posts what becomes of
// its own streams, and asks the shared registry who holds their keys by then.
func TestWebhook_AClientThatIsBackOnAnotherNodeHasNotLeft(t *testing.T) {
	for _, policy := range []string{"supersede", "reject"} {
		t.Run(policy, func(t *testing.T) {
			app := harness.StartFastAPI(t)
			receiver := harness.NewHookReceiver(t)
			_, urls := nodes(t, 2, app, harness.StartRedis(t), "policy "+policy+"\nreserve 8s\n"+harness.Webhook(receiver.URL, "events ended returned"))
			openFirst(t, urls[0]).Close()
			app.WaitOpen(t, 0)
			back := open(t, urls[1])
			back.Next(t)
			events := receiver.Wait(t, 1)
			assert.Equal(t, "returned", events[0].Event)
			assert.NotEmpty(t, events[0].As)
			back.Close()
			events = receiver.Wait(t, 2)
			assert.Equal(t, "left", events[1].Reason)
			assert.Equal(t, events[0].As, events[1].Stream)
			require.NotNil(t, events[1].Holders)
			assert.Zero(t, *events[1].Holders)
		})
	}
}
