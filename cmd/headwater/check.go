package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/headwaterdb/headwater/capture"
)

func checkCommand() *cobra.Command {
	var path string
	var offline bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "check",
		Short: "Say what is missing, each with what mends it",
		Long: `Read the configuration file, then ask the database, the brokers and the registry, and
print everything that would keep the pipeline from working at once, each with the SQL or
command that mends it; when nothing would, ask whether the database's log still reaches back
to the checkpoint. Nothing is changed anywhere. Exit code 3 when there is a problem;
warnings alone leave 0.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s: ok\n", path)
			if offline {
				return nil
			}
			p, err := newPipeline(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			if err != nil {
				return err
			}
			defer p.Close()
			ctx, stop := untilSignal(cmd.Context(), slog.New(slog.DiscardHandler))
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			return printFindings(out, p.check(ctx))
		},
	}
	configFlag(c, &path)
	c.Flags().BoolVar(&offline, "offline", false, "look at the file only")
	c.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for answers")
	return c
}

// printFindings prints what was found, by part, and returns errFound when it is more than
// warnings.
func printFindings(out io.Writer, found map[string]error) error {
	problems, warnings := 0, 0
	for _, of := range []string{"database", "columns", "kafka", "registry", "checkpoint"} {
		err, asked := found[of]
		if !asked {
			continue
		}
		all := flatten(err)
		if len(all) == 0 {
			fmt.Fprintf(out, "%s: ok\n", of)
			continue
		}
		for _, err := range all {
			kind := "problem"
			text, remedy, _ := strings.Cut(err.Error(), "; remedy: ")
			var f *capture.Finding
			if errors.As(err, &f) {
				text, remedy = f.What, f.Remedy
			}
			if f != nil && f.Warning {
				kind = "warning"
				warnings++
			} else {
				problems++
			}
			fmt.Fprintf(out, "%s: %s: %s\n", of, kind, strings.Join(strings.Fields(text), " "))
			if remedy != "" {
				fmt.Fprintf(out, "    remedy: %s\n", remedy)
			}
		}
	}
	if problems > 0 {
		fmt.Fprintf(out, "not ready: %s, %s\n", count(problems, "problem"), count(warnings, "warning"))
		return errFound
	}
	fmt.Fprintf(out, "ready: %s\n", count(warnings, "warning"))
	return nil
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
