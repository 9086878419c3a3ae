package mysql

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/headwaterdb/headwater/capture"
)

// oneTable returns the table map of a table's last event in a log.
func oneTable(t testing.TB, l *typeLab, events []loggedEvent, name string) *tableMap {
	t.Helper()
	var found *tableMap
	for _, ev := range events {
		if ev.typ == replication.TABLE_MAP_EVENT {
			m, err := parseTableMap(ev.body, l.mariadb)
			if err != nil {
				t.Fatal(err)
			}
			if m.table.Name == name {
				found = m
			}
		}
	}
	if found == nil {
		t.Fatalf("the log has no map of %s", name)
	}
	return found
}

func TestTableMap_TellsTheDefinition(t *testing.T) {
	forEachServer(t, func(t *testing.T, l *typeLab) {
		l.exec(`CREATE TABLE pre (z varchar(300), n int unsigned NOT NULL, x blob NOT NULL, g int AS (n + 1) VIRTUAL, s int AS (n + 2) STORED,
			PRIMARY KEY (x(10), n), KEY (z)) CHARACTER SET latin1`)
		l.exec("CREATE TABLE uni (a int, b int NOT NULL, UNIQUE KEY u (b))")
		events := l.log(func() {
			l.exec("INSERT INTO pre (z, n, x) VALUES ('é', 1, 'x')")
			l.exec("INSERT INTO uni VALUES (1, 2)")
		})
		b := capture.NewBatch()
		defer b.Release()
		rows, err := decodeLog(events, l.mariadb, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		pre := rows[0].plan.table
		var names []string
		for _, c := range pre.Columns {
			names = append(names, fmt.Sprintf("%s %s %v", c.Name, c.Type.Name, c.Nullable))
		}
		want := "z varchar(300) true, n int unsigned false, x blob false, g int true, s int true"
		if got := strings.Join(names, ", "); got != want || !slices.Equal(pre.Key, []int{2, 1}) || !slices.Equal(pre.RowKey, []int{2, 1}) || pre.KeyIndex != "" {
			t.Errorf("got %s, key %v %v %q; want %s, key [2 1]", got, pre.Key, pre.RowKey, pre.KeyIndex, want)
		}
		if row := rows[0].after; row[0].String() != `"é"` || row[3].Int() != 2 || row[4].Int() != 3 {
			t.Errorf("got the row %v", row)
		}
		// A unique index over NOT NULL columns looks like a primary key.
		f := l.facts("uni")
		f.key, f.rowKey, f.keyIndex = []string{"b"}, []string{"b"}, "u"
		uni := oneTable(t, l, events, "uni")
		p, err := newPlan(nil, uni, f)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(p.table.Key, []int{1}) || p.table.KeyIndex != "u" || !slices.Equal(p.table.RowKey, []int{1}) {
			t.Errorf("with the catalog the key is %v %q %v", p.table.Key, p.table.KeyIndex, p.table.RowKey)
		}
		if s, err := scanPlan(nil, f); err != nil || !s.table.Equal(p.table) {
			t.Errorf("a query has the definition %+v (%v), the log %+v", s.table, err, p.table)
		}
		// Another one is in the catalog alone.
		f.key, f.rowKey, f.keyIndex, uni.key = []string{"a"}, nil, "v", nil
		if p, err = newPlan(nil, uni, f); err != nil || !slices.Equal(p.table.Key, []int{0}) || p.table.KeyIndex != "v" || p.table.RowKey != nil {
			t.Errorf("with a nullable index the key is %v %q %v (%v)", p.table.Key, p.table.KeyIndex, p.table.RowKey, err)
		}
		// So is one over prefixes of columns.
		f.key, f.rowKey, f.keyIndex, f.prefixes = []string{"b"}, []string{"b"}, "w", true
		if p, err = newPlan(nil, uni, f); err != nil || !slices.Equal(p.table.Key, []int{1}) || !slices.Equal(p.table.RowKey, []int{1}) {
			t.Errorf("with an index over prefixes the key is %v %q %v (%v)", p.table.Key, p.table.KeyIndex, p.table.RowKey, err)
		}
		if s, err := scanPlan(nil, f); err != nil || !s.table.Equal(p.table) {
			t.Errorf("a query has the definition %+v (%v), the log %+v", s.table, err, p.table)
		}
		f.prefixes = false
		// One that could be the log's, but is not there, is newer.
		f.key, f.rowKey, f.keyIndex = []string{"b"}, []string{"b"}, "u"
		if p, err = newPlan(nil, uni, f); err != nil || p.table.Key != nil || p.table.RowKey != nil {
			t.Errorf("with an index of later the key is %v %q %v (%v)", p.table.Key, p.table.KeyIndex, p.table.RowKey, err)
		}
	})
}

// TestPlan_OldRowsKeepTheirDefinition: what the catalog says by now is about other
// columns.
func TestPlan_OldRowsKeepTheirDefinition(t *testing.T) {
	forEachServer(t, func(t *testing.T, l *typeLab) {
		l.exec("CREATE TABLE d (id int PRIMARY KEY, a varchar(10) DEFAULT 'x' COMMENT 'old', b int DEFAULT 7 COMMENT 'kept', c enum('p','q') DEFAULT 'q')")
		events := l.log(func() { l.exec("INSERT INTO d (id) VALUES (1)") })
		before, err := newPlan(nil, oneTable(t, l, events, "d"), l.facts("d"))
		if err != nil {
			t.Fatal(err)
		}
		l.exec("ALTER TABLE d MODIFY a int DEFAULT 5 COMMENT 'new', ADD n int NOT NULL FIRST, MODIFY c enum('p','r') DEFAULT 'r'")
		after, err := newPlan(nil, oneTable(t, l, events, "d"), l.facts("d"))
		if err != nil {
			t.Fatal(err)
		}
		if len(before.drift) > 0 || !slices.Equal(after.drift, []int{1, 3}) {
			t.Errorf("drift is %v, and %v after the change", before.drift, after.drift)
		}
		for i, c := range after.table.Columns {
			old := before.table.Columns[i]
			if c.Name != old.Name || !c.Type.Equal(&old.Type) || c.Nullable != old.Nullable {
				t.Errorf("column %d was %+v and is %+v", i, old, c)
			}
		}
		if c := before.table.Columns[1]; c.Comment != "old" || c.Default.Value.String() != `"x"` {
			t.Errorf("a was %+v", c)
		}
		if c := after.table.Columns[1]; c.Comment != "" || c.Default.Kind != capture.NoDefault {
			t.Errorf("a is %+v", c)
		}
		if c := after.table.Columns[2]; c.Comment != "kept" || c.Default.Value.Int() != 7 {
			t.Errorf("b is %+v", c)
		}
		b := capture.NewBatch()
		defer b.Release()
		rows, err := decodeLog(events, l.mariadb, b, func(id capture.TableID) *tableFacts { return l.facts(id.Name) })
		if err != nil {
			t.Fatal(err)
		}
		if v := rows[0].after[3]; v.String() != `"q"` {
			t.Errorf("the label is %s", v)
		}
	})
}

// TestTableMap_TakesNamesOnlyFromADefinitionThatAgrees: what the log says itself of a column
// without binlog_row_metadata = FULL must be what the catalog says.
func TestTableMap_TakesNamesOnlyFromADefinitionThatAgrees(t *testing.T) {
	column := func(name, columnType, charset string) columnFacts {
		return columnFacts{name: name, columnType: columnType, charset: charset}
	}
	m := &tableMap{signs: true, shapes: true, columns: []logColumn{
		{typ: typeLong, unsigned: true}, {typ: typeVarchar, meta: 40, charset: utf8mb4, nullable: true}, {typ: typeEnum, meta: 1}, {typ: typeGeometry, meta: 4, geometry: 1},
	}}
	right := func() []columnFacts {
		v := column("v", "varchar(10)", "utf8mb4")
		v.nullable = true
		return []columnFacts{column("id", "int(10) unsigned", ""), v, column("e", "enum('a','b')", "utf8mb3"), column("g", "point", "")}
	}
	f := &tableFacts{columns: right(), rowKey: []string{"id"}}
	got, err := m.namedBy(&definition{facts: f})
	if err != nil {
		t.Fatal(err)
	}
	if !got.named || !slices.Equal(got.key, []int{0}) || got.columns[1].name != "v" || !slices.Equal(got.columns[2].labels, []string{"a", "b"}) || got.columns[2].charset != charsetNamed("utf8mb3") {
		t.Errorf("got %+v", got)
	}
	if m.named || m.columns[0].name != "" {
		t.Errorf("the log's own is %+v", m)
	}
	for i, other := range []columnFacts{
		column("id", "int(10)", ""), column("id", "bigint(20) unsigned", ""), column("v", "varchar(10)", "utf8mb4"),
		{name: "v", columnType: "varchar(40)", charset: "latin1", nullable: true},
		column("e", "enum('a','b')", "utf8mb3"), column("e", "set('a')", "utf8mb3"), column("e", "enum('a','?')", "utf8mb4"), column("g", "linestring", ""), column("g", "curve", ""),
	} {
		f.columns = right()
		at := []int{0, 0, 1, 1, 1, 2, 2, 3, 3}[i]
		f.columns[at] = other
		if _, err := m.namedBy(&definition{facts: f}); !errors.Is(err, capture.ErrUnreadable) {
			t.Errorf("with %s %s: got %v", other.name, other.columnType, err)
		}
	}
	f.columns = right()[:3]
	if _, err := m.namedBy(&definition{facts: f}); !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "3 columns and they have 4") {
		t.Errorf("with a column less: got %v", err)
	}
	// MariaDB says neither signs, nor character sets, nor subtypes with NO_LOG.
	m.signs, m.shapes = false, false
	m.columns[0].unsigned, m.columns[1].charset, m.columns[3].geometry = false, nil, 0
	f.columns = right()
	if got, err = m.namedBy(&definition{facts: f}); err != nil {
		t.Fatal(err)
	}
	if !got.columns[0].unsigned || got.columns[1].charset != utf8mb4 || got.columns[3].geometry != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestDecode_ColumnsThatAnImageLeavesOutAreAbsent(t *testing.T) {
	forEachServer(t, func(t *testing.T, l *typeLab) {
		l.exec("CREATE TABLE i (id int PRIMARY KEY, a int, b text, c int)")
		l.exec("INSERT INTO i VALUES (1, NULL, 'text', 3)")
		change := func() {
			l.exec("UPDATE i SET c = NULL WHERE id = 1")
			l.exec("DELETE FROM i WHERE id = 1")
			l.exec("INSERT INTO i (id, a) VALUES (1, 4)")
		}
		for image, want := range map[string]string{
			"FULL":    "update int:1 null \"text\" int:3 > int:1 null \"text\" null; delete int:1 null \"text\" null > ; insert  > int:1 int:4 null null; ",
			"MINIMAL": "update int:1 absent absent absent > absent absent absent null; delete int:1 absent absent absent > ; insert  > int:1 int:4 absent absent; ",
			"NOBLOB":  "update int:1 null absent int:3 > int:1 null absent null; delete int:1 null absent null > ; insert  > int:1 int:4 absent null; ",
		} {
			l.exec("SET binlog_row_image = 'FULL'")
			l.exec("REPLACE INTO i VALUES (1, NULL, 'text', 3)")
			l.exec("SET binlog_row_image = '" + image + "'")
			events := l.log(change)
			b := capture.NewBatch()
			rows, err := decodeLog(events, l.mariadb, b, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, r := range rows {
				got += r.op.String() + " " + rowWords(r.before) + " > " + rowWords(r.after) + "; "
			}
			if got != want {
				t.Errorf("%s: got  %s\nwant %s", image, got, want)
			}
			b.Release()
		}
	})
}

func rowWords(row capture.Row) string {
	var s []string
	for _, v := range row {
		s = append(s, v.String())
	}
	return strings.Join(s, " ")
}

func TestPlan_DefaultsAreWhatTheServerWouldStore(t *testing.T) {
	forEachServer(t, func(t *testing.T, l *typeLab) {
		for decl, want := range map[string]string{
			"int DEFAULT 5": "int:5", "int": "", "int NOT NULL": "", "int DEFAULT NULL": "", "bigint unsigned DEFAULT 18446744073709551615": "uint:18446744073709551615",
			"int(6) zerofill DEFAULT 42": "int:42", "bool DEFAULT true": "int:1", "decimal(10,2) DEFAULT 1.5": "decimal:1.50", "double DEFAULT 1e10": "float:1e+10",
			"float DEFAULT -1.5": "float:-1.5", "float(7,3) DEFAULT 1234.567": "float:1234.567", "float DEFAULT 0.1": "float:0.10000000149011612", "bit(10) DEFAULT b'101'": "0x0500", "bit DEFAULT 1": "true", "year DEFAULT 2020": "int:2020",
			`varchar(20) DEFAULT 'it''s'`: `"it's"`, `varchar(20) DEFAULT 'a\\b\n"c'`: `"a\\b\n\"c"`, "varchar(10) DEFAULT 'NULL'": `"NULL"`, "varchar(10) DEFAULT ''": `""`,
			"varchar(10) CHARACTER SET utf16 DEFAULT 'aé日'": `"aé日"`, "char(5) CHARACTER SET latin1 DEFAULT 'é€'": `"é€"`, "varchar(30) DEFAULT 'current_timestamp()'": `"current_timestamp()"`,
			"binary(3) DEFAULT 'ab'": "0x616200", "varbinary(5) DEFAULT 'ab'": "0x6162", "enum('a','b') DEFAULT 'b'": `"b"`, "set('a','b') DEFAULT 'a,b'": `"a,b"`,
			"varchar(10) DEFAULT 'x😀?é'": `"x😀?é"`, "varchar(10) NOT NULL DEFAULT '?'": `"?"`, "varchar(10) CHARACTER SET utf16 DEFAULT '日😀'": `"日😀"`, "char(5) DEFAULT '😀'": `"😀"`,
			"varchar(10) DEFAULT (concat('?', '😀'))": "", "varchar(10) GENERATED ALWAYS AS (concat(id, '?😀')) STORED": "", "enum('😀','?') DEFAULT '😀'": `"😀"`, "set('😀','?') DEFAULT '?,😀'": `"😀,?"`,
			"binary(3) DEFAULT 0x00ff": "0x00ff00", "varbinary(5) DEFAULT 0x3f00ff": "0x3f00ff", "varbinary(5) NOT NULL DEFAULT 0xc3a9": "0xc3a9", "varbinary(5) DEFAULT ''": "0x",
			"date DEFAULT '2020-01-01'": "date:18262", "date NOT NULL DEFAULT '0000-00-00'": "zero", "date DEFAULT '0000-00-00'": "", "time(2) DEFAULT '-01:02:03.45'": "time:-3723450000",
			"datetime(3) DEFAULT '2020-01-01 00:00:00.123'": "timestamp:1577836800123000", "datetime DEFAULT CURRENT_TIMESTAMP": "zero", "datetime(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)": "zero",
			"timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP": "zero", "timestamp NULL DEFAULT CURRENT_TIMESTAMP": "", "timestamp NULL DEFAULT '2020-01-01 00:00:00'": "timestamptz:1577836800000000",
			"int GENERATED ALWAYS AS (1 + 1) STORED": "",
		} {
			l.exec("CREATE TABLE d (id int PRIMARY KEY, v " + strings.ReplaceAll(decl, "\n", `\n`) + ")")
			f := l.facts("d")
			f.unlogged = false // generated columns are among them
			p, err := scanPlan(nil, f)
			if err != nil {
				t.Errorf("%s: %v", decl, err)
			} else {
				got := ""
				switch d := p.table.Columns[1].Default; d.Kind {
				case capture.DefaultZero:
					got = "zero"
				case capture.DefaultLiteral:
					got = d.Value.String()
				}
				if got != want {
					t.Errorf("%s: got %s, want %s", decl, got, want)
				}
			}
			l.exec("DROP TABLE d")
		}
	})
}

func TestPlan_HiddenColumnsAreTheSameInLogAndCatalog(t *testing.T) {
	forNewServers(t, func(t *testing.T, l *typeLab) {
		l.exec("CREATE TABLE h (id int PRIMARY KEY, a int, i int INVISIBLE DEFAULT 9)")
		want := "id, a, i"
		if !l.mariadb {
			l.exec("CREATE INDEX f ON h ((a + 1))") // keeps its values in a column of its own
			l.exec("SET sql_generate_invisible_primary_key = ON")
			l.exec("CREATE TABLE g (v int)")
		}
		events := l.log(func() {
			l.exec("INSERT INTO h (id, a) VALUES (1, 2)")
			if !l.mariadb {
				l.exec("INSERT INTO g VALUES (3)")
			}
		})
		b := capture.NewBatch()
		defer b.Release()
		rows, err := decodeLog(events, l.mariadb, b, func(id capture.TableID) *tableFacts { return l.facts(id.Name) })
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			table := r.plan.table
			p, err := scanPlan(nil, l.facts(table.ID.Name))
			if err != nil {
				t.Fatal(err)
			}
			if !p.table.Equal(table) {
				t.Errorf("the log has %+v and the catalog %+v", table, p.table)
			}
			var names []string
			for _, c := range table.Columns {
				names = append(names, c.Name)
			}
			if got := strings.Join(names, ", "); got != want {
				t.Errorf("%s has the columns %s, want %s", table.ID.Name, got, want)
			}
			want = "my_row_id, v"
		}
		if got := rowWords(rows[0].after); got != "int:1 int:2 int:9" {
			t.Errorf("got the row %s", got)
		}
		if !l.mariadb && !slices.Equal(rows[1].plan.table.Key, []int{0}) {
			t.Errorf("the generated primary key is %v", rows[1].plan.table.Key)
		}
	})
}

func TestDecode_CompressedColumnsInBothFrames(t *testing.T) {
	forMariaDB(t, func(t *testing.T, l *typeLab) {
		l.exec("CREATE TABLE c (id int PRIMARY KEY, v text COMPRESSED CHARACTER SET utf8mb4)")
		events := l.log(func() {
			l.exec("INSERT INTO c VALUES (1, repeat('日本', 500))")
			l.exec("SET column_compression_zlib_wrap = ON")
			l.exec("INSERT INTO c VALUES (2, repeat('日本', 500))")
		})
		b := capture.NewBatch()
		defer b.Release()
		rows, err := decodeLog(events, true, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if got := string(r.after[1].Bytes()); got != strings.Repeat("日本", 500) {
				t.Errorf("row %s: got %.100q", r.after[0], got)
			}
		}
		if len(rows) != 2 {
			t.Errorf("got %d rows", len(rows))
		}
	})
}
