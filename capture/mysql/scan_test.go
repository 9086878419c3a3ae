package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/snapshot"
)

// stream runs Stream beside the test, which may then use the scanner, until the test
// ends or stop is called.
func (l *lab) stream(s *Source, r capture.Resume) (stop func()) {
	l.t.Helper()
	return l.watchStream(s, r, func(piece) {})
}

// watchStream is stream, and tells what comes.
func (l *lab) watchStream(s *Source, r capture.Resume, tell func(piece)) (stop func()) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.Stream(ctx, r, func(b *capture.Batch) error {
			defer b.Release()
			tell(pieceOf(b))
			return nil
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			l.t.Errorf("the stream ended: %v", err)
		}
	})
	l.t.Cleanup(stop)
	return stop
}

// target finds a table that the scanner lists.
func (l *lab) target(s *Scanner, name string) snapshot.Target {
	l.t.Helper()
	tables, err := s.Tables(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	i := slices.IndexFunc(tables, func(t snapshot.Target) bool { return t.ID.Name == name })
	if i < 0 {
		l.t.Fatalf("%s is not among %v", name, tables)
	}
	return tables[i]
}

// rowsOf reads a table in chunks of maxBytes, each in a view of its own.
func (l *lab) rowsOf(s *Scanner, name string, maxBytes int) (rows []string, chunks int) {
	l.t.Helper()
	target := l.target(s, name)
	var after []string
	for {
		v, err := s.View(l.t.Context(), target)
		if err != nil {
			l.t.Fatal(err)
		}
		c, err := v.Scan(l.t.Context(), target, after, maxBytes)
		if err != nil {
			l.t.Fatal(err)
		}
		chunks++
		for i := range c.Events {
			rows = append(rows, strings.TrimSpace(rowText(c.Table, c.Events[i].After)))
		}
		after = slices.Clone(c.Last)
		c.Release()
		if err := v.Close(); err != nil {
			l.t.Fatal(err)
		}
		if after == nil {
			return rows, chunks
		}
	}
}

// keys are types that a key may have, with values in the server's order.
var keys = []struct{ name, typ, values string }{
	{"tiny", "tinyint", "(-128), (0), (127)"},
	{"ubig", "bigint unsigned", "(0), (9223372036854775807), (18446744073709551615)"},
	{"money", "decimal(20,4)", "(-1.5), (0), (0.0001), (9999999999999999.9999)"},
	{"small", "float", "(-1.1), (0), (1.1), (3.3e38)"},
	{"large", "double", "(-1e-300), (0.1), (0.3), (1e300)"},
	{"bits", "bit(40)", "(b'0'), (b'101'), (0xff00000000)"},
	{"flag", "bit(1)", "(b'0'), (b'1')"},
	{"yr", "year", "('0000'), (1901), (2000), (2155)"},
	{"day", "date", "('1000-01-01'), ('2024-02-29'), ('9999-12-31')"},
	{"clock", "time(6)", "('-838:59:59'), ('-00:00:00.000001'), ('00:00:00'), ('838:59:59')"},
	{"moment", "datetime(6)", "('1000-01-01 00:00:00'), ('2024-01-01 00:00:00.000001'), ('2024-01-01 00:00:00.000002')"},
	{"instant", "timestamp(3)", "('1970-01-02 00:00:01'), ('2024-10-27 00:30:00'), ('2024-10-27 01:30:00.001')"},
	{"word", "varchar(20)", "('a'), ('A b'), ('äb'), ('b''\\\\'), ('z')"},
	{"cased", "varchar(20) COLLATE utf8mb4_bin", "('A'), ('B'), ('a'), ('b'), ('ä')"},
	{"latin", "varchar(20) CHARACTER SET latin1", "(''), ('a'), ('é'), ('z')"},
	{"german", "char(10) CHARACTER SET latin1 COLLATE latin1_german2_ci", "('a'), ('äx'), ('az')"},
	{"wide", "varchar(20) CHARACTER SET utf16", "('a'), ('中'), ('😀')"},
	{"chinese", "varchar(20) CHARACTER SET gbk", "('a'), ('中'), ('文')"},
	{"raw", "varbinary(10)", "(''), (0x00), (0x27), (0x5c), (0xff00)"},
	{"fixed", "binary(3)", "(0x000000), (0x610000), (0x616263)"},
	{"color", "enum('z','a','it''s')", "('z'), ('a'), ('it''s')"},
	{"colors", "set('z','a')", "(''), ('z'), ('a'), ('z,a')"},
	{"many", "set(" + numbered(60) + ")", "('s0'), ('s59'), ('s59,s0'), ('s59,s1'), ('s59,s0,s1')"},
	{"most", "set(" + numbered(64) + ")", "('s0'), ('s63'), ('s63,s0'), ('s63,s1'), ('s63,s0,s1')"},
	{"lost", "date", "('0000-00-00'), ('2020-00-00'), ('2020-02-30'), ('2020-03-01')"},
	{"late", "datetime(6)", "('0000-00-00'), ('2020-02-30 23:59:59.000001'), ('2020-02-31'), ('2020-03-01')"},
	{"sj", "varchar(4) CHARACTER SET sjis", "(_sjis 0x41), (_sjis 0x5c), (_sjis 0x815f), (_sjis 0x8160)"},
	{"nec", "varchar(4) CHARACTER SET cp932", "(_cp932 0x8141), (_cp932 0x81e0), (_cp932 0x878a), (_cp932 0x8790), (_cp932 0xfa59)"},
	{"five", "char(4) CHARACTER SET big5", "(_big5 0x41), (_big5 0xa1c3), (_big5 0xa1c5), (_big5 0xa2cc), (_big5 0xa451)"},
	{"euc", "varchar(4) CHARACTER SET ujis COLLATE ujis_bin", "(_ujis 0x5c), (_ujis 0xa1c0), (_ujis 0xa1c1)"},
	{"eucms", "varchar(4) CHARACTER SET eucjpms", "(_eucjpms 0x5c), (_eucjpms 0xa1c0), (_eucjpms 0xa2cc), (_eucjpms 0xada1)"},
}

func TestScan_FollowsKeysOfEveryTypeInTheServersOrder(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("SET sql_mode = 'ALLOW_INVALID_DATES'", "SET time_zone = '+00:00'")
		all := slices.Clone(keys)
		if strings.HasPrefix(kind, "MariaDB") {
			all = append(all, struct{ name, typ, values string }{"id6", "inet6", "('::1'), ('2001:db8::ff00:42:8329')"},
				struct{ name, typ, values string }{"guid", "uuid", "('123e4567-e89b-12d3-a456-426655440000'), ('223e4567-e89b-12d3-a456-426655440000')"})
		}
		for _, k := range all {
			l.exec(fmt.Sprintf("CREATE TABLE %s (k %s NOT NULL PRIMARY KEY)", k.name, k.typ), fmt.Sprintf("INSERT INTO %s VALUES %s", k.name, k.values),
				// The same as the second part of a key, which then comes three times.
				fmt.Sprintf("CREATE TABLE %s_2 (n int, k %s NOT NULL, PRIMARY KEY (n, k))", k.name, k.typ),
				fmt.Sprintf("INSERT INTO %[1]s_2 SELECT n, k FROM %[1]s, (SELECT 1 AS n UNION SELECT 2 UNION SELECT 3) three", k.name))
		}
		s := l.source()
		scanner := s.Scanner()
		l.stream(s, capture.Resume{})
		for _, k := range all {
			for _, name := range []string{k.name, k.name + "_2"} {
				whole, _ := l.rowsOf(scanner, name, 1<<20)
				parts, chunks := l.rowsOf(scanner, name, 1)
				if want := l.ask("SELECT COUNT(*) FROM " + name); fmt.Sprint(len(whole)) != want {
					t.Errorf("%s: %d rows, want %s: %q", name, len(whole), want, whole)
				}
				if !slices.Equal(whole, parts) || chunks < len(whole) {
					t.Errorf("%s: in %d parts\n%q\nand at once\n%q", name, chunks, parts, whole)
				}
			}
		}
	})
}

