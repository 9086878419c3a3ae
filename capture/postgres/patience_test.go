package postgres

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/capture"
)

// A journal is a log that a test reads.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// await waits until one line of the log holds all of the words.
func (j *journal) await(t *testing.T, words ...string) {
	t.Helper()
	for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(5 * time.Millisecond) {
		if mentions(strings.Split(j.String(), "\n"), words...) {
			return
		}
	}
	t.Fatalf("no line says %q:\n%s", words, j)
}

// impatient makes a source that waits for nothing for long before it says so.
func impatient(s *Source) *journal {
	j := &journal{}
	s.log = slog.New(slog.NewTextHandler(j, nil))
	s.patience = patience{blocked: 50 * time.Millisecond, again: 200 * time.Millisecond, silent: 300 * time.Millisecond, slot: usualPatience.slot}
	return j
}

func TestStream_SaysWhomTheServerWaitsFor(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		l := newLab(t, version)
		l.exec(tables)
		open := l.transaction()
		lock := l.connect()
		if _, err := lock.Exec(t.Context(), `BEGIN; LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE`); err != nil {
			t.Fatal(err)
		}
		open.begin()
		gid := "left over in " + l.ask(`SELECT current_database()`)
		l.exec(`BEGIN; INSERT INTO u VALUES (1); PREPARE TRANSACTION '` + gid + `'`)
		rollback := sync.OnceFunc(func() { l.exec(`ROLLBACK PREPARED '` + gid + `'`) })
		defer rollback()

		s := l.source(small)
		j := impatient(s)
		ended := make(chan error, 1)
		go func() { ended <- l.follow(s, capture.Resume{}, func(piece) error { return errEnough }) }()
		j.await(t, "changing the publication waits for another transaction", fmt.Sprint("pid=", lock.PgConn().PID()), "user=postgres", "open_for=", "pg_terminate_backend")
		if _, err := lock.Exec(t.Context(), `ROLLBACK`); err != nil {
			t.Fatal(err)
		}
		j.await(t, "creating the replication slot waits for another transaction", fmt.Sprint("pid=", open.db.PgConn().PID()), "xid="+open.xid, "pg_terminate_backend")
		open.commit()
		j.await(t, "creating the replication slot waits for another transaction", "ROLLBACK PREPARED '"+gid+"'")
		rollback()
		if err := <-ended; !errors.Is(err, errEnough) {
			t.Error(err)
		}
	})
}

func TestStream_LeavesNoSlotBehindThatItDidNotGet(t *testing.T) {
	l := newLab(t, "13")
	l.exec(tables)
	open := l.transaction()
	open.begin()
	r := l.launch(capture.Resume{}, small)
	l.until(`SELECT count(*) = 1 FROM pg_replication_slots WHERE database = current_database()`)
	r.end()
	l.until(`SELECT count(*) = 0 FROM pg_replication_slots WHERE database = current_database()`)
	open.commit()
	l.record(l.source(small), capture.Resume{}, 0)
}

// A relay carries connections to a server, until it is made to swallow what they carry.
type relay struct {
	l     net.Listener
	to    string
	conns sync.WaitGroup

	mu    sync.Mutex
	muted chan struct{}
	deaf  bool // to new connections
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{l: l, to: to, muted: make(chan struct{})}
	r.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.conns.Go(func() { r.carry(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.conns.Wait()
	})
	return r
}

// swallow makes every open connection carry nothing any more.
func (r *relay) swallow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.muted)
	r.muted = make(chan struct{})
}

// turnDeaf decides whether new connections carry anything.
func (r *relay) turnDeaf(deaf bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deaf = deaf
}

