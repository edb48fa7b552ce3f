package wheel

import "time"

// Precision is the length of a tick.
const Precision = 100 * time.Millisecond

// Tick is a point of time as a Wheel tells it: so many times Precision after it
// was made, by the monotonic clock. (On Linux, it stands still while the machine
// is suspended.) What is noted as a Tick happened then or up to a Precision later,
// as long as the timer is not late.
type Tick int64

// Since returns how long before t the earlier tick was.
func (t Tick) Since(earlier Tick) time.Duration { return time.Duration(t-earlier) * Precision }

// ticks rounds up: what is due between two ticks is due at the later one.
func ticks(d time.Duration) Tick {
	t := Tick(d / Precision)
	if d%Precision > 0 {
		t++
	}
	return t
}
