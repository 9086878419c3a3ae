package integration

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headwaterdb/headwater/integration/servers"
)

// workPostgres is the workload's database postgres.
type workPostgres struct{ db *servers.Postgres }

func (l *workPostgres) url() string { return l.db.URL("postgres") }

func (l *workPostgres) config() (source, include string) {
	return fmt.Sprintf("postgres: {url: %q}", l.url()), "public.*"
}

func (l *workPostgres) create(ctx context.Context) error {
	return l.do(ctx, `
		CREATE TABLE orders (
		  id bigint PRIMARY KEY, ver bigint NOT NULL, item text NOT NULL, amount numeric(12,2) NOT NULL,
		  at timestamptz NOT NULL DEFAULT now(), doc jsonb, big text);
		ALTER TABLE orders ALTER COLUMN big SET STORAGE EXTERNAL;
		CREATE TABLE pairs (a text, ver bigint NOT NULL, b int, item text, amount numeric(12,2), PRIMARY KEY (b, a));
		CREATE TABLE whole (id uuid PRIMARY KEY, ver bigint NOT NULL, item text, amount numeric(12,2));
		ALTER TABLE whole REPLICA IDENTITY FULL;
		CREATE TABLE keyless (ver bigint NOT NULL, item text);`)
}

// do runs statements on a connection of their own.
func (l *workPostgres) do(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, l.url())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql)
	return err
}

type postgresSession struct{ *pgx.Conn }

func (s postgresSession) exec(ctx context.Context, sql string) error {
	_, err := s.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	return err
}

func (s postgresSession) close() { s.Close(context.Background()) }

func (l *workPostgres) open(ctx context.Context, _ int) (session, error) {
	conn, err := pgx.Connect(ctx, l.url())
	return postgresSession{conn}, err
}

func (l *workPostgres) judge(err error) fate {
	var pg *pgconn.PgError
	switch {
	case !errors.As(err, &pg) || strings.HasPrefix(pg.Code, "57P"): // broken; shutdown and start
		return gone
	case pg.Code == "23505" || pg.Code == "40P01" || pg.Code == "55P03": // unique, deadlock, lock
		return refused
	}
	return fatal
}

func (l *workPostgres) upsert(key, set string) string {
	if set == "" {
		return "ON CONFLICT DO NOTHING"
	}
	return fmt.Sprintf("ON CONFLICT (%s) DO UPDATE SET %s", key, set)
}

func (l *workPostgres) began(t *testing.T, p *pipeline) {
	t.Helper()
	conn := connect(t, l.url())
	waitFor(t, p, 4*time.Minute, "a replication slot", func() (bool, error) {
		var n int
		err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_replication_slots WHERE plugin = 'pgoutput' AND active").Scan(&n)
		return n > 0, err
	})
	mustExec(t, conn, "SELECT pg_create_logical_replication_slot('history', 'test_decoding')")
}

func (l *workPostgres) vary(context.Context, int) error { return nil }

func (l *workPostgres) crash(ctx context.Context) error {
	return errors.Join(l.db.Kill(), l.db.Restart(ctx))
}

func (l *workPostgres) caughtUp(t *testing.T, p *pipeline) {
	t.Helper()
	waitForCatchUp(t, connect(t, l.url()), p)
}

var (
	lineOf = regexp.MustCompile(`^table public\.(\w+): (INSERT|UPDATE|DELETE): (.*)$`)
	verOf  = regexp.MustCompile(`\bver\[bigint\]:(\d+)`)
	keyOf  = map[string]*regexp.Regexp{}
)

func init() {
	for _, n := range []string{"id", "a", "b"} {
		keyOf[n] = regexp.MustCompile(`(?:^| )` + n + `\[\w+\]:'?([\w-]+)`)
	}
}

// history takes what the server's own test_decoding plugin says of the log: another
// decoder than the one that headwater reads.
func (l *workPostgres) history(ctx context.Context, _ int64) (history []change, err error) {
	conn, err := pgx.Connect(ctx, l.url())
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, "SELECT data FROM pg_logical_slot_get_changes('history', NULL, NULL, 'skip-empty-xacts', '1')")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ops := map[string]byte{"INSERT": 'c', "UPDATE": 'u', "DELETE": 'd'}
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		m := lineOf.FindStringSubmatch(line)
		if m == nil {
			continue // BEGIN, COMMIT
		}
		table, data := m[1], m[3]
		key := func(s string) string {
			var parts []string
			for _, n := range keyNames[table] {
				if k := keyOf[n].FindStringSubmatch(s); k != nil {
					parts = append(parts, k[1])
				}
			}
			return strings.Join(parts, "/")
		}
		before, after, both := strings.Cut(data, " new-tuple: ")
		if !both {
			before, after = data, data
		}
		var ver int64
		if v := verOf.FindStringSubmatch(after); v != nil {
			ver, _ = strconv.ParseInt(v[1], 10, 64)
		}
		history = append(history, rowChange(table, ops[m[2]], key(strings.TrimPrefix(before, "old-key: ")), key(after), ver)...)
	}
	return history, rows.Err()
}

func (l *workPostgres) held(ctx context.Context, table string, key []string) (map[string]int64, error) {
	conn, err := pgx.Connect(ctx, l.url())
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if len(key) == 0 {
		key = []string{"ver"}
	}
	rows, err := conn.Query(ctx, fmt.Sprintf("SELECT concat_ws('/', %s), ver FROM %s", strings.Join(key, ", "), table))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	held := map[string]int64{}
	for rows.Next() {
		var k string
		var ver int64
		if err := rows.Scan(&k, &ver); err != nil {
			return nil, err
		}
		held[k] = ver
	}
	return held, rows.Err()
}
