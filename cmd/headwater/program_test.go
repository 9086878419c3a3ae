package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sr/srfake"

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

// marked stands in every password and token of these tests. No output may hold it.
const marked = "s3cr3t-marked"

// A command is a run of the built program.
type command struct {
	t   *testing.T
	cmd *exec.Cmd

	mu    sync.Mutex // guards out and what waits on it
	out   bytes.Buffer
	ended chan struct{}
	err   error
}

// start starts the program. It is killed when the test ends, and its output must not hold
// a secret.
func start(t *testing.T, env []string, args ...string) *command {
	t.Helper()
	cmd, err := programtest.Command(args...)
	if err != nil {
		t.Fatal(err)
	}
	c := &command{t: t, cmd: cmd, ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stdout, c.cmd.Stderr = c, c
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process, which the cleanup below ends
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // it may have ended
		<-c.ended
		if strings.Contains(c.output(), marked) {
			t.Errorf("headwater %s printed a secret:\n%s", strings.Join(args, " "), c.output())
		}
		if t.Failed() {
			t.Logf("headwater %s printed:\n%s", strings.Join(args, " "), c.output())
		}
	})
	return c
}

// Write collects the output.
func (c *command) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(b)
}

func (c *command) output() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.String()
}

// says waits for a text in the output.
func (c *command) says(text string) {
	c.t.Helper()
	await(c.t, "the output "+text, func() bool { return strings.Contains(c.output(), text) })
}

func (c *command) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// exits waits for the end and wants the code.
func (c *command) exits(code int) {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(3 * time.Minute):
		c.t.Fatalf("it has not ended; want exit code %d", code)
	}
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.t.Fatalf("exit code %d (%v), want %d", got, c.err, code)
	}
}

// await waits until a condition holds, for as long as anything may take on a busy machine.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// write writes a configuration file.
func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "shop.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// closedPort is a port on which nobody listens.
func closedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A rig is a Kafka and a registry in this process, which want a login.
type rig struct {
	kafka    *kfake.Cluster
	registry *srfake.Registry
	config   string // but for the database's address
	listen   string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "headwater", marked))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	registry := srfake.New(srfake.WithAuth("Bearer " + marked))
	t.Cleanup(registry.Close)
	r := &rig{kafka: kafka, registry: registry, listen: fmt.Sprintf("127.0.0.1:%d", closedPort(t))}
	r.config = fmt.Sprintf(`
name: shop
source:
  postgres: {url: %%q, password: "${env:DATABASE_PASSWORD}"}
tables: {include: ["public.*"]}
topics: {prefix: shop, partitions: 2, replication: 1}
registry: {url: %q, token: "${env:REGISTRY_TOKEN}"}
kafka:
  brokers: [%q]
  checkpoint_replication: 1
  sasl: {mechanism: PLAIN, username: headwater, password: "${env:KAFKA_PASSWORD}"}
publish: {idle_interval: 500ms}
http: {listen: %q}
`, registry.URL(), kafka.ListenAddrs()[0], r.listen)
	return r
}

// refuseLogins makes Kafka answer every password as brokers answer a wrong one.
func (r *rig) refuseLogins() *rig {
	r.kafka.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		r.kafka.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode, resp.ErrorMessage = kerr.SaslAuthenticationFailed.Code, kmsg.StringPtr("Authentication failed")
		return resp, nil, true
	})
	return r
}

// file writes the configuration for a database.
func (r *rig) file(t *testing.T, url string) string {
	t.Helper()
	return write(t, fmt.Sprintf(r.config, url))
}

var secrets = []string{"DATABASE_PASSWORD=" + marked, "REGISTRY_TOKEN=" + marked, "KAFKA_PASSWORD=" + marked}

// get asks the status page, and wants no secret.
func (r *rig) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + r.listen + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	if strings.Contains(string(b), marked) {
		t.Errorf("%s shows a secret:\n%s", path, b)
	}
	return resp.StatusCode, string(b)
}

// records asks the running program how many it has published.
func (r *rig) records(t *testing.T) int {
	t.Helper()
	var now report
	if code, body := r.get(t, "/status"); code != http.StatusOK || json.Unmarshal([]byte(body), &now) != nil {
		return -1
	}
	return int(now.Records)
}

