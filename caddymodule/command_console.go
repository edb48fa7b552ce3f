package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/sse-guard/sse-guard/caddymodule/console"
)

// adminTimeout is how long a command waits for the admin endpoint.
const adminTimeout = time.Minute

// result is what a command has found out.
type result interface {
	Print(out io.Writer)
	// Warning is what is missing; empty: nothing.
	Warning() string
}

// adminCommand makes a command that asks the admin endpoint once.
func adminCommand(use, short, long string, run func(ctx context.Context, cmd *cobra.Command, client *console.Client) (result, error)) *cobra.Command {
	cmd := newAdminCommand(use, short, long)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		client, err := adminClient(cmd)
		if err != nil {
			return usageError(cmd, err)
		}
		ctx, cancel := context.WithTimeout(ctx, adminTimeout)
		defer cancel()
		defer client.HTTP.CloseIdleConnections()
		found, err := run(ctx, cmd, client)
		if wrong := (mistakeError{}); errors.As(err, &wrong) {
			return usageError(cmd, wrong.error)
		}
		if err != nil {
			return adminError(cmd, err)
		}
		return show(cmd, found, found)
	}
	return cmd
}

func newAdminCommand(use, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use:               use + " [--address <address>] [--json]",
		Short:             short,
		Long:              "\n" + strings.TrimSpace(long) + "\n\n" + adminHelp,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	name, _, _ := strings.Cut(use, " ")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError(cmd, fmt.Errorf("sse-guard %s takes no argument, got %q: streams are named with flags", name, args[0]))
		}
		return nil
	}
	cmd.SetFlagErrorFunc(usageError)
	cmd.Flags().String("address", "", "The admin endpoint, if it is not that of the configuration or "+caddy.DefaultAdminListen)
	cmd.Flags().StringP("config", "c", "", "Configuration file that names the admin endpoint")
	cmd.Flags().StringP("adapter", "a", "", "Name of the config adapter to apply")
	cmd.Flags().Bool("json", false, "Print JSON, for programs")
	_ = cmd.RegisterFlagCompletionFunc("address", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("adapter", cobra.FixedCompletions([]string{"caddyfile"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

const adminHelp = `It asks the admin endpoint of a running Caddy, as caddy reload does: that of
--address, or of the configuration file --config, or of the environment variable
CADDY_ADMIN, or localhost:2019.

The exit code is 0 if it was done, 1 if not or only in part, and 2 if the
command was not called as it can be.
`

// adminError ends a command that could not do what it was told.
func adminError(cmd *cobra.Command, err error) error {
	if wrong := (console.InputError{}); errors.As(err, &wrong) {
		return usageError(cmd, err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("the admin endpoint has not answered within %s", adminTimeout)
	}
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return exitNo, err })(cmd, nil)
}

// mistakeError is what is wrong with how a command was called.
type mistakeError struct{ error }

// show prints what was found, as JSON if the user wants it so.
func show(cmd *cobra.Command, found result, asJSON any) error {
	out := cmd.OutOrStdout()
	if wanted, err := cmd.Flags().GetBool("json"); err != nil {
		return usageError(cmd, err)
	} else if !wanted {
		found.Print(out)
	} else if err := printJSON(out, asJSON); err != nil {
		return adminError(cmd, err)
	}
	if warning := found.Warning(); warning != "" {
		return adminError(cmd, errors.New(warning))
	}
	return nil
}

// adminClient reaches the admin endpoint that the flags name.
func adminClient(cmd *cobra.Command) (*console.Client, error) {
	if err := givenEmpty(cmd, "address", "config"); err != nil {
		return nil, err
	}
	address, err := adminAddress(caddycmd.Flags{FlagSet: cmd.Flags()})
	if err != nil {
		return nil, err
	}
	parsed, err := caddy.ParseNetworkAddress(address)
	if err != nil {
		return nil, fmt.Errorf("the admin address %q: %w; write one such as localhost:2019 or unix//run/caddy.sock", address, err)
	}
	if parsed.PortRangeSize() > 1 {
		return nil, fmt.Errorf("the admin address %q names several ports; write one such as localhost:2019", address)
	}
	client := &console.Client{Address: address}
	host := parsed.JoinHostPort(0)
	if parsed.IsUnixNetwork() {
		client.Base = "http://127.0.0.1" // what Caddy's admin endpoint takes for a host there
		host, _, _ = strings.Cut(parsed.Host, "|")
	} else {
		client.Base = "http://" + host
		client.Origin = client.Base
	}
	client.HTTP = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, parsed.Network, host)
		}},
	}
	return client, nil
}

