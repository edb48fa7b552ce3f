package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/stretchr/testify/require"
)

// storageIn is the configuration of a storage that keeps its files in dir.
func storageIn(dir string) json.RawMessage {
	return fmt.Appendf(nil, `{"module": "file_system", "root": %q}`, dir)
}

// configuration is a Caddy configuration that is provisioned and never run.
type configuration struct {
	caddy.Context
	// unload cleans up after it, as Caddy does when another one has taken over.
	unload context.CancelFunc
}

func newConfiguration(t testing.TB, storage json.RawMessage) configuration {
	t.Helper()
	root, err := caddy.ProvisionContext(&caddy.Config{
		Logging:    &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{WriterRaw: []byte(`{"output": "discard"}`)}}}},
		StorageRaw: storage,
	})
	require.NoError(t, err)
	ctx, cancel := caddy.NewContext(root)
	t.Cleanup(cancel)
	return configuration{ctx, cancel}
}

// handler loads a handler, which includes Provision and Validate.
func (c configuration) handler(t testing.TB, config string) *Handler {
	t.Helper()
	h, err := c.handlerOrErr(config)
	require.NoError(t, err)
	return h
}

func (c configuration) handlerOrErr(config string) (*Handler, error) {
	mod, err := c.LoadModuleByID("http.handlers.sse_guard", json.RawMessage(config))
	if err != nil {
		return nil, err
	}
	return mod.(*Handler), nil
}

// validateConfig does what `caddy validate` does with a configuration whose
// HTTP app is given.
func validateConfig(t testing.TB, storageDir, httpApp string) error {
	t.Helper()
	return caddy.Validate(&caddy.Config{
		Admin:      &caddy.AdminConfig{Disabled: true},
		Logging:    &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{WriterRaw: []byte(`{"output": "discard"}`)}}}},
		StorageRaw: storageIn(storageDir),
		AppsRaw:    caddy.ModuleMap{"http": json.RawMessage(httpApp)},
	})
}
