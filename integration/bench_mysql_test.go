package integration

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/headwaterdb/headwater/integration/servers"
)

// benchTableMySQL is benchTable for MySQL.
const benchTableMySQL = `
CREATE TABLE loaded (
  id bigint PRIMARY KEY, customer bigint NOT NULL, qty int NOT NULL, price decimal(10,2) NOT NULL,
  placed timestamp(6) NOT NULL, changed timestamp(6) NULL, name varchar(100) NOT NULL, note text, active boolean NOT NULL, ref varchar(40))`

// benchBatch is how many rows a transaction of the load has.
const benchBatch = 10_000

// mysqlBench is a bench on MySQL.
type mysqlBench struct {
	*bench
	db   *servers.MySQL
	conn *client.Conn
	// name begins the names of pipelines, of which there are so many.
	name      string
	pipelines int
}

func newMySQLBench(b *testing.B, name string) *mysqlBench {
	b.Helper()
	db := servers.Own(b).MySQLWith(servers.MySQLConfig{Version: "9", Settings: map[string]string{
		"innodb_buffer_pool_size": "512M", "innodb_redo_log_capacity": "1G",
	}})
	registry := srfake.New()
	b.Cleanup(registry.Close)
	conn, err := db.Connect(b.Context(), "")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	x := &mysqlBench{bench: &bench{B: b, registry: registry.URL()}, db: db, conn: conn, name: name}
	x.sql("CREATE DATABASE bench")
	x.sql("USE bench")
	x.sql(benchTableMySQL)
	x.sql("CREATE TABLE numbers (n int PRIMARY KEY)")
	x.sql("SET SESSION cte_max_recursion_depth = 1000000")
	x.sql(fmt.Sprintf("INSERT INTO numbers WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < %d) SELECT n FROM s", benchBatch))
	return x
}

func (x *mysqlBench) sql(q string) *mysql.Result {
	x.Helper()
	r, err := x.conn.Execute(q)
	if err != nil {
		x.Fatalf("%s: %v", clip(q), err)
	}
	return r
}

// load writes the rows, in transactions of benchBatch.
func (x *mysqlBench) load() {
	x.Helper()
	for from := 0; from < benchRows; from += benchBatch {
		x.sql(fmt.Sprintf(`INSERT INTO loaded SELECT %[1]d + n, n * 7, n %% 100, n * 0.01, now(6), now(6), concat('customer ', n),
			concat('a note of some length, as people write them, about the order ', n), n %% 2 = 0, left(sha2(n, 256), 32) FROM numbers`, from))
	}
}

// end is the place behind all that was written.
func (x *mysqlBench) end() mysql.Position {
	x.Helper()
	r := x.sql("SHOW BINARY LOG STATUS")
	file, err1 := r.GetString(0, 0)
	pos, err2 := r.GetInt(0, 1)
	if err1 != nil || err2 != nil {
		x.Fatal(err1, err2)
	}
	return mysql.Position{Name: file, Pos: uint32(pos)}
}

// discard reads the log between two places as go-mysql does without decoding, and throws
// it away.
func (x *mysqlBench) discard(from, to mysql.Position) time.Duration {
	x.Helper()
	user, password := x.db.User()
	syncer := replication.NewBinlogSyncer(replication.BinlogSyncerConfig{
		ServerID: 78, Flavor: mysql.MySQLFlavor, Host: "127.0.0.1", Port: uint16(x.db.Port), User: user, Password: password,
		RawModeEnabled: true, DisableRetrySync: true, Logger: slog.New(slog.DiscardHandler),
	})
	defer syncer.Close()
	ctx, cancel := context.WithTimeout(x.Context(), benchLimit)
	defer cancel()
	began := time.Now()
	stream, err := syncer.StartSync(from)
	if err != nil {
		x.Fatal(err)
	}
	for file := from.Name; ; {
		e, err := stream.GetEvent(ctx)
		if err != nil {
			x.Fatal(err)
		}
		if r, ok := e.Event.(*replication.RotateEvent); ok {
			file = string(r.NextLogName)
		} else if file == to.Name && e.Header.LogPos >= to.Pos {
			return time.Since(began)
		}
	}
}

// pipeline returns the program with a configuration. Its topics are called like it.
func (x *mysqlBench) pipeline(mode string, broker *broker) (p *pipeline, topic string) {
	x.Helper()
	x.pipelines++
	name := fmt.Sprintf("bench-%s%d", x.name, x.pipelines)
	return newPipeline(x, fmt.Sprintf(`
name: %[1]s
source:
  mysql: {url: %[2]q}
tables: {include: ["bench.loaded"]}
snapshot: {mode: %[3]s}
topics: {prefix: %[1]s, partitions: 4, replication: 1}
registry: {url: %[4]q}
kafka: {brokers: [%[5]q]}
`, name, strings.TrimSuffix(x.db.URL(""), "/"), mode, x.registry, broker.addrs[0])), name + ".bench.loaded"
}

func BenchmarkStreamMySQL(b *testing.B) {
	plain := map[string]float64{}
	for _, compression := range []string{"OFF", "ON"} {
		x := newMySQLBench(b, "mysql-"+strings.ToLower(compression))
		x.sql("SET SESSION binlog_transaction_compression = " + compression)
		type round struct {
			*pipeline
			topic string
		}
		brokers := x.brokers()
		waiting := map[*broker][]round{}
		for _, broker := range brokers { // each has its first checkpoint before the load
			for range benchRounds {
				p, topic := x.pipeline("never", broker)
				x.run(p, "run", func() bool {
					var at struct{ File string }
					return p.position(&at) == nil && at.File != ""
				})
				waiting[broker] = append(waiting[broker], round{p, topic})
			}
		}
		from := x.end()
		x.load()
		to := x.end()
		for _, broker := range brokers {
			var r rounds
			for _, p := range waiting[broker] {
				theirs := x.discard(from, to)
				r.add(theirs, x.run(p.pipeline, "run", func() bool { return broker.visible(b.Context(), p.topic) >= benchRows }))
			}
			if compression == "OFF" {
				plain[broker.name] = median(r.ours)
				// Raw mode looks at no row, so it is far ahead: half of it, or 250,000 rows/s if
				// that is less.
				want := min(0.5, 250_000/median(r.theirs))
				r.print(x.bench, "stream MySQL", broker.name, "go-mysql raw", want, 3.5)
				continue
			}
			x.print("stream MySQL, compressed, broker %-10s  %7.0f rows/s, %.2f of the uncompressed rate (want ≥ 0.6); %.2f µs CPU a row; %d MB",
				broker.name, median(r.ours), median(r.ours)/plain[broker.name], median(r.cpu), slices.Max(r.rss)>>20)
		}
	}
}

func BenchmarkSnapshotMySQL(b *testing.B) {
	x := newMySQLBench(b, "mysql-snapshot")
	x.load()
	x.sql("ANALYZE TABLE loaded")
	for _, broker := range x.brokers() {
		var r rounds
		for range benchRounds {
			began := time.Now()
			rows := 0
			err := x.conn.ExecuteSelectStreaming("SELECT * FROM loaded", new(mysql.Result), func([]mysql.FieldValue) error { rows++; return nil }, nil)
			if err != nil || rows != benchRows {
				b.Fatalf("%d rows: %v", rows, err)
			}
			theirs := time.Since(began)
			p, _ := x.pipeline("initial", broker)
			r.add(theirs, x.run(p, "snapshot", nil))
		}
		r.print(x.bench, "snapshot MySQL", broker.name, "SELECT *", 0.6, 3)
	}
}
