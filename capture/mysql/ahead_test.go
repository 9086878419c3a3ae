package mysql

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
)

// unnamedLab is a database in a server of its own, whose log does not name columns: as each
// server is without a setting.
func unnamedLab(t *testing.T, kind string) *lab {
	t.Helper()
	return privateLab(t, kind, "binlog_row_metadata="+unnamedBy(kind)[0])
}

// unnamedBy are the settings of a server by which its log does not name columns; the first is
// its default.
func unnamedBy(kind string) []string {
	if strings.HasPrefix(kind, "MariaDB") {
		return []string{"NO_LOG", "MINIMAL"}
	}
	return []string{"MINIMAL"}
}

func TestUnnamed_ValuesAndDefinitionsAreThoseOfFullMetadata(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := unnamedLab(t, kind)
		maria := strings.HasPrefix(kind, "MariaDB")
		l.exec("SET NAMES utf8mb4", "SET sql_mode = '', time_zone = '+00:00'", "ALTER DATABASE CHARACTER SET utf8mb4")
		name := strings.ToLower(strings.ReplaceAll(kind, " ", "-"))
		var tables, insert []string
		table := func(definition, values string) {
			n := fmt.Sprintf("t%03d", len(tables))
			l.exec("CREATE TABLE " + n + " " + definition)
			tables, insert = append(tables, n), append(insert, "INSERT INTO "+n+" VALUES ("+values+")")
		}
		for _, c := range casesOf(name) {
			table("(id int PRIMARY KEY, v "+c.decl+", w "+c.decl+")", "1, "+c.values[0]+", NULL")
		}
		table("(a int NOT NULL, id int NOT NULL, b varchar(9) DEFAULT 'x' COMMENT 'of b', PRIMARY KEY (id, a))", "1, 2, 'y'")
		table("(a int, id int NOT NULL, UNIQUE KEY k (id))", "1, 2")
		table("(a int, id int, UNIQUE KEY k (id))", "1, 2")
		table("(v varchar(90) NOT NULL, UNIQUE KEY k (v(7)))", "'v'")
		table("(v text)", "'v'")
		table("(id int PRIMARY KEY, a int GENERATED ALWAYS AS (id + 1), b int GENERATED ALWAYS AS (id + 2) STORED)", "1, DEFAULT, DEFAULT")
		table("(`no name``s` int PRIMARY KEY, `é` enum('ü','?') CHARACTER SET latin1)", "1, '?'")
		if kind != "MySQL 8.0" { // one that is too old for that
			table("(id int PRIMARY KEY, a int INVISIBLE DEFAULT 9)", "1")
		}
		if maria {
			table("(id int PRIMARY KEY, v int) WITH SYSTEM VERSIONING", "1, 2")
			table("(v int) WITH SYSTEM VERSIONING", "1")
			table("(id int PRIMARY KEY, begins timestamp(6) GENERATED ALWAYS AS ROW START INVISIBLE, ends timestamp(6) GENERATED ALWAYS AS ROW END INVISIBLE, PERIOD FOR SYSTEM_TIME (begins, ends)) WITH SYSTEM VERSIONING", "1")
			l.exec("CREATE SEQUENCE s")
		} else if kind != "MySQL 8.0" {
			table("(id int PRIMARY KEY, INDEX f ((id + 1)))", "1")
			l.exec("SET sql_generate_invisible_primary_key = ON")
			table("(v int)", "1")
		}
		r := l.start()
		settings := append([]string{"FULL"}, unnamedBy(kind)...)
		for _, setting := range settings {
			l.exec("SET GLOBAL binlog_row_metadata = " + setting)
			for i, sql := range insert {
				l.exec(sql, "DELETE FROM "+tables[i])
			}
			if maria {
				l.exec("DO NEXTVAL(s)", "FLUSH TABLES", "DO NEXTVAL(s)")
			}
		}
		rows := make(map[string][]string)
		definitions := make(map[string]*capture.Table)
		s, left := l.source(), len(settings)*len(tables)
		err := l.batches(s, r, func(b *capture.Batch) error {
			for i := range b.Events {
				ev := &b.Events[i]
				if ev.Kind != capture.Change || ev.Op != capture.Insert {
					continue
				}
				id := ev.Table.ID.Name
				if definitions[id] == nil {
					definitions[id] = ev.Table
				}
				if ev.Table != definitions[id] {
					t.Errorf("%s: with names it is %+v, and without %+v", id, definitions[id], ev.Table)
				}
				var values []byte
				for j, c := range ev.Table.Columns {
					if c.Name != "begins" && c.Name != "my_row_id" { // is the time, is a number
						values = ev.After[j].AppendKey(values)
					}
				}
				rows[id] = append(rows[id], string(values))
				if left--; left == 0 {
					return errEnough
				}
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		c, err := s.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		srv, err := s.identify(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range tables {
			got := rows[id]
			if slices.Sort(got); len(got) != len(settings) || len(slices.Compact(got)) != 1 {
				t.Errorf("%s has the values %q", id, rows[id])
			}
			p, err := s.catalog.fromTable(t.Context(), c, srv, definitions[id].ID)
			if err != nil {
				t.Fatal(err)
			}
			if p.table != definitions[id] {
				t.Errorf("%s: a read has the definition %+v, and the log %+v", id, p.table, definitions[id])
			}
		}
	})
}

// A step of a live run: statements, and the lines that come of them.
type step struct {
	sql  []string
	want []string
}

// live runs each step when the lines of the one before have come.
func (l *lab) live(r capture.Resume, steps ...step) {
	l.t.Helper()
	var got, want []string
	next := 0
	more := func() error {
		for slices.Equal(got, want) {
			if next == len(steps) {
				return errEnough
			}
			want = append(want, steps[next].want...)
			l.exec(steps[next].sql...)
			next++
		}
		return nil
	}
	_ = more()
	err := l.follow(l.source(), r, func(p piece) error {
		for _, line := range p.lines {
			if line != "commit" {
				got = append(got, line)
			}
		}
		if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
			return errors.New("something else came")
		}
		return more()
	})
	if !errors.Is(err, errEnough) {
		l.t.Fatalf("in step %d, after\n\t%s\nwant\n\t%s\nthe stream ended: %v", next, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"), err)
	}
}

func TestUnnamed_RowsGoOnUnderTheRightNamesWhileTablesChange(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := unnamedLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, a int, b int)", "CREATE TABLE other (id int PRIMARY KEY)")
		steps := []step{
			{[]string{"INSERT INTO t VALUES (1, 10, 20)"}, []string{"insert t id=int:1 a=int:10 b=int:20"}},
			{[]string{"ALTER TABLE t ADD c int FIRST", "INSERT INTO t VALUES (5, 2, 10, 20)"}, []string{"insert t c=int:5 id=int:2 a=int:10 b=int:20"}},
			{[]string{"ALTER TABLE t DROP c", "INSERT INTO t VALUES (3, 10, 20)"}, []string{"insert t id=int:3 a=int:10 b=int:20"}},
			{[]string{"ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN b TO a", "INSERT INTO t VALUES (4, 20, 10)"}, []string{"insert t id=int:4 b=int:20 a=int:10"}},
			{[]string{"INSERT INTO t VALUES (5, 20, 10)", "ALTER TABLE t MODIFY a int AFTER id", "INSERT INTO t VALUES (6, 10, 20)"}, []string{"insert t id=int:5 b=int:20 a=int:10", "insert t id=int:6 a=int:10 b=int:20"}},
			{[]string{"CREATE TABLE u (id int PRIMARY KEY, x int, y int)", "RENAME TABLE t TO v, u TO t", "INSERT INTO t VALUES (7, 1, 2)"}, []string{"insert t id=int:7 x=int:1 y=int:2"}},
			{[]string{"INSERT INTO v VALUES (8, 1, 2)"}, []string{"insert v id=int:8 a=int:1 b=int:2"}},
			{[]string{"DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY, y int, x int)", "INSERT INTO t VALUES (9, 2, 1)"}, []string{"insert t id=int:9 y=int:2 x=int:1"}},
			// Of a migration: the next statement follows the rows at once.
			{[]string{"ALTER TABLE t RENAME COLUMN x TO z", "INSERT INTO other VALUES (1)"}, []string{"insert other id=int:1"}},
			{[]string{"UPDATE t SET z = 3", "ALTER TABLE t RENAME COLUMN z TO x, ALGORITHM = COPY"}, []string{"update t before id=int:9 y=int:2 z=int:1 id=int:9 y=int:2 z=int:3"}},
			{[]string{"CREATE TABLE new (id int PRIMARY KEY, p int, q int)", "INSERT INTO other VALUES (2)"}, []string{"insert other id=int:2"}},
			{[]string{"INSERT INTO new VALUES (1, 2, 3)", "ALTER TABLE new RENAME COLUMN p TO q, RENAME COLUMN q TO p"}, []string{"insert new id=int:1 p=int:2 q=int:3"}},
			{[]string{"INSERT INTO new VALUES (2, 2, 3)"}, []string{"insert new id=int:2 q=int:2 p=int:3"}},
		}
		if strings.HasPrefix(kind, "MariaDB") {
			steps = append(
				steps,
				step{[]string{"CREATE OR REPLACE TABLE t (id int PRIMARY KEY, m int, n int)", "INSERT INTO t VALUES (1, 2, 3)"}, []string{"insert t id=int:1 m=int:2 n=int:3"}},
				step{[]string{"CREATE TABLE w (id int PRIMARY KEY, a int, b int) WITH SYSTEM VERSIONING", "INSERT INTO w VALUES (1, 2, 3)"}, []string{"insert w id=int:1 a=int:2 b=int:3"}},
				step{
					[]string{"SET system_versioning_alter_history = KEEP", "ALTER TABLE w RENAME COLUMN a TO b, RENAME COLUMN b TO a", "UPDATE w SET a = 4", "DELETE FROM w"},
					[]string{"update w before id=int:1 b=int:2 a=int:3 id=int:1 b=int:2 a=int:4", "delete w before id=int:1 b=int:2 a=int:4"},
				},
				step{[]string{"ALTER TABLE w DROP SYSTEM VERSIONING", "INSERT INTO w VALUES (2, 2, 3)"}, []string{"insert w id=int:2 b=int:2 a=int:3"}},
				step{
					[]string{"SET binlog_alter_two_phase = ON", "ALTER TABLE t RENAME COLUMN m TO n, RENAME COLUMN n TO m, ALGORITHM = COPY", "INSERT INTO t VALUES (2, 2, 3)"},
					[]string{"insert t id=int:2 n=int:2 m=int:3"},
				},
			)
		}
		l.live(l.start(), steps...)
	})
}

