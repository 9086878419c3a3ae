package mysql

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/snapshot"
)

// A look is what a view of a table with counters showed: the number of each.
type look struct {
	table string
	shown map[int]int
	holds func(*capture.Tx) bool
}

// look opens a view of a table.
func (l *lab) look(s *Scanner, table string, key ...string) look {
	l.t.Helper()
	target := snapshot.Target{ID: capture.TableID{Schema: l.name, Name: table}, Key: key}
	v, err := s.View(l.t.Context(), target)
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := v.Scan(l.t.Context(), target, nil, 1<<20)
	if err != nil {
		l.t.Fatal(err)
	}
	shown := make(map[int]int)
	for i := range c.Events {
		row := c.Events[i].After
		shown[int(row[0].Int())] = int(row[1].Int())
	}
	c.Release()
	if err := v.Close(); err != nil {
		l.t.Fatal(err)
	}
	return look{table, shown, v.Holds}
}

// A count is that a counter becomes a number.
type count struct{ id, n int }

// counts reads the log for where each transaction begins that makes a count visible: the one that
// says UPDATE plain SET n = … WHERE id = …, or commits the XA transaction of this name.
func (l *lab) counts(s *Source) map[count]*capture.Tx {
	l.t.Helper()
	srv, _ := s.scan.present()
	out := make(map[count]*capture.Tx)
	var read, begin place
	err := s.peek(l.t.Context(), srv, &dumpRequest{flavour: mariaDB, file: "binlog.000001"}, func(h *header, body []byte) bool {
		switch {
		case h.typ == replication.ROTATE_EVENT:
			read, _ = rotated(body)
		case h.counts():
			start := read
			read = read.after(h)
			var c count
			var name []byte
			switch h.typ {
			case replication.MARIADB_GTID_EVENT:
				begin = start
			case replication.MARIADB_ANNOTATE_ROWS_EVENT:
				if _, err := fmt.Sscanf(string(body), "UPDATE plain SET n = %d WHERE id = %d", &c.n, &c.id); err == nil {
					out[c] = &capture.Tx{Num: begin.number()}
				}
			case replication.QUERY_EVENT:
				if _, err := fmt.Sscanf(string(body[bytes.LastIndexByte(body, 0)+1:]), "XA COMMIT X'%x'", &name); err != nil {
					break
				}
				if _, err := fmt.Sscanf(string(name), "%d.%d", &c.id, &c.n); err == nil {
					out[c] = &capture.Tx{Num: begin.number()}
				}
			}
		}
		return false
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// MariaDB logs the commit of an XA transaction, and counts it, before anybody sees it.
func TestView_HoldsTheXATransactionsThatItShowsAndNoOthers(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		const writers, views = 6, 200
		l := privateLab(t, kind)
		l.exec("CREATE TABLE keyed (id int PRIMARY KEY, n int)", "CREATE TABLE plain (id int, n int, KEY (id))", "CREATE TABLE rest (id int PRIMARY KEY)")
		for id := range writers {
			l.exec(fmt.Sprintf("INSERT INTO keyed VALUES (%d, 0)", id), fmt.Sprintf("INSERT INTO plain VALUES (%d, 0)", id))
		}
		// Stream need not tell what the log says anyhow.
		s := l.source(func(c *Config) { c.Tables.Exclude = append(c.Tables.Exclude, l.name+".keyed", l.name+".plain") })
		scanner := s.Scanner()
		l.stream(s, capture.Resume{})
		var looks []look
		see := func(views int) {
			for i := range views {
				looks = append(looks, l.look(scanner, "keyed", "id"))
				if i%10 == 0 {
					looks = append(looks, l.look(scanner, "plain"))
				}
			}
		}
		see(1) // Stream has begun

		stop := make(chan struct{})
		var writing sync.WaitGroup
		for id := range writers {
			db := l.connect()
			writing.Go(func() {
				for n := 1; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					name := fmt.Sprintf("'%d.%d'", id, n)
					begin, end := "XA START "+name, []string{"XA END " + name, "XA PREPARE " + name, "XA COMMIT " + name}
					if n%4 == 0 {
						begin, end = "BEGIN", []string{"COMMIT"}
					}
					for _, sql := range append([]string{begin, fmt.Sprintf("UPDATE keyed SET n = %d WHERE id = %d", n, id), fmt.Sprintf("UPDATE plain SET n = %d WHERE id = %d", n, id)}, end...) {
						if _, err := db.Execute(sql); err != nil {
							t.Error(sql, err)
							return
						}
					}
				}
			})
		}
		see(views)
		// One that nobody decides keeps no view waiting.
		other := l.connect()
		for _, sql := range []string{"XA START 'rest'", "INSERT INTO rest VALUES (1)", "XA END 'rest'", "XA PREPARE 'rest'"} {
			if _, err := other.Execute(sql); err != nil {
				t.Fatal(err)
			}
		}
		see(views / 10)
		close(stop)
		writing.Wait()
		if _, err := other.Execute("XA ROLLBACK 'rest'"); err != nil {
			t.Fatal(err)
		}
		txs := l.counts(s)
		more, less := 0, 0
		for _, k := range looks {
			for id, n := range k.shown {
				if tx := txs[count{id, n}]; n > 0 && tx == nil {
					t.Fatalf("the log lacks transaction %d of %d", n, id)
				} else if n > 0 && k.table == "plain" && !k.holds(tx) {
					less++
				}
				if next := txs[count{id, n + 1}]; next != nil && k.holds(next) {
					more++
				}
			}
		}
		if more > 0 || less > 0 {
			t.Errorf("of %d views, %d hold a transaction that they do not show, and %d show one that they do not hold", len(looks), more, less)
		}
		t.Logf("%d views during %d transactions", len(looks), len(txs))
	}, "MariaDB 10.11", "MariaDB 11")
}

