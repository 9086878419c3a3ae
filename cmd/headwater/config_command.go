package main

import (
	_ "embed"
	"fmt"

	"github.com/spf13/cobra"
)

// reference is the commented configuration file: every key with its default.
//
//go:embed etc/headwater.yml
var reference string

func configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print the commented reference of the configuration file",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprint(cmd.OutOrStdout(), reference) },
	}
}