// adminAddress is that of the flags, of the configuration that they name, or Caddy's
// default.
func adminAddress(flags caddycmd.Flags) (string, error) {
	var config []byte
	if file := flags.String("config"); file != "" && flags.String("address") == "" {
		var err error
		if config, _, _, err = caddycmd.LoadConfig(file, flags.String("adapter")); err != nil {
			return "", err
		}
		var top struct{ Admin caddy.AdminConfig }
		if err := json.Unmarshal(config, &top); err != nil {
			return "", fmt.Errorf("reading the admin endpoint of %s: %w", file, err)
		}
		if top.Admin.Disabled {
			return "", fmt.Errorf("%s turns the admin endpoint off (admin off), which this command needs", file)
		}
	}
	address, err := caddycmd.DetermineAdminAPIAddress(flags.String("address"), config, flags.String("config"), flags.String("adapter"))
	if err != nil {
		return "", fmt.Errorf("looking for the admin endpoint: %w", err)
	}
	return address, nil
}

// addFilterFlags adds those flags that name streams; raw: also by what no list shows.
func addFilterFlags(cmd *cobra.Command, raw bool) {
	flags := cmd.Flags()
	flags.String("id", "", "The stream with this id")
	flags.StringP("zone", "z", "", "Streams of this zone")
	flags.StringP("state", "s", "", "Streams in this state: "+strings.Join(console.States, ", "))
	flags.StringP("key", "k", "", "Streams with this key, as the hash that logs and lists show")
	flags.String("token", "", "Streams with this token, as a hash")
	flags.String("client", "", "Streams with this client id, as a hash")
	flags.StringP("subject", "u", "", "Streams of this verified user")
	flags.StringArrayP("label", "l", nil, "Streams with this label, as name=value; may be repeated")
	flags.String("older-than", "", "Streams that are older than that, such as 10m")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(console.States, cobra.ShellCompDirectiveNoFileComp))
	names := []string{"id", "zone", "key", "token", "client", "subject", "label", "older-than"}
	if raw {
		flags.String("raw-token", "", "Streams with this token itself; - reads it from the standard input")
		flags.String("raw-client", "", "Streams with this client id itself")
		flags.StringArray("key-part", nil, "Streams whose key has these parts, in this order; may be repeated")
		flags.Bool("all", false, "All streams; no other flag may name any")
		names = append(names, "raw-token", "raw-client", "key-part")
	}
	for _, name := range names {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

// filter reads the flags of addFilterFlags.
func filter(cmd *cobra.Command) (f console.Filter, err error) {
	flags := cmd.Flags()
	for name, to := range map[string]*string{
		"id": &f.ID, "zone": &f.Zone, "state": &f.State, "key": &f.Key, "token": &f.Token, "client": &f.Client,
		"subject": &f.Subject, "older-than": &f.OlderThan, "raw-token": &f.RawToken, "raw-client": &f.RawClient,
	} {
		if flags.Lookup(name) == nil {
			continue
		}
		if *to, err = flags.GetString(name); err != nil {
			return f, err
		}
		if flags.Changed(name) && *to == "" {
			return f, fmt.Errorf("--%s is empty: leave it out, or name whom you mean", name)
		}
	}
	labels, err := flags.GetStringArray("label")
	if err != nil {
		return f, err
	}
	if err := f.SetLabels(labels); err != nil {
		return f, fmt.Errorf("--%w", err)
	}
	if flags.Lookup("key-part") != nil {
		parts, err := flags.GetStringArray("key-part")
		if err != nil {
			return f, err
		}
		if err := f.SetKeyParts(parts); err != nil {
			return f, err
		}
	}
	if f.RawToken == "-" {
		f.RawToken, err = readLine(cmd.InOrStdin(), "--raw-token -")
	}
	return f, err
}

// givenEmpty says which of the flags, whose values are texts, is given and empty: a
// script's variable was, and what is then left of the command is not what it meant.
func givenEmpty(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
			return fmt.Errorf("--%s is empty: leave it out, or give it a value", name)
		}
	}
	return nil
}

