#!/usr/bin/env bash
# Runs the clients of testdata/compat against cmd/caddy. Arguments go to the test:
# -update writes README's table, -test.run 'TestClients/all/EventSource' runs some.
set -euo pipefail
cd "$(dirname "$0")/.."
.ci/compat-deps.sh
go vet -tags compat ./caddymodule/e2e/compat
# The clients of a test wait much more than they work: many at once fit into few cores.
exec go test -tags compat -count=1 -timeout 20m -parallel 32 ./caddymodule/e2e/compat -v -args "$@"
