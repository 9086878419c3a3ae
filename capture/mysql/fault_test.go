package mysql

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/capture"
)

// A proxy stands between a source and the server. Its connections to the server are cut,
// or fall silent, once the server has sent a number of bytes on one of them.
type proxy struct {
	net.Listener

	mu    sync.Mutex // guards what follows
	left  int        // bytes until it happens, on a connection that receives the log; -1 is never
	stall bool
	conns []net.Conn
	// lost are connections whose clients are not heard any more. instead is sent once in the
	// place of what a server says next.
	lost    map[net.Conn]bool
	instead []byte
}

// newProxy leads each connection to the next target, and the rest to the last.
func newProxy(t *testing.T, targets ...string) *proxy {
	t.Helper()
	return newProxyAt(t, "127.0.0.1", targets...)
}

// newProxyAt is newProxy with an address of its own.
func newProxyAt(t *testing.T, host string, targets ...string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, left: -1}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", targets[0])
			targets = targets[min(1, len(targets)-1):]
			if err != nil {
				_ = c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, s)
			p.mu.Unlock()
			dump := new(bool)
			work.Go(func() { p.forward(s, c, nil, dump) })
			work.Go(func() { p.forward(c, s, dump, dump) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		work.Wait()
	})
	return p
}

// lose lets nothing through any more that comes over the connections so far, but for those that
// receive the log.
func (p *proxy) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost = make(map[net.Conn]bool)
	for _, c := range p.conns {
		p.lost[c] = true
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// forward copies from one side to the other. What the client sends tells whether the
// connection receives the log; then the server's bytes are counted.
func (p *proxy) forward(to, from net.Conn, count, dump *bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		// COM_BINLOG_DUMP and COM_BINLOG_DUMP_GTID, where their flags do not ask for the end
		// of the answer at the end of the log: that is a mere look at it.
		if count == nil && n > 10 && (buf[4] == 0x12 && buf[9]&1 == 0 || buf[4] == 0x1e && buf[5]&1 == 0) {
			*dump = true
		}
		end := false
		if count != nil && *count && p.left >= 0 {
			if p.left -= n; p.left < 0 {
				n, end = n+p.left, true
				p.left = -1
			}
		}
		stall, out := p.stall, buf[:n]
		if count == nil && p.lost[from] && !*dump {
			out = nil
		}
		if count != nil && p.instead != nil {
			out, p.instead = p.instead, nil
		}
		p.mu.Unlock()
		if _, err := to.Write(out); err != nil {
			return
		}
		if end && stall {
			_, _ = io.Copy(io.Discard, from) // the server goes on, and nobody hears it
			return
		}
		if end {
			return
		}
	}
}

func TestStream_GoesOnExactlyAfterTheConnectionBrokeAnywhere(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(200))")
		r := l.start()
		insert := func(from int) string {
			var rows []string
			for i := from; i < from+100; i++ {
				rows = append(rows, fmt.Sprintf("(%d, SHA2(%[1]d, 512))", i))
			}
			return "INSERT INTO t VALUES " + strings.Join(rows, ", ")
		}
		l.exec(insert(0))
		switch kind {
		case "MySQL 9": // since 8.0.20
			l.exec("SET SESSION binlog_transaction_compression = ON")
		case "MariaDB 10.11", "MariaDB 11":
			l.exec("SET GLOBAL log_bin_compress = ON")
			t.Cleanup(func() { l.exec("SET GLOBAL log_bin_compress = OFF") })
		}
		l.exec(insert(100), "UPDATE t SET v = 'y' WHERE id = 3")
		whole := l.record(l.source(small), r)
		p := newProxy(t, l.server.Addr())
		through := func(c *Config) {
			small(c)
			c.URL = strings.Replace(c.URL, l.server.Addr(), p.Addr().String(), 1)
		}
		for bytes := 100; bytes < 24_000; bytes += 1999 { // less than is sent in any case
			p.mu.Lock()
			p.left = bytes
			p.mu.Unlock()
			first := &tape{pieces: []piece{{end: r.At, inTx: r.InTx, entries: r.Entries}}}
			err := l.follow(l.source(through), r, func(p piece) error {
				p.lines = slices.DeleteFunc(p.lines, func(s string) bool { return s == "commit" || strings.HasPrefix(s, "insert mark") })
				first.pieces = append(first.pieces, p)
				return nil
			})
			if err == nil || errors.Is(err, capture.ErrPositionLost) || errors.Is(err, capture.ErrUnreadable) || errors.Is(err, capture.ErrMisconfigured) {
				t.Fatalf("cut after %d bytes: got %v, want an error that may be retried", bytes, err)
			}
			rest := l.record(l.source(through), first.last())
			if got := append(first.lines(), rest.lines()...); !slices.Equal(got, whole.lines()) {
				t.Errorf("cut after %d bytes: %d changes before and %d after, want %d in all", bytes, len(first.lines()), len(rest.lines()), len(whole.lines()))
			}
		}
	})
}

