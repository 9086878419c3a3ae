//go:build !linux

package postgres

import "syscall"

// boundUnacknowledged leaves the connection to the kernel's own limits.
func boundUnacknowledged(string, string, syscall.RawConn) error { return nil }
