package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/integration/servers"
	"github.com/headwaterdb/headwater/snapshot"
)

// A running stream collects events until its test ends.
type running struct {
	l    *lab
	src  *Source
	scan *Scanner
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	tape tape
	grew chan struct{} // closed and renewed with each batch
}

// start runs Stream in the background, with a scanner, and waits until it is connected.
func (l *lab) start(r capture.Resume, change ...func(*Config)) *running {
	l.t.Helper()
	run := l.launch(r, change...)
	run.connected()
	return run
}

// launch is start without the wait.
func (l *lab) launch(r capture.Resume, change ...func(*Config)) *running {
	l.t.Helper()
	return l.run(l.source(change...), r)
}

// run is launch with a source.
func (l *lab) run(s *Source, r capture.Resume) *running {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	run := &running{l: l, src: s, scan: s.Scanner(), stop: cancel, done: make(chan struct{}), grew: make(chan struct{})}
	go func() {
		defer close(run.done)
		err := s.Stream(ctx, r, func(b *capture.Batch) error {
			defer b.Release()
			run.mu.Lock()
			defer run.mu.Unlock()
			run.tape.pieces = append(run.tape.pieces, pieceOf(b))
			close(run.grew)
			run.grew = make(chan struct{})
			return nil
		})
		run.mu.Lock()
		run.tape.err = err
		run.mu.Unlock()
	}()
	l.t.Cleanup(run.end)
	return run
}

func (r *running) connected() {
	r.l.t.Helper()
	limit, cancel := context.WithTimeout(r.l.t.Context(), 2*time.Minute)
	defer cancel()
	if err := r.src.scan.gate.Connected(limit); err != nil {
		r.end()
		r.l.t.Fatalf("the stream does not start: %v", r.tape.err)
	}
}

func (r *running) end() {
	r.stop()
	<-r.done
}

// await waits for a line.
func (r *running) await(line string) {
	r.l.t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		r.mu.Lock()
		grew, lines := r.grew, r.tape.lines()
		r.mu.Unlock()
		if slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, line) }) {
			return
		}
		select {
		case <-grew:
		case <-r.done:
			r.l.t.Fatalf("the stream ended without %q: %v", line, r.tape.err)
		case <-limit:
			r.l.t.Fatalf("no %q in %q", line, lines)
		}
	}
}

// last is where the stream stands, as a checkpoint would have it.
func (r *running) last() capture.Resume {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tape.last()
}

func (r *running) target(name string) snapshot.Target {
	r.l.t.Helper()
	targets, err := r.scan.Tables(r.l.t.Context())
	if err != nil {
		r.l.t.Fatal(err)
	}
	for _, t := range targets {
		if t.ID.String() == name {
			return t
		}
	}
	r.l.t.Fatalf("no table %s among %v", name, targets)
	return snapshot.Target{}
}

func (r *running) view(name string) snapshot.View {
	r.l.t.Helper()
	v, err := r.scan.View(r.l.t.Context(), r.target(name))
	if err != nil {
		r.l.t.Fatal(err)
	}
	r.l.t.Cleanup(func() { _ = v.Close() })
	return v
}

// read returns a table's rows, read in chunks of that size, by one view or by a view
// for each chunk.
func (r *running) read(name string, maxBytes int, oneView bool) (rows []string, chunks int) {
	r.l.t.Helper()
	t := r.target(name)
	var v snapshot.View
	after := []string(nil)
	for {
		if v == nil || !oneView {
			if v != nil {
				_ = v.Close()
			}
			v = r.view(name)
		}
		c, err := v.Scan(r.l.t.Context(), t, after, maxBytes)
		if err != nil {
			r.l.t.Fatal(err)
		}
		chunks++
		for i := range c.Events {
			rows = append(rows, textOf(&c.Events[i]))
		}
		if c.Rows != len(c.Events) {
			r.l.t.Errorf("a chunk of %d events says %d rows", len(c.Events), c.Rows)
		}
		last := c.Last
		c.Release()
		if last == nil {
			_ = v.Close()
			return rows, chunks
		}
		if len(t.Key) > 0 {
			after = last
		}
	}
}

