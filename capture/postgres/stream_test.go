package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/integration/servers"
)

// eachVersion runs f on every version, side by side. Tests of shared servers come one
// after the other, since the slots of one server share their names; those with servers of
// their own are parallel.
func eachVersion(t *testing.T, f func(t *testing.T, version string)) {
	for _, v := range versions {
		t.Run(v, func(t *testing.T) {
			t.Parallel()
			f(t, v)
		})
	}
}

// workload commits transactions of every kind that matters to where a batch may end.
func (l *lab) workload() {
	l.t.Helper()
	l.exec(`INSERT INTO t VALUES (1, 'one'), (2, 'two')`)
	// Rows of COPY share a position in the log.
	if _, err := l.db.PgConn().CopyFrom(l.t.Context(), strings.NewReader(manyRows(1000, 400)), "COPY t FROM STDIN"); err != nil {
		l.t.Fatal(err)
	}
	l.exec(`BEGIN; UPDATE t SET v = 'never'; ROLLBACK`)
	l.tx(`UPDATE t SET id = 3 WHERE id = 2`, `SAVEPOINT a`, `DELETE FROM t`, `ROLLBACK TO a`, `DELETE FROM t WHERE id = 1`)
	l.exec(`SELECT 1 FROM pg_logical_emit_message(false, 'p', 'outside')`)
	l.tx(`INSERT INTO t SELECT g, repeat('x', 50) FROM generate_series(5000, 5300) g`, `TRUNCATE u, t`, `INSERT INTO u VALUES (1)`)
	l.exec(`INSERT INTO hidden VALUES (1)`, `INSERT INTO t VALUES (9, 'nine')`)
}

func manyRows(from, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d\trow number %d\n", from+i, i)
	}
	return b.String()
}

const tables = `CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE hidden (id int PRIMARY KEY)`

func small(c *Config) {
	c.BatchBytes = 8 << 10
	c.Tables.Exclude = []string{"*.hidden"}
}

func TestStream_ResumeAfterEachBatchEqualsOneRun(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(tables)
		first := l.record(l.source(small), capture.Resume{}, 0)
		l.workload()
		head := l.head()
		whole := l.record(l.source(small), first.last(), head)
		all := whole.lines()
		if n := len(slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == "commit" })); n < 700 {
			t.Fatalf("only %d changes:\n%s", n, strings.Join(all, "\n"))
		}
		// Changes have a name each, but for those of one truncate.
		names := map[string]string{}
		for i, place := range whole.places() {
			if before, twice := names[place]; twice && place != "" && !strings.HasPrefix(before, "truncate") || strings.HasPrefix(place, "/") {
				t.Errorf("%q and %q are both at %q", before, all[i], place)
			}
			names[place] = all[i]
		}
		cuts := 0
		for i := range whole.pieces[:len(whole.pieces)-1] {
			if whole.pieces[i].inTx != nil {
				cuts++
			}
			before := (&tape{pieces: whole.pieces[:i+1]}).lines()
			rest := l.record(l.source(small), whole.resume(i), head)
			if got := append((&tape{pieces: whole.pieces[:i+1]}).places(), rest.places()...); !slices.Equal(got, whole.places()) {
				t.Errorf("resumed after batch %d: changes have other places", i)
			}
			if got := append(before, rest.lines()...); !slices.Equal(got, all) {
				t.Fatalf("resumed after batch %d at %s %+v: %d events, want %d; goes on with %q", i, whole.pieces[i].end, whole.pieces[i].inTx,
					len(got), len(all), rest.lines()[:min(3, len(rest.lines()))])
			}
		}
		if cuts < 5 {
			t.Errorf("only %d batches end inside of a transaction", cuts)
		}
	})
}