func TestScan_OfLongKeysReadsEveryRowOnce(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		// Of a letter that weighs most, as many as an index takes but for two.
		heavy := "CONVERT(0xEFB7BA USING utf8mb4)"
		type table struct {
			name, columns, begin string
			keyed                bool
		}
		tables := []table{
			{"prefix", "k text CHARACTER SET latin1 NOT NULL, n int, PRIMARY KEY (k(1500))", "REPEAT('a', 1100)", false},
			{"bytes", "k blob NOT NULL, n int, PRIMARY KEY (k(1500))", "REPEAT('a', 1100)", false},
			{"uni", "k tinytext CHARACTER SET latin1 NOT NULL, n int, UNIQUE (k(200))", "REPEAT('a', 190)", false},
			{"whole", "k varchar(1500) CHARACTER SET latin1 NOT NULL PRIMARY KEY, n int", "REPEAT('a', 1100)", true},
			{"heavy", "k varchar(768) COLLATE utf8mb4_unicode_520_ci NOT NULL PRIMARY KEY, n int", "REPEAT(" + heavy + ", 766)", true},
		}
		if strings.HasPrefix(kind, "MariaDB") {
			tables = append(tables, table{"hashed", "k text CHARACTER SET latin1 NOT NULL UNIQUE, n int", "REPEAT('a', 1100)", false})
		}
		const rows = 60
		for _, tab := range tables {
			l.exec(fmt.Sprintf("CREATE TABLE %s (%s)", tab.name, tab.columns))
			var values []string
			for i := range rows {
				values = append(values, fmt.Sprintf("(CONCAT(%s, '%02[2]d'), %[2]d)", tab.begin, i*37%rows))
			}
			l.exec(fmt.Sprintf("INSERT INTO %s VALUES %s", tab.name, strings.Join(values, ", ")))
		}
		s := l.source()
		scanner := s.Scanner()
		l.stream(s, capture.Resume{})
		for _, tab := range tables {
			if keyed := len(l.target(scanner, tab.name).Key) > 0; keyed != tab.keyed {
				t.Errorf("%s: that it is read by its key is %t", tab.name, keyed)
				continue
			}
			for _, bytes := range []int{1, 20_000, 64 << 20} {
				if bytes < 64<<20 && !tab.keyed {
					continue // a read from one view
				}
				got, chunks := l.rowsOf(scanner, tab.name, bytes)
				slices.Sort(got)
				if n := len(got); n != rows || len(slices.Compact(got)) != rows {
					t.Errorf("%s in %d chunks: %d rows of %d", tab.name, chunks, n, rows)
				}
			}
		}
		// Whatever the server does to bring rows into order, it compares whole keys.
		srv, _ := s.scan.present()
		c, err := scanner.connect(t.Context(), srv)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		for _, tab := range tables {
			if !tab.keyed {
				continue
			}
			l.exec("CREATE TABLE plain_"+tab.name+" LIKE "+tab.name, "ALTER TABLE plain_"+tab.name+" DROP PRIMARY KEY",
				fmt.Sprintf("INSERT INTO plain_%s SELECT * FROM %[1]s ORDER BY n * 37 %% %[2]d", tab.name, rows))
			got, err := c.query(t.Context(), "SELECT n FROM "+quoteIdent(l.name)+".plain_"+tab.name+" ORDER BY k LIMIT 50")
			if err != nil {
				t.Fatalf("%s: %v", tab.name, err)
			}
			for i, r := range got {
				if r[0] != fmt.Sprint(i) {
					t.Errorf("%s, sorted without an index: row %d is %v", tab.name, i, got)
					break
				}
			}
		}
	})
}