func TestScanner_ListsTheCapturedTables(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(tables, `CREATE TABLE "Mixed Ä.b" (k text UNIQUE NOT NULL, a int); CREATE TABLE bare (a int); CREATE TABLE composite (a int, b int, c int, PRIMARY KEY (c, a))`,
			`CREATE TABLE parent (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k); CREATE TABLE leaf PARTITION OF parent FOR VALUES FROM (0) TO (10)`,
			`ALTER TABLE "Mixed Ä.b" REPLICA IDENTITY FULL`)
		r := l.start(capture.Resume{}, small)
		targets, err := r.scan.Tables(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, x := range targets {
			got = append(got, fmt.Sprintf("%s%v", x.ID, x.Key))
		}
		want := []string{"public.Mixed Ä.b[k]", "public.bare[]", "public.composite[c a]", "public.leaf[id k]", "public.t[id]", "public.u[id]"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestScanner_ReadsEachRowOnceInKeyOrder(t *testing.T) {
	const n = 700
	cases := []struct{ name, ddl, fill string }{
		{"int", `id int PRIMARY KEY, v text`, `SELECT g, repeat('v', g % 50) FROM generate_series(-300, 399) g`},
		{"text with a collation", `id text COLLATE "und-x-icu" PRIMARY KEY`, `SELECT chr(97 + g % 26 - 32 * (g % 2)) || chr(192 + g % 60) || g FROM generate_series(1, 700) g`},
		{"two columns, the second first", `a timestamptz, b numeric, PRIMARY KEY (b, a)`, `SELECT timestamptz '2020-01-01' + g * interval '1 hour', g % 7 FROM generate_series(1, 700) g`},
		{"uuid", `id uuid PRIMARY KEY`, `SELECT md5(g::text)::uuid FROM generate_series(1, 700) g`},
		{"bpchar and bytea", `a char(5), b bytea, PRIMARY KEY (a, b)`, `SELECT chr(97 + g % 5), decode(md5(g::text), 'hex') FROM generate_series(1, 700) g`},
		{"float and bool", `a float8, b bool, c date, PRIMARY KEY (a, b, c)`, `SELECT g / 3.0, g % 2 = 0, date '2020-01-01' - g FROM generate_series(1, 700) g`},
		{
			"columns in binary format", `a timestamptz, b bool, c int2, d uuid, e float4, f bytea, g time, h d, PRIMARY KEY (h, a)`,
			`SELECT timestamptz '2020-01-01' + g * interval '1 us', g % 2 = 0, -g, md5(g::text)::uuid, g / 3.0, decode(md5(g::text), 'hex'), time '00:00' + g * interval '1 s', g FROM generate_series(1, 700) g`,
		},
		{"a domain", `id d PRIMARY KEY`, `SELECT g FROM generate_series(1, 700) g`},
		{"citext in a schema of its own", `id ext.citext PRIMARY KEY`, `SELECT CASE WHEN g % 2 = 0 THEN 'B' ELSE 'a' END || g FROM generate_series(1, 700) g`},
		{"citext and int", `a ext.citext, b int, PRIMARY KEY (a, b)`, `SELECT CASE WHEN g % 2 = 0 THEN 'B' ELSE 'a' END, g FROM generate_series(1, 700) g`},
		{"an enum", `a e, b int, PRIMARY KEY (a, b)`, `SELECT CASE WHEN g % 2 = 0 THEN 'z' ELSE 'a' END::e, g FROM generate_series(1, 700) g`},
		{"an array", `a int[] PRIMARY KEY`, `SELECT array[g % 9, g] FROM generate_series(1, 700) g`},
	}
	l := newLab(t, "15")
	l.exec(`CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE DOMAIN d AS int CHECK (VALUE > 0); CREATE TYPE e AS ENUM ('z', 'a')`)
	for i, c := range cases {
		l.exec(fmt.Sprintf(`CREATE TABLE k%d (%s)`, i, c.ddl), fmt.Sprintf(`INSERT INTO k%d %s`, i, c.fill))
	}
	r := l.start(capture.Resume{})
	for i, c := range cases {
		table := fmt.Sprintf("public.k%d", i)
		whole, _ := r.read(table, 1<<20, true)
		if len(whole) != n || len(slices.Compact(slices.Sorted(slices.Values(whole)))) != n {
			t.Errorf("%s: %d rows, want %d", c.name, len(whole), n)
		}
		for _, oneView := range []bool{true, false} {
			parts, chunks := r.read(table, 500, oneView)
			if !slices.Equal(parts, whole) {
				t.Errorf("%s, read in parts (one view %v): %d rows, want %d in the same order", c.name, oneView, len(parts), len(whole))
			}
			if chunks < 4 {
				t.Errorf("%s: only %d chunks", c.name, chunks)
			}
		}
	}
}

func TestScanner_KeepsToTheSizeOfAChunk(t *testing.T) {
	l := newLab(t, "15")
	for table, key := range map[string]string{"keyed": "PRIMARY KEY", "keyless": ""} {
		// Narrow rows say nothing of the wide ones behind them.
		l.exec(`CREATE TABLE `+table+` (id int `+key+`, v text); ALTER TABLE `+table+` ALTER v SET STORAGE EXTERNAL`,
			`INSERT INTO `+table+` SELECT g, CASE WHEN g < 3000 THEN 'x' ELSE repeat('x', 100000) END FROM generate_series(1, 3050) g`)
	}
	r := l.start(capture.Resume{})
	for _, table := range []string{"public.keyed", "public.keyless"} {
		tgt := r.target(table)
		v := r.view(table)
		rows, seen := 0, make(map[int64]bool)
		for after := []string(nil); ; {
			c, err := v.Scan(t.Context(), tgt, after, 64<<10)
			if err != nil {
				t.Fatal(err)
			}
			if c.LogBytes > 64<<10+100_010 {
				t.Errorf("%s: a chunk of %d bytes", table, c.LogBytes)
			}
			for i := range c.Events {
				seen[c.Events[i].After[0].Int()] = true
			}
			rows += c.Rows
			last := c.Last
			c.Release()
			if last == nil {
				break
			}
			if len(tgt.Key) > 0 {
				after = last
			}
		}
		if rows != 3050 || len(seen) != 3050 {
			t.Errorf("%s: %d rows, of which %d differ", table, rows, len(seen))
		}
		_ = v.Close()
	}
}

func TestView_LeavesARestUnreadThatIsLarge(t *testing.T) {
	l := newLab(t, "15")
	l.exec(`CREATE TABLE k (id int PRIMARY KEY, v text); ALTER TABLE k ALTER v SET STORAGE EXTERNAL`,
		`INSERT INTO k SELECT g, CASE WHEN g < 300 THEN 'x' ELSE repeat('x', 100000) END FROM generate_series(1, 500) g`)
	r := l.start(capture.Resume{})
	tgt := r.target("public.k")
	after, ended := []string(nil), 0
	for {
		v := r.view("public.k")
		c, err := v.Scan(t.Context(), tgt, after, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		after = c.Last
		c.Release()
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		if v.(*view).conn.IsClosed() {
			ended++
		}
		if after == nil {
			break
		}
	}
	// The size of a wide row comes as a surprise once.
	if ended != 1 {
		t.Errorf("%d views ended their connection", ended)
	}
}

func TestView_WidensADefinitionThoughAConnectionWasClosed(t *testing.T) {
	l := newLab(t, "15")
	l.exec(`CREATE TYPE e AS ENUM ('a')`, `CREATE TABLE k (id int PRIMARY KEY, v e)`, `INSERT INTO k VALUES (1, 'a')`)
	r := l.start(capture.Resume{})
	v := r.view("public.k").(*view)
	c, err := v.Scan(t.Context(), v.target, nil, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	for _, label := range []string{"b", "c"} {
		if idle := r.scan.take(); idle != nil {
			r.scan.release(idle)
			l.exec(fmt.Sprintf(`SELECT pg_terminate_backend(%d, 10000)`, idle.PID()))
		}
		if err := v.amend(t.Context(), c, &outdatedError{column: 1, label: label}); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Table.Columns[1].Type.Labels; !slices.Equal(got, []string{"a", "c"}) || c.Events[0].Table != c.Table {
		t.Errorf("labels %q", got)
	}
}

func TestScanner_BoundsTheRowsOfAChunk(t *testing.T) {
	l := newLab(t, "15")
	l.exec(`CREATE TABLE k (id int PRIMARY KEY)`, `INSERT INTO k SELECT generate_series(1, 40000)`)
	r := l.start(capture.Resume{})
	tgt, v, total := r.target("public.k"), r.view("public.k"), 0
	for after := []string(nil); ; {
		c, err := v.Scan(t.Context(), tgt, after, 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		if c.Rows > chunkRows {
			t.Errorf("a chunk of %d rows", c.Rows)
		}
		total += c.Rows
		after = c.Last
		c.Release()
		if after == nil {
			break
		}
	}
	if total != 40000 {
		t.Errorf("%d rows", total)
	}
}

func TestScanner_ReadsAKeylessTableInParts(t *testing.T) {
	l := newLab(t, "15")
	l.exec(`CREATE TABLE k (v text)`, `INSERT INTO k SELECT g || repeat('x', 100) FROM generate_series(1, 2000) g`)
	r := l.start(capture.Resume{})
	rows, chunks := r.read("public.k", 20_000, true)
	if len(rows) != 2000 || len(slices.Compact(slices.Sorted(slices.Values(rows)))) != 2000 || chunks < 5 {
		t.Errorf("%d rows in %d chunks", len(rows), chunks)
	}
}

func TestScanner_RowsCarryThePositionOfTheFirstStart(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables, `INSERT INTO t VALUES (1, 'a')`)
	r := l.start(capture.Resume{}, small)
	l.exec(`INSERT INTO t VALUES (2, 'b')`)
	r.await(`"b"`)
	at, err := parsePosition(r.tape.pieces[0].end)
	if err != nil {
		t.Fatal(err)
	}
	resume := r.last()
	r.end()
	r = l.start(resume, small)
	c, err := r.view("public.t").Scan(t.Context(), r.target("public.t"), nil, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	for _, ev := range c.Events {
		if got, want := string(ev.Sequence.Bytes()), fmt.Sprintf(`[null,"%d"]`, uint64(at.End)); got != want {
			t.Errorf("sequence %s, want %s", got, want)
		}
		if ev.Origin[0].Kind() != capture.Null || ev.Origin[1].Int() != int64(at.End) || ev.Tx != nil {
			t.Errorf("origin %v", ev.Origin)
		}
		if age := time.Since(time.UnixMicro(ev.Time)); age < 0 || age > time.Minute {
			t.Errorf("the time of the view is %s ago", age)
		}
	}
}

// standbyAbsent makes a server on which a session that asks for it commits in the log
// only: nobody else sees its transaction before a standby answers, and there is none.
var standbyAbsent = map[string]string{"synchronous_standby_names": "absent", "synchronous_commit": "local"}

// invisible commits sql on such a server. show makes it visible.
func (l *lab) invisible(sql string) (show func()) {
	l.t.Helper()
	db := l.connect()
	done := make(chan error, 1)
	go func() {
		_, err := db.Exec(context.Background(), `SET synchronous_commit = on`)
		if err == nil {
			_, err = db.Exec(context.Background(), sql)
		}
		done <- err
	}()
	waits := fmt.Sprintf(`FROM pg_stat_activity WHERE pid = %d AND wait_event = 'SyncRep'`, db.PgConn().PID())
	l.until(`SELECT count(*) = 1 ` + waits)
	return func() {
		l.exec(`SELECT pg_cancel_backend(pid) ` + waits) // the wait, not the transaction
		if err := <-done; err != nil {
			l.t.Errorf("%s: %v", sql, err)
		}
	}
}

// until waits for a condition of the server.
func (l *lab) until(sql string) {
	l.t.Helper()
	for began := time.Now(); time.Since(began) < 2*time.Minute; {
		if l.ask(`SELECT (`+sql+`)::text`) == "true" {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	l.t.Fatalf("it did not become true: %s", sql)
}

// A labTx is a transaction of a session of its own.
type labTx struct {
	l   *lab
	db  *pgx.Conn
	xid string
}

func (l *lab) transaction() *labTx {
	l.t.Helper()
	return &labTx{l: l, db: l.connect()}
}

func (x *labTx) exec(sql string) {
	x.l.t.Helper()
	if _, err := x.db.Exec(x.l.t.Context(), sql); err != nil {
		x.l.t.Fatal(err)
	}
}

func (x *labTx) begin() {
	x.l.t.Helper()
	x.exec(`BEGIN`)
	if err := x.db.QueryRow(x.l.t.Context(), `SELECT (pg_current_xact_id()::text::bigint % 4294967296)::text`).Scan(&x.xid); err != nil {
		x.l.t.Fatal(err)
	}
}

func (x *labTx) commit() { x.l.t.Helper(); x.exec(`COMMIT`) }

// waits fails the test if a view of t opens while the transaction is invisible, and
// returns the view that opens once show was called.
func (r *running) waits(name string, show func()) snapshot.View {
	t := r.l.t
	t.Helper()
	target := r.target(name)
	type answer struct {
		v   snapshot.View
		err error
	}
	opened := make(chan answer, 1)
	go func() {
		v, err := r.scan.View(t.Context(), target)
		opened <- answer{v, err}
	}()
	select {
	case a := <-opened:
		t.Errorf("a view opened that lacks an emitted transaction: %v", a.err)
		show()
		return a.v
	case <-time.After(300 * time.Millisecond):
	}
	show()
	a := <-opened
	if a.err != nil {
		t.Fatal(a.err)
	}
	t.Cleanup(func() { _ = a.v.Close() })
	return a.v
}

func readAll(t *testing.T, v snapshot.View, target snapshot.Target) string {
	t.Helper()
	c, err := v.Scan(t.Context(), target, nil, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	return strings.Join(pieceOf(c.Batch).lines, "\n")
}

func TestView_WaitsForWhatWasEmittedToBecomeVisible(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"13", "18"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			l := labAt(t, servers.Own(t).PostgresWith(servers.PostgresConfig{Version: version, Settings: standbyAbsent}).Database(t))
			l.exec(tables, `INSERT INTO t VALUES (1, 'old')`)
			t.Run("in the stream", func(t *testing.T) {
				r := l.start(capture.Resume{}, small)
				_ = r.view("public.t").Close()
				show := l.invisible(`UPDATE t SET v = 'new'`)
				r.await("new")
				v := r.waits("public.t", show)
				if got := readAll(t, v, r.target("public.t")); !strings.Contains(got, "new") {
					t.Errorf("read %s", got)
				}
			})
			t.Run("at the first start", func(t *testing.T) {
				if version == "13" {
					return // it fails to make a slot that waits this way, and makes it at the next try
				}
				l.exec(`UPDATE t SET v = 'old'`)
				// The slot's place is where the transactions end that ran when the second of
				// them began; what commits meanwhile is before it. That one is committed in
				// the log only: the slot never delivers it, and nobody sees it yet.
				first, second := l.transaction(), l.transaction()
				first.begin()
				r := l.launch(capture.Resume{}, small, func(c *Config) { c.Slot = "second" })
				l.until(`SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event_type = 'Lock'`)
				second.begin()
				first.commit()
				l.until(`SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid' AND transactionid = '` + second.xid + `'::xid`)
				show := l.invisible(`UPDATE t SET v = 'new'`)
				second.commit()
				r.connected()
				v := r.waits("public.t", show)
				if got := readAll(t, v, r.target("public.t")); !strings.Contains(got, "new") {
					t.Errorf("read %s", got)
				}
				if slices.ContainsFunc(r.tape.lines(), func(s string) bool { return strings.Contains(s, "new") }) {
					t.Error("the slot delivered the transaction: the test does not test what it should")
				}
			})
			t.Run("at resume, inside of it", func(t *testing.T) {
				l.exec(`UPDATE t SET v = 'old'`)
				slot := func(c *Config) { c.Slot = "inside" }
				r := l.start(capture.Resume{}, small, slot)
				_ = r.view("public.t").Close()
				show := l.invisible(`UPDATE t SET v = 'cut'; INSERT INTO u SELECT generate_series(1, 2000)`)
				r.await("public.u id=int:2000")
				r.end()
				cut := slices.IndexFunc(r.tape.pieces, func(p piece) bool { return p.inTx != nil })
				if cut < 0 {
					t.Fatal("the transaction was not cut")
				}
				r = l.start(r.tape.resume(cut), small, slot)
				v := r.waits("public.t", show)
				if got := readAll(t, v, r.target("public.t")); !strings.Contains(got, "cut") {
					t.Errorf("read %s", got)
				}
			})
			for _, forget := range []bool{false, true} {
				t.Run(fmt.Sprintf("at resume, list lost %v", forget), func(t *testing.T) {
					l.exec(`UPDATE t SET v = 'old'`)
					slot := func(c *Config) { c.Slot = fmt.Sprintf("resume_%v", forget) }
					r := l.start(capture.Resume{}, small, slot)
					_ = r.view("public.t").Close()
					show := l.invisible(`UPDATE t SET v = 'newer'`)
					r.await("newer")
					resume := r.last()
					r.end()
					if string(resume.Entries[unseenKey]) == "null" || len(resume.Entries[unseenKey]) < 3 {
						t.Errorf("%s is %s", unseenKey, resume.Entries[unseenKey])
					}
					if forget {
						resume.Entries[unseenKey] = []byte("null")
					}
					r = l.start(resume, small, slot)
					v := r.waits("public.t", show)
					if got := readAll(t, v, r.target("public.t")); !strings.Contains(got, "newer") {
						t.Errorf("read %s", got)
					}
				})
			}
		})
	}
}

// The window of a view knows nothing of changes that were published before a restart.
func TestView_OpensBehindTheTransactionThatWasCut(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables)
	first := l.record(l.source(small), capture.Resume{}, 0)
	l.exec(`INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 500) g`)
	whole := l.record(l.source(small), first.last(), l.head())
	cut := slices.IndexFunc(whole.pieces, func(p piece) bool { return p.inTx != nil })
	if cut < 0 || whole.pieces[cut+1].inTx == nil {
		t.Fatal("the transaction was not cut twice")
	}
	l.idle()

	s := l.source(small)
	scan := s.Scanner()
	inside, goOn := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(inside) })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Stream(ctx, whole.resume(cut), func(b *capture.Batch) error {
			defer b.Release()
			if b.InTx != nil {
				once()
				<-goOn
			}
			return nil
		})
	}()
	defer func() { stop(); <-ended }()
	select {
	case <-inside:
	case err := <-ended:
		ended <- err
		t.Fatalf("the stream ended: %v", err)
	}
	targets, err := scan.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		v, err := scan.View(t.Context(), targets[0])
		if err == nil {
			err = v.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Errorf("a view opened inside of the transaction: %v", err)
		opened <- err
	case <-time.After(300 * time.Millisecond):
	}
	close(goOn)
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestView_KnowsItsTransactions(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables)
	r := l.start(capture.Resume{}, small)
	_ = r.view("public.t").Close()
	before := l.ask(`WITH x AS (INSERT INTO t VALUES (1, 'a') RETURNING 1) SELECT pg_current_xact_id()::text FROM x`)
	other := l.connect()
	var open string
	if _, err := other.Exec(t.Context(), `BEGIN`); err != nil {
		t.Fatal(err)
	}
	if err := other.QueryRow(t.Context(), `SELECT pg_current_xact_id()::text`).Scan(&open); err != nil {
		t.Fatal(err)
	}
	l.exec(`INSERT INTO t VALUES (3, 'c')`)
	v := r.view("public.t")
	after := l.ask(`WITH x AS (INSERT INTO t VALUES (2, 'b') RETURNING 1) SELECT pg_current_xact_id()::text FROM x`)
	for _, c := range []struct {
		xid  string
		want bool
	}{{before, true}, {open, false}, {after, false}} {
		var num uint64
		if _, err := fmt.Sscan(c.xid, &num); err != nil {
			t.Fatal(err)
		}
		if got := v.Holds(&capture.Tx{Num: num}); got != c.want {
			t.Errorf("holds %s: %v", c.xid, got)
		}
	}
}

func TestView_HoldsItsLockUntilItIsClosed(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables, `INSERT INTO t SELECT g, 'v' FROM generate_series(1, 1000) g`)
	r := l.start(capture.Resume{}, small)
	for _, ddl := range []string{`ALTER TABLE t ALTER id TYPE bigint`, `TRUNCATE t`} {
		v := r.view("public.t")
		other := l.connect()
		done := make(chan error, 1)
		go func() {
			_, err := other.Exec(context.Background(), ddl)
			done <- err
		}()
		for l.ask(`SELECT count(*)::text FROM pg_locks WHERE NOT granted`) == "0" {
			time.Sleep(time.Millisecond)
		}
		c, err := v.Scan(t.Context(), r.target("public.t"), nil, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if c.Rows != 1000 {
			t.Errorf("%s: %d rows", ddl, c.Rows)
		}
		c.Release()
		_ = v.Close()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// Rows of partitions go by the name of their root, and are locked with it.
func TestView_LocksPartitionsBeforeItReadsThem(t *testing.T) {
	l := newLab(t, "13")
	l.exec(parted, `CREATE PUBLICATION headwater FOR TABLE "Pärt" WITH (publish_via_partition_root = true)`)
	r := l.start(capture.Resume{}, func(c *Config) { c.PublicationMode = PublicationExisting })
	v := r.view("public.Pärt")
	defer func() { _ = v.Close() }()
	_, err := l.connect().Exec(t.Context(), `SET lock_timeout = '10ms'; TRUNCATE low`)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "55P03" { // lock_not_available
		t.Errorf("a partition is emptied beside an open view: %v", err)
	}
}

// A rewrite leaves nothing for a snapshot that is older than its end, so the lock comes
// first.
func TestView_WaitsForARewriteBeforeItLooks(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(tables, `INSERT INTO t SELECT g, 'v' FROM generate_series(1, 1000) g`)
		r := l.start(capture.Resume{}, small)
		target := r.target("public.t")
		x := l.transaction()
		x.exec(`BEGIN; ALTER TABLE t ALTER id TYPE bigint`)
		read := make(chan string, 1)
		go func() {
			v, err := r.scan.View(t.Context(), target)
			if err != nil {
				read <- err.Error()
				return
			}
			defer v.Close()
			c, err := v.Scan(t.Context(), target, nil, 1<<20)
			if err != nil {
				read <- err.Error()
				return
			}
			defer c.Release()
			read <- fmt.Sprint(c.Rows)
		}()
		l.until(`SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 't'::regclass`)
		x.commit()
		if got := <-read; got != "1000" {
			t.Errorf("read %s rows, want 1000", got)
		}
	})
}

func TestView_OfAnotherIncarnationIsRefused(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables)
	r := l.start(capture.Resume{}, small)
	old := r.target("public.u")
	l.exec(`DROP TABLE u; CREATE TABLE u (id int PRIMARY KEY)`)
	if _, err := r.scan.View(t.Context(), old); err == nil || !strings.Contains(err.Error(), "made anew") {
		t.Errorf("got %v", err)
	}
}

func TestMark_PassesWhateverTheEndOfTheLogLooksLike(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(tables)
		r := l.start(capture.Resume{}, small)
		other := l.connect()
		for i, prepare := range []func(){
			func() {},
			func() { l.exec(`INSERT INTO t VALUES (1, 'a')`) },
			func() { l.exec(`SELECT pg_switch_wal()`) },
			func() { l.exec(`SET synchronous_commit = off`, `INSERT INTO t VALUES (2, 'b')`) },
			func() {
				// An open transaction keeps the written log ahead of the flushed one.
				if _, err := other.Exec(t.Context(), `BEGIN; INSERT INTO t SELECT g, 'open' FROM generate_series(100, 200) g`); err != nil {
					t.Fatal(err)
				}
			},
		} {
			v := r.view("public.t")
			prepare()
			if err := v.Mark(t.Context(), uint64(i+1)); err != nil {
				t.Fatal(err)
			}
			_ = v.Close()
			r.await(fmt.Sprintf("watermark %d", i+1))
		}
		// A watermark ends its batch at a commit boundary.
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, p := range r.tape.pieces {
			for i, line := range p.lines {
				if strings.HasPrefix(line, "watermark") && (p.inTx != nil || i != len(p.lines)-1 && !strings.HasPrefix(p.lines[i+1], "watermark")) {
					t.Errorf("a watermark inside of %q", p.lines)
				}
			}
		}
	})
}

