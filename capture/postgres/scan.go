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
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/snapshot"
)

// A Scanner reads the rows that the captured tables hold, next to its source's Stream.
type Scanner struct {
	src *Source

	mu sync.Mutex // guards idle
	// idle is a connection that the last view gave back, nil when there is none.
	idle *pgconn.PgConn
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

func (s *Scanner) close() {
	if c := s.take(); c != nil {
		closeConn(c)
	}
}

// take takes the idle connection, if there is one.
func (s *Scanner) take() *pgconn.PgConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.idle
	s.idle = nil
	return c
}

// connect returns an ordinary connection for reading.
func (s *Scanner) connect(ctx context.Context) (*pgconn.PgConn, error) {
	if c := s.take(); c != nil {
		if c.Ping(ctx) == nil {
			return c, nil
		}
		closeConn(c)
	}
	c, err := s.src.connect(ctx, false, nil)
	if err != nil {
		return nil, err
	}
	// Policies would hide rows that the log shows: with row_security off, reading such
	// a table fails instead. A tiny cursor_tuple_fraction makes the planner follow the
	// key's index rather than sort the table for each chunk.
	if _, err := query(ctx, c, "SET row_security = off; SET cursor_tuple_fraction = 0.000001; "+
		// PostgreSQL 17 and up: a long read of a table without a key must not be cut short.
		"SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'"); err != nil {
		closeConn(c)
		return nil, fmt.Errorf("prepare a connection for reading tables: %w", err)
	}
	return c, nil
}

// release keeps a connection for the next view.
func (s *Scanner) release(c *pgconn.PgConn) {
	if c.IsClosed() || c.TxStatus() != 'I' {
		closeConn(c)
		return
	}
	s.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = c
}

// A view is one transaction that reads one table.
type view struct {
	scanner *Scanner
	conn    *pgconn.PgConn
	target  snapshot.Target
	snap    pgSnapshot
	opened  int64 // microseconds since the Unix epoch, by the server's clock
	pages   pageSizes
	table   *scanTable
	// fetch is the number of rows of the next FETCH, 0 while no cursor is open, which
	// goes on behind last.
	fetch int
	last  []string
	// stale says that rows behind last were fetched and dropped.
	stale bool
	key   [][]byte // of the last row
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
	viewWarn    = 5 * time.Second
)

// View opens a view of t that holds every transaction emitted before the call.
func (s *Scanner) View(ctx context.Context, t snapshot.Target) (snapshot.View, error) {
	if err := s.src.scan.wait(ctx, true); err != nil {
		return nil, err
	}
	need := s.src.scan.demand()
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	v := &view{scanner: s, conn: conn, target: t}
	if err := v.open(ctx, &need); err != nil {
		closeConn(conn)
		return nil, fmt.Errorf("open a consistent read of %s: %w", t.ID, err)
	}
	return v, nil
}

