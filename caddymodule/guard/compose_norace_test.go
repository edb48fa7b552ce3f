//go:build !race

package guard

// everyNth of the compositions is tried: all.
const everyNth = 1