// database makes a PostgreSQL database, and runs SQL in it by a connection of its own.
func database(t *testing.T) (url string, conn *pgx.Conn, exec func(sql string)) {
	t.Helper()
	url = servers.Shared(t).Postgres("").Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return url, conn, func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// The life of a pipeline, with every command and every page that shows it.
func TestProgram_CarriesRowsAndShowsWhereItStands(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	url, _, exec := database(t)
	exec("CREATE TABLE orders (id int PRIMARY KEY, item text NOT NULL, amount numeric(10,2))")
	exec("INSERT INTO orders SELECT n, 'item ' || n, n + 0.5 FROM generate_series(1, 100) n")
	exec("ALTER TABLE orders REPLICA IDENTITY FULL")
	file := r.file(t, url)

	show := start(t, secrets, "checkpoint", "show", "--config", file)
	show.exits(exitOK)
	show.says("shop has no checkpoint yet")
	check := start(t, secrets, "check", "--config", file)
	check.exits(exitOK)
	for _, want := range []string{file + ": ok", "database: ok", "kafka: warning", "registry: ", "ready: "} {
		check.says(want)
	}

	start(t, secrets, "snapshot", "--config", file).exits(exitOK)
	show = start(t, secrets, "checkpoint", "show", "--config", file)
	show.exits(exitOK)
	for _, want := range []string{"pipeline   shop", "number ", " ago", "100 records", `"end_lsn": "`, `note       s/"public"."orders" = {`} {
		show.says(want)
	}

	notices := listenNotices(t)
	run := start(t, append(secrets, "NOTIFY_SOCKET="+notices.path, "WATCHDOG_USEC=300000"), "run", "--config", file)
	notices.says("READY=1")
	notices.says("WATCHDOG=1")
	notices.says("STATUS=")
	all := start(t, secrets, "tail", "public.orders", "--config", file, "--from-beginning", "--json")
	tail := start(t, secrets, "tail", "shop.public.*", "nothing.like.it", "--config", file)
	tail.says("no topic matches nothing.like.it yet")
	exec("INSERT INTO orders VALUES (101, 'teapot', 12.50)")
	exec("UPDATE orders SET amount = 13 WHERE id = 101")
	exec("DELETE FROM orders WHERE id = 101")
	await(t, "104 records", func() bool { return r.records(t) == 104 })
	for _, want := range []string{
		"c  id=101  amount=12.50 id=101 item=teapot  ", "u  id=101  amount=13.00  ", "d  id=101", "†  id=101", " ms\n",
	} {
		tail.says(want)
	}
	all.says(`"item":"item 100"`)
	all.says(`"amount":"12.50"`)
	for _, c := range []*command{all, tail} {
		c.signal(syscall.SIGINT)
		c.exits(exitOK)
	}

	if code, body := r.get(t, "/healthz"); code != http.StatusOK || !strings.HasPrefix(body, "ok: ") {
		t.Errorf("/healthz: %d %s", code, body)
	}
	_, body := r.get(t, "/metrics")
	for _, want := range []string{
		`headwater_records_committed_total{pipeline="shop"} 4`, `headwater_restarts_total{pipeline="shop"} 0`,
		`headwater_registry_waiting{pipeline="shop"} 0`, "headwater_lag_seconds{", "headwater_postgres_rows_total{", "go_goroutines ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}

	// A second instance with its own status page takes the pipeline over.
	second := write(t, strings.Replace(fmt.Sprintf(r.config, url), r.listen, "off", 1))
	heir := start(t, secrets, "run", "--config", second)
	run.exits(exitSuperseded)
	run.says("another instance has taken over this pipeline")
	notices.says("STOPPING=1")
	heir.signal(syscall.SIGTERM)
	heir.exits(exitOK)
	heir.says("stopping at the next commit boundary")
	if lines := strings.Split(strings.TrimSpace(heir.output()), "\n"); !strings.Contains(lines[len(lines)-1], "msg=stopped pipeline=shop") {
		t.Errorf("its last line: %s", lines[len(lines)-1])
	}
}

// The checkpoint is changed on purpose, under a running pipeline and after a gap.
func TestProgram_CheckpointsAreChangedOnPurpose(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config = strings.Replace(r.config, "name: shop", "name: amended", 1) // slots have one name per server
	url, conn, exec := database(t)
	exec("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1), (2); CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")
	file := r.file(t, url)
	command := func(code int, says string, args ...string) {
		t.Helper()
		c := start(t, secrets, append(args, "--config", file)...)
		c.exits(code)
		c.says(says)
	}

	command(exitError, "amended has no checkpoint yet: its first start begins anew", "checkpoint", "reread", "public.orders")
	run := start(t, secrets, "run", "--config", file)
	await(t, "3 records", func() bool { return r.records(t) == 3 })
	command(exitUsage, "no table that was read is called public.order; there are public.notes, public.orders", "checkpoint", "reread", "public.order")
	command(exitOK, "amended: public.orders will be read again", "checkpoint", "reread", "public.orders")
	await(t, "the rows of orders again", func() bool { return r.records(t) == 5 })
	command(exitOK, "amended has forgotten this, and begins anew", "checkpoint", "reset")
	await(t, "all rows again", func() bool { return r.records(t) == 8 })
	command(exitOK, "\ncheckpoint: ok\n", "check")
	run.signal(syscall.SIGTERM)
	run.exits(exitOK)

	await(t, "the slot to be free", func() (free bool) {
		err := conn.QueryRow(t.Context(), "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'headwater_amended'").Scan(&free)
		return err == nil && free
	})
	exec("SELECT pg_drop_replication_slot('headwater_amended'); INSERT INTO orders VALUES (3)")
	command(exitCheck, "\ncheckpoint: problem: the change log cannot continue from the checkpoint: replication slot", "check")
	command(exitStopped, "remedy: run headwater checkpoint reset, after which the next start reads the tables again", "run")
	command(exitOK, "published  8 records", "checkpoint", "reset")
	command(exitOK, "msg=stopped", "snapshot")
	command(exitOK, "published  12 records", "checkpoint", "show")
	file = write(t, fmt.Sprintf(r.config, url)+"snapshot: {mode: never}\n")
	command(exitUsage, "snapshot.mode is never", "checkpoint", "reread", "public.orders")
}

func TestProgram_OutputThatIsNotWrittenIsAnError(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	cmd, err := programtest.Command("config")
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = full, &said
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != exitError || !strings.Contains(said.String(), "no space left on device") {
		t.Errorf("%v: %s", err, said.String())
	}
}

func TestProgram_SecondSignalLeavesAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	asked, goOn := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(goOn) })
	r.kafka.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		close(asked)
		<-goOn // the commit stays unanswered
		return nil, errors.New("the test is over"), true
	})
	run := start(t, secrets, "run", "--config", r.file(t, "postgres://headwater@127.0.0.1:1/shop?sslmode=disable"))
	<-asked
	run.signal(syscall.SIGTERM)
	run.signal(syscall.SIGINT) // an echo of the first, and another one, since two equal ones may become one
	run.says("a second signal leaves at once")
	time.Sleep(2 * echo)
	select {
	case <-run.ended:
		t.Error("it left in the middle of a commit, on the first signal")
	default:
	}
	run.signal(syscall.SIGTERM)
	run.exits(exitSignal)
}

