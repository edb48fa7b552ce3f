package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// everyProtocol are those that a site over TLS speaks.
var everyProtocol = []harness.Protocol{harness.HTTP1, harness.HTTP2, harness.HTTP3}

// startTalking starts a backend that sends an event each time it is told to, and
// closes left when its request is canceled.
func startTalking(t testing.TB) (url string, say chan<- string, left <-chan struct{}) {
	t.Helper()
	words, gone := make(chan string), make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for word := "hello"; ; {
			_, _ = fmt.Fprintf(w, "data: %s\n\n", word)
			w.(http.Flusher).Flush()
			select {
			case word = <-words:
			case <-r.Context().Done():
				gone <- struct{}{}
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, words, gone
}

// TestComeBack_IsCutWithoutATrace: the client sees its stream cut, between two
// events, behind the time at which it is to come back; nobody logs anything, and the
// upstream has not failed.
func TestComeBack_IsCutWithoutATrace(t *testing.T) {
	for _, protocol := range everyProtocol {
		t.Run(string(protocol), func(t *testing.T) {
			url, _, left := startTalking(t)
			server := harness.StartCaddyTLS(t, `sse_guard {
				max_age 1s
			}
			reverse_proxy `+url+` {
				max_fails 1
				fail_duration 1h
			}`)
			client := harness.NewClient(t, protocol)
			for range 2 { // the upstream is asked again
				s := client.Open(t, server.URL, harness.WithBearer("alice"))
				assert.Equal(t, "hello", s.Next(t).Data)
				retry := harness.RequireCut(t, s)
				assert.LessOrEqual(t, retry, 2*time.Second)
				assert.Equal(t, fmt.Sprintf("data: hello\n\nretry: %d\n", retry.Milliseconds()), string(s.Bytes()))
				receive(t, left)
			}
			assert.Empty(t, server.HandlerLogs(t))
		})
	}
}

// TestComeBack_OneStreamIsCutOnly: others of its connection go on.
func TestComeBack_OneStreamIsCutOnly(t *testing.T) {
	for _, protocol := range []harness.Protocol{harness.HTTP2, harness.HTTP3} {
		t.Run(string(protocol), func(t *testing.T) {
			app := harness.StartFastAPI(t)
			server := harness.StartCaddyTLS(t, "sse_guard {\npolicy reject\n}\nreverse_proxy "+app.URL)
			client := harness.NewClient(t, protocol)
			alice := client.Open(t, server.URL+"/raw", harness.WithBearer("alice"))
			alice.Next(t)
			for range 3 {
				harness.RequireRejected(t, client.Open(t, server.URL+"/raw", harness.WithBearer("alice")))
			}
			harness.RequireLive(t, alice)
		})
	}
}

// TestComeBack_Clean is for clients that take a cut for the end.
func TestComeBack_Clean(t *testing.T) {
	for _, protocol := range everyProtocol {
		t.Run(string(protocol), func(t *testing.T) {
			url, _, _ := startTalking(t)
			server := harness.StartCaddyTLS(t, "sse_guard {\npolicy reject\nmax_age 1s\ncome_back clean\n}\nreverse_proxy "+url)
			client := harness.NewClient(t, protocol)
			rotated := client.Open(t, server.URL, harness.WithBearer("alice"))
			rotated.Next(t)
			rejected := client.Open(t, server.URL, harness.WithBearer("alice"))
			assert.Equal(t, harness.DuplicateSession, rejected.Next(t).Type)
			for _, s := range []*harness.Stream{rejected, rotated} {
				end := s.Wait(t)
				assert.NoError(t, end.Err)
				assert.False(t, end.Torn)
				assert.NotNil(t, s.Retry())
			}
		})
	}
}

// TestComeBack_TheAccessLogSaysWhatWasSent, as for any response.
func TestComeBack_TheAccessLogSaysWhatWasSent(t *testing.T) {
	url, _, _ := startTalking(t)
	log := t.TempDir() + "/access.log"
	server := harness.StartCaddy(t, "log {\noutput file "+log+" {\nroll_disabled\n}\n}\nsse_guard {\nmax_age 1s\n}\nreverse_proxy "+url)
	s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL, harness.WithBearer("alice"))
	harness.RequireCut(t, s)
	var content []byte
	require.Eventually(t, func() bool {
		content, _ = os.ReadFile(log)
		return len(content) > 0
	}, harness.Patience, time.Millisecond)
	assert.Contains(t, string(content), `"level":"info"`)
	assert.Contains(t, string(content), `"status":200`)
	assert.Contains(t, string(content), fmt.Sprintf(`"size":%d`, len(s.Bytes())))
	assert.Contains(t, string(content), `"duration":0,`, "as of every response that is aborted")
	assert.Equal(t, 1, strings.Count(string(content), "\n"))
}

// TestComeBack_ChromiumGetsTheLastEventOverHTTP2: it drops what it has received of a
// stream that is reset and has not handed on yet.
func TestComeBack_ChromiumGetsTheLastEventOverHTTP2(t *testing.T) {
	const visits, most = 15, 60 // that count, and in all
	url, _, _ := startTalking(t)
	server := harness.StartCaddyTLS(t, "respond /page 200\nsse_guard {\npolicy reject\nretry 50ms\nheartbeat 1s\n}\nreverse_proxy "+url)
	holder := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/events", harness.WithHeader("Cookie", "access_token=alice"))
	holder.Next(t)
	page := harness.StartBrowser(t).NewTab(t, server.URL+"/page")
	page.Eval(t, fmt.Sprintf(`(() => {
		document.cookie = "access_token=alice"
		window.__told = window.__failed = 0
		const source = new EventSource("/events")
		source.addEventListener("DUPLICATE_SESSION", () => { window.__told++ })
		source.onerror = () => { if (++window.__failed >= %d) source.close() }
	})()`, visits))
	require.Eventually(t, func() bool { return page.Eval(t, "window.__failed >= "+fmt.Sprint(visits)) == "true" }, harness.Patience, 20*time.Millisecond,
		"it does not come back")
	assert.Equal(t, fmt.Sprint(visits), page.Eval(t, "window.__told"), "each time it is told why")
	assert.Equal(t, "h2", page.Eval(t, `performance.getEntriesByType("resource").at(-1)?.nextHopProtocol`))
	assert.Len(t, page.Answers("/events"), visits)
	assert.False(t, holder.Ended())
}

// TestStallAfter_EndsAStreamWhoseBackendHangs, which heartbeats would hide.
func TestStallAfter_EndsAStreamWhoseBackendHangs(t *testing.T) {
	url, say, left := startTalking(t)
	server := harness.StartCaddy(t, "sse_guard {\nheartbeat 200ms\nstall_after 2s\n}\nreverse_proxy "+url)
	s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL, harness.WithBearer("alice"))
	s.Next(t)
	for range 3 { // 3 s
		<-time.After(time.Second)
		say <- "on"
		assert.Equal(t, "on", s.Next(t).Data)
	}
	silent := time.Now()
	assert.LessOrEqual(t, harness.RequireCut(t, s), 2*time.Second)
	assert.GreaterOrEqual(t, time.Since(silent), 1800*time.Millisecond)
	assert.Contains(t, string(s.Bytes()), "data: on\n\n:\n")
	receive(t, left)
	line := server.WaitLogs(t, 1)[0]
	assert.Equal(t, "info", line.Level, "nobody sees else that the backend hangs")
	assert.Contains(t, line.Raw, `"reason":"stalled"`)
}

