package integration

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// A subject is a database under the workload. The tables are the usual one with a large
// column (orders), one with a composite key of text (pairs), one whose log repeats the
// whole old row (whole), and one without a key (keyless). Each insert and update stamps
// ver, from one counter of the workload.
type subject interface {
	// config is the section source of the configuration, and the tables to include.
	config() (source, include string)
	// create makes the tables, empty.
	create(ctx context.Context) error
	// open opens the n-th connection of the workload.
	open(ctx context.Context, n int) (session, error)
	// judge says what to make of a session's error.
	judge(err error) fate
	// upsert ends an INSERT: on a row with the same value in the column key it sets
	// what is given, or does nothing if that is empty.
	upsert(key, set string) string
	// began waits until the program has fixed where it begins in the log, and lets the
	// history begin there.
	began(t *testing.T, p *pipeline)
	// vary changes what a server may change at any time, before the n-th kill.
	vary(ctx context.Context, n int) error
	// crash kills the server and starts it again.
	crash(ctx context.Context) error
	// caughtUp waits until the program has published everything in the log of now.
	caughtUp(t *testing.T, p *pipeline)
	// history is the log as something else than headwater decodes it, up to the row that
	// has the version end.
	history(ctx context.Context, end int64) ([]change, error)
	// held is what a table holds: version by key.
	held(ctx context.Context, table string, key []string) (map[string]int64, error)
}

// A session is a connection of the workload.
type session interface {
	exec(ctx context.Context, sql string) error
	close()
}

// fate is what an error means for a transaction of the workload.
type fate int

const (
	fatal   fate = iota
	refused      // another try may go well: duplicate key, deadlock, lock
	gone         // the connection is lost, the outcome may be unknown
)

var keyNames = map[string][]string{"orders": {"id"}, "pairs": {"b", "a"}, "whole": {"id"}, "keyless": nil}

// A workload is the load on one subject.
type workload struct {
	subject
	orders       int          // rows of the table orders at first
	version      atomic.Int64 // the last that was given
	transactions atomic.Int64 // committed
}

// next is a version that no change has yet.
func (w *workload) next() int64 { return w.version.Add(1) }

// uuidOf is the n-th key of the table whole.
func uuidOf(n int) string {
	sum := md5.Sum(fmt.Append(nil, n))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:])
}

// preload fills the tables before headwater sees them.
func (w *workload) preload(ctx context.Context) error {
	s, err := w.open(ctx, 0)
	if err != nil {
		return err
	}
	defer s.close()
	for _, fill := range []struct {
		into string
		rows int
		row  func(n int) string
	}{
		{"orders (id, ver, item, amount, doc, big)", w.orders, func(n int) string {
			big := "NULL"
			if n%50 == 0 {
				big = "'" + strings.Repeat(uuidOf(n), 100) + "'"
			}
			return fmt.Sprintf(`(%d, %d, 'item %[1]d', %[1]d, '{"n": %[1]d}', %[3]s)`, n, w.next(), big)
		}},
		{"pairs (a, ver, b, item, amount)", w.orders / 5, func(n int) string {
			return fmt.Sprintf("('k%d', %d, %d, 'pair', %[3]d)", n%7, w.next(), n)
		}},
		{"whole (id, ver, item, amount)", w.orders / 10, func(n int) string {
			return fmt.Sprintf("('%s', %d, 'whole', %d)", uuidOf(n), w.next(), n)
		}},
		{"keyless (ver, item)", 500, func(n int) string { return fmt.Sprintf("(%d, 'line %d')", w.next(), n) }},
	} {
		for from := 1; from <= fill.rows; from += 500 {
			var rows []string
			for n := from; n < from+500 && n <= fill.rows; n++ {
				rows = append(rows, fill.row(n))
			}
			if err := s.exec(ctx, "INSERT INTO "+fill.into+" VALUES "+strings.Join(rows, ", ")); err != nil {
				return err
			}
		}
	}
	return nil
}

