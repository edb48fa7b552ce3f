package console

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sse-guard/sse-guard/caddymodule/internal/printable"
)

// End says which streams are ended, and how.
type End struct {
	selected
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Deny is how long the tokens and users of the streams are not welcome: a duration.
	Deny  string `json:"deny,omitempty"`
	Limit int    `json:"limit,omitempty"`
}

// Reasons are those for which an operator may end streams.
var Reasons = []string{"revoked", "logout", "expired", "max_age"}

// NewEnd ends the streams that the filter names, or all.
func NewEnd(f Filter, all bool) (*End, error) {
	e := &End{selected: selected{Select: f, All: all}}
	if err := e.check(); err != nil {
		return nil, err
	}
	return e, nil
}

// Ended is what came of it.
type Ended struct {
	Ended int `json:"ended"`
	// Problem is what went wrong on the way; empty: nothing.
	Problem string `json:"warning,omitempty"`
}

// End ends streams.
func (c *Client) End(ctx context.Context, e *End) (*Ended, error) {
	var done Ended
	if err := c.post(ctx, "end", e, &done); err != nil {
		return nil, err
	}
	return &done, nil
}

// Print says how many it were.
func (e *Ended) Print(out io.Writer) { printCount(out, e.Ended, "ended") }

// Warning is what went wrong on the way; empty: nothing.
func (e *Ended) Warning() string { return printable.Text(e.Problem, longestWords) }

// Notify says which streams get an event, and which.
type Notify struct {
	selected
	Event string `json:"event,omitempty"`
	Data  string `json:"data"`
}

// NewNotify sends an event to the streams that the filter names, or to all.
func NewNotify(f Filter, all bool, event, data string) (*Notify, error) {
	n := &Notify{selected: selected{Select: f, All: all}, Event: event, Data: data}
	if data == "" {
		return nil, errors.New("--data is empty: clients drop an event without data")
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	return n, nil
}

// Notified is what came of it.
type Notified struct {
	Notified int `json:"notified"`
}

// Notify sends an event to streams.
func (c *Client) Notify(ctx context.Context, n *Notify) (*Notified, error) {
	var done Notified
	if err := c.post(ctx, "notify", n, &done); err != nil {
		return nil, err
	}
	return &done, nil
}

// Print says how many it were.
func (n *Notified) Print(out io.Writer) { printCount(out, n.Notified, "notified") }

// Warning is empty: there are no warnings.
func (*Notified) Warning() string { return "" }

func printCount(out io.Writer, n int, verb string) {
	was := "were"
	if n == 1 {
		was = "was"
	}
	fmt.Fprintf(out, "%s %s %s.\n", streams(n), was, verb)
}
