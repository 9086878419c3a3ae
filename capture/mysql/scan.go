package mysql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/snapshot"
)

// A Scanner reads the rows that the captured tables hold, next to its source's Stream.
type Scanner struct {
	src *Source

	mu sync.Mutex // guards what follows
	// idle are sessions that views gave back: at most maxIdle.
	idle []*conn
	// last is how the last chunk was read.
	last lastChunk
}

// A lastChunk is what the next chunk of the table goes by until it knows better.
type lastChunk struct {
	id      capture.TableID
	table   *scanTable
	largest int // bytes of its largest row
}

// lastOf returns nothing when the last chunk was of another table.
func (s *Scanner) lastOf(id capture.TableID) lastChunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last.id != id {
		return lastChunk{}
	}
	return s.last
}

func (s *Scanner) note(last lastChunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = last
}

var _ snapshot.Scanner = (*Scanner)(nil)

// Scanner returns the source's scanner. It must be called before Stream.
func (s *Source) Scanner() *Scanner {
	if s.scanner == nil {
		s.scan, s.scanner = newScanState(), &Scanner{src: s}
	}
	return s.scanner
}

// Begin does nothing: what views need to know is in every position.
func (s *Scanner) Begin() {}

// Finish closes the scanner's sessions.
func (s *Scanner) Finish() { s.close() }

func (s *Scanner) close() {
	for c := s.take(); c != nil; c = s.take() {
		c.close()
	}
}

// take takes an idle session, if there is one.
func (s *Scanner) take() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) == 0 {
		return nil
	}
	c := s.idle[len(s.idle)-1]
	s.idle = s.idle[:len(s.idle)-1]
	return c
}

// connect returns an ordinary session with srv, the server that the log comes from.
func (s *Scanner) connect(ctx context.Context, srv *server) (*conn, error) {
	for c := s.take(); c != nil; c = s.take() {
		if c.with == srv.identity() && c.exec(ctx, "ROLLBACK") == nil {
			return c, nil
		}
		c.close()
	}
	c, err := s.src.connectTo(ctx, srv)
	if err != nil {
		return nil, err
	}
	for _, sql := range []string{
		"SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
		"SET character_set_results = NULL", // see text.go
		sortWhole,
	} {
		if err := c.exec(ctx, sql); err != nil {
			c.close()
			return nil, fmt.Errorf("prepare a session for reading tables: %w", err)
		}
	}
	return c, nil
}

// sortWhole lets a server that sorts rows compare keys to their end, and not only the first
// 1024 bytes of the weights of each column: an index has at most 3072 bytes, and no collation
// more than 40 bytes of weights for each of them. A sort wants room for 15 keys.
const sortWhole = "SET max_sort_length = 131072, sort_buffer_size = 4194304"

// maxIdle is as many sessions as two views have.
const maxIdle = 4

// release keeps a session for the next view.
func (s *Scanner) release(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) >= maxIdle {
		c.close()
		return
	}
	s.idle = append(s.idle, c)
}

// Tables lists the captured tables once Stream has found its place.
func (s *Scanner) Tables(ctx context.Context) ([]snapshot.Target, error) {
	if err := s.src.scan.gate.Connected(ctx); err != nil {
		return nil, err
	}
	srv, _ := s.src.scan.present()
	c, err := s.connect(ctx, srv)
	if err != nil {
		return nil, err
	}
	defer s.release(c)
	tables, err := s.src.readTables(ctx, c)
	if err != nil {
		return nil, err
	}
	var out []snapshot.Target
	for _, t := range tables {
		f := newFacts(srv, t.ID)
		target := snapshot.Target{ID: t.ID, Rows: t.Rows}
		if err := f.readKeys(ctx, c); err != nil {
			var my *mysql.MyError
			if errors.As(err, &my) && my.Code == mysql.ER_NO_SUCH_TABLE {
				continue // dropped meanwhile
			}
			return nil, fmt.Errorf("read the keys of %s: %w", t.ID, explain(err))
		}
		// Values of any length are not compared to their end when they are sorted. Nor must
		// values be unique whose beginnings are: "ßx" and "ssx" are equal in many collations, and
		// "ß" and "s" are not.
		if !f.unordered {
			target.Key = f.rowKey
		}
		// A table that was dropped and made again is not another one: all of its rows are in
		// the log, and the server numbers tables anew with every ALTER.
		out = append(out, target)
	}
	return out, nil
}

