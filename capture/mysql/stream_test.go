package mysql

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

// expect compares what a run said.
func expect(t *testing.T, got *tape, want ...string) {
	t.Helper()
	if lines := got.lines(); !slices.Equal(lines, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(lines, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// replayed runs the work, and compares what comes in one run, in a second one from the
// past, and from every batch on, and what the changes are called.
func (l *lab) replayed(work func(), want ...string) {
	l.t.Helper()
	r := l.start()
	work()
	whole := l.record(l.source(small), r)
	expect(l.t, whole, want...)
	again := l.record(l.source(small), r)
	expect(l.t, again, want...)
	seen := map[string]bool{}
	for i, name := range whole.names() {
		if seen[name] || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/0") {
			l.t.Errorf("%q is called %q, and so is another change", whole.lines()[i], name)
		}
		seen[name] = true
	}
	if !slices.Equal(again.names(), whole.names()) {
		l.t.Errorf("in a second run changes are called otherwise:\n\t%q\n\t%q", again.names(), whole.names())
	}
	for i := range whole.pieces {
		rest := l.record(l.source(small), whole.resume(i))
		done := &tape{pieces: whole.pieces[:i+1]}
		if got := append(done.names(), rest.names()...); !slices.Equal(got, whole.names()) {
			l.t.Errorf("from batch %d on changes are called otherwise: %q", i, rest.names())
		}
		if got := append(done.lines(), rest.lines()...); !slices.Equal(got, whole.lines()) {
			l.t.Errorf("from batch %d of %d on (%s) comes\n\t%s", i, len(whole.pieces), whole.pieces[i].end, strings.Join(rest.lines(), "\n\t"))
		}
	}
}

func TestStream_RowsHaveTheDefinitionOfTheirMoment(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(10))")
		l.replayed(func() {
			l.exec("INSERT INTO t VALUES (1, 'a')",
				"ALTER TABLE t ADD COLUMN w int FIRST", "INSERT INTO t VALUES (7, 2, 'b')",
				"ALTER TABLE t DROP COLUMN v", "INSERT INTO t VALUES (8, 3)",
				"ALTER TABLE t CHANGE w x bigint unsigned", "INSERT INTO t VALUES (18446744073709551615, 4)",
				"RENAME TABLE t TO u", "UPDATE u SET x = 5 WHERE id = 4",
				"TRUNCATE TABLE u", "INSERT INTO u VALUES (6, 6)",
				"CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'again')", "DROP TABLE t",
				"CREATE TABLE t (id int PRIMARY KEY, v date)", "INSERT INTO t VALUES (1, '1970-01-02')",
				"/* a comment */ truncate t /* and another */")
		},
			`insert t id=int:1 v="a"`, `insert t w=int:7 id=int:2 v="b"`, `insert t w=int:8 id=int:3`, `insert t x=uint:18446744073709551615 id=int:4`,
			`update u before x=uint:18446744073709551615 id=int:4 x=uint:5 id=int:4`, `truncate u`, `insert u x=uint:6 id=int:6`,
			`insert t id=int:1 v="again"`, `insert t id=int:1 v=date:1`, `truncate t`)
	})
}

func TestStream_RowsOfCreateTableSelectCome(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
		l.replayed(func() {
			l.exec("CREATE TABLE copy SELECT * FROM t", "INSERT INTO t VALUES (3)")
		}, "insert copy id=int:1", "insert copy id=int:2", "insert t id=int:3")
	}, "MySQL 9", "MariaDB 10.11", "MariaDB 11") // MySQL 8.0 refuses it before 8.0.21
}

func TestStream_SavepointsThatWereRolledBackAreInvisible(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)")
		l.replayed(func() {
			l.tx("INSERT INTO t VALUES (1)", "SAVEPOINT a", "INSERT INTO t VALUES (2)", "SAVEPOINT b", "INSERT INTO t VALUES (3)",
				"ROLLBACK TO SAVEPOINT b", "INSERT INTO t VALUES (4)", "RELEASE SAVEPOINT a")
		}, "insert t id=int:1", "insert t id=int:2", "insert t id=int:4")
	})
}

