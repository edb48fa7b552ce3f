package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/identity/verify"
)

// JWT says how tokens are verified. With it, streams need a good token, and what
// the token says is known: `{sse_guard.claims.sub}` may be a key, a stream ends
// at its token's `exp`, and a logout may end all streams of a user.
//
// A request that asks for a stream with a token that is not good gets 401 before the
// backend is asked (but for a GET of another origin's page). Other requests pass, and are
// judged only if the answer proves to be a stream. The option `methods` says which requests
// count: streams of others do not end at `exp` or at a logout.
//
// Guards that trust different keys or issuers must not share a zone.
type JWT struct {
	// Secrets for tokens signed with HS256, HS384 or HS512. Default: none.
	HMACSecrets []HMACSecret `json:"hmac_secrets,omitempty"`

	// Public keys for tokens signed with RS*, PS*, ES* or EdDSA. Default: none.
	PublicKeys []PublicKey `json:"public_keys,omitempty"`

	// Key sets that the issuer publishes (RFC 7517). Default: none.
	JWKS []KeySet `json:"jwks,omitempty"`

	// Narrows the signature algorithms that are accepted. A key is never good for
	// algorithms of another kind, and `none` is never accepted.
	// Default: all of each key's kind.
	Algorithms []string `json:"algorithms,omitempty"`

	// Who must have issued the token: any of these (`iss`). Where there are several,
	// each with keys of its own, each key names its issuers, so that no issuer's key
	// is good for another's tokens. Default: those behind the keys, or else
	// anybody who has the keys.
	Issuers []string `json:"issuers,omitempty"`

	// Whom the token must be for: any of these (`aud`). Default: not looked at.
	Audiences []string `json:"audiences,omitempty"`

	// How far the clocks of issuer and proxy may differ: for so long after its
	// `exp` a token is accepted, and for so long before its `nbf`. A logout of
	// all of a user's tokens spares those issued in that time before it, unless
	// the proxy has seen them. Default: `0s`.
	Leeway caddy.Duration `json:"leeway,omitempty"`

	// Claims that a token must have, such as `exp` or `sub`. Default: none.
	Require []string `json:"require,omitempty"`

	// Let streams without a token through, untracked. Default: off.
	Optional bool `json:"optional,omitempty"`

	// Believe tokens without verifying them, where only the backend has the
	// keys. Claims then count only when the backend has answered with a stream;
	// exactly one `token` source must be named, the one that the backend reads;
	// `takeover request` and a logout of a `user` are not possible, and no later
	// token moves the end of a stream. Default: off.
	Unverified bool `json:"unverified,omitempty"`
}

// HMACSecret is a secret shared with the issuer.
type HMACSecret struct {
	// The secret; usually a placeholder such as `{env.JWT_SECRET}`.
	Secret string `json:"secret,omitempty"`
	// Or the file that holds it. A final line break is not part of it.
	File string `json:"file,omitempty"`
	// The `kid` of the tokens it is for. Default: any.
	KeyID string `json:"kid,omitempty"`
	// The issuers (`iss`) of the tokens it is for. Default: any.
	Issuers []string `json:"issuers,omitempty"`
}

// PublicKey is a file with public keys or certificates.
type PublicKey struct {
	// The PEM file. Every key in it counts, and of a certificate its key.
	File string `json:"file"`
	// The `kid` of the tokens it is for. Default: any.
	KeyID string `json:"kid,omitempty"`
	// The issuers (`iss`) of the tokens it is for. Default: any.
	Issuers []string `json:"issuers,omitempty"`
}

// KeySet is a JSON Web Key Set that is fetched in the background, and kept while
// its server cannot be reached.
type KeySet struct {
	// Where it is.
	URL string `json:"url"`
	// How often it is fetched. A token with an unknown `kid` has it fetched at
	// once, but not more than every ten seconds. Default: 1h.
	Refresh caddy.Duration `json:"refresh,omitempty"`
	// The issuers (`iss`) of the tokens it is for. Default: any.
	Issuers []string `json:"issuers,omitempty"`
}

const (
	leastRefresh = time.Second
	// hmacLeast is what RFC 7518 section 3.2 demands of an HS256 key, in bytes.
	hmacLeast = 32
)

func (j *JWT) validate() error {
	if j == nil {
		return nil
	}
	given := len(j.HMACSecrets) + len(j.PublicKeys) + len(j.JWKS)
	switch {
	case given == 0 && !j.Unverified:
		return errors.New("jwt: there is no key; give hmac_secret, public_key or jwks, or unverified if only the backend has the keys")
	case given > 0 && j.Unverified:
		return errors.New("jwt: unverified is not allowed together with hmac_secret, public_key or jwks; tokens that can be verified are")
	case j.Unverified && len(j.Algorithms)+len(j.Issuers)+len(j.Audiences)+len(j.Require) > 0:
		return errors.New("jwt: unverified is not allowed together with algorithms, issuer, audience or require; nothing is looked at")
	}
	if err := validateEach(jwtOptions, j); err != nil {
		return fmt.Errorf("jwt: %w", err)
	}
	if err := j.validateIssuers(); err != nil {
		return fmt.Errorf("jwt: %w", err)
	}
	return nil
}

