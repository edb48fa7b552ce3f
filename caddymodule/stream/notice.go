package stream

import (
	"encoding/json"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/eventstream"
	"github.com/sse-guard/sse-guard/caddymodule/reason"
)

// Notice is an event that the guard itself sends: into a stream that it ends,
// or to a newcomer that it refuses.
type Notice struct {
	Reason reason.Reason
	// Name is the event's name; empty means the Code of the reason's Meaning.
	Name string
	// Tombstone is the event's id; empty where the client may come back.
	Tombstone string
	// Retry tells the client when to come back; 0 says nothing.
	Retry time.Duration
	// LastEventID is the last id that the application sent on this stream.
	LastEventID string
	Time        time.Time
}

// payload is a notice's data, one line of JSON.
type payload struct {
	Code        string        `json:"code"`
	Reason      reason.Reason `json:"reason"`
	Message     string        `json:"message"`
	Time        string        `json:"time"`
	LastEventID string        `json:"lastEventId,omitempty"`
}

// Append appends the notice as one whole event. The error says which field
// cannot be written as one.
func (n Notice) Append(dst []byte) ([]byte, error) {
	m := n.Reason.Meaning()
	data, err := json.Marshal(payload{
		Code:        m.Code,
		Reason:      n.Reason,
		Message:     m.Message,
		Time:        n.Time.UTC().Format(time.RFC3339),
		LastEventID: n.LastEventID,
	})
	if err != nil {
		return dst, err
	}
	name := n.Name
	if name == "" {
		name = m.Code
	}
	return eventstream.Event{ID: n.Tombstone, Retry: n.Retry, Name: name, Data: string(data)}.Append(dst)
}