func TestStream_TellsWhatHappened(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(tables, `ALTER TABLE u ADD big text; ALTER TABLE u ALTER big SET STORAGE EXTERNAL`)
		first := l.record(l.source(small), capture.Resume{}, 0)
		l.tx(`INSERT INTO t VALUES (1, 'a'), (2, NULL)`, `UPDATE t SET v = 'b' WHERE id = 1`, `UPDATE t SET id = 3 WHERE id = 2`, `DELETE FROM t WHERE id = 1`)
		l.exec(`BEGIN; INSERT INTO t VALUES (7); ROLLBACK`)
		l.exec(`INSERT INTO u VALUES (1, repeat('x', 5000))`, `UPDATE u SET id = 2`)
		l.tx(`INSERT INTO t VALUES (4, 'x')`, `ALTER TABLE t ADD w int`, `INSERT INTO t VALUES (5, 'y', 50)`)
		l.tx(`TRUNCATE t, u`)
		got := l.record(l.source(small), first.last(), l.head()).lines()
		want := []string{
			`insert public.t id=… v="a"`, `insert public.t id=… v=null`, `update public.t id=… v="b"`,
			`update public.t before`, `delete public.t before`, `commit`,
			`insert public.u id=… big="xxxxxxxxxxxxxxxxxxx…(5002)`, `commit`,
			`update public.u before`, `commit`,
			`insert public.t id=… v="x"`, `insert public.t id=… v="y" w=`, `commit`,
			`truncate public.t`, `truncate public.u`, `commit`,
		}
		if len(got) != len(want) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		for i := range got {
			_, values, _ := strings.Cut(want[i], "id=…")
			if !strings.HasPrefix(got[i], strings.Split(want[i], "id=…")[0]) || !strings.Contains(got[i], values) {
				t.Errorf("event %d: got %q, want %q", i, got[i], want[i])
			}
		}
		if !strings.Contains(got[8], "big=unchanged") {
			t.Errorf("a value that the log does not repeat: %s", got[8])
		}
	})
}

func TestStream_AQuietTableDoesNotHoldTheLog(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables)
	s := l.source(small)
	began := false
	var target LSN
	err := l.follow(s, capture.Resume{}, func(p piece) error {
		at, err := parsePosition(p.end)
		if err != nil {
			return err
		}
		if !began {
			began = true
			// Log that is not ours.
			l.exec(`CREATE UNLOGGED TABLE other AS SELECT 1`, `INSERT INTO hidden SELECT generate_series(1, 1000)`)
			target = l.head()
		}
		if at.End >= target {
			return errEnough
		}
		return s.Acknowledge(t.Context(), p.end)
	})
	if !errors.Is(err, errEnough) {
		t.Errorf("the position did not reach %s: %v", target, err)
	}
	if n := s.acked.Load(); n == 0 {
		t.Error("nothing was acknowledged")
	}
}

func TestStream_TheServerLearnsWhatWasAcknowledged(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables)
	s := l.source(small)
	first := l.record(s, capture.Resume{}, 0)
	l.exec(`INSERT INTO t VALUES (1, 'a')`)
	second := l.record(s, first.last(), l.head())
	l.exec(`INSERT INTO t VALUES (2, 'b')`)
	l.record(l.source(small), second.last(), l.head()) // acknowledges what it resumes from
	stands := `SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = current_database()`
	at, err := parsePosition(second.last().At)
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if l.ask(stands) == at.End.String() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the slot stands at %s, want %s", l.ask(stands), at.End)
}

func TestStream_NothingIsAcknowledgedThatWasNotPublished(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables)
	s := l.source(small)
	first := l.record(s, capture.Resume{}, 0)
	at, err := parsePosition(first.pieces[0].end)
	if err != nil {
		t.Fatal(err)
	}
	l.workload()
	head, ours := l.head(), ` FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.database = current_database()`
	err = l.follow(s, first.last(), func(p piece) error {
		now, err := parsePosition(p.end)
		if err != nil || now.End < head || p.inTx != nil {
			return err
		}
		// The server has been told how far we have read.
		l.until(`SELECT bool_or(r.write_lsn >= '` + head.String() + `')` + ours)
		if got := l.ask(`SELECT r.flush_lsn || ' ' || r.replay_lsn || ' ' || s.confirmed_flush_lsn` + ours); got != fmt.Sprintf("%s %[1]s %[1]s", at.End) {
			t.Errorf("the server believes that %s is safe, want %s", got, at.End)
		}
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
}

func TestVerify_StopsWhereTheLogCannotGoOn(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(tables)
		first := l.record(l.source(small), capture.Resume{}, 0)
		l.exec(`INSERT INTO t VALUES (1, 'a')`)
		second := l.record(l.source(small), first.last(), l.head())
		l.exec(`INSERT INTO t VALUES (2, 'a')`)
		lost := func(what string, r capture.Resume, want ...string) {
			t.Helper()
			s := l.source(small)
			for name, err := range map[string]error{"Verify": s.Verify(t.Context(), r), "Stream": l.follow(s, r, func(piece) error { return errEnough })} {
				if !errors.Is(err, capture.ErrPositionLost) {
					t.Errorf("%s: %s answers %v", what, name, err)
					continue
				}
				for _, w := range want {
					if !strings.Contains(err.Error(), w) {
						t.Errorf("%s: %s does not say %q: %v", what, name, w, err)
					}
				}
			}
		}
		edit := func(old, new string) capture.Resume {
			r := second.last()
			r.At = capture.Position(strings.Replace(string(r.At), old, new, 1))
			return r
		}
		lost("another server", edit(`"system_identifier":"7`, `"system_identifier":"6`), "system identifier")
		lost("another database", edit(`"database":`, `"database":9`), "OID")
		lost("a future timeline", edit(`"timeline":1`, `"timeline":9`), "timeline 9")
		lost("a position beyond the log", edit(`"end_lsn":"0/`, `"end_lsn":"F/`), "set back")
		if err := l.source(small).Verify(t.Context(), second.last()); err != nil {
			t.Fatal(err)
		}
		l.idle()
		l.exec(`SELECT pg_replication_slot_advance('headwater', pg_current_wal_lsn())`)
		lost("a slot that was advanced by hand", second.last(), "advanced", l.ask(`SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = current_database()`))
		l.exec(`SELECT pg_drop_replication_slot('headwater')`)
		lost("a slot that is gone", second.last(), "is gone")
	})
}

