package integration

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/headwaterdb/headwater/integration/servers"
)

// goldenPrefix stands for the "@" of the recording.
const goldenPrefix = "golden"

// TestConformance_RecordsAreDebeziums runs the statements for which a real Debezium's
// output was recorded, and compares the topics with that, byte for byte. What is meant
// to differ stands in decided, one by one.
func TestConformance_RecordsAreDebeziums(t *testing.T) {
	ctx := t.Context()
	golden := readGolden(t, goldenPostgres, goldenPrefix)
	db := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15"})
	kafka := servers.Shared(t).Kafka()
	registry := servers.Shared(t).Registry()

	admin := connect(t, db.URL("postgres"))
	mustExec(t, admin, "CREATE DATABASE corpus")
	conn := connect(t, db.URL("corpus"))
	for _, e := range []string{"hstore", "citext", "ltree", "isn"} {
		mustExec(t, conn, "CREATE EXTENSION "+e)
	}
	mustExec(t, conn, "CREATE PUBLICATION corpus FOR ALL TABLES")
	refused := runStatements(t, conn, "testdata/golden/postgres/before.sql")

	config := func(exclude string) string {
		return fmt.Sprintf(`
name: %[1]s
source:
  postgres: {url: %[2]q, publication: corpus, publication_mode: existing, slot: golden}
tables: {include: ["own.*"], exclude: [%[5]s]}
snapshot: {mode: initial}
topics: {prefix: %[1]s, partitions: 1, replication: 1}
registry: {url: %[3]q}
kafka: {brokers: [%[4]q]}
`, goldenPrefix, db.URL("corpus"), registry.URL, kafka.Bootstrap[0], exclude)
	}
	checkRefuses(t, newPipeline(t, config("")), "own.ri_index", "own.ri_nothing")

	p := newPipeline(t, config(`"own.ri_index", "own.ri_nothing"`))
	p.start("run")
	reader := newGoldenReader(t, kafka.Bootstrap, registry.URL)
	rows := snapshotRows(golden, "ri_index", "ri_nothing")
	waitFor(t, p, 4*time.Minute, fmt.Sprintf("%d rows of the snapshot", rows), func() (bool, error) {
		n := 0
		err := reader.each(ctx, goldenPrefix, func(*kgo.Record) error { n++; return nil })
		return n >= rows, err
	})
	refused = append(refused, runStatements(t, conn, "testdata/golden/postgres/stream.sql")...)
	want := []string{"UPDATE own.ri_nothing SET b='q'", "DELETE FROM own.ri_nothing", "UPDATE own.nopk SET b='q'", "DELETE FROM own.nopk"}
	if !slices.Equal(refused, want) {
		t.Fatalf("the server refused %q, want %q", refused, want)
	}
	waitForCatchUp(t, conn, p)
	p.stop()

	ours := reader.readGolden(ctx, goldenPrefix)
	for _, problem := range checkSources(ours) {
		t.Error(problem)
	}
	for topic, o := range ours {
		for _, role := range []string{"key", "value"} {
			if n := reader.versions(ctx, topic+"-"+role); n != len(o.schemas[role]) {
				t.Errorf("subject %s-%s has %d versions, the topic uses %d", topic, role, n, len(o.schemas[role]))
			}
		}
		leaveOutVolatile(o, "txId", "lsn", "xmin", "origin", "origin_lsn")
	}
	decideSchemas(t, golden, "own", decidedSchemas)
	for _, problem := range judge(compareGolden(golden, ours), decided) {
		t.Error(problem)
	}
	t.Run("SnapshotAndLogCarryTheSameBytes", func(t *testing.T) { checkBothPaths(t, ours) })
	t.Run("BeforeIsTheRowBefore", func(t *testing.T) { checkBefore(t, ours, wholeOldRows(t, conn)) })
	t.Run("ValuesAreThoseOfTheServer", func(t *testing.T) { checkServerValues(t, conn, ours) })
}

