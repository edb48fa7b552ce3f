package main

import (
	"fmt"
	"math"
)

// row is one line of the report. What a row does not have is nil.
type row struct {
	What    string   `json:"what"`
	Unit    string   `json:"unit,omitempty"`
	Plain   *float64 `json:"plain,omitempty"`   // median
	Guarded *float64 `json:"guarded,omitempty"` // median

	// Against compares guarded with plain, by the kind of comparison.
	Against *spread    `json:"against,omitempty"`
	Kind    comparison `json:"kind,omitempty"`

	Goal *goal `json:"goal,omitempty"`
}

// comparison is how guarded is compared with plain.
type comparison string

const (
	byRatio      comparison = "ratio"      // guarded / plain
	byDifference comparison = "difference" // guarded - plain, in the row's unit
)

// goal is a budget of the design: the comparison, or the value if there is
// none, is to be AtMost this. A quick run judges none.
type goal struct {
	AtMost float64 `json:"at_most"`
	Met    *bool   `json:"met,omitempty"`
}

func ratioRow(what, unit string, p *pairs) row {
	return pairRow(what, unit, p, byRatio, p.compare(ratio))
}

func differenceRow(what, unit string, p *pairs) row {
	return pairRow(what, unit, p, byDifference, p.compare(difference))
}

func pairRow(what, unit string, p *pairs, kind comparison, against spread) row {
	return row{
		What: what, Unit: unit,
		Plain: new(median(p.plain)), Guarded: new(median(p.guarded)),
		Against: &against, Kind: kind,
	}
}

// guardedRow is for what only a guard does.
func guardedRow(what, unit string, value float64) row {
	return row{What: what, Unit: unit, Guarded: &value}
}

// atMost gives the row a goal. What cannot be told has not met it.
func (r row) atMost(limit float64) row {
	value := *r.Guarded
	if r.Against != nil {
		value = r.Against.Median
	}
	r.Goal = &goal{AtMost: limit, Met: new(value <= limit)}
	return r
}

// cells are the row's texts in the table.
func (r row) cells() []string {
	return []string{r.What, r.value(r.Plain), r.value(r.Guarded), r.against(), r.goal(), r.result()}
}

func (r row) value(v *float64) string {
	if v == nil {
		return "-"
	}
	return withUnit(number(*v), r.Unit)
}

func (r row) against() string {
	if r.Against == nil {
		return "-"
	}
	a := *r.Against
	if r.Kind == byRatio {
		return fmt.Sprintf("%.3fx (%.3f to %.3f)", a.Median, a.Low, a.High)
	}
	return fmt.Sprintf("%s (%s to %s)", withUnit(signed(a.Median), r.Unit), signed(a.Low), signed(a.High))
}

func (r row) goal() string {
	switch {
	case r.Goal == nil:
		return ""
	case r.Kind == byRatio:
		return fmt.Sprintf("<= %.2fx", r.Goal.AtMost)
	case r.Kind == byDifference:
		return "<= " + withUnit(fmt.Sprintf("%+g", r.Goal.AtMost), r.Unit)
	default:
		return "<= " + withUnit(fmt.Sprintf("%g", r.Goal.AtMost), r.Unit)
	}
}

func (r row) result() string {
	switch {
	case r.Goal == nil:
		return ""
	case r.Goal.Met == nil:
		return "not judged"
	case *r.Goal.Met:
		return "met"
	default:
		return "missed"
	}
}

// number shows three digits, or all before the point.
func number(v float64) string {
	switch abs := math.Abs(v); {
	case abs >= 100:
		return fmt.Sprintf("%.0f", v)
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func signed(v float64) string {
	if v < 0 {
		return number(v)
	}
	return "+" + number(v)
}

func withUnit(number, unit string) string {
	switch {
	case unit == "":
		return number
	case unit[0] == '/':
		return number + unit
	default:
		return number + " " + unit
	}
}
