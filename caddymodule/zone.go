package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

func init() {
	caddy.RegisterModule(Memory{})
}

// Memory keeps the holders in this process. It is the default registry.
type Memory struct{}

// CaddyModule returns the Caddy module information.
func (Memory) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "sse_guard.registries.memory",
		New: func() caddy.Module { return new(Memory) },
	}
}

// Open implements registry.Opener.
func (Memory) Open(_ string, node registry.Node) (registry.Registry, error) {
	return memory.New(node), nil
}

// zones keeps zones while guards use them, so that a stream that was opened under
// an old configuration still counts under a new one.
var zones = caddy.NewUsagePool()

// zoneKey is what guards share holders by.
type zoneKey struct{ name, registry string }

// pooledZone is a zone in the pool.
type pooledZone struct{ *zone.Zone }

// leavingZones are those that no guard uses any more, until they are closed.
var leavingZones sync.Map // by *zone.Zone, of *leavingZone

// leavingZone is a zone that no guard uses any more.
type leavingZone struct {
	*zone.Zone
	drained chan struct{} // closed
	close   func()        // closes the zone; once
}

// Destruct implements caddy.Destructor. No guard of the zone is left, but maybe
// streams are, of a configuration that was replaced: the zone closes once it is
// drained. Where Caddy exits, endAll closes it, for others may have to ask it yet.
func (z pooledZone) Destruct() error {
	logger := lastingLogger()
	if z.Streams.Len() == 0 && !caddy.Exiting() {
		z.DrainLast(logger) // nobody is admitted any more
		return z.Close()
	}
	leaving := &leavingZone{z.Zone, make(chan struct{}), sync.OnceFunc(func() {
		if err := z.Close(); err != nil {
			logger.Error("closing a zone", zap.String("zone", z.Name), zap.Error(err))
		}
		leavingZones.Delete(z.Zone)
	})}
	leavingZones.Store(z.Zone, leaving)
	if !z.IsDraining() { // as it is where Caddy exits
		go leaving.hurry()
	}
	go func() {
		z.DrainLast(logger)
		close(leaving.drained)
		if !caddy.Exiting() {
			leaving.close()
		}
	}()
	return nil
}

// hurry waits until a zone is drained that a reload has left without guards. Should the
// process be about to exit meanwhile, the drain is hurried: its window is not that of the
// exit, which waits for it, and who stops Caddy may not wait long.
func (l *leavingZone) hurry() {
	look := time.NewTicker(exitLook)
	defer look.Stop()
	for !caddy.Exiting() {
		select {
		case <-look.C:
		case <-l.drained:
			return
		}
	}
	l.HurryDrain()
}

// exitLook is how often it is looked whether the process is about to exit.
const exitLook = 50 * time.Millisecond

// openedZone is a handler's hold on its zone.
type openedZone struct {
	*zone.Zone // nil if it was not opened
	key        zoneKey
	// renewer has the zone's registry, which an older configuration may have opened, do as
	// this one says; nil: they say the same.
	renewer registry.Renewer
}

var memoryConfig = json.RawMessage(`{"module":"memory"}`)

func (h *Handler) openZone(ctx caddy.Context) error {
	if len(h.RegistryRaw) == 0 {
		h.RegistryRaw = memoryConfig
	}
	key := zoneKey{h.Zone, canonical(h.RegistryRaw)}
	mod, err := ctx.LoadModule(h, "RegistryRaw")
	if err != nil {
		return fmt.Errorf("registry: loading the module: %w", err)
	}
	opener, ok := mod.(registry.Opener)
	if !ok {
		return fmt.Errorf("registry: module %T is no registry", mod)
	}
	metrics, _, err := zonesMetrics.LoadOrNew(h.Zone, func() (caddy.Destructor, error) { return newZoneMetrics(h.Zone), nil })
	if err != nil {
		return err
	}
	value, _, err := zones.LoadOrNew(key, func() (caddy.Destructor, error) {
		z, err := zone.New(h.Zone, func(node registry.Node) (registry.Registry, error) {
			return opener.Open(h.Zone, node)
		}, metrics.(event.Metrics))
		return pooledZone{z}, err
	})
	if err != nil {
		_, metricsErr := zonesMetrics.Delete(h.Zone)
		return errors.Join(fmt.Errorf("registry: opening zone %q: %w", h.Zone, err), metricsErr)
	}
	renewer, _ := opener.(registry.Renewer)
	h.zone = openedZone{value.(pooledZone).Zone, key, renewer}
	return nil
}

// canonical spells a module's configuration without white space and with its
// fields in order, so that a reload with other spelling keeps the holders.
func canonical(raw json.RawMessage) string {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // as float64, large numbers would become equal
	var value any
	if err := d.Decode(&value); err != nil {
		return string(raw) // loading the module says what is wrong with it
	}
	spelled, err := json.Marshal(value)
	if err != nil {
		return string(raw)
	}
	return string(spelled)
}

// closeZone gives the zone back. Should no other guard use it, it drains as this
// one says.
func (h *Handler) closeZone() error {
	if h.zone.Zone == nil {
		return nil // Provision failed before it was opened
	}
	if h.guard != nil {
		h.zone.DrainedBy(h.guard.Drain)
	}
	_, err := zones.Delete(h.zone.key)
	_, metricsErr := zonesMetrics.Delete(h.Zone)
	return errors.Join(err, metricsErr)
}

// Interface guards
var (
	_ registry.Opener  = Memory{}
	_ caddy.Destructor = pooledZone{}
)
