#!/usr/bin/env bash
# Plays the campaign against several nodes and their Redis for ten minutes, or as the
# arguments say: -for 1h, and -seed 7, which plays the campaign of that seed again.
set -euo pipefail
cd "$(dirname "$0")/.."
.ci/deps.sh
source .ci/temporary.sh
go test -count=1 -timeout 0 -v -run TestCampaign ./caddymodule/e2e/campaign -args -for 10m "$@"