func TestScan_OfAKeyThatOrdersNothingSaysTheDefinitionOfTheLog(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (k text NOT NULL UNIQUE, n int)")
		r := l.start()
		l.exec("INSERT INTO t VALUES ('a', 1)")
		var logged *capture.Table
		err := l.batches(l.source(), r, func(b *capture.Batch) error {
			for i := range b.Events {
				if logged = b.Events[i].Table; logged != nil {
					return errEnough
				}
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		s := l.source()
		scanner := s.Scanner()
		l.stream(s, capture.Resume{})
		target := l.target(scanner, "t")
		v, err := scanner.View(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		c, err := v.Scan(t.Context(), target, nil, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release()
		if len(target.Key) > 0 || !slices.Equal(logged.Key, []int{0}) || !slices.Equal(c.Table.Key, logged.Key) || c.Table.KeyIndex != logged.KeyIndex || !slices.Equal(c.Table.RowKey, logged.RowKey) {
			t.Errorf("read by %q; the read has the key %v %q %v, and the log %v %q %v", target.Key, c.Table.Key, c.Table.KeyIndex, c.Table.RowKey, logged.Key, logged.KeyIndex, logged.RowKey)
		}
	}, "MariaDB 10.11", "MariaDB 11")
}

func TestScan_FindsKeyColumnsWhoseNamesDifferByAnAccent(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (`a` varchar(10) COLLATE utf8mb4_bin, `ä` varchar(10) CHARACTER SET latin1, PRIMARY KEY (a, `ä`))",
			"INSERT INTO t VALUES ('x', 'y'), ('x', 'z')")
		s := l.source()
		scanner := s.Scanner()
		l.stream(s, capture.Resume{})
		if rows, chunks := l.rowsOf(scanner, "t", 1); len(rows) != 2 || chunks < 2 {
			t.Errorf("read %q in %d chunks", rows, chunks)
		}
	})
}

