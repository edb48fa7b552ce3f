// Package harness is what the end-to-end tests share, for campaigns and benchmarks
// too: Caddy in this process and as a process of its own, backends, clients that
// speak Server-Sent Events over every protocol, a browser, issuers of tokens, and
// networks that fail.
//
// Whatever it starts ends with the test that started it. What is costly to start
// is shared by all tests of a package, whose TestMain therefore calls Main.
package harness

import "time"

// Patience bounds every wait for something that should happen at once. It is
// long because the race detector and a busy machine are slow, and it costs
// nothing where the thing does happen.
const Patience = 20 * time.Second
