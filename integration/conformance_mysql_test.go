package integration

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/headwaterdb/headwater/integration/servers"
)

// goldenDatabase is the database of the recording.
const goldenDatabase = "corpus_own"

// TestConformance_RecordsOfMySQLAreDebeziums is TestConformance_RecordsAreDebeziums for
// MySQL. What is meant to differ stands in decidedMySQL.
func TestConformance_RecordsOfMySQLAreDebeziums(t *testing.T) {
	ctx := t.Context()
	golden := readGolden(t, goldenMySQL, goldenPrefix)
	db := servers.Own(t).MySQLWith(servers.MySQLConfig{Version: "9", Settings: map[string]string{
		"sql_mode": "NO_ENGINE_SUBSTITUTION", "explicit_defaults_for_timestamp": "ON", "default_time_zone": "'+00:00'",
	}})
	kafka := servers.Own(t).Kafka()
	registry := servers.Own(t).Registry()
	w := &workMySQL{db: db}
	conn, err := db.Connect(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Quit()
	run := func(file string, beforeDDL func()) {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range splitStatements(string(text)) {
			if alters.MatchString(sql) {
				beforeDDL()
			}
			if _, err := conn.Execute(sql); err != nil {
				t.Fatalf("%s: %v", clip(sql), err)
			}
		}
	}
	run("testdata/golden/mysql/before.sql", func() {})
	reader := newGoldenReader(t, kafka.Bootstrap, registry.URL)
	// A column that becomes NOT NULL is not compatible; the recording's registry took it.
	for _, r := range reader.registry.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatNone}) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}

	p := newPipeline(t, fmt.Sprintf(`
name: %[1]s
source:
  mysql: {url: %[2]q, heartbeat_interval: 1s}
tables: {include: ["corpus_own.*"]}
snapshot: {mode: initial}
topics: {prefix: %[1]s, partitions: 1, replication: 1}
registry: {url: %[3]q}
kafka: {brokers: [%[4]q]}
`, goldenPrefix, strings.TrimSuffix(db.URL(""), "/"), registry.URL, kafka.Bootstrap[0]))
	p.start("run")
	rows := snapshotRows(golden)
	waitFor(t, p, 4*time.Minute, fmt.Sprintf("%d rows of the snapshot", rows), func() (bool, error) {
		n := 0
		err := reader.each(ctx, goldenPrefix, func(*kgo.Record) error { n++; return nil })
		return n >= rows, err
	})
	// Defaults come from the catalog of the moment, as in the recording.
	run("testdata/golden/mysql/stream.sql", func() { w.caughtUp(t, p) })
	w.caughtUp(t, p)
	p.stop()

	ours := reader.readGolden(ctx, goldenPrefix)
	for _, problem := range checkSourcesMySQL(ours, db) {
		t.Error(problem)
	}
	for topic, o := range ours {
		for _, role := range []string{"key", "value"} {
			if n := reader.versions(ctx, topic+"-"+role); n != len(o.schemas[role]) {
				t.Errorf("subject %s-%s has %d versions, the topic uses %d", topic, role, n, len(o.schemas[role]))
			}
		}
		leaveOutVolatile(o, "server_id", "gtid", "file", "pos", "row", "thread", "query")
	}
	var labels []string
	for n, r := range ours[goldenPrefix+"."+goldenDatabase+".ddl2"].records {
		labels = append(labels, r.label(n))
	}
	if want := []string{`c {"id":9,"c_new":"c9"}`, `c {"id":10,"c_new":"é"}`, `c {"id":11,"c_new":"k"}`, `d {"id":1,"c_new":"c"}`, `tombstone {"id":1,"c_new":"c"}`}; !slices.Equal(labels, want) {
		t.Errorf("the renamed table has the records %q, want %q", labels, want)
	}
	decideSchemas(t, golden, goldenDatabase, decidedSchemasMySQL)
	for _, problem := range judge(compareGolden(golden, ours), decidedMySQL) {
		t.Error(problem)
	}
	t.Run("SnapshotAndLogCarryTheSameBytes", func(t *testing.T) { checkBothPaths(t, ours) })
	t.Run("BeforeIsTheRowBefore", func(t *testing.T) { checkBefore(t, ours, nil) })
}

// alters finds statements that change a table's definition, or that follow one that did.
var alters = regexp.MustCompile(`^(?:ALTER|TRUNCATE|DROP|RENAME) `)

var oneGTID = regexp.MustCompile(`^[0-9a-f-]{36}:[1-9][0-9]*$`)

// checkSourcesMySQL checks what the recording leaves out: times, positions, transactions.
func checkSourcesMySQL(all map[string]*goldenTopic, db *servers.MySQL) (problems []string) {
	var snapshot string
	for name, topic := range all {
		lastPos, lastRow := int64(0), int64(0)
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
				if us != ns/1000 || ms != us/1000 || ms == 0 {
					bad("%s times %d ms, %d µs, %d ns", what, ms, us, ns)
				}
			}
			if written := rawInt(v.get("ts_ns")); time.Since(time.Unix(0, written)).Abs() > time.Hour {
				bad("written at %d", written)
			}
			pos, row := rawInt(source.get("pos")), rawInt(source.get("row"))
			file, _ := source.get("file").(string)
			gtid, _ := source.get("gtid").(string)
			if !strings.HasPrefix(file, "binlog.0") || pos == 0 || source.get("version") == "" || source.get("query") != nil || source.get("sequence") != nil {
				bad("source %s", goldenText(source))
			}
			if v.get("op") == "r" {
				at := fmt.Sprintf("%s:%d", file, pos)
				if snapshot == "" {
					snapshot = at
				}
				if at != snapshot || row != 0 || gtid != "" || rawInt(source.get("server_id")) != 0 || source.get("thread") != nil {
					bad("source %s in a snapshot that began at %s", goldenText(source), snapshot)
				}
				continue
			}
			if rawInt(source.get("server_id")) != int64(db.Port) || !oneGTID.MatchString(gtid) || rawInt(source.get("thread")) == 0 {
				bad("source %s", goldenText(source))
			}
			if pos < lastPos || pos == lastPos && row < lastRow {
				bad("position %d, row %d behind position %d, row %d", pos, row, lastPos, lastRow)
			}
			lastPos, lastRow = pos, row
		}
	}
	return problems
}
