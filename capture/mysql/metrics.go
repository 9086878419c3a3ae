package mysql

import "github.com/prometheus/client_golang/prometheus"

// metrics of one source.
type metrics struct {
	file, offset, backlog, lag, prepared prometheus.Gauge
	rows, batches, bytes, looks          prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "headwater", Subsystem: "mysql", Name: name, Help: help})
		reg.MustRegister(g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "headwater", Subsystem: "mysql", Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	return &metrics{
		file:     gauge("received_file", "Number of the binary log file that the last source transaction was read from."),
		offset:   gauge("received_offset_bytes", "End of the last source transaction in that file."),
		backlog:  gauge("backlog_bytes", "Log that the server has written and we have not read."),
		lag:      gauge("lag_seconds", "Age of the last source transaction when it was read; 0 when there is nothing more to read."),
		prepared: gauge("prepared_bytes", "Rows kept of XA transactions that are prepared and not yet decided."),
		rows:     counter("rows_total", "Row changes read from the log for captured tables."),
		batches:  counter("batches_total", "Batches handed on."),
		bytes:    counter("log_bytes_total", "Bytes of row changes read from the log."),
		looks:    counter("looks_total", "Reads ahead in the log for changes of tables whose columns it does not name."),
	}
}
