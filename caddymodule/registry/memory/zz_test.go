package memory_test

import ("testing";"syscall";"unsafe";"runtime";"slices";"math/rand/v2";"fmt";"github.com/sse-guard/sse-guard/caddymodule/registry")

func cpu() int64 { var ts syscall.Timespec; syscall.Syscall(syscall.SYS_CLOCK_GETTIME, 3, uintptr(unsafe.Pointer(&ts)), 0); return ts.Nano() }

func rep(name string, per int, f func()) {
	runtime.LockOSThread()
	var xs []float64
	for range 2000 { a := cpu(); for range per { f() }; xs = append(xs, float64(cpu()-a)/float64(per)) }
	slices.Sort(xs)
	m := 0.0
	for _, x := range xs { m += x }
	fmt.Printf("%s p5 %.0f p50 %.0f mean %.0f ns cpu\n", name, xs[100], xs[1000], m/2000)
}

func TestZZ(t *testing.T) {
	var b testing.B
	streams := manyStreams(benchHeld)
	r := fullRegistry(&b, streams)
	rnd, s := rand.NewChaCha8([32]byte{2}), &registry.Stream{Handle: deaf{}}
	rep("rng", 500, func() { s.Key, s.Token = randomID(rnd), randomID(rnd) })
	rep("admitrelease", 500, func() { s.Key, s.Token = randomID(rnd), randomID(rnd); admit(r, s).Release() })
	i := 0
	rep("takeover", 500, func() { admit(r, streams[i%benchHeld]); i++ })
	rep("takeover-rand", 500, func() { admit(r, streams[rnd.Uint64()%benchHeld]) })
	chase := make([]uint32, 4<<20)
	p := rand.Perm(len(chase)); for i := range p { chase[p[i]] = uint32(p[(i+1)%len(p)]) }
	var c uint32
	rep("chase16MB", 500, func() { c = chase[c] })
	_ = c
}

func TestZZSmall(t *testing.T) {
	var b testing.B
	for _, n := range []int{100, 10000, 100000, 400000} {
	r := fullRegistry(&b, manyStreams(n))
	rnd, s := rand.NewChaCha8([32]byte{2}), &registry.Stream{Handle: deaf{}}
	rep(fmt.Sprint("admitrelease ", n), 500, func() { s.Key, s.Token = randomID(rnd), randomID(rnd); admit(r, s).Release() })
	}
}
