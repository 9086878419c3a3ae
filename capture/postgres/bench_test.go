package postgres

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/integration/servers"
)

// BenchmarkStream reads one transaction of 200 bytes a row over and over, on a machine
// that it shares with the server.
func BenchmarkStream(b *testing.B) {
	const rows = 300_000
	pg := servers.Own(b).Postgres("17")
	url := pg.Database(b)
	db, err := pgx.Connect(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close(context.Background())
	for _, sql := range []string{
		`CREATE TABLE t (id bigint PRIMARY KEY, a text, b int, c numeric, d timestamptz, e bool, f double precision, g text)`,
		`CREATE PUBLICATION headwater FOR TABLE t`, `SELECT pg_create_logical_replication_slot('headwater', 'pgoutput')`,
		`INSERT INTO t SELECT g, repeat('a', 60), g, g / 7.0, now(), true, g / 3.0, repeat('b', 60) FROM generate_series(1, 300000) g`,
	} {
		if _, err := db.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	cfg := Config{URL: url, HeartbeatInterval: time.Hour}
	cfg.SetDefaults()
	for b.Loop() {
		n := 0
		err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry()).Stream(b.Context(), capture.Resume{}, func(batch *capture.Batch) error {
			n += len(batch.Events)
			batch.Release()
			if n >= rows {
				return errEnough
			}
			return nil
		})
		if err != errEnough {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
}