func TestUnnamed_StopsAtAStatementThatMayHaveChangedTheTable(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := unnamedLab(t, kind)
		fresh := []string{
			"DROP TABLE IF EXISTS child, t, u", "CREATE TABLE t (id int PRIMARY KEY, a int, b int)", "DROP VIEW IF EXISTS seen", "DROP PROCEDURE IF EXISTS turn",
			"CREATE DATABASE IF NOT EXISTS elsewhere", "DROP TABLE IF EXISTS elsewhere.t", "CREATE TABLE elsewhere.t (id int PRIMARY KEY, a int, b int)",
		}
		const turn = "RENAME COLUMN a TO b, RENAME COLUMN b TO a"
		cases := []struct {
			then []string
			says string // "" goes on
		}{
			{[]string{"ALTER TABLE t " + turn}, "(ALTER TABLE t …)"},
			{[]string{"FLUSH BINARY LOGS", "/* of the app */ alter table `t` " + turn, "FLUSH BINARY LOGS", "ALTER TABLE elsewhere.t ADD c int"}, "(alter table t …)"},
			{[]string{"CREATE TABLE u (id int PRIMARY KEY, b int, a int)", "RENAME TABLE t TO v, u TO t", "DROP TABLE v"}, "(RENAME TABLE t …)"},
			{[]string{"DROP TABLE t"}, "(DROP TABLE t …)"},
			{[]string{"DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY, b int, a int)"}, "(CREATE TABLE t …)"},
			{[]string{"CREATE TABLE u (id int PRIMARY KEY, b int, a int)", "DROP TABLE t", "ALTER TABLE u RENAME TO t"}, "(ALTER TABLE u …)"},
			{[]string{"CREATE UNIQUE INDEX i ON t (b)"}, "(CREATE UNIQUE INDEX …)"},
			{[]string{"ALTER TABLE -- of the app\n t " + turn}, "(ALTER TABLE t …)"},
			{[]string{"ALTER TABLE --\tof the app\n t " + turn}, "(ALTER TABLE t …)"},
			{[]string{"CREATE PROCEDURE turn() ALTER TABLE t " + turn, "CALL turn()"}, "(ALTER TABLE t …)"},
			{[]string{"PREPARE p FROM 'ALTER TABLE t " + turn + "'", "EXECUTE p"}, "(ALTER TABLE t …)"},
			{[]string{"SET sql_log_bin = 0", "ALTER TABLE t MODIFY a varchar(10)", "SET sql_log_bin = 1"}, "column 2 (a) otherwise"},
			{[]string{"SET sql_log_bin = 0", "ALTER TABLE t DROP a", "SET sql_log_bin = 1"}, "it has 2 columns and they have 3"},
			{[]string{"SET sql_log_bin = 0", "DROP TABLE t", "SET sql_log_bin = 1"}, "is gone"},
			{[]string{
				"FLUSH BINARY LOGS", "ALTER TABLE elsewhere.t " + turn, "TRUNCATE t", "CREATE TABLE child (id int PRIMARY KEY, t int, FOREIGN KEY (t) REFERENCES t (id))", "ALTER TABLE child ADD x int",
				"ALTER DATABASE " + l.name + " CHARACTER SET latin1", "CREATE VIEW seen AS SELECT * FROM t", "CREATE TRIGGER on_t BEFORE UPDATE ON t FOR EACH ROW SET NEW.b = 1", "ANALYZE TABLE t", "OPTIMIZE TABLE t",
				"GRANT SELECT ON t TO root@'localhost'", "CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY, b int, a int)", "CREATE INDEX i ON t (b)", "CREATE PROCEDURE turn() ALTER TABLE t " + turn, "UPDATE t SET a = 10", "FLUSH TABLES", "FLUSH BINARY LOGS",
			}, ""},
		}
		if strings.HasPrefix(kind, "MariaDB") {
			cases = append(cases, []struct {
				then []string
				says string
			}{
				{[]string{"CREATE OR REPLACE TABLE t (id int PRIMARY KEY, b int, a int)"}, "(CREATE OR REPLACE …)"},
				{[]string{"SET STATEMENT lock_wait_timeout = 5 FOR ALTER TABLE t " + turn}, " …)"},
				{[]string{"SET binlog_alter_two_phase = ON", "ALTER TABLE t " + turn + ", ALGORITHM = COPY", "SET binlog_alter_two_phase = OFF"}, "(ALTER TABLE t …)"},
				{[]string{"EXECUTE IMMEDIATE 'ALTER TABLE t " + turn + "'"}, "(ALTER TABLE t …)"},
				{[]string{"ALTER TABLE .t " + turn}, "(ALTER TABLE . …)"},
			}...)
		}
		for _, c := range cases {
			l.exec(fresh...)
			r := l.start()
			l.exec("INSERT INTO t VALUES (1, 10, 20)")
			l.exec(c.then...)
			var got []string
			err := l.follow(l.source(), r, func(p piece) error {
				if got = append(got, p.lines...); len(got) > 0 {
					return errEnough
				}
				return nil
			})
			if c.says == "" {
				if !errors.Is(err, errEnough) || got[0] != "insert t id=int:1 a=int:10 b=int:20" {
					t.Errorf("%q: got %q, %v", c.then, got, err)
				}
				continue
			}
			if !errors.Is(err, capture.ErrUnreadable) {
				t.Errorf("%q: got %q, %v", c.then, got, err)
				continue
			}
			for _, want := range []string{"the columns of " + l.name + ".t ", c.says, "; remedy: SET GLOBAL binlog_row_metadata = 'FULL'", readAnew} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q: %q is not in: %v", c.then, want, err)
				}
			}
		}
		// Of a database that is gone.
		l.exec("CREATE DATABASE leaves", "CREATE TABLE leaves.t (id int PRIMARY KEY)")
		r := l.start()
		l.exec("INSERT INTO leaves.t VALUES (1)", "DROP DATABASE leaves")
		err := l.follow(l.source(func(c *Config) { c.Tables.Include = []string{"leaves.*"} }), r, func(piece) error { return nil })
		if !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "(DROP DATABASE leaves …)") {
			t.Errorf("a database that is gone: got %v", err)
		}
	})
}

