package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
)

// A Source is a change log that begins with the rows which its tables hold already.
type Source struct {
	log     capture.Source
	scanner Scanner
	cfg     Config
	logger  *slog.Logger
	stats   *stats
	lastID  atomic.Uint64 // of a mark; no two Streams share one
	breach  breach        // set by tests

	mu      sync.Mutex
	current *merge // of the last Stream, for Progress
}

var _ capture.Source = (*Source)(nil)

// New returns a Source that first reads the tables which s finds, merged with log, and
// then is log alone. A nil logger means silence, and metrics may be nil.
func New(log capture.Source, s Scanner, cfg Config, logger *slog.Logger, metrics prometheus.Registerer) *Source {
	cfg.SetDefaults()
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Source{log: log, scanner: s, cfg: cfg, logger: logger, stats: newStats(metrics)}
}

// Check is the log's.
func (s *Source) Check(ctx context.Context) error { return s.log.Check(ctx) }

// Verify is the log's, and refuses entries of a newer version.
func (s *Source) Verify(ctx context.Context, r capture.Resume) error {
	if _, err := parseNotes(r.Entries); err != nil {
		return err
	}
	return s.log.Verify(ctx, r)
}

// Acknowledge is the log's.
func (s *Source) Acknowledge(ctx context.Context, p capture.Position) error {
	return s.log.Acknowledge(ctx, p)
}

// Close is the log's.
func (s *Source) Close() error { return s.log.Close() }

// errRead ends the log's Stream when only the tables were asked for.
var errRead = errors.New("snapshot: the tables are read")

// Stream emits the log after r and, between its transactions, the rows of the tables
// that r.Entries do not call done. It is the log's Stream with an emit of its own, and
// one goroutine beside it that reads tables.
func (s *Source) Stream(ctx context.Context, r capture.Resume, emit capture.EmitFunc) error {
	if s.cfg.Mode == Never {
		s.scanner.Finish()
		if s.cfg.ThenStop {
			return nil
		}
		return s.log.Stream(ctx, r, emit)
	}
	notes, err := parseNotes(r.Entries)
	if err != nil {
		return err
	}
	// A Finish of the Stream before may have come after its end, when what it was sure of
	// did not reach the checkpoint any more.
	s.scanner.Begin()
	sctx, cancel := context.WithCancelCause(ctx)
	m := newMerge(sctx, cancel, s, notes, r.InTx != nil, emit)
	s.mu.Lock()
	s.current = m
	s.mu.Unlock()

	scanned := make(chan error, 1)
	go func() {
		err := m.scan(sctx)
		if err != nil {
			cancel(err)
		}
		scanned <- err
	}()
	err = s.log.Stream(sctx, r, m.take)
	cause := context.Cause(sctx) // why we ended it, if we did
	cancel(nil)
	scanErr := <-scanned

	switch {
	case errors.Is(err, errRead), errors.Is(cause, errRead):
		return nil
	case err == nil && cause == nil && !m.read():
		return errors.New("the log ended before the tables were read")
	case cause != nil && ctx.Err() == nil:
		return fmt.Errorf("read the tables: %w", scanErr)
	}
	return err
}
