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

const someUUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"

func TestPosition_IsReadAsItWasWritten(t *testing.T) {
	for _, text := range []string{
		`{"source":{"flavor":"mysql","server":"` + someUUID + `","wire":"rows"},"gtid":"` + someUUID + `:1-5:7:blue:1-3","file":"binlog.000003","pos":6442450944,"began":1767220000,"commit_ts":1767225600123456}`,
		`{"source":{"flavor":"mysql","server":"` + someUUID + `","wire":"rows"},"gtid":"","file":"binlog.000001","pos":4}`,
		`{"source":{"flavor":"mysql","server":"` + someUUID + `","wire":"rows"},"file":"a \"name\".000001","pos":157,"prepared":[{"xid":"X'61',X'',1","file":"binlog.000001","pos":99}]}`,
		`{"source":{"flavor":"mariadb","server":"1","wire":"rows"},"gtid":"0-1-9,3-2-1","file":"b.000001","pos":8,"prepared":[{"xid":"X'61',X'',1","gtid":"0-1-8","before":"0-1-7","file":"b.000001","pos":4}]}`,
	} {
		p, err := parsePosition(capture.Position(text))
		if err != nil {
			t.Error(err)
			continue
		}
		w, err := newPositionWriter(p.Source)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := w.write(&p); err != nil || string(got) != text {
			t.Errorf("got %s (%v)\nwant %s", got, err, text)
		}
	}
	for _, text := range []string{"", "{}", `{"source":{"flavor":"oracle"},"file":"x"}`, `{"source":{"flavor":"mysql"},"gtid":"x","file":"x"}`} {
		if _, err := parsePosition(capture.Position(text)); !errors.Is(err, capture.ErrPositionLost) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestGTIDs_AddedInAnyOrderAreOneSet(t *testing.T) {
	set, err := parseGTIDs(mySQL, someUUID+":1-3,\n"+someUUID+":blue:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{someUUID + ":5", someUUID + ":4", someUUID + ":6", someUUID + ":blue:3", someUUID + ":red:1", "4e11fa47-71ca-11e1-9e33-c80aa9429562:1"} {
		g, ok := parseGTID([]byte(text))
		if !ok || g.String() != text {
			t.Fatalf("%s is read as %s", text, &g)
		}
		if hasGTID(set, &g) {
			t.Errorf("%s is there before it was added", text)
		}
		if err := addGTID(set, &g); err != nil {
			t.Fatal(err)
		}
		if !hasGTID(set, &g) {
			t.Errorf("%s is not there after it was added", text)
		}
	}
	if want := someUUID + ":1-6:blue:1:3:red:1,4e11fa47-71ca-11e1-9e33-c80aa9429562:1"; set.String() != want {
		t.Errorf("got %s, want %s", set, want)
	}
	set, err = parseGTIDs(mariaDB, "0-1-5,2-1-7")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"0-2-6", "7-1-1"} {
		g, ok := parseGTID([]byte(text))
		if !ok {
			t.Errorf("%s is not read", text)
		}
		if err := addGTID(set, &g); err != nil {
			t.Fatal(err)
		}
	}
	if set.String() != "0-2-6,2-1-7,7-1-1" {
		t.Errorf("got %s", set)
	}
	for _, text := range []string{"", "x", "binlog.000001:4", "1-2"} {
		if g, ok := parseGTID([]byte(text)); ok {
			t.Errorf("%q is read as %s", text, &g)
		}
	}
}

func TestPlaces_GoOnBeyond4GiB(t *testing.T) {
	for _, c := range []struct {
		pos       uint64
		size, low uint32
		want      uint64
	}{
		{4, 122, 126, 126},
		{100, 50, 0, 150},
		{1<<32 - 10, 20, 10, 1<<32 + 10},
		{1<<32 - 10, 20, 0, 1<<32 + 10},
		{3<<32 + 5, 95, 100, 3<<32 + 100},
		{500, 40, 9000, 9000}, // others were left out before it
	} {
		if got := forward(c.pos, c.size, c.low); got != c.want {
			t.Errorf("from %d by %d to %d: got %d, want %d", c.pos, c.size, c.low, got, c.want)
		}
	}
	ordered := []place{{"b.000001", 4}, {"b.000001", 5 << 30}, {"b.000002", 4}, {"b.999999", 4}, {"b.1000000", 4}}
	if !slices.IsSortedFunc(ordered, func(a, b place) int { return int(a.number()>>20) - int(b.number()>>20) }) {
		t.Errorf("the order of %v is not kept", ordered)
	}
	logs := []place{{"b.000001", 1000}, {"b.000002", 2000}, {"b.000003", 300}}
	for at, want := range map[place]uint64{{"b.000001", 1000}: 2300, {"b.000002", 500}: 1800, {"b.000003", 300}: 0} {
		if got := backlog(logs, at.number()); got != want {
			t.Errorf("behind %s are %d bytes, want %d", at, got, want)
		}
	}
	srv := &server{flavour: mySQL}
	d, err := srv.dumpFrom(&position{At: place{"b.000001", 5 << 30}})
	if err != nil || d.file != "b.000001" || d.pos != 4 {
		t.Errorf("a place beyond 4 GiB is asked for as %s:%d (%v)", d.file, d.pos, err)
	}
}

func TestStatement_SaysWhatMatters(t *testing.T) {
	id := func(s, n string) capture.TableID { return capture.TableID{Schema: s, Name: n} }
	for _, c := range []struct {
		sql   string
		kind  statementKind
		table capture.TableID
		xid   string
		opens bool
	}{
		{sql: "BEGIN", kind: stBegin},
		{sql: "COMMIT", kind: stCommit},
		{sql: "/* x */ START TRANSACTION", kind: stBegin},
		{sql: "rollback", kind: stRollback},
		{sql: "ROLLBACK WORK TO SAVEPOINT `a`", kind: stRollbackTo},
		{sql: "SAVEPOINT `to`", kind: stSavepoint},
		{sql: "XA START X'61',X'',1", kind: stXAStart, xid: "X'61',X'',1"},
		{sql: "XA COMMIT X'61',X'',1 ONE PHASE", kind: stXACommit, xid: "X'61',X'',1"},
		{sql: "XA ROLLBACK X'61',X'',1", kind: stXARollback, xid: "X'61',X'',1"},
		{sql: "# Dummy event", kind: stNothing},
		{sql: "", kind: stNothing},
		{sql: "-- all of it\nTRUNCATE t", kind: stTruncate, table: id("shop", "t")},
		{sql: "TRUNCATE TABLE `other`.`it``s`", kind: stTruncate, table: id("other", "it`s")},
		{sql: "truncate/**/table/*!50000 `t` */", kind: stTruncate, table: id("shop", "t")},
		{sql: "CREATE TABLE `t` (\n `id` int COMMENT 'START TRANSACTION'\n)", kind: stDefinition},
		{sql: "CREATE TABLE `t` (\n `id` int\n) START TRANSACTION", kind: stDefinition, opens: true},
		{sql: "ALTER TABLE t ADD COLUMN c int", kind: stDefinition, table: id("shop", "t")},
		{sql: "ALTER TABLE a.t TRUNCATE PARTITION p0", kind: stPartition, table: id("a", "t")},
		{sql: "ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u", kind: stPartition, table: id("shop", "t")},
		{sql: "ALTER TABLE t IMPORT TABLESPACE", kind: stPartition, table: id("shop", "t")},
		{sql: "ALTER DATABASE shop CHARACTER SET utf8mb4", kind: stDefinition},
		{sql: "DROP TABLE `t` /* generated by server */", kind: stDefinition},
		{sql: "GRANT SELECT ON *.* TO u", kind: stDefinition},
		{sql: "CREATE PROCEDURE p() START TRANSACTION", kind: stDefinition},
		{sql: "CREATE TABLE t SELECT * FROM u", kind: stRows},
		{sql: "CREATE OR REPLACE TABLE a.`select` (a int) IGNORE AS (SELECT 1)", kind: stRows},
		{sql: "CREATE TABLE IF NOT EXISTS t WITH c AS (SELECT 1 AS a) TABLE c", kind: stRows},
		{sql: "CREATE TEMPORARY TABLE t VALUES ROW(1)", kind: stRows},
		{sql: "CREATE TABLE t SELECT * FROM start transaction", kind: stRows},
		{sql: "CREATE TABLE t LIKE other.`table`", kind: stDefinition},
		{sql: "CREATE TABLE t (a int) PARTITION BY LIST (a) (PARTITION p VALUES IN (1), PARTITION q VALUES LESS THAN (2)) START TRANSACTION", kind: stDefinition, opens: true},
		{sql: "CREATE VIEW v AS SELECT 1", kind: stDefinition},
		{sql: "SET STATEMENT lock_wait_timeout=5, sql_mode='FOR' FOR TRUNCATE TABLE t", kind: stTruncate, table: id("shop", "t")},
		{sql: "SET STATEMENT max_statement_time=1 FOR CREATE TABLE t SELECT 1", kind: stRows},
		{sql: "SET PASSWORD FOR u = 'x'", kind: stDefinition},
		{sql: "ANALYZE TABLE t", kind: stDefinition},
		{sql: "ANALYZE UPDATE t SET a = 1", kind: stRows},
		{sql: "INSERT INTO t VALUES ('a;b')", kind: stRows, table: id("shop", "t")},
		{sql: "UPDATE LOW_PRIORITY a.t SET x = 1", kind: stRows, table: id("a", "t")},
		{sql: "UPDATE t, u SET t.x = 1", kind: stRows},
		{sql: "DELETE QUICK FROM t WHERE x", kind: stRows, table: id("shop", "t")},
		{sql: "DELETE FROM t USING t JOIN u", kind: stRows},
		{sql: "DELETE t FROM t JOIN u", kind: stRows},
		{sql: "/*M! UPDATE */ t SET x = 1", kind: stRows, table: id("shop", "t")},
		{sql: "WITH c AS (SELECT 1) DELETE FROM t", kind: stRows},
		{sql: "FROBNICATE t", kind: stUnknown},
		{sql: "`quoted`", kind: stUnknown},
	} {
		s := parseStatement([]byte("shop"), []byte(c.sql), dialect{})
		if s.kind != c.kind || s.table != c.table || s.xid != c.xid || s.opens != c.opens {
			t.Errorf("%s: got %+v", c.sql, s)
		}
	}
	names := parseStatement([]byte("shop"), []byte("UPDATE a, `other`.`b c` SET a.x = 'no.name' + 15 + p.f() WHERE a.id IN (SELECT id FROM d)"), dialect{}).names
	for _, want := range []capture.TableID{id("shop", "a"), id("other", "b c"), id("shop", "d"), id("p", "f"), id("shop", "p")} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not among %v", want, names)
		}
	}
	if slices.ContainsFunc(names, func(n capture.TableID) bool { return n.Name == "15" || n.Name == "no.name" }) {
		t.Errorf("a value is among %v", names)
	}
}

