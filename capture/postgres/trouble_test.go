package postgres

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/integration/servers"
	"github.com/headwaterdb/headwater/snapshot"
)

// says fails the test unless err matches the sentinel (nil: none, so that the pipeline
// tries again) and holds every word.
func says(t *testing.T, what string, err, sentinel error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	for _, s := range []error{capture.ErrMisconfigured, capture.ErrPositionLost, capture.ErrUnreadable} {
		if errors.Is(err, s) != (s == sentinel) {
			t.Errorf("%s: %q is %v: %v", what, s, errors.Is(err, s), err)
		}
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: no %q in: %v", what, w, err)
		}
	}
}

// begin is what Stream answers when it does not come to its first batch.
func (l *lab) begin(s *Source, r capture.Resume) error {
	l.t.Helper()
	return l.follow(s, r, func(piece) error { return errEnough })
}

func TestNew_NeedsNeitherLogNorRegistry(t *testing.T) {
	if err := New(Config{}, nil, nil).Close(); err != nil {
		t.Error(err)
	}
	New(Config{}, nil, prometheus.NewRegistry()).log.Info("goes nowhere")
}

func TestStream_NamesTheRightThatIsMissing(t *testing.T) {
	for _, version := range []string{"13", "16", "18"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, version)
			db := l.ask(`SELECT current_database()`)
			role := "r_" + db
			l.exec(tables, `CREATE ROLE `+role+` LOGIN`, `REVOKE ALL ON DATABASE `+db+` FROM PUBLIC`)
			defer l.exec(`DROP OWNED BY `+role, `DROP ROLE `+role)
			source := func() *Source {
				return l.source(small, func(c *Config) { c.URL = strings.Replace(c.URL, "postgres@", role+"@", 1) })
			}
			for _, step := range []struct {
				words []string
				mend  string
			}{
				{[]string{"must not read the log", "ALTER ROLE", "REPLICATION"}, `ALTER ROLE ` + role + ` REPLICATION`},
				{[]string{"must not connect to database", "GRANT CONNECT ON DATABASE"}, `GRANT CONNECT ON DATABASE ` + db + ` TO ` + role},
				{[]string{"may not publish", "CREATE PUBLICATION"}, `GRANT CREATE ON DATABASE ` + db + ` TO ` + role},
				{[]string{"may not publish", "CREATE PUBLICATION", "must be owner of"}, `CREATE PUBLICATION headwater FOR TABLE t, u`},
			} {
				says(t, "Stream", l.begin(source(), capture.Resume{}), capture.ErrMisconfigured, step.words...)
				l.exec(step.mend)
			}
			if err := l.begin(source(), capture.Resume{}); !errors.Is(err, errEnough) {
				t.Errorf("with every right: %v", err)
			}
			r := l.start(capture.Resume{}, small, func(c *Config) { c.URL = strings.Replace(c.URL, "postgres@", role+"@", 1) })
			_, err := r.scan.View(t.Context(), r.target("public.t"))
			says(t, "View", err, capture.ErrMisconfigured, "permission denied", `remedy: GRANT SELECT ON "public"."t" TO "`+role+`"`)
			r.end()
		})
	}
}

func TestStream_NamesTheLimitThatIsReached(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"13", "18"} {
		pg := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: version, Settings: map[string]string{"max_replication_slots": "1", "max_wal_senders": "2"}})
		l := labAt(t, pg.Database(t))
		l.exec(tables, `SELECT pg_create_physical_replication_slot('taken')`)
		says(t, "slots", l.begin(l.source(), capture.Resume{}), capture.ErrMisconfigured, "all replication slots are in use", "ALTER SYSTEM SET max_replication_slots")
		l.exec(`SELECT pg_drop_replication_slot('taken')`)
		for range 2 {
			conn, err := l.source().connect(t.Context(), true, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer closeConn(conn)
		}
		// Senders end by themselves, so this may pass.
		says(t, "senders", l.begin(l.source(), capture.Resume{}), nil, "max_wal_senders", "remedy:")
		faults, _ := findings(t, l.source())
		if !mentions(faults, "all 2 WAL senders", "ALTER SYSTEM SET max_wal_senders") {
			t.Errorf("PostgreSQL %s: Check finds %q", version, faults)
		}
	}
}

