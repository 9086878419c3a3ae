package mysql

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/integration/servers"
)

// A typeServer is one of the servers that values are compared on.
type typeServer struct {
	name string
	open func(servers.For) *servers.MySQL
}

var typeServers = []typeServer{
	{"mysql-8.0", func(f servers.For) *servers.MySQL { return f.MySQL("8.0") }},
	{"mysql-9", func(f servers.For) *servers.MySQL { return f.MySQL("9") }},
	{"mariadb-10.11", func(f servers.For) *servers.MySQL { return f.MariaDB("10.11") }},
	{"mariadb-11", func(f servers.For) *servers.MySQL { return f.MariaDB("11") }},
}

// forEachServer runs a test against every server.
func forEachServer(t *testing.T, test func(t *testing.T, l *typeLab)) {
	t.Helper()
	forServers(t, typeServers, test)
}

// forMySQL and forMariaDB run one against the servers of one kind.
func forMySQL(t *testing.T, test func(t *testing.T, l *typeLab)) {
	t.Helper()
	forServers(t, typeServers[:2], test)
}

func forMariaDB(t *testing.T, test func(t *testing.T, l *typeLab)) {
	t.Helper()
	forServers(t, typeServers[2:], test)
}

// forNewServers runs one against the newest of each kind: what costs time and has not
// changed for long.
func forNewServers(t *testing.T, test func(t *testing.T, l *typeLab)) {
	t.Helper()
	forServers(t, []typeServer{typeServers[1], typeServers[3]}, test)
}

func forServers(t *testing.T, list []typeServer, test func(t *testing.T, l *typeLab)) {
	t.Helper()
	for _, s := range list {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			test(t, newTypeLab(t, s.open(servers.Shared(t))))
		})
	}
}

// A typeLab is a database of its own on a real server, and the events that it writes.
type typeLab struct {
	t       testing.TB
	server  *servers.MySQL
	db      string
	conn    *client.Conn
	mariadb bool

	catalog *conn // of facts, which opens it
	srv     *server

	compressed [][]byte // the compressed transactions that log has met, as they were sent
}

func newTypeLab(t testing.TB, m *servers.MySQL) *typeLab {
	t.Helper()
	l := &typeLab{t: t, server: m, db: m.Database(t), mariadb: m.Flavor == mysql.MariaDBFlavor}
	conn, err := m.Connect(t.Context(), l.db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	l.conn = conn
	l.exec("SET NAMES utf8mb4")
	l.exec("SET sql_mode = '', time_zone = '+00:00'")
	return l
}

func (l *typeLab) exec(sql string, args ...any) {
	l.t.Helper()
	if _, err := l.conn.Execute(sql, args...); err != nil {
		l.t.Fatalf("%.300s: %v", sql, err)
	}
}

// packets returns the rows of a query as the server sent them.
func (l *typeLab) packets(sql string) [][]byte {
	l.t.Helper()
	r, err := l.conn.Execute(sql)
	if err != nil {
		l.t.Fatalf("%.300s: %v", sql, err)
	}
	var out [][]byte
	for _, p := range r.RowDatas {
		out = append(out, bytes.Clone(p))
	}
	return out
}

// cells returns the values of a query as text; nil is NULL.
func (l *typeLab) cells(sql string) [][]*string {
	l.t.Helper()
	var out [][]*string
	for _, p := range l.packets(sql) {
		c := cursor{rest: p}
		var row []*string
		for len(c.rest) > 0 {
			if c.rest[0] == 0xfb {
				c.rest = c.rest[1:]
				row = append(row, nil)
				continue
			}
			s := string(c.sized())
			row = append(row, &s)
		}
		out = append(out, row)
	}
	return out
}

// facts asks the catalog about a table.
func (l *typeLab) facts(table string) *tableFacts {
	l.t.Helper()
	if l.catalog == nil {
		cfg := Config{URL: l.server.URL("")}
		cfg.SetDefaults()
		s := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		c, err := s.connect(l.t.Context())
		if err != nil {
			l.t.Fatal(err)
		}
		l.t.Cleanup(c.close)
		if l.srv, err = s.identify(l.t.Context(), c); err != nil {
			l.t.Fatal(err)
		}
		// As in the sessions of views.
		if err := c.exec(l.t.Context(), "SET character_set_results = NULL"); err != nil {
			l.t.Fatal(err)
		}
		l.catalog = c
	}
	f, err := readFacts(l.t.Context(), l.catalog, l.srv, capture.TableID{Schema: l.db, Name: table})
	if err != nil {
		l.t.Fatal(err)
	}
	if f == nil {
		l.t.Fatalf("there is no table %s", table)
	}
	return f
}

// A loggedEvent is an event of the log without its checksum.
type loggedEvent struct {
	typ  replication.EventType
	body []byte
}

// log runs f and returns the table maps and rows that it wrote to the log, those in
// compressed transactions included.
func (l *typeLab) log(f func()) []loggedEvent {
	l.t.Helper()
	from := l.end()
	f()
	to := l.end()
	user, password := l.server.User()
	host, port, _ := strings.Cut(l.server.Addr(), ":")
	var portNumber uint16
	if _, err := fmt.Sscan(port, &portNumber); err != nil {
		l.t.Fatal(err)
	}
	syncer := replication.NewBinlogSyncer(replication.BinlogSyncerConfig{
		ServerID: uint32(time.Now().UnixNano()&0x3fffffff) + 1<<20, Flavor: l.server.Flavor, Host: host, Port: portNumber, User: user, Password: password,
		RawModeEnabled: true, DisableRetrySync: true, Logger: slog.New(slog.DiscardHandler),
	})
	defer syncer.Close()
	stream, err := syncer.StartSync(from)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), 2*time.Minute)
	defer cancel()
	var out []loggedEvent
	file := from.Name
	var payloads payloadReader
	defer payloads.Close()
	mine := make(map[uint64]bool) // tables of this database: others write, too
	keep := func(typ replication.EventType, body []byte) {
		body = bytes.Clone(body)
		if typ == replication.TABLE_MAP_EVENT {
			m, err := parseTableMap(body, l.mariadb)
			if err != nil {
				l.t.Fatal(err)
			}
			mine[m.id] = m.table.Schema == l.db
		}
		if (typ == replication.TABLE_MAP_EVENT || isRows(typ)) && mine[tableMapID(body)] {
			out = append(out, loggedEvent{typ, body})
		}
	}
	pos := from.Pos
	for file != to.Name || pos < to.Pos {
		ev, err := stream.GetEvent(ctx)
		if err != nil {
			l.t.Fatalf("read the log: %v", err)
		}
		h := ev.Header
		if e, ok := ev.Event.(*replication.RotateEvent); ok {
			file, pos = string(e.NextLogName), uint32(e.Position)
			continue
		}
		if h.Flags&replication.LOG_EVENT_ARTIFICIAL_F == 0 && h.LogPos != 0 {
			pos = h.LogPos
		}
		e, ok := ev.Event.(*replication.GenericEvent)
		if !ok {
			continue
		}
		if h.EventType != replication.TRANSACTION_PAYLOAD_EVENT {
			keep(h.EventType, e.Data)
			continue
		}
		l.compressed = append(l.compressed, bytes.Clone(e.Data))
		if err := payloads.reset(e.Data); err != nil {
			l.t.Fatal(err)
		}
		for {
			inner, err := payloads.next()
			if err == io.EOF {
				break
			}
			if err != nil {
				l.t.Fatal(err)
			}
			keep(replication.EventType(inner[4]), inner[replication.EventHeaderSize:])
		}
	}
	return out
}

