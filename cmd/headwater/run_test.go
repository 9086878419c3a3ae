package main

import (
	"runtime/debug"
	"testing"
)

func TestRun_MemoryLimitFollowsTheSettings(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	cfg := &Config{}
	cfg.setDefaults()
	t.Setenv("GOMEMLIMIT", "")
	limitMemory(cfg)
	if n := debug.SetMemoryLimit(-1); n != 132<<20 {
		t.Errorf("the limit is %d by default, want 132 MiB", n)
	}
	cfg.Kafka.BufferBytes += 200 << 20
	limitMemory(cfg)
	if n := debug.SetMemoryLimit(-1); n != 332<<20 {
		t.Errorf("the limit is %d for a buffer that is larger by 200 MiB, want 332 MiB", n)
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	debug.SetMemoryLimit(1 << 30) // as the runtime does
	limitMemory(cfg)
	if n := debug.SetMemoryLimit(-1); n != 1<<30 {
		t.Errorf("the limit is %d, although the environment says another", n)
	}
}
