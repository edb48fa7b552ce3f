#!/usr/bin/env bash
# Runs every check of this repository. Each step says its name, its end and its
# time; a failed check does not hide the ones after it. The last line counts
# the tests.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=()

step() {
	local name=$1 start=$SECONDS
	shift
	printf '==> %s: %s\n' "$name" "$*"
	if "$@"; then
		printf '<== %s: ok, %d s\n' "$name" $((SECONDS - start))
	else
		printf '<== %s: FAILED, %d s\n' "$name" $((SECONDS - start))
		failed+=("$name")
		return 1
	fi
}

gofmt_check() {
	local unformatted
	unformatted=$(gofmt -l "$@") || return
	if [ -n "$unformatted" ]; then
		printf 'not gofmt-ed: %s\n' "$unformatted"
		return 1
	fi
}

# report shows the packages that fail in full and the others in one line each. It
# leaves in $1, for the end, where a long record is still read: which tests failed and
# what they said, which were skipped, and why, and the count of tests.
report() {
	awk -v count="$1" '
		# What testify says of a failure, and the warning of the race detector.
		/^ +\tError Trace:/ { failing = 1 }
		failing && !/^ +\t/ { failing = 0 }
		/^WARNING: DATA RACE/ || /^panic: / { racing = 30 }
		failing || racing-- > 0 { print > count }
		/^ *--- FAIL:/ || /\[rapid\] (failed|panic)/ || /goleak: / { print > count }
		/^    [^ ]+\.go:[0-9]+: / { said = $0; sub(/^    [^ ]+: /, "", said) }
		/^--- PASS:/ { passed++ }
		/^--- FAIL:/ { bad++; here++ }
		/^--- SKIP:/ { skipped++; print "SKIPPED: " $3 ": " said > count }
		/^ok  \t/ || /\[no test files\]$/ { print; held = ""; here = 0; fflush(); next }
		/^FAIL\t/ {
			# A build error, a panic or a time-out fails a package, no test of its own.
			if (!here) bad++
			printf "%s%s\n", held, $0; held = ""; here = 0; fflush(); next
		}
		{ held = held $0 "\n" }
		END {
			printf "%s", held
			printf "%d passed, %d failed", passed, bad > count
			if (skipped) printf ", %d skipped", skipped > count
			printf "\n" > count
		}'
}

tests() {
	"$@" -v 2>&1 | report .cache/test-count
}

# left fails if something is left in the directory for temporary files, and names it.
left() {
	local name found=0
	while IFS= read -r name; do
		printf 'left behind: %s\n' "$name"
		found=1
	done < <(du -sh "$TMPDIR"/* "$TMPDIR"/.[!.]* 2>/dev/null)
	return $found
}

start=$SECONDS
step deps .ci/deps.sh || exit 1
source .ci/temporary.sh
step gofmt gofmt_check caddymodule cmd
step vet go vet ./...
step lint make --no-print-directory lint
# The end-to-end tests start programs of which the test cache knows nothing. They wait
# more than they compute: so three packages at a time, also on two cores.
step test tests go test -race -count=1 -p 3 -timeout 20m ./...
step left left

if [ ${#failed[@]} -gt 0 ]; then
	printf 'FAILED: %s, after %d s\n' "${failed[*]}" $((SECONDS - start))
else
	printf 'all steps ok, %d s\n' $((SECONDS - start))
fi
cat .cache/test-count
[ ${#failed[@]} -eq 0 ]
