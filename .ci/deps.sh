#!/usr/bin/env bash
# Installs what the tests need and is missing: Debian packages, and the Python
# environment of testdata/fastapi in .cache/venv. Run again, it only looks.
set -euo pipefail
cd "$(dirname "$0")/.."

have() { command -v "$1" >/dev/null 2>&1; }

# Each has_* answers for one need; the table under them names its packages.
has_go() { have go; }
# The race detector links with a C compiler and the C library's headers.
has_cc() { printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | "${CC:-gcc}" -x c -o /dev/null - 2>/dev/null; }
has_certificates() { [ -s /etc/ssl/certs/ca-certificates.crt ]; }
has_browser() { have chromium || have chromium-browser || have google-chrome; }
# The tests in network namespaces look at connections with ss, which comes with ip.
has_ip() { have ip && have ss; }
has_curl() { have curl; }
has_venv() { venv_python >/dev/null; }

# venv_python prints a Python that can make virtual environments. The first one
# in PATH may lack ensurepip even when Debian's own has it.
venv_python() {
	local python
	for python in python3 /usr/bin/python3; do
		if have "$python" && "$python" -c 'import ensurepip, venv' 2>/dev/null; then
			echo "$python"
			return
		fi
	done
	return 1
}

needs=(
	"go:golang-go"
	"cc:gcc libc6-dev"
	"certificates:ca-certificates"
	"browser:chromium"
	"ip:iproute2"
	"curl:curl"
	"venv:python3 python3-venv"
)

missing() {
	local need
	for need in "${needs[@]}"; do
		"has_${need%%:*}" || echo "${need#*:}"
	done
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif have sudo; then
		sudo "$@"
	else
		echo "deps: not root and no sudo; as root, run: $*" >&2
		return 1
	fi
}

install_packages() {
	local packages
	read -ra packages <<<"$(missing | tr '\n' ' ')"
	[ ${#packages[@]} -gt 0 ] || return 0
	if ! have apt-get; then
		echo "deps: no apt-get here; install what these Debian packages hold: ${packages[*]}" >&2
		return 1
	fi
	echo "deps: installing ${packages[*]}"
	local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
	as_root "${apt[@]}" update </dev/null
	as_root "${apt[@]}" install -y --no-install-recommends "${packages[@]}" </dev/null
	hash -r
	if [ -n "$(missing)" ]; then
		echo "deps: installed, and still missing: $(missing | tr '\n' ' ')" >&2
		return 1
	fi
}

# check_go lets an old Go fetch the version that go.mod names, or fail here with
# a message instead of later with a riddle.
check_go() {
	if ! go version >/dev/null 2>&1; then
		echo "deps: this Go is too old to fetch the one that go.mod names; install Go $(awk '$1 == "go" { print $2 }' go.mod)" >&2
		return 1
	fi
}

make_venv() {
	local requirements=testdata/fastapi/requirements.txt venv=.cache/venv want
	want=$(sha256sum "$requirements")
	if [ "$(cat "$venv/made-from" 2>/dev/null)" = "$want" ] && "$venv/bin/python" -c 'import fastapi' 2>/dev/null; then
		return
	fi
	echo "deps: making $venv from $requirements"
	"$(venv_python)" -m venv --clear "$venv"
	"$venv/bin/python" -m pip install --quiet --no-input --no-cache-dir --disable-pip-version-check -r "$requirements"
	echo "$want" >"$venv/made-from"
}

install_packages
check_go
mkdir -p .cache
# Two runs at once must not clear the environment under each other.
exec 9>.cache/deps.lock
flock 9
make_venv
echo "deps: $(go version | cut -d' ' -f3), $(.cache/venv/bin/python --version), all there"
