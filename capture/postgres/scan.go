package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/snapshot"
)

// A Scanner reads the rows that the captured tables hold, next to its source's Stream.
type Scanner struct {
	src *Source

	mu sync.Mutex // guards idle
	// idle are connections that views gave back: at most maxIdle.
	idle []*scanConn
}

var _ snapshot.Scanner = (*Scanner)(nil)

// Scanner returns the source's scanner. It must be called before Stream: from then on
// Stream keeps what views need to know (rule R25 of publish/DESIGN.md), until Finish.
func (s *Source) Scanner() *Scanner {
	if s.scanner == nil {
		s.scan, s.scanner = newScanState(), &Scanner{src: s}
	}
	return s.scanner
}

// Begin makes the next Stream keep what views need to know.
func (s *Scanner) Begin() { s.src.scan.begin() }

// Finish forgets what was kept for views, and closes the scanner's connection.
func (s *Scanner) Finish() {
	s.src.scan.finish()
	s.close()
}

// A view is one transaction that reads one table.
type view struct {
	scanner *Scanner
	conn    *scanConn
	target  snapshot.Target
	snap    pgSnapshot
	mark    LSN   // the end of the log after the snapshot was taken
	opened  int64 // microseconds since the Unix epoch, by the server's clock
	table   *scanTable
	cursor  cursor
	most    int // rows of the next FETCH at most
	// The cursor goes on behind last.
	last []string
	key  [][]byte // of the last row
	// Shared by the rows of a chunk.
	origin   capture.Row
	sequence capture.Value
}

// pageSizes are those of the server's log.
type pageSizes struct{ block, segment LSN }

// viewWait is the pause before a view that lacked a transaction is opened again.
const (
	viewWaitMin = 2 * time.Millisecond
	viewWaitMax = 200 * time.Millisecond
)

// View opens a view of t that holds every transaction emitted before the call.
func (s *Scanner) View(ctx context.Context, t snapshot.Target) (snapshot.View, error) {
	if err := s.src.scan.gate.OpenForViews(ctx); err != nil {
		return nil, err
	}
	need := s.src.scan.demand()
	v := &view{scanner: s, target: t}
	_, err := s.on(ctx, func(c *scanConn) error {
		v.conn = c
		return v.open(ctx, &need)
	})
	if err != nil {
		return nil, fmt.Errorf("open a consistent read of %s: %w", t.ID, s.src.explainRead(t.ID, err))
	}
	return v, nil
}

// open opens the transaction again until it holds what is needed.
func (v *view) open(ctx context.Context, need *demand) error {
	st := v.scanner.src.scan
	if need.horizon && need.nextXID == 0 {
		// Not the xmax of a snapshot: a transaction that is committed and not yet visible
		// can be beyond it.
		row, err := queryRow(ctx, v.conn.PgConn, "SELECT age('3'::xid), pg_current_snapshot()")
		if err != nil {
			return fmt.Errorf("ask for the next transaction id: %w", err)
		}
		age, err1 := strconv.ParseInt(row[0], 10, 64)
		snap, err2 := parseSnapshot(row[1])
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		need.nextXID = snap.full(uint32(int32(age)) + 3)
		st.setNextXID(need.nextXID)
	}
	patience := v.scanner.src.patience
	warn := time.Now().Add(patience.blocked)
	for wait := viewWaitMin; ; wait = min(2*wait, viewWaitMax) {
		if err := v.begin(ctx); err != nil {
			return err
		}
		xid, missing := need.unmet(&v.snap)
		if !missing {
			st.proven(&v.snap)
			return nil
		}
		if _, err := query(ctx, v.conn.PgConn, "ROLLBACK"); err != nil {
			return err
		}
		if now := time.Now(); now.After(warn) {
			warn = now.Add(patience.again)
			v.scanner.src.log.Warn("reading a table waits for a transaction that is not visible yet: it is open, or committed and waiting for a synchronous standby",
				"table", v.target.ID.String(), "xid", xid)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("wait for transaction %d to become visible: %w", xid, context.Cause(ctx))
		}
	}
}