func TestStream_LargeTransactionsAreCutAndResumedAnywhere(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(200))", "CREATE TABLE hidden (id int PRIMARY KEY, v varchar(200))")
		var rows, want []string
		for i := range 300 {
			rows = append(rows, fmt.Sprintf("(%d, REPEAT('x', 100))", i))
			want = append(want, fmt.Sprintf(`insert t id=int:%d v="xxxxxxxxxxxxxxxxxxx…(102)`, i))
		}
		for i := range 300 {
			want = append(want, fmt.Sprintf(`update t before id=int:%[1]d v="xxxxxxxxxxxxxxxxxxx…(102) id=int:%[1]d v=null`, i))
		}
		l.replayed(func() {
			l.tx("INSERT INTO t VALUES "+strings.Join(rows, ", "), "INSERT INTO hidden VALUES "+strings.Join(rows, ", "), "UPDATE t SET v = NULL")
		}, want...)
	})
}

func TestStream_XATransactionsComeWithTheirOutcome(t *testing.T) {
	// Not in a shared server: no pipeline begins while a transaction is prepared.
	eachKind(t, func(t *testing.T, kind string) { privateLab(t, kind).testXA() })
}

func (l *lab) testXA() {
	l.t.Helper()
	l.exec("CREATE TABLE x (id int PRIMARY KEY)", "CREATE TABLE hidden (id int PRIMARY KEY)")
	id := func(name string) string { return "'" + l.name + name + "'" }
	xa := func(name string, sql ...string) {
		db := l.connect()
		for _, s := range slices.Concat([]string{"XA START " + id(name)}, sql, []string{"XA END " + id(name), "XA PREPARE " + id(name)}) {
			if _, err := db.Execute(s); err != nil {
				l.t.Fatalf("%s: %v", s, err)
			}
		}
		_ = db.Close() // a prepared one outlives its session
	}
	// Decided by another session, once the server has noticed that the first one went.
	decide := func(sql string) {
		for {
			_, err := l.db.Execute(sql)
			if err == nil {
				return
			}
			if !strings.Contains(err.Error(), "XAE") {
				l.t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	l.replayed(func() {
		l.exec("INSERT INTO x VALUES (1)")
		xa("a", "INSERT INTO x VALUES (10), (11)", "INSERT INTO hidden VALUES (1)")
		l.exec("INSERT INTO x VALUES (2)")
		xa("b", "INSERT INTO x VALUES (20)")
		xa("c", "INSERT INTO x VALUES (30)")
		decide("XA ROLLBACK " + id("b"))
		l.exec("INSERT INTO x VALUES (3)")
		decide("XA COMMIT " + id("c"))
		l.exec("INSERT INTO x VALUES (4)")
		decide("XA COMMIT " + id("a"))
		l.exec("XA START "+id("d"), "INSERT INTO x VALUES (40)", "XA END "+id("d"), "XA COMMIT "+id("d")+" ONE PHASE", "INSERT INTO x VALUES (5)")
	}, "insert x id=int:1", "insert x id=int:2", "insert x id=int:3", "insert x id=int:30", "insert x id=int:4",
		"insert x id=int:10", "insert x id=int:11", "insert x id=int:40", "insert x id=int:5")

	// More than may be held, and one from before the beginning.
	r := l.start()
	xa("e", "INSERT INTO x SELECT 1000 + x.id * 10 + y.id FROM x JOIN x y WHERE x.id < 10 AND y.id < 10")
	s := l.source()
	s.cfg.PreparedBytes = 10
	if err := l.follow(s, r, func(piece) error { return nil }); !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), "prepared_bytes") {
		l.t.Errorf("more than may be held: got %v", err)
	}
	if err := l.follow(l.source(), capture.Resume{}, func(piece) error { return nil }); err == nil || !strings.Contains(err.Error(), "waiting for them") {
		l.t.Errorf("a first start beside a prepared one: got %v", err)
	}
	at, err := parsePosition(l.record(l.source(), r).last().At)
	if err != nil {
		l.t.Fatal(err)
	}
	decide("XA COMMIT " + id("e"))
	if len(at.Prepared) != 1 {
		l.t.Fatalf("the position names %v as prepared", at.Prepared)
	}
	// As if it lay before the beginning.
	if at.Source.Flavour == mySQL && at.GTIDs != nil {
		if err := at.GTIDs.Update(at.Prepared[0].GTID); err != nil {
			l.t.Fatal(err)
		}
	}
	at.Prepared = nil
	w, err := newPositionWriter(at.Source)
	if err != nil {
		l.t.Fatal(err)
	}
	text, err := w.write(&at)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.follow(l.source(), capture.Resume{At: text}, func(piece) error { return nil }); !errors.Is(err, capture.ErrPositionLost) || !strings.Contains(err.Error(), "prepared before the pipeline began") {
		l.t.Errorf("one from before the beginning: got %v", err)
	}
}

// foldingLab is a server that keeps names in lower case where it is MariaDB: MySQL would
// have to be initialized for that.
func foldingLab(t *testing.T, kind string) *lab {
	t.Helper()
	if strings.HasPrefix(kind, "MariaDB") {
		return privateLab(t, kind, "lower_case_table_names=1")
	}
	return privateLab(t, kind)
}

func TestStream_StopsAtStatementsInPlaceOfRows(t *testing.T) {
	// Not in a shared server: other streams would stop there, too.
	eachKind(t, func(t *testing.T, kind string) {
		l, maria := foldingLab(t, kind), strings.HasPrefix(kind, "MariaDB")
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(90))", "INSERT INTO t VALUES (1, 'a')",
			"CREATE DATABASE elsewhere", "CREATE TABLE elsewhere.plain (id int PRIMARY KEY)", "CREATE TABLE elsewhere.pulls (id int PRIMARY KEY)",
			"CREATE TRIGGER elsewhere.tr AFTER INSERT ON elsewhere.pulls FOR EACH ROW INSERT INTO "+l.name+".t VALUES (NEW.id, 'pulled')",
			"CREATE VIEW elsewhere.shows AS SELECT * FROM "+l.name+".t", "CREATE TABLE elsewhere.leaves (id int PRIMARY KEY)",
			"SET GLOBAL log_bin_trust_function_creators = ON", "CREATE FUNCTION elsewhere.f() RETURNS int BEGIN UPDATE "+l.name+".t SET v = 'f'; RETURN 7; END",
			"CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'x'", "GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO reader@'127.0.0.1'")
		if maria {
			l.exec("GRANT BINLOG MONITOR, SLAVE MONITOR ON *.* TO reader@'127.0.0.1'")
		}
		statement := func(format, sql string) capture.Resume {
			t.Helper()
			r := l.start()
			l.exec("SET SESSION binlog_format = '"+format+"'", sql, "SET SESSION binlog_format = 'ROW'")
			return r
		}
		harmless := statement("STATEMENT", "INSERT INTO elsewhere.plain VALUES (1), (2)")
		l.exec("CREATE PROCEDURE p() START TRANSACTION") // which opens none
		expect(t, l.record(l.source(), harmless))
		reader := l.source(func(c *Config) { c.URL, c.Password = strings.Replace(l.server.URL(""), "root@", "reader@", 1), "x" })
		if err := l.follow(reader, harmless, func(piece) error { return nil }); !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "may not see whether") {
			t.Errorf("a user who cannot see triggers: got %v", err)
		}

		columns := make([]string, 70)
		for i := range columns {
			columns[i] = fmt.Sprintf("c%d", i)
		}
		wide := "c0 int, " + strings.Join(columns[1:], " int, ") + " int"
		l.exec("CREATE TABLE elsewhere.wide (" + wide + ")")
		cases := []struct{ format, sql, says string }{
			{"STATEMENT", "UPDATE t SET v = 'b'", l.name + ".t"},
			{"STATEMENT", "UPDATE elsewhere.plain p JOIN t ON t.id = p.id SET t.v = 'd'", "not plain enough"},
			{"STATEMENT", "CREATE TABLE elsewhere.copied SELECT * FROM t", "not plain enough"},
			{"STATEMENT", "CREATE TABLE copied SELECT * FROM t", "not plain enough"},
			{"STATEMENT", "INSERT INTO elsewhere.pulls VALUES (100)", "has triggers"},
			{"STATEMENT", "UPDATE elsewhere.shows SET v = 'e'", "the view elsewhere.shows"},
			{"STATEMENT", "INSERT INTO elsewhere.plain VALUES (elsewhere.f())", "the function elsewhere.f"},
			{"STATEMENT", "INSERT INTO elsewhere.wide (" + strings.Join(columns, ", ") + ") VALUES (" + strings.Repeat("1, ", 69) + "1)", "not plain enough"},
			{"STATEMENT", "INSERT INTO elsewhere.leaves VALUES (1)", "gone by now"},
		}
		if maria {
			cases = append(cases, struct{ format, sql, says string }{"STATEMENT", "SET STATEMENT lock_wait_timeout = 5 FOR UPDATE t SET v = 'f'", l.name + ".t"},
				struct{ format, sql, says string }{"STATEMENT", "UPDATE T SET v = 'c'", l.name + ".t"})
		} else {
			cases = append(cases, struct{ format, sql, says string }{"MIXED", "CREATE TABLE mixed SELECT * FROM t", "not plain enough"},
				struct{ format, sql, says string }{"STATEMENT", "WITH w AS (SELECT 1 AS a) UPDATE w, t SET t.v = 'm' WHERE w.a = 1", "not plain enough"})
		}
		if kind == "MySQL 8.0" { // refuses to create and fill a table in one
			cases = slices.DeleteFunc(cases, func(c struct{ format, sql, says string }) bool { return strings.HasPrefix(c.sql, "CREATE TABLE") })
		}
		for _, c := range cases {
			r := statement(c.format, c.sql)
			if strings.Contains(c.sql, "leaves") {
				l.exec("DROP TABLE elsewhere.leaves")
			}
			err := l.follow(l.source(), r, func(piece) error { return nil })
			if !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "; remedy: SET GLOBAL binlog_format") || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: got %v", c.sql, err)
			}
		}
	})
}

