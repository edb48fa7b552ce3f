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
	// Message is what a person may read; empty means the Message of the Meaning.
	Message string
	// Tombstone is the event's id; empty where the client may come back.
	Tombstone string
	// Retry tells the client when to come back; 0 says nothing.
	Retry time.Duration
	// LastEventID is the last id that the application sent on this stream.
	LastEventID string
	Time        time.Time
}

// payload is a notice's data, one line of JSON. It is an error to the SDKs of
// language models too, which look for type or error in the data: they would take the
// answer for a whole one else, or fail at the fields that it lacks.
type payload struct {
	Type        string        `json:"type"`
	Code        string        `json:"code"`
	Reason      reason.Reason `json:"reason"`
	Message     string        `json:"message"`
	Time        string        `json:"time"`
	LastEventID string        `json:"lastEventId,omitempty"`
	Error       payloadError  `json:"error"`
}

type payloadError struct {
	Type    string `json:"type"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Append appends the notice as one whole event. The error says which field
// cannot be written as one.
func (n Notice) Append(dst []byte) ([]byte, error) {
	m := n.Reason.Meaning()
	message := n.Message
	if message == "" {
		message = m.Message
	}
	data, err := json.Marshal(payload{
		Type:        "error",
		Code:        m.Code,
		Reason:      n.Reason,
		Message:     message,
		Time:        n.Time.UTC().Format(time.RFC3339),
		LastEventID: n.LastEventID,
		Error:       payloadError{Type: "sse_guard", Code: m.Code, Message: message},
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
