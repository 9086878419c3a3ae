package mysql

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/integration/servers"
)

// privateLab is a database in a server of its own, whose log the test may harm.
func privateLab(t *testing.T, kind string, settings ...string) *lab {
	t.Helper()
	return labIn(t, privateServer(t, kind, settings...))
}

func privateServer(t *testing.T, kind string, settings ...string) *servers.MySQL {
	t.Helper()
	c := servers.MySQLConfig{Settings: map[string]string{}}
	name, version, _ := strings.Cut(kind, " ")
	c.Version = version
	for _, s := range settings {
		k, v, _ := strings.Cut(s, "=")
		c.Settings[k] = v
	}
	if name == "MariaDB" {
		return servers.Own(t).MariaDBWith(c)
	}
	return servers.Own(t).MySQLWith(c)
}

// lost wants Verify and Stream to stop for good, with these words.
func (l *lab) lost(r capture.Resume, words ...string) {
	l.t.Helper()
	s := l.source()
	for what, err := range map[string]error{
		"Verify": s.Verify(l.t.Context(), r),
		"Stream": l.follow(l.source(), r, func(piece) error { return errEnough }),
	} {
		if !errors.Is(err, capture.ErrPositionLost) {
			l.t.Errorf("%s: got %v", what, err)
			continue
		}
		for _, w := range append(words, "; remedy: ") {
			if !strings.Contains(err.Error(), w) {
				l.t.Errorf("%s: %q is not in: %v", what, w, err)
			}
		}
	}
}

func (l *lab) resetLog() {
	l.t.Helper()
	if strings.HasPrefix(l.server.Version, "9") {
		l.exec("RESET BINARY LOGS AND GTIDS")
	} else {
		l.exec("RESET MASTER")
	}
}

// purge removes all files of the log but the last. A server keeps what its engine needs, or
// a session that has just ended.
func (l *lab) purge() {
	l.t.Helper()
	status := "SHOW MASTER STATUS"
	if strings.HasPrefix(l.server.Version, "9") {
		status = "SHOW BINARY LOG STATUS"
	}
	file := l.ask(status)
	for began := time.Now(); l.ask("SHOW BINARY LOGS") != file; {
		if time.Since(began) > 2*time.Minute {
			l.t.Fatalf("the server does not purge what lies before %s", file)
		}
		l.exec("PURGE BINARY LOGS TO '" + file + "'")
		time.Sleep(50 * time.Millisecond)
	}
}

func TestVerify_NamesEveryGap(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		maria := strings.HasPrefix(kind, "MariaDB")
		l := privateLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
		old := l.start()
		l.exec("INSERT INTO t VALUES (2)")
		now := l.start()
		if err := l.source().Verify(t.Context(), old); err != nil {
			t.Errorf("nothing is wrong, and Verify says %v", err)
		}
		at, err := parsePosition(old.At)
		if err != nil {
			t.Fatal(err)
		}
		change := func(f func(*position)) capture.Resume {
			p, err := parsePosition(old.At)
			if err != nil {
				t.Fatal(err)
			}
			f(&p)
			w, err := newPositionWriter(p.Source)
			if err != nil {
				t.Fatal(err)
			}
			text, err := w.write(&p)
			if err != nil {
				t.Fatal(err)
			}
			return capture.Resume{At: text}
		}
		// Of another topology.
		strange := "11111111-2222-3333-4444-555555555555:1-7"
		if maria {
			strange = "7-99-3"
		}
		l.lost(change(func(p *position) {
			if err := p.GTIDs.Update(strange); err != nil {
				t.Fatal(err)
			}
			p.Source.Server = "another"
		}), strange)
		l.lost(change(func(p *position) {
			p.Source.Flavour, p.GTIDs = map[bool]flavour{true: mySQL, false: mariaDB}[maria], nil
		}), "of the kind")
		l.lost(change(func(p *position) { p.Source.Wire = "later" }), "later")
		if err := l.source().Verify(t.Context(), capture.Resume{At: `{"tx":1}`}); !errors.Is(err, capture.ErrPositionLost) {
			t.Errorf("a position of another reader: got %v", err)
		}

		// Purged.
		l.exec("FLUSH BINARY LOGS", "INSERT INTO t VALUES (3)", "FLUSH BINARY LOGS")
		l.purge()
		missing := fmt.Sprintf("%s:", at.Source.Server)
		if maria {
			missing = "purged"
		}
		l.lost(old, missing)
		l.lost(now, missing)

		// Reset.
		l.exec("INSERT INTO t VALUES (4)")
		last := l.start()
		l.resetLog()
		l.lost(last, "reset")

		// Deleted while the server was down.
		l.exec("INSERT INTO t VALUES (5)")
		first := l.start()
		l.exec("FLUSH BINARY LOGS", "INSERT INTO t VALUES (6)")
		last = l.start()
		if err := l.server.Kill(); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(l.server.Dir, "binlog.*"))
		if err != nil || len(files) < 3 {
			t.Fatalf("the log has the files %v (%v)", files, err)
		}
		for _, file := range files {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		if at, err = parsePosition(first.At); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(time.Unix(int64(at.Began)+1, 0))) // files are told apart by the second in which they began
		if err := l.server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.db = l.connect()
		l.lost(first, "the log was deleted or reset")
		l.lost(last, "the log was deleted or reset")
		for id := range 40 {
			l.exec(fmt.Sprintf("INSERT INTO t VALUES (%d)", 100+id))
		}
		l.lost(first) // its file is there again, and longer
		l.lost(last, "the log was deleted or reset")
	}, "MySQL 9", "MariaDB 10.11")
}