func TestUnnamed_AChangeThatIsNotLoggedStopsTheStreamThatSawTheTableBefore(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := unnamedLab(t, kind)
		const made = "(id int PRIMARY KEY, a int, b int, e enum('x','y'), v varchar(10) CHARACTER SET latin1)"
		for _, c := range []struct {
			then  []string
			stops bool
		}{
			{[]string{"ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN b TO a"}, true},
			{[]string{"ALTER TABLE t MODIFY e enum('y','x')"}, true},
			{[]string{"ALTER TABLE t MODIFY a int unsigned"}, true},
			{[]string{"ALTER TABLE t MODIFY v varchar(10) CHARACTER SET latin2"}, true},
			{[]string{"ALTER TABLE t DROP PRIMARY KEY, ADD UNIQUE INDEX (id)"}, true},
			{[]string{"DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY, b int, a int, e enum('x','y'), v varchar(10) CHARACTER SET latin1)", "INSERT INTO t VALUES (0, 0, 0, 'x', 'v')"}, true},
			{[]string{"FLUSH TABLES"}, false},
			{[]string{"ALTER TABLE t ENGINE = InnoDB"}, false},
			{[]string{"ALTER TABLE t MODIFY a int DEFAULT 5 COMMENT 'of a', ADD INDEX (b)"}, false},
		} {
			l.exec("DROP TABLE IF EXISTS t", "CREATE TABLE t "+made, "INSERT INTO t VALUES (0, 0, 0, 'x', 'v')")
			r := l.start()
			l.exec("UPDATE t SET a = 1")
			lines := 0
			err := l.follow(l.source(), r, func(p piece) error {
				for _, line := range p.lines {
					if line == "commit" {
						continue
					}
					if lines++; lines == 2 {
						return errEnough
					}
					l.exec("SET sql_log_bin = 0")
					l.exec(c.then...)
					l.exec("SET sql_log_bin = 1", "UPDATE t SET a = 2")
				}
				return nil
			})
			switch {
			case !c.stops && !errors.Is(err, errEnough):
				t.Errorf("%q: %v", c.then, err)
			case c.stops && (lines != 1 || !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "no statement in the log says so")):
				t.Errorf("%q: %d rows came, then: %v", c.then, lines, err)
			}
		}
		// What the log says later on is no such change.
		l.exec("DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY, a int, b int)")
		r := l.start()
		l.exec("INSERT INTO t VALUES (1, 10, 20)")
		var got []string
		err := l.follow(l.source(), r, func(p piece) error {
			for _, line := range p.lines {
				if line == "commit" {
					continue
				}
				switch got = append(got, line); len(got) {
				case 1:
					l.exec("FLUSH TABLES", "INSERT INTO t VALUES (2, 10, 20)", "ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN b TO a", "INSERT INTO t VALUES (3, 20, 10)")
				case 3:
					return errEnough
				}
			}
			return nil
		})
		if !errors.Is(err, errEnough) || !slices.Equal(got[1:], []string{"insert t id=int:2 a=int:10 b=int:20", "insert t id=int:3 b=int:20 a=int:10"}) {
			t.Errorf("a change that is logged: got %q, %v", got, err)
		}
	})
}