// A view is one transaction that reads one table.
type view struct {
	scanner *Scanner
	target  snapshot.Target
	// conn reads the rows, and may be in the middle of an answer; side asks the rest.
	conn, side *conn
	srv        *server
	// What the view holds: a set, or all that begins before a place.
	set    mysql.GTIDSet
	before uint64
	opened int64 // microseconds since the Unix epoch, by the server's clock

	table *scanTable
	// guessed says that table was not compared with the catalog yet.
	guessed bool
	// rows is the answer of a keyless table, which goes on from chunk to chunk, or one that
	// was given up.
	rows *resultRows
	key  [][]byte // of the last row
}

// viewWait is the pause before a view that lacked a transaction is opened again.
const (
	viewWaitMin = 2 * time.Millisecond
	viewWaitMax = 200 * time.Millisecond
	viewWarn    = 5 * time.Second
)

// View opens a view of t that holds every transaction emitted before the call.
func (s *Scanner) View(ctx context.Context, t snapshot.Target) (snapshot.View, error) {
	if err := s.src.scan.gate.OpenForViews(ctx); err != nil {
		return nil, err
	}
	srv, need := s.src.scan.present()
	v := &view{scanner: s, target: t, srv: srv}
	var err error
	if v.conn, err = s.connect(ctx, srv); err != nil {
		return nil, err
	}
	if v.side, err = s.connect(ctx, srv); err == nil {
		err = v.open(ctx, &need)
	}
	if err != nil {
		v.discard()
		return nil, fmt.Errorf("open a consistent read of %s: %w", t.ID, err)
	}
	return v, nil
}

// discard ends both sessions.
func (v *view) discard() {
	for _, c := range []*conn{v.conn, v.side} {
		if c != nil {
			c.close()
		}
	}
	v.conn, v.side = nil, nil
}

// open opens the transaction again until it holds what is needed.
func (v *view) open(ctx context.Context, need *demand) error {
	began, warned := time.Now(), false
	for wait := viewWaitMin; ; wait = min(2*wait, viewWaitMax) {
		missing, err := v.begin(ctx, need)
		if err != nil {
			return explain(err)
		}
		if missing == "" {
			return nil
		}
		if err := v.conn.exec(ctx, "ROLLBACK"); err != nil {
			return err
		}
		if !warned && time.Since(began) > viewWarn {
			warned = true
			v.scanner.src.log.Warn("reading a table waits for transactions that are logged and not visible yet, such as those that wait for a semi-synchronous replica",
				"table", v.target.ID.String(), "missing", missing)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to become visible: %w", missing, context.Cause(ctx))
		}
	}
}

const beginView = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"

// begin begins the transaction, and says what it lacks.
func (v *view) begin(ctx context.Context, need *demand) (missing string, err error) {
	switch {
	case v.srv.flavour == mariaDB:
		missing, err = v.beginMaria(ctx, need)
	case need.byGTID:
		missing, err = v.beginSet(ctx, need)
	default:
		missing, err = v.beginLocked(ctx, need)
	}
	if err != nil || missing != "" {
		return missing, err
	}
	// The first look at the table fails if it was altered or emptied after the view began.
	row, err := v.conn.queryRow(ctx, "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED), (SELECT COUNT(*) FROM (SELECT 1 FROM "+quoteTable(v.target.ID)+" LIMIT 1) t)")
	var my *mysql.MyError
	switch {
	case errors.As(err, &my) && my.Code == errTableChanged:
		return "a change of the table's definition", nil
	case err != nil:
		return "", err
	}
	v.opened, err = strconv.ParseInt(row[0], 10, 64)
	return "", err
}

// beginSet is for MySQL with GTIDs. One enters the set of executed ones after the
// engine has committed, so a view that begins after the set was read holds all of it.
func (v *view) beginSet(ctx context.Context, need *demand) (string, error) {
	want, err := need.set()
	if err != nil {
		return "", err
	}
	if v.set, err = v.srv.executed(ctx, v.conn); err != nil {
		return "", err
	}
	if !v.set.Contain(want) {
		return "the transactions of " + want.String() + " that " + v.set.String() + " lacks", nil
	}
	if err := v.conn.exec(ctx, beginView); err != nil {
		return "", err
	}
	if len(v.target.Key) > 0 {
		return "", nil
	}
	// A table without a key needs to know exactly which transactions the view holds, and
	// some may be visible that are not in the set yet. They are logged by now.
	end, err := v.srv.end(ctx, v.side)
	if err != nil {
		return "", err
	}
	return v.logHolds(ctx, v.set, end)
}

