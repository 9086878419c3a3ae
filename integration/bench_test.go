package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
	// benchLimit is far more than any step takes: who is not done by then hangs, and
	// the benchmark says where.
	benchLimit = 5 * time.Minute
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
	url      string
	conn     *pgx.Conn
	registry string
	// state says how the database stands with its readers, when a benchmark hangs.
	state func(context.Context) (string, error)
}

func newBench(b *testing.B, rows int) *bench {
	b.Helper()
	db := servers.Own(b).PostgresWith(servers.PostgresConfig{Settings: map[string]string{
		"max_wal_size": "4GB", "shared_buffers": "256MB", "max_replication_slots": "40",
	}})
	sr := srfake.New()
	b.Cleanup(sr.Close)
	url := db.URL("postgres")
	x := &bench{B: b, url: url, conn: connect(b, url), registry: sr.URL()}
	x.state = x.slots
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
	mustExec(x, x.conn, q)
}

// copySlot makes a slot that begins where the tables were made.
func (x *bench) copySlot(name string) {
	x.Helper()
	x.sql(fmt.Sprintf("SELECT pg_copy_logical_replication_slot('base', '%s')", name))
}

// dropSlot waits for the server to notice that the slot's reader has gone.
func (x *bench) dropSlot(name string) {
	x.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		_, err := x.conn.Exec(x.Context(), fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", name))
		if err == nil {
			return
		}
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != "55006" || time.Since(began) > benchLimit { // object_in_use
			x.Fatal(err)
		}
	}
}

// slots describes the slots and the log.
func (x *bench) slots(ctx context.Context) (text string, err error) {
	conn, err := pgx.Connect(ctx, x.url)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT json_agg(s)::text || ' in a log up to ' || pg_current_wal_insert_lsn() FROM pg_replication_slots s").Scan(&text)
	return text, err
}

func (x *bench) end() (lsn string) {
	x.Helper()
	if err := x.conn.QueryRow(x.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&lsn); err != nil {
		x.Fatal(err)
	}
	return lsn
}

// realBroker is the name of the broker that is none in this process.
const realBroker = "Kafka"

// A broker is where the records go.
type broker struct {
	name  string
	addrs []string
	*kadm.Client
}

// brokers returns the broker in this process and a real one.
func (x *bench) brokers() []*broker {
	x.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(fake.Close)
	return []*broker{x.broker("in process", fake.ListenAddrs()), x.broker(realBroker, servers.Shared(x).Kafka().Bootstrap)}
}

func (x *bench) broker(name string, addrs []string) *broker {
	x.Helper()
	// What the client knows of topics must not be older than what is measured.
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(cl.Close)
	return &broker{name, addrs, kadm.NewClient(cl)}
}

// warm runs what will be measured until the broker's machine code is that of a broker
// which has been up for a while: a new JVM takes four times the processor time for the
// first million records, half as much again for the tenth, and settles by the twentieth.
// The broker in process needs none of it.
func (x *bench) warm(b *broker, run func()) {
	x.Helper()
	if b.name != realBroker {
		return
	}
	for range 20 {
		run()
	}
}

// visible counts what a reader of committed records can reach in the topic.
func (b *broker) visible(ctx context.Context, topic string) (n int64) {
	offsets, err := b.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return 0 // it is asked again
	}
	offsets.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}

// usage is what a process used.
type usage struct {
	wall, cpu time.Duration
	rss       int64 // bytes, at most
}