func TestStatement_SaysWhichDefinitionsItMayChange(t *testing.T) {
	for _, c := range []struct {
		sql     string
		changes string // of shop.t, shop.u, other.t and other.u, those that it may change
		any     bool
	}{
		{sql: "ALTER TABLE t ADD x int", changes: "shop.t"},
		{sql: "alter online ignore table if exists `t` ADD x int", changes: "shop.t"},
		{sql: "ALTER TABLE other.t ADD u int", changes: "other.t"},
		{sql: "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (id)", changes: "shop.t"},
		{sql: "ALTER TABLE t RENAME TO other.u", changes: "shop.t other.u"},
		{sql: "ALTER TABLE t RENAME u", changes: "shop.t shop.u"},
		{sql: "ALTER TABLE t RENAME = u", changes: "shop.t shop.u"},
		{sql: "ALTER TABLE t CONVERT PARTITION p TO TABLE u", changes: "shop.t shop.u"},
		{sql: "SET STATEMENT lock_wait_timeout = 1 FOR ALTER TABLE T ADD x int", changes: "shop.t"},
		{sql: "CREATE TABLE t (u int REFERENCES u (id))", changes: "shop.t"},
		{sql: "CREATE OR REPLACE TEMPORARY TABLE IF NOT EXISTS other.t LIKE u", changes: "other.t"},
		{sql: "CREATE TABLE t SELECT * FROM u", changes: "shop.t"},
		{sql: "CREATE TABLE `t` (\n `id` int\n) START TRANSACTION", changes: "shop.t"},
		{sql: "DROP TABLE IF EXISTS `t`,other.`u` /* generated by server */", changes: "shop.t other.u"},
		{sql: "RENAME TABLE t TO other.t, u TO t", changes: "shop.t other.t shop.u"},
		{sql: "DROP DATABASE IF EXISTS Other", changes: "other.t other.u"},
		{sql: "DROP SCHEMA other", changes: "other.t other.u"},
		{sql: "CREATE UNIQUE INDEX i ON t (a)", changes: "shop.t"},
		{sql: "DROP INDEX i ON t", changes: "shop.t"},
		{sql: "CREATE SEQUENCE t", changes: "shop.t"},
		{sql: "CREATE SOMETHING ON t", changes: "shop.t"},
		{sql: "FROBNICATE t", any: true},
		{sql: "EXECUTE p", any: true},
		{sql: "CALL p()", any: true},
		{sql: "IMPORT TABLE FROM 't.sdi'", any: true},
		{sql: "DROP SOMETHING " + namesOf(70), any: true},
		{sql: "DROP TABLE " + namesOf(70) + ", u RESTRICT", changes: "shop.u"},
		{sql: "ALTER TABLE .t ADD x int", changes: "shop.t"},
		{sql: "ALTER TABLE --\tof the app\n t ADD x int", changes: "shop.t"},
		{sql: "CREATE OR REPLACE DATABASE other", changes: "other.t other.u"},
		{sql: "CREATE OR REPLACE INDEX i ON t (a)", changes: "shop.t"},
		// Of these none.
		{sql: "BEGIN"},
		{sql: "COMMIT"},
		{sql: "SAVEPOINT t"},
		{sql: "XA START 't'"},
		{sql: "TRUNCATE t"},
		{sql: "INSERT INTO t VALUES (1)"},
		{sql: "ANALYZE TABLE t"},
		{sql: "OPTIMIZE TABLE t"},
		{sql: "ALTER DATABASE shop CHARACTER SET latin1"},
		{sql: "CREATE DATABASE other"},
		{sql: "CREATE TABLE IF NOT EXISTS t (a int)"},
		{sql: "CREATE INDEX i ON t (a)"},
		{sql: "CREATE FULLTEXT INDEX IF NOT EXISTS i ON t (a)"},
		{sql: "GRANT ALL ON t TO u"},
		{sql: "CREATE USER u"},
		{sql: "DROP VIEW t"},
		{sql: "FLUSH TABLES t"},
		{sql: "CREATE DEFINER=`root`@`localhost` TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET @a = 1"},
		{sql: "CREATE OR REPLACE VIEW t AS SELECT 1"},
		{sql: "CREATE PROCEDURE p() ALTER TABLE t ADD x int"},
	} {
		s := parseStatement([]byte("shop"), []byte(c.sql), dialect{})
		if s.definesAny != c.any {
			t.Errorf("%s: that it may change any table is %t", c.sql, s.definesAny)
		}
		var got []string
		for _, id := range []capture.TableID{{Schema: "shop", Name: "t"}, {Schema: "shop", Name: "u"}, {Schema: "other", Name: "t"}, {Schema: "other", Name: "u"}} {
			if s.mayDefine(id) {
				got = append(got, id.String())
			}
		}
		want := strings.Fields(c.changes)
		slices.Sort(want)
		if slices.Sort(got); !c.any && !slices.Equal(got, want) {
			t.Errorf("%s: it may change %q, want %q", c.sql, got, want)
		}
		if s.defining() != (c.any || c.changes != "") {
			t.Errorf("%s: that it changes definitions is %t", c.sql, s.defining())
		}
	}
	if s := parseStatement([]byte("shop"), []byte("CREATE TABLE IF NOT EXISTS other.t (a int)"), dialect{}); s.offers != (capture.TableID{Schema: "other", Name: "t"}) {
		t.Errorf("of a table that may be there: got %+v", s)
	}
	// Read as the session meant it.
	const ansi, latin1, sjis = 1 << 2, 8, 13
	status := func(mode, collation byte) []byte {
		return []byte{1, mode, 0, 0, 0, 0, 0, 0, 0, 4, collation, 0, 8, 0, 8, 0}
	}
	if s := readStatement([]byte("shop"), []byte(`DROP TABLE "a\", "t"`), dialectOf(status(ansi, latin1), false)); !s.mayDefine(capture.TableID{Schema: "shop", Name: "t"}) {
		t.Errorf("with ANSI_QUOTES: got %+v", s)
	}
	if s := readStatement([]byte("shop"), []byte("ALTER TABLE \x83"), dialectOf(status(0, sjis), false)); !s.definesAny {
		t.Errorf("what is no text of its character set: got %+v", s)
	}
}

