package caddymodule

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/registry/memory"
	"github.com/sse-guard/sse-guard/caddymodule/zone"
)

// start starts the app of a configuration, as Caddy does once all is provisioned.
func (c configuration) start(t testing.TB) *prometheus.Registry {
	t.Helper()
	app, err := appOf(c.Context)
	require.NoError(t, err)
	require.NoError(t, app.Start())
	return c.GetMetricsRegistry()
}

// shown are the guard's metrics in a registry, by name, without metricsPrefix.
func shown(t testing.TB, r prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	ours := make(map[string]*dto.MetricFamily)
	for _, f := range families {
		if name, is := strings.CutPrefix(f.GetName(), metricsPrefix); is {
			ours[name] = f
		}
	}
	return ours
}

// valueOf is a metric's value, or a histogram's number of observations, with these
// values of its labels in the order of their names; -1: there is none.
func valueOf(f *dto.MetricFamily, labels ...string) float64 {
	for _, m := range f.GetMetric() {
		var values []string
		for _, l := range m.GetLabel() {
			values = append(values, l.GetValue())
		}
		if !slices.Equal(values, labels) {
			continue
		}
		switch {
		case m.GetHistogram() != nil:
			return float64(m.GetHistogram().GetSampleCount())
		case m.GetGauge() != nil:
			return m.GetGauge().GetValue()
		default:
			return m.GetCounter().GetValue()
		}
	}
	return -1
}

// Names, units and help are as Prometheus wants them.
func TestMetrics_AreClean(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	c.handler(t, `{"zone": "clean"}`)
	problems, err := testutil.GatherAndLint(c.start(t))
	require.NoError(t, err)
	problems = slices.DeleteFunc(problems, func(p promlint.Problem) bool { return !strings.HasPrefix(p.Metric, metricsPrefix) })
	require.Empty(t, problems)
}

// All metrics are there from the start, as the table has them.
func TestMetrics_AreThoseOfTheTable(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	c.handler(t, `{"zone": "table"}`)
	families := shown(t, c.start(t))
	require.Len(t, families, len(metrics))
	for _, m := range metrics {
		f := families[m.name]
		require.NotNil(t, f, m.name)
		require.Equal(t, strings.ToUpper(string(m.kind)), f.GetType().String(), m.name)
		require.Equal(t, m.help, f.GetHelp())
		values := []string{}
		for _, s := range f.GetMetric() {
			for _, l := range s.GetLabel() {
				if l.GetName() == "zone" {
					require.Equal(t, "table", l.GetValue())
					continue
				}
				require.Equal(t, m.label, l.GetName())
				values = append(values, l.GetValue())
			}
		}
		require.ElementsMatch(t, m.values, values, m.name)
	}
}

func TestMetrics_CountWhatHappens(t *testing.T) {
	m := newZoneMetrics("z")
	z, err := zone.New("z", func(n registry.Node) (registry.Registry, error) { return memory.New(n), nil }, m)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, z.Close()) })
	for _, e := range []event.Event{
		event.Admitted{}, event.Admitted{}, event.Admitted{Superseding: true},
		event.Untracked{Cause: event.UntrackedKey},
		event.Refused{Outcome: event.OutcomeParked},
		event.Ended{Reason: reason.Superseded, Ending: &registry.Ending{Asked: time.Now().Add(-3 * time.Second)}, Age: time.Minute, Events: 5, Bytes: 50},
		event.Ended{Reason: reason.MaxAge, Ending: &registry.Ending{}, Age: time.Hour, Events: 1, Bytes: 10},
		event.Ended{Reason: event.Left},
		event.Ended{Reason: event.Finished},
		event.Probed{Proof: event.ProofDead},
		event.LoggedOut{}, // counts nowhere
	} {
		m.Observe(e)
	}
	m.RegistryAnswered(event.OpAdmit, time.Millisecond, false)
	m.RegistryAnswered(event.OpAdmit, time.Second, true)

	r := prometheus.NewPedanticRegistry()
	r.MustRegister(collector{map[string][]*zone.Zone{"z": {z}}})
	f := shown(t, r)
	for _, test := range []struct {
		want   float64
		metric metric
		labels []string
	}{
		{2, metricAdmissions, []string{"admitted", "z"}},
		{1, metricAdmissions, []string{"superseding", "z"}},
		{1, metricAdmissions, []string{"untracked", "z"}},
		{1, metricAdmissions, []string{"parked", "z"}},
		{0, metricAdmissions, []string{"rejected", "z"}},
		{1, metricUntracked, []string{"key", "z"}},
		{1, metricEnds, []string{"superseded", "z"}},
		{1, metricEnds, []string{"max_age", "z"}},
		{1, metricEnds, []string{"left", "z"}},
		{1, metricEnds, []string{"finished", "z"}},
		{1, metricTakeover, []string{"z"}},
		{4, metricLifetime, []string{"z"}},
		{6, metricEvents, []string{"z"}},
		{60, metricBytes, []string{"z"}},
		{1, metricProbes, []string{"dead", "z"}},
		{2, metricRegistry, []string{"admit", "z"}},
		{1, metricRegistryErrors, []string{"admit", "z"}},
		{1, metricRegistryUp, []string{"z"}},
	} {
		require.Equal(t, test.want, valueOf(f[test.metric.name], test.labels...), "%s %v", test.metric.name, test.labels)
	}
	took := f[metricTakeover.name].GetMetric()[0].GetHistogram().GetSampleSum()
	require.InDelta(t, 3, took, 1)
}

