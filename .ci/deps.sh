#!/usr/bin/env bash
# Installs what the tests need and is missing: Debian packages, and the Python
# environment of testdata/fastapi in .cache/venv, and the Spring Boot application of
# testdata/spring in .cache/spring. Run again, it only looks. Go is not installed:
# Debian's is older than go.mod wants.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/install.sh

# check_go comes before all else: everything is in vain without it. From 1.21 on a Go
# fetches the version that go.mod names, unless GOTOOLCHAIN forbids it.
check_go() {
	local wanted said
	wanted=$(awk '$1 == "go" { print $2 }' go.mod)
	if ! have go; then
		say "there is no Go here, and Debian's is too old to be installed; install Go $wanted or newer: https://go.dev/dl/" >&2
		return 1
	fi
	if ! said=$(go list -m 2>&1); then
		say "$(cd / && go version 2>&1 | cut -d' ' -f3) cannot be used here: go.mod wants Go $wanted or newer" >&2
		say "install it from https://go.dev/dl/; from 1.21 on Go can also fetch it by itself: GOTOOLCHAIN=auto make test" >&2
		printf '%s\n' "$said" | sed 's/^/    /' >&2
		return 1
	fi
}

# Each has_* answers for one need; the table under them names its packages.
# The race detector links with a C compiler and the C library's headers.
has_cc() { printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | "${CC:-gcc}" -x c -o /dev/null - 2>/dev/null; }
has_certificates() { [ -s /etc/ssl/certs/ca-certificates.crt ]; }
has_browser() { have chromium || have chromium-browser || have google-chrome; }
# The tests in network namespaces look at connections with ss, which comes with ip.
has_ip() { have ip && have ss; }
has_curl() { have curl; }
has_redis() { have redis-server; }
has_venv() { venv_python >/dev/null; }
has_java() { have mvn && have javac && [ "$(javac -version 2>&1 | sed 's/^javac \([0-9]*\).*/\1/')" -ge 17 ]; }

needs=(
	"cc:gcc libc6-dev"
	"certificates:ca-certificates"
	"browser:chromium"
	"ip:iproute2"
	"curl:curl"
	"redis:redis-server"
	"venv:python3 python3-venv"
	"java:default-jdk-headless maven"
)

check_go
install_packages
mkdir -p .cache
# Two runs at once must not clear the environment under each other.
exec 9>.cache/deps.lock
flock 9
make_venv .cache/venv testdata/fastapi/requirements.txt
make_maven "the Spring Boot application" testdata/spring .cache/spring spring.directory .cache/m2
say "$(go version | cut -d' ' -f3), $(.cache/venv/bin/python --version), $(javac -version), all there"
