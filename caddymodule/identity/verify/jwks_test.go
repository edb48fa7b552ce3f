package verify

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

// bubble runs test with a JWKS of an issuer and a Verifier that has no other
// keys, in faked time.
func bubble(t *testing.T, i *issuer, config Config, test func(*testing.T, *Verifier, *JWKS)) {
	synctest.Test(t, func(t *testing.T) {
		j, _ := i.jwks(t)
		defer j.Close()
		config.JWKS = append(config.JWKS, j)
		test(t, newVerifier(t, config), j)
	})
}

func named(kid string) map[string]any { return map[string]any{"kid": kid} }

// issued returns a token of alice with iat, as if it were issued at that time.
func (s signer) issued(at time.Time, header map[string]any) string {
	return s.sign(jwt.MapClaims{"sub": "alice", "iat": at.Unix()}, header)
}

// Keys that are older than any test: RSA takes too long, even in faked time.
var (
	oldKey = signerOf("ES256")
	newKey = signer{jwt.SigningMethodES256, newP256Key()}
)

func TestJWKS_VerifiesWithPublishedKeys(t *testing.T) {
	for _, algorithm := range publicAlgorithms {
		s := signerOf(algorithm)
		bubble(t, newIssuer(s.jwk("1", nil), newKey.jwk("2", nil)), Config{}, func(t *testing.T, v *Verifier, _ *JWKS) {
			synctest.Wait()
			requireAccepted(t, v, s.sign(alice(), named("1")))
			requireAccepted(t, v, s.sign(alice(), nil))
			claims, err := v.VerifyNow(s.sign(alice(), named("2")))
			require.Nil(t, claims)
			require.Error(t, err)
		})
	}
}

func TestJWKS_APinnedKeyVerifiesItsAlgorithmOnly(t *testing.T) {
	bubble(t, newIssuer(signerOf("RS256").jwk("1", members("alg", "PS256"))), Config{}, func(t *testing.T, v *Verifier, _ *JWKS) {
		synctest.Wait()
		requireAccepted(t, v, signerOf("PS256").sign(alice(), named("1")))
		requireRefused(t, v, signerOf("RS256").sign(alice(), named("1")), errAlgorithmKey)
	})
}

func TestJWKS_APublishedSecretIsNone(t *testing.T) {
	i := newIssuer(signerOf("HS256").jwk("1", members("alg", "HS256")), oldKey.jwk("2", nil))
	bubble(t, i, Config{}, func(t *testing.T, v *Verifier, _ *JWKS) {
		synctest.Wait()
		requireRefused(t, v, signerOf("HS256").sign(alice(), named("1")), errAlgorithm)
		requireRefused(t, v, signerOf("HS256").sign(alice(), nil), errAlgorithm)
	})
	bubble(t, i, Config{Keys: []Key{must(HMACSecret([]byte("another one"), ""))}}, func(t *testing.T, v *Verifier, _ *JWKS) {
		synctest.Wait()
		requireRefused(t, v, signerOf("HS256").sign(alice(), named("1")), errSignature)
		require.Equal(t, 2, i.count(), "nobody looks for a secret in a JWKS: one fetch for each bubble")
	})
}

func TestJWKS_TheFirstFetchIsWaitedFor(t *testing.T) {
	i := newIssuer(oldKey.jwk("1", nil))
	i.slowDown(3 * time.Second)
	bubble(t, i, Config{}, func(t *testing.T, v *Verifier, _ *JWKS) {
		token := oldKey.sign(alice(), named("1"))
		began := time.Now()
		_, err := v.VerifyNow(token)
		require.Equal(t, identity.ErrNoKeys, err)
		require.Zero(t, time.Since(began))

		claims, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, "alice", claims.Sub)
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Equal(t, 1, i.count())
	})
}

func TestJWKS_TheWaitIsBounded(t *testing.T) {
	i := newIssuer(oldKey.jwk("1", nil))
	i.slowDown(time.Hour)
	token := oldKey.sign(alice(), named("1"))
	bubble(t, i, Config{}, func(t *testing.T, v *Verifier, _ *JWKS) {
		began := time.Now()
		_, err := v.Verify(t.Context(), token)
		require.Equal(t, identity.ErrNoKeys, err)
		require.Equal(t, waitForKeys, time.Since(began))
	})
	bubble(t, i, Config{}, func(t *testing.T, v *Verifier, _ *JWKS) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := v.Verify(ctx, token)
		require.Equal(t, identity.ErrNoKeys, err)
		require.Equal(t, time.Second, time.Since(began))
	})
}

