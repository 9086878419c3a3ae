package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// tables are what the workload works on: the usual one with a large column, one with a
// composite key of text, one whose log repeats the whole old row, and one without a key.
// Each insert and update stamps ver from one sequence.
const tables = `
CREATE SEQUENCE ver CACHE 1;
CREATE TABLE orders (
  id bigint PRIMARY KEY, ver bigint NOT NULL, item text NOT NULL, amount numeric(12,2) NOT NULL,
  at timestamptz NOT NULL DEFAULT now(), doc jsonb, big text);
ALTER TABLE orders ALTER COLUMN big SET STORAGE EXTERNAL;
CREATE TABLE pairs (a text, ver bigint NOT NULL, b int, item text, amount numeric(12,2), PRIMARY KEY (b, a));
CREATE TABLE whole (id uuid PRIMARY KEY, ver bigint NOT NULL, item text, amount numeric(12,2));
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE keyless (ver bigint NOT NULL, item text);
`

// preload fills the tables before headwater sees them.
func preload(ctx context.Context, conn *pgx.Conn, orders int) error {
	_, err := conn.Exec(ctx, fmt.Sprintf(`
		INSERT INTO orders SELECT n, nextval('ver'), 'item ' || n, n * 0.25, now(), jsonb_build_object('n', n),
			CASE WHEN n %% 50 = 0 THEN repeat(md5(n::text), 100) END FROM generate_series(1, %[1]d) n;
		INSERT INTO pairs SELECT 'k' || n %% 7, nextval('ver'), n, 'pair ' || n, n FROM generate_series(1, %[1]d / 5) n;
		INSERT INTO whole SELECT md5(n::text)::uuid, nextval('ver'), 'whole ' || n, n FROM generate_series(1, %[1]d / 10) n;
		INSERT INTO keyless SELECT nextval('ver'), 'line ' || n FROM generate_series(1, 500) n;
		ANALYZE;`, orders))
	return err
}

// work runs random transactions from n connections until ctx ends: inserts, updates,
// deletes, key changes, large columns that stay untouched, rollbacks, savepoints, and now
// and then a transaction of several thousand rows.
func work(ctx context.Context, url string, n, orders int) (transactions int, err error) {
	g, gctx := errgroup.WithContext(ctx)
	counts := make([]int, n)
	for i := range n {
		g.Go(func() error {
			conn, err := pgx.Connect(gctx, url)
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(gctx))
			rnd := rand.New(rand.NewPCG(uint64(i), 42))
			for gctx.Err() == nil {
				err := transaction(gctx, conn, rnd, orders)
				var pg *pgconn.PgError
				switch {
				case err == nil:
					counts[i]++
				case errors.As(err, &pg) && (pg.Code == "23505" || pg.Code == "40P01" || pg.Code == "55P03"): // unique, deadlock, lock
				case gctx.Err() != nil:
				default:
					return err
				}
				time.Sleep(time.Duration(rnd.IntN(12)) * time.Millisecond)
			}
			return nil
		})
	}
	err = g.Wait()
	for _, c := range counts {
		transactions += c
	}
	return transactions, err
}

