//go:build race

package guard

// everyNth of the compositions is tried: the race detector makes them ten times as slow.
const everyNth = 11
