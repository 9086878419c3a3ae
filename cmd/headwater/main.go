// Command headwater carries the committed row changes of one database to Kafka, exactly
// once. README.md shows how to set up a pipeline; `headwater help` lists the commands.
//
// pipeline.go is the one place where concrete types meet, run.go runs what it joins. The
// goroutines of "run", all of which it waits for: the supervisor, in which
// publish.Publisher.Run has its own; the status page and the notices to systemd
// (status.go); the progress bar of "snapshot" (progress.go); the wait for signals.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/schema"
	"github.com/headwaterdb/headwater/schema/registry"
)

// version is set when the program is built for a release.
var version = "dev"

// Exit codes. README.md and `headwater help exit-codes` list them.
const (
	exitOK         = 0
	exitError      = 1
	exitUsage      = 2
	exitCheck      = 3
	exitStopped    = 4
	exitSuperseded = 75
	exitSignal     = 130
)

var exitCodes = []struct {
	code    int
	meaning string
}{
	{exitOK, "done, or stopped as asked"},
	{exitError, "an unexpected error"},
	{exitUsage, "wrong usage or configuration"},
	{exitCheck, "`check` found something that keeps the pipeline from working"},
	{exitStopped, "stopped: a person must act; the last line says what to do"},
	{exitSuperseded, "another instance has taken over this pipeline"},
	{exitSignal, "left at once, on a second signal"},
}

// errFound says that check found something.
var errFound = errors.New("not ready")

func main() {
	root, out := newRoot(), &output{File: os.Stdout}
	root.SetOut(out)
	err := root.ExecuteContext(context.Background())
	if err == nil && out.err != nil { // a file on a full disk is not the one that was asked for
		err = fmt.Errorf("write the output: %w", out.err)
	}
	var told logged
	if err != nil && !errors.Is(err, errFound) && !errors.As(err, &told) {
		text := err.Error()
		if needsPerson(err) {
			text = oneLine(err) // README.md: the last line says what to do
		}
		fmt.Fprintln(os.Stderr, "headwater:", text)
	}
	os.Exit(exitCode(err))
}

// An output is a file that remembers that something was not written.
type output struct {
	*os.File
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.File.Write(b)
	if err != nil && o.err == nil && !errors.Is(err, syscall.EPIPE) { // a reader may go when it has seen enough
		o.err = err
	}
	return n, err
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "headwater",
		Short:         "Carries the committed row changes of a database to Kafka, exactly once",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version,
	}
	root.SetVersionTemplate("headwater {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.AddCommand(runCommand(), snapshotCommand(), checkCommand(), tailCommand(), checkpointCommand(), configCommand(), demoCommand(), versionCommand(), exitCodesTopic())
	return root
}

func exitCodesTopic() *cobra.Command {
	var b strings.Builder
	b.WriteString("The exit codes of every command:\n\n")
	for _, c := range exitCodes {
		fmt.Fprintf(&b, "  %3d  %s\n", c.code, c.meaning)
	}
	return &cobra.Command{Use: "exit-codes", Short: "The exit codes and their meaning", Long: b.String()}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "headwater", version) },
	}
}

// errUsage marks a wrong command line.
var errUsage = errors.New("wrong usage")

func usage(err error) error { return fmt.Errorf("%w: %w", errUsage, err) }

// exitCode says how the program ends because of err.
func exitCode(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errConfig), errors.Is(err, errUsage), strings.HasPrefix(err.Error(), "unknown command"):
		return exitUsage
	case errors.Is(err, errFound):
		return exitCheck
	case errors.Is(err, publish.ErrSuperseded):
		return exitSuperseded
	case needsPerson(err):
		return exitStopped
	}
	return exitError
}

// needsPerson says whether err is an answer and no accident: trying again cannot help.
func needsPerson(err error) bool {
	for _, target := range []error{
		capture.ErrPositionLost, capture.ErrMisconfigured, capture.ErrUnreadable, checkpoint.ErrUnusable,
		publish.ErrRefused, publish.ErrConfigChanged, publish.ErrSuperseded, schema.ErrIncompatible, registry.ErrRefused,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