func TestStream_StopsAtRowsWhoseColumnsAreNotNamed(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b int NOT NULL)")
		r := l.start()
		l.exec("SET GLOBAL binlog_row_metadata = 'MINIMAL'", "INSERT INTO t VALUES (1, 10, 20)", "SET GLOBAL binlog_row_metadata = 'FULL'", "ALTER TABLE t MODIFY a int NOT NULL AFTER b")
		err := l.follow(l.source(), r, func(piece) error { return nil })
		if !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "; remedy: SET GLOBAL binlog_row_metadata") {
			t.Errorf("got %v", err)
		}
	}, "MySQL 9", "MariaDB 10.11")
}

func TestStream_TruncatesComeHoweverTheyAreWritten(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := foldingLab(t, kind)
		l.exec("SET NAMES utf8mb4", "CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE té (id int PRIMARY KEY)")
		want := []string{"truncate t", "truncate té"}
		r := l.start()
		l.exec("TRUNCATE TABLE t", "SET NAMES latin1", "TRUNCATE TABLE `t\xe9`", "SET NAMES utf8mb4")
		if strings.HasPrefix(kind, "MariaDB") {
			l.exec("SET STATEMENT lock_wait_timeout = 5 FOR TRUNCATE TABLE t", "TRUNCATE TABLE T", "TRUNCATE TABLE TÉ")
			want = append(want, "truncate t", "truncate t", "truncate té")
		}
		exact := func(c *Config) { c.Tables.Include = []string{l.name + ".t", l.name + ".té", l.name + ".mark"} }
		expect(t, l.record(l.source(exact), r), want...)
	})
}

