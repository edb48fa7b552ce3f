#!/usr/bin/env bash
# Installs what `make compat` needs besides the tests' needs: Debian packages, and
# under .cache/compat the clients of testdata/compat, at the versions that its
# lock files name. Run again, it only looks.
set -euo pipefail
cd "$(dirname "$0")/.."
.ci/deps.sh

clients=testdata/compat
made=.cache/compat

needs=("firefox-esr:firefox-esr" "node:nodejs npm" "npm:npm" "javac:default-jdk-headless" "mvn:maven")

missing() {
	local need
	for need in "${needs[@]}"; do
		command -v "${need%%:*}" >/dev/null 2>&1 || echo "${need#*:}"
	done
}

read -ra packages <<<"$(missing | tr '\n' ' ')"
if [ ${#packages[@]} -gt 0 ]; then
	echo "compat-deps: installing ${packages[*]}"
	root=()
	[ "$(id -u)" -eq 0 ] || root=(sudo)
	apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
	"${root[@]}" "${apt[@]}" update </dev/null
	"${root[@]}" "${apt[@]}" install -y --no-install-recommends "${packages[@]}" </dev/null
	hash -r
fi

mkdir -p "$made"
# Two runs at once must not install under each other.
exec 9>"$made/deps.lock"
flock 9

# stale DIR FILE...: says whether DIR was made from other FILEs, and empties it then.
stale() {
	local dir=$1 want
	shift
	want=$(cat "$@" | sha256sum)
	[ "$(cat "$dir/made-from" 2>/dev/null)" != "$want" ] || return 1
	rm -rf "$dir"
	mkdir -p "$dir"
	made_from=$want
}

made() { echo "$made_from" >"$1/made-from"; }

if stale "$made/python" "$clients/python/requirements.txt"; then
	echo "compat-deps: the Python clients"
	python3 -m venv "$made/python"
	"$made/python/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --no-deps -r "$clients/python/requirements.txt"
	made "$made/python"
fi

mapfile -t js < <(find "$clients/js" -type f | sort)
if stale "$made/js" "${js[@]}"; then
	echo "compat-deps: the JavaScript clients"
	cp -r "$clients/js/." "$made/js/"
	# Without install scripts: none of these packages needs one.
	npm --prefix "$made/js" ci --ignore-scripts --no-audit --no-fund --loglevel=error
	(cd "$made/js" && node_modules/.bin/esbuild --bundle --format=iife --log-level=warning --outdir=pages \
		$(find page -name '*.js' ! -name compat.js))
	made "$made/js"
fi

mapfile -t java < <(find "$clients/java" -type f | sort)
if stale "$made/java" "${java[@]}"; then
	echo "compat-deps: the Java clients"
	mvn --quiet --batch-mode -f "$clients/java/pom.xml" -Dmaven.repo.local="$PWD/$made/m2" -Dcompat.directory="$PWD/$made/java" compile
	made "$made/java"
fi

echo "compat-deps: the Go clients"
GOBIN="$PWD/$made/go" go install -C "$clients/go" ./...
echo "compat-deps: all there"
