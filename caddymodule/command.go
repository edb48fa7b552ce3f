package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/sse-guard/sse-guard/caddymodule/demo"
	"github.com/sse-guard/sse-guard/caddymodule/registry"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "sse-proxy",
		Usage: "[--from <addr>] [--to <addr>] [--key <part>]... [--limit <n>] [--policy supersede|reject] [--access-log] [--debug]",
		Short: "A reverse proxy that allows one live event stream per token",
		Long: `
A reverse proxy with sse_guard before the upstream, without any file.

One token may hold one Server-Sent Events stream per path: a newer one ends
the older one with a DUPLICATED_CONNECTION event. --key, --limit and
--policy change that, with the meaning they have in the Caddyfile.

Without --to it serves a demo: open the page it names in two tabs. It has the live
page of sse_guard_status at /operate/, for browsers on the same machine.

If --from has a host name, Caddy serves it over HTTPS with a certificate.
`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Flags().StringP("from", "f", ":8080", "Address to receive traffic on")
			cmd.Flags().StringSliceP("to", "t", nil, "Upstream address; may be repeated. Without it, a demo is served")
			cmd.Flags().StringArrayP("key", "k", nil, "Part of what may be held only so often; may be repeated (default: token and path)")
			cmd.Flags().IntP("limit", "l", 1, "How many streams may hold a key; 0 only tracks")
			cmd.Flags().StringP("policy", "p", string(registry.Supersede), "Who yields when a key is full: supersede or reject")
			cmd.Flags().Bool("access-log", false, "Enable the access log")
			cmd.Flags().BoolP("debug", "v", false, "Enable debug logs")
			cmd.Args = func(_ *cobra.Command, args []string) error {
				if len(args) > 0 {
					return fmt.Errorf("sse-proxy takes no argument, got %q; name the upstream with --to", args[0])
				}
				return nil
			}
			cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdSSEProxy)
		},
	})
}

// stopGrace is how long open streams may hold up the end of the command.
const stopGrace = 2 * time.Second

func cmdSSEProxy(fs caddycmd.Flags) (int, error) {
	caddy.TrapSignals()

	to, err := fs.GetStringSlice("to")
	if err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("--to: %w", err)
	}
	isDemo := len(to) == 0
	if isDemo {
		addr, stop, err := startDemo()
		if err != nil {
			return caddy.ExitCodeFailedStartup, fmt.Errorf("starting the demo: %w", err)
		}
		defer stop()
		to = []string{addr}
	}
	key, err := fs.GetStringArray("key")
	if err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("--key: %w", err)
	}

	proxy := sseProxy{
		demo:      isDemo,
		from:      fs.String("from"),
		to:        to,
		key:       key,
		limit:     fs.Int("limit"),
		policy:    fs.String("policy"),
		accessLog: fs.Bool("access-log"),
		debug:     fs.Bool("debug"),
	}
	config, err := proxy.config()
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if err := requireFree(config); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if err := caddy.Run(config); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	fmt.Println(proxy.started())
	select {} // until a signal
}

// started is the line for who has started the command.
func (p sseProxy) started() string {
	if p.demo {
		return "Open " + publicURL(p.from) + " in two tabs: the first one is told when the second one opens."
	}
	return "Open " + publicURL(p.from) + ", which is " + strings.Join(p.to, ", ") + " with one live event stream for each token."
}

// requireFree returns an error if somebody listens already where a server of the
// configuration is to. Caddy would share the port with another Caddy (SO_REUSEPORT), and
// each would get some of the clients.
func requireFree(config *caddy.Config) error {
	var app struct {
		Servers map[string]struct{ Listen []string }
	}
	if err := json.Unmarshal(config.AppsRaw["http"], &app); err != nil {
		return fmt.Errorf("reading the adapted configuration: %w", err)
	}
	for _, server := range app.Servers {
		for _, listen := range server.Listen {
			addr, err := caddy.ParseNetworkAddress(listen)
			if err != nil || addr.IsUnixNetwork() || addr.IsFdNetwork() {
				continue // Caddy says what is wrong, if anything
			}
			for i := range addr.PortRangeSize() {
				if err := probeListen(addr.Network, addr.JoinHostPort(i)); errors.Is(err, syscall.EADDRINUSE) {
					return fmt.Errorf("somebody listens on %s already; end that program, or choose another address with --from", addr.JoinHostPort(i))
				}
			}
		}
	}
	return nil
}