func TestVerify_NamesASlotThatTheServerInvalidated(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version string) {
		pg := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: version, Settings: map[string]string{
			"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB",
		}})
		l := labAt(t, pg.Database(t))
		l.exec(tables)
		first := l.record(l.source(small), capture.Resume{}, 0)
		for range 4 {
			l.exec(`INSERT INTO hidden SELECT generate_series(1, 1000) ON CONFLICT DO NOTHING`, `SELECT pg_switch_wal()`)
		}
		l.exec(`CHECKPOINT`)
		err := l.source(small).Verify(t.Context(), first.last())
		if !errors.Is(err, capture.ErrPositionLost) || !strings.Contains(err.Error(), "invalidated") {
			t.Errorf("got %v", err)
		}
	})
}

func TestStream_GoesOnAfterTheServerCrashed(t *testing.T) {
	t.Parallel()
	pg := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15", Durable: true})
	l := labAt(t, pg.Database(t))
	l.exec(tables)
	s := l.source(small)
	first := l.record(s, capture.Resume{}, 0)
	l.workload()
	head := l.head()
	var got tape
	err := l.follow(s, first.last(), func(p piece) error {
		got.pieces = append(got.pieces, p)
		if len(got.pieces) == 3 {
			return errors.Join(s.Acknowledge(t.Context(), p.end), pg.Kill())
		}
		return nil
	})
	if err == nil {
		t.Fatal("the stream outlived its server")
	}
	if errors.Is(err, capture.ErrPositionLost) || errors.Is(err, capture.ErrUnreadable) {
		t.Fatalf("a crash is no reason to give up: %v", err)
	}
	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The acknowledged position may be lost with the crash; what was sent is skipped.
	got.pieces = append(got.pieces, l.record(l.source(small), got.last(), head).pieces...)
	l = labAt(t, l.url)
	l.exec(`SELECT pg_create_logical_replication_slot('other', 'pgoutput')`)
	if n := len(got.lines()); n < 700 || got.lines()[n-2] != `insert public.t id="9" v="nine"` && !strings.Contains(got.lines()[n-2], "nine") {
		t.Errorf("%d events, the last is %q", n, got.lines()[n-2])
	}
	seen := map[string]bool{}
	for _, line := range got.lines() {
		if line != "commit" && seen[line] {
			t.Errorf("twice: %s", line)
		}
		seen[line] = true
	}
}