// logHolds returns "" if the log holds nothing outside of the set before a place.
func (v *view) logHolds(ctx context.Context, set mysql.GTIDSet, end place) (string, error) {
	d := dumpRequest{flavour: mySQL, gtids: set}
	found := ""
	var at place
	err := v.scanner.src.peek(ctx, v.srv, &d, func(h *header, body []byte) bool {
		switch h.typ {
		case replication.ROTATE_EVENT:
			r := cursor{rest: body}
			at.Pos, at.File = r.uint64(), string(r.rest)
		case replication.GTID_EVENT, replication.GTID_TAGGED_LOG_EVENT, replication.ANONYMOUS_GTID_EVENT:
			at.Pos = forward(at.Pos, h.size, h.position)
			if at.number()-uint64(h.size) < end.number() {
				found = "a moment in which nothing is being committed"
			}
			return true
		}
		return false
	})
	return found, err
}

// beginMaria is for MariaDB, which tells the place in the log that belongs to a view. The
// commits of XA transactions alone it counts before they are visible: they are as soon as
// XA RECOVER does not list them any more.
func (v *view) beginMaria(ctx context.Context, need *demand) (string, error) {
	end, err := v.srv.end(ctx, v.side)
	if err != nil {
		return "", err
	}
	listed, err := recoverXA(ctx, v.side)
	if err != nil {
		return "", err
	}
	if err := v.conn.exec(ctx, beginView); err != nil {
		return "", err
	}
	rows, err := v.conn.query(ctx, "SHOW STATUS WHERE Variable_name IN ('binlog_snapshot_file', 'binlog_snapshot_position')")
	if err != nil {
		return "", err
	}
	var at place
	for _, r := range rows {
		if strings.EqualFold(r[0], "binlog_snapshot_file") {
			at.File = r[1]
		} else if at.Pos, err = parseUint(r[1]); err != nil {
			return "", fmt.Errorf("ask for the place of the view: %w", err)
		}
	}
	if at.File == "" {
		return "", fmt.Errorf("%w: the server does not tell the place in the log that a consistent read belongs to; remedy: restart it with log_bin", capture.ErrMisconfigured)
	}
	v.before = min(at.number(), end.number())
	if missing := v.lacks(need); missing != "" {
		return missing, nil
	}
	exact := len(v.target.Key) == 0
	if len(listed) == 0 && (!exact || at == end) {
		return "", nil
	}
	return v.holdsXA(ctx, listed, at, end, exact)
}

// holdsXA completes a view that MariaDB says to be one of a place. listed were its prepared XA
// transactions, once its log had reached end: what commits before that, and is not among them, is
// visible. Of those listed the log has to say that they were not committed before. exact wants
// the view to hold what begins before its place, and nothing else.
func (v *view) holdsXA(ctx context.Context, listed []string, at, end place, exact bool) (missing string, err error) {
	s := v.scanner.src
	first, last := at, end
	if at.number() > end.number() {
		first, last = end, at
	}
	var x *xaState
	if len(listed) > 0 {
		if x, err = s.scan.xa(v.srv); err != nil {
			return "", err
		}
		if x == nil {
			return "the XA transactions that the server has prepared (XA RECOVER lists them), or the first one of the log that nobody has read yet", nil
		}
	} else {
		x = &xaState{at: first, prepared: make(map[string]bool)}
	}
	upTo := func(p place) string {
		reached, e := x.readOn(ctx, s, v.srv, p)
		if err = e; err == nil && !reached {
			return "the end of the log, which is not written yet"
		}
		return ""
	}
	if missing := upTo(end); err != nil || missing != "" {
		return missing, err
	}
	for _, xid := range listed {
		if !x.prepared[xid] {
			return "the XA transaction " + xid + ", unless it is prepared and the log does not say so", nil
		}
	}
	if !exact {
		return "", nil
	}
	if missing := upTo(last); err != nil || missing != "" {
		return missing, err
	}
	for _, begin := range x.commits {
		if n := begin.number(); n >= first.number() && n < last.number() {
			return "a moment in which no XA transaction is being committed", nil
		}
	}
	v.before = at.number()
	return "", nil
}

