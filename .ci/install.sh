# What deps.sh and compat-deps.sh share; both source it. needs is an array of
# "name:Debian packages", and has_name says whether that need is met.

say() { echo "$(basename "$0" .sh): $*"; }

have() { command -v "$1" >/dev/null 2>&1; }

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
		say "not root and no sudo; as root, run: $*" >&2
		return 1
	fi
}

# quietly shows what the command prints only if it fails.
quietly() {
	local printed
	printed=$("$@" 2>&1 </dev/null) || {
		local status=$?
		printf '%s\n' "$printed" >&2
		say "failed: $*" >&2
		return "$status"
	}
}

install_packages() {
	local packages
	read -ra packages <<<"$(missing | tr '\n' ' ')"
	[ ${#packages[@]} -gt 0 ] || return 0
	if ! have apt-get; then
		say "no apt-get here; install what these Debian packages hold: ${packages[*]}" >&2
		return 1
	fi
	say "installing ${packages[*]}"
	local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
	quietly as_root "${apt[@]}" update
	quietly as_root "${apt[@]}" install -y --no-install-recommends "${packages[@]}"
	hash -r
	if [ -n "$(missing)" ]; then
		say "installed, and still missing: $(missing | tr '\n' ' ')" >&2
		return 1
	fi
}

# stale DIR FILE...: whether DIR was not made from these FILEs as they are now.
stale() {
	[ "$(cat "$1/made-from" 2>/dev/null)" != "$(cat "${@:2}" | sha256sum)" ]
}

# made DIR FILE...: DIR was made from these FILEs.
made() {
	cat "${@:2}" | sha256sum >"$1/made-from"
}

# make_venv DIR REQUIREMENTS
make_venv() {
	stale "$1" "$2" || return 0
	say "making $1 from $2"
	"$(venv_python)" -m venv --clear "$1"
	"$1/bin/python" -m pip install --quiet --no-input --no-cache-dir --disable-pip-version-check -r "$2"
	made "$1" "$2"
}

# make_maven WHAT SOURCE DIR PROPERTY REPOSITORY: compiles the Maven project in SOURCE,
# whose pom takes DIR by that PROPERTY, and puts what it needs beside it.
make_maven() {
	local what=$1 source=$2 dir=$PWD/$3 property=$4 repository=$PWD/$5 files
	mapfile -t files < <(find "$source" -type f | sort)
	stale "$dir" "${files[@]}" || return 0
	say "building $what"
	rm -rf "$dir"
	mvn --quiet --batch-mode -Dstyle.color=never -f "$source/pom.xml" \
		-Dmaven.repo.local="$repository" -D"$property=$dir" compile
	made "$dir" "${files[@]}"
}