func TestJWKS_IsFetchedUntilItComes(t *testing.T) {
	i := newIssuer(oldKey.jwk("1", nil))
	i.breakDown()
	synctest.Test(t, func(t *testing.T) {
		j, logs := i.jwks(t)
		defer j.Close()
		v := newVerifier(t, Config{JWKS: []*JWKS{j}})
		token := oldKey.sign(alice(), named("1"))

		pass(10 * time.Second)
		fetches := i.count()
		require.GreaterOrEqual(t, fetches, 4, "after 0, 1, 3 and 7 seconds, or less")
		require.LessOrEqual(t, fetches, 8)
		requireRefused(t, v, token, identity.ErrNoKeys)

		pass(50 * time.Minute)
		fetches = i.count()
		require.GreaterOrEqual(t, fetches, 48, "each minute, or less")
		require.LessOrEqual(t, fetches, 110)
		requireRefused(t, v, token, identity.ErrNoKeys)

		require.Equal(t, 1, logs.Len(), "one line, however often it fails")
		require.Equal(t, zap.WarnLevel, logs.All()[0].Level)
		require.Equal(t, map[string]any{
			"url":   "https://user:xxxxx@issuer.example/jwks.json",
			"error": "connection refused",
		}, logs.TakeAll()[0].ContextMap())

		i.publish(oldKey.jwk("1", nil))
		pass(time.Minute)
		requireAccepted(t, v, token)
		require.Equal(t, 1, logs.Len(), "and one when it works again")
		require.Equal(t, zap.InfoLevel, logs.All()[0].Level)
	})
}

func TestJWKS_IsFetchedAgainFromTimeToTime(t *testing.T) {
	i := newIssuer(oldKey.jwk("1", nil))
	synctest.Test(t, func(t *testing.T) {
		j, err := newJWKS(address, 10*time.Minute, nil, &http.Client{Transport: i})
		require.NoError(t, err)
		defer j.Close()
		synctest.Wait()
		require.Equal(t, 1, i.count())
		pass(10*time.Minute - time.Second)
		require.Zero(t, i.count())
		pass(time.Second)
		synctest.Wait()
		require.Equal(t, 1, i.count())
		pass(time.Hour)
		synctest.Wait()
		require.Equal(t, 6, i.count())
	})
}

func TestJWKS_KeysOutliveWhatIsWorse(t *testing.T) {
	for name, worsen := range map[string]func(*issuer){
		"an outage":             (*issuer).breakDown,
		"a timeout":             func(i *issuer) { i.slowDown(time.Hour) },
		"a login page":          func(i *issuer) { i.answer(200, "<!doctype html>") },
		"an error page":         func(i *issuer) { i.answer(503, `{"keys":[]}`) },
		"keys with an error":    func(i *issuer) { i.answer(500, set(newKey.jwk("1", nil))) },
		"keys with a 203":       func(i *issuer) { i.answer(203, set(newKey.jwk("1", nil))) },
		"an empty set":          func(i *issuer) { i.publish() },
		"other JSON":            func(i *issuer) { i.answer(200, `{"error":"x"}`) },
		"nothing":               func(i *issuer) { i.answer(200, ``) },
		"half a set":            func(i *issuer) { i.answer(200, set(newKey.jwk("1", nil))[:50]) },
		"keys of other kinds":   func(i *issuer) { i.publish(signerOf("HS256").jwk("1", nil)) },
		"a set of megabytes":    func(i *issuer) { i.answer(200, set(newKey.jwk("1", nil))+strings.Repeat(" ", maxSet)) },
		"a redirect to nowhere": func(i *issuer) { i.answer(302, set(newKey.jwk("1", nil))) },
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(oldKey.jwk("1", nil))
			synctest.Test(t, func(t *testing.T) {
				j, logs := i.jwks(t)
				defer j.Close()
				v := newVerifier(t, Config{JWKS: []*JWKS{j}})
				synctest.Wait()
				worsen(i)
				pass(2 * time.Hour)
				requireAccepted(t, v, oldKey.sign(alice(), named("1")))
				require.Equal(t, 1, logs.Len())
				require.Greater(t, i.count(), 50, "it does not wait for the next hour")

				i.slowDown(0)
				i.publish(newKey.jwk("1", nil))
				pass(2 * time.Minute)
				requireAccepted(t, v, newKey.sign(alice(), named("1")))
				require.Equal(t, 2, logs.Len())
			})
		})
	}
}

