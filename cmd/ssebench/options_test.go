package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOptions_QuickYieldsToWhatIsGiven(t *testing.T) {
	o, err := parseOptions([]string{"-quick", "-streams", "77", "-settle", "1s"}, discard{})
	require.NoError(t, err)
	assert.Equal(t, 77, o.streams)
	assert.Equal(t, time.Second, o.settle)
	assert.Equal(t, 1, o.rounds)
	assert.Equal(t, 10, o.takeovers)
}

func TestOptions_EveryQuickValueIsAFlag(t *testing.T) {
	_, err := parseOptions([]string{"-quick"}, discard{})
	require.NoError(t, err)
}

func TestOptions_SayWhatIsExpected(t *testing.T) {
	for want, args := range map[string][]string{
		"-rounds 0: must be 1 or more":       {"-rounds", "0"},
		"must not be more than -streams":     {"-streams", "10", "-takeovers", "11"},
		"must not be less than -connections": {"-requests", "3"},
		"-settle: must be more than 0":       {"-settle", "0s"},
		"-timeout: must be more than 0":      {"-timeout", "-1s"},
		"-nodes 1: must be 2 to 16":          {"-nodes", "1"},
		"-nodes 17: must be 2 to 16":         {"-nodes", "17"},
		"-takeover-rate 0: must be 1":        {"-takeover-rate", "0"},
		"-takeover-time: must be more":       {"-takeover-time", "0s"},
		"-idle: must be more than 0":         {"-idle", "0s"},
		"-ramp-time: must be more than 0":    {"-ramp-time", "-1s"},
		`unexpected argument "now"`:          {"now"},
		"flag provided but not defined":      {"-fast"},
	} {
		_, err := parseOptions(args, discard{})
		assert.ErrorContains(t, err, want)
	}
}

func TestOptions_Rate(t *testing.T) {
	assert.Equal(t, 20*time.Millisecond, options{rate: 50}.every())
}

func TestOptions_FilesCoverBothEndsOfEachStream(t *testing.T) {
	o, err := parseOptions(nil, discard{})
	require.NoError(t, err)
	assert.Greater(t, o.files(), 2*(5000+500))
	assert.Less(t, o.files(), 20000)
}

func TestOptions_FilesCoverAllStreamsOfOneNode(t *testing.T) {
	o, err := parseOptions([]string{"-nodes", "3"}, discard{})
	require.NoError(t, err)
	assert.Greater(t, o.files(), 2*9000)
	assert.LessOrEqual(t, o.files(), 20000)
}
