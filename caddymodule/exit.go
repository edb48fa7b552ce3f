package caddymodule

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.OnExit(func(context.Context) { endAll() })
}

// endAll ends what no configuration looks after any more when the process ends. Caddy itself
// does not wait for streams that outlast the grace period, be it that of a reload before:
// they would be cut off untold, and what a webhook is to hear of them would be lost.
func endAll() {
	ending.Store(true)
	for _, hook := range allHooks() {
		hook.Hurry() // what waits already need not wait for the streams
	}
	var zones []*leavingZone
	leavingZones.Range(func(_, z any) bool {
		zones = append(zones, z.(*leavingZone))
		return true
	})
	for _, z := range zones {
		<-z.drained
	}
	flushHooks() // they ask the zones who holds their keys
	for _, hook := range allHooks() {
		hook.Close() // it says what it has not posted
	}
	var closing sync.WaitGroup
	for _, z := range zones {
		closing.Go(z.close) // a registry that does not answer takes its time
	}
	closing.Wait()
}

// stopsOnly reports whether Caddy stops, rather than runs another configuration, and the
// process does not end: endAll is not called.
func stopsOnly() bool { return !caddy.Exiting() && caddy.ActiveContext().Context == nil }

// hasRun says that a configuration with a guard has run, and ending that endAll was called.
var hasRun, ending atomic.Bool

// refuseAtExit refuses a configuration that comes when the last one was stopped, and the
// process is about to exit: its streams would end in seconds, and untold, for nobody stops
// it.
func refuseAtExit() error {
	if ending.Load() || hasRun.Load() && caddy.Exiting() && caddy.ActiveContext().Context == nil {
		return errors.New("the process is about to exit, and runs no other configuration")
	}
	return nil
}
