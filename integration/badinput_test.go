package integration

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/headwaterdb/headwater/integration/servers"
)

// badPassword stands in every login of these tests. Nothing may show it.
const badPassword = "s3cr3t-marked"

// A lab is a set of servers that refuse things.
type lab struct {
	pg       *servers.Postgres // wants the password of the user "pw" from any address
	kafka    *servers.Kafka    // with SASL, TLS and ACLs
	registry *servers.Registry
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{
		pg:       servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15"}),
		kafka:    servers.Own(t).KafkaWith(servers.KafkaConfig{Auth: true}),
		registry: servers.Shared(t).Registry(),
	}
	hba := filepath.Join(l.pg.Dir, "pg_hba.conf")
	rest, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	wanted := "host all pw 127.0.0.1/32 scram-sha-256\nhost replication pw 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(hba, append([]byte(wanted), rest...), 0o600); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, l.pg.URL("postgres"))
	mustExec(t, conn, "CREATE USER pw SUPERUSER PASSWORD 'another'; SELECT pg_reload_conf()")
	mustExec(t, conn, "CREATE USER bare; CREATE USER nosy REPLICATION")
	return l
}

// database makes a database with a table of one row, and returns its URL.
func (l *lab) database(t *testing.T, name, options string) string {
	t.Helper()
	mustExec(t, connect(t, l.pg.URL("postgres")), "CREATE DATABASE "+name+" "+options)
	mustExec(t, connect(t, l.pg.URL(name)), "CREATE TABLE orders (id int PRIMARY KEY, item text); INSERT INTO orders VALUES (1, 'tea')")
	return l.pg.URL(name)
}

