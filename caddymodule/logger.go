package caddymodule

import (
	"slices"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// lastingLogger is for what outlives a configuration: the loggers of one write to
// files that are closed with it.
func lastingLogger() *zap.Logger { return zap.New(presentCore{}).Named("http.handlers.sse_guard") }

// presentCore logs by the present configuration.
type presentCore struct{ fields []zapcore.Field }

func (presentCore) core() zapcore.Core { return caddy.Log().Core() }

// Enabled implements zapcore.Core.
func (c presentCore) Enabled(level zapcore.Level) bool { return c.core().Enabled(level) }

// With implements zapcore.Core.
func (c presentCore) With(fields []zapcore.Field) zapcore.Core {
	return presentCore{append(slices.Clip(c.fields), fields...)}
}

// Check implements zapcore.Core. It is the present configuration's core that
// writes.
func (c presentCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return c.core().With(c.fields).Check(entry, checked)
}

// Write implements zapcore.Core.
func (c presentCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	return c.core().With(c.fields).Write(entry, fields)
}

// Sync implements zapcore.Core.
func (c presentCore) Sync() error { return c.core().Sync() }
