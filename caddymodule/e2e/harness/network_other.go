//go:build !linux

package harness

import "testing"

// networkUse is of systems on which no test makes network devices.
type networkUse struct{}

var networkStays networkUse

func (networkUse) by(testing.TB) {}