// grantAllButRead grants what a pipeline needs, but for reading its checkpoint.
func (l *lab) grantAllButRead(t *testing.T, user, pipeline string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(l.kafka.Bootstrap...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	rights := func() *kadm.ACLBuilder {
		return kadm.NewACLs().Allow(user).AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
	}
	for _, r := range []*kadm.ACLBuilder{
		rights().TransactionalIDs("headwater."+pipeline).Operations(kadm.OpWrite, kadm.OpDescribe),
		rights().Topics("headwater."+pipeline+".checkpoint").Operations(kadm.OpCreate, kadm.OpDescribe, kadm.OpWrite),
	} {
		results, err := kadm.NewClient(cl).CreateACLs(t.Context(), r)
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A badInput is one thing that is wrong. Fields that are empty stand for what is right.
type badInput struct {
	name     string
	url      string // of a PostgreSQL
	setup    string // SQL, there
	later    string // SQL, there, once the pipeline reads the log
	source   string // the section's content, for another database
	then     func() // once the pipeline has read the one row of a table there
	tables   string // the section's content
	format   string // the section's content
	registry string // the section's content
	kafka    string // the section's content

	mended string // the section kafka with which it goes on, and loses nothing

	exits bool     // with code 4; else it waits until it is told to stop
	says  []string // in the last line, or in the log of one that waits
	check string   // what check says of it; "" when it cannot know
}

func TestBadInput_IsSaidInOneSentenceWithTheRemedy(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	replica := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15", Settings: map[string]string{"wal_level": "replica"}})
	as := func(url, user string) string { return strings.Replace(url, "postgres@", user+"@", 1) }
	answer := func(status int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"error_code": %d, "message": "no"}`, status)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	unknown := httptest.NewUnstartedServer(http.NotFoundHandler())
	unknown.Config.ErrorLog = log.New(io.Discard, "", 0) // it is told that its certificate is bad
	unknown.StartTLS()
	t.Cleanup(unknown.Close)
	otherCA := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(otherCA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: unknown.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	login := fmt.Sprintf("username: u, password: %q", badPassword)
	sasl := func(user, password string) string {
		return fmt.Sprintf("brokers: [%q], sasl: {mechanism: PLAIN, username: %s, password: %q}", l.kafka.SASL[0], user, password)
	}

	l.grantAllButRead(t, "User:bob", "kafkawithoutread")
	each := []badInput{
		{
			name: "WrongPassword", url: as(l.database(t, "wrongpassword", ""), "pw:"+badPassword), exits: true,
			says: []string{`refuses the password of user "pw"`, "remedy: "}, check: `database: problem: PostgreSQL at `,
		},
		{
			name: "NoDatabase", url: l.pg.URL("nosuch"), exits: true,
			says: []string{`has no database "nosuch"`, "remedy: "}, check: `has no database "nosuch"`,
		},
		{
			name: "NoLogicalLog", url: replica.URL("postgres"), setup: "CREATE TABLE orders (id int PRIMARY KEY)", exits: true,
			says: []string{"remedy: ALTER SYSTEM SET wal_level = logical; then restart the server"}, check: "database: problem: wal_level is replica",
		},
		{
			name: "NoRightToTheLog", url: as(l.database(t, "norighttothelog", ""), "bare"), exits: true,
			says: []string{`user "bare" must not read the log`, `remedy: ALTER ROLE "bare" REPLICATION`}, check: `remedy: ALTER ROLE "bare" REPLICATION`,
		},
		{
			name: "NoRightToPublish", url: as(l.database(t, "norighttopublish", ""), "nosy"), exits: true,
			says:  []string{"may not publish the tables", `remedy: let a superuser run: CREATE PUBLICATION "headwater_norighttopublish" FOR TABLE ONLY "public"."orders"`},
			check: `remedy: GRANT CREATE ON DATABASE "norighttopublish" TO nosy`,
		},
		{
			name: "NoRightToRead", url: as(l.database(t, "norighttoread", ""), "nosy"), setup: "CREATE PUBLICATION headwater_norighttoread FOR ALL TABLES",
			exits: true, says: []string{"permission denied for table orders", `remedy: GRANT SELECT ON "public"."orders" TO "nosy"`}, check: `remedy: GRANT SELECT ON "public"."orders" TO nosy`,
		},
		{
			name: "NoReplicaIdentity", url: l.database(t, "noreplicaidentity", ""), setup: "ALTER TABLE orders REPLICA IDENTITY NOTHING", exits: true,
			says:  []string{"the log does not repeat the key columns (id) of public.orders", `remedy: ALTER TABLE "public"."orders" REPLICA IDENTITY DEFAULT`},
			check: `remedy: ALTER TABLE "public"."orders" REPLICA IDENTITY DEFAULT`,
		},
		{
			name: "UnmappedTypeRefused", url: l.database(t, "unmappedtyperefused", ""), setup: "ALTER TABLE orders ADD area polygon", format: "unknown.types: fail", exits: true,
			says: []string{"table public.orders", `"area"`, "polygon", "unknown.types"},
		},
		{
			name: "UnmappedType", url: l.database(t, "unmappedtype", ""), setup: "ALTER TABLE orders ADD area polygon",
			says: []string{"type polygon has no mapping: the column carries the server's text", "column=area"},
		},
		{
			name: "LargeRow", url: l.database(t, "largerow", ""), later: "INSERT INTO orders VALUES (2, repeat('x', 2000000))", exits: true,
			says:   []string{`topic largerow.public.orders, key {"id":2}`, "bytes and the limit is 1000012", "remedy: raise max.message.bytes of the topic"},
			mended: fmt.Sprintf("brokers: [%q], max_record_bytes: 4000000", l.kafka.Bootstrap[0]), // what is compressed is small
		},
		{
			name: "RowAboveTheTopic", url: l.database(t, "rowabovethetopic", ""), setup: "INSERT INTO orders VALUES (2, repeat('x', 2000000))",
			kafka: fmt.Sprintf("brokers: [%q], max_record_bytes: 4000000, compression: none", l.kafka.Bootstrap[0]), exits: true,
			says: []string{"topic rowabovethetopic.public.orders", "MESSAGE_TOO_LARGE", "remedy: raise the topic's max.message.bytes"},
		},
		{
			name: "BytesThatAreNoText", url: l.database(t, "bytesthatarenotext", "ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"),
			later: `INSERT INTO orders VALUES (2, E'caf\xe9')`, exits: true,
			says: []string{"the change log cannot be read exactly", `invalid byte sequence for encoding "UTF8": 0xe9`, "remedy: repair the text in the table"}, check: "SQL_ASCII",
		},
		{
			name: "RegistryBroken", url: l.database(t, "registrybroken", ""), registry: fmt.Sprintf("url: %q, %s", answer(500), login),
			says: []string{"the schema registry cannot be used at present: waiting for it", "it answers 500 to GET"}, check: "registry: problem: ",
		},
		{
			name: "RegistryWantsALogin", url: l.database(t, "registrywantsalogin", ""), registry: fmt.Sprintf("url: %q, %s", answer(401), login), exits: true,
			says: []string{"it answers 401", "remedy: correct registry.username and registry.password"}, check: "remedy: correct registry.username",
		},
		{
			name: "RegistryUnknown", url: l.database(t, "registryunknown", ""), registry: fmt.Sprintf("url: %q, %s", unknown.URL, login), exits: true,
			says: []string{"signed by unknown authority", "remedy: set registry.ca_file"}, check: "remedy: set registry.ca_file",
		},
		{
			name: "KafkaPassword", url: l.pg.URL("postgres"), kafka: sasl("alice", badPassword), exits: true,
			says: []string{"SASL_AUTHENTICATION_FAILED", "remedy: correct sasl.username and sasl.password"}, check: "remedy: correct sasl.username",
		},
		{
			name: "KafkaRights", url: l.pg.URL("postgres"), kafka: sasl("bob", "bob-secret"), exits: true,
			says: []string{"AUTHORIZATION_FAILED", "remedy: grant on TransactionalId ", "kafka-acls --add"},
		},
		{
			// It could do without, until it starts again.
			name: "KafkaWithoutRead", url: l.pg.URL("postgres"), kafka: sasl("bob", "bob-secret"), exits: true,
			says: []string{"TOPIC_AUTHORIZATION_FAILED", "remedy: kafka-acls --add ", "--topic headwater.kafkawithoutread.checkpoint --operation Describe --operation Read"},
		},
		{
			name: "KafkaUnknown", url: l.pg.URL("postgres"), kafka: fmt.Sprintf("brokers: [%q], tls: {enabled: true, ca_file: %q}", l.kafka.TLS[0], otherCA), exits: true,
			says: []string{"signed by unknown authority", "remedy: set tls.ca_file"}, check: "remedy: set tls.ca_file",
		},
		{
			name: "KafkaWithoutTLS", url: l.pg.URL("postgres"), kafka: fmt.Sprintf("brokers: [%q], tls: {enabled: true}", l.kafka.Bootstrap[0]),
			says: []string{"set tls.enabled to false, or use the brokers' TLS port"}, check: "set tls.enabled to false",
		},
		{
			name: "KafkaAway", url: l.pg.URL("postgres"), kafka: `brokers: ["127.0.0.1:1"]`,
			says: []string{"connection refused"}, check: "kafka: problem: Kafka cannot be reached at [127.0.0.1:1]",
		},
		{
			name: "DatabaseAway", url: "postgres://pw:" + badPassword + "@127.0.0.1:1/shop?sslmode=disable",
			says: []string{"the pipeline starts again, until it works", "connection refused"}, check: "database: problem: connect to PostgreSQL at 127.0.0.1:1",
		},
	}
	t.Run("Each", func(t *testing.T) {
		for _, c := range each {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				l.meet(t, &c)
			})
		}
	})
	t.Run("FullDisk", l.needsNoDisk)
	t.Run("BrokersGoAway", l.brokersGoAway)
}

// meet runs a pipeline on what is wrong.
func (l *lab) meet(t *testing.T, c *badInput) {
	name := strings.ToLower(c.name)
	if c.registry == "" {
		c.registry = fmt.Sprintf("url: %q", l.registry.URL)
	}
	if c.kafka == "" {
		c.kafka = fmt.Sprintf("brokers: [%q]", l.kafka.Bootstrap[0])
	}
	if c.source == "" {
		c.source = fmt.Sprintf("postgres: {url: %q, publication_mode: filtered}", c.url)
	}
	if c.setup != "" {
		mustExec(t, connect(t, regexp.MustCompile(`//[^@]*@`).ReplaceAllString(c.url, "//postgres@")), c.setup)
	}
	config := func(kafka string) string {
		return fmt.Sprintf(`
name: %[1]s
source:
  %[2]s
tables: {%[6]s}
topics: {prefix: %[1]s, partitions: 1, replication: 1}
format: {%[3]s}
registry: {%[4]s}
kafka: {%[5]s}
http: {listen: "127.0.0.1:0"}
`, name, c.source, c.format, c.registry, kafka, c.tables)
	}
	p := newPipeline(t, config(c.kafka))
	t.Cleanup(func() { noPassword(t, "the program", p.output()) })

	if c.check != "" {
		out, _ := exec.CommandContext(t.Context(), p.bin, "check", "--config", p.config, "--timeout", "20s").CombinedOutput()
		noPassword(t, "check", string(out))
		if !strings.Contains(string(out), c.check) {
			t.Errorf("check does not say %q:\n%s", c.check, out)
		}
	}
	p.start("run")
	if c.later != "" {
		conn := connect(t, c.url)
		waitForOwnSlot(t, conn, p, "headwater_"+name)
		mustExec(t, conn, c.later)
	}
	if c.then != nil {
		waitForRecords(t, p, l, name, 1)
		c.then()
	}
	if !c.exits {
		waitFor(t, p, 4*time.Minute, strings.Join(c.says, ", "), func() (bool, error) { return containsAll(p.output(), c.says), nil })
		for _, path := range []string{"/healthz", "/status", "/metrics"} {
			noPassword(t, path, ask(t, p, path))
		}
		p.stop()
		return
	}
	p.wantEnd(4, c.says...)
	if c.mended != "" {
		p := newPipeline(t, config(c.mended))
		p.start("run")
		waitForRecords(t, p, l, name, 2)
		p.stop()
	}
}

// wantEnd waits until the program ends by itself, with that exit code and these words in the
// last line that it prints.
func (p *pipeline) wantEnd(code int, says ...string) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(4 * time.Minute):
		p.stuck("it has not ended")
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit code %d, want %d\n%s", got, code, p.tail(20))
	}
	if last := p.tail(1); !containsAll(last, says) || !strings.HasPrefix(last, "headwater: ") {
		p.t.Errorf("the last line is\n%s\nwant %q", last, says)
	}
}

