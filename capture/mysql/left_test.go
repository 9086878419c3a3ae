package mysql

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
)

// bothPaths streams from r until n changes have come, reads the tables, and wants one
// definition of each table on both paths. It returns the lines of both.
func (l *lab) bothPaths(r capture.Resume, n int, tables ...string) (changes, rows []string) {
	l.t.Helper()
	s := l.source()
	scanner := s.Scanner()
	logged := make(map[string]*capture.Table)
	err := l.batches(s, r, func(b *capture.Batch) error {
		for i := range b.Events {
			if ev := &b.Events[i]; ev.Kind == capture.Change {
				changes = append(changes, textOf(ev))
				logged[ev.Table.ID.Name] = ev.Table
			}
		}
		if len(changes) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		l.t.Fatalf("after\n\t%s\nthe stream ended: %v", strings.Join(changes, "\n\t"), err)
	}
	stop := l.stream(s, r)
	defer stop()
	for _, table := range tables {
		target := l.target(scanner, table)
		v, err := scanner.View(l.t.Context(), target)
		if err != nil {
			l.t.Fatal(err)
		}
		c, err := v.Scan(l.t.Context(), target, nil, 64<<20)
		if err != nil {
			l.t.Fatal(err)
		}
		if c.Table != logged[table] {
			l.t.Errorf("%s: a read has the definition %+v, and the log %+v", table, c.Table, logged[table])
		}
		for i := range c.Events {
			rows = append(rows, table+rowText(c.Table, c.Events[i].After))
		}
		c.Release()
		if err := v.Close(); err != nil {
			l.t.Fatal(err)
		}
	}
	return changes, rows
}

func TestGeneratedColumns_AreShownOnBothPathsOrOnNone(t *testing.T) {
	t.Parallel()
	const without = "without"
	for kind, image := range map[string]string{
		"MySQL 8.0": "FULL", "MySQL 9": "NOBLOB", "MariaDB 10.11": "FULL", "MariaDB 11": "FULL",
		"MariaDB 10.11 " + without: "NOBLOB", "MariaDB 11 " + without: "NOBLOB",
	} {
		kind := strings.TrimSuffix(kind, " "+without)
		t.Run(strings.ReplaceAll(kind, " ", "")+image, func(t *testing.T) {
			t.Parallel()
			l := privateLab(t, kind, "binlog_row_image="+image)
			l.exec("CREATE TABLE t (id int PRIMARY KEY, g int AS (a + 1) VIRTUAL, a int, h int AS (a + 2) STORED, z int)",
				"CREATE TABLE n (g int AS (a + 1) STORED UNIQUE, a int, z int UNIQUE)")
			r := l.start()
			l.exec("INSERT INTO t (id, a, z) VALUES (1, 1, 5)", "UPDATE t SET a = 11", "INSERT INTO n (a, z) VALUES (1, 6)", "UPDATE n SET a = 11",
				"INSERT INTO t (id, a) VALUES (2, 2)", "DELETE FROM t WHERE id = 2")
			changes, rows := l.bothPaths(r, 6, "t", "n")
			want := []string{
				"insert t id=int:1 g=int:2 a=int:1 h=int:3 z=int:5", "update t before id=int:1 g=int:2 a=int:1 h=int:3 z=int:5 id=int:1 g=int:12 a=int:11 h=int:13 z=int:5",
				"insert n g=int:2 a=int:1 z=int:6", "update n before g=int:2 a=int:1 z=int:6 g=int:12 a=int:11 z=int:6",
				"insert t id=int:2 g=int:3 a=int:2 h=int:4 z=null", "delete t before id=int:2 g=int:3 a=int:2 h=int:4 z=null",
				"t id=int:1 g=int:12 a=int:11 h=int:13 z=int:5", "n g=int:12 a=int:11 z=int:6",
			}
			hidden := kind == "MariaDB 11" || kind == "MariaDB 10.11" && image != "FULL"
			if hidden {
				want = []string{
					"insert t id=int:1 a=int:1 z=int:5", "update t before id=int:1 a=int:1 z=int:5 id=int:1 a=int:11 z=int:5",
					"insert n a=int:1 z=int:6", "update n before a=int:1 z=int:6 a=int:11 z=int:6",
					"insert t id=int:2 a=int:2 z=null", "delete t before id=int:2 a=int:2 z=null",
					"t id=int:1 a=int:11 z=int:5", "n a=int:11 z=int:6",
				}
			}
			if got := slices.Concat(changes, rows); !slices.Equal(got, want) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
			if told := strings.Contains(findings(t, l.source()), fmt.Sprintf("%s.n.g, %[1]s.t.g, %[1]s.t.h; they are left out", l.name)); told != hidden {
				t.Errorf("that check tells of the columns is %t; it finds:\n%s", told, findings(t, l.source()))
			}
		})
	}
}

// stops wants the stream from r to stop for good before any change comes, with these words.
func (l *lab) stops(r capture.Resume, words ...string) {
	l.t.Helper()
	var got []string
	err := l.follow(l.source(), r, func(p piece) error {
		if got = append(got, p.lines...); len(got) > 0 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, capture.ErrUnreadable) {
		l.t.Errorf("got %q, %v", got, err)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			l.t.Errorf("%q is not in: %v", w, err)
		}
	}
}

func TestGeneratedColumns_ThatMayHaveChangedUnseenStopTheStream(t *testing.T) {
	t.Parallel()
	const table = "(id int PRIMARY KEY, a int, g int AS (a + 1) VIRTUAL)"
	l := newLab(t, "MariaDB 10.11")
	l.exec("CREATE TABLE t "+table, "CREATE TABLE x (id int PRIMARY KEY, a int, g text AS (CONCAT(a, 'x')) VIRTUAL)", "INSERT INTO t (id, a) VALUES (1, 1)", "INSERT INTO x (id, a) VALUES (1, 1)")
	for image, name := range map[string]string{"MINIMAL": "t", "NOBLOB": "x"} {
		r := l.start()
		l.exec("SET SESSION binlog_row_image = '"+image+"'", "UPDATE "+name+" SET a = a + 10", "SET SESSION binlog_row_image = 'FULL'")
		l.stops(r, `the log leaves column "g" out of a changed row of `+l.name+"."+name+", and the column is generated", "; remedy: SET GLOBAL binlog_row_image = 'FULL'")
	}
	// Gone by the time at which its rows are read.
	l = newLab(t, "MariaDB 11")
	l.exec("CREATE TABLE t "+table, "INSERT INTO t (id, a) VALUES (1, 1)")
	r := l.start()
	l.exec("UPDATE t SET a = 2", "ALTER TABLE t DROP g")
	l.stops(r, "may have been generated")
	// An ordinary one by then, which a full image would have.
	for name, columns := range map[string]string{
		"w": "(id int PRIMARY KEY DEFAULT 1, a int, g int AS (a + 1) STORED)", "keyless": "(a int, g text AS (a + 1) STORED)", "texts": "(id int PRIMARY KEY DEFAULT 1, a text, g text AS (a) STORED)",
	} {
		l.exec("CREATE TABLE "+name+" "+columns, "INSERT INTO "+name+" (a) VALUES (1)")
		r := l.start()
		l.exec("UPDATE "+name+" SET a = 2", "ALTER TABLE "+name+" MODIFY g "+strings.Fields(columns[strings.Index(columns, " g "):])[1])
		l.stops(r, `the log leaves column "g" out of a changed row of `+l.name+"."+name+", and the column was a generated one", "; remedy: "+readAnew)
	}
	l.exec("CREATE TABLE ordinary (id int PRIMARY KEY, a int, b int, c text, d text)", "INSERT INTO ordinary VALUES (1, 1, 1, 'c', 'd')")
	r = l.start()
	l.exec("SET SESSION binlog_row_image = 'MINIMAL'", "UPDATE ordinary SET a = 2", "SET SESSION binlog_row_image = 'NOBLOB'", "UPDATE ordinary SET a = 3, c = 'e'", "SET SESSION binlog_row_image = 'FULL'")
	expect(
		t, l.record(l.source(), r),
		"update ordinary before id=int:1 a=absent b=absent c=absent d=absent id=int:1 a=int:2 b=unchanged c=unchanged d=unchanged",
		"update ordinary before id=int:1 a=int:2 b=int:1 c=absent d=absent id=int:1 a=int:3 b=int:1 c=\"e\" d=unchanged",
	)
	// Known from before.
	l.exec("CREATE TABLE u "+table, "INSERT INTO u (id, a) VALUES (1, 1)")
	l.live(l.start(),
		step{[]string{"UPDATE u SET a = 2"}, []string{"update u before id=int:1 a=int:1 id=int:1 a=int:2"}},
		step{[]string{"FLUSH TABLES u", "UPDATE u SET a = 3", "ALTER TABLE u DROP g"}, []string{"update u before id=int:1 a=int:2 id=int:1 a=int:3"}},
		step{[]string{"FLUSH TABLES u", "UPDATE u SET a = 4", "DROP TABLE u"}, []string{"update u before id=int:1 a=int:3 id=int:1 a=int:4"}})
}

func TestHiddenColumns_OfMariaDBsIndexesAreNotShown(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		for _, setting := range append(unnamedBy(kind), "FULL") {
			l := privateLab(t, kind, "binlog_row_metadata="+setting)
			l.exec("CREATE TABLE t (id int PRIMARY KEY, b text UNIQUE, z int, UNIQUE (z, b))", "CREATE TABLE u (b text NOT NULL UNIQUE, z int)",
				"CREATE TABLE v (id int PRIMARY KEY, b blob UNIQUE) WITH SYSTEM VERSIONING", "CREATE TABLE w (b text NOT NULL UNIQUE) WITH SYSTEM VERSIONING",
				"CREATE TABLE m (id int, z int, PRIMARY KEY (id) USING HASH, UNIQUE (z) USING HASH) ENGINE = MEMORY",
				"CREATE TABLE o (id int PRIMARY KEY, DB_ROW_HASH_1 bigint unsigned)")
			r := l.start()
			l.exec("INSERT INTO t VALUES (1, 'x', 2)", "UPDATE t SET b = 'y'", "INSERT INTO u VALUES ('x', 3)", "DELETE FROM u", "INSERT INTO u VALUES ('x', 3)",
				"INSERT INTO v VALUES (1, 'x')", "UPDATE v SET b = 'y'", "INSERT INTO w VALUES ('x')", "INSERT INTO m VALUES (1, 2)", "INSERT INTO o VALUES (1, 2)")
			changes, rows := l.bothPaths(r, 10, "t", "u", "v", "w", "m", "o")
			want := []string{
				`insert t id=int:1 b="x" z=int:2`, `update t before id=int:1 b="x" z=int:2 id=int:1 b="y" z=int:2`, `insert u b="x" z=int:3`, `delete u before b="x" z=int:3`, `insert u b="x" z=int:3`,
				`insert v id=int:1 b=0x78`, `update v before id=int:1 b=0x78 id=int:1 b=0x79`, `insert w b="x"`, `insert m id=int:1 z=int:2`, `insert o id=int:1 DB_ROW_HASH_1=uint:2`,
				`t id=int:1 b="y" z=int:2`, `u b="x" z=int:3`, `v id=int:1 b=0x79`, `w b="x"`, `m id=int:1 z=int:2`, `o id=int:1 DB_ROW_HASH_1=uint:2`,
			}
			if got := slices.Concat(changes, rows); !slices.Equal(got, want) {
				t.Errorf("%s: got\n\t%s\nwant\n\t%s", setting, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
		}
	}, "MariaDB 10.11", "MariaDB 11")
}

func TestHiddenColumns_OfFunctionalIndexesAreNotShown(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		const odd = "0123456789abcdef0123456789abcdef"
		l.exec("CREATE TABLE f (id int PRIMARY KEY, a int, KEY ((a + 1)), UNIQUE ((a * 2)))", "ALTER TABLE f ADD z int", "CREATE TABLE o (id int PRIMARY KEY, `"+odd+"` int, z int)")
		r := l.start()
		l.exec("INSERT INTO f VALUES (1, 1, 2)", "UPDATE f SET a = 2", "INSERT INTO o VALUES (1, 2, 3)", "INSERT INTO f VALUES (2, 9, 3)", "DELETE FROM f WHERE id = 2")
		changes, rows := l.bothPaths(r, 5, "f", "o")
		want := []string{
			"insert f id=int:1 a=int:1 z=int:2", "update f before id=int:1 a=int:1 z=int:2 id=int:1 a=int:2 z=int:2", "insert o id=int:1 " + odd + "=int:2 z=int:3",
			"insert f id=int:2 a=int:9 z=int:3", "delete f before id=int:2 a=int:9 z=int:3",
			"f id=int:1 a=int:2 z=int:2", "o id=int:1 " + odd + "=int:2 z=int:3",
		}
		if got := slices.Concat(changes, rows); !slices.Equal(got, want) {
			t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
		// An ordinary column may be called so, and be gone by now.
		l.exec("ALTER TABLE o DROP `" + odd + "`")
		if got := l.record(l.source(), r).lines(); !slices.Contains(got, want[2]) {
			t.Errorf("after it was dropped: got\n\t%s", strings.Join(got, "\n\t"))
		}
	}, "MySQL 8.0", "MySQL 9")
}

