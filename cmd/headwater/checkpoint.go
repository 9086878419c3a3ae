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
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/publish/kafka"
	"github.com/headwaterdb/headwater/snapshot"
)

func checkpointCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "checkpoint", Short: "Look at where a pipeline stands, or change it on purpose",
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
			return withSink(cmd, path, timeout, func(ctx context.Context, cfg *Config, sink *kafka.Sink) error {
				if !sink.Fences() {
					return usage(errors.New("with delivery: at-least-once there are no transactions"))
				}
				if err := sink.Release(ctx); err != nil {
					return kafkaError(cfg, "end the open transaction", err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s has no transaction open\n", cfg.Name)
				return nil
			})
		},
	}
	reread := &cobra.Command{
		Use:   "reread TABLE…",
		Short: "Have tables read again, and keep the place in the log",
		Long: `Note in the checkpoint that tables, named as schema.table or with "*", are to be read from
their beginning once more. Their rows come as records with the operation r, merged with the
log as at the first start (those of a table without a key stand in the topic twice then);
nothing else changes. A process that runs the pipeline begins
within publish.idle_interval, else the next start does. With delivery: at-least-once stop
the pipeline first.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.MinimumNArgs(1)(cmd, args); err != nil {
				return usage(err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var tables []string
			cfg, err := amend(cmd, path, timeout, func(cfg *Config, cp *checkpoint.Checkpoint) (err error) {
				if cfg.Snapshot.Mode == snapshot.Never {
					return usage(errors.New("snapshot.mode is never, so no table is read; set it to initial, which reads each of them once"))
				}
				cp.Entries, tables, err = snapshot.Again(cp.Entries, args)
				if err != nil && !needsPerson(err) {
					return usage(err)
				}
				return err
			})
			if err != nil {
				return err
			}
			for _, table := range tables {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s will be read again\n", cfg.Name, table)
			}
			return nil
		},
	}
	reset := &cobra.Command{
		Use:   "reset",
		Short: "Forget the place in the log, so that the pipeline begins anew",
		Long: `Set the checkpoint back to that of a pipeline which has never run, and print what it was.
The pipeline then begins anew: at the present end of the log, or at the place of its
replication slot where there is one, after it has read every table (not with snapshot.mode:
never). It is what helps when the log no longer reaches back to the checkpoint. Topics and
their records stay as they are, and the last changes may come twice. A process that runs the pipeline begins within
publish.idle_interval, else the next start does. With delivery: at-least-once stop the
pipeline first.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var was checkpoint.Checkpoint
			cfg, err := amend(cmd, path, timeout, func(_ *Config, cp *checkpoint.Checkpoint) error {
				if was.Pipeline == "" { // an answer that was lost brings us here again
					was = *cp
				}
				forgotten := make(map[string][]byte, len(cp.Entries))
				for key := range cp.Entries {
					forgotten[key] = nil
				}
				cp.At, cp.InTx, cp.Entries = "", nil, forgotten
				return nil
			})
			if err != nil {
				return err
			}
			showCheckpoint(cmd.OutOrStdout(), &was, time.Now())
			fmt.Fprintf(cmd.OutOrStdout(), "%s has forgotten this, and begins anew\n", cfg.Name)
			return nil
		},
	}
	for _, sub := range []*cobra.Command{show, release, reread, reset} {
		configFlag(sub, &path)
		sub.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for the brokers")
		c.AddCommand(sub)
	}
	return c
}

// withSink calls f with the sink of a configuration's pipeline, until a signal or the
// timeout.
func withSink(cmd *cobra.Command, path string, timeout time.Duration, f func(context.Context, *Config, *kafka.Sink) error) error {
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
	ctx, stop := untilSignal(cmd.Context(), log)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return f(ctx, cfg, sink)
}

// amend commits a change of the pipeline's checkpoint, and returns the configuration.
func amend(cmd *cobra.Command, path string, timeout time.Duration, change func(*Config, *checkpoint.Checkpoint) error) (*Config, error) {
	var of *Config
	err := withSink(cmd, path, timeout, func(ctx context.Context, cfg *Config, sink *kafka.Sink) error {
		of = cfg
		options, err := cfg.Kafka.Options(nil)
		if err != nil {
			return err
		}
		err = publish.Amend(ctx, cfg.Name, sink, topic.New(options, nil), func(cp *checkpoint.Checkpoint) error { return change(cfg, cp) })
		switch {
		case errors.Is(err, checkpoint.ErrNotFound):
			return fmt.Errorf("%s has no checkpoint yet: its first start begins anew and reads every table", cfg.Name)
		case err == nil, errors.Is(err, errUsage), needsPerson(err):
			return err
		}
		return kafkaError(cfg, "change the checkpoint", err)
	})
	return of, err
}

// kafkaError is the error of a command that tries once, with what a person can look at.
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
