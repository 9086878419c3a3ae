package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/headwaterdb/headwater/snapshot"
)

func runCommand() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the pipeline: read the tables, then follow the log",
		Long: `Run the pipeline of a configuration file: read the tables that it captures, merged with
the log, then follow the log until told to stop. SIGTERM or SIGINT finish at a commit
boundary, and wait for a commit that is under way for 10 s at most; a second one leaves
at once, which loses and doubles nothing either.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), false) },
	}
	o.flags(c)
	return c
}

func snapshotCommand() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "snapshot",
		Short: "Read the tables and end",
		Long: `Run the pipeline of a configuration file until every captured table is read, and end. It
is the same pipeline: interrupted, it goes on where it stopped, and "run" goes on from
where it ended. snapshot.mode of the file does not matter here.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), true) },
	}
	o.flags(c)
	return c
}

type runOptions struct {
	config string
	fresh  bool
}

func (o *runOptions) flags(c *cobra.Command) {
	configFlag(c, &o.config)
	c.Flags().BoolVar(&o.fresh, "new", false, "go on although a topic was deleted: without the checkpoint topic everything is read again, and a table's topic that was made again is written to")
}

func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", "/etc/headwater/headwater.yml", "configuration file")
}

func (o *runOptions) run(ctx context.Context, snapshotOnly bool) error {
	cfg, err := loadConfig(o.config)
	if err != nil {
		return err
	}
	limitMemory(cfg)
	cfg.Kafka.New = o.fresh
	bar := false
	if snapshotOnly {
		cfg.Snapshot.Mode, cfg.Snapshot.ThenStop = snapshot.Initial, true
		bar = term.IsTerminal(int(os.Stderr.Fd()))
	}
	log := newLogger(cfg, os.Stderr, bar)
	ctx, stop := untilSignal(ctx, log)
	defer stop()

	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	labelled := prometheus.WrapRegistererWith(prometheus.Labels{"pipeline": cfg.Name}, metrics)
	p, err := newPipeline(cfg, log, labelled)
	if err != nil {
		return err
	}
	defer p.Close()
	st := newStatus(cfg, p, log)
	listener, err := st.listen()
	if err != nil {
		return err
	}

	log.Info("started", "version", version, "source", cfg.Source.String(), "delivery", cfg.Delivery, "http", address(listener))
	g, gctx := errgroup.WithContext(ctx)
	side, endSide := context.WithCancel(gctx) // what runs beside the pipeline ends with it
	g.Go(func() error {
		defer endSide()
		return supervise(gctx, p.Run, st, log, labelled)
	})
	g.Go(func() error { return st.serve(side, listener, metrics) })
	g.Go(func() error { return st.notify(side) })
	g.Go(func() error { p.warnOfColumns(side, log); return nil })
	if bar {
		g.Go(func() error { return showProgress(side, p.source.Progress, os.Stderr) })
	}
	err = g.Wait()
	asked := ctx.Err() != nil && errors.Is(err, context.Canceled)
	switch {
	case asked && snapshotOnly:
		log.Warn("stopped before all tables were read: start it again to go on")
		return nil
	case asked, err == nil:
		log.Info("stopped")
		return nil
	}
	if cfg.Log.Format == "json" { // who reads the log by program should not meet a line of text
		log.Error("stopped", "error", err)
		return logged{err}
	}
	return err
}

// limitMemory trades some CPU of the collector for a small process: what a pipeline holds
// on purpose is bounded by its settings, and the collector gets busier as the heap comes
// near the limit, 132 MiB by default. The environment's GOMEMLIMIT wins.
func limitMemory(cfg *Config) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	const rest = 24 << 20 // what belongs to no row
	// What is on its way to the brokers, what waits for it, and three chunks of a table with
	// their indexes.
	rows := int64(cfg.Kafka.BufferBytes) + cfg.Publish.QueueBytes + int64(6*cfg.Snapshot.ChunkBytes+cfg.Snapshot.KeyBytes)
	debug.SetMemoryLimit(rest + rows)
}

// logged is an error that the log says already.
type logged struct{ error }

func (l logged) Unwrap() error { return l.error }

// supervise runs the pipeline until it ends, and again after every accident: from the
// top, after a pause that grows while accidents follow each other closely (rule R13 of
// publish/DESIGN.md). Answers that need a person end it.
func supervise(ctx context.Context, run func(context.Context) error, st *status, log *slog.Logger, metrics prometheus.Registerer) error {
	const first, longest = 100 * time.Millisecond, 30 * time.Second
	const repeat = time.Minute // how long the log is silent about the same accident
	restarts := promauto.With(metrics).NewCounter(prometheus.CounterOpts{
		Name: "headwater_restarts_total", Help: "How often the pipeline was started again after an accident.",
	})
	said, saidAt := "", time.Time{}
	for pause := first; ; {
		began := time.Now()
		st.begin()
		err := run(ctx)
		if err == nil || ctx.Err() != nil || needsPerson(err) {
			return err
		}
		if time.Since(began) > calm {
			pause = first
		}
		wait := pause/2 + rand.N(pause)
		level, reason := slog.LevelDebug, oneLine(err)
		if reason != said || time.Since(saidAt) >= repeat {
			level, said, saidAt = slog.LevelWarn, reason, time.Now()
		}
		log.Log(ctx, level, "the pipeline starts again, until it works", "in", wait.Round(time.Millisecond), "because", reason)
		restarts.Inc()
		st.accident(err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, longest)
	}
}

// oneLine is the text of an error, whose lines are sentences of their own, in one.
func oneLine(err error) string {
	var lines []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

// echo is how soon after a signal the same one is no second one: timeout(1) and others send
// it to the process and to its group.
const echo = 500 * time.Millisecond

// untilSignal returns a context that ends at the first SIGTERM or SIGINT. A second one
// ends the process.
func untilSignal(ctx context.Context, log *slog.Logger) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for told := (time.Time{}); ; {
			select {
			case s := <-signals:
				switch {
				case told.IsZero():
					told = time.Now()
					log.Info("stopping at the next commit boundary; a second signal leaves at once", "signal", s.String())
					cancel()
				case time.Since(told) > echo:
					log.Warn("left at once", "signal", s.String())
					os.Exit(exitSignal)
				}
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		<-ended
		cancel()
	}
}

// newLogger returns the log of one pipeline. Beside a progress bar it says only what is
// worth breaking the bar for.
func newLogger(cfg *Config, to io.Writer, bar bool) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		panic(fmt.Sprintf("validated log level: %v", err))
	}
	if bar {
		level = max(level, slog.LevelWarn)
	}
	options := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(to, options)
	if cfg.Log.Format == "json" {
		h = slog.NewJSONHandler(to, options)
	}
	return slog.New(h).With("pipeline", cfg.Name)
}
