package caddymodule

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-guard/sse-guard/caddymodule/tombstone"
)

// watchedStorage counts what is done with it, and fails where it is told to.
type watchedStorage struct {
	certmagic.Storage
	failLock, failLoad, failStore error

	locks, unlocks, stores atomic.Int32
	storedUnlocked         atomic.Bool
}

func watch(dir string) *watchedStorage {
	return &watchedStorage{Storage: &certmagic.FileStorage{Path: dir}}
}

func (s *watchedStorage) Lock(ctx context.Context, name string) error {
	if s.failLock != nil {
		return s.failLock
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	defer s.locks.Add(1)
	return s.Storage.Lock(ctx, name)
}

func (s *watchedStorage) Unlock(ctx context.Context, name string) error {
	defer s.unlocks.Add(1)
	return s.Storage.Unlock(ctx, name)
}

func (s *watchedStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if s.failLoad != nil {
		return nil, s.failLoad
	}
	return s.Storage.Load(ctx, key)
}

func (s *watchedStorage) Store(ctx context.Context, key string, value []byte) error {
	if s.failStore != nil {
		return s.failStore
	}
	if s.locks.Load() == s.unlocks.Load() {
		s.storedUnlocked.Store(true)
	}
	s.stores.Add(1)
	return s.Storage.Store(ctx, key, value)
}

// observed is a secret kept in storage, and the lines it logs.
func observed(storage certmagic.Storage) (*secret, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	return &secret{storage: storage, logger: zap.New(core)}, logs
}

// accepts reports whether s accepts a tombstone of by's.
func accepts(t *testing.T, s, by *secret) bool {
	t.Helper()
	signer, err := s.signer(t.Context())
	require.NoError(t, err)
	_, err = signer.Verify(sign(t, by), time.Now())
	require.True(t, err == nil || errors.Is(err, tombstone.ErrInvalid), "%v", err)
	return err == nil
}

// files lists the files in dir, however deep.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, path)
		}
		return err
	}))
	return names
}

func TestSecret_ValidationWritesNothing(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, validateConfig(t, dir, `{"servers": {"s": {
		"listen": ["127.0.0.1:0"],
		"automatic_https": {"disable": true},
		"routes": [{"handle": [{"handler": "sse_guard"}]}]
	}}}`))
	require.Empty(t, files(t, dir))

	h := newConfiguration(t, storageIn(dir)).handler(t, `{}`)
	require.Empty(t, files(t, dir), "nor does Provision before the first use")
	_, err := h.guard.Signer(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, filepath.FromSlash(secretPath))}, files(t, dir))
}

func TestSecret_IsStoredUnderTheLock(t *testing.T) {
	storage := watch(t.TempDir())
	s, logs := observed(storage)
	sign(t, s)
	sign(t, s)
	require.EqualValues(t, 1, storage.stores.Load())
	require.EqualValues(t, 1, storage.locks.Load())
	require.EqualValues(t, 1, storage.unlocks.Load())
	require.False(t, storage.storedUnlocked.Load())
	require.Empty(t, logs.All())
}

func TestSecret_IsReadByTheNextInstance(t *testing.T) {
	dir := t.TempDir()
	first, _ := observed(watch(dir))
	sign(t, first)

	storage := watch(dir)
	atFirstUse, _ := observed(storage)
	require.True(t, accepts(t, atFirstUse, first))
	require.Zero(t, storage.stores.Load())

	atProvision, err := newSecret(newConfiguration(t, storageIn(dir)).Context, "")
	require.NoError(t, err)
	require.NotNil(t, atProvision.ready.Load(), "no request waits for the storage")
	require.True(t, accepts(t, atProvision, first))
}

func TestSecret_InstancesThatStartAtOnceAgree(t *testing.T) {
	storage := watch(t.TempDir())
	instances := make([]*secret, 3)
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range instances {
		instances[i], _ = observed(storage)
		for range 4 { // requests
			all.Go(func() {
				<-start
				_, err := instances[i].signer(context.Background())
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	close(start)
	all.Wait()
	require.EqualValues(t, 1, storage.stores.Load())
	for _, s := range instances {
		require.True(t, accepts(t, s, instances[0]))
	}
}

// A client that leaves must not decide over everybody's secret.
func TestSecret_DoesNotHangOnTheRequestThatNeedsItFirst(t *testing.T) {
	dir := t.TempDir()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	s, logs := observed(watch(dir))
	_, err := s.signer(gone)
	require.NoError(t, err)
	require.Empty(t, logs.All())
	other, _ := observed(watch(dir))
	require.True(t, accepts(t, other, s), "it is the stored one")
}

func TestSecret_ThatIsBrokenIsNamed(t *testing.T) {
	dir := t.TempDir()
	storage := watch(dir)
	require.NoError(t, storage.Storage.Store(t.Context(), secretPath, []byte("truncated")))
	parts := []string{"secret", secretPath, "9 bytes", "at least 16", "delete it"}

	_, err := newConfiguration(t, storageIn(dir)).handlerOrErr(`{}`)
	for _, part := range parts {
		require.ErrorContains(t, err, part)
	}
	require.NotContains(t, err.Error(), "truncated", "its bytes are not told")

	atFirstUse, _ := observed(storage)
	_, err = atFirstUse.signer(t.Context())
	for _, part := range parts {
		require.ErrorContains(t, err, part)
	}
	require.Equal(t, storage.locks.Load(), storage.unlocks.Load())

	require.NoError(t, storage.Delete(t.Context(), secretPath))
	sign(t, atFirstUse) // without a restart
}

func TestSecret_ThatCannotBeKeptIsInMemory(t *testing.T) {
	for name, fail := range map[string]func(*watchedStorage){
		"no lock":     func(s *watchedStorage) { s.failLock = errors.New("read-only file system") },
		"unreadable":  func(s *watchedStorage) { s.failLoad = errors.New("read-only file system") },
		"unwriteable": func(s *watchedStorage) { s.failStore = errors.New("read-only file system") },
	} {
		t.Run(name, func(t *testing.T) {
			storage := watch(t.TempDir())
			fail(storage)
			s, logs := observed(storage)
			require.True(t, accepts(t, s, s))
			sign(t, s)

			require.Len(t, logs.All(), 1)
			line := logs.All()[0]
			require.Equal(t, zap.WarnLevel, line.Level)
			require.Contains(t, line.Message, "secret")
			require.Contains(t, line.ContextMap()["error"], "read-only file system")
			require.Equal(t, storage.locks.Load(), storage.unlocks.Load())

			other, _ := observed(storage)
			require.False(t, accepts(t, other, s), "each has its own: it is random")
		})
	}
}

func TestSecret_StorageThatCannotBeReadStopsTheStart(t *testing.T) {
	dir := t.TempDir()
	// A directory in the place of the file: an error, but not "not found".
	require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.FromSlash(secretPath)), 0o700))
	_, err := newConfiguration(t, storageIn(dir)).handlerOrErr(`{}`)
	require.ErrorContains(t, err, "secret: loading")
	require.ErrorContains(t, err, secretPath)
}
