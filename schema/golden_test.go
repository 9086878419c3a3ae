package schema_test

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/schema"
)

// The file holds record schemas that a Debezium 3.6.1 registered, with "@" as prefix.
const goldenFile = "testdata/debezium-3.6.1-schemas.jsonl"

type goldenSchema struct{ DB, Table, Role, Text string }

func readGolden(t *testing.T) map[string]map[string]goldenSchema {
	t.Helper()
	f, err := os.Open(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tables := make(map[string]map[string]goldenSchema)
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var g goldenSchema
		if err := json.Unmarshal(s.Bytes(), &g); err != nil {
			t.Fatal(err)
		}
		name := g.DB + "." + g.Table
		if tables[name] == nil {
			tables[name] = make(map[string]goldenSchema)
		}
		tables[name][g.Role] = g
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return tables
}

// differs lists where headwater decides otherwise than Debezium, as replacements in
// Debezium's text, each with its reason.
var differs = map[string][]struct{ old, new, reason string }{
	"postgres.t_time1": {{`86399999`, `86400000`, "the default 24:00:00 is 23:59:59.999999 there"}},
	"postgres.t_time3": {{`86399999`, `86400000`, "the default 24:00:00 is 23:59:59.999999 there"}},
	"postgres.t_time5": {{`86399999999`, `86400000000`, "the default 24:00:00 is 23:59:59.999999 there"}},
	"postgres.t_bit8":  {bitArray("8")},
	"postgres.t_bit64": {bitArray("64")},
	"postgres.t_isbn":  {{`"items":"string"`, `"items":["null","string"]`, "a NULL element makes the whole array null there"}},
	"postgres.dflt": {
		{`"it"`, `"it's"`, "text defaults are cut at the first quote there"},
		{`[{"type":"double","connect.default":"NaN"},"null"],"default":"NaN"`, `["null","double"],"default":null`, "no Avro library but Java's reads a NaN default"},
		{`"CURRENT_USER"`, `""`, "a function is no literal"},
	},
	"mysql.dflt":       {{`"it''s"`, `"it's"`, "the quote is still doubled there"}, {`9223372036854775807`, `-1`, "an unsigned default is cut there"}},
	"mysql.t_binary4":  {{`"\u0001\\0\\0\\0"`, `"\u0001\u0000\u0000\u0000"`, "a zero byte in a default is two characters there"}},
	"mysql.t_vc_utf16": {{`"65E5672CD83DDE0"`, `"日本😀"`, "text in UTF-16 has its code units as default there"}},
}

func bitArray(length string) struct{ old, new, reason string } {
	bits := `{"type":"bytes","connect.version":1,"connect.parameters":{"length":"` + length + `"},"connect.name":"io.debezium.data.Bits"}`
	return struct{ old, new, reason string }{
		`{"name":"a","type":["null",` + bits + `]`, `{"name":"a","type":["null",{"type":"array","items":["null",` + bits + `]}]`,
		"a bit[] column is one bit string there, and always null",
	}
}

func TestRecordSchemas_AreByteIdenticalToDebezium(t *testing.T) {
	t.Parallel()
	golden := readGolden(t)
	for db, tables := range map[string][]*capture.Table{"postgres": postgresTables(), "mysql": mysqlTables()} {
		f := schema.Format{UnknownTypes: "omit", EscapeLabels: db == "mysql"}
		if db == "mysql" {
			f.TimePrecision = "adaptive_time_microseconds"
		}
		f.SetDefaults()
		n := schema.Naming{Prefix: "pfx"}
		n.SetDefaults()
		b, err := schema.NewBuilder(f, n, capture.Columns{})
		if err != nil {
			t.Fatal(err)
		}
		built := make(map[string]bool)
		for _, table := range tables {
			name := db + "." + table.ID.Name
			built[name] = true
			rec, err := b.Table(table)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			roles := map[string]string{"value": rec.Envelope.JSON()}
			if rec.Key != nil {
				roles["key"] = rec.Key.JSON()
			}
			if len(roles) != len(golden[name]) {
				t.Errorf("%s: has %d record schemas, want %d", name, len(roles), len(golden[name]))
			}
			for role, got := range roles {
				want := strings.ReplaceAll(golden[name][role].Text, "@.", "pfx.")
				for _, d := range differs[name] {
					if role == "value" && !strings.Contains(want, d.old) {
						t.Errorf("%s: Debezium's text has no %s (%s)", name, d.old, d.reason)
					}
					want = strings.ReplaceAll(want, d.old, d.new)
				}
				if got != want {
					t.Errorf("%s %s:\n got %s\nwant %s", name, role, got, want)
				}
			}
		}
		for name := range golden {
			if strings.HasPrefix(name, db+".") && !built[name] {
				t.Errorf("%s: not built", name)
			}
		}
	}
}
