package zone

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// openMany opens n streams, each of a key of its own.
func (h *house) openMany(n int) (guests []*guest) {
	for i := range n {
		guests = append(guests, h.open(fmt.Sprint(i)))
	}
	return guests
}

// requireShutDown requires that all streams end, and are told why.
func requireShutDown(t *testing.T, guests []*guest) {
	t.Helper()
	for _, g := range guests {
		<-g.done
		require.Contains(t, g.rec.Body.String(), "shutdown")
	}
}

func TestDrain_EndsWhatIsInTheDirectory(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		guests := h.openMany(20)
		require.False(t, h.IsDraining())
		began := time.Now()
		h.Drain(Drain{Window: 4 * time.Second}, zap.NewNop())
		require.True(t, h.IsDraining())
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
		require.Greater(t, time.Since(began), 500*time.Millisecond, "not all at once")
		requireShutDown(t, guests)
		require.LessOrEqual(t, h.DrainReturn(), 4*time.Second)
	})
}

func TestDrain_EndsAtTheRateAtLeast(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		guests := h.openMany(60)
		began := time.Now()
		h.Drain(Drain{Window: time.Hour, Rate: 30}, zap.NewNop())
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
		require.Greater(t, time.Since(began), time.Second)
		requireShutDown(t, guests)
	})
}

func TestDrain_EndsTheRestAtOnceWhenItIsHurried(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		guests := h.openMany(200)
		began := time.Now()
		go h.Drain(Drain{Window: time.Minute}, zap.NewNop())
		<-time.After(time.Second)
		synctest.Wait()
		require.Greater(t, h.Streams.Len(), 150, "it has time")
		h.HurryDrain()
		h.HurryDrain()
		requireShutDown(t, guests)
		require.Less(t, time.Since(began), 2*time.Second)
	})
}

func TestDrainLast_WaitsForNobodyWhoHangs(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		hang := make(chan struct{})
		h.DrainedBy(Drain{Window: time.Second, EndTimeout: 2 * time.Second})
		g := h.openTo("a", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("data: hello\n\n"))
			<-hang // whatever its context says, as a FastCGI backend does
		})
		began := time.Now()
		core, logs := observer.New(zap.WarnLevel)
		h.DrainLast(zap.New(core))
		require.Equal(t, 2*time.Second+endMargin, time.Since(began))
		require.Equal(t, 1, logs.FilterMessageSnippet("streams hang").Len())
		close(hang)
		<-g.done
	})
}

func TestDrainLast_WaitsForThoseWhoAreTold(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		h.DrainedBy(Drain{Window: time.Minute, EndTimeout: 10 * time.Second})
		g := h.open("a")
		told := h.Telling()
		drained := make(chan struct{})
		go func() {
			h.DrainLast(zap.NewNop())
			close(drained)
		}()
		<-g.done
		<-time.After(time.Second)
		synctest.Wait()
		select {
		case <-drained:
			t.Fatal("nobody knows yet that the stream is over")
		default:
		}
		told()
		<-drained
		require.Zero(t, h.Streams.Len())
	})
}

func TestDrainLast_OfAZoneThatNoGuardEverUsed(t *testing.T) {
	inZone(t, func(t *testing.T, h *house) {
		g := h.open("a")
		h.DrainLast(zap.NewNop())
		require.False(t, h.IsDraining(), "nobody said how")
		close(g.finish)
		<-g.done
	})
}