// A notebook keeps what is logged.
type notebook struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (n *notebook) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lines.Write(p)
}

func (n *notebook) await(t *testing.T, text string) {
	t.Helper()
	for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		n.mu.Lock()
		lines := n.lines.String()
		n.mu.Unlock()
		if strings.Contains(lines, text) {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("no %q in the log:\n%s", text, lines)
		}
	}
}

func TestView_SaysWhatItWaitsFor(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(tables, `INSERT INTO t VALUES (1, 'a')`)
		s := l.source(small)
		var said notebook
		s.log = slog.New(slog.NewTextHandler(&said, nil))
		s.patience.blocked = 10 * time.Millisecond
		r := l.run(s, capture.Resume{})
		r.connected()
		target := r.target("public.t")
		x := l.transaction()
		x.exec(`BEGIN; ALTER TABLE t ADD COLUMN w int`)
		opened := make(chan error, 1)
		go func() {
			v, err := r.scan.View(t.Context(), target)
			if err == nil {
				err = v.Close()
			}
			opened <- err
		}()
		said.await(t, fmt.Sprintf(`msg="locking the table public.t for reading waits for another transaction to end" pid=%d`, x.db.PgConn().PID()))
		x.exec(`ROLLBACK`)
		if err := <-opened; err != nil {
			t.Error(err)
		}
	})
}