func TestVerify_RefusesASlotOfAnotherKind(t *testing.T) {
	l := newLab(t, "18")
	l.exec(tables)
	other := newLab(t, "18")
	named := func(slot string) *Source { return l.source(func(c *Config) { c.Slot = slot }) }

	l.exec(`SELECT pg_create_physical_replication_slot('physical_one')`)
	defer l.exec(`SELECT pg_drop_replication_slot('physical_one')`)
	says(t, "a physical slot", named("physical_one").Verify(t.Context(), capture.Resume{}), capture.ErrMisconfigured, "physical slot", "another name")
	other.exec(`SELECT pg_create_logical_replication_slot('elsewhere', 'pgoutput')`)
	says(t, "a slot of another database", named("elsewhere").Verify(t.Context(), capture.Resume{}), capture.ErrMisconfigured, "belongs to database", "another name")
	for _, slot := range []string{"physical_one", "elsewhere"} {
		if faults, _ := findings(t, named(slot)); len(faults) != 1 || !mentions(faults, slot, "another name") {
			t.Errorf("Check of slot %s: %q", slot, faults)
		}
	}
	// Whether another plugin is installed depends on the server, so the slot is made up.
	sl := &slot{Type: "logical", Plugin: "test_decoding", Database: "x"}
	says(t, "a slot of another plugin", named("x").usable(sl, &server{DatabaseName: "x"}), capture.ErrMisconfigured, `decodes with "test_decoding"`, "another name")
}

func TestVerify_ADroppedDatabaseIsNamed(t *testing.T) {
	pg := servers.Shared(t).Postgres("15")
	admin := newLab(t, "15")
	admin.exec(`CREATE DATABASE short_lived`)
	l := labAt(t, pg.URL("short_lived"))
	l.exec(tables)
	first := l.record(l.source(), capture.Resume{}, 0)
	l.idle()
	_ = l.db.Close(t.Context())
	admin.exec(`SELECT pg_drop_replication_slot('headwater')`, `DROP DATABASE short_lived WITH (FORCE)`)
	says(t, "dropped", l.source().Verify(t.Context(), first.last()), capture.ErrMisconfigured, `has no database "short_lived"`, "remedy:")
	admin.exec(`CREATE DATABASE short_lived`)
	defer admin.exec(`DROP DATABASE short_lived WITH (FORCE)`)
	says(t, "made anew", l.source().Verify(t.Context(), first.last()), capture.ErrPositionLost, "OID", "remedy:")
}

// PostgreSQL 13 to 17 fail at the first row without a publication; 18 leaves it out and
// goes on.
func TestStream_StopsWhereThePublicationWasDropped(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(tables)
		var got tape
		dropped := false
		err := l.follow(l.source(small), capture.Resume{}, func(p piece) error {
			got.pieces = append(got.pieces, p)
			switch lines := got.lines(); {
			case len(got.pieces) == 1:
				l.exec(`INSERT INTO t VALUES (1, 'published')`)
			case len(lines) > 0 && !dropped:
				dropped = true
				l.exec(`DROP PUBLICATION headwater`, `INSERT INTO t VALUES (2, 'unpublished')`,
					`CREATE PUBLICATION headwater FOR TABLE t`, `INSERT INTO t VALUES (3, 'published again')`)
			case len(lines) > 2:
				return errEnough
			}
			return nil
		})
		says(t, "while it streams", err, capture.ErrMisconfigured, `publication "headwater"`, "remedy: create the publication")
		if want := []string{`insert public.t id=int:1 v="published"`, "commit"}; !slices.Equal(got.lines(), want) {
			t.Errorf("got %q", got.lines())
		}
		// A new publication does not bring the rows back.
		says(t, "after it", l.follow(l.source(small), got.last(), func(p piece) error {
			if len(p.lines) > 0 {
				return fmt.Errorf("it goes on with %q", p.lines)
			}
			return nil
		}), capture.ErrMisconfigured, `publication "headwater"`)
	})
}