// lacks compares places.
func (v *view) lacks(need *demand) string {
	if v.before < need.at || need.partial != "" && v.before <= need.partialBegin {
		return "the transactions of the log up to the place that was emitted"
	}
	return ""
}

// beginLocked is for MySQL without GTIDs, where nothing tells what a view holds. With the
// table locked, nothing that changes it can be between the log and the engine.
func (v *view) beginLocked(ctx context.Context, need *demand) (missing string, err error) {
	if v.scanner.src.cfg.SnapshotLock != LockAllow {
		return "", fmt.Errorf("%w: without GTIDs (gtid_mode is %s) nothing tells which transactions a read of the table holds, unless the table is locked against writes for a moment; "+
			"remedy: SET GLOBAL gtid_mode = ON, or snapshot_lock: allow with GRANT LOCK TABLES", capture.ErrMisconfigured, v.srv.vars["gtid_mode"])
	}
	if err := v.side.exec(ctx, "LOCK TABLES "+quoteTable(v.target.ID)+" READ"); err != nil {
		return "", err
	}
	defer func() {
		if e := v.side.exec(ctx, "UNLOCK TABLES"); err == nil {
			err = e
		}
	}()
	if err := v.conn.exec(ctx, beginView); err != nil {
		return "", err
	}
	end, err := v.srv.end(ctx, v.side)
	if err != nil {
		return "", err
	}
	v.before = end.number()
	return v.lacks(need), nil
}

// Holds says whether the view contains the transaction.
func (v *view) Holds(tx *capture.Tx) bool {
	if v.set == nil {
		return tx.Num < v.before
	}
	g, ok := parseGTID([]byte(tx.ID))
	return ok && hasGTID(v.set, &g)
}

// Mark sets the high mark (rule R26 of publish/DESIGN.md): the end of the log, behind
// which no commit can be that the view holds.
func (v *view) Mark(ctx context.Context, id uint64) error {
	end, err := v.srv.end(ctx, v.side)
	if err != nil {
		return fmt.Errorf("mark the end of the log: %w", err)
	}
	return v.scanner.src.scan.addMark(id, v.srv, end)
}

// Close ends the transaction.
func (v *view) Close() error {
	if v.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if v.rows != nil && !v.rows.done {
		// The rest of the answer is not worth reading.
		v.conn.close()
		v.conn = nil
	} else if err := v.conn.exec(ctx, "ROLLBACK"); err != nil {
		v.discard()
		return fmt.Errorf("end the consistent read of %s: %w", v.target.ID, err)
	}
	for _, c := range []*conn{v.conn, v.side} {
		if c != nil {
			v.scanner.release(c)
		}
	}
	v.conn, v.side = nil, nil
	return nil
}

// A scanTable is how a view reads its table.
type scanTable struct {
	facts *tableFacts
	plan  *plan
	text  textReader
	from  string // SELECT … FROM …
	key   []keyColumn
}

const (
	// fetchFirst is the rows of the first query of a table.
	fetchFirst = 16
	// chunkRows bounds the rows of a chunk, so that narrow ones do not take many times the
	// memory that their bytes say.
	chunkRows = 1<<14 - 1
	// restMax bounds the bytes of rows that are read only to be dropped. Above it a new
	// session is cheaper.
	restMax = 4 << 20
)

// Scan reads on from after.
func (v *view) Scan(ctx context.Context, t snapshot.Target, after []string, maxBytes int) (*snapshot.Chunk, error) {
	if t.ID != v.target.ID {
		return nil, fmt.Errorf("read %s: the view is one of %s", t.ID, v.target.ID)
	}
	chunk, err := v.scan(ctx, after, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t.ID, explain(err))
	}
	return chunk, nil
}

func (v *view) scan(ctx context.Context, after []string, maxBytes int) (*snapshot.Chunk, error) {
	keyed := len(v.target.Key) > 0
	last := v.scanner.lastOf(v.target.ID)
	if v.table == nil {
		if v.table, v.guessed = last.table, true; v.table == nil || !keyed {
			if _, err := v.describe(ctx); err != nil {
				return nil, err
			}
		}
		v.key = make([][]byte, len(v.table.key))
	}
	c := &snapshot.Chunk{Batch: capture.NewBatch()}
	var err error
	if !keyed {
		err = v.readKeyless(ctx, c, maxBytes)
	} else if last.largest, err = v.readKeyed(ctx, c, after, maxBytes, last.largest); err == nil {
		v.scanner.note(lastChunk{v.target.ID, v.table, last.largest})
	}
	if err != nil {
		c.Release()
		v.discard() // the session may be in the middle of an answer
		return nil, err
	}
	c.Table = v.table.plan.table
	return c, nil
}