func TestStream_ImagesWithoutEveryColumn(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, n int, v text)")
		l.replayed(func() {
			l.exec("SET SESSION binlog_row_image = 'NOBLOB'", "INSERT INTO t VALUES (1, 1, 'long')", "UPDATE t SET n = 2", "UPDATE t SET v = 'longer'",
				"SET SESSION binlog_row_image = 'MINIMAL'", "UPDATE t SET n = 3", "UPDATE t SET id = 2", "DELETE FROM t", "SET SESSION binlog_row_image = 'FULL'")
		}, `insert t id=int:1 n=int:1 v="long"`, `update t before id=int:1 n=int:1 v=absent id=int:1 n=int:2 v=unchanged`,
			`update t before id=int:1 n=int:2 v=absent id=int:1 n=int:2 v="longer"`,
			`update t before id=int:1 n=absent v=absent id=int:1 n=int:3 v=unchanged`,
			`update t before id=int:1 n=absent v=absent id=int:2 n=unchanged v=unchanged`, `delete t before id=int:2 n=absent v=absent`)
		r := l.start()
		l.exec("SET SESSION binlog_row_image = 'MINIMAL'", "INSERT INTO t (id) VALUES (9)")
		err := l.follow(l.source(), r, func(piece) error { return nil })
		if !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "binlog_row_image") {
			t.Errorf("got %v", err)
		}
	})
}

