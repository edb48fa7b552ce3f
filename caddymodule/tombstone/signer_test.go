package tombstone

import (
	"bytes"
	"encoding/base64"
	"errors"
	"math"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var (
	secret  = []byte("0123456789abcdef0123456789abcdef")
	subject = [32]byte{1, 2, 3, 31: 32}
	now     = time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC)
)

func newSigner(t require.TestingT, secret []byte) *Signer {
	s, err := NewSigner(secret)
	require.NoError(t, err)
	return s
}

func mustSign(t require.TestingT, s *Signer, kind Kind, zone, reason string) string {
	id, err := s.Sign(kind, zone, subject, reason, now)
	require.NoError(t, err)
	return id
}

func TestVerify_TellsWhatWasSigned(t *testing.T) {
	s := newSigner(t, secret)
	for _, kind := range []Kind{Key, Token} {
		for _, reason := range []string{"a", "superseded", "max_age", "_", "abcdefghijklmnop"} {
			id := mustSign(t, s, kind, "default", reason)
			got, err := s.Verify(id, now)
			require.NoError(t, err)
			require.Equal(t, kind, got.Kind)
			require.Equal(t, reason, got.Reason)
			require.True(t, got.Time.Equal(now.Truncate(time.Second)))
			require.True(t, got.Binds(kind, "default", subject))
		}
	}
}

func TestVerify_TakesASignerOfTheSameSecretOnly(t *testing.T) {
	id := mustSign(t, newSigner(t, secret), Key, "default", "superseded")

	_, err := newSigner(t, bytes.Clone(secret)).Verify(id, now)
	require.NoError(t, err)
	_, err = newSigner(t, append(bytes.Clone(secret), 0x80)).Verify(id, now)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = newSigner(t, secret[:16]).Verify(id, now)
	require.ErrorIs(t, err, ErrInvalid)
}

func TestNewSigner_RefusesAShortSecret(t *testing.T) {
	for _, short := range [][]byte{nil, {}, secret[:15]} {
		_, err := NewSigner(short)
		require.ErrorContains(t, err, "expected at least 16")
	}
	newSigner(t, secret[:16])
}

func TestNewSigner_DoesNotKeepTheCallersSecret(t *testing.T) {
	mine := bytes.Clone(secret)
	s := newSigner(t, mine)
	clear(mine)
	_, err := newSigner(t, secret).Verify(mustSign(t, s, Key, "default", "superseded"), now)
	require.NoError(t, err)
}

func TestSign_RefusesWhatATombstoneCannotSay(t *testing.T) {
	s := newSigner(t, secret)
	for name, tt := range map[string]struct {
		kind    Kind
		subject [32]byte
		reason  string
		want    string
	}{
		"no kind":            {0, subject, "superseded", "unknown kind 0"},
		"unknown kind":       {3, subject, "superseded", "unknown kind 3"},
		"no subject":         {Key, [32]byte{}, "superseded", "subject is empty"},
		"no reason":          {Key, subject, "", `reason ""`},
		"long reason":        {Key, subject, "abcdefghijklmnopq", `reason "abcdefghijklmnopq"`},
		"reason in capitals": {Key, subject, "Superseded", `reason "Superseded"`},
		"reason with a dash": {Key, subject, "max-age", `reason "max-age"`},
		"reason with NUL":    {Key, subject, "a\x00", `reason "a\x00"`},
	} {
		t.Run(name, func(t *testing.T) {
			id, err := s.Sign(tt.kind, "default", tt.subject, tt.reason, now)
			require.ErrorContains(t, err, tt.want)
			require.Empty(t, id)
		})
	}
}

func TestVerify_ForeignIDs(t *testing.T) {
	s := newSigner(t, secret)
	for _, id := range []string{"", "41", "sse-guard.1", "sse-guard.2.AAAA", "SSE-GUARD.1.AAAA", " " + Prefix, "x" + mustSign(t, s, Key, "default", "superseded")} {
		require.False(t, Has(id), id)
		_, err := s.Verify(id, now)
		require.ErrorIs(t, err, ErrForeign, id)
	}
}

