package integration

import (
	"context"
	"fmt"
	"log/slog"
	"os"
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
	x.state = x.sessions
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

// insertMySQL makes a row of each number n that from holds.
func insertMySQL(id, from string) string {
	return fmt.Sprintf(`INSERT INTO loaded SELECT %s, n * 7, n %% 100, n * 0.01, now(6), now(6), concat('customer ', n),
		concat('a note of some length, as people write them, about the order ', n), n %% 2 = 0, left(sha2(n, 256), 32) FROM %s`, id, from)
}

// insertAtOnce makes many batches of rows in one transaction.
func insertAtOnce(batches int) string {
	return insertMySQL(fmt.Sprintf("m * %d + n", benchBatch), fmt.Sprintf("(SELECT n AS m FROM numbers WHERE n <= %d) AS batches STRAIGHT_JOIN numbers", batches))
}

// load writes the rows, in transactions of benchBatch.
func (x *mysqlBench) load() {
	x.Helper()
	for from := 0; from < benchRows; from += benchBatch {
		x.sql(insertMySQL(fmt.Sprintf("%d + n", from), "numbers"))
	}
}

// insert writes a row of its own.
func (x *mysqlBench) insert(id int) error {
	_, err := x.conn.Execute(insertMySQL(fmt.Sprint(id), "numbers WHERE n = 1"))
	return err
}

// sessions lists who is connected to the server, and the end of its log.
func (x *mysqlBench) sessions(ctx context.Context) (string, error) {
	conn, err := x.db.Connect(ctx, "")
	if err != nil {
		return "", err
	}
	defer conn.Quit()
	var text strings.Builder
	for _, sql := range []string{"SHOW BINARY LOG STATUS", "SHOW FULL PROCESSLIST"} {
		r, err := conn.Execute(sql)
		if err != nil {
			return "", err
		}
		for i := range r.Values {
			for j := range r.Values[i] {
				cell, err := r.GetString(i, j)
				if err != nil {
					return "", err
				}
				text.WriteString(clip(cell) + " ")
			}
			text.WriteString("\n")
		}
	}
	return text.String(), nil
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
	return x.pipelineWith(mode, broker, "")
}

// pipelineWith adds more to the section kafka.
func (x *mysqlBench) pipelineWith(mode string, broker *broker, more string) (p *pipeline, topic string) {
	x.Helper()
	x.pipelines++
	name := fmt.Sprintf("bench-%s%d", x.name, x.pipelines)
	return newPipeline(x, fmt.Sprintf(`
name: %[1]s
source:
  mysql: {url: %[2]q}
tables: {include: ["bench.loaded"]}
snapshot: {mode: %[3]s}
topics: {prefix: %[1]s, partitions: 4, replication: 1, settings: {max.message.bytes: "16000000"}}
registry: {url: %[4]q}
kafka: {brokers: [%[5]q]%[6]s}
`, name, strings.TrimSuffix(x.db.URL(""), "/"), mode, x.registry, broker.addrs[0], more)), name + ".bench.loaded"
}

// begin lets a pipeline that reads no tables take its place in the log.
func (x *mysqlBench) begin(p *pipeline) {
	x.Helper()
	x.run(p, "run", func() bool { return passed(p, mysql.Position{}) })
}

// passed says whether a pipeline's checkpoint is at a place of the log or behind it.
func passed(p *pipeline, place mysql.Position) bool {
	var at struct {
		File string
		Pos  uint32
	}
	return p.position(&at) == nil && at.File != "" && place.Compare(mysql.Position{Name: at.File, Pos: at.Pos}) <= 0
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
				x.begin(p)
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
		x.warm(broker, func() { p, _ := x.pipeline("initial", broker); x.run(p, "snapshot", nil) })
		var r rounds
		for range benchRounds {
			theirs := x.quick("SELECT * FROM bench.loaded")
			p, _ := x.pipeline("initial", broker)
			r.add(theirs, x.run(p, "snapshot", nil))
		}
		r.print(x.bench, "snapshot MySQL", broker.name, "mysql --quick", 0.6, 3)
	}
}