// waitForRecords waits until the table's topic holds that many records, and wants no more.
func waitForRecords(t *testing.T, p *pipeline, l *lab, prefix string, want int) {
	t.Helper()
	topics := newTopics(t, l.kafka.Bootstrap, l.registry.URL)
	n := 0
	waitFor(t, p, 4*time.Minute, fmt.Sprintf("%d records", want), func() (bool, error) {
		n = 0
		err := topics.each(t.Context(), prefix, func(*kgo.Record) error { n++; return nil })
		return n >= want, err
	})
	if n > want {
		t.Errorf("%d records, want %d", n, want)
	}
}

// brokersGoAway kills the broker under a running pipeline.
func (l *lab) brokersGoAway(t *testing.T) {
	url := l.database(t, "brokersgoaway", "")
	p := newPipeline(t, fmt.Sprintf(`
name: brokersgoaway
source:
  postgres: {url: %q}
topics: {prefix: brokersgoaway, partitions: 1, replication: 1}
registry: {url: %q}
kafka: {brokers: [%q], transaction_timeout: 5s}
publish: {max_commit_interval: 1s}
http: {listen: "127.0.0.1:0"}
`, url, l.registry.URL, l.kafka.Bootstrap[0]))
	p.start("run")
	waitForRecords(t, p, l, "brokersgoaway", 1)
	if err := l.kafka.Kill(); err != nil {
		t.Fatal(err)
	}
	mustExec(t, connect(t, url), "INSERT INTO orders SELECT n, 'tea' FROM generate_series(2, 100) n")
	waitFor(t, p, 4*time.Minute, "a word about the brokers", func() (bool, error) {
		return strings.Contains(p.output(), "connection refused"), nil
	})
	waitFor(t, p, 4*time.Minute, "/healthz to say what is waited for", func() (bool, error) {
		return strings.HasPrefix(ask(t, p, "/healthz"), "waiting for "), nil
	})
	if err := l.kafka.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitForRecords(t, p, l, "brokersgoaway", 100)
	waitFor(t, p, 4*time.Minute, "/healthz to be content", func() (bool, error) {
		return strings.HasPrefix(ask(t, p, "/healthz"), "ok: "), nil
	})
	p.stop()
}

