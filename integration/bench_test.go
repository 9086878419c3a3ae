package integration

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/headwaterdb/headwater/integration/servers"
)

// The benchmarks print figures and ratios of one run, medians of three alternating
// rounds. They assert nothing: these machines are noisy. `make bench` runs them.
const (
	benchRows   = 1_000_000
	benchRounds = 3
)

// benchTable has ten columns and about 180 bytes a row.
const benchTable = `
CREATE TABLE IF NOT EXISTS load (
  id bigint PRIMARY KEY, customer bigint NOT NULL, qty int NOT NULL, price numeric(10,2) NOT NULL,
  placed timestamptz NOT NULL, changed timestamptz, name text NOT NULL, note text, active boolean NOT NULL, ref varchar(40))`

func benchInsert(from, n int) string {
	return fmt.Sprintf(`INSERT INTO load SELECT n, n * 7, n %% 100, n * 0.01, now(), now(), 'customer ' || n,
		'a note of some length, as people write them, about the order ' || n, n %% 2 = 0, md5(n::text)
		FROM generate_series(%d, %d) n`, from, from+n-1)
}

type bench struct {
	*testing.B
	db       *servers.Postgres
	url      string
	conn     *pgx.Conn
	registry string
}

func newBench(b *testing.B, rows int) *bench {
	b.Helper()
	ctx := b.Context()
	db := servers.Own(b).PostgresWith(servers.PostgresConfig{Settings: map[string]string{
		"max_wal_size": "4GB", "shared_buffers": "256MB", "max_replication_slots": "40",
	}})
	sr := srfake.New()
	b.Cleanup(sr.Close)
	conn, err := pgx.Connect(ctx, db.URL("postgres"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(context.Background()) })
	x := &bench{B: b, db: db, url: db.URL("postgres"), conn: conn, registry: sr.URL()}
	x.sql(benchTable)
	x.sql("CREATE PUBLICATION bench FOR TABLE load")
	x.sql("SELECT pg_create_logical_replication_slot('base', 'pgoutput')")
	for from := 1; from <= rows; from += 1000 {
		x.sql(benchInsert(from, 1000))
	}
	x.sql("CHECKPOINT")
	return x
}

func (x *bench) sql(q string) {
	x.Helper()
	if _, err := x.conn.Exec(x.Context(), q); err != nil {
		x.Fatal(err)
	}
}

func (x *bench) end() (lsn string) {
	x.Helper()
	if err := x.conn.QueryRow(x.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&lsn); err != nil {
		x.Fatal(err)
	}
	return lsn
}

// brokers returns the in-process broker and the real one, by name.
func (x *bench) brokers() map[string][]string {
	x.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(fake.Close)
	return map[string][]string{"in process": fake.ListenAddrs(), "Kafka": servers.Shared(x).Kafka().Bootstrap}
}

// usage is what a process used.
type usage struct {
	wall, cpu time.Duration
	rss       int64 // bytes
}

func used(cmd *exec.Cmd, wall time.Duration) usage {
	s := cmd.ProcessState
	return usage{wall, s.UserTime() + s.SystemTime(), s.SysUsage().(*syscall.Rusage).Maxrss << 10}
}

// headwater runs the program until done says so and stops it.
func (x *bench) headwater(command, name, mode string, brokers []string, done func() bool) usage {
	x.Helper()
	bin, err := program()
	if err != nil {
		x.Fatal(err)
	}
	config := filepath.Join(x.TempDir(), name+".yml")
	text := fmt.Sprintf(`
name: %[1]s
source:
  postgres: {url: %[2]q, publication: bench, slot: %[3]s}
tables: {include: ["public.load"]}
snapshot: {mode: %[4]s}
topics: {prefix: %[1]s, partitions: 4, replication: 1}
registry: {url: %[5]q}
kafka: {brokers: [%[6]q]}
`, name, x.url, strings.ReplaceAll(name, "-", "_"), mode, x.registry, brokers[0])
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		x.Fatal(err)
	}
	cmd := exec.Command(bin, command, "--config", config)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		x.Fatal(err)
	}
	var wall time.Duration
	if done == nil { // ends by itself
		err = cmd.Wait()
		wall = time.Since(began)
	} else {
		for !done() {
			if time.Since(began) > 5*time.Minute {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				x.Fatalf("not done after 5 minutes\n%s", out.String())
			}
			time.Sleep(2 * time.Millisecond)
		}
		wall = time.Since(began)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err = cmd.Wait()
	}
	if err != nil {
		x.Fatalf("headwater %s: %v\n%s", command, err, out.String())
	}
	return used(cmd, wall)
}

