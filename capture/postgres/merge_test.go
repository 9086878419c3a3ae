package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/snapshot"
)

// A consumer applies events to a copy of the tables, and keeps a checkpoint.
type consumer struct {
	rows   map[string]string // table and key: content
	resume capture.Resume
	reads  int
}

func (c *consumer) take(b *capture.Batch) {
	for i := range b.Events {
		ev := &b.Events[i]
		for _, e := range ev.Entries {
			if c.resume.Entries[e.Key] = e.Value; e.Value == nil {
				delete(c.resume.Entries, e.Key)
			}
		}
		if ev.Kind != capture.Change || ev.Op == capture.Message {
			continue
		}
		id := ev.Table.Column("id")
		key := func(r capture.Row) string { return ev.Table.ID.String() + " " + r[id].String() }
		if ev.Op == capture.Read {
			c.reads++
		}
		before := ""
		if ev.Op == capture.Delete || ev.Op == capture.Update && ev.Before != nil {
			before = c.rows[key(ev.Before)]
			delete(c.rows, key(ev.Before))
		}
		if ev.After == nil {
			continue
		}
		if before == "" {
			before = c.rows[key(ev.After)]
		}
		v, big := ev.After[ev.Table.Column("v")].String(), ev.After[ev.Table.Column("big")]
		size := fmt.Sprint(len(big.String()))
		if big.Kind() == capture.Unchanged {
			var old string
			if _, err := fmt.Sscanf(before, "%s %s", &old, &size); err != nil {
				size = "unknown" // the row was not read yet
			}
		}
		c.rows[key(ev.After)] = v + " " + size
	}
	c.resume.At, c.resume.InTx = b.End, b.InTx
}

func TestSnapshot_EqualsTheTablesWhileTheyChangeAndReadersDie(t *testing.T) {
	for _, version := range []string{"13", "17"} {
		t.Run(version, func(t *testing.T) {
			l := newLab(t, version)
			for _, name := range []string{"a", "b"} {
				l.exec(`CREATE TABLE `+name+` (id int PRIMARY KEY, v text NOT NULL, big text); ALTER TABLE `+name+` ALTER big SET STORAGE EXTERNAL`,
					`INSERT INTO `+name+` SELECT g, 'v' || g, CASE WHEN g % 10 = 0 THEN repeat('x', 3000 + g) END FROM generate_series(1, 1000) g`)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			writers := make(chan error, 1)
			db := l.connect()
			go func() {
				rng := rand.New(rand.NewPCG(1, 2))
				for n := 0; ctx.Err() == nil; n++ {
					id, table := 1+rng.IntN(1000), []string{"a", "b"}[n%2]
					sql := []string{
						`UPDATE %s SET v = 'u%d' WHERE id = %d`, `UPDATE %s SET id = 100000 + %d WHERE id = %d`,
						`DELETE FROM %s WHERE id + 0 * %d = %d`, `INSERT INTO %s VALUES (200000 + %d, 'new', %d)`,
						`UPDATE %s SET v = v || 'x' WHERE %d > 0 AND id < %d / 30`,
					}[rng.IntN(5)]
					if _, err := db.Exec(context.Background(), fmt.Sprintf(sql, table, n, id)); err != nil {
						writers <- err
						return
					}
					time.Sleep(2 * time.Millisecond)
				}
				writers <- nil
			}()
			c := &consumer{rows: map[string]string{}, resume: capture.Resume{Entries: map[string][]byte{}}}
			died := errors.New("died")
			for life := 0; ; life++ {
				s := l.source()
				src := snapshot.New(s, s.Scanner(), snapshot.Config{ChunkBytes: 64 << 10}, nil, nil)
				left := 5 + 5*life
				started := time.Now()
				err := src.Stream(t.Context(), c.resume, func(b *capture.Batch) error {
					defer b.Release()
					if left--; left == 0 && life < 6 {
						return died
					}
					c.take(b)
					if life >= 6 && c.resume.InTx == nil && c.resume.Entries[unseenKey] == nil {
						return errEnough
					}
					if time.Since(started) > 5*time.Minute {
						return errors.New("the tables are not read after five minutes")
					}
					return nil
				})
				if errors.Is(err, errEnough) {
					break
				}
				if !errors.Is(err, died) {
					t.Fatal(err)
				}
			}
			cancel()
			if err := <-writers; err != nil {
				t.Fatal(err)
			}
			l.exec(`INSERT INTO a VALUES (0, 'last', NULL)`)
			err := l.batches(l.source(), c.resume, func(b *capture.Batch) error {
				c.take(b)
				if c.rows["public.a int:0"] != "" && b.InTx == nil {
					return errEnough
				}
				return nil
			})
			if !errors.Is(err, errEnough) {
				t.Fatal(err)
			}
			rows, err := l.db.Query(t.Context(), `SELECT 'public.a', id, v, big FROM a UNION ALL SELECT 'public.b', id, v, big FROM b`)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for rows.Next() {
				var table, v string
				var id int
				var big *string
				if err := rows.Scan(&table, &id, &v, &big); err != nil {
					t.Fatal(err)
				}
				n++
				text := capture.NullValue
				if big != nil {
					text = capture.TextValue(*big)
				}
				want := fmt.Sprintf("%q %d", v, len(text.String()))
				if got := c.rows[fmt.Sprintf("%s int:%d", table, id)]; got != want {
					t.Errorf("%s %d: got %s, want %s", table, id, got, want)
				}
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			if n != len(c.rows) {
				t.Errorf("%d rows, and the tables have %d", len(c.rows), n)
			}
			t.Logf("%d rows, %d were read", n, c.reads)
		})
	}
}