func TestVerify_InvalidIDs(t *testing.T) {
	s := newSigner(t, secret)
	for _, rest := range []string{"", "A", "=", ".", "\n", "é", strings.Repeat("A", 56), strings.Repeat("A", 64), strings.Repeat("A", 1<<20)} {
		require.True(t, Has(Prefix+rest))
		_, err := s.Verify(Prefix+rest, now)
		require.ErrorIs(t, err, ErrInvalid)
	}
}

func TestVerify_Age(t *testing.T) {
	s := newSigner(t, secret)
	id := mustSign(t, s, Key, "default", "superseded")
	signed := now.Truncate(time.Second)
	for name, tt := range map[string]struct {
		at   time.Time
		want error
	}{
		"at once":                  {now, nil},
		"after a day":              {signed.Add(24 * time.Hour), nil},
		"after more than a day":    {signed.Add(24*time.Hour + 1), ErrExpired},
		"after a century":          {signed.AddDate(100, 0, 0), ErrExpired},
		"at the end of time":       {time.Unix(math.MaxInt64, 0), ErrExpired},
		"five minutes early":       {signed.Add(-5 * time.Minute), nil},
		"more than five early":     {signed.Add(-5*time.Minute - 1), ErrExpired},
		"before the epoch":         {time.Unix(-1, 0), ErrExpired},
		"at the zero time":         {time.Time{}, ErrExpired},
		"in another zone's hours":  {now.In(time.FixedZone("", 9*3600)), nil},
		"one second after signing": {now.Add(time.Second), nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Verify(id, tt.at)
			require.ErrorIs(t, err, tt.want)
		})
	}
}

func TestVerify_TimesBeforeTheEpoch(t *testing.T) {
	s := newSigner(t, secret)
	past := time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC)
	id, err := s.Sign(Key, "default", subject, "superseded", past)
	require.NoError(t, err)
	got, err := s.Verify(id, past)
	require.NoError(t, err)
	require.True(t, got.Time.Equal(past))
	_, err = s.Verify(id, now)
	require.ErrorIs(t, err, ErrExpired)
}

func TestSign_FitsAnEventIDAndAHeader(t *testing.T) {
	alphabet := regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
	rapid.Check(t, func(t *rapid.T) {
		s := newSigner(t, rapid.SliceOfN(rapid.Byte(), MinSecret, 200).Draw(t, "secret"))
		at := time.Unix(rapid.Int64().Draw(t, "time"), 0)
		kind := rapid.SampledFrom([]Kind{Key, Token}).Draw(t, "kind")
		zone := rapid.String().Draw(t, "zone")
		reason := rapid.StringMatching(`[a-z_]{1,16}`).Draw(t, "reason")
		id, err := s.Sign(kind, zone, subject, reason, at)
		require.NoError(t, err)
		require.True(t, Has(id))
		require.LessOrEqual(t, len(id), MaxLen)
		require.Regexp(t, alphabet, id)

		got, err := s.Verify(id, at)
		require.NoError(t, err)
		require.Equal(t, reason, got.Reason)
		require.Equal(t, at.Unix(), got.Time.Unix())
		require.True(t, got.Binds(kind, zone, subject))
	})
}

// The lengths of the reasons cover all three ends that base64 can have.
var reasons = []string{"abc", "abcd", "abcde", "abcdefghijklmnop"}