// needsNoDisk runs the program where it may write no byte into a file, as on a full disk.
func (l *lab) needsNoDisk(t *testing.T) {
	p := newPipeline(t, fmt.Sprintf(`
name: needsnodisk
source:
  postgres: {url: %q}
topics: {prefix: needsnodisk, partitions: 1, replication: 1}
registry: {url: %q}
kafka: {brokers: [%q]}
`, l.database(t, "needsnodisk", ""), l.registry.URL, l.kafka.Bootstrap[0]))
	limited := func(command string) ([]byte, error) {
		return exec.CommandContext(t.Context(), "sh", "-c", "ulimit -f 0 && "+command).CombinedOutput()
	}
	if out, err := limited("echo x >" + filepath.Join(t.TempDir(), "file")); err == nil {
		t.Fatalf("the limit has no effect: %s", out)
	}
	if out, err := limited(fmt.Sprintf("exec '%s' snapshot --config '%s'", p.bin, p.config)); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	n := 0
	err := newTopics(t, l.kafka.Bootstrap, l.registry.URL).each(t.Context(), "needsnodisk", func(*kgo.Record) error { n++; return nil })
	if err != nil || n != 1 {
		t.Errorf("%d records (%v), want 1", n, err)
	}
}

// waitForOwnSlot waits until the program reads the log by its slot.
func waitForOwnSlot(t *testing.T, conn *pgx.Conn, p *pipeline, slot string) {
	t.Helper()
	waitFor(t, p, 4*time.Minute, "the slot "+slot, func() (active bool, err error) {
		err = conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active)", slot).Scan(&active)
		return active, err
	})
}

func containsAll(text string, wants []string) bool {
	for _, want := range wants {
		if !strings.Contains(text, want) {
			return false
		}
	}
	return true
}

func noPassword(t *testing.T, what, text string) {
	t.Helper()
	if strings.Contains(text, badPassword) || strings.Contains(text, "bob-secret") {
		t.Errorf("%s shows a password:\n%s", what, text)
	}
}

var listensAt = regexp.MustCompile(`msg=started .*http=(\S+)`)

// ask asks the status page of the running program.
func ask(t *testing.T, p *pipeline, path string) string {
	t.Helper()
	m := listensAt.FindStringSubmatch(p.output())
	if m == nil {
		t.Fatalf("the program does not say where it listens:\n%s", p.tail(20))
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+m[1]+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