func namesOf(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("t%d", i)
	}
	return strings.Join(names, ", ")
}

func TestStatement_IsReadAsItsSessionWroteIt(t *testing.T) {
	status := func(mode uint32, collation byte) []byte {
		return []byte{0, 1, 2, 3, 4, 1, byte(mode), byte(mode >> 8), byte(mode >> 16), 0, 0, 0, 0, 0, 6, 3, 's', 't', 'd', 3, 1, 0, 1, 0, 4, collation, 0, 8, 0, 8, 0, 5, 0}
	}
	const latin1, sjis, utf8mb4General, ansi, noEscapes = 8, 13, 45, 1 << 2, 1 << 20
	for _, c := range []struct {
		name, sql string
		status    []byte
		fold      bool
		kind      statementKind
		table     string
	}{
		{"in latin1", "TRUNCATE TABLE `t\xe9`", status(0, latin1), false, stTruncate, "té"},
		{"a quoted name", `TRUNCATE TABLE "a\b"`, status(ansi, latin1), false, stTruncate, `a\b`},
		{"in UTF-8", "TRUNCATE TABLE té", status(0, utf8mb4General), false, stTruncate, "té"},
		{"in no character set", "TRUNCATE TABLE té", nil, false, stTruncate, "té"},
		{"not in its character set", "TRUNCATE TABLE `t\xe9`", status(0, utf8mb4General), false, stIllegible, "t\xe9"},
		{"with a backslash in a character", "TRUNCATE TABLE \"\x83\x5c\"", status(0, sjis), false, stTruncate, "ソ"},
		{"by the server", "TRUNCATE TABLE `té` /* generated by server */", status(0, latin1), false, stTruncate, "té"},
		{"without case", "TRUNCATE TABLE Tä", status(0, utf8mb4General), true, stTruncate, "tä"},
		{"with case", "TRUNCATE TABLE Tä", status(0, utf8mb4General), false, stTruncate, "Tä"},
		{"without case, behind settings", "SET STATEMENT a=1 FOR TRUNCATE Tä", status(0, utf8mb4General), true, stTruncate, "tä"},
		{"with backslashes", `SET STATEMENT a='\' FOR' FOR TRUNCATE t`, status(0, latin1), false, stTruncate, "t"},
		{"with backslashes that guard nothing", `SET STATEMENT a='\' FOR TRUNCATE t`, status(noEscapes, latin1), false, stTruncate, "t"},
	} {
		s := readStatement([]byte("Shop"), []byte(c.sql), dialectOf(c.status, c.fold))
		want := capture.TableID{Schema: "Shop", Name: c.table}
		if c.fold {
			want.Schema = "shop"
		}
		if s.kind != c.kind || s.table != want {
			t.Errorf("%s: got %d of %s", c.name, s.kind, s.table)
		}
	}
}