func TestStream_TextThatIsNotTextStops(t *testing.T) {
	for _, version := range []string{"13", "18"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			admin := newLab(t, version)
			admin.exec(`CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'`)
			l := labAt(t, servers.Shared(t).Postgres(version).URL("ascii")+"&client_encoding=UTF8")
			defer func() {
				_ = l.db.Close(t.Context())
				admin.until(`SELECT count(*) = 0 FROM pg_replication_slots WHERE active`)
				admin.exec(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = 'ascii'`, `DROP DATABASE ascii WITH (FORCE)`)
			}()
			l.exec(tables)
			if faults, warnings := findings(t, l.source()); len(faults) > 0 || !mentions(warnings, "SQL_ASCII") {
				t.Errorf("Check: %q and %q", faults, warnings)
			}
			first := l.record(l.source(), capture.Resume{}, 0)
			l.exec(`INSERT INTO t VALUES (1, E'na\xc3\xafve')`)
			second := l.record(l.source(), first.last(), l.head())
			if got := second.lines(); len(got) != 2 || !strings.Contains(got[0], "naïve") {
				t.Errorf("text in UTF-8: %q", got)
			}
			l.exec(`INSERT INTO t VALUES (2, E'na\xefve')`)
			says(t, "text in Latin-1", l.begin(l.source(), second.last()), capture.ErrUnreadable, "invalid byte sequence", "associated LSN", "remedy:")
			l.exec(`CREATE TABLE old (id int PRIMARY KEY, v text)`, `INSERT INTO old VALUES (1, E'na\xefve')`)
			l.exec(`SELECT pg_drop_replication_slot('headwater')`)
			r := l.start(capture.Resume{})
			_, err := r.view("public.old").Scan(t.Context(), r.target("public.old"), nil, 1<<20)
			says(t, "a row that exists", err, capture.ErrUnreadable, "public.old", "invalid byte sequence", "remedy:")
			r.end()
		})
	}
}

func TestCheck_WarnsOfWhatCannotArriveAsItIs(t *testing.T) {
	l := newLab(t, "16")
	l.exec(`CREATE TYPE pair AS (a int, b int); CREATE TABLE odd (id int PRIMARY KEY, p pair, l pg_lsn, s pair[], n int)`, `CREATE TABLE bare (a int)`, `INSERT INTO bare VALUES (1)`)
	faults, warnings := findings(t, l.source())
	if len(faults) > 0 || !mentions(warnings, `"p" (public.pair)`, `"l" (pg_lsn)`, `"s" (public.pair[])`, "public.odd", "unknown.types") || !mentions(warnings, "public.bare", "REPLICA IDENTITY FULL") {
		t.Errorf("%q and %q", faults, warnings)
	}
	// What the warning about the key means: the server lets no update through.
	l.record(l.source(), capture.Resume{}, 0)
	_, err := l.db.Exec(t.Context(), `UPDATE bare SET a = 2`)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "55000" {
		t.Errorf("an update: %v", err)
	}
}

// crash kills the server's process for our slot, which takes every other one along: the
// server recovers by itself.
func (l *lab) crash() error {
	pid, err := strconv.Atoi(l.ask(`SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = 'headwater'`))
	if err != nil {
		return err
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(syscall.SIGKILL)
}

func TestSnapshot_EqualsTheTableAfterTheServerCrashed(t *testing.T) {
	t.Parallel()
	pg := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "16"})
	l := labAt(t, pg.Database(t))
	l.exec(`CREATE TABLE a (id int PRIMARY KEY, v text NOT NULL, big text)`, `INSERT INTO a SELECT g, repeat('v', 60) || g, NULL FROM generate_series(1, 20000) g`)
	c := &consumer{rows: map[string]string{}, resume: capture.Resume{Entries: map[string][]byte{}}}
	crashes := 0
	for life := 0; ; life++ {
		s := l.source()
		src := snapshot.New(s, s.Scanner(), snapshot.Config{ChunkBytes: 64 << 10}, nil, nil)
		before := c.reads
		err := src.Stream(t.Context(), c.resume, func(b *capture.Batch) error {
			defer b.Release()
			c.take(b)
			if c.reads > before && crashes == life && life < 3 {
				if crashes++; c.reads >= 19000 {
					t.Errorf("crash %d comes after the table was read", crashes)
				}
				// Rows change on both sides of the crash.
				l.exec(fmt.Sprintf(`UPDATE a SET v = v || ' life %d' WHERE id %% 7 = %d`, life, life), fmt.Sprintf(`INSERT INTO a VALUES (%d, 'new')`, 100000+life), fmt.Sprintf(`DELETE FROM a WHERE id = %d`, 20000-life*6000))
				return errors.Join(l.crash(), s.Acknowledge(t.Context(), c.resume.At))
			}
			if life < 3 {
				return nil
			}
			if c.resume.InTx == nil && c.resume.Entries[unseenKey] == nil {
				return errEnough
			}
			l.exec(`SELECT 1 FROM pg_logical_emit_message(false, 'go', 'on')`) // a quiet log would not
			return nil
		})
		if errors.Is(err, errEnough) {
			break
		}
		says(t, "the crash", err, nil)
		if t.Failed() {
			t.Fatal(err)
		}
		l = l.revive()
	}
	head := l.head()
	l.exec(`INSERT INTO a VALUES (0, 'last')`)
	err := l.batches(l.source(), c.resume, func(b *capture.Batch) error {
		c.take(b)
		at, err := parsePosition(b.End)
		if err == nil && at.End >= head && b.InTx == nil {
			err = errEnough
		}
		return err
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	rows, err := l.db.Query(t.Context(), `SELECT id, v FROM a`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var id int
		var v string
		if err := rows.Scan(&id, &v); err != nil {
			t.Fatal(err)
		}
		n++
		if got, want := c.rows[fmt.Sprintf("public.a int:%d", id)], fmt.Sprintf("%q 4", v); got != want {
			t.Errorf("row %d: got %s, want %s", id, got, want)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if n != len(c.rows) || crashes != 3 {
		t.Errorf("%d rows and the table has %d, after %d crashes", len(c.rows), n, crashes)
	}
}

// revive waits until the server, which is about to crash, has recovered.
func (l *lab) revive() *lab {
	l.t.Helper()
	for l.db.Ping(l.t.Context()) == nil {
		time.Sleep(5 * time.Millisecond)
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		conn, err := pgconn.Connect(l.t.Context(), l.url)
		if err == nil {
			closeConn(conn)
			return labAt(l.t, l.url)
		}
		if time.Since(began) > 2*time.Minute {
			l.t.Fatalf("the server does not recover: %v", err)
		}
	}
}
