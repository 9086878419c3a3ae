package mysql

import (
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/integration/servers"
)

// BenchmarkStream reads the same transactions of 200 bytes a row over and over, on a
// machine that it shares with the server.
func BenchmarkStream(b *testing.B) {
	const rows = 1 << 18
	server := servers.Own(b).MySQL("9")
	name := server.Database(b)
	db, err := server.Connect(b.Context(), name)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	exec := func(sql string) {
		if _, err := db.Execute(sql); err != nil {
			b.Fatalf("%s: %v", sql, err)
		}
	}
	exec("CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, a int, b bigint, c datetime(6), d decimal(12,2), v varchar(200), w varchar(100))")
	cfg := Config{URL: server.URL(""), HeartbeatInterval: time.Hour}
	cfg.SetDefaults()
	stream := func(r capture.Resume, emit capture.EmitFunc) {
		err := New(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry()).Stream(b.Context(), r, emit)
		if !errors.Is(err, errEnough) {
			b.Fatal(err)
		}
	}
	var r capture.Resume
	stream(r, func(batch *capture.Batch) error {
		r.At = batch.End
		batch.Release()
		return errEnough
	})
	exec("INSERT INTO t (a, b, c, d, v, w) VALUES (1, 2, NOW(6), 12.34, REPEAT('x', 100), REPEAT('y', 50))")
	for range 18 {
		exec("INSERT INTO t (a, b, c, d, v, w) SELECT a, b, c, d, v, w FROM t")
	}
	for b.Loop() {
		n := 0
		stream(r, func(batch *capture.Batch) error {
			n += len(batch.Events)
			batch.Release()
			if n >= rows {
				return errEnough
			}
			return nil
		})
	}
	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
}
