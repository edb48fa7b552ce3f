package harness

import "time"

// Event is one event as a page's listener gets it, with the retry and the
// comments that came since the event before.
type Event struct {
	ID       string // the last event id at this event, which may be an older event's
	Type     string // "message" unless the event names another
	Data     string
	Retry    *time.Duration
	Comments []string
}