// checkRefuses runs the check command and wants a finding for each of the tables, and
// for no other.
func checkRefuses(t *testing.T, p *pipeline, tables ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), p.bin, "check", "--config", p.config).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("headwater check: %v, want exit code 3", err)
	}
	for _, table := range tables {
		if !strings.Contains(string(out), "of "+table+" in deletes") {
			t.Errorf("headwater check says nothing about the key of %s:\n%s", table, out)
		}
	}
	if n := strings.Count(string(out), "does not repeat the key columns"); n != len(tables) {
		t.Errorf("headwater check refuses %d tables for their keys, want %d:\n%s", n, len(tables), out)
	}
}

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// runStatements runs the file's statements one by one, as the recording did, and
// returns those that the server refuses because the log could not describe them.
func runStatements(t *testing.T, conn *pgx.Conn, file string) (refused []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range splitStatements(string(text)) {
		_, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
		var pg *pgconn.PgError
		switch {
		case errors.As(err, &pg) && pg.Code == "55000": // object_not_in_prerequisite_state
			refused = append(refused, sql)
		case err != nil:
			t.Fatalf("%s: %v", clip(sql), err)
		}
	}
	return refused
}

// splitStatements cuts at semicolons outside quotes.
func splitStatements(text string) (statements []string) {
	quote, from := byte(0), 0
	for i := range len(text) {
		switch c := text[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == ';':
			statements = append(statements, strings.TrimSpace(text[from:i]))
			from = i + 1
		}
	}
	if rest := strings.TrimSpace(text[from:]); rest != "" {
		statements = append(statements, rest)
	}
	return statements
}