func TestLabels_ThatTheCatalogCannotPrintAreTheLogs(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("SET NAMES utf8mb4", "CREATE TABLE e (id int PRIMARY KEY, v enum('🦊','?','a') CHARACTER SET utf8mb4 DEFAULT 'a' COMMENT 'of v', w set('?','😀') CHARACTER SET utf8mb4)")
		wantFindings(t, findings(t, l.source()), l.name+".e.v, "+l.name+".e.w; schemas")
		r := l.start()
		l.exec("INSERT INTO e VALUES (1, '🦊', '?,😀')")
		changes, rows := l.bothPaths(r, 1, "e")
		if want := []string{`insert e id=int:1 v="🦊" w="?,😀"`, `e id=int:1 v="🦊" w="?,😀"`}; !slices.Equal(slices.Concat(changes, rows), want) {
			t.Errorf("got %q, want %q", slices.Concat(changes, rows), want)
		}
		err := l.batches(l.source(), r, func(b *capture.Batch) error {
			for i := range b.Events {
				if ev := &b.Events[i]; ev.Kind == capture.Change {
					if c := ev.Table.Columns[1]; c.Comment != "of v" || c.Default.Kind != capture.DefaultLiteral || !slices.Equal(c.Type.Labels, []string{"🦊", "?", "a"}) {
						t.Errorf("the log's definition is %+v", c)
					}
					return errEnough
				}
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Error(err)
		}
		// Without the log's word, values are right nevertheless.
		s := l.source()
		scanner := s.Scanner()
		l.stream(s, capture.Resume{})
		if rows, _ := l.rowsOf(scanner, "e", 64<<20); !slices.Equal(rows, []string{`id=int:1 v="🦊" w="?,😀"`}) {
			t.Errorf("read %q", rows)
		}
	})
}

