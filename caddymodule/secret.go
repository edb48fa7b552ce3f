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

	// stored is what the storage had when the configuration was loaded; nil: nothing.
	stored []byte
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
	s.stored = stored
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

// signs returns what tombstones are signed with.
type signs func(context.Context) (*tombstone.Signer, error)

// keeper is a registry that keeps a secret for all nodes.
type keeper interface {
	// Secret returns the secret that counts: the given one, if there is none yet. It is
	// kept for so long after the last call.
	Secret(ctx context.Context, fresh []byte, keep time.Duration) ([]byte, error)
}

const (
	// sharedFor is longer than tombstones are good for.
	sharedFor = 48 * time.Hour
	// askShared is how often a node asks for the shared secret, and so has it kept;
	// askSharedAgain how often while it has no answer.
	askShared      = time.Hour
	askSharedAgain = time.Second
)

// sharedSecret is a secret that is made by one node, and kept by the registry for all:
// their storages may be their own. Until the registry answers, it is this node's own.
type sharedSecret struct {
	own    *secret
	keeper keeper
	logger *zap.Logger

	// asking is held by who asks while there is no answer yet: the others wait for it.
	asking sync.Mutex
	// mu guards the fields below it. It is not held while the registry is asked.
	mu     sync.Mutex
	signed *tombstone.Signer
	// fresh is what the registry is to keep, if it has none.
	fresh []byte
	// next is when the registry is to be asked.
	next time.Time
}

func newSharedSecret(own *secret, k keeper) *sharedSecret {
	fresh := own.stored
	if fresh == nil {
		fresh = newSecretValue()
	}
	return &sharedSecret{own: own, keeper: k, logger: own.logger, fresh: fresh}
}

// signer returns the signer of the shared secret.
func (s *sharedSecret) signer(ctx context.Context) (*tombstone.Signer, error) {
	signer, ask := s.present(time.Now())
	if signer == nil {
		s.asking.Lock()
		defer s.asking.Unlock()
		signer, ask = s.present(time.Now())
	}
	if ask {
		s.put(askSharedAgain)
		if asked := s.ask(ctx); asked != nil {
			signer = asked
		}
	}
	if signer != nil {
		return signer, nil
	}
	return s.own.signer(ctx)
}

// present returns the signer that there is, if any, and whether the caller is to ask.
func (s *sharedSecret) present(now time.Time) (signer *tombstone.Signer, ask bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signed, !now.Before(s.next)
}

// put has nobody ask for so long.
func (s *sharedSecret) put(off time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = time.Now().Add(off)
}

// ask asks the registry; nil: it has no answer.
func (s *sharedSecret) ask(ctx context.Context) *tombstone.Signer {
	s.mu.Lock()
	fresh := s.fresh
	s.mu.Unlock()
	value, err := s.keeper.Secret(context.WithoutCancel(ctx), fresh, sharedFor)
	if err != nil {
		s.logger.Debug("the tombstone secret is this node's own until the registry can be asked", zap.Error(err))
		return nil
	}
	signer, err := tombstone.NewSigner(value)
	if err != nil {
		s.logger.Error("the registry's tombstone secret is no good", zap.Error(err))
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signed, s.fresh, s.next = signer, value, time.Now().Add(askShared)
	return signer
}