func TestView_TakesTheWordOfTheLogForXATransactionsThatAreListed(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE plain (id int)")
		s := l.source()
		scanner := s.Scanner()
		ctx, cancel := context.WithCancel(t.Context())
		// Stream is held up once it knows of the first transaction.
		var hold atomic.Bool
		ended := make(chan error, 1)
		go func() {
			ended <- s.Stream(ctx, capture.Resume{}, func(b *capture.Batch) error {
				defer b.Release()
				if hold.Load() {
					<-ctx.Done()
				}
				return nil
			})
		}()
		defer func() {
			cancel()
			<-ended
		}()
		var undo []func() error
		xa := func(name string, commit bool) string {
			t.Helper()
			db := l.connect()
			sql := []string{"XA START '" + name + "'", "INSERT INTO t VALUES (" + fmt.Sprint(len(name)) + ")", "XA END '" + name + "'", "XA PREPARE '" + name + "'"}
			if commit {
				sql = append(sql, "XA COMMIT '"+name+"'")
			} else {
				// A server that shuts down waits for what is prepared.
				undo = append(undo, func() error {
					_, err := db.Execute("XA ROLLBACK '" + name + "'")
					return err
				})
			}
			for _, sql := range sql {
				if _, err := db.Execute(sql); err != nil {
					t.Fatal(sql, err)
				}
			}
			return xidText(1, []byte(name), nil)
		}
		plain := l.target(scanner, "plain")
		srv, _ := s.scan.present()
		v := &view{scanner: scanner, target: plain, srv: srv}
		for _, c := range []**conn{&v.conn, &v.side} {
			var err error
			if *c, err = scanner.connect(ctx, srv); err != nil {
				t.Fatal(err)
			}
		}
		defer v.discard()
		end := func() place {
			t.Helper()
			p, err := srv.end(ctx, v.side)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		early := xa("a", false)
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			if x, err := s.scan.xa(srv); err != nil || x != nil && x.prepared[early] {
				break
			}
			if time.Since(began) > 2*time.Minute {
				t.Fatal("the position of the stream does not name the prepared transaction")
			}
		}
		hold.Store(true)
		late := xa("bb", false)
		first := end()
		committed := xa("ccc", true)
		second := end()
		l.exec("INSERT INTO plain VALUES (1)")
		last := end()
		for _, c := range []struct {
			what    string
			listed  []string
			at, end place
			held    bool
		}{
			{"prepared before the position of the stream, and behind it", []string{early, late}, last, last, true},
			{"committed, and listed still", []string{early, committed}, last, last, false},
			{"unknown to the log", []string{early, committed}, first, first, false},
			{"committed between the two places", nil, second, first, false},
			{"committed between the two places, the other way round", nil, first, second, false},
			{"none between the two places", nil, last, second, true},
			{"none between the two places, the other way round", []string{late}, second, last, true},
		} {
			missing, err := v.holdsXA(ctx, c.listed, c.at, c.end, true)
			if err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
			if held := missing == ""; held != c.held || held && v.before != c.at.number() {
				t.Errorf("%s: the view lacks %q", c.what, missing)
			}
		}
		_, need := s.scan.present()
		if missing, err := v.begin(ctx, &need); err != nil || missing != "" {
			t.Errorf("with two prepared transactions a view lacks %q (%v)", missing, err)
		}
		// After a move to another server no place is known until the first commit there.
		at, err := parsePosition(need.upTo)
		if err != nil {
			t.Fatal(err)
		}
		at.Began = 0
		w, err := newPositionWriter(at.Source)
		if err != nil {
			t.Fatal(err)
		}
		s.scan.mu.Lock()
		s.scan.need.upTo, err = w.write(&at)
		s.scan.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if missing, err := v.holdsXA(ctx, []string{early}, last, last, true); err != nil || missing == "" {
			t.Errorf("without a place of the stream a view lacks nothing (%v)", err)
		}
		for _, f := range undo {
			if err := f(); err != nil {
				t.Error(err)
			}
		}
	}, "MariaDB 10.11", "MariaDB 11")
}