// keyLine is a line that gives keys.
type keyLine struct {
	usage   string // how it is written without issuers
	issuers []string
}

func (j *JWT) keyLines() (lines []keyLine) {
	for _, s := range j.HMACSecrets {
		lines = append(lines, keyLine{"hmac_secret <placeholder or file>", s.Issuers})
	}
	for _, p := range j.PublicKeys {
		lines = append(lines, keyLine{"public_key " + p.File, p.Issuers})
	}
	for _, s := range j.JWKS {
		name := "<url>"
		if u, err := url.Parse(s.URL); err == nil {
			name = u.Redacted()
		}
		lines = append(lines, keyLine{"jwks " + name, s.Issuers})
	}
	return lines
}

// validateIssuers refuses keys with which one issuer could sign in the name of
// another, and issuers for whom there is no key.
func (j *JWT) validateIssuers() error {
	lines := j.keyLines()
	var bound []string
	for _, l := range lines {
		bound = append(bound, l.issuers...)
	}
	if slices.Contains(bound, "") {
		return errors.New("issuer: \"\" is not allowed behind a key; it is the iss of the tokens that the key is for")
	}
	several := len(bound) > 0 || len(j.Issuers) > 1
	for _, l := range lines {
		if several && len(lines) > 1 && len(l.issuers) == 0 {
			return fmt.Errorf("issuer: there are several issuers and several keys, and %s is good for all of them: whoever has that key could sign in the name of another issuer; write: %[1]s issuer <name...>", l.usage)
		}
		for _, name := range l.issuers {
			if len(j.Issuers) > 0 && !slices.Contains(j.Issuers, name) && !isTemplate(j.Issuers, name) {
				return fmt.Errorf("issuer: %s is for %q, which is none of the accepted ones: %s; add it there, or leave out the option issuer", l.usage, name, strings.Join(j.Issuers, ", "))
			}
		}
	}
	for _, name := range j.Issuers {
		if len(bound) > 0 && !slices.Contains(bound, name) && !isTemplate(bound, name) {
			return fmt.Errorf("issuer: no key is for %q; write behind the one that is: issuer %[1]s", name)
		}
	}
	return nil
}

// isTemplate reports whether name, or one of others, has a placeholder: whether they
// are equal is not known yet.
func isTemplate(others []string, name string) bool {
	return slices.ContainsFunc(append(slices.Clone(others), name), func(s string) bool { return strings.Contains(s, "{") })
}

func (j *JWT) validateHMACSecrets() error {
	for _, s := range j.HMACSecrets {
		if (s.Secret == "") == (s.File == "") {
			return errors.New("hmac_secret: expected either a secret, as a placeholder, or a file")
		}
	}
	return nil
}

func (j *JWT) validatePublicKeys() error {
	for _, k := range j.PublicKeys {
		if k.File == "" {
			return errors.New("public_key: \"\" is not allowed; it is a PEM file")
		}
	}
	return nil
}

func (j *JWT) validateJWKS() error {
	for _, k := range j.JWKS {
		if k.Refresh != 0 && k.Refresh < caddy.Duration(leastRefresh) {
			return fmt.Errorf("jwks: refresh %s is not allowed; it is at least %s", time.Duration(k.Refresh), leastRefresh)
		}
	}
	return nil
}

// keySets keeps what was fetched while verifiers use it, so that a reload during
// an outage of the issuer does not forget the keys.
var keySets = caddy.NewUsagePool()

type fetchedSet struct{ *verify.JWKS }

// Destruct implements caddy.Destructor.
func (s fetchedSet) Destruct() error {
	s.Close()
	return nil
}

// publishedAt is what a set is fetched by, with its default.
type publishedAt struct {
	url     string
	refresh caddy.Duration
}

// jwtVerifier verifies by a JWT's options until it is closed.
type jwtVerifier struct {
	identity.Verifier
	sets []publishedAt // in the pool
}