func TestFailover_GoesOnExactlyOnce(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind, "binlog_row_event_max_size=256")
		other := privateServer(t, kind, "binlog_row_event_max_size=65536")
		if err := other.Follow(t.Context(), l.server); err != nil {
			t.Fatal(err)
		}
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(200))")
		var rows []string
		for i := range 300 {
			rows = append(rows, fmt.Sprintf("(%d, REPEAT('x', 100))", i))
		}
		l.exec("FLUSH BINARY LOGS", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS") // its files are further on
		r := l.start()
		if !strings.HasPrefix(kind, "MariaDB") {
			// A transaction of its own, which comes first in its log.
			if err := other.CatchUp(t.Context(), l.server); err != nil {
				t.Fatal(err)
			}
			errant := &lab{t: t, server: other}
			errant.db = errant.connect()
			errant.exec("SET GLOBAL super_read_only = OFF", "CREATE DATABASE errant")
		}
		l.exec("INSERT INTO t VALUES (-1, 'before')", "INSERT INTO t VALUES "+strings.Join(rows, ", "), "DELETE FROM t WHERE id = 7")
		whole := l.record(l.source(small), r)
		cut := -1
		for i, p := range whole.pieces {
			if p.inTx != nil && p.inTx.Done > 100 {
				cut = i
			}
		}
		if cut < 0 {
			t.Fatal("no batch ends inside of the large transaction")
		}
		if err := other.CatchUp(t.Context(), l.server); err != nil {
			t.Fatal(err)
		}
		if err := l.server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := other.Promote(t.Context()); err != nil {
			t.Fatal(err)
		}
		after := &lab{t: t, server: other, name: l.name}
		after.db = after.connect()
		for i := range whole.pieces {
			rest := after.record(after.source(small), whole.resume(i))
			got := append((&tape{pieces: whole.pieces[:i+1]}).lines(), rest.lines()...)
			if strings.Join(got, "\n") != strings.Join(whole.lines(), "\n") {
				t.Errorf("from batch %d on the new server says\n\t%s", i, strings.Join(rest.lines(), "\n\t"))
			}
			if names := append((&tape{pieces: whole.pieces[:i+1]}).names(), rest.names()...); !slices.Equal(names, whole.names()) {
				t.Errorf("from batch %d on the new server calls changes otherwise: %q", i, rest.names())
			}
		}
		// And once more on the new server, which dies in the middle, too.
		begun := (&tape{pieces: whole.pieces[:cut+1]}).lines()
		second := after.record(after.source(small), whole.resume(cut))
		for i := range second.pieces {
			rest := after.record(after.source(small), second.resume(i))
			got := append(slices.Clone(begun), append((&tape{pieces: second.pieces[:i+1]}).lines(), rest.lines()...)...)
			if !slices.Equal(got, whole.lines()) {
				t.Errorf("from batch %d of the new server on it says\n\t%s", i, strings.Join(rest.lines(), "\n\t"))
			}
		}
		// What the new server never got.
		at, err := parsePosition(whole.last().At)
		if err != nil {
			t.Fatal(err)
		}
		ahead := "0-" + at.Source.Server + "-99999"
		if !strings.HasPrefix(kind, "MariaDB") {
			ahead = at.Source.Server + ":99999"
		}
		if err := at.GTIDs.Update(ahead); err != nil {
			t.Fatal(err)
		}
		w, err := newPositionWriter(at.Source)
		if err != nil {
			t.Fatal(err)
		}
		text, err := w.write(&at)
		if err != nil {
			t.Fatal(err)
		}
		after.lost(capture.Resume{At: text}, ahead)
	}, "MySQL 9", "MariaDB 11")
}

