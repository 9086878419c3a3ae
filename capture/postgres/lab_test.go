package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/integration/servers"
)

// versions are those that headwater reads.
var versions = []string{"13", "14", "15", "16", "17", "18"}

// A lab is a database of its own.
type lab struct {
	t   *testing.T
	url string
	db  *pgx.Conn
}

func newLab(t *testing.T, version string) *lab {
	t.Helper()
	return labAt(t, servers.Shared(t).Postgres(version).Database(t))
}

func labAt(t *testing.T, url string) *lab {
	t.Helper()
	l := &lab{t: t, url: url}
	l.db = l.connect()
	return l
}

// connect opens one more session, which ends with the test.
func (l *lab) connect() *pgx.Conn {
	l.t.Helper()
	cfg, err := pgx.ParseConfig(l.url)
	if err != nil {
		l.t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	db, err := pgx.ConnectConfig(l.t.Context(), cfg)
	if err != nil {
		l.t.Fatalf("connect to %s: %v", l.url, err)
	}
	l.t.Cleanup(func() { _ = db.Close(context.Background()) })
	return db
}

// exec runs statements, each in a transaction of its own.
func (l *lab) exec(sql ...string) {
	l.t.Helper()
	for _, s := range sql {
		if _, err := l.db.Exec(l.t.Context(), s); err != nil {
			l.t.Fatalf("%s: %v", s, err)
		}
	}
}

// tx runs statements in one transaction.
func (l *lab) tx(sql ...string) {
	l.t.Helper()
	l.exec("BEGIN; " + strings.Join(sql, "; ") + "; COMMIT")
}

func (l *lab) ask(sql string) string {
	l.t.Helper()
	var out *string
	if err := l.db.QueryRow(l.t.Context(), sql).Scan(&out); err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
	if out == nil {
		return ""
	}
	return *out
}

// head is the end of what the server can send by now.
func (l *lab) head() LSN {
	l.t.Helper()
	lsn, err := pglogrepl.ParseLSN(l.ask("SELECT pg_current_wal_insert_lsn()::text"))
	if err != nil {
		l.t.Fatal(err)
	}
	return pageSizes{8192, 16 << 20}.withoutHeader(lsn)
}

// idle waits until nobody reads the slot: the server's process for it ends a moment after
// its Stream.
func (l *lab) idle() {
	l.t.Helper()
	l.until(`SELECT count(*) = 0 FROM pg_replication_slots WHERE database = current_database() AND active`)
}

func (l *lab) source(change ...func(*Config)) *Source {
	l.t.Helper()
	cfg := Config{URL: l.url, HeartbeatInterval: 100 * time.Millisecond, StatusInterval: 100 * time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	cfg.SetDefaults()
	if err := cfg.Validate(); err != nil {
		l.t.Fatal(err)
	}
	s := New(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	l.t.Cleanup(func() { _ = s.Close() })
	return s
}

// A piece is what one batch said.
type piece struct {
	end     capture.Position
	inTx    *capture.InTx
	lines   []string
	places  []string // of the lines: commit and ordinal
	entries map[string][]byte
}

// A tape is a run of Stream.
type tape struct {
	pieces []piece
	err    error
}

func (t *tape) lines() []string {
	var out []string
	for _, p := range t.pieces {
		out = append(out, p.lines...)
	}
	return out
}

// places are those of the lines.
func (t *tape) places() []string {
	var out []string
	for _, p := range t.pieces {
		out = append(out, p.places...)
	}
	return out
}

// resume is where to go on after piece i, with the entries that were current there.
func (t *tape) resume(i int) capture.Resume {
	r := capture.Resume{At: t.pieces[i].end, InTx: t.pieces[i].inTx, Entries: map[string][]byte{}}
	for _, p := range t.pieces[:i+1] {
		for k, v := range p.entries {
			if r.Entries[k] = v; v == nil {
				delete(r.Entries, k)
			}
		}
	}
	return r
}

func (t *tape) last() capture.Resume { return t.resume(len(t.pieces) - 1) }

var errEnough = errors.New("enough")

// record runs Stream until everything up to upTo was emitted.
func (l *lab) record(s *Source, r capture.Resume, upTo LSN) *tape {
	l.t.Helper()
	tp := &tape{}
	tp.err = l.follow(s, r, func(p piece) error {
		tp.pieces = append(tp.pieces, p)
		at, err := parsePosition(p.end)
		if err != nil {
			return err
		}
		if at.End >= upTo && p.inTx == nil {
			return errEnough
		}
		return nil
	})
	if !errors.Is(tp.err, errEnough) {
		l.t.Fatalf("the stream ended: %v", tp.err)
	}
	return tp
}

// follow runs Stream and hands each batch to f as a piece.
func (l *lab) follow(s *Source, r capture.Resume, f func(piece) error) error {
	l.t.Helper()
	return l.batches(s, r, func(b *capture.Batch) error { return f(pieceOf(b)) })
}

// batches runs Stream and releases each batch after f.
func (l *lab) batches(s *Source, r capture.Resume, f func(*capture.Batch) error) error {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 2*time.Minute)
	defer cancel()
	return s.Stream(ctx, r, func(b *capture.Batch) error {
		defer b.Release()
		return f(b)
	})
}

func pieceOf(b *capture.Batch) piece {
	p := piece{end: b.End, inTx: b.InTx, entries: map[string][]byte{}}
	for i := range b.Events {
		ev := &b.Events[i]
		for _, e := range ev.Entries {
			p.entries[e.Key] = e.Value
		}
		if line := textOf(ev); line != "" {
			p.lines = append(p.lines, line)
			place := ""
			if ev.Tx != nil {
				place = fmt.Sprintf("%s/%d", ev.Tx.Commit, ev.Ordinal)
			}
			p.places = append(p.places, place)
		}
	}
	return p
}

// textOf prints an event; a heartbeat is "".
func textOf(ev *capture.Event) string {
	switch {
	case ev.Kind == capture.Watermark:
		return fmt.Sprintf("watermark %d", ev.Mark)
	case ev.Kind == capture.Commit && ev.Tx == nil:
		return ""
	case ev.Kind == capture.Commit:
		return "commit"
	}
	var b strings.Builder
	b.WriteString(ev.Op.String())
	if ev.Op != capture.Message {
		b.WriteString(" " + ev.Table.ID.String())
	}
	if ev.Before != nil {
		b.WriteString(" before" + rowText(ev.Table, ev.Before))
	}
	if ev.After != nil {
		b.WriteString(rowText(ev.Table, ev.After))
	}
	return b.String()
}

func rowText(t *capture.Table, row capture.Row) string {
	var b strings.Builder
	for i := range row {
		name := ""
		if t != nil && i < len(t.Columns) {
			name = t.Columns[i].Name + "="
		}
		v := row[i].String()
		if len(v) > 40 {
			v = fmt.Sprintf("%s…(%d)", v[:20], len(v))
		}
		b.WriteString(" " + name + v)
	}
	return b.String()
}
