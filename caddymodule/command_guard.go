package caddymodule

import (
	"fmt"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "sse-guard",
		Usage: "<command>",
		Short: "Checks, shows and ends guarded event streams",
		Long: `
Commands for who runs sse_guard.

"check" asks a site for event streams as the tabs of a browser do, and says
whether they are guarded. It needs nothing but the site's address.

The others ask the admin endpoint of a running Caddy.
`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(checkCommand(), streamsCommand(), topCommand(), endCommand(), notifyCommand(), statsCommand())
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return usageError(cmd, fmt.Errorf("sse-guard has no command %q; see caddy sse-guard --help", args[0]))
				}
				return cmd.Help()
			}
		},
	})
}

// Exit codes of the commands, besides those of Caddy's.
const (
	exitNo      = 1 // the answer is no
	exitUnknown = 2 // there is no answer: usage, or it did not come to that
)

// usageError says what is wrong with how the command was called.
func usageError(cmd *cobra.Command, err error) error {
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return exitUnknown, err })(cmd, nil)
}

// exit ends the command with the code, and without a word.
func exit(cmd *cobra.Command, code int) error {
	cmd.SilenceErrors = true
	switch code {
	case 0:
		return nil
	case exitNo: // which is that of any error
		return errNo
	default:
		return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
	}
}
