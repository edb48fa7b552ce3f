// Package campaign plays a history that chance has made against several nodes and the
// Redis that they share, and has package checker look at it.
//
// Three real Caddy processes reach a real redis-server, which has a replica, through
// toxiproxy. Clients open, close, leave and come back while nodes are killed, stopped and
// frozen, and Redis is cut off, slowed, flushed, restarted and failed over.
//
// All that the campaign decides comes from its seed, which it prints:
//
//	go test ./caddymodule/e2e/campaign -run TestCampaign -v -args -seed 7 -for 10m
//
// plays that of seed 7 again. What happens at the same time on several processors is in
// nobody's hand; the decisions are the same.
package campaign

import (
	"flag"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

var (
	seedFlag = flag.Uint64("seed", fromEnvironment("CAMPAIGN_SEED", 0, parseSeed), "decides all; 0: another one each time")
	lastFlag = flag.Duration("for", fromEnvironment("CAMPAIGN_FOR", time.Minute, time.ParseDuration), "how long the campaign lasts")
)

func parseSeed(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }

func fromEnvironment[T any](name string, otherwise T, parse func(string) (T, error)) T {
	s, set := os.LookupEnv(name)
	if !set {
		return otherwise
	}
	value, err := parse(s)
	if err != nil {
		panic(name + ": " + err.Error())
	}
	return value
}

func TestMain(m *testing.M) {
	flag.Parse()
	// A toxic whose connection is cut may wait for ever for who takes what it has.
	harness.Main(m, "github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run")
}
