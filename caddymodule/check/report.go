package check

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// Verdict is the answer to "is it working?".
type Verdict string

const (
	// Guarded: the guard has ended, refused or parked a stream for another's sake.
	Guarded Verdict = "guarded"
	// NotGuarded: streams were open that should not have been at the same time.
	NotGuarded Verdict = "not guarded"
	// Unknown: it did not come to that.
	Unknown Verdict = "could not tell"
)

// Report is what a check found.
type Report struct {
	Verdict Verdict `json:"verdict"`
	// Code names what was found, for programs.
	Code Code `json:"code"`
	// Summary says it in a sentence or two.
	Summary string `json:"summary"`
	// Hints are what may be the cause, and what to do about it.
	Hints []string `json:"hints"`
	// Takeover is the time from a newer stream's request to the notice of the older
	// one; 0 where there was none.
	Takeover time.Duration `json:"-"`
	Streams  []Stream      `json:"streams"`
	Steps    []Step        `json:"steps"`
}

// Code names what was found.
type Code string

// Codes, in the order in which they are looked for.
const (
	CodeSuperseded       Code = "superseded"
	CodeRejected         Code = "rejected"
	CodeParked           Code = "parked"
	CodeTombstoneIgnored Code = "tombstone_ignored"
	CodeEnded            Code = "ended" // for another reason
	CodeBothOpen         Code = "all_stay_open"
	CodeEndedUntold      Code = "ended_untold"
	CodeRefusedByBackend Code = "refused_by_backend"
	CodeUnreachable      Code = "unreachable"
	CodeTLS              Code = "tls"
	CodeNoAnswer         Code = "no_answer"
	CodeTwoTokens        Code = "two_tokens"
	CodeUnauthorized     Code = "unauthorized"
	CodeForbidden        Code = "forbidden"
	CodeUnavailable      Code = "unavailable"
	CodeRedirect         Code = "redirect"
	CodeNoStream         Code = "no_event_stream"
	CodeShort            Code = "ends_by_itself"
	CodeStopped          Code = "stopped"
)

// Stream is what became of one stream.
type Stream struct {
	Number      int     `json:"number"`
	Open        bool    `json:"open"` // at the end of the check
	Requests    int     `json:"requests"`
	Status      int     `json:"status,omitempty"` // of the first answer
	ContentType string  `json:"content_type,omitempty"`
	Events      int64   `json:"events"` // of the application's
	Notice      *Notice `json:"notice,omitempty"`
}

// report judges what was seen.
func (w *watch) report() *Report {
	r := w.judge()
	r.Steps = w.steps
	for _, s := range w.streams {
		out := Stream{Number: s.number, Open: s.isOpen(), Requests: len(s.connects), Events: s.events(), Notice: s.notice()}
		if len(s.connects) > 0 && s.connects[0].answer != nil {
			out.Status = s.connects[0].answer.status
			out.ContentType = clean(s.connects[0].answer.contentType)
		}
		r.Streams = append(r.Streams, out)
	}
	if r.Hints == nil {
		r.Hints = []string{}
	}
	return r
}

// ExitCode is 0 for Guarded, 1 for NotGuarded, and 2 for Unknown.
func (r *Report) ExitCode() int {
	switch r.Verdict {
	case Guarded:
		return 0
	case NotGuarded:
		return 1
	default:
		return 2
	}
}

// Print writes a line for a person.
func (s Step) Print(out io.Writer) {
	who := ""
	if s.Stream > 0 {
		who = fmt.Sprintf("stream %d ", s.Stream)
	}
	fmt.Fprintf(out, "%8s  %s%s\n", brief(s.At), who, s.Text)
}

// Print writes the verdict for a person, in lines that fit a terminal.
func (r *Report) Print(out io.Writer) {
	fmt.Fprintf(out, "\n%s\n", wrap(capital(string(r.Verdict))+": "+r.Summary, "", ""))
	for _, hint := range r.Hints {
		fmt.Fprintf(out, "%s\n", wrap(hint, "  - ", "    "))
	}
}

func capital(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// wrap breaks text into lines of at most 79 characters.
func wrap(text, first, others string) string {
	const width = 79
	var out strings.Builder
	line := first
	begun := false
	for word := range strings.FieldsSeq(text) {
		if begun && len([]rune(line))+1+len([]rune(word)) > width {
			out.WriteString(line + "\n")
			line, begun = others, false
		}
		if begun {
			line += " "
		}
		line += word
		begun = true
	}
	out.WriteString(line)
	return out.String()
}

// MarshalJSON has the time in milliseconds.
func (s Step) MarshalJSON() ([]byte, error) {
	type plain Step
	return json.Marshal(struct {
		At float64 `json:"at_ms"`
		plain
	}{milliseconds(s.At), plain(s)})
}

// MarshalJSON has the times in milliseconds.
func (n Notice) MarshalJSON() ([]byte, error) {
	type plain Notice
	return json.Marshal(struct {
		plain
		Retry float64 `json:"retry_ms"`
		After float64 `json:"after_ms"`
	}{plain(n), milliseconds(n.Retry), milliseconds(n.After)})
}

// MarshalJSON has the time in milliseconds.
func (r Report) MarshalJSON() ([]byte, error) {
	type plain Report
	return json.Marshal(struct {
		plain
		Takeover float64 `json:"takeover_ms,omitempty"`
	}{plain(r), milliseconds(r.Takeover)})
}

func milliseconds(d time.Duration) float64 { return float64(d.Round(time.Microsecond)) / 1e6 }
