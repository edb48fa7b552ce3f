package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
	return newConfigurationLogging(t, storage, `{"output": "discard"}`)
}

// newConfigurationLogging is newConfiguration with a writer for the log.
func newConfigurationLogging(t testing.TB, storage json.RawMessage, writer string) configuration {
	t.Helper()
	root, err := caddy.ProvisionContext(&caddy.Config{
		Logging:    &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{WriterRaw: []byte(writer)}}}},
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

// warningsOf returns what is logged, above information, while a handler is loaded.
func warningsOf(t testing.TB, config string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "log")
	c := newConfigurationLogging(t, storageIn(t.TempDir()), fmt.Sprintf(`{"output": "file", "filename": %q, "roll": false}`, file))
	c.handler(t, config)
	content, err := os.ReadFile(file)
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	var warnings strings.Builder
	for line := range strings.Lines(string(content)) {
		if strings.Contains(line, "WARN") || strings.Contains(line, `"warn"`) {
			warnings.WriteString(line)
		}
	}
	return warnings.String()
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