func TestStream_AChangedPrefixOfACutTransactionStops(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables)
	first := l.record(l.source(small), capture.Resume{}, 0)
	l.workload()
	whole := l.record(l.source(small), first.last(), l.head())
	i := slices.IndexFunc(whole.pieces, func(p piece) bool { return p.inTx != nil })
	for what, change := range map[string]func(*capture.InTx){
		"another checksum":    func(x *capture.InTx) { x.CRC++ },
		"another transaction": func(x *capture.InTx) { x.ID = "F/0:1" },
		"more than there is":  func(x *capture.InTx) { x.Done = 1_000_000 },
	} {
		r := whole.resume(i)
		in := *r.InTx
		change(&in)
		r.InTx = &in
		if err := l.follow(l.source(small), r, func(piece) error { return errEnough }); !errors.Is(err, capture.ErrPositionLost) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestStream_SecondReaderOfTheSlotMayRetry(t *testing.T) {
	l := newLab(t, "17")
	l.exec(tables)
	s := l.source(small)
	var second error
	err := l.follow(s, capture.Resume{}, func(p piece) error {
		other := l.source(small)
		other.patience.slot = 100 * time.Millisecond
		second = l.follow(other, capture.Resume{At: p.end}, func(piece) error { return nil })
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if second == nil || errors.Is(second, capture.ErrPositionLost) || errors.Is(second, capture.ErrMisconfigured) || !strings.Contains(second.Error(), "active for PID") || !strings.Contains(second.Error(), "stop the other reader") {
		t.Errorf("got %v", second)
	}
}

func TestStream_FindsASlotWithoutCheckpoint(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables, `CREATE PUBLICATION headwater FOR ALL TABLES`, `SELECT pg_create_logical_replication_slot('headwater', 'pgoutput')`, `INSERT INTO t VALUES (1, 'kept')`)
	got := l.record(l.source(small), capture.Resume{}, l.head()).lines()
	if len(got) != 2 || !strings.Contains(got[0], "kept") {
		t.Errorf("got %q", got)
	}
}

func TestStream_FollowsAStandbyThroughItsPromotion(t *testing.T) {
	t.Parallel()
	primary := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "17"})
	p := labAt(t, primary.URL("postgres"))
	p.exec(tables, `CREATE PUBLICATION headwater FOR ALL TABLES`)
	standby := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "17", Standby: primary})
	l := labAt(t, standby.URL("postgres"))

	// A slot on a standby waits for a word of the primary about running transactions.
	r := l.launch(capture.Resume{}, small)
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		p.exec(`SELECT pg_log_standby_snapshot()`)
		if l.ask(`SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = 'headwater' AND active AND confirmed_flush_lsn IS NOT NULL`) == "1" {
			break
		}
		if time.Since(began) > 2*time.Minute {
			r.end()
			t.Fatalf("the standby makes no slot: %v", r.tape.err)
		}
	}
	r.connected()
	if _, err := r.scan.View(t.Context(), r.target("public.t")); !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), "standby") {
		t.Errorf("a view on a standby: %v", err)
	}
	p.exec(`INSERT INTO t VALUES (1, 'before')`)
	r.await("before")
	resume := r.last()
	r.end()

	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	l.exec(`SELECT pg_promote()`, `INSERT INTO t VALUES (2, 'after')`)
	got := l.record(l.source(small), resume, l.head())
	if lines := strings.Join(got.lines(), "; "); lines != `insert public.t id=int:2 v="after"; commit` {
		t.Errorf("after the promotion: %s", lines)
	}
	at, err := parsePosition(got.last().At)
	if err != nil || at.Source.Timeline != 2 {
		t.Errorf("the position is on timeline %d: %v", at.Source.Timeline, err)
	}
	// A position that the old primary wrote after the promotion is of another history.
	gone := resume
	gone.At = capture.Position(strings.Replace(string(got.last().At), `"timeline":2`, `"timeline":1`, 1))
	if err := l.source(small).Verify(t.Context(), gone); !errors.Is(err, capture.ErrPositionLost) || !strings.Contains(err.Error(), "left timeline 1") {
		t.Errorf("a position of the other branch: %v", err)
	}
}

func TestStream_CarriesOriginAndMessages(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(tables)
		s := l.source(small)
		first := l.record(s, capture.Resume{}, 0)
		l.exec(`SELECT pg_replication_origin_create('elsewhere_' || current_database())`, `SELECT pg_replication_origin_session_setup('elsewhere_' || current_database())`)
		l.tx(`SELECT pg_replication_origin_xact_setup('0/ABC', '2020-01-01')`, `INSERT INTO t VALUES (1, 'replicated')`,
			`SELECT 1 FROM pg_logical_emit_message(true, 'in', 'ä')`)
		l.exec(`SELECT pg_replication_origin_session_reset()`, `SELECT 1 FROM pg_logical_emit_message(false, 'out', '')`)
		l.exec(`SELECT pg_replication_origin_drop('elsewhere_' || current_database())`)
		l.exec(`INSERT INTO t VALUES (2, 'last')`)
		var got []string
		err := l.batches(s, first.last(), func(b *capture.Batch) error {
			for i := range b.Events {
				ev := &b.Events[i]
				if ev.Kind != capture.Change {
					continue
				}
				origin := ev.Origin[3].String() + " " + ev.Origin[4].String()
				got = append(got, fmt.Sprintf("%s %v %s tx %v", ev.Op, ev.After, strings.Replace(origin, l.ask("SELECT current_database()"), "", 1), ev.Tx != nil))
				var a, b uint64
				if n, err := fmt.Sscanf(strings.ReplaceAll(string(ev.Sequence.Bytes()), "null", `"0"`), `["%d","%d"]`, &a, &b); n != 2 || b != uint64(ev.Origin[1].Int()) {
					t.Errorf("sequence %s, lsn %v: %v", ev.Sequence, ev.Origin[1], err)
				}
				if ev.Op == capture.Message && ev.Tx == nil && a != b {
					t.Errorf("a message outside of transactions has the sequence %s", ev.Sequence)
				}
				if strings.Contains(got[len(got)-1], "last") {
					return errEnough
				}
			}
			return nil
		})
		want := []string{
			`insert [int:1 "replicated"] "elsewhere_" int:2748 tx true`, `message ["in" 0xc3a4] "elsewhere_" int:2748 tx true`,
			`message ["out" 0x] null null tx false`, `insert [int:2 "last"] null null tx true`,
		}
		if version == "13" { // its plugin sends no messages
			want = slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, "message") })
		}
		if !errors.Is(err, errEnough) || !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q: %v", got, want, err)
		}
	})
}

