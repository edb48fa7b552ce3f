package caddymodule

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sse-guard/sse-guard/caddymodule/registry"

	"github.com/sse-guard/sse-guard/caddymodule/identity"
)

func TestOptions_RowsAreComplete(t *testing.T) {
	requireRows(t, options)
	requireRows(t, jwtOptions)
	requireRows(t, webhookOptions)
}

func requireRows[T any](t *testing.T, options []option[T]) {
	t.Helper()
	names := sortedNames(options)
	require.Equal(t, names, slices.Compact(slices.Clone(names)), "a name is there twice")
	for _, o := range options {
		require.NotEqual(t, o.parse == nil, o.block == nil, "%s: one of parse and block reads it", o.name)
		require.Equal(t, o.block != nil, strings.HasSuffix(o.syntax, "{ ... }"), "%s: its syntax has a block if it has one", o.name)
		require.NotEmpty(t, o.def+o.defDoc, "%s: what holds without it?", o.name)
		require.Equal(t, o.def != "", o.fill != nil, "%s: a default is set by fill", o.name)
		require.Regexp(t, `^[A-Z].*\.$`, o.doc, "%s: its doc is a sentence", o.name)
	}
}

// The defaults are what a Caddyfile that writes them out would give, under the policy
// under which all of them mean something.
func TestDefaults_AreTheLinesOfTheTable(t *testing.T) {
	var block strings.Builder
	for _, o := range options {
		for line := range strings.SplitSeq(o.def, "\n") {
			if line == "supersede" {
				line = "reject"
			}
			if line != "" {
				fmt.Fprintf(&block, "%s %s\n", o.name, line)
			}
		}
	}
	written, err := parse(block.String())
	require.NoError(t, err, block.String())
	h := &Handler{Policy: registry.Reject}
	h.setDefaults()
	require.Equal(t, written, h)
	require.NoError(t, h.Validate())

	h = new(Handler)
	h.setDefaults()
	require.Equal(t, registry.Supersede, h.Policy)
	require.NoError(t, h.Validate())
}

// Guards must not share what one of them might change.
func TestDefaults_AreEachHandlersOwn(t *testing.T) {
	one, other := new(Handler), new(Handler)
	one.setDefaults()
	other.setDefaults()
	require.NotSame(t, one.Limit, other.Limit)
	require.NotSame(t, one.Drain, other.Drain)
}

// Some defaults are known elsewhere, too.
func TestDefaults_AgreeWithOtherPackages(t *testing.T) {
	h := new(Handler)
	h.setDefaults()
	require.Equal(t, identity.DefaultTokens(), h.Token)
	require.Equal(t, identity.DefaultClients(), h.Client)

	o, _ := optionNamed(options, "registry")
	h, err := parse("registry " + strings.Trim(o.defDoc, "`"))
	require.NoError(t, err)
	require.JSONEq(t, string(memoryConfig), string(h.RegistryRaw))

	// The others with a literal default are zero until they are given.
	leeway, _ := optionNamed(jwtOptions, "leeway")
	j := new(JWT)
	require.NoError(t, leeway.parse(j, []string{strings.Trim(leeway.defDoc, "`")}))
	require.Equal(t, new(JWT), j)
}

func TestArity_FollowsFromTheSyntax(t *testing.T) {
	for syntax, want := range map[string][2]int{
		"":                                {0, 0},
		"<name>":                          {1, 1},
		"a|b":                             {1, 1},
		"<duration>|off":                  {1, 1},
		"header|query|cookie <name>":      {2, 2},
		"<n> [streams|clients]":           {1, 2},
		"<n> <window>|off":                {1, 2},
		"<part...>":                       {1, -1},
		"<placeholder or file> [<kid>]":   {1, 2},
		"<file> [<kid>] [issuer <name>]":  {1, 4},
		"<file> [issuer <name...>]":       {1, -1},
		"[<method>] <path> [<scope>]":     {1, 3},
		"[<method>] <path> [<status...>]": {1, -1},
		"<module> { ... }":                {1, 1},
		"{ ... }":                         {0, 0},
	} {
		least, most := arity(syntax)
		require.Equal(t, want, [2]int{least, most}, syntax)
	}
}

// With too few arguments, or too many, each option says how it is written.
func TestOptions_ErrorsShowTheSyntax(t *testing.T) {
	for _, o := range options {
		requireUsage(t, o, "%s")
	}
	for _, o := range jwtOptions {
		requireUsage(t, o, "jwt {\n%s\n}")
	}
	for _, o := range webhookOptions {
		requireUsage(t, o, "webhook https://a.example {\n%s\n}")
	}
}

func requireUsage[T any](t *testing.T, o option[T], block string) {
	t.Helper()
	if o.block != nil {
		return // TestCaddyfile_Errors has them
	}
	least, most := arity(o.syntax)
	var refused []int
	if least > 0 {
		refused = append(refused, least-1)
	}
	if most >= 0 {
		refused = append(refused, most+1)
	}
	for _, n := range refused {
		_, err := parse(fmt.Sprintf(block, o.name+strings.Repeat(" x", n)))
		require.ErrorContains(t, err, fmt.Sprintf("option %s does not take %d arguments; write: %s", o.name, n, o.usage()))
		require.ErrorContains(t, err, "Caddyfile:")
	}
}

// Whatever an option refuses, it is told by its name.
func TestOptions_ErrorsBeginWithTheName(t *testing.T) {
	for _, o := range options {
		if o.block != nil || len(o.syntax) == 0 {
			continue
		}
		least, _ := arity(o.syntax)
		args := slices.Repeat([]string{" "}, least)
		h := new(Handler)
		err := o.parse(h, args)
		if err == nil && o.validate != nil {
			err = o.validate(h)
		}
		require.Error(t, err, o.name)
		require.True(t, strings.HasPrefix(err.Error(), o.name), "%s: %v", o.name, err)
	}
}