func TestJWKS_ANewKeyIsFetchedWhenItIsUsed(t *testing.T) {
	for name, header := range map[string]map[string]any{"with kid": named("2"), "without kid": nil} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(oldKey.jwk("1", nil))
			bubble(t, i, Config{}, func(t *testing.T, v *Verifier, _ *JWKS) {
				pass(20 * time.Minute)
				i.publish(oldKey.jwk("1", nil), newKey.jwk("2", nil))
				token := newKey.sign(alice(), header)

				_, err := v.VerifyNow(token)
				require.Equal(t, identity.ErrNoKeys, err)
				_, err = v.Verify(t.Context(), token)
				require.NoError(t, err)
				requireAccepted(t, v, token)
				requireAccepted(t, v, oldKey.sign(alice(), named("1")))
				require.Equal(t, 2, i.count())
			})
		})
	}
}

func TestJWKS_AKeyThatDoesNotExistIsLookedForOnce(t *testing.T) {
	i := newIssuer(oldKey.jwk("1", nil))
	bubble(t, i, Config{}, func(t *testing.T, v *Verifier, _ *JWKS) {
		pass(time.Minute)
		issued := time.Now().Add(-30 * time.Second)
		for range 100 {
			_, err := v.Verify(t.Context(), newKey.issued(issued, named("2")))
			require.Equal(t, errUnknownKey, err)
		}
		require.Equal(t, 2, i.count())
		_, err := v.Verify(t.Context(), newKey.issued(issued, nil))
		require.Equal(t, errSignature, err, "and without kid")

		pass(demandInterval - time.Nanosecond)
		_, err = v.Verify(t.Context(), newKey.issued(issued, named("2")))
		require.Equal(t, errUnknownKey, err)
		require.Zero(t, i.count())
		pass(time.Nanosecond)
		_, err = v.Verify(t.Context(), newKey.issued(issued, named("2")))
		require.Equal(t, errUnknownKey, err)
		require.Equal(t, 1, i.count())
	})
}

// A key that was rotated in since the last fetch may have signed a token that was
// issued since.
func TestJWKS_ATokenNewerThanTheLastFetchMayComeBack(t *testing.T) {
	for name, test := range map[string]struct {
		issued func(fetched time.Time) jwt.MapClaims
		leeway time.Duration
		want   error
	}{
		"issued after":                     {iat(time.Second), 0, identity.ErrNoKeys},
		"issued in the same second":        {iat(0), 0, identity.ErrNoKeys},
		"issued before":                    {iat(-2 * time.Second), 0, errUnknownKey},
		"issued before, clocks may be off": {iat(-2 * time.Second), time.Minute, identity.ErrNoKeys},
		"issued long before":               {iat(-2 * time.Minute), time.Minute, errUnknownKey},
		"it does not say":                  {func(time.Time) jwt.MapClaims { return jwt.MapClaims{} }, 0, identity.ErrNoKeys},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(oldKey.jwk("1", nil))
			bubble(t, i, Config{Leeway: test.leeway}, func(t *testing.T, v *Verifier, _ *JWKS) {
				synctest.Wait()
				fetched := time.Now()
				pass(demandInterval / 2)
				token := newKey.sign(test.issued(fetched), named("2"))
				_, err := v.Verify(t.Context(), token)
				require.Equal(t, test.want, err)
				require.Equal(t, 1, i.count())

				pass(demandInterval)
				_, err = v.Verify(t.Context(), token)
				require.Equal(t, errUnknownKey, err, "once there is a newer fetch")
				require.Equal(t, 1, i.count())
			})
		})
	}
}

func iat(after time.Duration) func(time.Time) jwt.MapClaims {
	return func(fetched time.Time) jwt.MapClaims {
		return jwt.MapClaims{"sub": "alice", "iat": fetched.Add(after).Unix()}
	}
}

