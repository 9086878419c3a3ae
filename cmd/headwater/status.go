package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/snapshot"
)

// patience is how long a pipeline may work on one thing, or start again and again, before
// it counts as unhealthy.
const patience = 30 * time.Second

// calm is how long a pipeline must run to have left its last accident behind.
const calm = time.Minute

// status answers the three questions that people ask a daemon: is it alive, how far is
// it, what is it waiting for. It serves them over HTTP and to systemd.
type status struct {
	cfg *Config
	log *slog.Logger
	// What is asked about the pipeline.
	progress func() publish.Progress
	tables   func() snapshot.Progress
	waiting  func() string // what the registry's client waits for, or ""

	mu sync.Mutex // guards the fields below
	// The run of the pipeline that goes on: its start, and the commits before it.
	began   time.Time
	commits uint64
	// The last accident, and when the first of those began that no good run came between.
	last     string
	lastTime time.Time
	troubled time.Time
}

func newStatus(cfg *Config, p *pipeline, log *slog.Logger) *status {
	return &status{cfg: cfg, log: log, progress: p.Progress, tables: p.source.Progress, waiting: p.registry.Waiting}
}

// begin notes that the pipeline starts, or starts again.
func (s *status) begin() {
	commits := s.progress().Commits
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began, s.commits = time.Now(), commits
}

// accident notes why the pipeline starts again.
func (s *status) accident(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.lastTime = oneLine(err), time.Now()
	if s.troubled.IsZero() {
		s.troubled = s.lastTime
	}
}

// settle forgets the trouble once a run is a good one: it has committed more than its
// claim, or it has lasted. It returns how long the trouble has gone on.
func (s *status) settle(p publish.Progress, now time.Time) time.Duration {
	streams := p.Stage == publish.Waiting || p.Stage == publish.Producing || p.Stage == publish.Committing
	if s.troubled.IsZero() || streams && (p.Commits > s.commits+1 || now.Sub(s.began) > calm) {
		if !s.troubled.IsZero() {
			s.log.Info("the pipeline works again", "after", now.Sub(s.troubled).Round(time.Millisecond))
		}
		s.troubled = time.Time{}
		return 0
	}
	return now.Sub(s.troubled)
}

// A report is the status in one piece, and the JSON of /status.
type report struct {
	Pipeline   string          `json:"pipeline"`
	Version    string          `json:"version"`
	Healthy    bool            `json:"healthy"`
	Doing      string          `json:"doing"`
	Since      time.Time       `json:"since"`
	Waiting    string          `json:"waiting_for,omitempty"`
	Position   json.RawMessage `json:"position,omitempty"`
	InTx       *capture.InTx   `json:"in_transaction,omitempty"`
	Checkpoint uint64          `json:"checkpoint"`
	LastCommit *time.Time      `json:"last_commit,omitempty"`
	LagSeconds float64         `json:"lag_seconds"`
	Records    uint64          `json:"records"`
	Bytes      uint64          `json:"bytes"`
	QueueBytes int64           `json:"queue_bytes"`
	Snapshot   *tablesReport   `json:"snapshot,omitempty"`
	Accident   string          `json:"last_accident,omitempty"`
	AccidentAt *time.Time      `json:"last_accident_at,omitempty"`
}

// A tablesReport says how far the tables are read. It is left out once they are.
type tablesReport struct {
	Done   int           `json:"tables_done"`
	Left   int           `json:"tables_left"`
	Tables []tableReport `json:"tables"`
}

type tableReport struct {
	Table         string  `json:"table"`
	State         string  `json:"state"`
	Rows          int64   `json:"rows"`
	Estimate      int64   `json:"estimated_rows"`
	RowsPerSecond float64 `json:"rows_per_second"`
	SecondsLeft   float64 `json:"seconds_left"`
}

