package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseVMRSS_IsInBytes(t *testing.T) {
	rss, err := parseVMRSS([]byte("Name:\tssebench\nVmHWM:\t  999 kB\nVmRSS:\t  412340 kB\nRssAnon:\t  1 kB\n"))
	require.NoError(t, err)
	assert.Equal(t, int64(412340<<10), rss)
}

func TestParseVMRSS_SaysWhatIsWrong(t *testing.T) {
	for status, want := range map[string]string{
		"":                          "no VmRSS",
		"Name:\tx\nVmSize:\t1 kB\n": "no VmRSS",
		"VmRSS:\tmany kB\n":         `got "many kB"`,
		"VmRSS:\t12 MB\n":           `got "12 MB"`,
		"VmRSS:":                    `got ""`,
	} {
		_, err := parseVMRSS([]byte(status))
		assert.ErrorContains(t, err, want, "%q", status)
	}
}