// committedRows counts what a reader of committed records can reach in the topic.
func (x *bench) committedRows(adm *kadm.Client, topic string) (n int64) {
	offsets, err := adm.ListCommittedOffsets(x.Context(), topic)
	if err != nil {
		return 0
	}
	offsets.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}

func median[T ~int64 | ~float64](v []T) T {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

func (x *bench) print(format string, args ...any) {
	fmt.Fprintf(os.Stdout, "  "+format+"\n", args...)
}

func perRow(d time.Duration) float64 { return float64(d.Nanoseconds()) / benchRows / 1000 }

func BenchmarkStream(b *testing.B) {
	x := newBench(b, benchRows)
	recv := findTool(b, "pg_recvlogical")
	end := x.end()
	round := 0
	slot := func() string {
		round++
		name := fmt.Sprintf("bench_s%d", round)
		x.sql(fmt.Sprintf("SELECT pg_copy_logical_replication_slot('base', '%s')", name))
		return name
	}
	drop := func(name string) { x.sql(fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", name)) }
	for name, brokers := range x.brokers() {
		adm := x.admin(brokers)
		var theirs, ours, ratio, cpu []float64
		var rss []int64
		for range benchRounds {
			s := slot()
			cmd := exec.Command(recv, "-d", x.url, "-S", s, "-f", "/dev/null", "--start", "-o", "proto_version=1", "-o", "publication_names=bench", "--endpos", end, "-n")
			began := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("pg_recvlogical: %v\n%s", err, out)
			}
			t := time.Since(began).Seconds()
			drop(s)

			s = slot()
			topic := strings.ReplaceAll(s, "_", "-") + ".public.load"
			u := x.headwater("run", strings.ReplaceAll(s, "_", "-"), "never", brokers, func() bool { return x.committedRows(adm, topic) >= benchRows })
			drop(s)
			theirs, ours = append(theirs, benchRows/t), append(ours, benchRows/u.wall.Seconds())
			ratio, cpu, rss = append(ratio, t/u.wall.Seconds()), append(cpu, perRow(u.cpu)), append(rss, u.rss)
		}
		x.print("stream, broker %-10s  %7.0f rows/s, pg_recvlogical %7.0f rows/s, ratio %.2f (want ≥ 0.9); %.2f µs CPU a row (≤ 4); %d MB (≤ 150)",
			name, median(ours), median(theirs), median(ratio), median(cpu), median(rss)>>20)
		b.ReportMetric(median(ratio), "ratio-"+strings.ReplaceAll(name, " ", "-"))
	}
}

func (x *bench) admin(brokers []string) *kadm.Client {
	x.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

func BenchmarkSnapshot(b *testing.B) {
	x := newBench(b, benchRows)
	x.sql("VACUUM ANALYZE load")
	round := 0
	for name, brokers := range x.brokers() {
		var theirs, ours, ratio, cpu []float64
		var rss []int64
		for range benchRounds {
			round++
			began := time.Now()
			if _, err := x.conn.PgConn().CopyTo(b.Context(), io.Discard, "COPY load TO STDOUT (FORMAT binary)"); err != nil {
				b.Fatal(err)
			}
			t := time.Since(began).Seconds()
			n := fmt.Sprintf("bench-r%d", round)
			u := x.headwater("snapshot", n, "initial", brokers, nil)
			x.sql(fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", strings.ReplaceAll(n, "-", "_")))
			theirs, ours = append(theirs, benchRows/t), append(ours, benchRows/u.wall.Seconds())
			ratio, cpu, rss = append(ratio, t/u.wall.Seconds()), append(cpu, perRow(u.cpu)), append(rss, u.rss)
		}
		x.print("snapshot, broker %-10s %7.0f rows/s, COPY binary %7.0f rows/s, ratio %.2f (want ≥ 0.4); %.2f µs CPU a row (≤ 3); %d MB (≤ 150)",
			name, median(ours), median(theirs), median(ratio), median(cpu), median(rss)>>20)
		b.ReportMetric(median(ratio), "ratio-"+strings.ReplaceAll(name, " ", "-"))
	}
}

// BenchmarkLatency measures from the answer to COMMIT to a read-committed reader's hands.
func BenchmarkLatency(b *testing.B) {
	for _, variant := range []struct {
		name     string
		settings map[string]string
	}{
		{"defaults", nil},
		{"add.partitions.to.txn.retry.backoff.ms=1", map[string]string{"add.partitions.to.txn.retry.backoff.ms": "1"}},
	} {
		x := newBench(b, 0)
		kafka := servers.Own(b).KafkaWith(servers.KafkaConfig{Settings: variant.settings})
		const rate, transactions = 200, 3000
		var count atomic.Int64
		committed := make([]time.Time, transactions)
		latency := make([]time.Duration, 0, transactions)
		x.sql("SELECT pg_copy_logical_replication_slot('base', 'bench_l')")
		cl, err := kgo.NewClient(kgo.SeedBrokers(kafka.Bootstrap...), kgo.ConsumeTopics("bench-l.public.load"),
			kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(500*time.Millisecond), kgo.MetadataMinAge(100*time.Millisecond),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.UnknownTopicRetries(-1), kgo.MetadataMaxAge(time.Second))
		if err != nil {
			b.Fatal(err)
		}
		x.headwater("run", "bench-l", "never", kafka.Bootstrap, func() bool {
			x.sql(benchInsert(1, 1)) // makes the topic
			for seen := 0; seen == 0; {
				seen = cl.PollFetches(b.Context()).NumRecords()
			}
			go func() {
				tick := time.NewTicker(time.Second / rate)
				defer tick.Stop()
				for i := range transactions {
					<-tick.C
					if _, err := x.conn.Exec(b.Context(), benchInsert(10+i, 1)); err != nil {
						b.Error(err)
						return
					}
					committed[i] = time.Now()
					count.Store(int64(i + 1))
				}
			}()
			for len(latency) < transactions {
				n := cl.PollFetches(b.Context()).NumRecords()
				now := time.Now()
				for range n {
					// Order across partitions is not the commits' order: the n-th record seen is
					// set against the n-th commit, which makes no difference to the distribution.
					for count.Load() <= int64(len(latency)) {
						time.Sleep(20 * time.Microsecond)
					}
					latency = append(latency, max(0, now.Sub(committed[len(latency)])))
				}
			}
			return true
		})
		cl.Close()
		slices.Sort(latency)
		p50, p99 := latency[len(latency)/2], latency[len(latency)*99/100]
		x.print("latency, %d transactions/s, Kafka with %s: p50 %.1f ms (want ≤ 15), p99 %.1f ms (≤ 60, with that broker setting ≤ 50)",
			rate, variant.name, float64(p50.Microseconds())/1000, float64(p99.Microseconds())/1000)
		b.ReportMetric(float64(p50.Microseconds())/1000, "ms-p50")
	}
}

// BenchmarkResume measures from the start of a stopped pipeline's process to its first
// record that a reader can see.
func BenchmarkResume(b *testing.B) {
	x := newBench(b, 1000)
	for name, brokers := range x.brokers() {
		adm := x.admin(brokers)
		slot := "bench_w" + strings.ToLower(name[:1])
		x.sql(fmt.Sprintf("SELECT pg_copy_logical_replication_slot('base', '%s')", slot))
		pipeline := strings.ReplaceAll(slot, "_", "-")
		var took []time.Duration
		seen := int64(0)
		for i := range benchRounds + 1 {
			x.sql(benchInsert(1_000_000*(i+1)+int(name[0]), 1))
			u := x.headwater("run", pipeline, "never", brokers, func() bool {
				n := x.committedRows(adm, pipeline+".public.load")
				return i > 0 && n > seen || i == 0 && n > 1000
			})
			time.Sleep(200 * time.Millisecond)
			seen = x.committedRows(adm, pipeline+".public.load")
			if i > 0 {
				took = append(took, u.wall)
			}
		}
		x.print("resume, broker %-10s start → first record %.2f s (want ≤ 1)", name, median(took).Seconds())
	}
}

// findTool finds a PostgreSQL client program.
func findTool(b *testing.B, name string) string {
	b.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		b.Fatalf("%s not found: install the package postgresql-client", name)
	}
	return found[len(found)-1]
}
