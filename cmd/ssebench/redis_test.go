package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRedisUse_ReadsWhatINFOSays(t *testing.T) {
	var u redisUse
	require.NoError(t, u.read("# CPU\r\nused_cpu_sys:1.500000\r\nused_cpu_user:0.250000\r\nused_cpu_sys_children:9.0\r\n"))
	require.NoError(t, u.read("# Memory\r\nused_memory:9999\r\nused_memory_dataset:4711\r\nused_memory_dataset_perc:47.1%\r\n"))
	require.NoError(t, u.read("# Commandstats\r\ncmdstat_evalsha:calls=40,usec=9,usec_per_call=1.0\r\ncmdstat_eval:calls=2,usec=9\r\ncmdstat_hset:calls=100,usec=3\r\n"))
	assert.Equal(t, redisUse{cpu: 1750 * time.Millisecond, memory: 4711, scripts: 42, commands: 142}, u)
	assert.Error(t, u.read("used_memory_dataset:much"))
}