// readKeyed reads rows whose key sorts after the given one: as many as fit if all are as
// large as the largest so far, of the chunk before to begin with, and few while nothing is
// known. Rows behind the one that fills the chunk are dropped: they are read again by
// their key. It returns the size of the chunk's largest row.
func (v *view) readKeyed(ctx context.Context, c *snapshot.Chunk, after []string, maxBytes, largest int) (own int, err error) {
	if v.rows != nil {
		return 0, errors.New("its session is in the middle of an answer")
	}
	limit := min(chunkRows, max(1, maxBytes/max(1, largest)))
	if largest == 0 {
		limit = fetchFirst
	}
	for {
		n, dropped := 0, 0
		rows, err := v.ask(ctx, after, limit)
		if err != nil {
			return 0, err
		}
		err = v.conn.within(ctx, func() error {
			for {
				row, err := rows.next()
				if row == nil {
					return err
				}
				if n++; c.LogBytes >= maxBytes {
					if dropped += len(row); dropped > restMax {
						v.rows = rows // for Close
						return nil
					}
					continue
				}
				if err := v.add(c, row); err != nil {
					return err
				}
				own = max(own, len(row))
			}
		})
		if err != nil {
			return 0, err
		}
		if n < limit && dropped == 0 {
			return own, nil
		}
		after = make([]string, len(v.key))
		for i, k := range v.key {
			after[i] = string(k)
		}
		largest = max(largest, own)
		limit = min(2*limit, chunkRows-c.Rows, (maxBytes-c.LogBytes)/largest)
		if limit <= 0 || dropped > 0 || c.LogBytes >= maxBytes-maxBytes/8 { // what is left is not worth a query
			c.Last = after
			return own, nil
		}
	}
}

