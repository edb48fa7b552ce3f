package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-guard/sse-guard/caddymodule/guard"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
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
func (Memory) Open(string) (registry.Registry, error) { return memory.New(), nil }

// zones keeps zones while guards use them, so that a stream that was opened under
// an old configuration still counts under a new one.
var zones = caddy.NewUsagePool()

// zoneKey is what guards share holders by.
type zoneKey struct{ name, registry string }

// zone is a zone in the pool.
type zone struct{ *guard.Zone }

// Destruct implements caddy.Destructor. No guard of the zone is left, but maybe
// streams are, of a configuration that was replaced: the zone closes once it is
// drained.
func (z zone) Destruct() error { return z.DrainAndClose(lastingLogger()) }

var memoryConfig = json.RawMessage(`{"module":"memory"}`)

func (h *Handler) openZone(ctx caddy.Context) (*guard.Zone, error) {
	if len(h.RegistryRaw) == 0 {
		h.RegistryRaw = memoryConfig
	}
	key := zoneKey{h.Zone, canonical(h.RegistryRaw)}
	mod, err := ctx.LoadModule(h, "RegistryRaw")
	if err != nil {
		return nil, fmt.Errorf("registry: loading the module: %w", err)
	}
	opener, ok := mod.(registry.Opener)
	if !ok {
		return nil, fmt.Errorf("registry: module %T is no registry", mod)
	}
	value, _, err := zones.LoadOrNew(key, func() (caddy.Destructor, error) {
		reg, err := opener.Open(h.Zone)
		if err != nil {
			return nil, err
		}
		return zone{guard.NewZone(h.Zone, reg)}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("registry: opening zone %q: %w", h.Zone, err)
	}
	h.zone = key
	return value.(zone).Zone, nil
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

func (h *Handler) closeZone() error {
	if h.zone == (zoneKey{}) {
		return nil // Provision failed before it was opened
	}
	_, err := zones.Delete(h.zone)
	return err
}

// Interface guards
var (
	_ registry.Opener  = Memory{}
	_ caddy.Destructor = zone{}
)
