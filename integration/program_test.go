package integration

import (
	"bytes"
	"context"
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
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headwaterdb/headwater/integration/servers"
)

// program builds headwater once for all tests.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "headwater-test-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "headwater")
	out, err := exec.Command("go", "build", "-o", bin, "../cmd/headwater").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(bin))
	}
	if err := servers.StopShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// pipeline runs the built program with one configuration file.
type pipeline struct {
	t      *testing.T
	bin    string
	config string
	mu     sync.Mutex
	out    bytes.Buffer // of all runs
	cmd    *exec.Cmd
}

func newPipeline(t *testing.T, config string) *pipeline {
	t.Helper()
	bin, err := program()
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

func (p *pipeline) start() {
	p.t.Helper()
	p.cmd = exec.Command(p.bin, "run", "--config", p.config)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// kill ends the program by SIGKILL and reports whether it had still been running.
func (p *pipeline) kill() bool {
	p.t.Helper()
	_ = p.cmd.Process.Kill()
	err := p.cmd.Wait()
	p.cmd = nil
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// stop ends the program by SIGTERM and wants exit code 0.
func (p *pipeline) stop() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	err := p.cmd.Wait()
	p.cmd = nil
	if err != nil {
		p.t.Errorf("after SIGTERM: %v\n%s", err, p.tail(20))
	}
}

func TestProgram_LosesAndDoublesNothingUnderSIGKILL(t *testing.T) {
	const kills, writers, orders = 32, 4, 30_000
	ctx := t.Context()
	db := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15"})
	kafka := servers.Shared(t).Kafka()
	registry := servers.Shared(t).Registry()

	url := db.URL("postgres")
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, tables); err != nil {
		t.Fatal(err)
	}
	if err := preload(ctx, conn, orders); err != nil {
		t.Fatal(err)
	}

	p := newPipeline(t, fmt.Sprintf(`
name: kills
source:
  postgres: {url: %q}
tables: {include: ["public.*"]}
snapshot: {mode: initial, chunk_bytes: 262144}
topics: {prefix: kills, partitions: 3, replication: 1}
registry: {url: %q}
kafka: {brokers: [%q]}
`, url, registry.URL, kafka.Bootstrap[0]))
	p.start()
	waitForSlot(t, conn, p)
	if _, err := conn.Exec(ctx, "SELECT pg_create_logical_replication_slot('history', 'test_decoding')"); err != nil {
		t.Fatal(err)
	}

	workCtx, stopWork := context.WithCancel(ctx)
	defer stopWork()
	transactions := 0
	worked := make(chan error, 1)
	go func() {
		var err error
		transactions, err = work(workCtx, url, writers, orders)
		worked <- err
	}()
	rnd := rand.New(rand.NewPCG(1, 2))
	hit := 0
	for n := 0; hit < kills; n++ {
		time.Sleep(time.Duration(100+rnd.IntN(1900)) * time.Millisecond)
		if n == kills/2 {
			for _, ddl := range []string{"ALTER TABLE orders ADD COLUMN extra int DEFAULT 7", "ALTER TABLE pairs DROP COLUMN amount"} {
				var pg *pgconn.PgError
				_, err := conn.Exec(ctx, ddl)
				for errors.As(err, &pg) && pg.Code == "40P01" { // a deadlock with the workload
					_, err = conn.Exec(ctx, ddl)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		if !p.kill() {
			t.Fatalf("the program ended by itself:\n%s", p.tail(30))
		}
		hit++
		p.start()
	}
	time.Sleep(3 * time.Second) // a part of the load without a kill
	stopWork()
	if err := <-worked; err != nil {
		t.Fatalf("workload: %v", err)
	}
	waitForCatchUp(t, conn, p)
	p.stop()

	history, err := readHistory(ctx, conn, "history")
	if err != nil {
		t.Fatal(err)
	}
	held, err := readTables(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	records, err := newTopics(t, kafka.Bootstrap, registry.URL).read(ctx, "kills")
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
	t.Logf("%d kills, %d transactions, %d changes in the log, %d rows in the tables, %d records in the topics", hit, transactions, len(history), rows, len(records))
	if len(history) < 1000 || len(records) < len(history) {
		t.Errorf("too little happened to prove anything")
	}
}

var attemptNote = regexp.MustCompile(`(?m)^note +s/"public"\."(\w+)" .*"attempt":(\d+)`)

// attempts returns how often each table was read from its beginning, as the checkpoint
// says.
func attempts(t *testing.T, p *pipeline) map[string]int {
	t.Helper()
	out, err := exec.Command(p.bin, "checkpoint", "show", "--config", p.config).CombinedOutput()
	if err != nil {
		t.Fatalf("checkpoint show: %v\n%s", err, out)
	}
	found := map[string]int{}
	for _, m := range attemptNote.FindAllStringSubmatch(string(out), -1) {
		found[m[1]], _ = strconv.Atoi(m[2])
	}
	if len(found) != len(keyNames) {
		t.Fatalf("the checkpoint has notes of %d tables, want %d:\n%s", len(found), len(keyNames), out)
	}
	return found
}

// waitForSlot waits until the program has made its replication slot and reads from it.
func waitForSlot(t *testing.T, conn *pgx.Conn, p *pipeline) {
	t.Helper()
	waitFor(t, p, 4*time.Minute, "a replication slot", func() (bool, error) {
		var n int
		err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_replication_slots WHERE plugin = 'pgoutput' AND active").Scan(&n)
		return n > 0, err
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

func waitFor(t *testing.T, p *pipeline, limit time.Duration, what string, done func() (bool, error)) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		ok, err := done()
		if err != nil {
			t.Fatalf("wait for %s: %v", what, err)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s\n%s", limit, what, p.tail(40))
		}
	}
}