func TestUnnamed_NamesMayComeAndGoInTheLog(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := unnamedLab(t, kind)
		bare := "SET GLOBAL binlog_row_metadata = " + unnamedBy(kind)[0]
		const full, turn = "SET GLOBAL binlog_row_metadata = FULL", "ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN b TO a"
		l.exec("CREATE TABLE t (id int PRIMARY KEY, a int, b int)")
		steps := []step{
			{[]string{full, "INSERT INTO t VALUES (1, 10, 20)"}, []string{"insert t id=int:1 a=int:10 b=int:20"}},
			{[]string{turn, bare, "INSERT INTO t VALUES (2, 20, 10)"}, []string{"insert t id=int:2 b=int:20 a=int:10"}},
			{[]string{full, turn, "INSERT INTO t VALUES (3, 10, 20)"}, []string{"insert t id=int:3 a=int:10 b=int:20"}},
			{[]string{bare, "INSERT INTO t VALUES (4, 10, 20)", "INSERT INTO t VALUES (5, 10, 20)", full, "INSERT INTO t VALUES (6, 10, 20)"}, []string{
				"insert t id=int:4 a=int:10 b=int:20", "insert t id=int:5 a=int:10 b=int:20", "insert t id=int:6 a=int:10 b=int:20",
			}},
		}
		r := l.start()
		l.live(r, steps...)
		// Read later: what has names says so, and what has none has been turned since.
		if err := l.follow(l.source(), r, func(piece) error { return nil }); !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "(ALTER TABLE t …)") {
			t.Errorf("read later: got %v", err)
		}
		r = l.start()
		l.exec(bare, "DELETE FROM t WHERE id = 1", full, "DELETE FROM t WHERE id = 2", bare)
		l.tx("DELETE FROM t WHERE id = 3", "INSERT INTO t VALUES (7, 10, 20)")
		expect(t, l.record(l.source(small), r), "delete t before id=int:1 a=int:10 b=int:20", "delete t before id=int:2 a=int:20 b=int:10", "delete t before id=int:3 a=int:10 b=int:20", "insert t id=int:7 a=int:10 b=int:20")
	})
}