func TestFileMode_GoesOnByPlaces(t *testing.T) {
	l := privateLab(t, "MySQL 9", "gtid_mode=OFF", "enforce_gtid_consistency=OFF")
	t.Parallel()
	l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(100))")
	l.replayed(func() {
		l.exec("INSERT INTO t VALUES (1, 'a')", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (2, 'b')")
		l.tx("UPDATE t SET v = 'c'", "DELETE FROM t WHERE id = 1")
	}, `insert t id=int:1 v="a"`, `insert t id=int:2 v="b"`, `update t before id=int:1 v="a" id=int:1 v="c"`, `update t before id=int:2 v="b" id=int:2 v="c"`, `delete t before id=int:1 v="c"`)
	l.testXA()
	r := l.start()

	s := l.source()
	scanner := s.Scanner()
	stop := l.stream(s, r)
	_, err := scanner.View(t.Context(), l.target(scanner, "t"))
	if !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), "snapshot_lock") {
		t.Errorf("a view without a proof: got %v", err)
	}
	stop()
	const bound = "gtid_mode is OFF: the pipeline is bound to this one server"
	snapshot := func(c *Config) { c.Snapshot = true }
	wantFindings(t, findings(t, l.source(snapshot)), "! gtid_mode is OFF: nothing tells which transactions a read of a table holds", "; or snapshot_lock: allow with GRANT LOCK TABLES")
	for _, s := range []*Source{s, l.source(snapshot, func(c *Config) { c.SnapshotLock = LockAllow })} {
		if got := findings(t, s); strings.Contains(got, "!") || !strings.Contains(got, bound) {
			t.Errorf("no view will be asked for, or the lock is allowed, and found is:\n%s", got)
		}
	}
	allowed := l.source(func(c *Config) { c.SnapshotLock = LockAllow })
	scanner = allowed.Scanner()
	stop = l.stream(allowed, r)
	if rows, _ := l.rowsOf(scanner, "t", 1); len(rows) != 1 || rows[0] != `id=int:2 v="c"` {
		t.Errorf("read %q", rows)
	}
	stop()

	l.exec("FLUSH BINARY LOGS")
	l.purge()
	l.lost(r, "oldest log file")
	l.exec("RESET BINARY LOGS AND GTIDS")
	l.lost(r, "reset")
}

