package mysql

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
)

// TestStream_ReadsNothingBehindADamagedPlace: the servers send what stands in the file, and do
// not look at its checksums themselves.
func TestStream_ReadsNothingBehindADamagedPlace(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(100))", "INSERT INTO t VALUES (0, 'first')")
		r := l.start()
		at, err := parsePosition(r.At)
		if err != nil {
			t.Fatal(err)
		}
		l.exec("INSERT INTO t VALUES (1, 'before')", "INSERT INTO t VALUES (2, 'harmed')", "INSERT INTO t VALUES (3, 'behind')", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (4, 'in the next file')")
		file := filepath.Join(l.server.Dir, at.At.File)
		whole, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// In the row itself: MariaDB logs the statement as well.
		harmed := bytes.LastIndex(whole, []byte("harmed"))
		if harmed < 0 {
			t.Fatal("the log does not hold the row: the test proves nothing")
		}
		flipped := bytes.Clone(whole)
		flipped[harmed] ^= 1
		for what, c := range map[string]struct {
			content []byte
			says    string
		}{
			"a bit that changed":   {flipped, "its checksum is wrong"},
			"an event that is cut": {whole[:harmed], cutShort},
			"zeroes":               {append(bytes.Clone(whole[:harmed]), make([]byte, len(whole)-harmed)...), " after " + at.At.File + ":"},
		} {
			if err := os.WriteFile(file, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			var tp *tape
			src := l.source()
			follow := func() error {
				tp = &tape{}
				return l.follow(src, r, func(p piece) error {
					if tp.pieces = append(tp.pieces, p); len(tp.lines()) > 2 {
						return errEnough
					}
					return nil
				})
			}
			err := follow()
			if c.says == cutShort { // as after a crash: it is looked at once more
				if err == nil || errors.Is(err, capture.ErrUnreadable) {
					t.Errorf("%s: at first got %v", what, err)
				}
				err = follow()
			}
			if !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "; remedy: ") {
				t.Errorf("%s: got %v", what, err)
			}
			if lines := tp.lines(); len(lines) > 0 && !slices.Equal(lines, []string{`insert t id=int:1 v="before"`, "commit"}) {
				t.Errorf("%s: what comes is %q", what, lines)
			}
		}
		if err := os.WriteFile(file, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		expect(t, l.record(l.source(), r), `insert t id=int:1 v="before"`, `insert t id=int:2 v="harmed"`, `insert t id=int:3 v="behind"`, `insert t id=int:4 v="in the next file"`)
	}, "MySQL 9", "MariaDB 11")
}

// TestStream_WhatIsNotLoggedLeavesTheRestWhole: sql_log_bin = 0 makes rows and definitions that
// the log never tells. Rows that it does tell keep what it says of them.
func TestStream_WhatIsNotLoggedLeavesTheRestWhole(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v int DEFAULT 3)")
		unlogged := func(sql ...string) {
			l.exec("SET sql_log_bin = 0")
			l.exec(sql...)
			l.exec("SET sql_log_bin = 1")
		}
		l.replayed(func() {
			l.exec("INSERT INTO t VALUES (1, 1)")
			unlogged("INSERT INTO t VALUES (2, 2)", "ALTER TABLE t ADD w varchar(10) FIRST", "CREATE TABLE u (n bigint)")
			l.exec("INSERT INTO t VALUES ('w', 3, 3)", "UPDATE t SET v = 22 WHERE id = 2", "INSERT INTO u VALUES (7)")
			unlogged("ALTER TABLE t DROP v", "DELETE FROM t WHERE id = 1", "DROP TABLE u")
			l.exec("UPDATE t SET w = 'x'")
		}, "insert t id=int:1 v=int:1", `insert t w="w" id=int:3 v=int:3`, "update t before w=null id=int:2 v=int:2 w=null id=int:2 v=int:22", "insert u n=int:7",
			`update t before w=null id=int:2 w="x" id=int:2`, `update t before w="w" id=int:3 w="x" id=int:3`)
	})
}

// TestStream_RowsThatForeignKeysChange: MySQL logs them from 9.7 on. check names the tables of
// the other servers.
func TestStream_RowsThatForeignKeysChange(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE parent (id int PRIMARY KEY)", "CREATE TABLE child (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)",
			"INSERT INTO parent VALUES (1), (2)", "INSERT INTO child VALUES (10, 1), (11, 1), (20, 2)")
		want := []string{"delete parent before id=int:1"}
		if srv := l.identified(); srv.flavour == mySQL && srv.atLeast(9, 7) {
			want = []string{"delete child before id=int:10 p=int:1", "delete child before id=int:11 p=int:1", "delete parent before id=int:1"}
		}
		r := l.start()
		l.exec("DELETE FROM parent WHERE id = 1")
		got := l.record(l.source(), r).lines()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// identified is what the server says of itself.
