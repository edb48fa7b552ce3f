package steer

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

const crowd = 10_000

// crowded is a site with so many streams.
func crowded(b *testing.B) (s *site, one *guest) {
	s = newSite(b, "default")
	for i := range crowd {
		one = s.open(s.zones[0], fmt.Sprint(i), labelled(fmt.Sprint("room ", i%100)), verified(fmt.Sprint("user ", i)))
	}
	b.ResetTimer()
	return s, one
}

// get asks the API without a network.
func (s *site) get(path string) int {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, Prefix+path, nil)
	w := httptest.NewRecorder()
	s.api.ServeHTTP(w, r)
	return w.Body.Len()
}

// BenchmarkList lists 10,000 streams, page by page, or counts them, or finds some.
func BenchmarkList(b *testing.B) {
	s, _ := crowded(b)
	for name, once := range map[string]func(){
		"all": func() {
			for cursor := ""; ; {
				page, next, _, _ := pageOf(context.Background(), s.places(), &listed{selection: everybody(), limit: mostLimit, cursor: cursor})
				if cursor = next; next == "" || len(page) == 0 {
					return
				}
			}
		},
		"page":  func() { s.get("streams?limit=100") },
		"user":  func() { s.get("streams?subject=user+7") },
		"room":  func() { s.get("streams?label.room=room+7") },
		"stats": func() { s.get("stats") },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				once()
			}
		})
	}
}

func everybody() (sel selection) {
	sel.everything()
	return sel
}

func (s *site) places() []place {
	all, _ := places(context.Background(), s.zones)
	return all
}

// BenchmarkRelay_WhileListed is how long an event takes through a stream while nobody
// lists the 10,000 that there are, or somebody does all the time. Each listing has a
// core for itself, as far as there are two.
func BenchmarkRelay_WhileListed(b *testing.B) {
	s, one := crowded(b)
	for _, listing := range []bool{false, true} {
		b.Run(fmt.Sprintf("listing=%t", listing), func(b *testing.B) {
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for listing {
					select {
					case <-stop:
						return
					default:
						s.get("streams?limit=1000")
						s.get("stats")
					}
				}
			}()
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				one.say()
				took = append(took, time.Since(began))
			}
			close(stop)
			<-stopped
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
		})
	}
}

// BenchmarkStatesHere counts 10,000 streams by their states, as the live page does every
// few seconds while nobody looks at it.
func BenchmarkStatesHere(b *testing.B) {
	s, _ := crowded(b)
	b.ReportAllocs()
	for b.Loop() {
		s.api.StatesHere(context.Background())
	}
}