func TestUnnamed_ALogWithoutTheStatementsOfADatabaseProvesNothing(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind, "binlog_row_metadata="+unnamedBy(kind)[0], "binlog_ignore_db=quiet")
		l.exec("CREATE DATABASE quiet", "CREATE TABLE t (id int PRIMARY KEY, a int, b int)")
		r := l.start()
		l.exec("INSERT INTO t VALUES (1, 10, 20)", "USE quiet", "ALTER TABLE "+l.name+".t RENAME COLUMN a TO b, RENAME COLUMN b TO a", "USE "+l.name)
		err := l.follow(l.source(), r, func(p piece) error {
			if len(p.lines) > 0 {
				t.Errorf("got %q", p.lines)
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "binlog_ignore_db") {
			t.Error(err)
		}
	}, "MySQL 9", "MariaDB 11")
}

// looks reads the log until a line has come, and says how often it looked ahead.
func (l *lab) looks(r capture.Resume, last string) float64 {
	l.t.Helper()
	reg := prometheus.NewRegistry()
	s := New(l.config(), slog.New(slog.NewTextHandler(io.Discard, nil)), reg)
	defer func() { _ = s.Close() }()
	err := l.follow(s, r, func(p piece) error {
		if slices.Contains(p.lines, last) {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		l.t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "headwater_mysql_looks_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	l.t.Fatal("looks are not counted")
	return 0
}

func TestUnnamed_OneLookProvesManyTables(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := unnamedLab(t, kind)
		const many = 50
		for i := range many {
			l.exec(fmt.Sprintf("CREATE TABLE t%d (id int PRIMARY KEY)", i))
		}
		r := l.start()
		for i := range many {
			l.exec(fmt.Sprintf("INSERT INTO t%d VALUES (1)", i), "FLUSH BINARY LOGS")
		}
		if got := l.looks(r, fmt.Sprintf("insert t%d id=int:1", many-1)); got < 1 || got > 5 { // a server may note something itself meanwhile
			t.Errorf("%g looks prove %d tables", got, many)
		}
		l.exec("SET GLOBAL binlog_row_metadata = FULL")
		r = l.start()
		l.exec("INSERT INTO t1 VALUES (2)", "ALTER TABLE t1 ADD x int", "INSERT INTO t1 VALUES (3, 3)")
		if got := l.looks(r, "insert t1 id=int:3 x=int:3"); got != 0 {
			t.Errorf("%g looks where the log names columns", got)
		}
	}, "MySQL 9", "MariaDB 10.11")
}

func TestUnnamed_XATransactionsHaveTheDefinitionOfTheirRows(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := unnamedLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, a int, b int)")
		r := l.start()
		application := *l
		application.db = l.connect()
		application.exec("XA START 'x'", "INSERT INTO t VALUES (1, 10, 20)", "XA END 'x'", "XA PREPARE 'x'")
		prepared := l.record(l.source(), r).last() // reads it again from here on
		application.exec("XA COMMIT 'x'")
		turned := false
		err := l.follow(l.source(), prepared, func(p piece) error {
			for _, line := range p.lines {
				switch {
				case !turned && line == "insert t id=int:1 a=int:10 b=int:20":
					turned = true
					l.exec("ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN b TO a", "XA START 'y'", "INSERT INTO t VALUES (2, 20, 10)", "XA END 'y'", "XA PREPARE 'y'", "XA COMMIT 'y'")
				case line == "insert t id=int:2 b=int:20 a=int:10":
					return errEnough
				case line != "commit" && !strings.HasPrefix(line, "insert mark"):
					t.Errorf("got %s", line)
				}
			}
			return nil
		})
		if !errors.Is(err, errEnough) || !turned {
			t.Error(err)
		}
	}, "MySQL 9", "MariaDB 11")
}

func TestUnnamed_ALockedTableIsWaitedForAndNoErrorAfterAStatement(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := unnamedLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (id int PRIMARY KEY)")
		locker := l.connect()
		lock := func(sql string) {
			if _, err := locker.Execute(sql); err != nil {
				t.Error(err)
			}
		}
		r := l.start()
		l.exec("ALTER TABLE t ADD x int", "INSERT INTO other VALUES (1)", "INSERT INTO t VALUES (1, 2)")
		lock("LOCK TABLES t WRITE")
		err := l.follow(l.source(func(c *Config) { c.BatchBytes = 4 << 10 }), r, func(p piece) error {
			for _, line := range p.lines {
				switch line {
				case "insert other id=int:1":
					lock("UNLOCK TABLES")
				case "insert t id=int:1 x=int:2":
					return errEnough
				}
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Error(err)
		}
	}, "MySQL 9")
}