func FuzzStatement(f *testing.F) {
	for _, sql := range []string{"'", "`a``b`", "/*", "/*!50000 x */", "XA COMMIT X'61',X'',1", "TRUNCATE a.b", "ALTER TABLE t DROP PARTITION p", "\\", "'\\", "# x", "-- x\n"} {
		f.Add([]byte(sql))
	}
	f.Fuzz(func(t *testing.T, sql []byte) {
		s := parseStatement([]byte("shop"), sql, dialect{})
		if again := parseStatement([]byte("shop"), append([]byte("/* c */ "), sql...), dialect{}); again.kind != s.kind {
			t.Errorf("%q is %d, and %d behind a comment", sql, s.kind, again.kind)
		}
	})
}

func TestStream_StopsAtWhatItDoesNotKnow(t *testing.T) {
	st := &stream{srv: &server{flavour: mySQL}, start: place{"b.000001", 4}}
	for _, c := range []struct {
		h    header
		body string
		want string
	}{
		{header{typ: replication.INCIDENT_EVENT}, "\x01\x00\x04lost", "changes are missing from it (lost)"},
		{header{typ: 77}, "", "unknown type 77"},
		{header{typ: replication.XID_EVENT}, "12345678", "did not begin"},
		{header{typ: replication.WRITE_ROWS_EVENTv2}, "", "outside of a transaction"},
		{header{typ: replication.QUERY_EVENT}, "short", "unknown form"},
		{header{typ: replication.GTID_EVENT}, "short", "too short"},
	} {
		err := st.dispatch(t.Context(), &c.h, []byte(c.body))
		if !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "b.000001:4") {
			t.Errorf("%v: got %v, want %q", c.h, err, c.want)
		}
	}
	if err := st.dispatch(t.Context(), &header{typ: 77, flags: replication.LOG_EVENT_IGNORABLE_F}, nil); err != nil {
		t.Errorf("an unknown event that may be ignored: got %v", err)
	}
	damaged := []byte("\x00\x00\x00\x00\x10\x01\x00\x00\x00\x1f\x00\x00\x00\x00\x00\x00\x00\x00\x0012345678crc.")
	st.checksums = true
	if err := st.event(t.Context(), damaged); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a wrong checksum: got %v", err)
	}
}