// peak is the largest resident memory that a process has had, 0 when it has ended. The
// figure that comes with a process's end will not do: it counts the memory of the parent
// that forked it, in which a broker and its records may live.
func peak(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	m := highWater.FindSubmatch(text)
	if m == nil {
		return 0
	}
	kb, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return kb << 10
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// pipeline returns the program with a configuration. Its slot and its topics are called
// like it; more is added to the section kafka.
func (x *bench) pipeline(name, mode string, brokers []string, more string) *pipeline {
	x.Helper()
	return newPipeline(x, fmt.Sprintf(`
name: %[1]s
source:
  postgres: {url: %[2]q, publication: bench, slot: %[3]s}
tables: {include: ["public.load"]}
snapshot: {mode: %[4]s}
topics: {prefix: %[1]s, partitions: 4, replication: 1, settings: {max.message.bytes: "16000000"}}
registry: {url: %[5]q}
kafka: {brokers: [%[6]q]%[7]s}
`, name, x.url, strings.ReplaceAll(name, "-", "_"), mode, x.registry, brokers[0], more))
}

// run starts a command, and stops it once done says so; a command that ends by itself has
// no done.
func (x *bench) run(p *pipeline, command string, done func() bool) (u usage) {
	x.Helper()
	began := time.Now()
	p.start(command)
	cmd, over := p.cmd, false
	for !over {
		select {
		case <-p.ended:
			over = true
		case <-time.After(10 * time.Millisecond): // looking costs the process looked at
			over = done != nil && done()
		}
		u.wall = time.Since(began)
		u.rss = max(u.rss, peak(cmd.Process.Pid))
		if !over && u.wall > benchLimit {
			p.stuck("headwater %s is not done after %v", command, benchLimit)
		}
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		x.Fatalf("headwater %s: %v\n%s", command, err, p.tail(40))
	}
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return u
}

func median[T ~int64 | ~float64](v []T) T {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

func (x *bench) print(format string, args ...any) {
	fmt.Fprintf(os.Stdout, "  "+format+"\n", args...)
}

// rounds are the figures of several rounds: rows a second of theirs and ours.
type rounds struct {
	theirs, ours, ratio, cpu []float64
	rss                      []int64
}

func (r *rounds) add(theirs time.Duration, u usage) {
	r.theirs, r.ours = append(r.theirs, benchRows/theirs.Seconds()), append(r.ours, benchRows/u.wall.Seconds())
	r.ratio = append(r.ratio, theirs.Seconds()/u.wall.Seconds())
	r.cpu, r.rss = append(r.cpu, float64(u.cpu.Nanoseconds())/benchRows/1000), append(r.rss, u.rss)
}

// print takes the name of what they are compared with, and the wanted figures.
func (r *rounds) print(x *bench, what, broker, theirs string, ratio, cpu float64) {
	x.print("%s, broker %-10s  %7.0f rows/s, %s %7.0f rows/s, ratio %.2f (want ≥ %.2g); %.2f µs CPU a row (≤ %.2g); %d MB (≤ 150)",
		what, broker, median(r.ours), theirs, median(r.theirs), median(r.ratio), ratio, median(r.cpu), cpu, slices.Max(r.rss)>>20)
	x.ReportMetric(median(r.ratio), "ratio-"+strings.ReplaceAll(broker, " ", "-"))
}

func BenchmarkStream(b *testing.B) {
	x := newBench(b, benchRows)
	recv := findTool(b, "pg_recvlogical")
	end := x.end()
	round := 0
	for _, broker := range x.brokers() {
		var r rounds
		for range benchRounds {
			round++
			slot := fmt.Sprintf("bench_s%d", round)
			x.copySlot(slot)
			cmd := exec.Command(recv, "-d", x.url, "-S", slot, "-f", "/dev/null", "--start", "-o", "proto_version=1", "-o", "publication_names=bench", "--endpos", end, "-n")
			began := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("pg_recvlogical: %v\n%s", err, out)
			}
			theirs := time.Since(began)
			x.dropSlot(slot)

			x.copySlot(slot)
			name := strings.ReplaceAll(slot, "_", "-")
			p := x.pipeline(name, "never", broker.addrs, "")
			r.add(theirs, x.run(p, "run", func() bool { return broker.visible(b.Context(), name+".public.load") >= benchRows }))
			x.dropSlot(slot)
		}
		r.print(x, "stream", broker.name, "pg_recvlogical", 0.9, 4)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	x := newBench(b, benchRows)
	x.sql("VACUUM ANALYZE load")
	round := 0
	for _, broker := range x.brokers() {
		x.warm(broker, func() {
			round++
			x.run(x.pipeline(fmt.Sprintf("bench-r%d", round), "initial", broker.addrs, ""), "snapshot", nil)
			x.dropSlot(fmt.Sprintf("bench_r%d", round))
		})
		var r rounds
		for range benchRounds {
			round++
			began := time.Now()
			if _, err := x.conn.PgConn().CopyTo(b.Context(), io.Discard, "COPY load TO STDOUT (FORMAT binary)"); err != nil {
				b.Fatal(err)
			}
			theirs := time.Since(began)
			p := x.pipeline(fmt.Sprintf("bench-r%d", round), "initial", broker.addrs, "")
			r.add(theirs, x.run(p, "snapshot", nil))
			x.dropSlot(fmt.Sprintf("bench_r%d", round))
		}
		r.print(x, "snapshot", broker.name, "COPY binary", 0.4, 3)
	}
}

// Rows of 1 to 8 MB, and of random text, which no compression makes smaller.
const (
	largeRows, largest = 100, 8 << 20
	largeRecords       = ", max_record_bytes: 12000000" // of the section kafka
	memoryBound        = 150 << 20
)

// passed says whether a pipeline's checkpoint is at a place of the log or behind it.
func (x *bench) passed(p *pipeline, end string) bool {
	x.Helper()
	var at struct {
		End string `json:"end_lsn"`
	}
	if p.position(&at) != nil {
		return false // it is asked again
	}
	have, err1 := pglogrepl.ParseLSN(at.End)
	want, err2 := pglogrepl.ParseLSN(end)
	if err2 != nil {
		x.Fatal(err2)
	}
	return err1 == nil && have >= want
}

func (x *bench) printMemory(what string, u usage, bound int64) {
	x.print("memory, %-38s %4d MB (want ≤ %d); %.1f s", what, u.rss>>20, bound>>20, u.wall.Seconds())
}

// BenchmarkMemory measures what stays resident where it might grow: in one transaction of
// a million rows, and with rows of many megabytes.
func BenchmarkMemory(b *testing.B) {
	kafka := servers.Shared(b).Kafka().Bootstrap
	insertLarge := fmt.Sprintf(`INSERT INTO load SELECT n, n, 1, 1, now(), now(), 'large',
		(SELECT string_agg(md5(n || '/' || k), '') FROM generate_series(1, (1 + n %% 8) * 32768) k), true, '' FROM generate_series(1, %d) n`, largeRows)

	for _, c := range []struct {
		name, insert, command, kafka string
		rows, bound                  int64
	}{
		{"one transaction of 1 M rows", benchInsert(1, benchRows), "run", "", benchRows, memoryBound},
		{"stream, rows of 1 to 8 MB", insertLarge, "run", largeRecords, largeRows, memoryBound + 3*largest},
		{"snapshot, rows of 1 to 8 MB", insertLarge, "snapshot", largeRecords, largeRows, memoryBound + 3*largest},
	} {
		x := newBench(b, 0)
		x.sql("ALTER TABLE load ALTER note SET STORAGE EXTERNAL")
		x.sql(c.insert)
		broker := x.broker(realBroker, kafka)
		name := "bench-" + strings.ReplaceAll(strings.ToLower(strings.NewReplacer(",", "", " ", "-").Replace(c.name)), "--", "-")
		var u usage
		if c.command == "run" {
			x.copySlot(strings.ReplaceAll(name, "-", "_"))
			p, end := x.pipeline(name, "never", kafka, c.kafka), x.end()
			// Transactions of the broker count among its records.
			u = x.run(p, "run", func() bool {
				return broker.visible(b.Context(), name+".public.load") >= c.rows && x.passed(p, end)
			})
		} else {
			u = x.run(x.pipeline(name, "initial", kafka, c.kafka), "snapshot", nil)
		}
		x.printMemory(c.name, u, c.bound)
	}
}

// latencyBrokers are the settings of the brokers with which latency is measured.
var latencyBrokers = []struct {
	name     string
	settings map[string]string
}{
	{"defaults", nil},
	{"add.partitions.to.txn.retry.backoff.ms=1", map[string]string{"add.partitions.to.txn.retry.backoff.ms": "1"}},
}

// BenchmarkLatency measures from the answer to COMMIT to a read-committed reader's hands.
func BenchmarkLatency(b *testing.B) {
	for _, variant := range latencyBrokers {
		x := newBench(b, 0)
		kafka := servers.Own(b).KafkaWith(servers.KafkaConfig{Settings: variant.settings})
		x.copySlot("bench_l")
		x.sql(benchInsert(1, 1)) // makes the topic
		p := x.pipeline("bench-l", "never", kafka.Bootstrap, "")
		p.start("run")
		x.latency("latency", variant.name, p, x.broker(realBroker, kafka.Bootstrap), "bench-l.public.load", func(ctx context.Context, i int) error {
			_, err := x.conn.Exec(ctx, benchInsert(10+i, 1))
			return err
		})
		p.stop()
	}
}

// latency measures and prints; see latencies.
func (x *bench) latency(what, setting string, p *pipeline, broker *broker, topic string, commit func(ctx context.Context, i int) error) {
	x.Helper()
	const rate, transactions = 200, 3000
	latency := x.latencies(p, broker, topic, rate, transactions, commit)
	slices.Sort(latency)
	p50, p99 := latency[len(latency)/2], latency[len(latency)*99/100]
	x.print("%s, %d transactions/s, Kafka with %s: p50 %.1f ms (want ≤ 15), p99 %.1f ms (≤ 60, with that broker setting ≤ 50), longest %.0f ms",
		what, rate, setting, millis(p50), millis(p99), millis(latency[len(latency)-1]))
	x.ReportMetric(millis(p50), "ms-p50")
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// latencies commits rows at that rate, and returns how long each took until it was read
// from the topic, which must hold the first row at some time. commit is called in order.
func (x *bench) latencies(p *pipeline, broker *broker, topic string, rate, transactions int, commit func(ctx context.Context, i int) error) []time.Duration {
	x.Helper()
	ctx, cancel := context.WithCancelCause(x.Context())
	defer cancel(nil)
	limit := time.AfterFunc(benchLimit, func() { cancel(fmt.Errorf("not done after %v", benchLimit)) })
	defer limit.Stop()
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker.addrs...), kgo.ConsumeTopics(topic),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(500*time.Millisecond), kgo.MetadataMinAge(100*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.UnknownTopicRetries(-1), kgo.MetadataMaxAge(time.Second))
	if err != nil {
		x.Fatal(err)
	}
	defer cl.Close()
	seen := map[int32]int64{} // records of each partition
	var failed error          // what the reader met last
	poll := func() int {
		fetches := cl.PollFetches(ctx)
		fetches.EachRecord(func(r *kgo.Record) { seen[r.Partition]++ })
		fetches.EachError(func(_ string, _ int32, err error) { failed = err })
		return fetches.NumRecords()
	}
	for len(seen) == 0 && ctx.Err() == nil {
		poll()
	}

	var count atomic.Int64
	committed := make([]time.Time, transactions)
	writing := make(chan struct{})
	go func() {
		defer close(writing)
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for i := range transactions {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if err := commit(ctx, i); err != nil {
				cancel(fmt.Errorf("insert: %w", err))
				return
			}
			committed[i] = time.Now()
			count.Store(int64(i + 1))
		}
	}()
	defer func() { <-writing }()
	go func() {
		select {
		case <-p.ended:
			cancel(errors.New("headwater ended by itself"))
		case <-ctx.Done():
		}
	}()
	latency := make([]time.Duration, 0, transactions)
	for len(latency) < transactions && ctx.Err() == nil {
		n := poll()
		now := time.Now()
		for range min(n, transactions-len(latency)) {
			// Order across partitions is not the commits' order: the n-th record seen is
			// set against the n-th commit, which makes no difference to the distribution.
			for count.Load() <= int64(len(latency)) && ctx.Err() == nil {
				time.Sleep(20 * time.Microsecond)
			}
			latency = append(latency, max(0, now.Sub(committed[len(latency)])))
		}
	}
	if ctx.Err() != nil {
		x.stuck(p, broker, topic, fmt.Sprintf("%d of %d rows committed, %d read, by partition %v, last error %v: %v", count.Load(), transactions, len(latency), seen, failed, context.Cause(ctx)))
	}
	return latency
}

// stuck fails the benchmark with what database, topic and program say.
func (x *bench) stuck(p *pipeline, broker *broker, topic, where string) {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), 10*time.Second)
	defer cancel()
	database, err := x.state(ctx)
	ends, err1 := broker.ListEndOffsets(ctx, topic)
	readable, err2 := broker.ListCommittedOffsets(ctx, topic)
	producers, err3 := broker.DescribeProducers(ctx, kadm.TopicsSet{topic: nil})
	state := fmt.Sprintf("database %s\nends %v\nreadable up to %v\nproducers %v", database, ends, readable, producers)
	if err := errors.Join(err, err1, err2, err3); err != nil {
		state += "\n" + err.Error()
	}
	p.stuck("%s\n%s", where, state)
}

