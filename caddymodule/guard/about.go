package guard

import (
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/event"
	"github.com/sse-guard/sse-guard/caddymodule/identity"
	"github.com/sse-guard/sse-guard/caddymodule/presence"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
	"github.com/sse-guard/sse-guard/caddymodule/stream"
)

// Label is a name with a value that each stream has for itself.
type Label struct {
	Name string
	// Value has placeholders, which are replaced when the stream opens.
	Value string
}

// Presence has the streams with one value of a label told how many they are, whenever that
// changes.
type Presence struct {
	// Label is the name of one of the Labels.
	Label string
	presence.Telling
}

// attend has the request's stream, which is admitted, count in the groups of its labels.
func (q *request) attend(s *stream.Stream) {
	for _, p := range q.guard.Presence {
		q.guard.Zone.Presence.Enter(s, p.Label, s.About().Labels.Value(p.Label), p.Telling)
	}
}

// longestPath is how many bytes of its path a stream keeps.
const longestPath = 256

// about is what lists show of the request's stream. It is asked for when the stream
// opens, or is parked.
func (q *request) about() registry.About {
	a := registry.About{
		Protocol: q.r.Proto,
		Path:     registry.Shorten(identity.WithoutParameters(q.env.Path()), longestPath),
		Labels:   q.labels(),
	}
	if q.verified() {
		a.Sub = q.claims.Sub
	}
	return a
}

// labels are those of the request's stream, as far as they are known now.
func (q *request) labels() registry.Labels {
	labels := registry.Labels{Names: q.guard.labelNames}
	if len(labels.Names) > 0 {
		labels.Values = make([]string, len(labels.Names))
	}
	for i, l := range q.guard.Labels {
		labels.Values[i] = q.label(l)
	}
	return labels
}

// labeled is who asks, with the labels of the stream.
func (q *request) labeled() event.Who {
	who := q.self()
	if s := q.response.Stream(); s != nil {
		who.Labels = s.About().Labels
	} else {
		who.Labels = q.labels()
	}
	return who
}

// label is the value of a label. A token is none: lists show labels as they are.
func (q *request) label(l Label) string {
	value := strings.ToValidUTF8(strings.TrimSpace(q.env.Expand(l.Value, q.placeholder)), "\uFFFD")
	if q.credentials.Shows(value) {
		if q.guard.lines.may("a token as a label", time.Hour) {
			q.guard.Logger.Warn("a label's value holds the request's token, and is left empty: lists would show it; use {sse_guard.token}, a hash",
				q.guard.zoneField(), zap.String("label", l.Name))
		}
		return ""
	}
	return registry.LabelValue(value)
}

// namesOf are the names of labels, which the streams of a guard share.
func namesOf(labels []Label) []string {
	var names []string
	for _, l := range labels {
		names = append(names, l.Name)
	}
	return slices.Clip(names)
}
