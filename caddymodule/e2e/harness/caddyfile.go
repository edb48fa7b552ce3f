package harness

import (
	"fmt"
)

// caddyfile returns a Caddyfile with these site blocks. Its global block keeps Caddy
// from all that the test does not own: no admin endpoint, no trust store, no port
// for redirects; storage is a directory, and the log a file. global has more lines
// for the global block.
func caddyfile(storage string, log *CaddyLog, global, sites string) string {
	return fmt.Sprintf(`{
		admin off
		persist_config off
		skip_install_trust
		auto_https disable_redirects
		storage file_system %q
		log default {
			output file %q {
				roll_disabled
			}
			format json
		}
		%s
	}
	%s
	`, storage, log.path, global, sites)
}