func TestScan_SeesThePrimaryKeyThatTheServerAdds(t *testing.T) {
	t.Parallel()
	l := privateLab(t, "MySQL 9", "show_gipk_in_create_table_and_information_schema=OFF")
	l.exec("SET sql_generate_invisible_primary_key = ON", "CREATE TABLE g (v int)", "INSERT INTO g VALUES (1), (2)")
	r := l.start()
	l.exec("INSERT INTO g VALUES (3)")
	expect(t, l.record(l.source(), r), "insert g my_row_id=uint:3 v=int:3")
	s := l.source()
	scanner := s.Scanner()
	l.stream(s, r)
	if target := l.target(scanner, "g"); !slices.Equal(target.Key, []string{"my_row_id"}) {
		t.Errorf("the key is %q", target.Key)
	}
	want := []string{"my_row_id=uint:1 v=int:1", "my_row_id=uint:2 v=int:2", "my_row_id=uint:3 v=int:3"}
	if rows, _ := l.rowsOf(scanner, "g", 1); !slices.Equal(rows, want) {
		t.Errorf("read %q, want %q", rows, want)
	}
}

func TestScan_OfALargeTableReadsOnByItsIndex(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE big (a varchar(20) CHARACTER SET latin1, b int, c datetime, v varchar(100), PRIMARY KEY (a, b, c))")
		var rows []string
		for i := range 2000 {
			rows = append(rows, fmt.Sprintf("('%d', %d, '2024-01-01 00:00:%02d', REPEAT('x', 100))", i%10, i/60, i%60))
		}
		l.exec("INSERT INTO big VALUES "+strings.Join(rows, ", "), "ANALYZE TABLE big")
		s := l.source()
		scanner := s.Scanner()
		l.stream(s, capture.Resume{})
		got, chunks := l.rowsOf(scanner, "big", 16<<10)
		if len(got) != 2000 || chunks < 10 {
			t.Errorf("%d rows in %d chunks", len(got), chunks)
		}
		v, err := scanner.View(t.Context(), l.target(scanner, "big"))
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		if _, err := v.(*view).describe(t.Context()); err != nil {
			t.Fatal(err)
		}
		sql, err := v.(*view).table.query([]string{"38", "20", "2024-01-01 00:00:30"}, 100)
		if err != nil {
			t.Fatal(err)
		}
		l.exec("FLUSH STATUS")
		l.exec(sql)
		r, err := l.db.Execute("SHOW STATUS WHERE Variable_name IN ('Handler_read_next', 'Handler_read_rnd_next', 'Handler_read_key', 'Sort_rows')")
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.RowNumber() {
			name, _ := r.GetString(i, 0)
			if n, _ := r.GetInt(i, 1); n > 150 {
				t.Errorf("%s is %d for 100 rows of 2000: the index is not followed", name, n)
			}
		}
	})
}

