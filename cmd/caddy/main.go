// Command caddy is Caddy with its standard modules and sse_guard.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/sse-guard/sse-guard/caddymodule"
)

func main() { caddycmd.Main() }
