package caddymodule

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// metric is one of those that Caddy's metrics show, for each zone. The label zone is its
// first, and label, if it has one, the second. Labels have few values: none is made of
// what a client sends.
type metric struct {
	name  string // behind metricsPrefix
	kind  metricKind
	label string
	// values of label are shown from the start, so that a rate knows of the first.
	values []string
	// buckets of a histogram, in seconds.
	buckets []float64
	help    string
}

type metricKind string

const (
	gauge     metricKind = "gauge"
	counter   metricKind = "counter"
	histogram metricKind = "histogram"
)

const metricsPrefix = "caddy_sse_guard_"

var (
	metricStreams = metric{
		name: "streams", kind: gauge, label: "state", values: texts(registry.States),
		help: "Streams that are there now, and newcomers that are parked. Behind several guards, a response has a stream of each.",
	}
	metricAdmissions = metric{
		name: "admissions_total", kind: counter, label: "outcome", values: texts(event.Outcomes),
		help: "Requests for a stream, by what became of them.",
	}
	metricUntracked = metric{
		name: "untracked_total", kind: counter, label: "cause", values: texts(event.UntrackedCauses),
		help: "Streams that pass without counting, by why.",
	}
	metricEnds = metric{
		name: "ends_total", kind: counter, label: "reason", values: texts(endReasons()),
		help: "Streams that are over, by why: the client left, the backend finished, or the guard ended it.",
	}
	metricTakeover = metric{
		name: "takeover_seconds", kind: histogram,
		buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		help:    "Time from a newcomer's request to the end of the older stream whose key it took.",
	}
	metricLifetime = metric{
		name: "stream_seconds", kind: histogram,
		buckets: []float64{1, 5, 15, 60, 5 * 60, 15 * 60, 3600, 4 * 3600, 12 * 3600, 24 * 3600},
		help:    "How long streams lived that are over.",
	}
	metricEvents = metric{
		name: "events_total", kind: counter,
		help: "Events that were relayed. Those of compressed and untracked streams are not told apart.",
	}
	metricBytes = metric{
		name: "bytes_total", kind: counter,
		help: "Bytes of streams that were relayed.",
	}
	metricProbes = metric{
		name: "probes_total", kind: counter, label: "result", values: texts(event.Proofs),
		help: "Holders that had to prove that they live before a newcomer is rejected, by what was found.",
	}
	metricRegistry = metric{
		name: "registry_seconds", kind: histogram, label: "operation", values: texts(event.Operations),
		buckets: []float64{.00001, .0001, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		help:    "How long the registry took to answer.",
	}
	metricRegistryErrors = metric{
		name: "registry_errors_total", kind: counter, label: "operation", values: texts(event.Operations),
		help: "Calls of the registry that failed.",
	}
	metricRegistryUp = metric{
		name: "registry_up", kind: gauge,
		help: "Whether the registry can be reached (1) or not (0).",
	}
)

// metrics has all of them, in the order in which users read of them.
var metrics = []*metric{
	&metricStreams, &metricAdmissions, &metricUntracked, &metricEnds, &metricTakeover, &metricLifetime,
	&metricEvents, &metricBytes, &metricProbes, &metricRegistry, &metricRegistryErrors, &metricRegistryUp,
}

// endReasons are those for which streams are over. Newcomers that are rejected or parked
// have none yet.
func endReasons() []reason.Reason {
	reasons := []reason.Reason{event.Left, event.Finished}
	for _, r := range reason.All() {
		if r != reason.Rejected && r != reason.Parked {
			reasons = append(reasons, r)
		}
	}
	return reasons
}

func (m *metric) fullName() string { return metricsPrefix + m.name }

func (m *metric) labels() []string {
	if m.label == "" {
		return []string{"zone"}
	}
	return []string{"zone", m.label}
}

func (m *metric) desc() *prometheus.Desc {
	return prometheus.NewDesc(m.fullName(), m.help, m.labels(), nil)
}

// counterOf counts m in one zone.
func counterOf(m *metric, zone string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.fullName(), Help: m.help}, m.labels())
	for _, value := range m.values {
		v.WithLabelValues(zone, value)
	}
	return v
}

// histogramOf is counterOf for a histogram.
func histogramOf(m *metric, zone string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.fullName(), Help: m.help, Buckets: m.buckets}, m.labels())
	if m.label == "" {
		v.WithLabelValues(zone)
	}
	for _, value := range m.values {
		v.WithLabelValues(zone, value)
	}
	return v
}

// zoneMetrics counts what happens in the zones of one name. It is the event.Metrics of
// them. Nothing is counted per relayed event: a stream's own counts are added when it is
// over, and looked at when somebody asks for the metrics.
type zoneMetrics struct {
	zone string

	admissions, untracked, ends, probes, registryErrors *prometheus.CounterVec
	takeover, lifetime, registry                        *prometheus.HistogramVec

	// overEvents and overBytes count what was relayed by streams that are over.
	overEvents, overBytes atomic.Uint64

	// mu guards what was reported of these counters last. It is held while the streams are
	// counted.
	mu            sync.Mutex
	events, bytes uint64
}

