// Package programtest builds the program for tests that run it.
package programtest