// begin begins the transaction, locks the table, and takes the snapshot, in this order:
// after a rewrite or a truncate, an older snapshot would read an empty table.
func (v *view) begin(ctx context.Context) error {
	name := quoteTable(v.target.ID)
	var row []string
	err := v.scanner.src.blockable(ctx, v.conn.PgConn, "locking the table "+v.target.ID.String()+" for reading", func(ctx context.Context) (err error) {
		row, err = queryRow(ctx, v.conn.PgConn, `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE `+name+` IN ACCESS SHARE MODE;
			SELECT pg_current_snapshot(), `+quoteLiteral(name)+`::regclass::oid, `+serverTime+`,
				CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() END`)
		return err
	})
	if err != nil {
		return err
	}
	if v.snap, err = parseSnapshot(row[0]); err != nil {
		return err
	}
	if row[1] != v.target.Incarnation {
		return fmt.Errorf("the table was made anew: its OID was %s and is %s", v.target.Incarnation, row[1])
	}
	if v.opened, err = strconv.ParseInt(row[2], 10, 64); err != nil {
		return err
	}
	if row[3] == "" {
		return errStandby
	}
	insert, err := pglogrepl.ParseLSN(row[3])
	if err != nil {
		return fmt.Errorf("read the end of the log: %w", err)
	}
	v.mark = v.conn.pages.withoutHeader(insert)
	if want := v.scanner.src.scan.server().SystemID; v.conn.systemID != want {
		return fmt.Errorf("the rows would come from the server with system identifier %s and the log comes from %s", v.conn.systemID, want)
	}
	return nil
}

// errStandby: pg_current_snapshot shows no running transactions on a standby, so
// nothing there tells which ones a view holds.
var errStandby = fmt.Errorf("%w: the server is a standby, and rows that exist already can be read exactly only from the primary; "+
	"remedy: let url name the primary until the tables are read, or capture without reading them", capture.ErrMisconfigured)

// Holds says whether the view contains the transaction.
func (v *view) Holds(tx *capture.Tx) bool { return v.snap.holds(v.snap.full(uint32(tx.Num))) }

// Mark sets the high mark (rule R26 of publish/DESIGN.md): the end of the log as it was
// written when the snapshot had been taken. What the snapshot holds stands before it;
// the flushed end will not do, because asynchronous commits are visible before they are
// flushed.
func (v *view) Mark(_ context.Context, id uint64) error {
	v.scanner.src.scan.addMark(id, v.mark)
	return nil
}

// withoutHeader rounds a position that stands directly behind a page header down to
// the page: the record before it ends there, and no commit ends at the header's end.
// The header of a segment's first page is longer.
// https://github.com/postgres/postgres/blob/master/src/include/access/xlog_internal.h
func (p pageSizes) withoutHeader(lsn LSN) LSN {
	const long, short = 40, 24
	if lsn%p.segment == long {
		return lsn - long
	}
	if lsn%p.block == short {
		return lsn - short
	}
	return lsn
}

// restMax bounds what a view that ends may leave unread for the next one to skip, in
// bytes. Above it a new connection is cheaper.
const restMax = 4 << 20

// Close ends the transaction. The next view waits for the server's answer.
func (v *view) Close() error {
	if v.conn.IsClosed() {
		return nil
	}
	if v.cursor.rows()*v.conn.largest > restMax {
		closeConn(v.conn.PgConn)
		return nil
	}
	if err := v.end(); err != nil {
		closeConn(v.conn.PgConn)
		return fmt.Errorf("end the consistent read of %s: %w", v.target.ID, err)
	}
	v.scanner.release(v.conn)
	return nil
}

func (v *view) end() error {
	p := v.cursor.pipe
	if p == nil {
		v.conn.ending = v.conn.Exec(context.Background(), "ROLLBACK").Close
		return nil
	}
	p.SendQueryParams("ROLLBACK", nil, nil, nil, nil)
	v.conn.ending = p.Close
	return p.Sync()
}

// A scanTable is how a view reads its table.
type scanTable struct {
	def  *tableDef
	from string // with the row filter of the publication
	// columns are quoted, in the order of the definition; key are those of the row key.
	columns, key []string
	keyIndex     []int
	keyTypes     []uint32 // OIDs
	after        string   // condition "the key sorts after $1, $2, …"
	formats      []int16  // of the cells; the key is text, as Scan's caller keeps it
}

