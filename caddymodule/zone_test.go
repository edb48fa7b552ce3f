package caddymodule

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
)

func init() { caddy.RegisterModule(recording{}) }

// recording is a registry as a third party would add one. It remembers how
// often each zone was opened and closed.
type recording struct {
	Colour string `json:"colour,omitempty"`
}

func (recording) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "sse_guard.registries.recording",
		New: func() caddy.Module { return new(recording) },
	}
}

func (r *recording) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	for d.NextBlock(0) {
		if d.Val() != "colour" || !d.AllArgs(&r.Colour) {
			return d.Errf("registry recording: write: colour <name>")
		}
	}
	return nil
}

func (*recording) Open(zone string, node registry.Node) (registry.Registry, error) {
	r := recordOf(zone)
	r.opened.Add(1)
	return &closing{memory.New(node), r}, nil
}

type record struct{ opened, closed atomic.Int32 }

var records sync.Map // zone name -> *record

func recordOf(zone string) *record {
	r, _ := records.LoadOrStore(zone, new(record))
	return r.(*record)
}

// freshRecord forgets what earlier tests did with a zone.
func freshRecord(zone string) *record {
	records.Delete(zone)
	return recordOf(zone)
}

type closing struct {
	*memory.Registry
	record *record
}

func (c *closing) Close() error {
	c.record.closed.Add(1)
	return c.Registry.Close()
}

func TestZone_IsSharedByItsName(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	a := c.handler(t, `{"zone": "shared"}`)
	b := c.handler(t, `{"zone": "shared", "limit": 3, "policy": "reject"}`)
	other := c.handler(t, `{"zone": "other"}`)
	nameless := c.handler(t, `{}`)

	require.Same(t, a.guard.Zone.Registry, b.guard.Zone.Registry)
	require.NotSame(t, a.guard.Zone.Registry, other.guard.Zone.Registry)
	require.Same(t, nameless.guard.Zone.Registry, c.handler(t, `{"zone": "default"}`).guard.Zone.Registry)
}

// The same options in another spelling are the same registry, or a reload
// would lose the holders.
func TestZone_IsSharedWhateverTheSpelling(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	implied := c.handler(t, `{"zone": "spelled"}`)
	spelled := c.handler(t, `{"zone": "spelled", "registry": { "module" : "memory" }}`)
	require.Same(t, implied.guard.Zone.Registry, spelled.guard.Zone.Registry)

	a := c.handler(t, `{"zone": "spelled", "registry": {"module": "recording", "colour": "blue"}}`)
	b := c.handler(t, `{"zone": "spelled", "registry": {"colour":"blue","module":"recording"}}`)
	require.Same(t, a.guard.Zone.Registry, b.guard.Zone.Registry)
	require.NotSame(t, a.guard.Zone.Registry, implied.guard.Zone.Registry, "another module keeps other holders")
	red := c.handler(t, `{"zone": "spelled", "registry": {"colour":"red","module":"recording"}}`)
	require.NotSame(t, a.guard.Zone.Registry, red.guard.Zone.Registry)
}

func TestZone_LivesUntilItsLastGuardIsGone(t *testing.T) {
	const config = `{"zone": "living", "registry": {"module": "recording"}}`
	storage := storageIn(t.TempDir())
	record := freshRecord("living")

	old := newConfiguration(t, storage)
	first, second := old.handler(t, config), old.handler(t, config)
	require.NoError(t, second.Cleanup())
	require.Zero(t, record.closed.Load(), "the first guard uses it")

	reloaded := newConfiguration(t, storage)
	third := reloaded.handler(t, config)
	require.NoError(t, first.Cleanup())
	require.Same(t, first.guard.Zone.Registry, third.guard.Zone.Registry, "a reload keeps the holders")
	require.EqualValues(t, 1, record.opened.Load())
	require.Zero(t, record.closed.Load())

	require.NoError(t, third.Cleanup())
	require.EqualValues(t, 1, record.closed.Load())

	fourth := reloaded.handler(t, config)
	require.NotSame(t, third.guard.Zone.Registry, fourth.guard.Zone.Registry)
	require.EqualValues(t, 2, record.opened.Load())

	for _, h := range []*Handler{first, second, third} {
		h.zone = openedZone{} // cleaned up above; unload would do it again
	}
	reloaded.unload()
	old.unload()
	require.EqualValues(t, 2, record.closed.Load())
}

func TestZone_IsFreedWhenCaddyUnloadsTheConfiguration(t *testing.T) {
	record := freshRecord("unloaded")
	c := newConfiguration(t, storageIn(t.TempDir()))
	c.handler(t, `{"zone": "unloaded", "registry": {"module": "recording"}}`)
	c.handler(t, `{"zone": "unloaded", "registry": {"module": "recording"}}`)
	c.unload()
	require.EqualValues(t, 1, record.opened.Load())
	require.EqualValues(t, 1, record.closed.Load())
}

// A guard that fails to provision must not hold the zone, nor take it away
// from the others.
func TestZone_IsNotHeldByAGuardThatFailed(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	record := freshRecord("failing")
	for _, broken := range []string{`"limit": -1`, `"secret": "short"`, `"policy": "first"`} {
		_, err := c.handlerOrErr(`{"zone": "failing", "registry": {"module": "recording"}, ` + broken + `}`)
		require.Error(t, err, broken)
	}
	require.Equal(t, record.opened.Load(), record.closed.Load())

	_, err := c.handlerOrErr(`{"zone": "failing", "registry": {"module": "nowhere"}}`)
	require.ErrorContains(t, err, "registry")
	require.ErrorContains(t, err, "nowhere")
}

// Interface guards
var (
	_ registry.Opener       = (*recording)(nil)
	_ caddyfile.Unmarshaler = (*recording)(nil)
)