func TestStream_GoesOnExactlyAfterTheServerCrashed(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(200))")
		r := l.start()
		var rows []string
		for i := range 200 {
			rows = append(rows, fmt.Sprintf("(%d, REPEAT('x', 100))", i))
		}
		l.exec("INSERT INTO t VALUES " + strings.Join(rows, ", "))
		first := &tape{pieces: []piece{{end: r.At, entries: r.Entries}}}
		err := l.follow(l.source(small), r, func(p piece) error {
			first.pieces = append(first.pieces, p)
			if p.inTx != nil {
				if err := l.server.Kill(); err != nil {
					return err
				}
				return errEnough // inside of the transaction
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		if err := l.follow(l.source(), first.last(), func(piece) error { return nil }); err == nil || errors.Is(err, capture.ErrPositionLost) || errors.Is(err, capture.ErrMisconfigured) {
			t.Errorf("while the server is away: got %v, want an error that may be retried", err)
		}
		if err := l.server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.db = l.connect()
		l.exec("INSERT INTO t VALUES (1000, 'after')")
		rest := l.record(l.source(small), first.last())
		got := append(first.lines(), rest.lines()...)
		if len(got) != 201 || !strings.HasPrefix(got[0], "insert t id=int:0 ") || !strings.HasPrefix(got[199], "insert t id=int:199 ") || !strings.HasPrefix(got[200], "insert t id=int:1000 ") {
			t.Errorf("%d changes before and %d after", len(first.lines()), len(rest.lines()))
		}
	}, "MySQL 9", "MariaDB 11")
}

// nextSecond waits until the server's clock has gone on.
func (l *lab) nextSecond() {
	l.t.Helper()
	for now := l.ask("SELECT UNIX_TIMESTAMP()"); l.ask("SELECT UNIX_TIMESTAMP()") == now; {
		time.Sleep(50 * time.Millisecond)
	}
}

func TestVerify_NoticesALogThatWasResetAndHasGrown(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		var settings []string
		if kind == "MySQL 8.0" { // by places
			settings = []string{"gtid_mode=OFF", "enforce_gtid_consistency=OFF"}
		}
		l := privateLab(t, kind, settings...)
		l.resetLog() // its file has the first number
		l.exec("CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT)", "INSERT INTO t VALUES ()")
		first := l.start()
		later := l.record(l.source(), first).last()
		at, err := parsePosition(later.At)
		if err != nil {
			t.Fatal(err)
		}
		l.nextSecond()
		l.resetLog()
		l.exec("DELETE FROM t") // the log has the same statements again
		for range 60 {
			l.exec("INSERT INTO t VALUES ()")
		}
		r, err := l.db.Execute("SHOW BINARY LOGS")
		if err != nil {
			t.Fatal(err)
		}
		file, err1 := r.GetString(0, 0)
		size, err2 := r.GetUint(0, 1)
		if err := errors.Join(err1, err2); err != nil || file != at.At.File || size <= at.At.Pos {
			t.Fatalf("the log ends at %s:%d, and the checkpoint stands at %s: the test proves nothing (%v)", file, size, at.At, err)
		}
		l.lost(first, "its log was reset")
		l.lost(later, "its log was reset")
	}, "MySQL 8.0", "MySQL 9", "MariaDB 10.11")
}

func TestVerify_NoticesALogThatLostItsEnd(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, v varchar(200))")
		r := l.start()
		l.exec("INSERT INTO t (v) VALUES ('kept')")
		kept := l.record(l.source(), r).last()
		// What the system has written when the power goes.
		image := filepath.Join(t.TempDir(), "image")
		if err := syscall.Kill(l.server.PID(), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		err := os.CopyFS(image, os.DirFS(l.server.Dir))
		if err := errors.Join(err, syscall.Kill(l.server.PID(), syscall.SIGCONT)); err != nil {
			t.Fatal(err)
		}
		var rows []string
		for range 200 {
			rows = append(rows, "(REPEAT('x', 100))")
		}
		l.exec("INSERT INTO t (v) VALUES " + strings.Join(rows, ", "))
		whole := l.record(l.source(small), kept)
		cut := slices.IndexFunc(whole.pieces, func(p piece) bool { return p.inTx != nil })
		if err := l.server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.RemoveAll(l.server.Dir), os.CopyFS(l.server.Dir, os.DirFS(image))); err != nil {
			t.Fatal(err)
		}
		if err := l.server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.db = l.connect()
		if err := l.source().Verify(t.Context(), kept); err != nil {
			t.Errorf("the log has all of the checkpoint, and Verify says %v", err)
		}
		l.lost(whole.last(), "lost the end of its log")
		l.lost(whole.resume(cut))
		// Other transactions take the GTIDs of those that went.
		for range 20 {
			l.exec("INSERT INTO t (v) VALUES ('other')")
		}
		l.lost(whole.last(), "lost the end of its log")
		if err := l.follow(l.source(), whole.resume(cut), func(piece) error { return errEnough }); !errors.Is(err, capture.ErrPositionLost) {
			t.Errorf("a transaction that was cut and is another one now: got %v", err)
		}
	}, "MySQL 9", "MariaDB 10.11")
}