// Scan reads on from after, through a cursor that stays open between calls.
func (v *view) Scan(ctx context.Context, t snapshot.Target, after []string, maxBytes int) (*snapshot.Chunk, error) {
	if t.ID != v.target.ID || t.Incarnation != v.target.Incarnation {
		return nil, fmt.Errorf("read %s: the view is one of %s", t.ID, v.target.ID)
	}
	chunk, err := v.scan(ctx, after, maxBytes)
	if err != nil {
		closeConn(v.conn.PgConn) // it may be in the middle of an answer
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("read %s: %w", t.ID, v.scanner.src.explainRead(t.ID, err))
	}
	return chunk, nil
}

func (v *view) scan(ctx context.Context, after []string, maxBytes int) (*snapshot.Chunk, error) {
	if v.table == nil {
		var err error
		if v.table, err = v.scanner.describe(ctx, v.conn, v.target); err != nil {
			return nil, err
		}
		v.key = make([][]byte, len(v.table.keyIndex))
		v.cursor.pipe = v.conn.StartPipeline(context.Background())
	}
	defer v.conn.until(ctx)()
	if keyed := len(v.table.key) > 0; !v.cursor.open || keyed && !slices.Equal(after, v.last) {
		if err := v.declare(after); err != nil {
			return nil, err
		}
	}
	c := &snapshot.Chunk{Batch: capture.NewBatch(), Table: v.table.def.table}
	done, err := v.fill(ctx, c, maxBytes)
	if err != nil {
		c.Release()
		return nil, err
	}
	v.last = make([]string, len(v.key))
	for i, k := range v.key {
		v.last[i] = string(k)
	}
	if !done {
		c.Last = v.last
	}
	return c, nil
}

// declare opens the cursor behind a key.
func (v *view) declare(after []string) error {
	t := v.table
	sql := "SELECT " + strings.Join(t.columns, ", ") + " FROM " + t.from
	var args [][]byte
	if len(t.key) > 0 {
		if after != nil {
			if len(after) != len(t.key) {
				return fmt.Errorf("the last key has %d columns and the table's key has %d", len(after), len(t.key))
			}
			sql += t.after
			for _, k := range after {
				args = append(args, []byte(k))
			}
		}
		sql += " ORDER BY " + strings.Join(t.key, ", ")
	}
	v.last = after
	return v.cursor.declare(sql, args, t.keyTypes[:len(args)])
}

// chunkRows bounds the rows of a chunk, so that narrow ones do not take many times the
// memory that their bytes say. The batch of a chunk, and its Commit, is of a size that
// capture keeps for reuse.
const chunkRows = 1<<14 - 1

// fill reads rows into the chunk until it is full, or the table is done. Rows behind the
// one that fills it stay unread for the next chunk of the view.
func (v *view) fill(ctx context.Context, c *snapshot.Chunk, maxBytes int) (done bool, err error) {
	v.most = fetchFirst
	largest, own := v.conn.largest, 0
	if largest > 0 {
		v.most = fetchMax
	}
	for full := false; !full && !v.cursor.done; {
		for v.ask(c, maxBytes, largest) {
			// The server is kept busy.
		}
		if len(v.cursor.asked) == 0 {
			break
		}
		if full, err = v.take(ctx, c, maxBytes, &own); err != nil {
			return false, err
		}
		largest = max(largest, own, 1)
	}
	v.conn.largest = own
	return v.cursor.done, nil
}

// ask asks for further rows, as long as they fit if all are as large as the largest, and
// twice as many each time. It reports whether it did.
func (v *view) ask(c *snapshot.Chunk, maxBytes, largest int) bool {
	underWay := v.cursor.rows()
	first := underWay == 0 && c.Rows == 0
	if len(v.cursor.asked) == fetchAhead || largest == 0 && !first {
		return false // enough is under way, or the size of a row is not known
	}
	n := min(v.most, chunkRows-c.Rows-underWay)
	if largest > 0 {
		n = min(n, (maxBytes-c.LogBytes)/largest-underWay)
	}
	if first {
		n = max(n, 1)
	}
	if n <= 0 {
		return false
	}
	v.cursor.fetch(n, v.table.formats)
	v.most = min(2*v.most, fetchMax)
	return true
}

