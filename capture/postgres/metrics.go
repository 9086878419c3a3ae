package postgres

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of one source. LSNs are byte positions, so that differences are bytes.
type metrics struct {
	received, acknowledged, backlog, lag prometheus.Gauge
	rows, batches, bytes                 prometheus.Counter
}

// newMetrics registers them, unless reg is nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return with.NewGauge(prometheus.GaugeOpts{Namespace: "headwater", Subsystem: "postgres", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Namespace: "headwater", Subsystem: "postgres", Name: name, Help: help})
	}
	return &metrics{
		received:     gauge("received_lsn_bytes", "End of the last source transaction read from the log, as a byte position."),
		acknowledged: gauge("acknowledged_lsn_bytes", "Position up to which the server may drop its log for us."),
		backlog:      gauge("backlog_bytes", "Log that the server has written and we have not read."),
		lag:          gauge("lag_seconds", "Age of the last source transaction when it was read; 0 when there is nothing more to read."),
		rows:         counter("rows_total", "Row changes read from the log for captured tables."),
		batches:      counter("batches_total", "Batches handed on."),
		bytes:        counter("log_bytes_total", "Bytes of row changes read from the log."),
	}
}