func transaction(ctx context.Context, conn *pgx.Conn, rnd *rand.Rand, orders int) error {
	// Not cut short by the end of the workload: a commit whose answer we miss is fine, a
	// connection that is torn down is slow.
	tx, err := conn.Begin(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	defer tx.Rollback(ctx)
	id := func() int { return 1 + rnd.IntN(orders*5/4) }
	steps := 1 + rnd.IntN(6)
	for range steps {
		var sql string
		switch rnd.IntN(20) {
		case 0, 1, 2:
			sql = fmt.Sprintf("INSERT INTO orders (id, ver, item, amount, at, doc, big) VALUES (%d, nextval('ver'), 'new', %d.5, now(), '{\"a\": 1}', repeat('x', %d))", id(), rnd.IntN(1000), rnd.IntN(4000))
			sql += " ON CONFLICT (id) DO UPDATE SET ver = nextval('ver'), item = 'again'"
		case 3, 4, 5, 6:
			sql = fmt.Sprintf("UPDATE orders SET ver = nextval('ver'), amount = amount + 1 WHERE id = %d", id())
		case 7:
			sql = fmt.Sprintf("UPDATE orders SET ver = nextval('ver'), big = repeat('y', %d) WHERE id = %d", rnd.IntN(9000), id())
		case 8, 9:
			sql = fmt.Sprintf("DELETE FROM orders WHERE id = %d", id())
		case 10:
			sql = fmt.Sprintf("UPDATE orders SET ver = nextval('ver'), id = id + %d WHERE id = %d", orders*2, id())
		case 11, 12:
			sql = fmt.Sprintf("UPDATE pairs SET ver = nextval('ver'), item = 'p%d' WHERE b = %d", rnd.IntN(1000), 1+rnd.IntN(orders/5))
		case 13:
			sql = fmt.Sprintf("UPDATE pairs SET ver = nextval('ver'), a = 'm%d' WHERE b = %d", rnd.IntN(50), 1+rnd.IntN(orders/5))
		case 14:
			sql = fmt.Sprintf("INSERT INTO pairs (a, ver, b, item) VALUES ('n%d', nextval('ver'), %d, 'n') ON CONFLICT DO NOTHING", rnd.IntN(9), id())
		case 15, 16:
			sql = fmt.Sprintf("UPDATE whole SET ver = nextval('ver'), amount = %d WHERE id = md5('%d')::uuid", rnd.IntN(99), 1+rnd.IntN(orders/10))
		case 17:
			sql = fmt.Sprintf("DELETE FROM whole WHERE id = md5('%d')::uuid", 1+rnd.IntN(orders/10))
		case 18:
			sql = "INSERT INTO keyless VALUES (nextval('ver'), 'streamed')"
		case 19:
			switch rnd.IntN(12) {
			case 0: // large: more than one Kafka transaction
				lo := id()
				sql = fmt.Sprintf("UPDATE orders SET ver = nextval('ver'), amount = amount * 1.01 WHERE id BETWEEN %d AND %d AND amount < 1000000", lo, lo+orders/6)
			case 1:
				sql = "SAVEPOINT a; INSERT INTO keyless VALUES (nextval('ver'), 'undone'); ROLLBACK TO SAVEPOINT a"
			default:
				sql = fmt.Sprintf("DELETE FROM pairs WHERE b = %d", 1+rnd.IntN(orders/5))
			}
		}
		if _, err := tx.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	}
	if rnd.IntN(12) == 0 {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

var (
	lineOf   = regexp.MustCompile(`^table public\.(\w+): (INSERT|UPDATE|DELETE): (.*)$`)
	verOf    = regexp.MustCompile(`\bver\[bigint\]:(\d+)`)
	keyOf    = map[string]*regexp.Regexp{}
	keyNames = map[string][]string{"orders": {"id"}, "pairs": {"b", "a"}, "whole": {"id"}, "keyless": nil}
)

func init() {
	for _, n := range []string{"id", "a", "b"} {
		keyOf[n] = regexp.MustCompile(`(?:^| )` + n + `\[\w+\]:'?([\w-]+)`)
	}
}

// readHistory takes what the server's own test_decoding plugin says of the log: another
// decoder than the one that headwater reads.
func readHistory(ctx context.Context, conn *pgx.Conn, slot string) (history []change, err error) {
	rows, err := conn.Query(ctx, "SELECT data FROM pg_logical_slot_get_changes($1, NULL, NULL, 'skip-empty-xacts', '1')", slot)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		m := lineOf.FindStringSubmatch(line)
		if m == nil {
			continue // BEGIN, COMMIT
		}
		table, op, data := m[1], m[2], m[3]
		key := func(s string) string {
			var parts []string
			for _, n := range keyNames[table] {
				if k := keyOf[n].FindStringSubmatch(s); k != nil {
					parts = append(parts, k[1])
				}
			}
			return strings.Join(parts, "/")
		}
		var ver int64
		old, after, both := strings.Cut(data, " new-tuple: ")
		if !both {
			old, after = "", data
		}
		if v := verOf.FindStringSubmatch(after); v != nil {
			ver, _ = strconv.ParseInt(v[1], 10, 64)
		}
		switch op {
		case "INSERT":
			history = append(history, change{table, key(after), 'c', ver})
		case "DELETE":
			history = append(history, change{table, key(after), 'd', 0})
		case "UPDATE":
			if both && key(strings.TrimPrefix(old, "old-key: ")) != key(after) {
				history = append(history, change{table, key(strings.TrimPrefix(old, "old-key: ")), 'd', 0}, change{table, key(after), 'c', ver})
			} else {
				history = append(history, change{table, key(after), 'u', ver})
			}
		}
	}
	return history, rows.Err()
}

// readTables takes what the tables hold.
func readTables(ctx context.Context, conn *pgx.Conn) (state, error) {
	s := state{}
	for table, names := range keyNames {
		key := "ver::text"
		if len(names) > 0 {
			key = "concat_ws('/', " + strings.Join(names, ", ") + ")"
		}
		rows, err := conn.Query(ctx, fmt.Sprintf("SELECT %s, ver FROM %s", key, table))
		if err != nil {
			return nil, err
		}
		s[table] = map[string]int64{}
		for rows.Next() {
			var k string
			var ver int64
			if err := rows.Scan(&k, &ver); err != nil {
				return nil, err
			}
			s[table][k] = ver
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
	}
	return s, nil
}
