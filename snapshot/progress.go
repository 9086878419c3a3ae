package snapshot

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/headwaterdb/headwater/capture"
)

// Progress says how far the tables are read. It is a copy.
type Progress struct {
	// Known is false until the tables are listed.
	Known bool
	// Done and Left count the captured tables.
	Done, Left int
	// Emitted counts the rows that this attempt has published so far, over restarts.
	Emitted int64
	// Attempt counts the snapshots of this pipeline.
	Attempt int
	// Tables are those that this Stream reads or has read, in order.
	Tables []TableProgress
}

// TableProgress says how far one table is read.
type TableProgress struct {
	ID    capture.TableID
	State string // waiting, reading or done
	// Rows were read by this attempt and have passed their mark; Emitted of them were
	// published, the others were newer in the log.
	Rows, Emitted int64
	// Estimate is the database's own guess of the table's rows, -1 when it has none.
	Estimate int64
	Attempt  int
	// Rate is rows a second since the reading began or went on; 0 when not known.
	Rate float64
	// Left is the time that the rest takes at this rate; -1 when not known.
	Left time.Duration
}

// Progress returns how far the tables of the last Stream are read. It may be called at
// any time.
func (s *Source) Progress() Progress {
	s.mu.Lock()
	m := s.current
	s.mu.Unlock()
	if m == nil {
		return Progress{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.whole.V == 0 { // no plan yet
		return Progress{}
	}
	now := time.Now()
	p := Progress{Known: true, Done: len(m.tables) - m.left, Left: m.left, Emitted: m.whole.Emitted, Attempt: m.whole.Attempt}
	for _, t := range m.order {
		p.Tables = append(p.Tables, t.at(now))
	}
	return p
}

// logInterval is how often a table that takes long is logged.
const logInterval = 10 * time.Second

// progress is when a table's reading began in this process, and what was read since.
type progress struct {
	began, ended time.Time
	rows         int64 // read since began
}

// at returns the table's progress. merge.mu is held.
func (t *table) at(now time.Time) TableProgress {
	p := TableProgress{
		ID: t.ID, State: t.entry.State, Rows: t.entry.Rows, Emitted: t.entry.Emitted,
		Estimate: t.Rows, Attempt: t.entry.Attempt, Left: -1,
	}
	if !t.ended.IsZero() {
		now = t.ended
	}
	if took := now.Sub(t.began).Seconds(); !t.began.IsZero() && took > 0 {
		p.Rate = float64(t.progress.rows) / took
	}
	switch {
	case p.State == stateDone:
		p.Left = 0
	case p.Rate > 0 && p.Estimate >= 0:
		p.Left = time.Duration(float64(max(0, p.Estimate-p.Rows)) / p.Rate * float64(time.Second))
	}
	return p
}

// begin notes that the reading of t begins, or goes on after a restart.
func (m *merge) begin(t *table) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t.began = time.Now()
	m.nextLog = t.began.Add(logInterval)
	m.stats.estimate.WithLabelValues(t.ID.String()).Set(float64(t.Rows))
	m.stats.tableRows.WithLabelValues(t.ID.String()).Set(float64(t.entry.Rows))
	m.logger.Info("reading a table", "table", t.ID.String(), "estimated_rows", t.Rows, "rows_before", t.entry.Rows, "attempt", t.entry.Attempt)
	if t.keyless() && t.entry.Attempt > 1 {
		m.logger.Warn("a table without a key is read from its beginning once more: its rows of the attempt before are void", "table", t.ID.String(), "attempt", t.entry.Attempt)
	}
}

// readAhead counts rows that were read. merge.mu is held.
func (m *merge) readAhead(t *table, rows int) {
	t.progress.rows += int64(rows)
	m.stats.read.Add(float64(rows))
}

// report shows how far t is. merge.mu is held.
func (m *merge) report(t *table) {
	now := time.Now()
	m.stats.tableRows.WithLabelValues(t.ID.String()).Set(float64(t.entry.Rows))
	switch {
	case t.entry.State == stateDone:
		t.ended = now
		m.logger.Info("the table is read", "table", t.ID.String(), "rows", t.entry.Rows, "published", t.entry.Emitted,
			"attempt", t.entry.Attempt, "took", now.Sub(t.began).Round(time.Millisecond), "tables_left", m.left)
	case !now.Before(m.nextLog):
		m.nextLog = now.Add(logInterval)
		p := t.at(now)
		m.logger.Info("still reading the table", "table", t.ID.String(), "rows", p.Rows, "estimated_rows", p.Estimate,
			"rows_per_second", int(p.Rate), "time_left", p.Left.Round(time.Second))
	}
}

// stats are the snapshot's metrics.
type stats struct {
	left          prometheus.Gauge
	read, rows    prometheus.Counter
	held, givenUp prometheus.Counter
	tableRows     *prometheus.GaugeVec
	estimate      *prometheus.GaugeVec
}

// newStats registers the metrics with r, or nowhere when r is nil.
func newStats(r prometheus.Registerer) *stats {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "headwater_snapshot_" + name, Help: help})
	}
	byTable := func(name, help string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: "headwater_snapshot_" + name, Help: help}, []string{"table"})
	}
	return &stats{
		left: f.NewGauge(prometheus.GaugeOpts{
			Name: "headwater_snapshot_tables_left", Help: "Tables whose existing rows are not yet read.",
		}),
		read:      counter("rows_read_total", "Rows read from tables, those read again included."),
		rows:      counter("rows_emitted_total", "Rows read from tables and handed on; the others were newer in the log."),
		held:      counter("log_held_seconds_total", "Time that the log was held while rows were read."),
		givenUp:   counter("chunks_given_up_total", "Chunks read again because the log could not be compared with them."),
		tableRows: byTable("table_rows", "Rows read of a table in its present attempt, up to the last mark."),
		estimate:  byTable("table_rows_estimate", "The database's own estimate of a table's rows, -1 when it has none."),
	}
}
