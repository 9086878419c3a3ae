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
	"github.com/headwaterdb/headwater/publish/kafka"
)

func checkpointCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "checkpoint", Short: "Look at where a pipeline stands, or end what it left open",
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
	release := &cobra.Command{
		Use:   "release",
		Short: "End the transaction that a pipeline has left open",
		Long: `Take over the pipeline's transactional id, which aborts the transaction that a process
left open when it was killed: until then, or until kafka.transaction_timeout has passed,
readers of committed records do not get beyond it. It is for a pipeline that is not started
again; a start does the same. A process that still runs the pipeline goes on by itself.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			log := slog.New(slog.DiscardHandler)
			sink, err := kafka.New(cfg.Name, cfg.Kafka, log, nil)
			if err != nil {
				return err
			}
			defer sink.Close()
			if !sink.Fences() {
				return usage(errors.New("with delivery: at-least-once there are no transactions"))
			}
			ctx, stop := untilSignal(cmd.Context(), log)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			if err := sink.Release(ctx); err != nil {
				return kafkaError(cfg, "end the open transaction", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s has no transaction open\n", cfg.Name)
			return nil
		},
	}
	for _, sub := range []*cobra.Command{show, release} {
		configFlag(sub, &path)
		sub.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for the brokers")
		c.AddCommand(sub)
	}
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