// probeListen listens for an instant, as the only one.
func probeListen(network, addr string) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), network, addr)
	if err != nil {
		return err
	}
	return ln.Close()
}

// sseProxy is what the flags say.
type sseProxy struct {
	demo             bool // its backend is to
	from             string
	to, key          []string
	limit            int
	policy           string
	accessLog, debug bool
}

// hostlessKey is the default key without the host. The command serves one application,
// under whatever host it is asked for: a client that makes up hosts must not hold as
// many streams.
var hostlessKey = []string{"{sse_guard.token}", "{http.request.orig_uri.path}"}

// config adapts the Caddyfile that does the same.
func (p sseProxy) config() (*caddy.Config, error) {
	text, err := p.caddyfile()
	if err != nil {
		return nil, err
	}
	// The one warning that such a text can get is about its formatting.
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, nil)
	if err != nil {
		return nil, err
	}
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		return nil, fmt.Errorf("reading the adapted configuration: %w", err)
	}
	return &config, nil
}

func (p sseProxy) caddyfile() ([]byte, error) {
	if len(p.to) == 0 || p.from == "" {
		return nil, errors.New("--from and --to must not be empty")
	}
	var b strings.Builder
	var quoteErr error
	quote := func(values ...string) string {
		quoted := make([]string, len(values))
		for i, v := range values {
			if strings.ContainsAny(v, "`\n") {
				quoteErr = fmt.Errorf("%q is not allowed in a flag: it has a backtick or a line break", v)
			}
			quoted[i] = "`" + v + "`"
		}
		return strings.Join(quoted, " ")
	}
	fmt.Fprintf(&b, "{\n\tadmin off\n\tpersist_config off\n\tgrace_period %s\n", stopGrace)
	if p.debug {
		b.WriteString("\tdebug\n")
	}
	fmt.Fprintf(&b, "}\n%s {\n", quote(p.from))
	if p.accessLog {
		b.WriteString("\tlog\n")
	}
	if p.demo { // for who runs it, not for who tries it from elsewhere
		b.WriteString("\t@operator {\n\t\tpath /operate/*\n\t\tremote_ip 127.0.0.0/8 ::1\n\t\tnot header X-Forwarded-For *\n\t\tnot header Forwarded *\n\t}\n\tsse_guard_status @operator {\n\t\tinsecure\n\t}\n")
	}
	fmt.Fprintf(&b, "\tsse_guard {\n\t\tlimit %d\n\t\tpolicy %s\n", p.limit, quote(p.policy))
	key := p.key
	if len(key) == 0 {
		key = hostlessKey
	}
	fmt.Fprintf(&b, "\t\tkey %s\n", quote(key...))
	fmt.Fprintf(&b, "\t}\n\treverse_proxy %s\n}\n", quote(p.to...))
	return []byte(b.String()), quoteErr
}

// startDemo serves the demo backend on a free loopback port until stop is
// called.
func startDemo() (addr string, stop func(), err error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: demo.New(), ReadHeaderTimeout: time.Minute}
	go func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			caddy.Log().Error("the demo backend stopped", zap.Error(err))
		}
	}()
	return ln.Addr().String(), func() { _ = srv.Close() }, nil
}

// publicURL is where a person finds what listens on from.
func publicURL(from string) string {
	switch {
	case strings.HasPrefix(from, ":"):
		return "http://localhost" + from
	case strings.Contains(from, "://"):
		return from
	case strings.HasSuffix(from, ":80"):
		return "http://" + from
	default:
		return "https://" + from // as Caddy serves what has a host name
	}
}