func TestProgram_WaitsForADatabaseThatIsAwayAndSaysSo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	run := start(t, secrets, "run", "--config", r.file(t, fmt.Sprintf("postgres://headwater@127.0.0.1:%d/shop?sslmode=disable", closedPort(t))))
	run.says("the pipeline starts again")
	run.says("connection refused")
	await(t, "the accident in /status", func() bool {
		_, body := r.get(t, "/status")
		return strings.Contains(body, "last_accident") && strings.Contains(body, "connection refused")
	})
	run.signal(syscall.SIGINT)
	run.exits(exitOK)
}

func TestProgram_WaitsForTheRegistryAndStopsWhenItRefusesAVersion(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config = strings.Replace(r.config, "name: shop", "name: refused", 1) // slots have one name per server
	var refuses atomic.Bool
	r.registry.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		switch {
		case !refuses.Load():
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"error_code":50001,"message":"Error in the backend datastore"}`)
		case req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "-value/versions"):
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"error_code":409,"message":"details: READER_FIELD_MISSING_DEFAULT_VALUE"}`)
		default:
			return false
		}
		return true
	})
	url := servers.Shared(t).Postgres("").Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), "CREATE TABLE orders AS SELECT 1 AS id; ALTER TABLE orders ADD PRIMARY KEY (id)"); err != nil {
		t.Fatal(err)
	}
	run := start(t, secrets, "run", "--config", r.file(t, url))
	run.says("waiting for it")
	await(t, "/healthz to say what is waited for", func() bool {
		code, body := r.get(t, "/healthz")
		return code == http.StatusServiceUnavailable &&
			strings.HasPrefix(body, "waiting for the schema registry at "+r.registry.URL()+": it answers 500") && strings.Count(body, "\n") == 1
	})
	if _, body := r.get(t, "/metrics"); !strings.Contains(body, `headwater_registry_waiting{pipeline="refused"} 1`) {
		t.Error("/metrics does not say that the registry is waited for")
	}
	refuses.Store(true)
	run.exits(exitStopped)
	lines := strings.Split(strings.TrimSpace(run.output()), "\n")
	last := lines[len(lines)-1]
	for _, want := range []string{"headwater: ", "not compatible", "subject shop.public.orders-value", "READER_FIELD_MISSING_DEFAULT_VALUE", "remedy: "} {
		if !strings.Contains(last, want) {
			t.Errorf("the last line does not say %q: %s", want, last)
		}
	}
	show := start(t, secrets, "checkpoint", "show", "--config", r.file(t, url))
	show.exits(exitOK)
	show.says("published  0 records")
}

