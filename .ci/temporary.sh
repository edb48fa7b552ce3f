# test.sh and compat.sh source it: temporary files go to a directory of their own, which
# is removed at the end, also of a run that was interrupted or whose tests were killed.

TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/sse-guard.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