func TestStream_PartialJSONIsPutTogether(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, j json)", `INSERT INTO t VALUES (1, '{"a":"x","b":[1,2,3],"long":"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"}')`)
		r := l.start()
		l.exec("SET SESSION binlog_row_value_options = 'PARTIAL_JSON'", `UPDATE t SET j = JSON_SET(JSON_REMOVE(JSON_SET(j, '$.a', 'y'), '$.b[1]'), '$.c', 5)`)
		tp := l.record(l.source(), r)
		if got := tp.lines(); len(got) < 1 || !strings.HasPrefix(got[0], "update t before") {
			t.Fatalf("got %q", got)
		}
		want := strings.NewReplacer(`", "`, `","`, `": "`, `":"`, `, `, `,`, `": `, `":`).Replace(l.ask("SELECT j FROM t"))
		if err := l.batches(l.source(), r, func(b *capture.Batch) error {
			for i := range b.Events {
				if ev := &b.Events[i]; ev.Op == capture.Update && ev.Kind == capture.Change {
					if got := string(ev.After[1].Bytes()); got != want {
						t.Errorf("got %s, want %s", got, want)
					}
					return errEnough
				}
			}
			return nil
		}); !errors.Is(err, errEnough) {
			t.Error(err)
		}
	}, "MySQL 8.0", "MySQL 9")
}

func TestStream_CompressedTransactions(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		on := "SET SESSION binlog_transaction_compression = ON"
		if strings.HasPrefix(kind, "MariaDB") {
			on = "SET GLOBAL log_bin_compress = ON, GLOBAL log_bin_compress_min_len = 10"
			t.Cleanup(func() { l.exec("SET GLOBAL log_bin_compress = OFF") })
		}
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(200))")
		var rows, want []string
		for i := range 200 {
			rows = append(rows, fmt.Sprintf("(%d, REPEAT('x', 100))", i))
			want = append(want, fmt.Sprintf(`insert t id=int:%d v="xxxxxxxxxxxxxxxxxxx…(102)`, i))
		}
		l.exec(on)
		l.replayed(func() {
			l.exec("INSERT INTO t VALUES " + strings.Join(rows, ", "))
			l.tx("DELETE FROM t WHERE id = 1", "UPDATE t SET v = 'y' WHERE id = 2")
		}, append(want, `delete t before id=int:1 v="xxxxxxxxxxxxxxxxxxx…(102)`, `update t before id=int:2 v="xxxxxxxxxxxxxxxxxxx…(102) id=int:2 v="y"`)...)
	}, "MySQL 9", "MariaDB 10.11", "MariaDB 11") // MySQL since 8.0.20
}

