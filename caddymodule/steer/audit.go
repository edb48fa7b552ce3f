package steer

import (
	"encoding/hex"
	"net/http"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// audit writes a line of what was done, by whom, and to which streams.
func (a *API) audit(what string, r *http.Request, sel *selection, done ...zap.Field) {
	done = append(done, zap.String("remote_ip", addr(r)), zap.Object("select", sel))
	if a.User != nil {
		if user := a.User(r); user != "" {
			done = append(done, zap.String("user", user))
		}
	}
	a.Logger.Info(what, done...)
}

// MarshalLogObject implements zapcore.ObjectMarshaler. What is a credential is a hash, as
// elsewhere in the log; of a raw client id there is none without whose it is.
func (s *selection) MarshalLogObject(to zapcore.ObjectEncoder) error {
	f := &s.filter
	add := func(name, value string) {
		if value != "" {
			to.AddString(name, value)
		}
	}
	hash := func(name string, id registry.ID, prefix []byte) {
		if id.IsZero() {
			add(name, hex.EncodeToString(prefix))
			return
		}
		add(name, short(id))
	}
	add("zone", s.zone)
	if !f.ID.IsZero() {
		to.AddString("id", f.ID.String())
	}
	add("state", string(f.State))
	hash("key", f.Key, f.KeyPrefix)
	hash("token", f.Token, f.TokenPrefix)
	hash("client", f.Client, f.ClientPrefix)
	add("sub", f.Sub)
	for name, value := range f.Labels {
		to.AddString("label."+name, value)
	}
	if !f.Before.IsZero() {
		to.AddTime("opened_before", f.Before)
	}
	if s.client != "" {
		to.AddBool("raw_client", true)
	}
	others := *s
	if others.filter.All = false; others.isZero() {
		to.AddBool("all", true)
	}
	return nil
}