func TestProgram_ExitCodesAndSentences(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	away := fmt.Sprintf("postgres://headwater@127.0.0.1:%d/shop?sslmode=disable", closedPort(t))
	good := r.file(t, away)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	other := func(from, to string) string {
		t.Helper()
		text := fmt.Sprintf(r.config, away)
		if !strings.Contains(text, from) {
			t.Fatalf("the configuration has no %s", from)
		}
		return write(t, strings.Replace(text, from, to, 1))
	}
	for name, c := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"NoCommand":      {nil, exitOK, []string{"Usage:", "exit-codes"}},
		"Version":        {[]string{"version"}, exitOK, []string{"headwater dev"}},
		"ExitCodes":      {[]string{"help", "exit-codes"}, exitOK, []string{" 75  another instance"}},
		"Reference":      {[]string{"config"}, exitOK, []string{"# key_bytes:"}},
		"UnknownCommand": {[]string{"walk"}, exitUsage, []string{`unknown command "walk"`}},
		"UnknownChild":   {[]string{"checkpoint", "set"}, exitUsage, []string{`unknown command "set" for "headwater checkpoint"`}},
		"UnknownFlag":    {[]string{"run", "--fast"}, exitUsage, []string{"unknown flag: --fast"}},
		"TooMany":        {[]string{"run", "now"}, exitUsage, []string{"now"}},
		"TailOfNothing":  {[]string{"tail", "--config", good}, exitUsage, []string{"requires at least 1 arg"}},
		"RereadNothing":  {[]string{"checkpoint", "reread", "--config", good}, exitUsage, []string{"requires at least 1 arg"}},
		"NoFile":         {[]string{"run", "--config", "/nowhere/shop.yml"}, exitUsage, []string{"/nowhere/shop.yml: no such file"}},
		"Mistakes": {
			[]string{"run", "--config", other("topics: {prefix", "topics: {prefixes")},
			exitUsage,
			[]string{"shop.yml:6: topics.prefixes: unknown key", "topics.prefix: missing"},
		},
		"NoSecret": {
			[]string{"check", "--config", other("env:KAFKA_PASSWORD", "file:/nowhere/password")},
			exitUsage,
			[]string{"shop.yml:11: kafka.sasl.password: ", "/nowhere/password: no such file"},
		},
		"NoCertificate": {
			[]string{"check", "--config", other("registry: {url: \"http:", "registry: {ca_file: /nowhere/ca.pem, url: \"https:")},
			exitUsage,
			[]string{"ca_file: open /nowhere/ca.pem"},
		},
		"CheckOffline": {[]string{"check", "--offline", "--config", good}, exitOK, []string{good + ": ok"}},
		"CheckFinds":   {[]string{"check", "--config", good}, exitCheck, []string{"database: problem: ", "connection refused", "kafka: warning", "not ready: 1 problem, "}},
		"CheckFindsAllAtOnce": {
			[]string{"check", "--config", write(t, strings.NewReplacer(r.kafka.ListenAddrs()[0], "127.0.0.1:1", r.registry.URL(), "http://127.0.0.1:1").
				Replace(fmt.Sprintf(r.config, away))), "--timeout", "5s"},
			exitCheck,
			[]string{"database: problem: ", "kafka: problem: ", "registry: problem: ", "not ready: 3 problems, "},
		},
		"CheckpointAway": {
			[]string{"checkpoint", "show", "--timeout", "1s", "--config", other(r.kafka.ListenAddrs()[0], "127.0.0.1:1")},
			exitError,
			[]string{"read the checkpoint at 127.0.0.1:1"},
		},
		"PortInUse": {
			[]string{"run", "--config", other(r.listen, taken.Addr().String())},
			exitUsage,
			[]string{"http.listen: something else listens on " + taken.Addr().String() + " already; choose another port, or off"},
		},
		"WrongKafkaPassword": {
			[]string{"run", "--config", newRig(t).refuseLogins().file(t, away)},
			exitStopped,
			[]string{"correct sasl.username and sasl.password"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := start(t, secrets, c.args...)
			run.exits(c.code)
			for _, want := range c.want {
				if !strings.Contains(run.output(), want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if strings.Contains(run.output(), "goroutine ") {
				t.Error("it prints a stack")
			}
		})
	}
}

func TestProgram_JSONLogHoldsNothingElse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text := fmt.Sprintf(r.refuseLogins().config, "postgres://headwater@127.0.0.1:1/shop")
	run := start(t, secrets, "run", "--config", write(t, text+"log: {format: json}\n"))
	run.exits(exitStopped)
	lines := strings.Split(strings.TrimSpace(run.output()), "\n")
	var last struct{ Level, Msg, Pipeline, Error string }
	for _, line := range lines {
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Errorf("not JSON: %s", line)
		}
	}
	if last.Level != "ERROR" || last.Msg != "stopped" || last.Pipeline != "shop" || !strings.Contains(last.Error, "remedy: ") {
		t.Errorf("the last line: %+v", last)
	}
}