func TestStream_NoticesAServerThatFellSilent(t *testing.T) {
	t.Parallel()
	l := newLab(t, "MariaDB 10.11")
	l.exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := l.start()
	p := newProxy(t, l.server.Addr())
	p.mu.Lock()
	p.left, p.stall = 2000, true
	p.mu.Unlock()
	err := l.follow(l.source(func(c *Config) {
		c.ReadTimeout = 5 * time.Second
		c.URL = strings.Replace(c.URL, l.server.Addr(), p.Addr().String(), 1)
	}), r, func(piece) error {
		l.exec("REPLACE INTO t VALUES (1)") // until it happens
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "silent for 5s") {
		t.Errorf("got %v", err)
	}
}

func TestSessions_ThatVanishedWhileTheyRestedAreReplaced(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
		p := newProxy(t, l.server.Addr())
		s := l.source(func(c *Config) {
			c.ReadTimeout = 5 * time.Second
			c.URL = strings.Replace(c.URL, l.server.Addr(), p.Addr().String(), 1)
		})
		scanner := s.Scanner()
		came := make(chan string, 10)
		l.watchStream(s, capture.Resume{}, func(p piece) {
			for _, line := range p.lines {
				came <- line
			}
		})
		l.rowsOf(scanner, "t", 1<<20) // its sessions rest afterwards
		p.lose()
		// The log's session needs the one for the catalog now.
		l.exec("CREATE TABLE late (id int PRIMARY KEY)", "INSERT INTO late VALUES (2)")
		for line := ""; line != "insert late id=int:2"; {
			select {
			case line = <-came:
			case <-time.After(2 * time.Minute):
				t.Fatal("the log is not read on: many read timeouts have passed")
			}
		}
		if rows, _ := l.rowsOf(scanner, "t", 1<<20); len(rows) != 1 {
			t.Errorf("read %q", rows)
		}
	}, "MySQL 9", "MariaDB 11")
}

func TestStream_MayBeHeldUpForLongerThanTheReadTimeout(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind, "net_write_timeout=1") // of other sessions than ours
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v longtext)")
		r := l.start()
		var rows []string
		for i := range 200 {
			rows = append(rows, fmt.Sprintf("(%d, REPEAT('x', 100000))", i))
		}
		l.exec("INSERT INTO t VALUES " + strings.Join(rows, ", ")) // more than lies in buffers
		s := l.source()
		s.cfg.ReadTimeout = time.Second
		n, held := 0, 0
		err := l.batches(s, r, func(b *capture.Batch) error {
			for i := range b.Events {
				if b.Events[i].Kind == capture.Change {
					n++
				}
			}
			if b.InTx != nil && held < 2 {
				held++
				time.Sleep(1500 * time.Millisecond)
			}
			if n == len(rows) {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) || held < 2 {
			t.Errorf("after %d rows, held up %d times: %v", n, held, err)
		}
	}, "MySQL 9", "MariaDB 11")
}