// TestMessage_InThePagesLanguage, with what the request says.
func TestMessage_InThePagesLanguage(t *testing.T) {
	url, _, _ := startTalking(t)
	server := harness.StartCaddy(t, `sse_guard {
		message superseded "{http.request.header.X-Name}님, 다른 곳에서 접속하여 종료합니다."
		message rejected 사용중
	}
	reverse_proxy `+url)
	client := harness.NewClient(t, harness.HTTP1)
	older := client.Open(t, server.URL, harness.WithBearer("alice"), harness.WithHeader("X-Name", "앨리스"))
	older.Next(t)
	client.Open(t, server.URL, harness.WithBearer("alice")).Next(t)
	notice := harness.NoticeOf(t, harness.RequireEnded(t, older, harness.Duplicated, "superseded"))
	assert.Equal(t, "앨리스님, 다른 곳에서 접속하여 종료합니다.", notice.Message)
	assert.Equal(t, notice.Message, notice.Error.Message)
	assert.Equal(t, "sse_guard", notice.Error.Type)
	assert.Equal(t, harness.Duplicated, notice.Error.Code)
}

// TestUnframed_ArrivesAsItComes: bodies with the media type that are no framed event
// stream, and are read with fetch.
func TestUnframed_ArrivesAsItComes(t *testing.T) {
	const comment = ": here\n"
	for name, body := range map[string][]string{
		"words":          {"Once ", "upon ", "a ", "time"},
		"no blank lines": {"data: Once\n", "data: upon\n", "data: a\n", "data: time\n"},
		"ndjson":         {"{\"token\":\"Once\"}\n", "{\"token\":\"upon\"}\n", "{\"done\":true}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			arrived := make(chan struct{})
			upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, r *http.Request) {
				_, _ = io.WriteString(c, harness.SSEHeader+"\r\n")
				if r.URL.RawQuery == "ended" {
					// In one piece, so that who has the comment on its way has the rest too.
					_, _ = io.WriteString(c, comment+body[0]+body[1])
					harness.WaitClosed(c)
					return
				}
				for _, part := range body {
					_, _ = io.WriteString(c, part)
					if r.URL.RawQuery == "slow" {
						<-arrived
					}
				}
			})
			server := harness.StartCaddy(t, "sse_guard {\nend_timeout 300ms\n}\nreverse_proxy "+upstream)
			client := harness.NewClient(t, harness.HTTP1)

			s := client.Open(t, server.URL+"/?slow", harness.WithBearer("alice"))
			so := ""
			for _, part := range body {
				so += part
				require.Eventually(t, func() bool { return string(s.Bytes()) == so }, harness.Patience, time.Millisecond, "%q", s.Bytes())
				arrived <- struct{}{}
			}
			assert.True(t, s.Wait(t).Clean())

			// Ended while it is held, it loses nothing either.
			s = client.Open(t, server.URL+"/?ended", harness.WithBearer("alice"))
			require.Eventually(t, func() bool { return string(s.Bytes()) == comment }, harness.Patience, time.Millisecond)
			client.Open(t, server.URL+"/", harness.WithBearer("alice")).Wait(t)
			assert.True(t, s.Wait(t).Cut())
			assert.Equal(t, comment+body[0]+body[1], string(s.Bytes()))
		})
	}
}

