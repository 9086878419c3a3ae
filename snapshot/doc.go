// Package snapshot merges the rows that exist already into the change log.
package snapshot
