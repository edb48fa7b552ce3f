package caddymodule

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// describe has a span, such as Caddy's directive tracing makes, carry what the guard
// knows of a stream, or of a request that was refused one. The attributes are called like
// placeholders. Where guards stand behind each other, the outermost does it for all.
func (e *environment) describe(span trace.Span, zone string) {
	if e.own == nil || e.own(ownPlaceholders+"state") == "" {
		return
	}
	attributes := []attribute.KeyValue{attribute.String(ownPlaceholders+"zone", zone)}
	for _, name := range spanPlaceholders {
		if value := e.own(name); value != "" {
			attributes = append(attributes, attribute.String(name, value))
		}
	}
	span.SetAttributes(attributes...)
}

// spanPlaceholders are those that a span carries. They hold nothing but hashes and the
// guard's own words.
var spanPlaceholders = []string{
	ownPlaceholders + "key", ownPlaceholders + "stream", ownPlaceholders + "state", ownPlaceholders + "reason",
}