func TestScanner_OutlivesAConnectionThatWasClosed(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables, `INSERT INTO t VALUES (1, 'a')`)
	r := l.start(capture.Resume{}, small)
	kill := `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`
	for range 2 {
		if rows, _ := r.read("public.t", 1<<20, true); len(rows) != 1 {
			t.Errorf("read %q", rows)
		}
		l.exec(kill)
	}
	if _, err := r.scan.Tables(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMark_ComesAfterEverythingThatTheViewHolds(t *testing.T) {
	l := newLab(t, "17")
	l.exec(tables)
	r := l.start(capture.Resume{}, small)
	for i := range 16 {
		l.exec(fmt.Sprintf(`SET synchronous_commit = %v`, []string{"on", "off"}[i%2]), fmt.Sprintf(`INSERT INTO t VALUES (%d, 'row %d.')`, i, i))
		v := r.view("public.t")
		if err := v.Mark(t.Context(), uint64(i)); err != nil {
			t.Fatal(err)
		}
		_ = v.Close()
		r.await(fmt.Sprintf("watermark %d", i))
		r.mu.Lock()
		lines := r.tape.lines()
		r.mu.Unlock()
		row := slices.IndexFunc(lines, func(s string) bool { return strings.Contains(s, fmt.Sprintf("row %d.", i)) })
		mark := slices.Index(lines, fmt.Sprintf("watermark %d", i))
		if row < 0 || row > mark {
			t.Fatalf("row %d at %d, its watermark at %d", i, row, mark)
		}
	}
}

func TestScanner_FinishForgets(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables)
	r := l.start(capture.Resume{}, small)
	l.exec(`INSERT INTO t VALUES (1, 'a')`)
	r.await("commit")
	if e := r.last().Entries; len(e[unseenKey]) == 0 || len(e[startKey]) == 0 {
		t.Fatalf("entries %q", e)
	}
	r.scan.Finish()
	l.exec(`INSERT INTO t VALUES (2, 'b')`)
	r.await(`"b"`)
	if e, ok := r.last().Entries[unseenKey]; ok {
		t.Errorf("%s is kept: %s", unseenKey, e)
	}
}

