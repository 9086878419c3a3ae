package integration

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/headwaterdb/headwater/integration/servers"
)

const outsideTable = `
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE people (
  id bigint PRIMARY KEY, name text NOT NULL, small smallint, balance numeric(12,2) NOT NULL, rate double precision,
  born date, seen timestamptz, local timestamp(3), raw bytea, tags text[], feels mood, doc jsonb, ref uuid, active boolean);
INSERT INTO people VALUES
  (1, 'Zoë 日本 😀 "q" \', 32767, 1234567890.12, 1.5, '2024-02-29', '2024-02-29 12:34:56.789012+02', '1969-12-31 23:59:59.999', '\x00ff', ARRAY['a', NULL, 'ü'], 'ok', '{"k": [1, null]}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', true),
  (2, '', -32768, -0.01, -1e-300, '0001-01-01', '1969-12-31 23:59:59.999999+00', '9999-12-31 23:59:59.999', '', '{}', 'sad', 'null', '00000000-0000-0000-0000-000000000000', false),
  (3, 'nothing', NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);`

// outsideSQL runs while the log is followed. The second step makes new record schemas.
var outsideSQL = []string{
	`INSERT INTO people SELECT id + 10, name, small, balance, rate, born, seen, local, raw, tags, feels, doc, ref, active FROM people`,
	`ALTER TABLE people ADD COLUMN note text`,
	`UPDATE people SET note = 'ñandú', balance = balance + 0.5 WHERE id IN (1, 13)`,
	`DELETE FROM people WHERE id = 2`,
	`UPDATE people SET id = 100 WHERE id = 12`,
}

// outsideRows is the table as the reader is expected to see it.
const outsideRows = `SELECT json_build_object('id', id, 'name', name, 'small', small, 'balance', balance::text, 'rate', rate,
  'born', born - date '1970-01-01', 'seen', to_char(seen AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
  'local', (extract(epoch FROM local) * 1000)::bigint, 'raw', encode(raw, 'hex'), 'tags', tags, 'feels', feels, 'doc', doc::text,
  'ref', ref, 'active', active, 'note', note)::text FROM people ORDER BY id`

// TestOutsideReader_SeesTheTable reads our topic with Confluent's own client in another
// language, which knows nothing of headwater.
func TestOutsideReader_SeesTheTable(t *testing.T) {
	ctx := t.Context()
	python := outsidePython(t)
	url := servers.Shared(t).Postgres("15").Database(t)
	kafka, registry := servers.Shared(t).Kafka(), servers.Shared(t).Registry()
	conn := connect(t, url)
	mustExec(t, conn, outsideTable)

	p := newPipeline(t, fmt.Sprintf(`
name: outside
source:
  postgres: {url: %q, slot: outside, publication: outside}
tables: {include: ["public.people"]}
topics: {prefix: outside, partitions: 3, replication: 1}
registry: {url: %q}
kafka: {brokers: [%q]}
`, url, registry.URL, kafka.Bootstrap[0]))
	p.start("run")
	reader := newTopics(t, kafka.Bootstrap, registry.URL)
	waitFor(t, p, 4*time.Minute, "3 rows of the snapshot", func() (bool, error) {
		n := 0
		err := reader.each(ctx, "outside", func(*kgo.Record) error { n++; return nil })
		return n >= 3, err
	})
	for _, sql := range outsideSQL {
		mustExec(t, conn, sql)
	}
	waitForCatchUp(t, conn, p)
	p.stop()

	cmd := exec.Command(python, "testdata/reader/read.py", kafka.Bootstrap[0], registry.URL, "outside.public.people")
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the reader failed: %v\n%s", err, complaints.String())
	}
	seen, ops := replay(t, out)
	if got, want := strings.Join(ops, ""), "rrrcccuuddc"; len(ops) != len(want) || !sameLetters(got, want) {
		t.Errorf("the reader saw operations %s, want %s in some order", got, want)
	}

	rows, err := conn.Query(ctx, outsideRows)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	held := 0
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		want := object(t, []byte(text))
		id := fmt.Sprint(want["id"])
		got := seen[id]
		if got != nil && !hasKey(got, "note") {
			got["note"] = nil // written before the column was there
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("row %s:\n the reader sees %v\nthe table holds %v", id, got, want)
		}
		held++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if held != len(seen) || held < 5 {
		t.Errorf("the table holds %d rows, the reader sees %d", held, len(seen))
	}
}

func hasKey(m map[string]any, k string) bool { _, ok := m[k]; return ok }

func sameLetters(a, b string) bool {
	x, y := []byte(a), []byte(b)
	slices.Sort(x)
	slices.Sort(y)
	return bytes.Equal(x, y)
}

// replay applies the reader's lines in order, and returns the rows that are left and
// the operations seen.
func replay(t *testing.T, out []byte) (rows map[string]map[string]any, ops []string) {
	t.Helper()
	rows = map[string]map[string]any{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	deleted := map[string]bool{}
	for lines.Scan() {
		line := object(t, lines.Bytes())
		key, _ := line["key"].(map[string]any)
		id := fmt.Sprint(key["id"])
		value, ok := line["value"].(map[string]any)
		if !ok { // tombstone
			if !deleted[id] {
				t.Errorf("a tombstone of row %s without its delete", id)
			}
			delete(deleted, id)
			continue
		}
		op, _ := value["op"].(string)
		ops = append(ops, op)
		switch after, ok := value["after"].(map[string]any); {
		case op == "d":
			delete(rows, id)
			deleted[id] = true
		case ok:
			rows[id] = after
		}
	}
	for id := range deleted {
		t.Errorf("the delete of row %s has no tombstone", id)
	}
	return rows, ops
}

// object reads a JSON object and keeps its numbers as they are written.
func object(t *testing.T, text []byte) (v map[string]any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// outsidePython returns a Python that has what testdata/reader/requirements.txt names.
func outsidePython(t *testing.T) string {
	t.Helper()
	return pinnedPython(t, "testdata/reader/requirements.txt")
}

// pinnedPython returns a Python that has what a file of requirements names. It is made once
// and kept in the user's cache folder, under a name that changes with that file; a folder
// that has its name is whole.
func pinnedPython(t *testing.T, requirements string) string {
	t.Helper()
	pinned, err := os.ReadFile(requirements)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "headwater")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(cache, fmt.Sprintf("python-%.6x", sha256.Sum256(pinned)))
	lock, err := os.OpenFile(name+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close() // lets the next one in
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatalf("wait for another test that makes %s: %v", name, err)
	}
	if _, err := os.Stat(name); err == nil {
		return filepath.Join(name, "bin", "python")
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	unfinished := name + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"python3", "-m", "venv", unfinished},
		{filepath.Join(unfinished, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", requirements},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v (this test takes Python 3.10 or newer with venv and pip)\n%s", strings.Join(args, " "), err, out)
		}
	}
	// An environment can be moved as long as only its interpreter is called.
	if err := os.Rename(unfinished, name); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(name, "bin", "python")
}