func (s *status) report(now time.Time) report {
	p := s.progress()
	r := report{
		Pipeline: s.cfg.Name, Version: version, Doing: p.Stage.String(), Since: p.Since, InTx: p.InTx,
		Checkpoint: p.Seq, LagSeconds: p.Lag.Seconds(), Records: p.Records, Bytes: p.Bytes, QueueBytes: p.QueueBytes,
	}
	if p.Position != "" {
		r.Position = json.RawMessage(p.Position)
	}
	if !p.LastCommit.IsZero() {
		r.LastCommit = &p.LastCommit
	}
	if t := s.tables(); t.Left > 0 {
		r.Snapshot = &tablesReport{Done: t.Done, Left: t.Left}
		for _, t := range t.Tables {
			r.Snapshot.Tables = append(r.Snapshot.Tables, tableReport{t.ID.String(), t.State, t.Rows, t.Estimate, t.Rate, t.Left.Seconds()})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	troubled := s.settle(p, now)
	if s.last != "" {
		at := s.lastTime
		r.Accident, r.AccidentAt = s.last, &at
	}
	r.Waiting = waitingFor(p, s.waiting(), troubled, s.last, now)
	r.Healthy = r.Waiting == ""
	return r
}

// waitingFor is empty while progress is made or there is nothing to do; else it says what
// the pipeline waits for. troubled is how long it has started again and again, because of
// the accident.
func waitingFor(p publish.Progress, registry string, troubled time.Duration, accident string, now time.Time) string {
	busy := now.Sub(p.Since)
	switch {
	case registry != "":
		return registry
	case troubled > patience:
		return fmt.Sprintf("an end of the trouble that began %s ago: %s", troubled.Round(time.Second), accident)
	case p.Stage == publish.Stopped, p.Stage == publish.Waiting && p.QueueBytes == 0:
		return "" // between two starts, or nothing to do
	case busy <= patience || now.Sub(p.LastCommit) <= patience:
		return ""
	case p.Stage == publish.Verifying:
		return fmt.Sprintf("the database: %s, for %s", p.Stage, busy.Round(time.Second))
	}
	return fmt.Sprintf("Kafka: %s, for %s", p.Stage, busy.Round(time.Second))
}

// hung reports whether the pipeline has worked on a transaction for longer than it lets
// itself: each is given up with its timeout, whatever the brokers do. It is a defect then,
// and a new process is the remedy.
func hung(p publish.Progress, transaction time.Duration, now time.Time) bool {
	switch p.Stage {
	case publish.Claiming, publish.Producing, publish.Committing:
	case publish.Waiting:
		if p.QueueBytes == 0 {
			return false
		}
	default:
		return false
	}
	return now.Sub(p.Since) > 3*transaction
}

// listen takes the address of http.listen before anything else is begun, so that a port
// in use is a clear error and no half-started pipeline.
func (s *status) listen() (net.Listener, error) {
	if s.cfg.HTTP.Listen == "off" {
		return nil, nil
	}
	l, err := net.Listen("tcp", s.cfg.HTTP.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w: http.listen: something else listens on %s already; choose another port, or off", errConfig, s.cfg.HTTP.Listen)
	case err != nil:
		return nil, fmt.Errorf("%w: http.listen: %w; choose an address of this machine, or off", errConfig, err)
	}
	return l, nil
}

// address is where the listener listens.
func address(l net.Listener) string {
	if l == nil {
		return "off"
	}
	return l.Addr().String()
}

// serve answers until ctx ends.
func (s *status) serve(ctx context.Context, l net.Listener, metrics *prometheus.Registry) error {
	if l == nil {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.HandleFunc("GET /status", s.serveStatus)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the status page: %w", err)
	}
	return nil
}

// serveHealth answers 200 while progress is made or there is nothing to do, else 503, with
// one sentence.
func (s *status) serveHealth(w http.ResponseWriter, _ *http.Request) {
	r := s.report(time.Now())
	if !r.Healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "waiting for", r.Waiting)
		return
	}
	fmt.Fprintln(w, "ok:", r.Doing)
}

func (s *status) serveStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(s.report(time.Now())) // the reader has gone: nobody to tell
}

// notify speaks systemd's notification protocol (sd_notify(3)) until ctx ends: ready
// after the first claim, one line of status, and the watchdog, which is fed unless the
// pipeline hangs. Waiting for brokers, a database or a registry is not a hang.
func (s *status) notify(ctx context.Context) error {
	tick := time.Second
	if limit, err := daemon.SdWatchdogEnabled(false); err == nil && limit > 0 {
		tick = min(tick, limit/3)
	}
	t := time.NewTicker(tick)
	defer t.Stop()
	ready, line := false, ""
	for {
		select {
		case <-ctx.Done():
			_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
			return nil
		case now := <-t.C:
			r := s.report(now)
			state := ""
			if !hung(s.progress(), s.cfg.Kafka.TransactionTimeout, now) {
				state = daemon.SdNotifyWatchdog + "\n"
			}
			if !ready && r.LastCommit != nil {
				ready = true
				state += daemon.SdNotifyReady + "\n"
			}
			if text := r.line(); text != line {
				line = text
				state += "STATUS=" + text + "\n"
			}
			_, _ = daemon.SdNotify(false, state) // there may be no systemd
		}
	}
}

// line is the report for systemctl status.
func (r *report) line() string {
	switch {
	case !r.Healthy:
		return "waiting for " + r.Waiting
	case r.Snapshot != nil:
		return fmt.Sprintf("reading the tables, %d of %d done; %d records published", r.Snapshot.Done, r.Snapshot.Done+r.Snapshot.Left, r.Records)
	}
	return fmt.Sprintf("%s; %d records published, lag %.1f s", r.Doing, r.Records, r.LagSeconds)
}