// end is where the log ends.
func (l *typeLab) end() mysql.Position {
	l.t.Helper()
	r, err := l.conn.Execute("SHOW MASTER STATUS")
	if err != nil {
		if r, err = l.conn.Execute("SHOW BINARY LOG STATUS"); err != nil {
			l.t.Fatal(err)
		}
	}
	name, _ := r.GetString(0, 0)
	pos, _ := r.GetUint(0, 1)
	return mysql.Position{Name: name, Pos: uint32(pos)}
}

// A loggedRow is a row of the log, decoded.
type loggedRow struct {
	plan          *plan
	op            capture.Op
	before, after capture.Row
}

// decodeLog decodes events. facts is asked once for each table; it may be nil.
func decodeLog(events []loggedEvent, mariadb bool, b *capture.Batch, facts func(capture.TableID) *tableFacts) ([]loggedRow, error) {
	maps := make(map[uint64]*tableMap)
	plans := make(map[*tableMap]*plan)
	var r rowReader
	var out []loggedRow
	for _, ev := range events {
		if ev.typ == replication.TABLE_MAP_EVENT {
			if m := maps[tableMapID(ev.body)]; m != nil && m.says(ev.body) {
				continue
			}
			m, err := parseTableMap(ev.body, mariadb)
			if err != nil {
				return out, err
			}
			maps[m.id] = m
			continue
		}
		e, err := parseRows(ev.typ, ev.body)
		if err != nil {
			return out, err
		}
		m := maps[e.table]
		if m == nil {
			return out, fmt.Errorf("rows of the table %d, which has no map", e.table)
		}
		p := plans[m]
		if p == nil {
			var f *tableFacts
			if facts != nil {
				f = facts(m.table)
			}
			if p, err = newPlan(nil, m, f); err != nil {
				return out, err
			}
			plans[m] = p
		}
		r.reset(p, b, &e)
		for r.next() {
			out = append(out, loggedRow{p, e.op, r.before, r.after})
		}
		if r.err != nil {
			return out, r.err
		}
	}
	return out, nil
}

// header makes the 19 bytes in front of an event.
func eventHeader(typ replication.EventType, size int) []byte {
	h := make([]byte, replication.EventHeaderSize)
	h[4] = byte(typ)
	binary.LittleEndian.PutUint32(h[9:], uint32(size+replication.EventHeaderSize))
	return h
}
