package snapshot

import (
	"errors"
	"fmt"
)

// A Mode says whether tables are read.
type Mode string

const (
	// Initial reads every captured table once, before its log alone is followed: at the
	// first start, and at a later one when it is new to the pipeline or was made anew.
	Initial Mode = "initial"
	// Never reads no table: the topics begin with the log.
	Never Mode = "never"
)

// Config says how tables are read.
type Config struct {
	// Mode is "initial" or "never". Default initial.
	Mode Mode `yaml:"mode"`
	// ChunkBytes is about how much of a table is read at once. Up to three chunks are in
	// memory at a time, each with an index of its keys. Larger chunks mean fewer reads, and
	// more to read again after a crash. A chunk is published in one Kafka transaction.
	// 64 KiB to 64 MiB; default 2 MiB.
	ChunkBytes int `yaml:"chunk_bytes"`
	// KeyBytes bounds the keys of changed rows that are remembered while a chunk is being
	// read, and as much again for the next one. A chunk that would need more is given up
	// and read again. 64 KiB to 1 GiB; default 16 MiB.
	KeyBytes int `yaml:"key_bytes"`
	// ThenStop makes Stream end, with nil, once the tables are read.
	ThenStop bool `yaml:"-"`
}

// SetDefaults fills in what was left out.
func (c *Config) SetDefaults() {
	if c.Mode == "" {
		c.Mode = Initial
	}
	if c.ChunkBytes == 0 {
		c.ChunkBytes = 2 << 20
	}
	if c.KeyBytes == 0 {
		c.KeyBytes = 16 << 20
	}
}

// Validate reports everything that is wrong, by the names in the file.
func (c *Config) Validate() error {
	var errs []error
	if c.Mode != Initial && c.Mode != Never {
		errs = append(errs, fmt.Errorf("mode is %q; it must be initial or never", c.Mode))
	}
	if c.ChunkBytes < 64<<10 || c.ChunkBytes > 64<<20 {
		errs = append(errs, fmt.Errorf("chunk_bytes is %d; it must be 65536 to 67108864", c.ChunkBytes))
	}
	if c.KeyBytes < 64<<10 || c.KeyBytes > 1<<30 {
		errs = append(errs, fmt.Errorf("key_bytes is %d; it must be 65536 to 1073741824", c.KeyBytes))
	}
	return errors.Join(errs...)
}
