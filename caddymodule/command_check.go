package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sse-guard/sse-guard/caddymodule/check"
)

// errNo is never printed.
var errNo = errors.New("the answer is no")

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check <url> [--token <token>] [--cookie <name=value>]... [--header <name: value>]... [--streams <n>] [--insecure] [--json]",
		Short: "Says whether the event stream of a URL is guarded",
		Long: `
Opens two event streams of the URL, as two tabs of one browser would, and says
what became of them: guarded (the older one was ended, or the newer one
refused), or not guarded, and why that may be. A stream that was ended comes
back with its tombstone, as EventSource does, and is to be sent away.

--token is sent as "Authorization: Bearer". Pages mostly have their token in a
cookie, or in the URL: use --cookie, or write it into the URL. Give one only.

The check has connections of its own and ends them when it is done. But its
streams are streams like any other: with the token of a real user, they end the
stream that this user has open now, and the page stays closed until it is loaded
anew. Use a token made for the purpose.

If all streams stay open, one more request, with a second, made-up token, finds
out whether a guard stands there at all.

A guard that allows more than one stream per key is seen at work with one more
than that: --streams. For an LLM gateway: --method POST --data '{"stream":true}'.

The exit code is 0 if streams are guarded, 1 if not, and 2 if that could not be
told: nobody answers, there is no event stream, the token is refused, or the
command was not called as above.
`,
		Example: `  caddy sse-guard check http://localhost:8080/events --cookie access_token=alice
  caddy sse-guard check https://example.com/events --cookie session=s3cr3t --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(cmd, fmt.Errorf("sse-guard check takes one URL, got %d arguments", len(args)))
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              runCheck,
	}
	cmd.SetFlagErrorFunc(usageError)
	flags := cmd.Flags()
	flags.StringP("token", "t", "", "Token, sent as Authorization: Bearer")
	flags.StringArrayP("cookie", "b", nil, "Cookie as name=value; may be repeated")
	flags.StringArrayP("header", "H", nil, `Header field as "Name: value"; may be repeated`)
	flags.StringP("method", "X", http.MethodGet, "Method; EventSource knows no other than GET")
	flags.StringP("data", "d", "", "Body of each request; JSON, unless a header field says otherwise")
	flags.IntP("streams", "n", check.MinStreams, "How many streams to open")
	flags.BoolP("insecure", "k", false, "Accept any certificate")
	flags.Duration("timeout", check.DefaultAnswerTimeout, "How long to wait for the header of an answer")
	flags.Duration("watch", check.DefaultWatch, "How long to wait for something to happen to the streams")
	flags.Bool("json", false, "Print a report for programs")
	_ = cmd.RegisterFlagCompletionFunc("method", cobra.FixedCompletions([]string{http.MethodGet, http.MethodPost}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"token", "cookie", "header", "data", "streams", "timeout", "watch"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	return cmd
}

func runCheck(cmd *cobra.Command, args []string) error {
	config, err := checkConfig(cmd, args[0])
	if err != nil {
		return usageError(cmd, err)
	}
	out := cmd.OutOrStdout()
	asJSON, err := cmd.Flags().GetBool("json")
	if err != nil {
		return usageError(cmd, err)
	}
	if !asJSON {
		config.OnStep = func(s check.Step) { s.Print(out) }
	}
	if config.Header.Get("Authorization") != "" || config.Header.Get("Cookie") != "" || strings.Contains(args[0], "?") {
		fmt.Fprintln(cmd.ErrOrStderr(), "If this is a real user's token, the check ends the stream that the user has open now, and that page stays closed until it is loaded anew; under policy reject, the check is refused instead.")
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	report, err := check.Run(ctx, config)
	if err != nil {
		return usageError(cmd, err)
	}
	if asJSON {
		err = printJSON(out, report)
	} else {
		report.Print(out)
	}
	if err != nil {
		return usageError(cmd, err)
	}
	return exit(cmd, report.ExitCode())
}

func checkConfig(cmd *cobra.Command, url string) (config check.Config, err error) {
	flags := cmd.Flags()
	config = check.Config{URL: url, Header: make(http.Header)}
	var token string
	var cookies, fields []string
	for _, read := range []func() error{
		func() (err error) { token, err = flags.GetString("token"); return },
		func() (err error) { cookies, err = flags.GetStringArray("cookie"); return },
		func() (err error) { fields, err = flags.GetStringArray("header"); return },
		func() (err error) { config.Method, err = flags.GetString("method"); return },
		func() (err error) { config.Body, err = flags.GetString("data"); return },
		func() (err error) { config.Streams, err = flags.GetInt("streams"); return },
		func() (err error) { config.Insecure, err = flags.GetBool("insecure"); return },
		func() (err error) { config.AnswerTimeout, err = flags.GetDuration("timeout"); return },
		func() (err error) { config.Watch, err = flags.GetDuration("watch"); return },
	} {
		if err := read(); err != nil {
			return config, err
		}
	}
	for _, field := range fields {
		name, value, ok := strings.Cut(field, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return config, fmt.Errorf("--header %q: write it as \"Name: value\"", name)
		}
		config.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	for _, cookie := range cookies {
		if name, _, ok := strings.Cut(cookie, "="); !ok || name == "" {
			return config, errors.New("--cookie: write it as name=value")
		}
	}
	if len(cookies) > 0 {
		config.Header.Set("Cookie", strings.Join(append(config.Header.Values("Cookie"), cookies...), "; "))
	}
	if token != "" {
		if config.Header.Get("Authorization") != "" {
			return config, errors.New("--token and a --header Authorization: give one of them")
		}
		config.Header.Set("Authorization", "Bearer "+token)
	}
	return config, nil
}

func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
