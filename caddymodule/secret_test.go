package caddymodule

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-guard/sse-guard/caddymodule/tombstone"
)

// secretIn is the secret of a guard whose Caddy keeps its storage in dir.
func secretIn(dir string) *secret {
	return &secret{storage: &certmagic.FileStorage{Path: dir}, logger: zap.NewNop()}
}

func sign(t testing.TB, s *secret) string {
	t.Helper()
	signer, err := s.signer(t.Context())
	require.NoError(t, err)
	id, err := signer.Sign(tombstone.Key, "zone", [32]byte{1}, "superseded", time.Now())
	require.NoError(t, err)
	return id
}

func TestSecret_IsMadeOnceForAllWhoShareTheStorage(t *testing.T) {
	dir := t.TempDir()
	var signing sync.WaitGroup
	nodes := []*secret{secretIn(dir), secretIn(dir), secretIn(dir)}
	for _, node := range nodes {
		signing.Go(func() { _, _ = node.signer(t.Context()) })
	}
	signing.Wait()
	id := sign(t, nodes[0])
	for _, node := range append(nodes, secretIn(dir)) {
		signer, err := node.signer(t.Context())
		require.NoError(t, err)
		_, err = signer.Verify(id, time.Now())
		assert.NoError(t, err)
	}
	info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(secretPath)))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

// brokenStorage cannot be written.
type brokenStorage struct{ certmagic.FileStorage }

func (*brokenStorage) Store(context.Context, string, []byte) error {
	return errors.New("read-only")
}

func TestSecret_FallsBackToMemoryWithAWarning(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	s := &secret{storage: &brokenStorage{certmagic.FileStorage{Path: t.TempDir()}}, logger: zap.New(core)}
	assert.Equal(t, sign(t, s)[:12], sign(t, s)[:12])
	require.Len(t, logs.All(), 1)
	assert.Equal(t, zap.WarnLevel, logs.All()[0].Level)
}

func TestSecret_FromTheConfiguration(t *testing.T) {
	ctx := newConfiguration(t, storageIn(t.TempDir())).Context
	t.Setenv("SSE_GUARD_TEST_SECRET", "0123456789abcdef")
	t.Setenv("SSE_GUARD_TEST_SHORT", "short")
	s, err := newSecret(ctx, "{env.SSE_GUARD_TEST_SECRET}")
	require.NoError(t, err)
	sign(t, s)
	for configured, want := range map[string]string{
		"{env.SSE_GUARD_TEST_UNSET}": "secret",
		"{env.SSE_GUARD_TEST_SHORT}": "16",
	} {
		_, err := newSecret(ctx, configured)
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "short\"", "the secret itself is not told")
	}
}
