package mysql

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/snapshot"
)

// A consumer applies events to a copy of the tables, and keeps a checkpoint.
type consumer struct {
	rows   map[string]string // table and key: content
	plain  map[string]int    // of the table without a key: how often a content is there
	resume capture.Resume
	reads  int
	marked bool // the last row has come
	begun  int  // attempts of the table without a key
}

func newConsumer() *consumer {
	return &consumer{rows: map[string]string{}, plain: map[string]int{}, resume: capture.Resume{Entries: map[string][]byte{}}}
}

func (c *consumer) take(b *capture.Batch) error {
	for i := range b.Events {
		ev := &b.Events[i]
		for _, e := range ev.Entries {
			if c.resume.Entries[e.Key] = e.Value; e.Value == nil {
				delete(c.resume.Entries, e.Key)
			}
		}
		if ev.Kind != capture.Change {
			continue
		}
		if ev.Op == capture.Read {
			c.reads++
		}
		if ev.Table.ID.Name == "mark" {
			c.marked = true
			continue
		}
		if ev.Table.ID.Name == "plain" {
			// A new attempt makes those before void.
			if ev.Op == capture.Read && (ev.Snapshot == capture.SnapshotFirst || ev.Snapshot == capture.SnapshotFirstInTable) {
				c.plain = map[string]int{}
				c.begun++
			}
			if ev.Before != nil {
				c.plain[rowText(ev.Table, ev.Before)]--
			}
			if ev.After != nil {
				c.plain[rowText(ev.Table, ev.After)]++
			}
			continue
		}
		key := func(r capture.Row) string {
			k := ev.Table.ID.Name
			for _, i := range ev.Table.Key {
				k += " " + r[i].String()
			}
			return k
		}
		if ev.Before != nil {
			delete(c.rows, key(ev.Before))
		}
		if ev.After != nil {
			c.rows[key(ev.After)] = rowText(ev.Table, ev.After)
		}
	}
	c.resume.At, c.resume.InTx = b.End, b.InTx
	return nil
}

// write changes the tables until ctx ends.
func write(ctx context.Context, l *lab, seed uint64) <-chan error {
	db := l.connect()
	done := make(chan error, 1)
	go func() {
		rng := rand.New(rand.NewPCG(seed, 2))
		for n := 0; ctx.Err() == nil; n++ {
			id, table := 1+rng.IntN(1000), []string{"a", "b", "plain"}[n%3]
			sql := []string{
				"UPDATE %s SET v = 'u%d' WHERE id = %d", "UPDATE %s SET id = 100000 + %d WHERE id = %d",
				"DELETE FROM %s WHERE id + 0 * %d = %d", "INSERT INTO %s (id, k, v) VALUES (200000 + %d, 'new', %d)",
				"UPDATE %s SET v = CONCAT(LEFT(v, 20), 'x') WHERE %d > 0 AND id < %d / 30",
			}[rng.IntN(5)]
			if _, err := db.Execute(fmt.Sprintf(sql, table, n*10+int(seed), id)); err != nil && !strings.Contains(err.Error(), "Deadlock") {
				done <- err
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
		done <- nil
	}()
	return done
}

func TestSnapshot_EqualsTheTablesWhileTheyChangeAndReadersDie(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE a (id int PRIMARY KEY, k varchar(20), v varchar(60) NOT NULL)",
			"CREATE TABLE b (id int, k varchar(20) CHARACTER SET latin1 NOT NULL, v varchar(60) NOT NULL, PRIMARY KEY (k, id))",
			"CREATE TABLE plain (id int, k varchar(20), v varchar(60) NOT NULL)")
		for _, name := range []string{"a", "b", "plain"} {
			var rows []string
			for i := 1; i <= 1000; i++ {
				rows = append(rows, fmt.Sprintf("(%d, 'k%dé', 'v%d')", i, i%7, i))
			}
			l.exec("INSERT INTO " + name + " VALUES " + strings.Join(rows, ", "))
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		writers := []<-chan error{write(ctx, l, 1), write(ctx, l, 2)}

		c := newConsumer()
		died := errors.New("died")
		for life := 0; ; life++ {
			s := l.source(small)
			src := snapshot.New(s, s.Scanner(), snapshot.Config{ChunkBytes: 64 << 10}, nil, nil)
			left, started := 4+3*life, time.Now()
			err := src.Stream(t.Context(), c.resume, func(b *capture.Batch) error {
				defer b.Release()
				if left--; left == 0 && life < 6 {
					return died
				}
				if err := c.take(b); err != nil {
					return err
				}
				if life >= 6 && c.resume.InTx == nil && done(c.resume.Entries, 3) {
					return errEnough
				}
				if time.Since(started) > 5*time.Minute {
					return errors.New("the tables are not read after five minutes")
				}
				return nil
			})
			_ = s.Close()
			if errors.Is(err, errEnough) {
				break
			}
			if !errors.Is(err, died) {
				t.Fatal(err)
			}
		}
		cancel()
		for _, w := range writers {
			if err := <-w; err != nil {
				t.Fatal(err)
			}
		}
		l.exec("CREATE TABLE mark (id int PRIMARY KEY)", "INSERT INTO mark VALUES (1)")
		err := l.batches(l.source(), c.resume, func(b *capture.Batch) error {
			if err := c.take(b); err != nil {
				return err
			}
			if c.marked && b.InTx == nil {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		compare(t, l, c)
	})
}

// done says whether the entries say so of n tables.
func done(entries map[string][]byte, n int) bool {
	for k, v := range entries {
		if strings.HasPrefix(k, "s/") && strings.Contains(string(v), `"done"`) {
			n--
		}
	}
	return n <= 0
}

func compare(t *testing.T, l *lab, c *consumer) {
	t.Helper()
	n := 0
	plain := map[string]int{}
	for _, name := range []string{"a", "b", "plain"} {
		r, err := l.db.Execute("SELECT id, k, v FROM " + name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.RowNumber() {
			id, _ := r.GetInt(i, 0)
			k, _ := r.GetString(i, 1)
			v, _ := r.GetString(i, 2)
			want := fmt.Sprintf(" id=int:%d k=%q v=%q", id, k, v)
			key := fmt.Sprintf("a int:%d", id)
			switch name {
			case "plain":
				plain[want]++
				continue
			case "b":
				key = fmt.Sprintf("b %q int:%d", k, id)
			}
			n++
			if got := c.rows[key]; got != want {
				t.Errorf("%s: got %s, want %s", key, got, want)
			}
		}
	}
	if n != len(c.rows) {
		t.Errorf("%d rows, and the tables have %d", len(c.rows), n)
	}
	for text, want := range plain {
		if c.plain[text] != want {
			t.Errorf("without a key: %d of %s, want %d", c.plain[text], text, want)
		}
	}
	for text, got := range c.plain {
		if got != plain[text] {
			t.Errorf("without a key: %d of %s, want %d", got, text, plain[text])
		}
	}
	t.Logf("%d rows, %d were read, %d attempts without a key", n, c.reads, c.begun)
}