// A reload opens no zone anew that it keeps, and its metrics go on. Those of a zone that is
// gone are not shown.
func TestMetrics_OutliveAReload(t *testing.T) {
	old := newConfiguration(t, storageIn(t.TempDir()))
	old.handler(t, `{"zone": "gone"}`)
	kept := old.handler(t, `{"zone": "kept"}`)
	old.handler(t, `{"zone": "kept", "limit": 3}`)
	old.start(t)
	kept.zone.Metrics.Observe(event.Admitted{})

	reloaded := newConfiguration(t, storageIn(t.TempDir()))
	// With other options of its registry, it is another zone of the same name.
	again := reloaded.handler(t, `{"zone": "kept", "registry": {"module": "recording", "colour": "red"}}`)
	r := reloaded.start(t)
	old.unload()
	again.zone.Metrics.Observe(event.Admitted{})
	f := shown(t, r)
	require.EqualValues(t, 2, valueOf(f[metricAdmissions.name], "admitted", "kept"))
	for _, family := range f {
		require.NotContains(t, family.String(), "gone")
		require.Contains(t, family.String(), "kept")
	}

	reloaded.unload()
	anew := newConfiguration(t, storageIn(t.TempDir()))
	anew.handler(t, `{"zone": "kept"}`)
	require.Zero(t, valueOf(shown(t, anew.start(t))[metricAdmissions.name], "admitted", "kept"), "nobody has used it for a while")
}

// Guards with one zone name and different registries have different holders, and one
// row of metrics.
func TestMetrics_OfZonesOfOneNameAreOne(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	a := c.handler(t, `{"zone": "twice"}`)
	b := c.handler(t, `{"zone": "twice", "registry": {"module": "recording", "colour": "blue"}}`)
	require.NotSame(t, a.zone.Zone, b.zone.Zone)
	a.zone.Metrics.Observe(event.Admitted{})
	b.zone.Metrics.Observe(event.Admitted{})
	f := shown(t, c.start(t))
	require.EqualValues(t, 2, valueOf(f[metricAdmissions.name], "admitted", "twice"))
	require.Zero(t, valueOf(f[metricStreams.name], "live", "twice"))
}

// A stream that ends during a scrape may be in neither of the sums.
func TestMetrics_NoCounterFallsWhileAStreamEnds(t *testing.T) {
	m := newZoneMetrics("z")
	m.Observe(event.Ended{Events: 5, Bytes: 50})
	before := m.count(nil)
	m.overEvents.Store(3) // as if the rest were on its way from the list of streams to here
	m.overBytes.Store(30)
	require.Equal(t, before, m.count(nil))
	m.overEvents.Store(6)
	m.overBytes.Store(60)
	after := m.count(nil)
	require.EqualValues(t, 6, after.Events)
	require.EqualValues(t, 60, after.Bytes)
}