func (r *relay) carry(c net.Conn) {
	defer c.Close()
	r.mu.Lock()
	muted, deaf := r.muted, r.deaf
	r.mu.Unlock()
	if deaf {
		_, _ = io.Copy(io.Discard, c)
		return
	}
	to, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer to.Close()
	var both sync.WaitGroup
	pass := func(dst, src net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			n, err := src.Read(buf)
			if err != nil {
				break
			}
			select {
			case <-muted:
				continue // read, and so acknowledged, by nobody who matters
			default:
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				break
			}
		}
		_, _ = dst.Close(), src.Close()
	}
	both.Go(func() { pass(to, c) })
	both.Go(func() { pass(c, to) })
	both.Wait()
}

// through makes the source connect by the relay.
func (r *relay) through(c *Config) {
	u, _ := url.Parse(c.URL)
	u.Host = r.l.Addr().String()
	c.URL = u.String()
}

func TestStream_NoticesAConnectionThatCarriesNothing(t *testing.T) {
	l := newLab(t, "17")
	l.exec(tables)
	u, err := url.Parse(l.url)
	if err != nil {
		t.Fatal(err)
	}
	r := newRelay(t, u.Host)
	s := l.source(small, r.through, func(c *Config) { c.ConnectTimeout = time.Second })
	j := impatient(s)
	var got tape
	swallowed, ended := false, make(chan error, 1)
	go func() {
		ended <- l.follow(s, capture.Resume{}, func(p piece) error {
			got.pieces = append(got.pieces, p)
			switch {
			case !swallowed && len(got.lines()) == 0:
				l.exec(`INSERT INTO t VALUES (1, 'arrives')`)
			case !swallowed:
				swallowed = true
				r.turnDeaf(true)
				r.swallow()
				l.exec(`INSERT INTO t VALUES (2, 'is swallowed')`)
			}
			return nil
		})
	}()
	// As long as nobody can say whether the server still sends, it is waited for.
	j.await(t, "cannot be asked why")
	r.turnDeaf(false)
	says(t, "once it can be asked", <-ended, nil, "has sent nothing for", "lost on the way")
	// The server holds the slot for the dead connection until its own timeout; a person,
	// or that timeout, ends it.
	l.exec(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'headwater'`)
	l.until(`SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'headwater'`)
	got.pieces = append(got.pieces, l.record(l.source(small), got.last(), l.head()).pieces...)
	if want := []string{`insert public.t id=int:1 v="arrives"`, "commit", `insert public.t id=int:2 v="is swallowed"`, "commit"}; !slices.Equal(got.lines(), want) {
		t.Errorf("got %q", got.lines())
	}
}

func TestStream_AServerAtWorkMayBeSilent(t *testing.T) {
	l := newLab(t, "17")
	role := "r_" + l.ask(`SELECT current_database()`)
	l.exec(tables, `CREATE ROLE `+role+` LOGIN SUPERUSER`)
	s := l.source(small, func(c *Config) { c.URL = strings.Replace(c.URL, "postgres@", role+"@", 1) })
	j := impatient(s)
	lock := l.transaction()
	var got []string
	began, ended := sync.OnceFunc(func() {
		// The server's process cannot look up what is published, and nobody can ask why.
		lock.exec(`BEGIN; LOCK TABLE pg_publication IN ACCESS EXCLUSIVE MODE`)
		l.exec(`ALTER ROLE `+role+` NOLOGIN`, `INSERT INTO t VALUES (1, 'late')`)
	}), make(chan error, 1)
	go func() {
		ended <- l.follow(s, capture.Resume{}, func(p piece) error {
			began()
			if got = append(got, p.lines...); slices.Contains(got, "commit") {
				return errEnough
			}
			return nil
		})
	}()
	j.await(t, "cannot be asked why", "does not let user")
	l.exec(`ALTER ROLE ` + role + ` LOGIN`)
	j.await(t, "sending the log waits for another transaction", fmt.Sprint("pid=", lock.db.PgConn().PID()))
	lock.commit()
	if err := <-ended; !errors.Is(err, errEnough) || len(got) != 2 {
		t.Errorf("%q: %v", got, err)
	}
	l.exec(`DROP OWNED BY `+role, `DROP ROLE `+role)
}