// open opens the transaction again until it holds what is needed.
func (v *view) open(ctx context.Context, need *demand) error {
	st := v.scanner.src.scan
	if need.horizon && need.nextXID == 0 {
		// Not the xmax of a snapshot: a transaction that is committed and not yet visible
		// can be beyond it.
		row, err := queryRow(ctx, v.conn, "SELECT age('3'::xid), pg_current_snapshot()")
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
	began, warned := time.Now(), false
	for wait := viewWaitMin; ; wait = min(2*wait, viewWaitMax) {
		if err := v.begin(ctx); err != nil {
			return err
		}
		xid, missing := need.unmet(&v.snap)
		if !missing {
			st.proven(&v.snap)
			return nil
		}
		if _, err := query(ctx, v.conn, "ROLLBACK"); err != nil {
			return err
		}
		if !warned && time.Since(began) > viewWarn {
			warned = true
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
	row, err := queryRow(ctx, v.conn, `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE ONLY `+name+` IN ACCESS SHARE MODE;
		SELECT pg_current_snapshot(), `+quoteLiteral(name)+`::regclass::oid, pg_is_in_recovery(),
			(extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
			(SELECT setting FROM pg_settings WHERE name = 'wal_block_size'), (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'),
			(SELECT system_identifier FROM pg_control_system())`)
	if err != nil {
		return err
	}
	if v.snap, err = parseSnapshot(row[0]); err != nil {
		return err
	}
	if row[1] != v.target.Incarnation {
		return fmt.Errorf("the table was made anew: its OID was %s and is %s", v.target.Incarnation, row[1])
	}
	if row[2] == "t" {
		return errStandby
	}
	if want := v.scanner.src.scan.server().SystemID; row[6] != want {
		return fmt.Errorf("the rows would come from the server with system identifier %s and the log comes from %s", row[6], want)
	}
	var err1, err2, err3 error
	v.opened, err1 = strconv.ParseInt(row[3], 10, 64)
	v.pages.block, err2 = parseSize(row[4])
	v.pages.segment, err3 = parseSize(row[5])
	return errors.Join(err1, err2, err3)
}

func parseSize(text string) (LSN, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	return LSN(n), err
}

// errStandby: pg_current_snapshot shows no running transactions on a standby, so
// nothing there tells which ones a view holds.
var errStandby = fmt.Errorf("%w: the server is a standby, and rows that exist already can be read exactly only from the primary; "+
	"remedy: let url name the primary until the tables are read, or capture without reading them", capture.ErrMisconfigured)

// Holds says whether the view contains the transaction.
func (v *view) Holds(tx *capture.Tx) bool { return v.snap.holds(v.snap.full(uint32(tx.Num))) }

// Mark sets the high mark (rule R26 of publish/DESIGN.md): the end of the log as it is
// written, because asynchronous commits are visible before they are flushed.
func (v *view) Mark(ctx context.Context, id uint64) error {
	row, err := queryRow(ctx, v.conn, "SELECT pg_current_wal_insert_lsn()")
	if err != nil {
		return fmt.Errorf("mark the end of the log: %w", err)
	}
	insert, err := pglogrepl.ParseLSN(row[0])
	if err != nil {
		return fmt.Errorf("mark the end of the log: %w", err)
	}
	v.scanner.src.scan.addMark(id, v.pages.withoutHeader(insert))
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

// Close ends the transaction.
func (v *view) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if v.conn.IsClosed() {
		return nil
	}
	if _, err := query(ctx, v.conn, "ROLLBACK"); err != nil {
		closeConn(v.conn)
		return fmt.Errorf("end the consistent read of %s: %w", v.target.ID, err)
	}
	v.scanner.release(v.conn)
	return nil
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

// Rows of one FETCH.
const (
	fetchFirst = 16
	fetchMax   = 2048
)

// Scan reads on from after, through a cursor that stays open between calls.
func (v *view) Scan(ctx context.Context, t snapshot.Target, after []string, maxBytes int) (*snapshot.Chunk, error) {
	if t.ID != v.target.ID || t.Incarnation != v.target.Incarnation {
		return nil, fmt.Errorf("read %s: the view is one of %s", t.ID, v.target.ID)
	}
	chunk, err := v.scan(ctx, after, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t.ID, err)
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
	}
	if keyed := len(v.table.key) > 0; v.fetch == 0 || keyed && (v.stale || !slices.Equal(after, v.last)) {
		if err := v.declare(ctx, after); err != nil {
			return nil, err
		}
	}
	c := &snapshot.Chunk{Batch: capture.NewBatch(), Table: v.table.def.table}
	done := false
	for largest := 1; !done && c.LogBytes < maxBytes; {
		n, err := v.fetchInto(ctx, c, maxBytes, &largest)
		if err != nil {
			c.Release()
			return nil, err
		}
		done = n < v.fetch && !v.stale
		// Twice as many, as long as they would fit if all were as large as the largest.
		v.fetch = max(1, min(2*v.fetch, fetchMax, (maxBytes-c.LogBytes)/largest))
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
func (v *view) declare(ctx context.Context, after []string) error {
	t := v.table
	if v.fetch > 0 {
		if _, err := query(ctx, v.conn, "CLOSE chunk"); err != nil {
			return err
		}
	}
	sql := "DECLARE chunk NO SCROLL CURSOR FOR SELECT " + strings.Join(t.columns, ", ") + " FROM " + t.from
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
	_, err := v.conn.ExecParams(ctx, sql, args, t.keyTypes[:len(args)], nil, nil).Close()
	if err != nil {
		return err
	}
	v.fetch, v.last, v.stale = fetchFirst, after, false
	return nil
}

// fetchInto appends the next rows to the chunk, and returns how many the cursor gave.
// Rows of a keyed table that come after the one which fills the chunk are dropped: they
// are read again by their key.
func (v *view) fetchInto(ctx context.Context, c *snapshot.Chunk, maxBytes int, largest *int) (rows int, err error) {
	keyed := len(v.table.key) > 0
	rr := v.conn.ExecParams(ctx, "FETCH "+strconv.Itoa(v.fetch)+" FROM chunk", nil, nil, nil, v.table.formats)
	for rr.NextRow() {
		rows++
		if keyed && c.LogBytes >= maxBytes {
			v.stale = true
			continue
		}
		cells := rr.Values()
		n, err := v.add(ctx, c, cells)
		if err != nil {
			_, _ = rr.Close() // the first error says more
			return 0, err
		}
		c.LogBytes += n
		*largest = max(*largest, n)
		for i, k := range v.table.keyIndex {
			v.key[i] = append(v.key[i][:0], cells[k]...)
		}
	}
	_, err = rr.Close()
	return rows, err
}

// add appends a row to the chunk and returns its size. Every row of a snapshot has the
// position at which the slot began: a later one would win over later updates at
// consumers that keep the highest.
func (v *view) add(ctx context.Context, c *snapshot.Chunk, cells [][]byte) (size int, err error) {
	b := c.Batch
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
	conn, err := v.scanner.connect(ctx)
	if err != nil {
		return err
	}
	defer v.scanner.release(conn)
	if v.table.def, err = v.scanner.src.catalog.amend(ctx, conn, v.table.def, outdated); err != nil {
		return err
	}
	c.Table = v.table.def.table
	for i := range c.Events {
		c.Events[i].Table = c.Table
	}
	return nil
}

// Tables lists the captured tables once Stream has made sure of the publication.
func (s *Scanner) Tables(ctx context.Context) ([]snapshot.Target, error) {
	if err := s.src.scan.wait(ctx, false); err != nil {
		return nil, err
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer s.release(conn)
	tables, err := s.src.readTables(ctx, conn, s.src.scan.server())
	if err != nil {
		return nil, err
	}
	tables = s.src.captured(tables)
	keys, err := readKeys(ctx, conn, tables)
	if err != nil {
		return nil, err
	}
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
func (s *Scanner) describe(ctx context.Context, conn *pgconn.PgConn, t snapshot.Target) (*scanTable, error) {
	srv := s.src.scan.server()
	published, filter := "a.attgenerated = ''", "NULL"
	switch {
	case srv.major() >= 18:
		published, filter = "a.attname = ANY (p.attnames)", "p.rowfilter"
	case srv.major() >= 15:
		published, filter = "a.attgenerated = '' AND a.attname = ANY (p.attnames)", "p.rowfilter"
	}
	rows, err := query(ctx, conn, `SELECT a.attname, a.atttypid, c.relkind, `+filter+`, (
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