// ask asks for rows behind a key, by the columns that the chunk before had. While the
// server reads them, the catalog is asked whether these are the table's columns: the view's
// transaction keeps the table as it is. If they are not, the rows are asked for again.
func (v *view) ask(ctx context.Context, after []string, limit int) (rows *resultRows, err error) {
	for {
		sql, err := v.table.query(after, limit)
		if err != nil {
			return nil, err
		}
		err = v.conn.within(ctx, func() error {
			rows, err = v.conn.openRows(sql)
			return err
		})
		var answer *mysql.MyError
		if !v.guessed || err != nil && !errors.As(err, &answer) {
			return rows, err
		}
		changed, e := v.describe(ctx)
		if e != nil || !changed {
			return rows, cmp.Or(e, err)
		}
		if err != nil {
			continue // a column is gone
		}
		err = v.conn.within(ctx, func() error {
			for {
				if row, err := rows.next(); row == nil {
					return err
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
}

// readKeyless goes on with the one answer that holds the whole table.
func (v *view) readKeyless(ctx context.Context, c *snapshot.Chunk, maxBytes int) error {
	return v.conn.within(ctx, func() error {
		if v.rows == nil {
			var err error
			if v.rows, err = v.conn.openRows(v.table.from); err != nil {
				return err
			}
		}
		for c.LogBytes < maxBytes {
			row, err := v.rows.next()
			if row == nil {
				return err
			}
			if err := v.add(c, row); err != nil {
				return err
			}
		}
		c.Last = []string{}
		return nil
	})
}

// add appends a row. Every row of a snapshot has the place at which the pipeline began: a
// later one would win over later updates at consumers that keep the highest.
func (v *view) add(c *snapshot.Chunk, packet []byte) error {
	// The columns of the table, and then those of the key as they are compared.
	p := v.table.plan
	row, rest, err := v.table.text.row(c.Batch, packet)
	if err != nil {
		return err
	}
	key := cursor{rest: rest}
	for i := range v.key {
		v.key[i] = append(v.key[i][:0], key.cell()...)
	}
	if key.failed || len(key.rest) > 0 {
		return errors.New("a row of the server's answer cannot be read")
	}
	c.LogBytes += len(packet)
	ev := c.Add()
	ev.Op, ev.Snapshot, ev.Table, ev.After, ev.Time = capture.Read, capture.SnapshotRow, p.table, row, v.opened
	if c.Rows == 0 {
		at := v.scanner.src.scan.origin()
		r := c.Row(originFields)
		for i := range r {
			r[i] = capture.NullValue
		}
		r[0], r[2], r[3], r[4] = capture.IntValue(0), capture.TextValue(at.File), capture.IntValue(int64(at.Pos)), capture.IntValue(0)
		ev.Origin = r
	} else {
		ev.Origin = c.Events[0].Origin
	}
	c.Rows++
	return nil
}

// describe reads how the table is read, and reports whether that is another way than was
// guessed. The view's transaction has used the table, so that it stays as it is.
func (v *view) describe(ctx context.Context) (changed bool, err error) {
	id := v.target.ID
	facts, err := readFacts(ctx, v.side, v.srv, id)
	switch {
	case err != nil:
		return false, err
	case facts == nil:
		return false, errors.New("there is no such table any more")
	case v.table != nil && reflect.DeepEqual(facts, v.table.facts):
		v.guessed = false
		return false, nil
	}
	p, err := v.scanner.src.catalog.planOf(v.srv, facts)
	if err != nil {
		return false, err
	}
	t := &scanTable{facts: facts, plan: p, text: textReader{p: p}}
	var list []string
	for i := range p.table.Columns {
		list = append(list, p.selectExpression(i, quoteIdent(p.table.Columns[i].Name)))
	}
	for _, name := range v.target.Key {
		i := p.table.Column(name)
		if i < 0 {
			return false, fmt.Errorf("its key has no column %q any more", name)
		}
		k, err := keyColumnOf(&p.table.Columns[i], facts)
		if err != nil {
			return false, err
		}
		t.key = append(t.key, k)
		list = append(list, k.text)
	}
	t.from = "SELECT " + strings.Join(list, ", ") + " FROM " + quoteTable(id)
	v.table, v.guessed = t, false
	return true, nil
}

// A keyColumn is a column of the key that rows are ordered by.
type keyColumn struct {
	name string // quoted
	// text prints the value, and compare is what a literal of it is compared with.
	text, compare string
	// literal makes SQL of what text printed.
	literal func(string) (string, error)
}

// keyColumnOf says how values of a column are printed and compared, in the server's own
// order.
func keyColumnOf(c *capture.Column, facts *tableFacts) (keyColumn, error) {
	name := quoteIdent(c.Name)
	k := keyColumn{name: name, text: name, compare: name, literal: numberLiteral}
	switch c.Type.Kind {
	case capture.TypeInt8, capture.TypeInt16, capture.TypeInt32, capture.TypeInt64, capture.TypeUint64, capture.TypeDecimal:
	case capture.TypeFloat32, capture.TypeFloat64:
		k.text = name + " + 0e0" // which prints all digits
		k.literal = func(s string) (string, error) {
			if !strings.ContainsAny(s, "eE") {
				s += "e0"
			}
			return numberLiteral(s)
		}
	case capture.TypeYear:
		// Two digits would be a year of this century.
		k.text, k.compare = name+" + 0", name+" + 0"
	case capture.TypeBool, capture.TypeBits, capture.TypeEnum:
		// They are ordered by number.
		k.text = name + " + 0"
	case capture.TypeSet:
		// Likewise, but a sum of one, and the number that it is compared as, is a double.
		k.text = "CAST(" + name + " AS UNSIGNED)"
		k.compare = k.text
	case capture.TypeDate, capture.TypeTime, capture.TypeTimestamp, capture.TypeTimestampTZ, capture.TypeUUID:
		k.literal = plainLiteral
	case capture.TypeBytes:
		k.text = "HEX(" + name + ")"
		k.literal = hexLiteral
	case capture.TypeString:
		at := slices.IndexFunc(facts.columns, func(f columnFacts) bool { return f.name == c.Name })
		if at < 0 {
			return k, fmt.Errorf("the catalog does not list column %q of its key", c.Name)
		}
		charset, collation := facts.columns[at].charset, facts.columns[at].collation
		if charset == "" { // INET4 and INET6
			k.literal = plainLiteral
			break
		}
		// The bytes: several characters of the old Japanese and Chinese sets are one in UTF-8.
		k.text = "HEX(" + name + ")"
		k.literal = func(s string) (string, error) {
			x, err := hexLiteral(s)
			return "_" + charset + " " + x + " COLLATE " + collation, err
		}
	default:
		return k, fmt.Errorf("%w: column %s of its key has the type %s, by which headwater cannot order rows; remedy: exclude the table", capture.ErrMisconfigured, c.Name, c.Type.Name)
	}
	return k, nil
}

// plainLiteral quotes what has no quotes in it.
func plainLiteral(s string) (string, error) { return "'" + strings.ReplaceAll(s, "'", "") + "'", nil }

// hexLiteral takes what HEX printed, and nothing else.
func hexLiteral(s string) (string, error) {
	if len(s)%2 != 0 || strings.Trim(s, "0123456789ABCDEF") != "" {
		return "", fmt.Errorf("the last key that was read has %q where bytes should be", s)
	}
	return "x'" + s + "'", nil
}

// numberLiteral takes what the server printed as a number, and nothing else.
func numberLiteral(s string) (string, error) {
	if s == "" || strings.Trim(s, "+-.0123456789eE") != "" {
		return "", fmt.Errorf("the last key that was read has %q where a number should be", s)
	}
	return s, nil
}

// query selects the rows behind a key, in key order.
func (t *scanTable) query(after []string, limit int) (string, error) {
	sql := t.from
	if after != nil {
		if len(after) != len(t.key) {
			return "", fmt.Errorf("the last key has %d columns and the table's key has %d", len(after), len(t.key))
		}
		// a >= x AND (a > x OR (a = x AND (b > y OR (b = y AND …)))): servers find the range
		// of an index in this, and not in (a, b) > (x, y).
		cond := ""
		for i := len(after) - 1; i >= 0; i-- {
			literal, err := t.key[i].literal(after[i])
			if err != nil {
				return "", err
			}
			name := t.key[i].compare
			if cond == "" {
				cond = name + " > " + literal
				if i == 0 {
					break
				}
				continue
			}
			cond = name + " > " + literal + " OR (" + name + " = " + literal + " AND (" + cond + "))"
			if i == 0 {
				cond = name + " >= " + literal + " AND (" + cond + ")"
			}
		}
		sql += " WHERE " + cond
	}
	names := make([]string, len(t.key))
	for i := range t.key {
		names[i] = t.key[i].name
	}
	return sql + " ORDER BY " + strings.Join(names, ", ") + " LIMIT " + strconv.Itoa(limit), nil
}

// resultRows reads the answer to a query row by row.
type resultRows struct {
	c    *conn
	done bool
}

// openRows sends a query and reads the head of its answer: the number of columns, their
// definitions, which we know, and an EOF packet.
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset.html
func (c *conn) openRows(sql string) (*resultRows, error) {
	if err := c.send(mysql.COM_QUERY, []byte(sql)); err != nil {
		return nil, err
	}
	p, err := c.readPacket()
	switch {
	case err != nil:
		return nil, err
	case len(p) == 0 || p[0] == mysql.OK_HEADER:
		return nil, errors.New("the server answers a query without rows")
	case p[0] == mysql.ERR_HEADER:
		return nil, answerError(p)
	}
	head := cursor{rest: p}
	for range head.small() + 1 {
		if p, err = c.readPacket(); err != nil {
			return nil, err
		}
	}
	if len(p) == 0 || p[0] != mysql.EOF_HEADER {
		return nil, errors.New("the head of the server's answer cannot be read")
	}
	return &resultRows{c: c}, nil
}

// next returns the next row as the server sends it, nil at the end. It is valid until the
// next call.
func (r *resultRows) next() ([]byte, error) {
	p, err := r.c.readPacket()
	switch {
	case err != nil:
		return nil, err
	case len(p) > 0 && p[0] == mysql.EOF_HEADER && len(p) < 9:
		r.done = true
		return nil, nil
	case len(p) > 0 && p[0] == mysql.ERR_HEADER:
		r.done = true
		return nil, answerError(p)
	}
	return p, nil
}

// cell reads one value of a row, nil for NULL.
func (r *cursor) cell() []byte {
	if len(r.rest) > 0 && r.rest[0] == 0xfb {
		r.bytes(1)
		return nil
	}
	return r.sized()
}