// TestHeld_IsBoundedInTheProcess: what many streams hold back is not left to them.
func TestHeld_IsBoundedInTheProcess(t *testing.T) {
	const streams, each, bound = 80, 1_000_000, 64 << 20
	var sent atomic.Int32
	upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
		_, _ = io.WriteString(c, harness.SSEHeader+"\r\ndata: "+strings.Repeat("x", each-6))
		sent.Add(1)
		harness.WaitClosed(c)
	})
	server := harness.StartCaddy(t, "sse_guard {\nhold 1h\nlimit 0\n}\nreverse_proxy "+upstream)
	client := harness.NewClient(t, harness.HTTP1)
	var open []*harness.Stream
	for range streams {
		open = append(open, client.Open(t, server.URL, harness.WithBearer("alice")))
	}
	passed := func() (n int) {
		for _, s := range open {
			n += len(s.Bytes())
		}
		return n
	}
	require.Eventually(t, func() bool { return sent.Load() == streams && passed() >= streams*each-bound }, harness.Patience, 20*time.Millisecond)
	for _, s := range open {
		s.Close()
	}
}

// TestByteOrderMark_CutBehindAHeartbeat spoils nothing: the first event arrives.
func TestByteOrderMark_CutBehindAHeartbeat(t *testing.T) {
	for cut := 1; cut < 4; cut++ {
		beaten := make(chan struct{})
		upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
			const stream = "\ufeffdata: a\n\n"
			_, _ = io.WriteString(c, harness.SSEHeader+"\r\n"+stream[:cut])
			<-beaten
			_, _ = io.WriteString(c, stream[cut:])
		})
		server := harness.StartCaddy(t, "sse_guard {\nheartbeat 200ms\nhold 1h\n}\nreverse_proxy "+upstream)
		s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL, harness.WithBearer("alice"))
		require.Eventually(t, func() bool { return len(s.Bytes()) > 0 }, harness.Patience, time.Millisecond)
		close(beaten)
		assert.Equal(t, "a", s.Next(t).Data, "cut at %d: %q", cut, s.Bytes())
	}
}