// mostInput is how much of the standard input is read.
const mostInput = 1 << 20

// readLine reads what stands in the standard input for a flag, without the line end.
func readLine(in io.Reader, flag string) (string, error) {
	text, err := io.ReadAll(io.LimitReader(in, mostInput))
	if err != nil {
		return "", fmt.Errorf("%s: reading the standard input: %w", flag, err)
	}
	line := strings.TrimRight(string(text), "\r\n")
	if line == "" {
		return "", fmt.Errorf("%s: the standard input is empty", flag)
	}
	return line, nil
}

func streamsCommand() *cobra.Command {
	cmd := adminCommand("streams [--zone <name>] [--state <state>] [--subject <user>]... [--limit <n>]", "Lists streams", `
Lists the streams of all nodes: who holds what, since when, from where.

Keys, tokens and clients are shown as the hashes that the log shows. Flags name
the streams that are listed: those that match all of them.
`, func(ctx context.Context, cmd *cobra.Command, client *console.Client) (result, error) {
		f, err := filter(cmd)
		if err != nil {
			return nil, mistakeError{err}
		}
		limit, err := cmd.Flags().GetInt("limit")
		if err != nil || limit < 0 {
			return nil, mistakeError{errors.Join(err, errors.New("--limit is 0, for all, or more"))}
		}
		return client.Streams(ctx, f, limit)
	})
	addFilterFlags(cmd, false)
	cmd.Flags().IntP("limit", "n", 100, "How many streams to list at most; 0: all")
	cmd.Example = `  caddy sse-guard streams
  caddy sse-guard streams --state untracked --older-than 10m --json`
	return cmd
}

func statsCommand() *cobra.Command {
	cmd := adminCommand("stats [--zone <name>]", "Counts streams", `
Counts streams by zone, node, state, and the values of labels.
`, func(ctx context.Context, cmd *cobra.Command, client *console.Client) (result, error) {
		zone, err := cmd.Flags().GetString("zone")
		if err != nil {
			return nil, mistakeError{err}
		}
		return client.Stats(ctx, zone)
	})
	cmd.Flags().StringP("zone", "z", "", "Streams of this zone")
	_ = cmd.RegisterFlagCompletionFunc("zone", cobra.NoFileCompletions)
	cmd.Example = "  caddy sse-guard stats"
	return cmd
}