func TestView_LacksWhatIsLoggedAndNotVisibleYet(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v varchar(20))", "INSERT INTO t VALUES (1, 'old')")
		// A commit that waits for a replica which never answers is in the log, and nobody
		// sees it.
		enabled := "rpl_semi_sync_source_enabled"
		if strings.HasPrefix(kind, "MariaDB") {
			enabled = "rpl_semi_sync_master_enabled"
			l.exec("SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC', GLOBAL rpl_semi_sync_master_timeout = 600000")
		} else {
			l.exec("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
				"SET GLOBAL rpl_semi_sync_source_timeout = 600000, GLOBAL rpl_semi_sync_source_wait_point = 'AFTER_SYNC'")
		}
		s := l.source()
		scanner := s.Scanner()
		changed := make(chan struct{})
		var once sync.Once
		stop := l.watchStream(s, capture.Resume{}, func(p piece) {
			if slices.ContainsFunc(p.lines, func(s string) bool { return strings.HasPrefix(s, "update t") }) {
				once.Do(func() { close(changed) })
			}
		})
		target := l.target(scanner, "t")
		l.exec("SET GLOBAL " + enabled + " = ON")
		writer := l.connect()
		written := make(chan error, 1)
		go func() {
			_, err := writer.Execute("UPDATE t SET v = 'new'")
			written <- err
		}()
		<-changed
		if got := l.ask("SELECT v FROM t"); got != "old" {
			t.Fatalf("the commit waits, and a SELECT shows %q: the test proves nothing", got)
		}
		srv, need := s.scan.present()
		v := &view{scanner: scanner, target: target, srv: srv}
		for _, c := range []**conn{&v.conn, &v.side} {
			var err error
			if *c, err = scanner.connect(t.Context(), srv); err != nil {
				t.Fatal(err)
			}
		}
		missing, err := v.begin(t.Context(), &need)
		if err != nil {
			t.Fatal(err)
		}
		if missing == "" {
			t.Error("a view that does not see the change is taken for one that holds it")
		}
		if v.srv.flavour == mySQL {
			// What a table without a key wants to know.
			set, err1 := v.srv.executed(t.Context(), v.side)
			end, err2 := v.srv.end(t.Context(), v.side)
			found, err3 := v.logHolds(t.Context(), set, end)
			before, err4 := v.logHolds(t.Context(), set, place{File: end.File, Pos: 4})
			if err := errors.Join(err1, err2, err3, err4); err != nil {
				t.Fatal(err)
			}
			if found == "" || before != "" {
				t.Errorf("outside of the set the log holds %q up to its end, and %q up to its beginning", found, before)
			}
		}
		v.discard()
		l.exec("SET GLOBAL " + enabled + " = OFF")
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		if rows, _ := l.rowsOf(scanner, "t", 1<<20); !slices.Equal(rows, []string{`id=int:1 v="new"`}) {
			t.Errorf("read %q", rows)
		}
		stop()
	}, "MySQL 9", "MariaDB 10.11")
}

func TestView_OfAnAlteredOrEmptiedTableIsOpenedAgain(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
		s := l.source()
		scanner := s.Scanner()
		l.stream(s, capture.Resume{})
		target := l.target(scanner, "t")
		for _, sql := range []string{"ALTER TABLE t ADD COLUMN v int, ALGORITHM = COPY", "TRUNCATE TABLE t"} {
			srv, _ := s.scan.present()
			c, err := scanner.connect(t.Context(), srv)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.exec(t.Context(), beginView); err != nil {
				t.Fatal(err)
			}
			l.exec(sql)
			if err := c.exec(t.Context(), "SELECT * FROM "+quoteTable(target.ID)); err == nil || !strings.Contains(err.Error(), "1412") {
				t.Errorf("%s: a view from before sees %v", sql, err)
			}
			c.close()
			want := l.ask("SELECT COUNT(*) FROM t")
			if rows, _ := l.rowsOf(scanner, "t", 1); fmt.Sprint(len(rows)) != want {
				t.Errorf("%s: %d rows were read, want %s", sql, len(rows), want)
			}
		}
	})
}

func TestMarks_ArePassedByAnIdleServer(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)")
		s := l.source()
		scanner := s.Scanner()
		marks := make(chan string, 10)
		stop := l.watchStream(s, capture.Resume{}, func(p piece) {
			for _, line := range p.lines {
				if strings.HasPrefix(line, "watermark") {
					marks <- line
				}
			}
		})
		target := l.target(scanner, "t")
		for i, sql := range []string{"DO 0", "FLUSH BINARY LOGS"} {
			l.exec(sql)
			v, err := scanner.View(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Mark(t.Context(), uint64(i)); err != nil {
				t.Fatal(err)
			}
			if got := <-marks; got != fmt.Sprintf("watermark %d", i) {
				t.Errorf("got %s", got)
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		}
		stop()
	})
}