// TestOpenRetry_LetsCommentsPassFirst: a block without data is an event to some
// clients, which fail at it.
func TestOpenRetry_LetsCommentsPassFirst(t *testing.T) {
	connected := make(chan struct{})
	upstream := harness.StartRawUpstream(t, func(c *net.TCPConn, _ *http.Request) {
		_, _ = io.WriteString(c, harness.SSEHeader+"\r\n: connected\n\n")
		<-connected
		_, _ = io.WriteString(c, "event: tick\ndata: a\n\n")
	})
	server := harness.StartCaddy(t, "sse_guard {\nretry 3s\n}\nreverse_proxy "+upstream)
	s := harness.NewClient(t, harness.HTTP1).Open(t, server.URL, harness.WithBearer("alice"))
	require.Eventually(t, func() bool { return string(s.Bytes()) == ": connected\n\n" }, harness.Patience, time.Millisecond)
	close(connected)
	s.Wait(t)
	assert.Equal(t, ": connected\n\nretry: 3000\nevent: tick\ndata: a\n\n", string(s.Bytes()))
}

// TestComeBack_ABusyPageReadsTheLastEvent: what fetch has received and the page has not
// read yet is lost when the response fails. A page is busy for a while at any time. It
// reads in several turns: visits do not count in which the machine gave the page none for
// longer than it was busy, or in which another answer took the browser longer than the
// guard waits, which no server can know.
func TestComeBack_ABusyPageReadsTheLastEvent(t *testing.T) {
	const visits, most = 15, 60 // that count, and in all
	url, _, _ := startTalking(t)
	block := "respond /page 200\nsse_guard {\npolicy reject\n}\nreverse_proxy " + url
	for protocol, start := range map[string]func(testing.TB, string) *harness.Caddy{
		"http/1.1": func(t testing.TB, block string) *harness.Caddy { return harness.StartCaddy(t, block) },
		"h2":       harness.StartCaddyTLS,
	} {
		t.Run(protocol, func(t *testing.T) {
			server := start(t, block)
			holder := harness.NewClient(t, harness.HTTP1).Open(t, server.URL+"/events", harness.WithHeader("Cookie", "access_token=alice"))
			holder.Next(t)
			page := harness.StartBrowser(t).NewTab(t, server.URL+"/page")
			page.Eval(t, fmt.Sprintf(`void (async () => {
				document.cookie = "access_token=alice"
				window.__told = window.__counted = 0
				let turned = performance.now(), longest = 0, slowest = 0, heard = () => {}
				// A worker is not busy: it tells how long an answer takes.
				const worker = new Worker(URL.createObjectURL(new Blob([
					"onmessage = async e => {" +
					"  for (;;) {" +
					"    const asked = performance.timeOrigin + performance.now();" +
					"    await (await fetch(e.data, {cache: 'no-store'})).text();" +
					"    postMessage([asked, performance.timeOrigin + performance.now() - asked]);" +
					"    await new Promise(r => setTimeout(r, 10))" +
					"  }" +
					"}"])))
				worker.onmessage = e => { slowest = Math.max(slowest, e.data[1]); heard(e.data[0]) }
				worker.postMessage(location.href)
				const heardAfter = t => new Promise(r => { heard = asked => asked >= t && r() })
				setInterval(() => {
					for (const end = Date.now() + 40; Date.now() < end;);
					longest = Math.max(longest, performance.now() - turned)
					turned = performance.now()
				}, 0)
				for (let i = 0; i < %d && window.__counted < %d; i++) {
					let text = ""
					longest = slowest = 0
					try {
						const answer = await fetch("/events", {headers: {Accept: "text/event-stream"}})
						const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
						for (let part; !(part = await reader.read()).done;) text += part.value
					} catch {}
					await heardAfter(performance.timeOrigin + performance.now())
					if (longest < 70 && slowest < 150) {
						window.__told += text.includes("DUPLICATE_SESSION")
						window.__counted++
					}
				}
				window.__done = true
			})()`, most, visits))
			require.Eventually(t, func() bool { return page.Eval(t, "window.__done") == "true" }, 3*harness.Patience, 20*time.Millisecond)
			counted := page.Eval(t, "window.__counted")
			require.NotEqual(t, "0", counted, "no visit counts")
			t.Logf("%s visits count", counted)
			assert.Equal(t, counted, page.Eval(t, "window.__told"), "each time it is told why")
			assert.Equal(t, protocol, page.Eval(t, `performance.getEntriesByType("resource").at(-1)?.nextHopProtocol`))
			assert.False(t, holder.Ended())
		})
	}
}