func TestStream_TellsThePlaceOfEveryRow(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(100))")
		r := l.start()
		l.exec("FLUSH BINARY LOGS")
		l.tx("INSERT INTO t VALUES (1, 'a'), (2, 'b')", "UPDATE t SET v = 'c' WHERE id = 2")
		var got []string
		err := l.batches(l.source(), r, func(b *capture.Batch) error {
			for i := range b.Events {
				ev := &b.Events[i]
				if ev.Kind != capture.Change {
					if len(got) > 0 {
						return errEnough
					}
					continue
				}
				o := ev.Origin
				// The server itself must find a rows event of ours at that place.
				r, err := l.db.Execute(fmt.Sprintf("SHOW BINLOG EVENTS IN '%s' FROM %d LIMIT 1", o[2].Bytes(), o[3].Int()))
				if err != nil {
					return err
				}
				kind, _ := r.GetString(0, 2)
				gtid := string(o[1].Bytes())
				if gtid != ev.Tx.ID || gtid == "" {
					t.Errorf("the gtid is %q and the transaction %q", gtid, ev.Tx.ID)
				}
				if want := l.ask("SELECT @@server_id"); fmt.Sprint(o[0].Int()) != want {
					t.Errorf("the server id is %d, want %s", o[0].Int(), want)
				}
				got = append(got, fmt.Sprintf("%s row %d thread %v", strings.ToLower(strings.Split(kind, "_")[0]), o[4].Int(), o[5].Kind() == capture.Int))
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		thread := !strings.HasPrefix(kind, "MariaDB") // whose log does not tell it
		want := []string{fmt.Sprintf("write row 0 thread %v", thread), fmt.Sprintf("write row 1 thread %v", thread), fmt.Sprintf("update row 0 thread %v", thread)}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestStream_SequencesAreNoTables(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)")
		l.replayed(func() {
			l.exec("CREATE SEQUENCE s", "INSERT INTO t VALUES (NEXT VALUE FOR s)", "DO NEXTVAL(s)", "DROP SEQUENCE s")
		}, "insert t id=int:1")
	}, "MariaDB 10.11", "MariaDB 11")
}

func TestStream_ShowsThePresentRowsOfVersionedTables(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(10)) WITH SYSTEM VERSIONING",
			"CREATE TABLE u (id int PRIMARY KEY, a timestamp(6) GENERATED ALWAYS AS ROW START INVISIBLE, z timestamp(6) GENERATED ALWAYS AS ROW END INVISIBLE, PERIOD FOR SYSTEM_TIME (a, z)) WITH SYSTEM VERSIONING")
		r := l.start()
		l.replayed(func() {
			l.exec("INSERT INTO t VALUES (1, 'a')", "UPDATE t SET v = 'b'", "UPDATE t SET id = 2", "DELETE FROM t", "DELETE HISTORY FROM t", "INSERT INTO t VALUES (2, 'c')")
		}, `insert t id=int:1 v="a"`, `update t before id=int:1 v="a" id=int:1 v="b"`, `update t before id=int:1 v="b" id=int:2 v="b"`, `delete t before id=int:2 v="b"`, `insert t id=int:2 v="c"`)
		l.exec("INSERT INTO u VALUES (1)", "UPDATE u SET id = 2")
		s := l.source()
		scanner := s.Scanner()
		l.stream(s, r)
		if rows, _ := l.rowsOf(scanner, "t", 1); !slices.Equal(rows, []string{`id=int:2 v="c"`}) {
			t.Errorf("read %q", rows)
		}
		for _, name := range []string{"t", "u"} {
			if target := l.target(scanner, name); !slices.Equal(target.Key, []string{"id"}) {
				t.Errorf("the key of %s is %v", name, target.Key)
			}
			v, err := scanner.View(t.Context(), l.target(scanner, name))
			if err != nil {
				t.Fatal(err)
			}
			c, err := v.Scan(t.Context(), l.target(scanner, name), nil, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			another := l.source(func(c *Config) { c.Pipeline += "2" })
			if err := l.batches(another, r, func(b *capture.Batch) error {
				for i := range b.Events {
					if ev := &b.Events[i]; ev.Kind == capture.Change && ev.Table.ID.Name == name {
						shown := *ev.Table
						shown.Origin = c.Table.Origin // each source has its own
						if !shown.Equal(c.Table) || !slices.Equal(shown.Key, []int{0}) {
							t.Errorf("the log has %+v, and the read %+v", ev.Table, c.Table)
						}
						return errEnough
					}
				}
				return nil
			}); !errors.Is(err, errEnough) {
				t.Error(err)
			}
			c.Release()
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		}
	}, "MariaDB 10.11", "MariaDB 11")
}

