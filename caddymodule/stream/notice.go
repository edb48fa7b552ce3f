package stream

import (
	"encoding/json"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

// Notice is an event that the guard itself sends: into a stream that it ends,
// or to a newcomer that it refuses.
type Notice struct {
	Reason registry.Reason
	// Name is the event's name; empty means the reason's Code.
	Name string
	// Tombstone is the event's id; empty where the client may come back.
	Tombstone string
	// Retry tells the client when to come back; 0 says nothing.
	Retry time.Duration
	// LastEventID is the last id that the application sent on this stream.
	LastEventID string
	Time        time.Time
}

// codes are the events' names on the wire, unless renamed, and what a person
// may read in them.
var codes = map[registry.Reason]struct{ code, message string }{
	registry.Superseded: {"DUPLICATED_CONNECTION", "A newer connection took over this stream. This one has ended."},
	registry.Replaced:   {"DUPLICATED_CONNECTION", "This client opened a newer connection. This one has ended."},
	registry.Parked:     {"DUPLICATED_CONNECTION", "Another connection holds this stream. This one waits until it is free."},
	registry.Rejected:   {"DUPLICATE_SESSION", "Another connection holds this stream already. This one was refused."},
	registry.Logout:     {"LOGGED_OUT", "The user logged out. This stream has ended."},
	registry.Expired:    {"TOKEN_EXPIRED", "The token has expired. This stream has ended; a fresh token opens a new one."},
}

// Code is the machine-readable name of reason in a notice, for example
// DUPLICATED_CONNECTION; empty if the reason has no event.
func Code(reason registry.Reason) string { return codes[reason].code }

// Reasons lists the reasons that have an event.
func Reasons() []registry.Reason {
	return []registry.Reason{
		registry.Superseded, registry.Replaced, registry.Parked, registry.Rejected, registry.Logout, registry.Expired,
	}
}

// payload is a notice's data, one line of JSON.
type payload struct {
	Code        string          `json:"code"`
	Reason      registry.Reason `json:"reason"`
	Message     string          `json:"message"`
	Time        string          `json:"time"`
	LastEventID string          `json:"lastEventId,omitempty"`
}

// Append appends the notice as one whole event. The error says which field
// cannot be written as one.
func (n Notice) Append(dst []byte) ([]byte, error) {
	c := codes[n.Reason]
	data, err := json.Marshal(payload{
		Code:        c.code,
		Reason:      n.Reason,
		Message:     c.message,
		Time:        n.Time.UTC().Format(time.RFC3339),
		LastEventID: n.LastEventID,
	})
	if err != nil {
		return dst, err
	}
	name := n.Name
	if name == "" {
		name = c.code
	}
	return eventstream.Event{ID: n.Tombstone, Retry: n.Retry, Name: name, Data: string(data)}.Append(dst)
}
