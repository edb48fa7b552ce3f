package event

import "time"

// Metrics counts what happens in a zone. It is an Observer of all events, and is told
// besides what happens too often to make an event of it. NoMetrics counts nothing.
type Metrics interface {
	Observer
	// RegistryAnswered is told how long the registry took, and whether it failed. Like
	// Observe it must not block.
	RegistryAnswered(op Operation, took time.Duration, failed bool)
}

// Operation is what a registry is asked.
type Operation string

// The operations are methods of registry.Registry, and registry.Place.Commit. What does
// not wait for anybody is not among them.
const (
	OpAdmit  Operation = "admit"
	OpCommit Operation = "commit"
	OpEnd    Operation = "end"
	OpFind   Operation = "find"
	OpWait   Operation = "wait"
	OpDeny   Operation = "deny"
	OpEach   Operation = "each"
)

// Operations has all of them.
var Operations = []Operation{OpAdmit, OpCommit, OpEnd, OpFind, OpWait, OpDeny, OpEach}

// NoMetrics is the Metrics that count nothing.
type NoMetrics struct{}

// Observe implements Observer.
func (NoMetrics) Observe(Event) {}

// RegistryAnswered implements Metrics.
func (NoMetrics) RegistryAnswered(Operation, time.Duration, bool) {}