func TestXA_TheCatalogIsNotAskedForEachTransaction(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)")
		r := l.start()
		var want []string
		for i := range 40 {
			id := fmt.Sprintf("'x%d'", i)
			l.exec("XA START "+id, fmt.Sprintf("INSERT INTO t VALUES (%d)", i), "XA END "+id, "XA PREPARE "+id, "XA COMMIT "+id)
			want = append(want, fmt.Sprintf("insert t id=int:%d", i))
		}
		asked := func() uint64 {
			r, err := l.db.Execute("SHOW GLOBAL STATUS LIKE 'Com_show_keys'")
			if err != nil {
				t.Fatal(err)
			}
			text, err := r.GetString(0, 1)
			if err != nil {
				t.Fatal(err)
			}
			n, err := parseUint(text)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		before := asked()
		expect(t, l.record(l.source(), r), want...)
		if n := asked() - before; n < 1 || n > 4 {
			t.Errorf("40 transactions of one table ask the catalog %d times", n)
		}
	}, "MySQL 9", "MariaDB 11")
}

func TestStream_GoesOnBehind4GiBOfAFile(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		flavour  flavour
		set      string
		prepared uint64 // where an XA transaction is, 0 without
		at, next uint64
		skip     bool
	}{
		{mariaDB, "0-1-100", 0, 5 << 30, 5 << 30, false},
		{mariaDB, "0-1-100", 0, 5<<30 - 1<<20, 5 << 30, false},
		{mariaDB, "0-1-100", 0, 8<<30 - 100, 8 << 30, false},
		{mariaDB, "0-1-100", 0, 3 << 30, 3 << 30, false},
		{mariaDB, "0-1-100", 4<<30 + 7, 9 << 30, 4<<30 + 7, true},
		{mySQL, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-100", 0, 5 << 30, 5<<30 + 4000, false},
		{mySQL, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-100", 0, 8 << 30, 8<<30 - 4000, false}, // logged late
	} {
		srv := &server{flavour: c.flavour, vars: map[string]string{"server_id": "1"}}
		set, err := parseGTIDs(c.flavour, c.set)
		if err != nil {
			t.Fatal(err)
		}
		at := position{Source: srv.identity(), GTIDs: set, At: place{"b.000001", c.at}, Began: 7}
		if c.prepared != 0 {
			at.Prepared = []prepared{{XID: "x", GTID: "0-1-90", Before: "0-1-89", place: place{"b.000001", c.prepared}}}
		}
		cfg := Config{URL: "mysql://u@h", Pipeline: "p"}
		cfg.SetDefaults()
		begin := func() *stream {
			st := &stream{
				src: New(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry()),
				srv: srv, at: at, batch: capture.NewBatch(), lastEmit: time.Now(), resume: &capture.InTx{},
			}
			st.standAt()
			d, err := srv.dumpFrom(&at)
			if err != nil {
				t.Fatal(err)
			}
			st.passOver(d.gtids)
			return st
		}
		event := func(st *stream, typ replication.EventType, end uint64, flags uint16, body []byte) {
			t.Helper()
			e := le.AppendUint32(nil, 7)
			e = append(e, byte(typ))
			e = le.AppendUint32(e, 1)
			e = le.AppendUint32(e, uint32(replication.EventHeaderSize+len(body)))
			e = le.AppendUint32(e, uint32(end))
			e = le.AppendUint16(e, flags)
			if err := st.event(t.Context(), append(e, body...)); err != nil {
				t.Fatal(err)
			}
		}
		rotate := append(le.AppendUint64(nil, 4), "b.000001"...)
		typ, body := replication.MARIADB_GTID_EVENT, le.AppendUint64(nil, 101)
		if c.prepared != 0 {
			le.PutUint64(body, 90)
		}
		body = append(le.AppendUint32(body, 0), make([]byte, 7)...)
		if c.flavour == mySQL {
			typ = replication.GTID_EVENT
			body = append([]byte{0}, at.GTIDs.Encode()[8:24]...)
			body = append(le.AppendUint64(body, 101), make([]byte, 64)...)
		}
		st := begin()
		event(st, replication.ROTATE_EVENT, 0, replication.LOG_EVENT_ARTIFICIAL_F, rotate)
		event(st, replication.PREVIOUS_GTIDS_EVENT, 250, 0, nil)
		event(st, typ, c.next+uint64(replication.EventHeaderSize+len(body)), 0, body)
		if st.tx.begin.Pos != c.next || st.tx.skip != (c.skip && c.prepared == 0) {
			t.Errorf("%s, from %s on: a transaction at %d is taken for one at %s, and that it is passed over is %t", c.flavour, at.At, c.next, st.tx.begin, st.tx.skip)
		}
		// A log that is quiet.
		if c.prepared != 0 {
			continue
		}
		st = begin()
		event(st, replication.ROTATE_EVENT, 0, replication.LOG_EVENT_ARTIFICIAL_F, rotate)
		event(st, replication.HEARTBEAT_EVENT, c.at, 0, []byte("b.000001"))
		if st.read != at.At {
			t.Errorf("%s, from %s on: nothing new is taken for %s", c.flavour, at.At, st.read)
		}
	}
}