// work runs random transactions from n connections until ctx ends: inserts, updates,
// deletes, key changes, large columns that stay untouched, rollbacks, savepoints, and now
// and then a transaction of several thousand rows.
func (w *workload) work(ctx context.Context, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range n {
		g.Go(func() error {
			rnd := rand.New(rand.NewPCG(uint64(i), 42))
			for ctx.Err() == nil {
				if err := w.shift(ctx, i, rnd); err != nil && ctx.Err() == nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// shift works on one connection until it is lost, or ctx ends.
func (w *workload) shift(ctx context.Context, i int, rnd *rand.Rand) error {
	s, err := w.open(ctx, i)
	if err != nil {
		time.Sleep(20 * time.Millisecond)
		if w.judge(err) == gone {
			return nil // the server is down
		}
		return err
	}
	defer s.close()
	for ctx.Err() == nil {
		// Not cut short by the end of the workload: a commit whose answer we miss is fine,
		// a connection that is torn down is slow.
		err := w.transaction(context.WithoutCancel(ctx), s, rnd)
		if err != nil {
			switch w.judge(err) {
			case refused:
				err = s.exec(context.WithoutCancel(ctx), "ROLLBACK")
			case gone:
				return nil
			}
		}
		if err != nil && w.judge(err) != gone {
			return err
		}
		time.Sleep(time.Duration(rnd.IntN(12)) * time.Millisecond)
	}
	return nil
}

func (w *workload) transaction(ctx context.Context, s session, rnd *rand.Rand) error {
	statements := []string{"BEGIN"}
	for range 1 + rnd.IntN(6) {
		statements = append(statements, w.step(rnd)...)
	}
	end := "COMMIT"
	if rnd.IntN(12) == 0 {
		end = "ROLLBACK"
	}
	for _, sql := range append(statements, end) {
		if err := s.exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", clip(sql), err)
		}
	}
	w.transactions.Add(1)
	return nil
}

// step is a random statement, rarely several.
func (w *workload) step(rnd *rand.Rand) []string {
	id := func() int { return 1 + rnd.IntN(w.orders*5/4) }
	pair, whole := 1+rnd.IntN(w.orders/5), uuidOf(1+rnd.IntN(w.orders/10))
	ver := w.next()
	one := func(format string, args ...any) []string { return []string{fmt.Sprintf(format, args...)} }
	switch rnd.IntN(20) {
	case 0, 1, 2:
		return one(`INSERT INTO orders (id, ver, item, amount, doc, big) VALUES (%d, %d, 'new', %d.5, '{"a": 1}', repeat('x', %d)) %s`,
			id(), ver, rnd.IntN(1000), rnd.IntN(4000), w.upsert("id", fmt.Sprintf("ver = %d, item = 'again'", ver)))
	case 3, 4, 5, 6:
		return one("UPDATE orders SET ver = %d, amount = amount + 1 WHERE id = %d", ver, id())
	case 7:
		return one("UPDATE orders SET ver = %d, big = repeat('y', %d) WHERE id = %d", ver, rnd.IntN(9000), id())
	case 8, 9:
		return one("DELETE FROM orders WHERE id = %d", id())
	case 10:
		return one("UPDATE orders SET ver = %d, id = id + %d WHERE id = %d", ver, w.orders*2, id())
	case 11, 12:
		return one("UPDATE pairs SET ver = %d, item = 'p%d' WHERE b = %d", ver, rnd.IntN(1000), pair)
	case 13:
		return one("UPDATE pairs SET ver = %d, a = 'm%d' WHERE b = %d", ver, rnd.IntN(50), pair)
	case 14:
		return one("INSERT INTO pairs (a, ver, b, item) VALUES ('n%d', %d, %d, 'n') %s", rnd.IntN(9), ver, id(), w.upsert("b", ""))
	case 15, 16:
		return one("UPDATE whole SET ver = %d, amount = %d WHERE id = '%s'", ver, rnd.IntN(99), whole)
	case 17:
		return one("DELETE FROM whole WHERE id = '%s'", whole)
	case 18:
		return one("INSERT INTO keyless (ver, item) VALUES (%d, 'streamed')", ver)
	}
	switch rnd.IntN(12) {
	case 0: // large: more than one Kafka transaction
		lo := id()
		return one("UPDATE orders SET ver = %d, amount = amount * 1.01 WHERE id BETWEEN %d AND %d AND amount < 1000000", ver, lo, lo+w.orders/6)
	case 1:
		return []string{"SAVEPOINT a", fmt.Sprintf("INSERT INTO keyless (ver, item) VALUES (%d, 'undone')", ver), "ROLLBACK TO SAVEPOINT a"}
	}
	return one("DELETE FROM pairs WHERE b = %d", pair)
}

// alone runs a statement outside of the workload's transactions, until it is not refused
// because of one.
func (w *workload) alone(ctx context.Context, sql string) error {
	s, err := w.open(ctx, 0)
	if err != nil {
		return err
	}
	defer s.close()
	for {
		if err = s.exec(ctx, sql); err == nil || w.judge(err) != refused {
			return err
		}
	}
}

// tables is what all tables hold.
func (w *workload) tables(ctx context.Context) (state, error) {
	s := state{}
	var errs []error
	for table, key := range keyNames {
		rows, err := w.held(ctx, table, key)
		s[table], errs = rows, append(errs, err)
	}
	return s, errors.Join(errs...)
}

// rowChange is what the log says of one row: a changed key makes two changes of it.
func rowChange(table string, op byte, oldKey, key string, ver int64) []change {
	switch {
	case op == 'd':
		return []change{{table, key, 'd', 0}}
	case op == 'u' && oldKey != key:
		return []change{{table, oldKey, 'd', 0}, {table, key, 'c', ver}}
	}
	return []change{{table, key, op, ver}}
}
