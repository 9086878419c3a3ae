package mysql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/integration/servers"
)

// kinds are the servers that tests run against.
var kinds = []string{"MySQL 8.0", "MySQL 9", "MariaDB 10.11", "MariaDB 11"}

// eachKind runs a test against every server, at the same time.
func eachKind(t *testing.T, run func(t *testing.T, kind string)) {
	someKinds(t, run, kinds...)
}

func someKinds(t *testing.T, run func(t *testing.T, kind string), kinds ...string) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(strings.ReplaceAll(kind, " ", ""), func(t *testing.T) {
			t.Parallel()
			run(t, kind)
		})
	}
}

// server starts a server of a kind.
func serverOf(t *testing.T, f servers.For, kind string) *servers.MySQL {
	t.Helper()
	name, version, _ := strings.Cut(kind, " ")
	if name == "MariaDB" {
		return f.MariaDB(version)
	}
	return f.MySQL(version)
}

// A lab is a database of its own.
type lab struct {
	t      *testing.T
	server *servers.MySQL
	name   string // of the database
	db     *client.Conn
}

// newLab is a database in a server that tests share.
func newLab(t *testing.T, kind string) *lab {
	t.Helper()
	return labIn(t, serverOf(t, servers.Shared(t), kind))
}

func labIn(t *testing.T, server *servers.MySQL) *lab {
	t.Helper()
	l := &lab{t: t, server: server}
	l.name = server.Database(t)
	l.db = l.connect()
	return l
}

// connect opens one more session, which ends with the test.
func (l *lab) connect() *client.Conn {
	l.t.Helper()
	db, err := l.server.Connect(l.t.Context(), l.name)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = db.Close() })
	return db
}

// exec runs statements, each in a transaction of its own.
func (l *lab) exec(sql ...string) {
	l.t.Helper()
	for _, s := range sql {
		if _, err := l.db.Execute(s); err != nil {
			l.t.Fatalf("%s: %v", s, err)
		}
	}
}

// tx runs statements in one transaction.
func (l *lab) tx(sql ...string) {
	l.t.Helper()
	l.exec("BEGIN")
	l.exec(sql...)
	l.exec("COMMIT")
}

func (l *lab) ask(sql string) string {
	l.t.Helper()
	r, err := l.db.Execute(sql)
	if err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
	text, err := r.GetString(0, 0)
	if err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// config is one that captures the database.
func (l *lab) config(change ...func(*Config)) Config {
	l.t.Helper()
	cfg := Config{
		URL: l.server.URL(""), Pipeline: l.name, HeartbeatInterval: 100 * time.Millisecond,
		Tables: capture.Tables{Include: []string{l.name + ".*"}, Exclude: []string{l.name + ".hidden"}},
	}
	for _, c := range change {
		c(&cfg)
	}
	cfg.SetDefaults()
	if err := cfg.Validate(); err != nil {
		l.t.Fatal(err)
	}
	return cfg
}

func (l *lab) source(change ...func(*Config)) *Source {
	l.t.Helper()
	s := New(l.config(change...), slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	s.patience = 500 * time.Millisecond
	l.t.Cleanup(func() { _ = s.Close() })
	return s
}

// small makes batches that end inside of transactions.
func small(c *Config) { c.BatchBytes = 4 << 10 }

// A piece is what one batch said.
type piece struct {
	end     capture.Position
	inTx    *capture.InTx
	lines   []string
	names   []string // of the change of each line for good, "" of a commit
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

func (t *tape) names() []string {
	var out []string
	for _, p := range t.pieces {
		out = append(out, p.names...)
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

// start is where a stream begins now.
func (l *lab) start() capture.Resume {
	l.t.Helper()
	tp := &tape{}
	err := l.follow(l.source(), capture.Resume{}, func(p piece) error {
		tp.pieces = append(tp.pieces, p)
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		l.t.Fatalf("the stream ended: %v", err)
	}
	return tp.last()
}

// record runs Stream from r until the last row of the mark table has come, which it
// writes. The tape has the changes alone.
func (l *lab) record(s *Source, r capture.Resume) *tape {
	l.t.Helper()
	l.exec("CREATE TABLE IF NOT EXISTS mark (id int PRIMARY KEY AUTO_INCREMENT)", "INSERT INTO mark VALUES ()")
	last := "insert mark id=int:" + l.ask("SELECT MAX(id) FROM mark")
	tp := &tape{}
	seen := false
	tp.err = l.follow(s, r, func(p piece) error {
		var lines, names []string
		for i, line := range p.lines {
			seen = seen || line == last
			if line != "commit" && !strings.HasPrefix(line, "insert mark ") {
				lines, names = append(lines, line), append(names, p.names[i])
			}
		}
		p.lines, p.names = lines, names
		tp.pieces = append(tp.pieces, p)
		if seen && p.inTx == nil {
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
	ctx, cancel := context.WithTimeout(l.t.Context(), 3*time.Minute)
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
			name := ""
			if ev.Kind == capture.Change {
				name = fmt.Sprintf("%s/%d", ev.Tx.ID, ev.Ordinal)
			}
			p.names = append(p.names, name)
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
	b.WriteString(ev.Op.String() + " " + ev.Table.ID.Name)
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
		v := row[i].String()
		if len(v) > 40 {
			v = fmt.Sprintf("%s…(%d)", v[:20], len(v))
		}
		b.WriteString(" " + t.Columns[i].Name + "=" + v)
	}
	return b.String()
}
