package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/checkpoint/topic"
)

func checkpointCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "checkpoint", Short: "Look at where a pipeline stands",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath()))
			}
			return cmd.Help()
		},
	}
	var path string
	var timeout time.Duration
	show := &cobra.Command{
		Use:   "show",
		Short: "Print the last committed checkpoint, with its age",
		Long: `Print the last committed checkpoint of the pipeline and its notes. It only reads: a
running pipeline is not disturbed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			log := slog.New(slog.DiscardHandler)
			options, err := cfg.Kafka.Options(log)
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context(), log)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			cp, err := topic.New(options, log).Load(ctx, cfg.Name)
			if errors.Is(err, checkpoint.ErrNotFound) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s has no checkpoint yet\n", cfg.Name)
				return nil
			}
			if err != nil {
				return kafkaError(cfg, "read the checkpoint", err)
			}
			showCheckpoint(cmd.OutOrStdout(), &cp, time.Now())
			return nil
		},
	}
	configFlag(show, &path)
	show.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for the brokers")
	c.AddCommand(show)
	return c
}

// kafkaError is the error of a command that only reads, with what a person can look at.
func kafkaError(cfg *Config, step string, err error) error {
	return fmt.Errorf("%s at %s: %w; if this lasts, check kafka.brokers and the sections kafka.tls and kafka.sasl", step, strings.Join(cfg.Kafka.Brokers, ", "), err)
}

func showCheckpoint(out io.Writer, cp *checkpoint.Checkpoint, now time.Time) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("pipeline", "%s", cp.Pipeline)
	line("checkpoint", "number %d, %s ago (%s)", cp.Seq, now.Sub(cp.Time).Round(time.Millisecond), cp.Time.Format(time.RFC3339Nano))
	line("owner", "%s on %s, since %s", cp.Owner.ID, cp.Owner.Host, cp.Owner.Since.Format(time.RFC3339))
	line("published", "%d records, %d bytes", cp.Totals.Records, cp.Totals.Bytes)
	var pos bytes.Buffer
	if cp.At == "" {
		pos.WriteString("none: nothing was read yet")
	} else if json.Indent(&pos, []byte(cp.At), "           ", "  ") != nil {
		pos.Reset()
		pos.WriteString(string(cp.At)) // a form that a newer reader made
	}
	line("position", "%s", pos.String())
	if cp.InTx != nil {
		line("inside", "source transaction %s, %d of its log messages are published", cp.InTx.ID, cp.InTx.Done)
	}
	for _, key := range slices.Sorted(maps.Keys(cp.Entries)) {
		line("note", "%s = %s", key, cp.Entries[key])
	}
}
