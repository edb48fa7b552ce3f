// Package compat runs real clients of event streams, each in a process of its own,
// against cmd/caddy, and writes down how they fare: the table of README's section
// "Clients". Its tests have the build tag compat, since they need clients that
// .ci/compat-deps.sh installs, and minutes: run `make compat`, and
// `make compat ARGS=-update` to write the table anew.
//
// The clients are in testdata/compat, whose README says how a client is added.
package compat