func TestStream_TaggedTransactionsArePassed(t *testing.T) {
	t.Parallel()
	l := newLab(t, "MySQL 9")
	l.exec("CREATE TABLE t (id int PRIMARY KEY)")
	l.replayed(func() {
		l.exec("SET gtid_next = 'AUTOMATIC:blue'", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)", "SET gtid_next = 'AUTOMATIC'", "INSERT INTO t VALUES (3)")
	}, "insert t id=int:1", "insert t id=int:2", "insert t id=int:3")
	at, err := parsePosition(l.start().At)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(at.GTIDs.String(), ":blue:1") {
		t.Errorf("the position is %s", at.GTIDs)
	}
}

func TestStream_DomainsOfMariaDBArePassedOneByOne(t *testing.T) {
	t.Parallel()
	l := privateLab(t, "MariaDB 11")
	l.exec("CREATE TABLE t (id int PRIMARY KEY)")
	l.replayed(func() {
		for i := range 6 {
			l.exec(fmt.Sprintf("SET SESSION gtid_domain_id = %d", i%3), fmt.Sprintf("INSERT INTO t VALUES (%d)", i))
		}
		l.exec("SET SESSION gtid_domain_id = 0")
	}, "insert t id=int:0", "insert t id=int:1", "insert t id=int:2", "insert t id=int:3", "insert t id=int:4", "insert t id=int:5")
}