func (j *JWT) verifier(logger *zap.Logger) (_ *jwtVerifier, err error) {
	if j.Unverified {
		return &jwtVerifier{Verifier: verify.Unverified{Leeway: time.Duration(j.Leeway)}}, nil
	}
	v := new(jwtVerifier)
	defer func() {
		if err != nil {
			v.close()
		}
	}()
	expand := newExpander()
	config := verify.Config{
		Algorithms: j.Algorithms,
		Issuers:    expand.all("issuer", j.Issuers),
		Audiences:  expand.all("audience", j.Audiences),
		Leeway:     time.Duration(j.Leeway),
		Require:    j.Require,
		IssuersOf:  make(map[*verify.JWKS][]string),
	}
	for _, s := range j.HMACSecrets {
		key, err := s.key(expand, logger)
		if expand.err != nil {
			return nil, fmt.Errorf("jwt: %w", expand.err)
		}
		if err != nil {
			return nil, fmt.Errorf("jwt: hmac_secret: %w", err)
		}
		config.Keys = append(config.Keys, key.Of(expand.all("issuer", s.Issuers)...))
	}
	for _, p := range j.PublicKeys {
		file := expand.one("public_key", p.File)
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("jwt: public_key: %w", err)
		}
		keys, err := verify.PublicKeys(pem, p.KeyID)
		if err != nil {
			return nil, fmt.Errorf("jwt: public_key: %s: %w", file, err)
		}
		issuers := expand.all("issuer", p.Issuers)
		for _, key := range keys {
			config.Keys = append(config.Keys, key.Of(issuers...))
		}
	}
	for _, s := range j.JWKS {
		s.URL = expand.one("jwks", s.URL)
		setDefault(&s.Refresh, caddy.Duration(verify.DefaultRefresh))
		if u, err := url.Parse(s.URL); err != nil {
			return nil, errors.New("jwt: jwks: that is no URL; it begins with https:// or http://")
		} else if u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, fmt.Errorf("jwt: jwks: %q is not allowed; it is a URL that begins with https:// or http://", u.Redacted())
		}
		at := publishedAt{s.URL, s.Refresh}
		pooled, _, err := keySets.LoadOrNew(at, func() (caddy.Destructor, error) {
			set, err := verify.NewJWKS(s.URL, time.Duration(s.Refresh), lastingLogger())
			return fetchedSet{set}, err
		})
		if err != nil {
			return nil, fmt.Errorf("jwt: jwks: %w", err)
		}
		v.sets = append(v.sets, at)
		set := pooled.(fetchedSet).JWKS
		config.JWKS = append(config.JWKS, set)
		config.IssuersOf[set] = append(config.IssuersOf[set], expand.all("issuer", s.Issuers)...)
	}
	if expand.err != nil {
		return nil, fmt.Errorf("jwt: %w", expand.err)
	}
	if v.Verifier, err = verify.New(config); err != nil {
		return nil, fmt.Errorf("jwt: %w", err)
	}
	return v, nil
}

func (v *jwtVerifier) close() {
	for _, s := range v.sets {
		_, _ = keySets.Delete(s) // Destruct has no error
	}
	v.sets = nil
}

func (s HMACSecret) key(expand *expander, logger *zap.Logger) (verify.Key, error) {
	secret := []byte(expand.one("hmac_secret", s.Secret))
	if s.File != "" {
		var err error
		if secret, err = os.ReadFile(expand.one("hmac_secret", s.File)); err != nil {
			// Without the name: it may be a secret that somebody took for one.
			if of, ok := errors.AsType[*fs.PathError](err); ok {
				err = of.Err
			}
			return verify.Key{}, fmt.Errorf("reading its file: %w; it is a placeholder such as {env.JWT_SECRET}, or the name of a file", err)
		}
		secret = bytes.TrimSuffix(bytes.TrimSuffix(secret, []byte("\n")), []byte("\r"))
	}
	if n := len(secret); n > 0 && n < hmacLeast {
		logger.Warn("jwt: hmac_secret is short: whoever has a token can search for it, and sign tokens then",
			zap.Int("bytes", n), zap.Int("recommended", hmacLeast))
	}
	return verify.HMACSecret(secret, s.KeyID)
}

// expander replaces the placeholders of options, which must have a value when
// Caddy starts. The first error stays.
type expander struct {
	repl *caddy.Replacer
	err  error
}

func newExpander() *expander { return &expander{repl: caddy.NewReplacer()} }

func (e *expander) one(option, text string) string {
	out, err := e.repl.ReplaceOrErr(text, true, true)
	if err != nil && e.err == nil {
		e.err = fmt.Errorf("%s: %w", option, err)
	}
	return out
}

func (e *expander) all(option string, texts []string) []string {
	var out []string
	for _, text := range texts {
		out = append(out, e.one(option, text))
	}
	return out
}

// trust tells apart whom guards believe; empty: nobody.
func (j *JWT) trust() string {
	if j == nil {
		return ""
	}
	b, err := json.Marshal(JWT{
		HMACSecrets: j.HMACSecrets, PublicKeys: j.PublicKeys, JWKS: j.JWKS, Issuers: j.Issuers, Unverified: j.Unverified,
	})
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// fingerprint tells identities apart: guards that find the same one of these read
// tokens, client ids and claims alike.
func (h *Handler) fingerprint() (string, error) {
	b, err := json.Marshal(struct {
		Token, Client, JWT any
		Zone               string
	}{h.Token, h.Client, h.JWT, h.zone.key.registry})
	return string(b), err
}
