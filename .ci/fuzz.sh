#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time each (default 10s).
set -euo pipefail
cd "$(dirname "$0")/.."
fuzztime=${1:-10s}

found=0
while IFS=: read -r file target; do
	found=$((found + 1))
	echo "==> $target in ${file%/*}"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "./${file%/*}" </dev/null
done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' caddymodule cmd | sed 's/func //')
echo "fuzz: $found targets, $fuzztime each"
