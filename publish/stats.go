package publish

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/headwaterdb/headwater/capture"
)

// A Stage is what a publisher is doing or waiting for.
type Stage int32

const (
	Stopped    Stage = iota // Run is not running
	Fencing                 // making earlier writers unable to commit
	Loading                 // reading the last checkpoint
	Claiming                // committing our claim
	Verifying               // asking the source whether it can go on from there
	Waiting                 // the source has nothing new
	Producing               // records are on their way, or the sink is behind
	Committing              // the sink makes a transaction visible
)

func (s Stage) String() string {
	return [...]string{
		"stopped", "fencing earlier writers", "reading the checkpoint", "claiming the pipeline",
		"verifying the checkpoint against the source", "waiting for the source", "producing", "committing",
	}[s]
}

// Progress says where a publisher stands. It is a copy.
type Progress struct {
	Stage Stage
	// Since is when the stage began.
	Since time.Time
	// Position, InTx and Seq are those of the last checkpoint committed or loaded.
	Position capture.Position
	InTx     *capture.InTx
	Seq      uint64
	// Commits counts the commits since the process started; LastCommit is when the last
	// one was confirmed, and Lag the age that its newest change then had.
	Commits    uint64
	LastCommit time.Time
	Lag        time.Duration
	// Records and Bytes are the totals since the pipeline's first start.
	Records, Bytes uint64
	// QueueBytes is what waits between the source and the sink.
	QueueBytes int64
}

// Progress returns where the publisher stands. It may be called at any time.
func (p *Publisher) Progress() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.progress
	if p.queue != nil {
		now.QueueBytes = p.queue.size()
	}
	return now
}

// enter notes that the publisher goes over to stage s.
func (p *Publisher) enter(s Stage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.progress.Stage != s {
		p.progress.Stage, p.progress.Since = s, time.Now()
	}
}

// stats are a publisher's metrics.
type stats struct {
	commits, records, bytes         prometheus.Counter
	commitSeconds, openSeconds      prometheus.Histogram
	transactionRecords              prometheus.Histogram
	transactionBytes                prometheus.Histogram
	aborts                          *prometheus.CounterVec
	fencings, unknown               prometheus.Counter
	lag, lastCommit, commitInterval prometheus.Gauge
}

// newStats registers the metrics of p with r, or nowhere when r is nil.
func newStats(r prometheus.Registerer, p *Publisher) *stats {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "headwater_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "headwater_" + name, Help: help})
	}
	histogram := func(name, help string, start, factor float64, n int) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{
			Name: "headwater_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(start, factor, n),
		})
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headwater_queue_bytes", Help: "Encoded batches that wait for the sink.",
	}, func() float64 { return float64(p.Progress().QueueBytes) })
	return &stats{
		commits:            counter("commits_total", "Transactions committed."),
		records:            counter("records_committed_total", "Records committed."),
		bytes:              counter("bytes_committed_total", "Bytes of keys and values committed, before compression."),
		commitSeconds:      histogram("commit_seconds", "Time from the last record of a transaction to the confirmed commit.", 0.001, 2, 16),
		openSeconds:        histogram("transaction_open_seconds", "Age of a transaction when its commit begins.", 0.001, 2, 16),
		transactionRecords: histogram("transaction_records", "Records in a committed transaction.", 1, 4, 10),
		transactionBytes:   histogram("transaction_bytes", "Bytes in a committed transaction.", 256, 4, 10),
		aborts: f.NewCounterVec(prometheus.CounterOpts{
			Name: "headwater_aborts_total", Help: "Transactions given up, by cause.",
		}, []string{"cause"}),
		fencings:       counter("fencings_total", "Transactions ended by the broker's timeout or by a successor."),
		unknown:        counter("unknown_outcomes_total", "Commits whose answer was lost; the checkpoint then decides."),
		lag:            gauge("lag_seconds", "Age of the newest change of the last commit, when it was committed."),
		lastCommit:     gauge("last_commit_timestamp_seconds", "When the last commit was confirmed."),
		commitInterval: gauge("commit_interval_seconds", "How long a transaction collects changes at present."),
	}
}

// aborted counts a transaction that was given up because of err.
func (s *stats) aborted(err error) {
	cause := "error"
	switch {
	case errors.Is(err, ErrUnknownOutcome):
		cause = "unknown outcome"
	case errors.Is(err, ErrFenced):
		cause = "fenced"
	case errors.Is(err, ErrRefused):
		cause = "refused"
	case errors.Is(err, context.DeadlineExceeded):
		cause = "deadline"
	case errors.Is(err, context.Canceled):
		cause = "stop"
	}
	s.aborts.WithLabelValues(cause).Inc()
}

// failed counts what err says about the sink.
func (s *stats) failed(err error) {
	if errors.Is(err, ErrFenced) {
		s.fencings.Inc()
	}
	if errors.Is(err, ErrUnknownOutcome) {
		s.unknown.Inc()
	}
}