// A systemd is the receiving side of sd_notify(3).
type systemd struct {
	t    *testing.T
	path string

	mu   sync.Mutex // guards text
	text string
}

func listenNotices(t *testing.T) *systemd {
	t.Helper()
	dir, err := os.MkdirTemp("", "hw") // the path of a socket has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	n := &systemd{t: t, path: filepath.Join(dir, "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			size, err := conn.Read(buf)
			if err != nil {
				return // closed
			}
			n.mu.Lock()
			n.text += string(buf[:size]) + "\n"
			n.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
		os.RemoveAll(dir)
		if strings.Contains(n.text, marked) {
			t.Errorf("systemd is told a secret:\n%s", n.text)
		}
	})
	return n
}

func (n *systemd) says(text string) {
	n.t.Helper()
	await(n.t, "the notice "+text, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return strings.Contains(n.text, text)
	})
}

func TestUnit_IsOneThatSystemdTakes(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("systemd-analyze is missing: install the package systemd")
	}
	unit, err := os.ReadFile("etc/headwater@.service")
	if err != nil {
		t.Fatal(err)
	}
	installed := "ExecStart=/usr/bin/headwater "
	if !bytes.Contains(unit, []byte(installed)) {
		t.Fatalf("no line %q", installed)
	}
	// systemd looks whether the program is there.
	unit = bytes.Replace(unit, []byte(installed), []byte("ExecStart=/bin/true "), 1)
	file := filepath.Join(t.TempDir(), "headwater@shop.service")
	if err := os.WriteFile(file, unit, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", "--recursive-errors=no", file).CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