// A zone that cannot be opened leaves nothing behind.
func TestMetrics_OfAZoneThatDoesNotOpenAreNotKept(t *testing.T) {
	c := newConfiguration(t, storageIn(t.TempDir()))
	_, err := c.handlerOrErr(`{"zone": "failing", "registry": {"module": "failing"}}`)
	require.ErrorContains(t, err, "it is broken")
	_, exists := zonesMetrics.References("failing")
	require.False(t, exists)
	h := c.handler(t, `{"zone": "failing"}`)
	uses, _ := zonesMetrics.References("failing")
	require.Equal(t, 1, uses)
	require.NoError(t, h.Cleanup())
	_, exists = zonesMetrics.References("failing")
	require.False(t, exists)
}

func init() { caddy.RegisterModule(failing{}) }

// failing is a registry that does not open.
type failing struct{}

func (failing) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "sse_guard.registries.failing", New: func() caddy.Module { return new(failing) }}
}

func (*failing) Open(string, registry.Node) (registry.Registry, error) {
	return nil, errors.New("it is broken")
}

// distant is a registry that may be away, as one in another process.
type distant struct {
	*memory.Registry
	away error
}

func (d *distant) Away() error { return d.away }

func (d *distant) Missing() bool { return d.away != nil }

func TestMetrics_TellWhetherTheRegistryCanBeReached(t *testing.T) {
	var d distant
	z, err := zone.New("z", func(n registry.Node) (registry.Registry, error) { d.Registry = memory.New(n); return &d, nil }, newZoneMetrics("z"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, z.Close()) })
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(collector{map[string][]*zone.Zone{"z": {z}}})
	require.EqualValues(t, 1, valueOf(shown(t, r)[metricRegistryUp.name], "z"))
	d.away = errors.New("the connection is refused")
	require.Zero(t, valueOf(shown(t, r)[metricRegistryUp.name], "z"))
}

// grafanaName finds the guard's metrics in a query.
var grafanaName = regexp.MustCompile(`\b` + metricsPrefix + `[a-z_]+`)

// The dashboard shows every metric, and no other.
func TestMetrics_TheDashboardShowsThemAll(t *testing.T) {
	content, err := os.ReadFile("../testdata/grafana/sse_guard.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Definition string }
		}
	}
	require.NoError(t, json.Unmarshal(content, &dashboard))
	exist := make(map[string]bool)
	for _, m := range metrics {
		exist[m.fullName()] = true
		if m.kind == histogram {
			delete(exist, m.fullName())
			exist[m.fullName()+"_bucket"] = true
		}
	}
	seen := make(map[string]bool)
	look := func(where, expr string) {
		names := grafanaName.FindAllString(expr, -1)
		require.NotEmpty(t, names, "%s: %s", where, expr)
		for _, name := range names {
			require.True(t, exist[name], "%s: there is no %s", where, name)
			seen[name] = true
		}
	}
	for _, p := range dashboard.Panels {
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			look(p.Title, target.Expr)
			requireLabels(t, target.Expr)
		}
	}
	for _, v := range dashboard.Templating.List {
		if v.Definition != "" {
			look("a variable", v.Definition)
		}
	}
	require.Equal(t, exist, seen)
}

var (
	queryLabels = regexp.MustCompile(`(caddy_sse_guard_[a-z_]+)\{([^}]*)\}`)
	queryBy     = regexp.MustCompile(`by \(([a-z, ]+)\)`)
	labelName   = regexp.MustCompile(`([a-z]+)(=~|=)`)
)

// requireLabels is for a query that names labels which its metric has.
func requireLabels(t *testing.T, expr string) {
	t.Helper()
	for _, found := range queryLabels.FindAllStringSubmatch(expr, -1) {
		i := slices.IndexFunc(metrics, func(m *metric) bool { return m.fullName() == strings.TrimSuffix(found[1], "_bucket") })
		labels := append(metrics[i].labels(), "instance", "le")
		for _, l := range labelName.FindAllStringSubmatch(found[2], -1) {
			require.Contains(t, labels, l[1], expr)
		}
		for _, by := range queryBy.FindAllStringSubmatch(expr, -1) {
			for l := range strings.SplitSeq(by[1], ", ") {
				require.Contains(t, labels, l, expr)
			}
		}
	}
}