// What the log does not say of a column or a table, today's catalog says of today.
func TestStream_TypesAndPeriodsThatTheLogDoesNotShow(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("SET system_versioning_alter_history = KEEP", "SET time_zone = '+00:00'")
		const period = ", a timestamp(6) GENERATED ALWAYS AS ROW START, z timestamp(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (a, z)) WITH SYSTEM VERSIONING"

		// Known from an earlier definition.
		l.exec("CREATE TABLE u (id int PRIMARY KEY, g uuid, i inet4)", "CREATE TABLE h (id int PRIMARY KEY, v int) WITH SYSTEM VERSIONING")
		r := l.start()
		const guid = "123e4567-e89b-12d3-a456-426655440000"
		l.exec("INSERT INTO u VALUES (1, '"+guid+"', '1.2.3.4')", "INSERT INTO h VALUES (1, 1)")
		var got []string
		err := l.follow(l.source(), r, func(p piece) error {
			for _, line := range p.lines {
				if line != "commit" {
					got = append(got, line)
				}
				if line == "insert h id=int:1 v=int:1" {
					l.exec("ALTER TABLE u ADD x int", "INSERT INTO u VALUES (2, '"+guid+"', '1.2.3.4', 5)", "ALTER TABLE u DROP g, CHANGE i j inet4",
						"ALTER TABLE h ADD x int", "INSERT INTO h VALUES (2, 2, 2)", "UPDATE h SET v = 3 WHERE id = 2", "DELETE FROM h WHERE id = 1", "ALTER TABLE h DROP SYSTEM VERSIONING", "INSERT INTO h VALUES (3, 3, 3)")
				}
				if strings.HasPrefix(line, "insert h id=int:3") {
					return errEnough
				}
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Fatalf("after %q: %v", got, err)
		}
		want := []string{
			`insert u id=int:1 g="` + guid + `" i="1.2.3.4"`, "insert h id=int:1 v=int:1", `insert u id=int:2 g="` + guid + `" i="1.2.3.4" x=int:5`,
			"insert h id=int:2 v=int:2 x=int:2", "update h before id=int:2 v=int:2 x=int:2 id=int:2 v=int:3 x=int:2", "delete h before id=int:1 v=int:1 x=null", "insert h id=int:3 v=int:3 x=int:3",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}

		// Not known.
		cases := []struct{ create, then, after, says string }{
			{"CREATE TABLE c (id int PRIMARY KEY, v int) WITH SYSTEM VERSIONING", "INSERT INTO c VALUES (1, 1)", "ALTER TABLE c DROP SYSTEM VERSIONING", "system-versioned"},
			{"CREATE TABLE c (id int, v int) WITH SYSTEM VERSIONING", "INSERT INTO c VALUES (1, 1)", "DROP TABLE c", "system-versioned"},
			{"CREATE TABLE c (id int PRIMARY KEY" + period, "INSERT INTO c (id) VALUES (1)", "ALTER TABLE c RENAME COLUMN z TO y", "system-versioned"},
			{"CREATE TABLE c (id int" + period, "INSERT INTO c (id) VALUES (1)", "DROP TABLE c", "system-versioned"},
			{"CREATE TABLE c (id int PRIMARY KEY, g uuid)", "INSERT INTO c VALUES (1, '" + guid + "')", "ALTER TABLE c RENAME COLUMN g TO f", "UUID or INET6"},
			{"CREATE TABLE c (id int PRIMARY KEY, g inet6)", "INSERT INTO c VALUES (1, '::1')", "DROP TABLE c", "UUID or INET6"},
			{"CREATE TABLE c (id int PRIMARY KEY, g inet4)", "INSERT INTO c VALUES (1, '1.2.3.4')", "ALTER TABLE c DROP g", "INET4"},
		}
		if kind == "MariaDB 11" {
			cases = append(cases, struct{ create, then, after, says string }{"CREATE TABLE c (id int PRIMARY KEY, g vector(2))", "INSERT INTO c VALUES (1, VEC_FromText('[1,2]'))", "ALTER TABLE c DROP g", "VECTOR"})
		}
		for _, c := range cases {
			l.exec("DROP TABLE IF EXISTS c", c.create)
			r := l.start()
			l.exec(c.then, c.after)
			err := l.follow(l.source(), r, func(p piece) error {
				if len(p.lines) > 0 {
					t.Errorf("%s: got %q", c.create, p.lines)
					return errEnough
				}
				return nil
			})
			if !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "; remedy: ") {
				t.Errorf("%s, %s: got %v", c.create, c.after, err)
			}
		}

		// Not in doubt.
		r = l.start()
		l.exec("CREATE TABLE p (id int PRIMARY KEY, a timestamp(6) NOT NULL, z timestamp(6) NOT NULL)", "INSERT INTO p VALUES (1, '1970-01-02', '1970-01-03')",
			"ALTER TABLE p MODIFY a timestamp(6) GENERATED ALWAYS AS ROW START, MODIFY z timestamp(6) GENERATED ALWAYS AS ROW END, ADD PERIOD FOR SYSTEM_TIME (a, z), ADD SYSTEM VERSIONING",
			"CREATE TABLE q (a bigint unsigned, b bigint unsigned, c bigint unsigned NOT NULL, d varchar(9) CHARACTER SET latin1, PRIMARY KEY (a, b))", "INSERT INTO q VALUES (1, 2, 3, 'x')", "DROP TABLE q")
		expect(t, l.record(l.source(), r), "insert p id=int:1 a=timestamptz:86400000000 z=timestamptz:172800000000", `insert q a=uint:1 b=uint:2 c=uint:3 d="x"`)
	}, "MariaDB 10.11", "MariaDB 11")
}