func (l *lab) identified() *server {
	l.t.Helper()
	s := l.source()
	c, err := s.connect(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.close()
	srv, err := s.identify(l.t.Context(), c)
	if err != nil {
		l.t.Fatal(err)
	}
	return srv
}

// TestTimeZones_OfServerAndSessionsChangeNothing: a moment is the same one in whatever zone it
// was written, and the server's own zone is in no record.
func TestTimeZones_OfServerAndSessionsChangeNothing(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind, "default_time_zone='+05:30'")
		l.exec("CREATE TABLE t (id int PRIMARY KEY, at timestamp(3) NOT NULL DEFAULT '2020-06-01 12:00:00.5', plain datetime(3) NOT NULL DEFAULT '2020-06-01 12:00:00.5')")
		s := l.source()
		scanner := s.Scanner()
		r := l.start()
		l.exec("INSERT INTO t (id) VALUES (1)", "SET time_zone = '-08:00'", "INSERT INTO t VALUES (2, '2020-05-31 22:30:00.5', '2020-06-01 12:00:00.5')",
			"SET time_zone = '+13:00'", "INSERT INTO t VALUES (3, '2020-06-01 19:30:00.5', '2020-06-01 12:00:00.5')")
		const moment, plain = 1590993000500000, 1591012800500000 // 06:30 and 12:00 UTC
		want := []string{}
		for _, id := range []string{"1", "2", "3"} {
			want = append(want, "id=int:"+id+" at="+capture.TimestampTZValue(moment).String()+" plain="+capture.TimestampValue(plain).String())
		}
		logged := l.record(s, r).lines()
		for i, line := range logged {
			logged[i] = strings.TrimPrefix(line, "insert t ")
		}
		if !slices.Equal(logged, want) {
			t.Errorf("the log has %q, want %q", logged, want)
		}
		stop := l.stream(s, r)
		if rows, _ := l.rowsOf(scanner, "t", 1<<20); !slices.Equal(rows, want) {
			t.Errorf("a query has %q, want %q", rows, want)
		}
		stop()
		err := l.batches(l.source(), r, func(b *capture.Batch) error {
			for i := range b.Events {
				if ev := &b.Events[i]; ev.Kind == capture.Change {
					for n, want := range map[int]int64{1: moment, 2: plain} {
						if d := ev.Table.Columns[n].Default; d.Kind != capture.DefaultLiteral || d.Value.Int() != want {
							t.Errorf("the default of %s is %v, want %d", ev.Table.Columns[n].Name, d.Value, want)
						}
					}
					return errEnough
				}
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Error(err)
		}
	})
}

// TestMetrics_TellWhereTheStreamStands: the names are those that the program's manual has for
// every database.
func TestMetrics_TellWhereTheStreamStands(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(200))")
		r := l.start()
		reg := prometheus.NewRegistry()
		s := New(l.config(), slog.New(slog.DiscardHandler), reg)
		defer func() { _ = s.Close() }()
		value := func(name string) float64 {
			t.Helper()
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if m := f.GetMetric(); f.GetName() == "headwater_mysql_"+name && len(m) == 1 {
					return m[0].GetGauge().GetValue() + m[0].GetCounter().GetValue()
				}
			}
			t.Fatalf("there is no metric %s", name)
			return 0
		}
		// One is committed, and the stream is held up by whoever takes it, while others follow.
		l.exec("INSERT INTO t VALUES (0, 'first')")
		l.nextSecond()
		l.nextSecond()
		var rows []string
		for i := 1; i <= 500; i++ {
			rows = append(rows, fmt.Sprintf("(%d, REPEAT('x', 200))", i))
		}
		until := func(what string, ok func() bool) {
			t.Helper()
			for began := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
				if time.Since(began) > 2*time.Minute {
					t.Fatalf("%s: the backlog is %g bytes and the lag %g s", what, value("backlog_bytes"), value("lag_seconds"))
				}
			}
		}
		held, all := make(chan struct{}), make(chan struct{})
		var hold, last sync.Once
		stop := l.watchStream(s, r, func(p piece) {
			if slices.Contains(p.lines, `insert t id=int:0 v="first"`) {
				hold.Do(func() { <-held })
			}
			if slices.ContainsFunc(p.lines, func(s string) bool { return strings.HasPrefix(s, "insert t id=int:500 ") }) {
				last.Do(func() { close(all) })
			}
		})
		until("held up", func() bool { return value("lag_seconds") >= 1 })
		l.exec("INSERT INTO t VALUES " + strings.Join(rows, ", "))
		until("held up with a log that grows", func() bool { return value("backlog_bytes") > 100_000 })
		close(held)
		<-all
		until("with nothing more to read", func() bool { return value("lag_seconds") == 0 && value("backlog_bytes") < 100_000 })
		if n := value("rows_total"); n != 501 {
			t.Errorf("%g rows are counted, want 501", n)
		}
		if n := value("log_bytes_total"); n < 100_000 || n > 1_000_000 {
			t.Errorf("%g bytes of the log are counted", n)
		}
		if file, offset := value("received_file"), value("received_offset_bytes"); file < 1 || offset < 4 {
			t.Errorf("the end of what was read is file %g, byte %g", file, offset)
		}
		stop()

		// What lies before a checkpoint is no backlog, also while nothing comes.
		st, err := l.source().open(t.Context(), r, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer st.close()
		if got, want := st.received.Load(), st.at.At.number(); got != want || want == 0 {
			t.Errorf("before anything came the backlog counts from %d, want %d", got, want)
		}
	})
}