// quick lets the client of MySQL print a query's rows to /dev/null, as it reads them.
func (x *mysqlBench) quick(query string) time.Duration {
	x.Helper()
	user, password := x.db.User()
	cmd, err := servers.MySQLClient(x.Context(), "--no-defaults", "--quick", "--host=127.0.0.1", fmt.Sprintf("--port=%d", x.db.Port), "--user="+user, "-e", query)
	if err != nil {
		x.Fatal(err)
	}
	var said strings.Builder
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+password)
	cmd.Stderr = &said // stdout is /dev/null
	began := time.Now()
	if err := cmd.Run(); err != nil {
		x.Fatalf("mysql: %v\n%s", err, &said)
	}
	return time.Since(began)
}

// BenchmarkMemoryMySQL is BenchmarkMemory for MySQL.
func BenchmarkMemoryMySQL(b *testing.B) {
	x := newMySQLBench(b, "mysql-memory")
	x.sql("ALTER TABLE loaded MODIFY note longtext")
	x.sql("SET SESSION group_concat_max_len = 16 << 20")
	broker := x.broker(realBroker, servers.Shared(b).Kafka().Bootstrap)
	large := fmt.Sprintf(`INSERT INTO loaded SELECT n, n, 1, 1, now(6), now(6), 'large',
		(SELECT group_concat(hex(random_bytes(512)) SEPARATOR '') FROM numbers AS parts WHERE parts.n <= (1 + numbers.n %% 8) * 1024), true, '' FROM numbers WHERE n <= %d`, largeRows)
	for _, c := range []struct {
		name, insert, compression, command, kafka string
		rows, bound                               int64
	}{
		{"one transaction of 5 M rows", insertAtOnce(5 * benchRows / benchBatch), "OFF", "run", "", 5 * benchRows, memoryBound},
		{"one compressed transaction of 1 M rows", insertAtOnce(benchRows / benchBatch), "ON", "run", "", benchRows, memoryBound},
		{"stream, rows of 1 to 8 MB", large, "OFF", "run", largeRecords, largeRows, memoryBound + 3*largest},
		{"snapshot, rows of 1 to 8 MB", large, "OFF", "snapshot", largeRecords, largeRows, memoryBound + 3*largest},
	} {
		x.sql("TRUNCATE loaded")
		x.sql("SET SESSION binlog_transaction_compression = " + c.compression)
		if c.command == "snapshot" {
			x.sql(c.insert)
			p, _ := x.pipelineWith("initial", broker, c.kafka)
			x.printMemory("MySQL, "+c.name, x.run(p, "snapshot", nil), c.bound)
			continue
		}
		p, topic := x.pipelineWith("never", broker, c.kafka)
		x.begin(p)
		x.sql(c.insert)
		end := x.end()
		// Transactions of the broker count among its records.
		u := x.run(p, "run", func() bool { return broker.visible(b.Context(), topic) >= c.rows && passed(p, end) })
		x.printMemory("MySQL, "+c.name, u, c.bound)
	}
}

// BenchmarkLatencyMySQL is BenchmarkLatency for MySQL.
func BenchmarkLatencyMySQL(b *testing.B) {
	x := newMySQLBench(b, "mysql-latency")
	id := 0
	insert := func(context.Context, int) error {
		id++
		return x.insert(id)
	}
	for _, variant := range latencyBrokers {
		kafka := servers.Own(b).KafkaWith(servers.KafkaConfig{Settings: variant.settings})
		broker := x.broker(realBroker, kafka.Bootstrap)
		p, topic := x.pipeline("never", broker)
		x.begin(p)
		if err := insert(b.Context(), 0); err != nil { // makes the topic
			b.Fatal(err)
		}
		p.start("run")
		x.latency("latency MySQL", variant.name, p, broker, topic, insert)
		p.stop()
	}
}

// BenchmarkResumeMySQL is BenchmarkResume for MySQL.
func BenchmarkResumeMySQL(b *testing.B) {
	x := newMySQLBench(b, "mysql-resume")
	id := 0
	for _, broker := range x.brokers() {
		p, topic := x.pipeline("never", broker)
		x.begin(p)
		x.resume("resume MySQL", p, broker, topic, 0, func(int) {
			id++
			if err := x.insert(id); err != nil {
				b.Fatal(err)
			}
		})
	}
}