// take appends the rows of a FETCH to the chunk, and reports whether that is full before
// they end.
func (v *view) take(ctx context.Context, c *snapshot.Chunk, maxBytes int, largest *int) (full bool, err error) {
	for {
		cells, ok, err := v.cursor.row()
		if err != nil || !ok {
			return false, err
		}
		if c.LogBytes >= maxBytes || c.Rows == chunkRows {
			return true, nil
		}
		n, err := v.add(ctx, c, cells)
		if err != nil {
			return false, err
		}
		c.LogBytes += n
		*largest = max(*largest, n)
		for i, k := range v.table.keyIndex {
			v.key[i] = append(v.key[i][:0], cells[k]...)
		}
		v.cursor.pass()
	}
}

// add appends a row to the chunk and returns its size. Every row of a snapshot has the
// position at which the slot began: a later one would win over later updates at
// consumers that keep the highest.
func (v *view) add(ctx context.Context, c *snapshot.Chunk, cells [][]byte) (size int, err error) {
	b := c.Batch
	if n := len(b.Events); n == cap(b.Events) && n > chunkRows/16 {
		b.Events = append(make([]capture.Event, 0, chunkRows+1), b.Events...)
	}
	if c.Rows == 0 {
		lsn := v.scanner.src.scan.startLSN()
		v.origin = b.Row(5)
		for i := range v.origin {
			v.origin[i] = capture.NullValue
		}
		v.origin[1] = capture.IntValue(int64(lsn))
		v.sequence = capture.StringValue(b.Copy(append(appendSequence([]byte("[null,"), lsn), ']')))
	}
	row, size, err := v.table.def.decodeCells(b, cells, v.table.formats)
	for err != nil {
		var outdated *outdatedError
		if !errors.As(err, &outdated) {
			return 0, err
		}
		if err := v.amend(ctx, c, outdated); err != nil {
			return 0, err
		}
		row, size, err = v.table.def.decodeCells(b, cells, v.table.formats)
	}
	ev := b.Add()
	ev.Op, ev.Snapshot, ev.Table, ev.After = capture.Read, capture.SnapshotRow, v.table.def.table, row
	ev.Origin, ev.Sequence, ev.Time = v.origin, v.sequence, v.opened
	c.Rows++
	return size, nil
}

// amend widens the definition for a row that it has no room for, for the whole chunk.
// The view's connection is in the middle of an answer, so it takes another.
func (v *view) amend(ctx context.Context, c *snapshot.Chunk, outdated *outdatedError) error {
	var def *tableDef
	conn, err := v.scanner.on(ctx, func(conn *scanConn) (err error) { // may run it twice
		def, err = v.scanner.src.catalog.amend(ctx, conn.PgConn, v.table.def, outdated)
		return err
	})
	if err != nil {
		return err
	}
	v.scanner.release(conn)
	v.table.def, c.Table = def, def.table
	for i := range c.Events {
		c.Events[i].Table = c.Table
	}
	return nil
}