func TestConformance_StatementsAreCutOutsideQuotes(t *testing.T) {
	got := splitStatements(`SELECT 'a;''b', ";"; COMMIT;` + "\n")
	if want := []string{`SELECT 'a;''b', ";"`, "COMMIT"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// snapshotRows counts the rows that the snapshot read, but for some tables.
func snapshotRows(topics map[string]*goldenTopic, except ...string) (n int) {
	for name, topic := range topics {
		if slices.Contains(except, name[strings.LastIndexByte(name, '.')+1:]) {
			continue
		}
		for _, r := range topic.records {
			if v, ok := r.value.(rawRecord); ok && v.get("op") == "r" {
				n++
			}
		}
	}
	return n
}

// A goldenReader reads topics into golden form.
type goldenReader struct {
	*topics
	t       *testing.T
	schemas map[int]goldenSchema
}

type goldenSchema struct {
	text string
	typ  *rawType
}

func newGoldenReader(t *testing.T, brokers []string, registry string) *goldenReader {
	t.Helper()
	return &goldenReader{newTopics(t, brokers, registry), t, map[int]goldenSchema{}}
}

func (r *goldenReader) readGolden(ctx context.Context, prefix string) map[string]*goldenTopic {
	r.t.Helper()
	all := map[string]*goldenTopic{}
	err := r.each(ctx, prefix, func(rec *kgo.Record) error {
		topic := all[rec.Topic]
		if topic == nil {
			topic = &goldenTopic{schemas: map[string][]string{}}
			all[rec.Topic] = topic
		}
		var g goldenRecord
		var err error
		if g.key, g.keySchema, err = r.datum(ctx, topic, "key", rec.Key); err != nil {
			return fmt.Errorf("%s %d key: %w", rec.Topic, rec.Offset, err)
		}
		if g.value, g.valueSchema, err = r.datum(ctx, topic, "value", rec.Value); err != nil {
			return fmt.Errorf("%s %d value: %w", rec.Topic, rec.Offset, err)
		}
		for _, h := range rec.Headers {
			g.headers = append(g.headers, h.Key)
		}
		slices.Sort(g.headers)
		topic.records = append(topic.records, g)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// datum decodes framed bytes and says which schema of the topic they are written with.
func (r *goldenReader) datum(ctx context.Context, topic *goldenTopic, role string, b []byte) (v any, n int, err error) {
	if b == nil {
		return nil, -1, nil
	}
	if len(b) < 5 || b[0] != 0 {
		return nil, 0, fmt.Errorf("not framed: %x", b)
	}
	id := int(binary.BigEndian.Uint32(b[1:5]))
	s, ok := r.schemas[id]
	if !ok {
		registered, err := r.registry.SchemaByID(ctx, id)
		if err != nil {
			return nil, 0, fmt.Errorf("schema %d: %w", id, err)
		}
		s.text = strings.ReplaceAll(registered.Schema, `\u007b`, "{") // see registry.Client.Register
		if s.typ, err = parseRaw(s.text); err != nil {
			return nil, 0, fmt.Errorf("schema %d: %w", id, err)
		}
		r.schemas[id] = s
	}
	n = slices.Index(topic.schemas[role], s.text)
	if n < 0 {
		n = len(topic.schemas[role])
		topic.schemas[role] = append(topic.schemas[role], s.text)
	}
	v, err = decodeRaw(s.typ, b[5:])
	return v, n, err
}

// versions counts the versions of a subject.
func (r *goldenReader) versions(ctx context.Context, subject string) int {
	r.t.Helper()
	v, err := r.registry.SubjectVersions(ctx, subject)
	var answer *sr.ResponseError
	if errors.As(err, &answer) && answer.ErrorCode == sr.ErrSubjectNotFound.Code {
		return 0
	}
	if err != nil {
		r.t.Fatalf("versions of %s: %v", subject, err)
	}
	return len(v)
}

// checkSources checks what the recording leaves out: times, positions, transactions.
func checkSources(all map[string]*goldenTopic) (problems []string) {
	var snapshotLSN any
	for name, topic := range all {
		for n, r := range topic.records {
			v, ok := r.value.(rawRecord)
			if !ok {
				continue
			}
			bad := func(format string, args ...any) {
				problems = append(problems, fmt.Sprintf("%s, %s: %s", name, r.label(n), fmt.Sprintf(format, args...)))
			}
			source := v.get("source").(rawRecord)
			for what, of := range map[string]rawRecord{"envelope": v, "source": source} {
				ns, us, ms := rawInt(of.get("ts_ns")), rawInt(of.get("ts_us")), rawInt(of.get("ts_ms"))
				if us != ns/1000 || ms != us/1000 || time.Since(time.Unix(0, ns)).Abs() > time.Hour {
					bad("%s times %d ms, %d µs, %d ns", what, ms, us, ns)
				}
			}
			lsn := source.get("lsn")
			sequence, _ := source.get("sequence").(string)
			if rawInt(lsn) == 0 || !strings.HasSuffix(sequence, `"`+goldenText(lsn)+`"]`) {
				bad("lsn %v, sequence %s", lsn, sequence)
			}
			if v.get("op") == "r" {
				if snapshotLSN == nil {
					snapshotLSN = lsn
				}
				if lsn != snapshotLSN || sequence != "[null,"+strconv.Quote(goldenText(lsn))+"]" || source.get("txId") != nil {
					bad("lsn %v, sequence %s, transaction %v in a snapshot whose first row has lsn %v", lsn, sequence, source.get("txId"), snapshotLSN)
				}
			} else if rawInt(source.get("txId")) == 0 || rawInt(lsn) < rawInt(snapshotLSN) && snapshotLSN != nil {
				bad("lsn %v, transaction %v", lsn, source.get("txId"))
			}
			if source.get("version") == "" || source.get("xmin") != nil || source.get("origin") != nil || source.get("origin_lsn") != nil {
				bad("source %s", goldenText(source))
			}
		}
	}
	return problems
}

func rawInt(v any) int64 {
	n, ok := v.(interface{ Int64() (int64, error) })
	if !ok {
		return 0
	}
	i, _ := n.Int64() // decodeRaw made it from an int64
	return i
}

// leaveOutVolatile removes what changes from run to run, as the recording did. more are
// the fields of source that only this database has.
func leaveOutVolatile(topic *goldenTopic, more ...string) {
	drop := func(r rawRecord, names ...string) rawRecord {
		return slices.DeleteFunc(r, func(f rawValue) bool { return slices.Contains(names, f.name) })
	}
	for _, r := range topic.records {
		v, ok := r.value.(rawRecord)
		if !ok {
			continue
		}
		for i := range v {
			if v[i].name == "source" {
				v[i].value = drop(v[i].value.(rawRecord), append(more, "version", "ts_ms", "ts_us", "ts_ns", "sequence")...)
			}
		}
	}
	for i := range topic.records {
		if v, ok := topic.records[i].value.(rawRecord); ok {
			topic.records[i].value = drop(v, "ts_ms", "ts_us", "ts_ns")
		}
	}
}
