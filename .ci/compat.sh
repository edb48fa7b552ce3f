#!/usr/bin/env bash
# Runs the clients of testdata/compat against cmd/caddy, and holds them to README's
# table. Arguments go to the test: -update writes the table, and
# -test.v -test.run 'TestClients/all/htmx' plays the scenes of one client, and tells
# what it saw.
set -euo pipefail
cd "$(dirname "$0")/.."
.ci/deps.sh
.ci/compat-deps.sh
source .ci/temporary.sh
start=$SECONDS
go vet -tags compat ./caddymodule/e2e/compat
# The clients wait much more than they work: many at once fit into few cores.
go test -tags compat -count=1 -timeout 30m -parallel 24 ./caddymodule/e2e/compat -args "$@"
printf 'compat: all clients fare as README says, %d s\n' $((SECONDS - start))
