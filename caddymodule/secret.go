package caddymodule

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/tombstone"
)

const (
	secretPath = "sse_guard/tombstone.key" //nolint:gosec // a path, no secret
	secretLock = "sse_guard_tombstone_key" //nolint:gosec // a lock's name
	secretSize = 32

	// storageTimeout bounds how long a request waits for Caddy's storage.
	storageTimeout = 10 * time.Second
)

// secret is what tombstones are signed with: given in the configuration, or
// made on first use and kept in Caddy's storage, which all nodes that share
// it read.
type secret struct {
	storage certmagic.Storage
	logger  *zap.Logger

	ready  atomic.Pointer[tombstone.Signer]
	making sync.Mutex
}

// newSecret reads the secret. It writes nothing: `caddy validate` provisions too.
func newSecret(ctx caddy.Context, configured string) (*secret, error) {
	s := &secret{storage: ctx.Storage(), logger: ctx.Logger()}
	if configured != "" {
		value, err := caddy.NewReplacer().ReplaceOrErr(configured, true, true)
		if err != nil {
			return nil, fmt.Errorf("secret: %w; it must stand for at least %d bytes when Caddy starts", err, tombstone.MinSecret)
		}
		signer, err := tombstone.NewSigner([]byte(value))
		if err != nil {
			return nil, fmt.Errorf("secret: %w", err)
		}
		s.ready.Store(signer)
		return s, nil
	}
	stored, err := s.storage.Load(ctx, secretPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return nil, fmt.Errorf("secret: loading %q from Caddy's storage: %w", secretPath, err)
	}
	signer, err := tombstone.NewSigner(stored)
	if err != nil {
		return nil, errStored(err)
	}
	s.ready.Store(signer)
	return s, nil
}

func errStored(err error) error {
	return fmt.Errorf("secret: %q in Caddy's storage: %w; delete it, and a new one is made", secretPath, err)
}

// signer returns the signer, made on first use.
func (s *secret) signer(ctx context.Context) (*tombstone.Signer, error) {
	if signer := s.ready.Load(); signer != nil {
		return signer, nil
	}
	s.making.Lock()
	defer s.making.Unlock()
	if signer := s.ready.Load(); signer != nil {
		return signer, nil
	}
	// The outcome is kept for all requests: it must not hang on whether the
	// client of this one stays.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storageTimeout)
	defer cancel()
	value, err := s.loadOrMake(ctx)
	if err != nil {
		// Without tombstones ended clients would come back for ever.
		s.logger.Warn("the tombstone secret could not be stored; until a restart one in memory is used", zap.Error(err))
		value = newSecretValue()
	}
	signer, err := tombstone.NewSigner(value)
	if err != nil {
		return nil, errStored(err)
	}
	s.ready.Store(signer)
	return signer, nil
}

// loadOrMake makes the stored secret, unless another node just did.
func (s *secret) loadOrMake(ctx context.Context) (value []byte, err error) {
	if err := s.storage.Lock(ctx, secretLock); err != nil {
		return nil, fmt.Errorf("locking Caddy's storage: %w", err)
	}
	defer func() {
		if unlockErr := s.storage.Unlock(context.WithoutCancel(ctx), secretLock); err == nil && unlockErr != nil {
			s.logger.Warn("unlocking Caddy's storage", zap.Error(unlockErr))
		}
	}()
	value, err = s.storage.Load(ctx, secretPath)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return value, err
	}
	value = newSecretValue()
	return value, s.storage.Store(ctx, secretPath, value)
}

func newSecretValue() []byte {
	value := make([]byte, secretSize)
	_, _ = rand.Read(value) // never fails: it ends the process instead
	return value
}