func TestJWKS_AFailedFetchProvesNothing(t *testing.T) {
	i := newIssuer(oldKey.jwk("1", nil))
	bubble(t, i, Config{}, func(t *testing.T, v *Verifier, _ *JWKS) {
		pass(time.Minute)
		i.breakDown()
		token := newKey.issued(time.Now().Add(-time.Hour), named("2"))
		_, err := v.Verify(t.Context(), token)
		require.Equal(t, identity.ErrNoKeys, err)
		_, err = v.Verify(t.Context(), token)
		require.Equal(t, identity.ErrNoKeys, err)
		requireAccepted(t, v, oldKey.sign(alice(), named("1")))
	})
}

func TestJWKS_WaitersShareOneFetch(t *testing.T) {
	i := newIssuer(oldKey.jwk("1", nil))
	bubble(t, i, Config{}, func(t *testing.T, v *Verifier, _ *JWKS) {
		pass(time.Minute)
		i.publish(newKey.jwk("2", nil))
		i.slowDown(2 * time.Second)
		i.count()
		token := newKey.sign(alice(), named("2"))
		var wg sync.WaitGroup
		var accepted atomic.Int64
		for range 500 {
			wg.Go(func() {
				if _, err := v.Verify(t.Context(), token); err == nil {
					accepted.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 500, accepted.Load())
		require.Equal(t, 1, i.count())
	})
}

func TestJWKS_AWithdrawnKeyStopsCounting(t *testing.T) {
	i := newIssuer(oldKey.jwk("1", nil), newKey.jwk("2", nil))
	bubble(t, i, Config{}, func(t *testing.T, v *Verifier, j *JWKS) {
		synctest.Wait()
		withdrawn, kept := oldKey.issued(time.Now(), named("1")), newKey.issued(time.Now(), named("2"))
		pass(DefaultRefresh - time.Second)
		requireAccepted(t, v, withdrawn)
		requireAccepted(t, v, kept)
		i.publish(newKey.jwk("2", nil))
		pass(time.Second) // the token is in the cache for longer than that
		synctest.Wait()
		requireAccepted(t, v, kept)
		_, err := v.Verify(t.Context(), withdrawn)
		require.Equal(t, errUnknownKey, err)
		require.EqualValues(t, 2, j.generation())
	})
}

func TestJWKS_TheSameSetAgainIsNoChange(t *testing.T) {
	bubble(t, newIssuer(oldKey.jwk("1", nil)), Config{}, func(t *testing.T, _ *Verifier, j *JWKS) {
		pass(10 * DefaultRefresh)
		require.EqualValues(t, 1, j.generation())
	})
}

func TestJWKS_IsNotAskedForWhatAStaticKeyHas(t *testing.T) {
	i := newIssuer(newKey.jwk("1", nil))
	i.slowDown(time.Hour)
	bubble(t, i, Config{Keys: []Key{oldKey.key("1"), signerOf("ES384").key("")}}, func(t *testing.T, v *Verifier, _ *JWKS) {
		began := time.Now()
		requireAccepted(t, v, oldKey.sign(alice(), named("1")))
		requireAccepted(t, v, oldKey.sign(alice(), nil))
		requireAccepted(t, v, signerOf("ES384").sign(alice(), named("2")))
		requireRefused(t, v, newKey.sign(alice(), named("1")), errSignature)
		requireRefused(t, v, signerOf("HS256").sign(alice(), named("2")), errAlgorithm)
		require.Zero(t, time.Since(began))

		_, err := v.VerifyNow(newKey.sign(alice(), named("2")))
		require.Equal(t, identity.ErrNoKeys, err)
	})
}

func TestJWKS_SeveralMayGiveKeysTheSameKID(t *testing.T) {
	one, two := newIssuer(oldKey.jwk("1", nil)), newIssuer(newKey.jwk("1", nil))
	two.slowDown(2 * time.Second)
	synctest.Test(t, func(t *testing.T) {
		first, _ := one.jwks(t)
		defer first.Close()
		second, _ := two.jwks(t)
		defer second.Close()
		v := newVerifier(t, Config{JWKS: []*JWKS{first, second}})
		synctest.Wait()
		requireAccepted(t, v, oldKey.sign(alice(), named("1")))
		_, err := v.VerifyNow(newKey.sign(alice(), named("1")))
		require.Equal(t, identity.ErrNoKeys, err, "the second set may have it")
		_, err = v.Verify(t.Context(), newKey.sign(alice(), named("1")))
		require.NoError(t, err)
		forged := signer{jwt.SigningMethodES256, newP256Key()}.sign(alice(), named("1"))
		requireRefused(t, v, forged, errSignature)
		require.Equal(t, 2, one.count()+two.count())
	})
}

func TestJWKS_OneThatIsDownLeavesTheOthersAtWork(t *testing.T) {
	up, down := newIssuer(oldKey.jwk("1", nil)), newIssuer()
	down.breakDown()
	synctest.Test(t, func(t *testing.T) {
		first, _ := down.jwks(t)
		defer first.Close()
		second, _ := up.jwks(t)
		defer second.Close()
		v := newVerifier(t, Config{JWKS: []*JWKS{first, second}})
		synctest.Wait()
		requireAccepted(t, v, oldKey.sign(alice(), named("1")))
		_, err := v.Verify(t.Context(), newKey.sign(alice(), named("2")))
		require.Equal(t, identity.ErrNoKeys, err)
	})
}

func TestJWKS_ClosedFreesWhoWaits(t *testing.T) {
	i := newIssuer(oldKey.jwk("1", nil))
	synctest.Test(t, func(t *testing.T) {
		j, logs := i.jwks(t)
		v := newVerifier(t, Config{JWKS: []*JWKS{j}})
		pass(time.Minute)
		i.slowDown(time.Hour)
		began := time.Now()
		answer := make(chan error)
		go func() {
			_, err := v.Verify(t.Context(), newKey.sign(alice(), named("2")))
			answer <- err
		}()
		synctest.Wait()
		j.Close()
		require.Equal(t, identity.ErrNoKeys, <-answer)
		require.Zero(t, time.Since(began))

		pass(time.Hour)
		began = time.Now()
		requireAccepted(t, v, oldKey.sign(alice(), named("1")))
		_, err := v.Verify(t.Context(), newKey.sign(alice(), named("2")))
		require.Equal(t, identity.ErrNoKeys, err)
		require.Zero(t, time.Since(began))
		require.Zero(t, logs.Len())
		j.Close()
	})
}

func TestNewJWKS_RefusesWhatMakesNoSense(t *testing.T) {
	for address, want := range map[string]string{
		"":                          "expected one like",
		"issuer.example/jwks.json":  "expected one like",
		"file:///etc/jwks.json":     "expected one like",
		"https:///jwks.json":        "expected one like",
		"user:password@issuer:1":    "expected one like",
		"https://user:password@[::": "JWKS URL: ",
	} {
		_, err := NewJWKS(address, 0, nil)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "password")
	}
	_, err := NewJWKS(address, -time.Second, nil)
	require.ErrorContains(t, err, "negative")
}

// Rotations, outages and verifications at once: for the race detector.
func TestJWKS_IsSafeForConcurrentUse(t *testing.T) {
	i := newIssuer(oldKey.jwk("1", nil))
	synctest.Test(t, func(t *testing.T) {
		j, _ := i.jwks(t)
		verifiers := []*Verifier{newVerifier(t, Config{JWKS: []*JWKS{j}}), newVerifier(t, Config{JWKS: []*JWKS{j}})}
		tokens := []string{oldKey.sign(alice(), named("1")), newKey.sign(alice(), named("2")), newKey.sign(alice(), nil)}
		synctest.Wait()
		var wg sync.WaitGroup
		for n := range 16 {
			wg.Go(func() {
				for k := range 50 {
					token := tokens[(n+k)%len(tokens)]
					claims, err := verifiers[k%2].Verify(t.Context(), token)
					requirePromises(t, token, claims, err)
					pass(time.Second)
				}
			})
		}
		for k := range 25 {
			switch k % 3 {
			case 0:
				i.publish(newKey.jwk("2", nil))
			case 1:
				i.breakDown()
			case 2:
				i.publish(oldKey.jwk("1", nil), newKey.jwk("2", nil))
			}
			pass(2 * time.Second)
		}
		wg.Wait()
		j.Close()
	})
}
