package main

import (
	_ "github.com/sse-guard/sse-guard/caddymodule" // what is measured
)
