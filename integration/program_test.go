package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headwaterdb/headwater/integration/programtest"
	"github.com/headwaterdb/headwater/integration/servers"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := errors.Join(programtest.Remove(), servers.StopShared()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// pipeline runs the built program with one configuration file.
type pipeline struct {
	t      testing.TB
	bin    string
	config string
	mu     sync.Mutex
	out    bytes.Buffer // of all runs
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the program has ended
	err    error         // how it ended; read it after ended
}

func newPipeline(t testing.TB, config string) *pipeline {
	t.Helper()
	bin, err := programtest.Build()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "headwater.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &pipeline{t: t, bin: bin, config: file}
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
		if t.Failed() {
			t.Logf("headwater printed:\n%s", p.tail(60))
		}
	})
	return p
}

// Write collects what the program prints.
func (p *pipeline) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *pipeline) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func (p *pipeline) tail(lines int) string {
	all := strings.Split(strings.TrimSpace(p.output()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// start starts one of the program's commands, such as run.
func (p *pipeline) start(command string) {
	p.t.Helper()
	cmd, err := programtest.Command(command, "--config", p.config)
	if err != nil {
		p.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = p, p
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan struct{})
	p.cmd, p.ended = cmd, ended
	go func() {
		p.err = cmd.Wait()
		close(ended)
	}()
}

// end sends a signal, waits until the program has ended, and returns how it did.
func (p *pipeline) end(sig syscall.Signal) error {
	_ = p.cmd.Process.Signal(sig) // fails only when the program has ended already
	<-p.ended
	p.cmd = nil
	return p.err
}

// kill ends the program by SIGKILL and reports whether it had still been running.
func (p *pipeline) kill() bool {
	var exit *exec.ExitError
	return errors.As(p.end(syscall.SIGKILL), &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// stop ends the program by SIGTERM and wants exit code 0.
func (p *pipeline) stop() {
	p.t.Helper()
	if err := p.end(syscall.SIGTERM); err != nil {
		p.t.Errorf("after SIGTERM: %v\n%s", err, p.tail(20))
	}
}

// stuck fails the test with what the program printed last, its checkpoint and what each
// of its goroutines is doing.
func (p *pipeline) stuck(format string, args ...any) {
	p.t.Helper()
	printed := p.tail(40)
	cp, err := p.checkpoint()
	if err != nil {
		cp += err.Error()
	}
	before := len(p.output())
	end := p.end(syscall.SIGQUIT) // the runtime prints every goroutine
	p.t.Fatalf("%s\nheadwater printed:\n%s\ncheckpoint:\n%s\n%v:\n%s", fmt.Sprintf(format, args...), printed, cp, end, p.output()[before:])
}

// checkpoint is what headwater prints of the last committed checkpoint.
func (p *pipeline) checkpoint() (string, error) {
	out, err := exec.Command(p.bin, "checkpoint", "show", "--config", p.config).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("checkpoint show: %w\n%s", err, out)
	}
	return string(out), nil
}

var positionNote = regexp.MustCompile(`(?ms)^position +(\{.*?^ {11}\})$`)

// position reads the checkpoint's position into v. Without one it leaves v as it is.
func (p *pipeline) position(v any) error {
	text, err := p.checkpoint()
	if err != nil {
		return err
	}
	m := positionNote.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	return json.Unmarshal([]byte(m[1]), v)
}

func TestProgram_LosesAndDoublesNothingUnderSIGKILL(t *testing.T) {
	for _, c := range []struct {
		name    string
		subject func(*testing.T) subject
		orders  int
		pause   time.Duration // at most, between two kills
		every   int           // the server is killed with every so many kills of the program
	}{
		{"PostgreSQL-15", func(t *testing.T) subject {
			return &workPostgres{db: servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15", Durable: true})}
		}, 30_000, 2 * time.Second, 10},
		{"MySQL-9", func(t *testing.T) subject {
			return &workMySQL{db: servers.Own(t).MySQLWith(servers.MySQLConfig{Version: "9", Durable: true})}
		}, 20_000, 1500 * time.Millisecond, 1},
		{"MySQL-8.0", func(t *testing.T) subject {
			return &workMySQL{db: servers.Own(t).MySQLWith(servers.MySQLConfig{Version: "8.0", Durable: true})}
		}, 10_000, time.Second, 1},
		{"MariaDB-11", func(t *testing.T) subject {
			return &workMySQL{db: servers.Own(t).MariaDBWith(servers.MySQLConfig{Version: "11", Durable: true})}
		}, 10_000, time.Second, 1},
		{"MariaDB-10.11", func(t *testing.T) subject {
			return &workMySQL{db: servers.Own(t).MariaDBWith(servers.MySQLConfig{Version: "10.11", Durable: true})}
		}, 10_000, time.Second, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			killProgram(t, c.subject(t), "kills-"+strings.ToLower(strings.ReplaceAll(c.name, ".", "-")), c.orders, c.pause, c.every)
		})
	}
}

// killProgram runs the workload while the program is killed again and again, and the
// database as often or now and then, and compares what the topics hold in the end with the log and the
// tables.
func killProgram(t *testing.T, db subject, name string, orders int, pause time.Duration, every int) {
	const kills, writers = 32, 4
	ctx := t.Context()
	kafka := servers.Shared(t).Kafka()
	registry := servers.Shared(t).Registry()
	w := &workload{subject: db, orders: orders}
	if err := w.create(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.preload(ctx); err != nil {
		t.Fatal(err)
	}

	source, include := w.config()
	p := newPipeline(t, fmt.Sprintf(`
name: %[1]s
source:
  %[2]s
tables: {include: [%[3]q]}
snapshot: {mode: initial, chunk_bytes: 262144}
topics: {prefix: %[1]s, partitions: 3, replication: 1}
registry: {url: %[4]q}
kafka: {brokers: [%[5]q]}
`, name, source, include, registry.URL, kafka.Bootstrap[0]))
	p.start("run")
	w.began(t, p)

	workCtx, stopWork := context.WithCancel(ctx)
	worked := make(chan error, 1)
	go func() { worked <- w.work(workCtx, writers) }()
	defer stopWork()
	rnd := rand.New(rand.NewPCG(1, 2))
	crashes := 0
	for n := range kills {
		time.Sleep(100*time.Millisecond + time.Duration(rnd.Int64N(int64(pause-100*time.Millisecond))))
		if n%every == every-1 {
			crashes++
			if err := w.crash(ctx); err != nil {
				t.Fatal(err)
			}
		}
		// A server that is killed forgets it.
		if err := w.vary(ctx, n); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(pause) / 2)))
		switch n {
		case kills / 2:
			for _, ddl := range []string{"ALTER TABLE orders ADD COLUMN extra int DEFAULT 7", "ALTER TABLE pairs DROP COLUMN amount"} {
				if err := w.alone(ctx, ddl); err != nil {
					t.Fatalf("%s: %v", ddl, err)
				}
			}
		case kills * 5 / 8: // however slow the machine is, these follow the log alone
			waitForTables(t, p)
		case kills * 3 / 4: // the tables are read again, while the log goes on
			w.readAgain(t, p)
		}
		if !p.kill() {
			t.Fatalf("the program ended by itself:\n%s", p.tail(30))
		}
		p.start("run")
	}
	waitForTables(t, p)
	time.Sleep(pause) // a part of the load without a kill
	history, held := w.finish(ctx, t, p, stopWork, worked)
	records, err := newTopics(t, kafka.Bootstrap, registry.URL).read(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	problems := check(history, records, held, attempts(t, p))
	for i, s := range problems {
		if i == 20 && len(problems) > 25 {
			t.Errorf("… %d more", len(problems)-i)
			break
		}
		t.Error(s)
	}
	rows := 0
	for _, m := range held {
		rows += len(m)
	}
	t.Logf("%d kills, %d crashes of the server, %d transactions, %d changes in the log, %d rows in the tables, %d records in the topics",
		kills, crashes, w.transactions.Load(), len(history), rows, len(records))
	if len(history) < 1000 || len(records) < len(history) {
		t.Errorf("too little happened to prove anything")
	}
}

var tableNote = regexp.MustCompile(`(?m)^note +s/"\w+"\."(\w+)" .*"state":"(\w+)","attempt":(\d+)`)

// attempts returns how often each table was read from its beginning, as the checkpoint
// says; those that are not read yet are left out.
func attempts(t *testing.T, p *pipeline) map[string]int {
	t.Helper()
	text, err := p.checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, m := range tableNote.FindAllStringSubmatch(text, -1) {
		if m[2] == "done" {
			found[m[1]], _ = strconv.Atoi(m[3])
		}
	}
	return found
}

// waitForTables waits until the program has read every table.
func waitForTables(t *testing.T, p *pipeline) {
	t.Helper()
	waitFor(t, p, 10*time.Minute, "the tables to be read", func() (bool, error) {
		return len(attempts(t, p)) == len(keyNames), nil
	})
}

// finish ends the load, waits for the program to have published it, and stops that. It
// returns what the log and the tables say.
func (w *workload) finish(ctx context.Context, t *testing.T, p *pipeline, stopWork func(), worked <-chan error) (history []change, held state) {
	t.Helper()
	stopWork()
	if err := <-worked; err != nil {
		t.Fatalf("workload: %v", err)
	}
	end := w.next()
	if err := w.alone(ctx, fmt.Sprintf("INSERT INTO keyless (ver, item) VALUES (%d, 'end')", end)); err != nil {
		t.Fatal(err)
	}
	w.caughtUp(t, p)
	p.stop()
	history, err := w.history(ctx, end)
	if err != nil {
		t.Fatal(err)
	}
	if held, err = w.tables(ctx); err != nil {
		t.Fatal(err)
	}
	return history, held
}

// readAgain asks the running program to read the tables again. Those without a key are
// left out: their rows would come twice, which the check counts as a defect.
func (w *workload) readAgain(t *testing.T, p *pipeline) {
	t.Helper()
	args := []string{"checkpoint", "reread", "--config", p.config}
	for table, key := range keyNames {
		if key != nil {
			args = append(args, "*."+table)
		}
	}
	before := attempts(t, p)
	headwater(t, 0, args...)
	waitFor(t, p, 4*time.Minute, "the tables to be read again", func() (bool, error) {
		now := attempts(t, p)
		for table, key := range keyNames {
			if key != nil && now[table] <= before[table] && now[table] != 0 {
				return false, nil // neither read again nor being read
			}
		}
		return true, nil
	})
}

// waitForCatchUp waits until the program has published everything in the log of now.
func waitForCatchUp(t *testing.T, conn *pgx.Conn, p *pipeline) {
	t.Helper()
	var end string
	if err := conn.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&end); err != nil {
		t.Fatal(err)
	}
	waitFor(t, p, 10*time.Minute, "everything before "+end+" to be acknowledged", func() (ok bool, err error) {
		err = conn.QueryRow(t.Context(), "SELECT coalesce(bool_and(confirmed_flush_lsn >= $1::pg_lsn), false) FROM pg_replication_slots WHERE plugin = 'pgoutput'", end).Scan(&ok)
		return ok, err
	})
}

// waitFor waits until done says so. The limit is there to find a program that hangs.
func waitFor(t *testing.T, p *pipeline, limit time.Duration, what string, done func() (bool, error)) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; {
		ok, err := done()
		if err != nil {
			t.Fatalf("wait for %s: %v", what, err)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			p.stuck("waited %v for %s", limit, what)
		}
		select {
		case <-p.ended:
			t.Fatalf("wait for %s: the program ended by itself: %v\n%s", what, p.err, p.tail(40))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