func TestStream_EndsWithItsContext(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables)
	r := l.start(capture.Resume{}, small)
	_ = r.view("public.t").Close()
	r.end()
	if !errors.Is(r.tape.err, context.Canceled) {
		t.Errorf("got %v", r.tape.err)
	}
}

func TestScanner_NeedsNoSuperuser(t *testing.T) {
	for _, version := range []string{"13", "18"} {
		l := newLab(t, version)
		role := "r_" + l.ask(`SELECT current_database()`)
		l.exec(tables, `INSERT INTO t VALUES (1, 'a')`, `CREATE PUBLICATION headwater FOR TABLE t`,
			`CREATE ROLE `+role+` LOGIN REPLICATION`, `ALTER ROLE `+role+` SET statement_timeout = '300ms'`, `GRANT SELECT ON t TO `+role)
		r := l.start(capture.Resume{}, small, func(c *Config) {
			c.URL = strings.Replace(c.URL, "postgres@", role+"@", 1)
			c.PublicationMode, c.Tables.Include = PublicationExisting, []string{"public.t"}
		})
		rows, _ := r.read("public.t", 1<<20, true)
		if len(rows) != 1 {
			t.Errorf("read %q", rows)
		}
		v := r.view("public.t")
		x := l.transaction() // keeps the written log ahead of the flushed one
		x.exec(`BEGIN; INSERT INTO t SELECT g, 'open' FROM generate_series(100, 200) g`)
		if err := v.Mark(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		r.await("watermark 1")
		_ = v.Close()
		r.end()
		x.exec(`ROLLBACK`)
		l.exec(`DROP OWNED BY ` + role + `; DROP ROLE ` + role)
	}
}

func TestStream_OutlivesAConnectionThatWasClosed(t *testing.T) {
	l := newLab(t, "15")
	l.exec(tables)
	r := l.start(capture.Resume{}, small)
	l.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`,
		`INSERT INTO t VALUES (1, 'still here')`)
	r.await("still here")
}