func TestVerify_OneSpellingOnly(t *testing.T) {
	s := newSigner(t, secret)
	refused := func(t *testing.T, id string) {
		t.Helper()
		_, err := s.Verify(id, now)
		require.Error(t, err, "%q", id)
	}
	for _, reason := range reasons {
		id := mustSign(t, s, Key, "default", reason)
		t.Run("changed byte, "+reason, func(t *testing.T) {
			for i := range len(id) {
				for c := range 256 {
					if byte(c) != id[i] {
						refused(t, id[:i]+string([]byte{byte(c)})+id[i+1:])
					}
				}
			}
		})
		t.Run("inserted byte, "+reason, func(t *testing.T) {
			for i := range len(id) + 1 {
				for c := range 256 {
					refused(t, id[:i]+string([]byte{byte(c)})+id[i:])
				}
			}
		})
		t.Run("removed byte, "+reason, func(t *testing.T) {
			for i := range len(id) {
				refused(t, id[:i]+id[i+1:])
			}
		})
		t.Run("truncated or extended, "+reason, func(t *testing.T) {
			for i := range len(id) {
				refused(t, id[:i])
			}
			for _, more := range []string{"=", "==", "\n", "\r\n", "\r\n\r\n", ".", " ", "A", "AAAA", id, strings.Repeat("\n", 100)} {
				refused(t, id+more)
			}
		})
	}
}

func TestVerify_ChangedBodyWithOldMAC(t *testing.T) {
	s := newSigner(t, secret)
	body, err := base64.RawURLEncoding.DecodeString(mustSign(t, s, Key, "default", "superseded")[len(Prefix):])
	require.NoError(t, err)
	for i := range body {
		for bit := range 8 {
			changed := bytes.Clone(body)
			changed[i] ^= 1 << bit
			_, err := s.Verify(Prefix+base64.RawURLEncoding.EncodeToString(changed), now)
			require.ErrorIs(t, err, ErrInvalid)
		}
	}
}

func TestBinds_NothingElse(t *testing.T) {
	s := newSigner(t, secret)
	got, err := s.Verify(mustSign(t, s, Key, "default", "superseded"), now)
	require.NoError(t, err)
	other := subject
	other[31]++
	for name, tt := range map[string]struct {
		kind    Kind
		zone    string
		subject [32]byte
	}{
		"another kind":    {Token, "default", subject},
		"another zone":    {Key, "defaulT", subject},
		"a longer zone":   {Key, "default2", subject},
		"no zone":         {Key, "", subject},
		"another subject": {Key, "default", other},
		"no subject":      {Key, "default", [32]byte{}},
	} {
		t.Run(name, func(t *testing.T) {
			require.False(t, got.Binds(tt.kind, tt.zone, tt.subject))
		})
	}
	require.False(t, Tombstone{}.Binds(Key, "default", subject))
}

func TestBinds_LongZones(t *testing.T) {
	s := newSigner(t, secret)
	long := strings.Repeat("z", 1000)
	got, err := s.Verify(mustSign(t, s, Token, long, "logout"), now)
	require.NoError(t, err)
	require.True(t, got.Binds(Token, long, subject))
	require.False(t, got.Binds(Token, long+"z", subject))
}

func TestSigner_IsSafeForConcurrentUse(t *testing.T) {
	s := newSigner(t, secret)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				id, err := s.Sign(Key, "default", subject, "superseded", now)
				if err == nil {
					_, err = s.Verify(id, now)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func FuzzVerify(f *testing.F) {
	s := newSigner(f, secret)
	signed := map[string]bool{}
	for _, reason := range reasons {
		for _, kind := range []Kind{Key, Token} {
			id := mustSign(f, s, kind, "default", reason)
			signed[id] = true
			f.Add(id)
			f.Add(id + "\n")
			f.Add(id[:len(id)-1])
		}
	}
	f.Add("")
	f.Add(Prefix)
	f.Add("41")
	f.Fuzz(func(t *testing.T, id string) {
		got, err := s.Verify(id, now)
		require.Equal(t, signed[id], err == nil)
		if err != nil {
			require.Equal(t, Tombstone{}, got)
			require.Equal(t, !Has(id), errors.Is(err, ErrForeign))
		}
	})
}

func BenchmarkSign(b *testing.B) {
	s := newSigner(b, secret)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = s.Sign(Key, "default", subject, "superseded", now)
	}
}

func BenchmarkVerify(b *testing.B) {
	s := newSigner(b, secret)
	id := mustSign(b, s, Key, "default", "superseded")
	for name, id := range map[string]string{
		"valid":   id,
		"forged":  id[:len(id)-2] + "AA",
		"foreign": "41",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Verify(id, now)
			}
		})
	}
}