func TestStream_ALoggedNullAndANewLabelWidenTheDefinition(t *testing.T) {
	l := newLab(t, "15")
	l.exec(`CREATE TYPE mood AS ENUM ('a'); CREATE TABLE t (id int PRIMARY KEY, v text, m mood)`)
	first := l.record(l.source(), capture.Resume{}, 0)
	l.exec(`INSERT INTO t VALUES (1, NULL, 'a')`, `DELETE FROM t`, `ALTER TABLE t ALTER v SET NOT NULL`)
	l.exec(`INSERT INTO t VALUES (2, 'x', 'a')`, `ALTER TYPE mood ADD VALUE 'b'`, `INSERT INTO t VALUES (3, 'y', 'b')`)
	var labels []string
	err := l.batches(l.source(), first.last(), func(b *capture.Batch) error {
		for i := range b.Events {
			ev := &b.Events[i]
			if ev.Op == capture.Insert && ev.Kind == capture.Change {
				if labels = ev.Table.Columns[2].Type.Labels; ev.After[1].Kind() == capture.Null && !ev.Table.Columns[1].Nullable {
					t.Error("NULL under a definition that has no room for it")
				}
				if ev.After[0].Int() == 3 {
					return errEnough
				}
			}
		}
		return nil
	})
	if !errors.Is(err, errEnough) || !slices.Equal(labels, []string{"a", "b"}) {
		t.Errorf("labels %q: %v", labels, err)
	}
}

// Status updates do not wait for whoever takes the rows (rule R18 of publish/DESIGN.md).
func TestStream_KeepsItsConnectionWhileNobodyTakesTheRows(t *testing.T) {
	for _, version := range []string{"13", "18"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, version)
			l.exec(tables, `ALTER DATABASE `+l.ask(`SELECT current_database()`)+` SET wal_sender_timeout = '5s'`)
			s := l.source(small, func(c *Config) { c.Slot, c.StatusInterval = "patient", 10*time.Second })
			first := l.record(s, capture.Resume{}, 0)
			// More than the buffers on the way hold: the server cannot send, either.
			l.exec(`INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g`)
			rows, waited := 0, false
			err := l.follow(s, first.last(), func(p piece) error {
				if !waited {
					waited = true
					l.exec(`SELECT pg_sleep(11)`)
				}
				for _, line := range p.lines {
					if line == "commit" {
						return errEnough
					}
					rows++
				}
				return nil
			})
			if !errors.Is(err, errEnough) || rows != 20000 {
				t.Errorf("%d rows: %v", rows, err)
			}
		})
	}
}

// The end that a keepalive tells lies behind an open transaction's commit: from there a
// checkpoint would skip the rest of it.
func TestStream_AKeepaliveInsideOfATransactionMovesNothing(t *testing.T) {
	st := &stream{src: New(Config{HeartbeatInterval: time.Hour}, nil, nil), wake: make(chan struct{}, 1), lastEmit: time.Now()}
	for _, c := range []struct {
		open bool
		want LSN
	}{{true, 10}, {false, 20}} {
		st.at.End, st.tx.open = 10, c.open
		if err := st.keepalive(20, 0, true); err != nil || st.at.End != c.want || st.moved == c.open || (st.received.Load() == 20) == c.open {
			t.Errorf("open transaction %t: it stands at %s, moved %t: %v", c.open, st.at.End, st.moved, err)
		}
		if len(st.wake) != 1 {
			t.Error("the server asks for an answer")
		}
	}
}