func TestSessions_AreAllWithTheServerOfTheLog(t *testing.T) {
	t.Parallel()
	a := newLab(t, "MySQL 9")
	b := labIn(t, serverOf(t, servers.Own(t), "MySQL 9"))
	a.exec("CREATE TABLE t (id int PRIMARY KEY)")
	b.exec("CREATE DATABASE `"+a.name+"`", "CREATE TABLE `"+a.name+"`.t (id int PRIMARY KEY)")

	// One address, behind which the server changes after a number of sessions.
	through := func(n int) *Source {
		targets := append(slices.Repeat([]string{a.server.Addr()}, n), b.server.Addr())
		p := newProxy(t, targets...)
		return a.source(func(c *Config) { c.URL = strings.Replace(c.URL, a.server.Addr(), p.Addr().String(), 1) })
	}
	changed := func(err error) bool {
		return err != nil && strings.Contains(err.Error(), "leads to another server") && !errors.Is(err, capture.ErrPositionLost) && !errors.Is(err, capture.ErrMisconfigured)
	}
	const sessions = 4 // that Stream opens at its first start
	for n := 1; n < sessions; n++ {
		if err := a.follow(through(n), capture.Resume{}, func(piece) error { return errEnough }); !changed(err) {
			t.Errorf("another server after %d sessions: got %v", n, err)
		}
	}
	s := through(sessions)
	scanner := s.Scanner()
	stop := a.stream(s, capture.Resume{})
	if _, err := scanner.Tables(t.Context()); !changed(err) {
		t.Errorf("another server for the scanner: got %v", err)
	}
	stop()

	// The stream moves on to another server.
	s = a.source()
	scanner = s.Scanner()
	stop = a.stream(s, capture.Resume{})
	target := a.target(scanner, "t")
	v, err := scanner.View(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	a.rowsOf(scanner, "t", 1<<20) // leaves idle sessions
	stop()
	s.cfg.URL = b.server.URL("")
	a.stream(s, capture.Resume{})
	a.target(scanner, "t")
	if err := v.Mark(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "the log comes from the server") {
		t.Errorf("a mark of the other server's log: got %v", err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	srv, _ := s.scan.present()
	for range 3 {
		c, err := scanner.connect(t.Context(), srv)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		row, err := c.queryRow(t.Context(), "SELECT @@server_uuid")
		if err != nil {
			t.Fatal(err)
		}
		if row[0] != b.ask("SELECT @@server_uuid") {
			t.Errorf("a session of the scanner is with %s", row[0])
		}
	}
}

func TestHistory_TheCatalogIsAskedAboutOneTableWithoutOpeningTheOthers(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind)
		const many = 40
		for i := range many {
			l.exec(fmt.Sprintf("CREATE TABLE t%d (id int PRIMARY KEY) WITH SYSTEM VERSIONING", i))
		}
		l.exec("FLUSH TABLES")
		c, err := l.source().connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		if h, err := readPeriod(t.Context(), c, capture.TableID{Schema: l.name, Name: "t1"}); err != nil || h == nil || h.hidden != 2 {
			t.Fatalf("got %+v, %v", h, err)
		}
		row, err := c.queryRow(t.Context(), "SHOW SESSION STATUS LIKE 'Opened_table_definitions'")
		if err != nil {
			t.Fatal(err)
		}
		if opened, err := parseUint(row[1]); err != nil || opened >= many {
			t.Errorf("the server opened %s tables", row[1])
		}
	}, "MariaDB 10.11", "MariaDB 11")
}