func endCommand() *cobra.Command {
	cmd := adminCommand("end [--subject <user>] [--key <hash>]... [--all] [--deny <duration>]", "Ends streams", `
Ends the streams that match all flags. Their clients are told REVOKED and stay
away, unless --reason says otherwise. With --deny, the tokens of the streams,
and their verified users, are not accepted for that long.
`, func(ctx context.Context, cmd *cobra.Command, client *console.Client) (result, error) {
		f, err := filter(cmd)
		if err != nil {
			return nil, mistakeError{err}
		}
		if err := givenEmpty(cmd, "reason", "message", "deny"); err != nil {
			return nil, mistakeError{err}
		}
		flags := caddycmd.Flags{FlagSet: cmd.Flags()}
		end, err := console.NewEnd(f, flags.Bool("all"))
		if err != nil {
			return nil, mistakeError{err}
		}
		end.Reason, end.Message, end.Deny, end.Limit = flags.String("reason"), flags.String("message"), flags.String("deny"), flags.Int("limit")
		return client.End(ctx, end)
	})
	addFilterFlags(cmd, true)
	flags := cmd.Flags()
	flags.StringP("reason", "r", "", "Why: "+strings.Join(console.Reasons, ", ")+" (default revoked)")
	flags.StringP("message", "m", "", "What a person reads in the event")
	flags.StringP("deny", "d", "", "How long the tokens and users are not accepted, such as 10m")
	flags.IntP("limit", "n", 0, "How many streams to end at most; 0: all that match")
	_ = cmd.RegisterFlagCompletionFunc("reason", cobra.FixedCompletions(console.Reasons, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"message", "deny", "limit"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	cmd.Example = `  caddy sse-guard end --subject alice --deny 10m
  caddy sse-guard end --raw-token - < token.txt
  caddy sse-guard end --all --reason max_age`
	return cmd
}

func notifyCommand() *cobra.Command {
	cmd := adminCommand("notify --data <text> [--event <name>] [--subject <user>]... [--all]", "Sends an event to streams", `
Sends an event of your own, between two of the application's, to the streams
that match all flags.
`, func(ctx context.Context, cmd *cobra.Command, client *console.Client) (result, error) {
		f, err := filter(cmd)
		if err != nil {
			return nil, mistakeError{err}
		}
		flags := caddycmd.Flags{FlagSet: cmd.Flags()}
		data := flags.String("data")
		if data == "-" {
			if flags.String("raw-token") == "-" {
				return nil, mistakeError{errors.New("--data - and --raw-token -: only one of them can be the standard input")}
			}
			if data, err = readLine(cmd.InOrStdin(), "--data -"); err != nil {
				return nil, mistakeError{err}
			}
		}
		notify, err := console.NewNotify(f, flags.Bool("all"), flags.String("event"), data)
		if err != nil {
			return nil, mistakeError{err}
		}
		return client.Notify(ctx, notify)
	})
	addFilterFlags(cmd, true)
	cmd.Flags().StringP("event", "e", "", "Name of the event (default: none, which is message)")
	cmd.Flags().StringP("data", "d", "", "Data of the event, of any lines; - reads it from the standard input")
	for _, name := range []string{"event", "data"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	cmd.Example = `  caddy sse-guard notify --all --event MAINTENANCE --data "We are back at noon."`
	return cmd
}

func topCommand() *cobra.Command {
	cmd := newAdminCommand("top [--interval <duration>] [--sort rate|age|events|bytes] [--zone <name>]...", "Shows streams live in the terminal", `
Shows counts and the streams that matter most, again and again, until q or
Ctrl-C. r, a, e and b sort by rate of events, age, events and bytes. Flags name
the streams that are shown: those that match all of them; 1,000 are looked at.

Where the output is no terminal, it prints once what there is.
`)
	addFilterFlags(cmd, false)
	cmd.Flags().DurationP("interval", "i", 2*time.Second, "Time between two looks")
	cmd.Flags().String("sort", "rate", "What comes first: "+strings.Join(texts(console.Orders), ", "))
	_ = cmd.RegisterFlagCompletionFunc("interval", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(texts(console.Orders), cobra.ShellCompDirectiveNoFileComp))
	cmd.Example = "  caddy sse-guard top"
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runTop(cmd) }
	return cmd
}

func runTop(cmd *cobra.Command) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	client, err := adminClient(cmd)
	if err != nil {
		return usageError(cmd, err)
	}
	defer client.HTTP.CloseIdleConnections()
	f, err := filter(cmd)
	if err != nil {
		return usageError(cmd, err)
	}
	flags := caddycmd.Flags{FlagSet: cmd.Flags()}
	top := console.Top{Client: client, Filter: f, Interval: flags.Duration("interval"), Order: console.Order(flags.String("sort"))}
	if err := top.Check(); err != nil {
		return usageError(cmd, err)
	}
	look, err := top.Look(ctx)
	if err != nil {
		return adminError(cmd, err)
	}
	out := cmd.OutOrStdout()
	if flags.Bool("json") || !console.IsTerminal(out) {
		return show(cmd, frame{look, top.Order, client.Address}, look)
	}
	if err := console.Live(ctx, out, &top, look); err != nil {
		return adminError(cmd, err)
	}
	return nil
}

// frame is one look of top.
type frame struct {
	*console.Look
	order   console.Order
	address string
}

// Print writes it as top does, but once.
func (f frame) Print(out io.Writer) { f.Look.Print(out, f.order, f.address) }
