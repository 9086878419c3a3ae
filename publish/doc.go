// Package publish carries one source to one sink, exactly once.
package publish
