package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/headwaterdb/headwater/integration/servers"
)

// failoverVersions are the servers of these tests, a source and its replica.
var failoverVersions = []struct {
	name  string
	start func(*testing.T) *servers.MySQL
}{
	{"MySQL-9", func(t *testing.T) *servers.MySQL {
		return servers.Own(t).MySQLWith(servers.MySQLConfig{Version: "9", Durable: true})
	}},
	{"MariaDB-11", func(t *testing.T) *servers.MySQL {
		return servers.Own(t).MariaDBWith(servers.MySQLConfig{Version: "11", Durable: true})
	}},
}

// A failover is a pipeline on a source that has a replica.
type failover struct {
	*workload
	db              *workMySQL
	source, replica *servers.MySQL
	pipeline        *pipeline
	name            string
	kafka           *servers.Kafka
	registry        *servers.Registry
}

func newFailover(t *testing.T, name string, start func(*testing.T) *servers.MySQL) *failover {
	t.Helper()
	f := &failover{source: start(t), replica: start(t), name: name, kafka: servers.Shared(t).Kafka(), registry: servers.Shared(t).Registry()}
	f.db = &workMySQL{db: f.source}
	f.workload = &workload{subject: f.db, orders: 5000}
	if err := errors.Join(f.create(t.Context()), f.preload(t.Context()), f.replica.Follow(t.Context(), f.source)); err != nil {
		t.Fatal(err)
	}
	f.pipeline = newPipeline(t, f.configuration())
	f.pipeline.start("run")
	f.began(t, f.pipeline)
	return f
}

func (f *failover) configuration() string {
	source, include := f.config()
	return fmt.Sprintf(`
name: %[1]s
source:
  %[2]s
tables: {include: [%[3]q]}
snapshot: {mode: initial, chunk_bytes: 262144}
topics: {prefix: %[1]s, partitions: 3, replication: 1}
registry: {url: %[4]q}
kafka: {brokers: [%[5]q]}
`, f.name, source, include, f.registry.URL, f.kafka.Bootstrap[0])
}

// over kills the source, promotes the replica, and points the pipeline to it, which does
// not run meanwhile.
func (f *failover) over(t *testing.T) {
	t.Helper()
	if err := errors.Join(f.source.Kill(), f.replica.Promote(t.Context())); err != nil {
		t.Fatal(err)
	}
	f.db.db = f.replica
	if err := os.WriteFile(f.pipeline.config, []byte(f.configuration()), 0o600); err != nil {
		t.Fatal(err)
	}
	f.pipeline.start("run")
}

// kill kills the pipeline.
func (f *failover) kill(t *testing.T) {
	t.Helper()
	if !f.pipeline.kill() {
		t.Fatalf("the program ended by itself:\n%s", f.pipeline.tail(30))
	}
}

// workFor runs the workload for a time.
func (f *failover) workFor(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := f.work(ctx, 4); err != nil {
		t.Fatalf("workload: %v", err)
	}
}

func TestFailover_LosesAndDoublesNothing(t *testing.T) {
	for _, v := range failoverVersions {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			f := newFailover(t, "failover-"+strings.ToLower(v.name), v.start)
			for range 4 {
				f.workFor(t, time.Second)
				f.kill(t)
				f.pipeline.start("run")
			}
			f.workFor(t, time.Second)
			f.kill(t)
			f.workFor(t, time.Second) // so that the replica has to go on where the source was
			if err := f.replica.CatchUp(ctx, f.source); err != nil {
				t.Fatal(err)
			}
			f.over(t)
			f.workFor(t, 3*time.Second)
			end := f.next()
			if err := f.alone(ctx, fmt.Sprintf("INSERT INTO keyless (ver, item) VALUES (%d, 'end')", end)); err != nil {
				t.Fatal(err)
			}
			f.caughtUp(t, f.pipeline)
			f.pipeline.stop()

			f.db.plain = f.source.Flavor == mysql.MariaDBFlavor // nothing turned compression on
			history, err1 := f.history(ctx, end)
			held, err2 := f.tables(ctx)
			records, err3 := newTopics(t, f.kafka.Bootstrap, f.registry.URL).read(ctx, f.name)
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Fatal(err)
			}
			for _, problem := range check(history, records, held, attempts(t, f.pipeline)) {
				t.Error(problem)
			}
			if len(history) < 1000 || len(records) < len(history) {
				t.Errorf("%d changes in the log and %d records are too few to prove anything", len(history), len(records))
			}
			t.Logf("%d transactions, %d changes in the log, %d records in the topics", f.transactions.Load(), len(history), len(records))
		})
	}
}

// A replica that is promoted without what we have published cannot go on where its source
// was: what it does from now on is another history.
func TestFailover_StopsAtAServerThatLacksWhatWasPublished(t *testing.T) {
	for _, v := range failoverVersions {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			f := newFailover(t, "lacking-"+strings.ToLower(v.name), v.start)
			if err := f.replica.CatchUp(ctx, f.source); err != nil {
				t.Fatal(err)
			}
			stop := map[string]string{mysql.MySQLFlavor: "STOP REPLICA IO_THREAD", mysql.MariaDBFlavor: "STOP SLAVE IO_THREAD"}
			if err := (&workMySQL{db: f.replica}).do(ctx, "", stop[f.source.Flavor]); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := f.alone(ctx, fmt.Sprintf("INSERT INTO keyless (ver, item) VALUES (%d, 'lacking')", f.next())); err != nil {
					t.Fatal(err)
				}
			}
			f.caughtUp(t, f.pipeline)
			lacking, err := f.lacking(ctx)
			if err != nil {
				t.Fatal(err)
			}
			f.kill(t)
			f.over(t)
			select {
			case <-f.pipeline.ended:
			case <-time.After(4 * time.Minute):
				f.pipeline.stuck("it goes on at a server that lacks transactions")
			}
			var exit *exec.ExitError
			if err := f.pipeline.end(0); !errors.As(err, &exit) || exit.ExitCode() != 4 {
				t.Errorf("it ended with %v, want exit code 4", err)
			}
			if !strings.Contains(f.pipeline.tail(1), lacking) {
				t.Errorf("it does not name the transactions %s:\n%s", lacking, f.pipeline.tail(3))
			}
		})
	}
}

// lacking is what the source has and the replica lacks, as MySQL's set or as the last one
// of MariaDB's domain.
func (f *failover) lacking(ctx context.Context) (string, error) {
	all, err := f.db.executed(ctx)
	if err != nil || f.replica.Flavor == mysql.MariaDBFlavor {
		return fmt.Sprint(all), err
	}
	conn, err := f.replica.Connect(ctx, "")
	if err != nil {
		return "", err
	}
	defer conn.Quit()
	r, err := conn.Execute(fmt.Sprintf("SELECT GTID_SUBTRACT('%s', @@global.gtid_executed)", all))
	if err != nil {
		return "", err
	}
	text, err := r.GetString(0, 0)
	if err == nil && text == "" {
		err = errors.New("the replica lacks nothing")
	}
	return text, err
}
