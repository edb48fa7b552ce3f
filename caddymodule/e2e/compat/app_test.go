//go:build compat

package compat

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sse-guard/sse-guard/caddymodule/e2e/harness"
)

// The texts that the application sends: one as a stream opens, one a second then,
// and the last, when the scene says so.
const (
	openingText = "first"
	ticking     = "tick"
	lastText    = "last"
)

// application stands for every backend of every client: event streams, LLM APIs, an
// MCP server, GraphQL. It tells who has a stream of it. Its server, and with it all
// handlers, end with the test.
type application struct {
	url   string
	pages string // the directory of the bundled pages

	mu      sync.Mutex // guards streams and last; nothing is called with it held
	streams map[string][]*served
	last    map[string]chan struct{} // by token; closed when the last text is to go out
}

// served is one stream, or what was one. Guarded by application.mu.
type served struct {
	instance string
	began    time.Time
	open     bool
}

func startApplication(t *testing.T) *application {
	t.Helper()
	a := &application{
		pages:   filepath.Join(made(t), "js", "pages"),
		streams: map[string][]*served{},
		last:    map[string]chan struct{}{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) { a.stream(w, r, plainEvents) })
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { a.stream(w, r, openAI) })
	mux.HandleFunc("POST /v1/plain/chat/completions", func(w http.ResponseWriter, r *http.Request) { a.stream(w, r, openAIPlain) })
	mux.HandleFunc("POST /v1/messages", func(w http.ResponseWriter, r *http.Request) { a.stream(w, r, anthropic) })
	mux.HandleFunc("GET /mcp", func(w http.ResponseWriter, r *http.Request) { a.stream(w, r, mcpEvents) })
	mux.HandleFunc("POST /mcp", mcpCall)
	mux.HandleFunc("/graphql", graphQL)
	mux.HandleFunc("POST /graphql/ticks", func(w http.ResponseWriter, r *http.Request) { a.stream(w, r, graphQLEvents) })
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /page/{name}", a.page)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

// tokenOf returns the token and the instance that a client was started with.
func tokenOf(r *http.Request) (token, instance string) {
	query := r.URL.Query()
	token, instance = query.Get("token"), query.Get("n")
	if token == "" {
		token = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	if instance == "" {
		instance = r.Header.Get("X-Instance")
	}
	return token, instance
}

// format is how a backend puts texts into a stream.
type format struct {
	opening string              // before all texts
	text    func(string) string // a block
	closing string              // after the last text; empty: the stream stays open
}

func quoted(text string) string {
	b, _ := json.Marshal(text) // which takes every string
	return string(b)
}

var (
	plainEvents = format{text: func(text string) string { return "id: " + text + "\ndata: " + text + "\n\n" }}

	// openAI is what gateways make of the API that also number their events: after
	// such a one some SDKs take an empty event for a broken one, others after one
	// of openAIPlain.
	openAI = format{
		text:    func(text string) string { return "id: " + text + "\n" + openAIPlain.text(text) },
		closing: openAIPlain.closing,
	}

	openAIPlain = format{
		text: func(text string) string {
			return `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":` +
				quoted(text) + `},"finish_reason":null}]}` + "\n\n"
		},
		closing: `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` +
			"\n\ndata: [DONE]\n\n",
	}

	anthropic = format{
		opening: `event: message_start
data: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],"model":"m","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

`,
		text: func(text string) string {
			return "event: content_block_delta\n" +
				`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":` + quoted(text) + "}}\n\n"
		},
		closing: `event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":3}}

event: message_stop
data: {"type":"message_stop"}

`,
	}

	mcpEvents = format{text: func(text string) string {
		return "id: " + text + "\nevent: message\n" +
			`data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":` + quoted(text) + "}}\n\n"
	}}

	graphQLEvents = format{text: func(text string) string {
		return "event: next\n" + `data: {"data":{"tick":` + quoted(text) + "}}\n\n"
	}}
)

// stream answers with texts until its client leaves, or the last one was sent and
// the format has a closing.
func (a *application) stream(w http.ResponseWriter, r *http.Request, f format) {
	token, instance := tokenOf(r)
	s := a.opened(token, instance)
	defer a.closed(s)
	last := a.lastOf(token)

	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w).Flush
	send := func(text string) bool {
		_, err := io.WriteString(w, text)
		return err == nil && flush() == nil
	}
	if !send(f.opening + f.text(openingText)) {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	if strings.HasPrefix(token, string(Idle)) {
		tick.Stop()
	}
	for {
		select {
		case <-tick.C:
			if !send(f.text(ticking)) {
				return
			}
		case <-last:
			if last = nil; !send(f.text(lastText)+f.closing) || f.closing != "" {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

func (a *application) opened(token, instance string) *served {
	s := &served{instance: instance, began: time.Now(), open: true}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.streams[token] = append(a.streams[token], s)
	return s
}

func (a *application) closed(s *served) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.open = false
}

func (a *application) lastOf(token string) chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last[token] == nil {
		a.last[token] = make(chan struct{})
	}
	return a.last[token]
}

// sendLast sends the last text to the streams of the token.
func (a *application) sendLast(token string) { close(a.lastOf(token)) }

// of returns copies of all streams of the token, open or not.
func (a *application) of(token string) []served {
	a.mu.Lock()
	defer a.mu.Unlock()
	var streams []served
	for _, s := range a.streams[token] {
		streams = append(streams, *s)
	}
	return streams
}

// holder returns the instance that has an open stream; empty: none has.
func (a *application) holder(token string) string {
	for _, s := range a.of(token) {
		if s.open {
			return s.instance
		}
	}
	return ""
}

// graphQL answers queries; subscriptions have a path of their own.
func graphQL(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"data":{"now":"now"}}`)
}

// mcpCall answers as a server of the Model Context Protocol with sessions does.
func mcpCall(w http.ResponseWriter, r *http.Request) {
	var call struct {
		ID     json.RawMessage
		Method string
		Params struct{ ProtocolVersion string }
	}
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if call.ID == nil {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	result := "{}"
	if call.Method == "initialize" {
		_, instance := tokenOf(r)
		w.Header().Set("Mcp-Session-Id", "session-"+instance)
		result = fmt.Sprintf(`{"protocolVersion":%q,"capabilities":{"logging":{}},"serverInfo":{"name":"app","version":"1"}}`, call.Params.ProtocolVersion)
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, call.ID, result)
}

// page is an empty page that runs the bundle of that name.
func (a *application) page(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.PathValue("name"))
	if !strings.HasSuffix(name, ".js") {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, `<!doctype html><link rel="icon" href="data:,"><body><script src="/page/%s.js"></script>`, name)
		return
	}
	script, err := os.ReadFile(filepath.Join(a.pages, name))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/javascript")
	w.Write(script)
}

// made is where .ci/compat-deps.sh has put the clients.
func made(t testing.TB) string {
	t.Helper()
	return filepath.Join(harness.Root(t), ".cache", "compat")
}