func newZoneMetrics(zone string) *zoneMetrics {
	return &zoneMetrics{
		zone:           zone,
		admissions:     counterOf(&metricAdmissions, zone),
		untracked:      counterOf(&metricUntracked, zone),
		ends:           counterOf(&metricEnds, zone),
		probes:         counterOf(&metricProbes, zone),
		registryErrors: counterOf(&metricRegistryErrors, zone),
		takeover:       histogramOf(&metricTakeover, zone),
		lifetime:       histogramOf(&metricLifetime, zone),
		registry:       histogramOf(&metricRegistry, zone),
	}
}

// Observe implements event.Observer.
func (m *zoneMetrics) Observe(e event.Event) {
	switch e := e.(type) {
	case event.Admitted:
		if e.Superseding {
			m.admitted(event.OutcomeSuperseding)
		} else {
			m.admitted(event.OutcomeAdmitted)
		}
	case event.Untracked:
		m.admitted(event.OutcomeUntracked)
		m.untracked.WithLabelValues(m.zone, string(e.Cause)).Inc()
	case event.Refused:
		m.admitted(e.Outcome)
	case event.Ended:
		m.ended(e)
	case event.Probed:
		m.probes.WithLabelValues(m.zone, string(e.Proof)).Inc()
	}
}

func (m *zoneMetrics) admitted(o event.Outcome) {
	m.admissions.WithLabelValues(m.zone, string(o)).Inc()
}

func (m *zoneMetrics) ended(e event.Ended) {
	m.overEvents.Add(e.Events)
	m.overBytes.Add(uint64(e.Bytes))
	m.ends.WithLabelValues(m.zone, string(e.Reason)).Inc()
	m.lifetime.WithLabelValues(m.zone).Observe(e.Age.Seconds())
	if e.Ending != nil && !e.Ending.Asked.IsZero() {
		m.takeover.WithLabelValues(m.zone).Observe(max(time.Since(e.Ending.Asked).Seconds(), 0)) // of another node's clock, nearly
	}
}

// RegistryAnswered implements event.Metrics.
func (m *zoneMetrics) RegistryAnswered(op event.Operation, took time.Duration, failed bool) {
	m.registry.WithLabelValues(m.zone, string(op)).Observe(took.Seconds())
	if failed {
		m.registryErrors.WithLabelValues(m.zone, string(op)).Inc()
	}
}

// Destruct implements caddy.Destructor: there is nothing to give back.
func (*zoneMetrics) Destruct() error { return nil }

// collect sends all metrics of the zones, which have this name.
func (m *zoneMetrics) collect(zones []*zone.Zone, ch chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{
		m.admissions, m.untracked, m.ends, m.probes, m.registryErrors, m.takeover, m.lifetime, m.registry,
	} {
		c.Collect(ch)
	}
	all, up := m.count(zones), 1.0
	for _, z := range zones {
		if z.RegistryAway() != nil {
			up = 0
		}
	}
	ch <- prometheus.MustNewConstMetric(metricRegistryUp.desc(), prometheus.GaugeValue, up, m.zone)
	ch <- prometheus.MustNewConstMetric(metricEvents.desc(), prometheus.CounterValue, float64(all.Events), m.zone)
	ch <- prometheus.MustNewConstMetric(metricBytes.desc(), prometheus.CounterValue, float64(all.Bytes), m.zone)
	for _, state := range registry.States {
		ch <- prometheus.MustNewConstMetric(metricStreams.desc(), prometheus.GaugeValue, float64(all.States[state]), m.zone, string(state))
	}
}

// count counts the streams of the zones, and sums up what was relayed, since the name's
// first zone was opened.
func (m *zoneMetrics) count(zones []*zone.Zone) zone.Census {
	m.mu.Lock()
	defer m.mu.Unlock()
	// A stream that ends between the two is in neither sum, and comes with the next. A
	// counter that falls would look like one that began anew.
	sum := zone.Census{Events: m.overEvents.Load(), Bytes: m.overBytes.Load(), States: make(map[registry.State]int)}
	for _, z := range zones {
		c := z.Streams.Census()
		for state, n := range c.States {
			sum.States[state] += n
		}
		sum.Events += c.Events
		sum.Bytes += c.Bytes
	}
	m.events, m.bytes = max(m.events, sum.Events), max(m.bytes, sum.Bytes)
	sum.Events, sum.Bytes = m.events, m.bytes
	return sum
}

// zonesMetrics keeps the metrics of zones, by their names, for as long as guards use a
// zone of that name: counters go on over reloads.
var zonesMetrics = caddy.NewUsagePool()

// collector shows the metrics of a configuration's zones. Each configuration has a
// registry of its own, so those of zones that it has not are not shown any more.
type collector struct {
	zones map[string][]*zone.Zone // by name; not changed
}

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range metrics {
		ch <- m.desc()
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, zones := range c.zones {
		if m, ok := zones[0].Metrics.(*zoneMetrics); ok {
			m.collect(zones, ch)
		}
	}
}

// Interface guards
var (
	_ event.Metrics        = (*zoneMetrics)(nil)
	_ caddy.Destructor     = (*zoneMetrics)(nil)
	_ prometheus.Collector = collector{}
)