// Tables lists the captured tables once Stream has made sure of the publication.
func (s *Scanner) Tables(ctx context.Context) ([]snapshot.Target, error) {
	if err := s.src.scan.gate.Connected(ctx); err != nil {
		return nil, err
	}
	var tables []tableInfo
	var keys map[string]*tableKeys
	conn, err := s.on(ctx, func(c *scanConn) error {
		all, err := s.src.readTables(ctx, c.PgConn, s.src.scan.server())
		if err != nil {
			return err
		}
		tables = s.src.captured(all)
		keys, err = readKeys(ctx, c.PgConn, tables)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.release(conn)
	var out []snapshot.Target
	for _, t := range tables {
		if k := keys[t.OID]; k != nil {
			out = append(out, snapshot.Target{ID: t.ID, Incarnation: t.OID, Rows: t.Rows, Key: k.RowKey})
		}
	}
	return out, nil
}

// describe reads how the table is read, in the view's transaction: its columns and row
// filter as they are published, and what its key is compared with.
func (s *Scanner) describe(ctx context.Context, conn *scanConn, t snapshot.Target) (*scanTable, error) {
	srv := s.src.scan.server()
	published, filter := "a.attgenerated = ''", "NULL"
	switch {
	case srv.major() >= 18:
		published, filter = "a.attname = ANY (p.attnames)", "p.rowfilter"
	case srv.major() >= 15:
		published, filter = "a.attgenerated = '' AND a.attname = ANY (p.attnames)", "p.rowfilter"
	}
	if err := conn.about(ctx, t.Incarnation); err != nil {
		return nil, fmt.Errorf("read its columns: %w", err)
	}
	results, err := conn.queryAll(ctx, `SELECT a.attname, a.atttypid, c.relkind, `+filter+`, (
			WITH RECURSIVE base AS (
				SELECT ty.oid, ty.typtype, ty.typbasetype FROM pg_type ty WHERE ty.oid = a.atttypid
				UNION ALL SELECT ty.oid, ty.typtype, ty.typbasetype FROM base JOIN pg_type ty ON ty.oid = base.typbasetype WHERE base.typtype = 'd')
			SELECT n.nspname FROM base JOIN pg_operator o ON o.oprleft = base.oid AND o.oprright = base.oid AND o.oprname = '>'
				JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE base.typtype <> 'd' LIMIT 1)
		FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
		LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND `+published+`
		WHERE p.pubname = `+quoteLiteral(s.src.cfg.Publication)+` AND c.oid = `+t.Incarnation+` ORDER BY a.attnum`)
	if err != nil {
		return nil, fmt.Errorf("read its columns: %w", err)
	}
	rows := results[0]
	if len(rows) == 0 {
		return nil, errors.New("it is not published any more")
	}
	out := &scanTable{from: "ONLY " + quoteTable(t.ID)}
	if rows[0][2] == "p" {
		out.from = quoteTable(t.ID)
	}
	where := " WHERE "
	if f := rows[0][3]; f != "" {
		out.from += where + "(" + f + ")"
		where = " AND "
	}
	index := make(map[string]int, len(rows))
	var names []string
	for i, r := range rows {
		if r[0] == "" {
			break // a table without columns
		}
		index[r[0]] = i
		names = append(names, r[0])
		out.columns = append(out.columns, quoteIdent(r[0]))
	}
	schemas := make([]string, 0, len(t.Key)) // of the operators
	for _, k := range t.Key {
		i, ok := index[k]
		if !ok {
			return nil, fmt.Errorf("column %q of its key is not published", k)
		}
		oid, err := strconv.ParseUint(rows[i][1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read its columns: %w", err)
		}
		out.key = append(out.key, quoteIdent(k))
		out.keyIndex = append(out.keyIndex, i)
		out.keyTypes = append(out.keyTypes, uint32(oid))
		schemas = append(schemas, cmp.Or(rows[i][4], "pg_catalog"))
	}
	out.after = where + sortsAfter(out.key, schemas)
	oid, err := parseOID(t.Incarnation)
	if err != nil {
		return nil, fmt.Errorf("read its columns: %w", err)
	}
	if out.def, err = s.src.catalog.fromTable(ctx, conn, oid, names); err != nil {
		return nil, err
	}
	out.formats = out.def.formats(out.keyIndex)
	return out, nil
}

// sortsAfter is the condition that the key sorts after $1, $2, … in the order of ORDER
// BY. The operators of a type of its own, such as citext, are named with their schema,
// else a cast to text would give another order; row comparison cannot name several.
func sortsAfter(key, schemas []string) string {
	if !slices.ContainsFunc(schemas, func(s string) bool { return s != "pg_catalog" }) {
		params := make([]string, len(key))
		for i := range key {
			params[i] = "$" + strconv.Itoa(i+1)
		}
		return "(" + strings.Join(key, ", ") + ") > (" + strings.Join(params, ", ") + ")"
	}
	// a >= $1 AND (a > $1 OR (b >= $2 AND (b > $2 OR …))): the first part lets an index help.
	cond := ""
	for i := len(key) - 1; i >= 0; i-- {
		op := func(name string) string {
			return key[i] + " OPERATOR(" + quoteIdent(schemas[i]) + "." + name + ") $" + strconv.Itoa(i+1)
		}
		if cond == "" {
			cond = op(">")
		} else {
			cond = op(">=") + " AND (" + op(">") + " OR (" + cond + "))"
		}
	}
	return cond
}
