#!/usr/bin/env bash
# Installs what `make compat` needs besides what deps.sh installs: Debian packages,
# and in .cache/compat the clients of testdata/compat, at the versions that its lock
# files name. Run again, it only looks.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/install.sh

has_firefox() { have firefox-esr; }
has_node() { have npm && have node && [ "$(node -p 'parseInt(process.versions.node)')" -ge 20 ]; }

needs=(
	"firefox:firefox-esr"
	"node:nodejs npm"
)

clients=testdata/compat
cache=.cache/compat

# make_js installs the packages, and bundles the pages. No package needs its install script.
make_js() {
	local dir=$cache/js files
	mapfile -t files < <(find "$clients/js" -type f | sort)
	stale "$dir" "${files[@]}" || return 0
	say "installing the JavaScript clients"
	rm -rf "$dir"
	cp -r "$clients/js" "$dir"
	npm --prefix "$dir" ci --ignore-scripts --no-audit --no-fund --loglevel=error
	local pages
	mapfile -t pages < <(cd "$dir" && find page -name '*.js' ! -name compat.js)
	(cd "$dir" && node_modules/.bin/esbuild --bundle --format=iife --log-level=warning --outdir=pages "${pages[@]}")
	made "$dir" "${files[@]}"
}

make_java() {
	make_maven "the Java clients" "$clients/java" "$cache/java" compat.directory "$cache/m2"
}

# make_go leaves it to Go to see what has changed.
make_go() {
	GOBIN="$PWD/$cache/go" go install -C "$clients/go" ./...
}

install_packages
mkdir -p "$cache"
# Two runs at once must not install under each other.
exec 9>"$cache/deps.lock"
flock 9
make_venv "$cache/python" "$clients/python/requirements.txt"
make_js
make_java
make_go
say "node $(node --version), $(javac -version), $(firefox-esr --version), all there"