func TestView_HoldsWhatWasCommittedBeforeIt(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE items (id int PRIMARY KEY)", "CREATE TABLE plain (id int)")
		s := l.source()
		scanner := s.Scanner()
		txs := make(chan capture.Tx, 100)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- s.Stream(ctx, capture.Resume{}, func(b *capture.Batch) error {
				for i := range b.Events {
					if tx := b.Events[i].Tx; tx != nil && b.Events[i].Kind == capture.Change {
						txs <- capture.Tx{ID: strings.Clone(tx.ID), Num: tx.Num}
					}
				}
				b.Release()
				return nil
			})
		}()
		for _, name := range []string{"items", "plain"} {
			target := l.target(scanner, name)
			l.exec("INSERT INTO " + name + " VALUES (1)")
			before := <-txs
			v, err := scanner.View(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			l.exec("INSERT INTO " + name + " VALUES (2)")
			after := <-txs
			if !v.Holds(&before) || v.Holds(&after) {
				t.Errorf("%s: holds the one before %v, and the one after %v", name, v.Holds(&before), v.Holds(&after))
			}
			c, err := v.Scan(t.Context(), target, nil, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if c.Rows != 1 || c.Last != nil {
				t.Errorf("%s: %d rows and then %v", name, c.Rows, c.Last)
			}
			c.Release()
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestScan_ReadsWhatTheLogSays(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("SET sql_mode = 'NO_ENGINE_SUBSTITUTION'", "SET time_zone = '+00:00'")
		columns := []struct{ typ, value string }{
			{"tinyint", "-7"},
			{"bigint unsigned zerofill", "18446744073709551615"},
			{"float", "1.1"},
			{"float(7,3)", "1234.567"},
			{"double", "-0e0"},
			{"decimal(65,30)", "12345678901234567890123456789012345.000000000000000000000000000001"},
			{"bit(10)", "b'1000000001'"},
			{"year", "0"},
			{"date", "'0001-01-01'"},
			{"date", "'0000-00-00'"},
			{"datetime(3)", "'2024-02-30 00:00:00.1'"},
			{"datetime", "'9999-12-31 23:59:59'"},
			{"timestamp(6) NULL", "'2024-10-27 01:30:00.000001'"},
			{"time(2)", "'-00:00:00.01'"},
			{"char(5)", "'é'"},
			{"varchar(20) CHARACTER SET latin1", "'€é'"},
			{"text CHARACTER SET utf16", "'中😀'"},
			{"binary(5)", "'a'"},
			{"varbinary(9)", "0x00ff27"},
			{"longblob", "REPEAT('b', 70000)"},
			{"longtext", "''"},
			{"enum('a','b,c','ü')", "'b,c'"},
			{"set('x','y','z')", "'x,z'"},
			{"geometry", "ST_GeomFromText('POINT(1 2)')"},
			{"point", "POINT(3, 4)"},
			{"json", `'{"b": 1, "a": [1.0, null, "x y"], "n": 1e2}'`},
			{"int", "NULL"},
		}
		var defs, values []string
		for i, c := range columns {
			defs = append(defs, fmt.Sprintf("c%d %s", i, c.typ))
			values = append(values, c.value)
		}
		l.exec("CREATE TABLE t (id int PRIMARY KEY, " + strings.Join(defs, ", ") + ", g int GENERATED ALWAYS AS (id + 1) STORED, v int GENERATED ALWAYS AS (id + 2) VIRTUAL)")
		r := l.start()
		names := make([]string, len(columns))
		for i := range names {
			names[i] = fmt.Sprintf("c%d", i)
		}
		l.exec("INSERT INTO t (id, " + strings.Join(names, ", ") + ") VALUES (1, " + strings.Join(values, ", ") + ")")
		s := l.source()
		scanner := s.Scanner()
		logged := make(chan capture.Row, 1)
		defs2 := make(chan *capture.Table, 1)
		keep := capture.NewBatch() // outlives the stream's
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- s.Stream(ctx, r, func(b *capture.Batch) error {
				defer b.Release()
				for i := range b.Events {
					if ev := &b.Events[i]; ev.Kind == capture.Change {
						row := make(capture.Row, len(ev.After))
						for j := range row {
							row[j] = ev.After[j].Clone(keep)
						}
						logged <- row
						defs2 <- ev.Table
					}
				}
				return nil
			})
		}()
		target := l.target(scanner, "t")
		v, err := scanner.View(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		c, err := v.Scan(t.Context(), target, nil, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release()
		var row capture.Row
		select {
		case row = <-logged:
		case err := <-ended:
			t.Fatal(err)
		}
		def := <-defs2
		if def != c.Table {
			t.Errorf("the definitions differ: the log has\n%+v\nand the read\n%+v", def, c.Table)
		}
		for i := range row {
			if got, want := c.Events[0].After[i].AppendKey(nil), row[i].AppendKey(nil); !slices.Equal(got, want) {
				t.Errorf("%s %s: the read has %v and the log %v", def.Columns[i].Name, def.Columns[i].Type.Name, c.Events[0].After[i], row[i])
			}
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestScanner_AChunkHasTheColumnsOfItsMoment: the columns of the chunk before are only where
// a read begins.
func TestScanner_AChunkHasTheColumnsOfItsMoment(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, a varchar(20), b int) CHARACTER SET utf8mb4")
		for i := range 6 {
			l.exec(fmt.Sprintf("INSERT INTO t VALUES (%d, 'v%d', 7)", i, i))
		}
		s := l.source()
		scanner := s.Scanner()
		l.stream(s, capture.Resume{})
		var after []string
		for _, c := range []struct{ change, want string }{
			{"DO 0", `id=int:0 a="v0" b=int:7`},
			{"ALTER TABLE t ADD c int NOT NULL DEFAULT 5", `id=int:1 a="v1" b=int:7 c=int:5`},
			{"ALTER TABLE t DROP b", `id=int:2 a="v2" c=int:5`},
			{"ALTER TABLE t CHANGE a b varchar(20), ADD a int FIRST", `a=null id=int:3 b="v3" c=int:5`},
			{"ALTER TABLE t MODIFY c varchar(5) CHARACTER SET latin1", `a=null id=int:4 b="v4" c="5"`},
			{"DO 0", `a=null id=int:5 b="v5" c="5"`},
		} {
			l.exec(c.change)
			target := l.target(scanner, "t")
			v, err := scanner.View(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			chunk, err := v.Scan(t.Context(), target, after, 1)
			if err != nil {
				t.Fatalf("%s: %v", c.change, err)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			var got []string
			for i, col := range chunk.Table.Columns {
				got = append(got, col.Name+"="+chunk.Events[0].After[i].String())
			}
			if strings.Join(got, " ") != c.want || len(chunk.Events) != 1 || chunk.Events[0].Table != chunk.Table {
				t.Errorf("%s: got %s, want %s", c.change, strings.Join(got, " "), c.want)
			}
			after = chunk.Last
			chunk.Release()
		}
	})
}