// Transactions in place of times: MariaDB logs changes of such a table as statements, but
// nothing says that it always will.
func TestHistory_IsNotedByTheLastTransaction(t *testing.T) {
	number := logColumn{typ: typeLongLong, unsigned: true}
	m := &tableMap{columns: []logColumn{number, number, number}, key: []int{0, 2}}
	for i, name := range []string{"id", "a", "z"} {
		m.columns[i].name = name
	}
	p := &plan{drift: []int{1, 2}, columns: m.columns}
	h, err := doubtful(p, m, nil)
	if err != nil || !slices.Equal(h.doubt, []int{2}) {
		t.Fatalf("got %+v, %v", h, err)
	}
	table := &capture.Table{Columns: []capture.Column{{Name: "id"}, {Name: "a"}, {Name: "z"}}}
	plain := capture.Row{capture.UintValue(1), capture.UintValue(2), capture.UintValue(3)}
	present := capture.Row{capture.UintValue(1), capture.UintValue(2), capture.UintValue(1<<64 - 1)}
	if err := h.check(table, plain, plain); err != nil {
		t.Errorf("a plain row: got %v", err)
	}
	if err := h.check(table, present, plain); !errors.Is(err, capture.ErrUnreadable) {
		t.Errorf("the end of a period: got %v", err)
	}
	if h, err := doubtful(p, m, &logTable{tm: m, plan: p}); err != nil || h.doubt != nil {
		t.Errorf("behind a definition that was plain: got %+v, %v", h, err)
	}
}

func TestStream_RowsMayBeLargerThanAPacket(t *testing.T) {
	t.Parallel()
	l := newLab(t, "MySQL 9")
	l.exec("CREATE TABLE t (id int PRIMARY KEY, v longtext)")
	l.replayed(func() {
		l.tx("INSERT INTO t VALUES (1, REPEAT('x', 40000000))", "INSERT INTO t VALUES (2, 'y')")
	}, `insert t id=int:1 v="xxxxxxxxxxxxxxxxxxx…(40000002)`, `insert t id=int:2 v="y"`)
}