// BenchmarkResume measures from the start of a stopped pipeline's process to its first
// record that a reader can see.
func BenchmarkResume(b *testing.B) {
	const rows = 1000
	x := newBench(b, rows)
	for i, broker := range x.brokers() {
		slot := fmt.Sprintf("bench_w%d", i)
		x.copySlot(slot)
		name := strings.ReplaceAll(slot, "_", "-")
		x.resume("resume", x.pipeline(name, "never", broker.addrs, ""), broker, name+".public.load", rows, func(round int) { x.sql(benchInsert(1_000_000*(round+1)+i, 1)) })
	}
}

// resume measures and prints. The log holds so many rows that the pipeline has not seen
// yet; insert adds one.
func (x *bench) resume(what string, p *pipeline, broker *broker, topic string, rows int64, insert func(round int)) {
	x.Helper()
	visible := func() int64 { return broker.visible(x.Context(), topic) }
	var took []time.Duration
	seen := int64(0)
	for round := range benchRounds + 1 {
		insert(round)
		u := x.run(p, "run", func() bool { return visible() > max(seen, rows) })
		time.Sleep(200 * time.Millisecond)
		seen = visible()
		if round > 0 {
			took = append(took, u.wall)
		}
	}
	x.print("%s, broker %-10s start → first record %.2f s (want ≤ 1)", what, broker.name, median(took).Seconds())
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
