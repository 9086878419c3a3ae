package mysql

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"

	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"

	"github.com/headwaterdb/headwater/capture"
)

// A rowsEvent is a WRITE, UPDATE, DELETE or PARTIAL_UPDATE_ROWS_EVENT: rows of one table.
// It points into the event's body, or into what its body was compressed from.
//
//	table_id(6) flags(2) [ extra_length(2) extra ] columns
//	    present_before present_after { row }…
//
// https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Rows__event.html
type rowsEvent struct {
	op capture.Op
	// table is the id of the table map that describes the rows.
	table uint64
	// last says that the statement has no more rows: the server then forgets its table
	// maps.
	last bool
	// none says that the event holds no rows at all: it only ends the statement.
	none bool

	columns int
	// before and after have a bit for each column that the image carries; nil when there
	// is no such image.
	before, after []byte
	// partial says that JSON values may be differences to the before image.
	partial bool
	rows    []byte
}

const (
	flagStatementEnd = 1
	// noTable is the table id of an event that only ends a statement.
	noTable = 1<<24 - 1
	// maxRowsEvent bounds what MariaDB's compressed events inflate to: its packets end
	// there.
	maxRowsEvent = 1 << 30
)

// isRows reports whether events of the type are for parseRows.
func isRows(t replication.EventType) bool {
	_, _, known := rowsKind(t)
	return known
}

// rowsKind says what an event type does, and which layout it has: 1 without, 2 with extra
// data.
func rowsKind(t replication.EventType) (op capture.Op, version int, known bool) {
	switch t {
	case replication.WRITE_ROWS_EVENTv0, replication.WRITE_ROWS_EVENTv1, replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1:
		return capture.Insert, 1, true
	case replication.WRITE_ROWS_EVENTv2:
		return capture.Insert, 2, true
	case replication.UPDATE_ROWS_EVENTv0, replication.UPDATE_ROWS_EVENTv1, replication.MARIADB_UPDATE_ROWS_COMPRESSED_EVENT_V1:
		return capture.Update, 1, true
	case replication.UPDATE_ROWS_EVENTv2, replication.PARTIAL_UPDATE_ROWS_EVENT:
		return capture.Update, 2, true
	case replication.DELETE_ROWS_EVENTv0, replication.DELETE_ROWS_EVENTv1, replication.MARIADB_DELETE_ROWS_COMPRESSED_EVENT_V1:
		return capture.Delete, 1, true
	case replication.DELETE_ROWS_EVENTv2:
		return capture.Delete, 2, true
	}
	return 0, 0, false
}

// parseRows reads the body of a rows event, without header and checksum. The rows
// themselves are for a rowReader.
func parseRows(t replication.EventType, body []byte) (rowsEvent, error) {
	op, version, _ := rowsKind(t)
	e := rowsEvent{op: op, partial: t == replication.PARTIAL_UPDATE_ROWS_EVENT, table: tableMapID(body)}
	r := cursor{rest: body}
	r.bytes(tableIDSize)
	e.last = r.uint16()&flagStatementEnd != 0
	if version == 2 {
		r.bytes(int(r.uint16()) - 2) // the length counts itself
	}
	e.columns = r.small()
	n := (e.columns + 7) / 8
	if op != capture.Insert {
		e.before = r.bytes(n)
	}
	if op != capture.Delete {
		e.after = r.bytes(n)
	}
	if r.failed {
		return e, fmt.Errorf("%w: a rows event of an unknown form; remedy: run a headwater that knows this server version", capture.ErrUnreadable)
	}
	e.rows = r.rest
	e.none = e.table == noTable && e.columns == 0
	switch t {
	case replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1, replication.MARIADB_UPDATE_ROWS_COMPRESSED_EVENT_V1, replication.MARIADB_DELETE_ROWS_COMPRESSED_EVENT_V1:
		var err error
		if e.rows, err = inflateRows(e.rows); err != nil {
			return e, fmt.Errorf("%w: inflate a compressed rows event: %w; remedy: check the server's binary log, for example by mariadb-binlog --verify-binlog-checksum",
				capture.ErrUnreadable, err)
		}
	}
	return e, nil
}

// inflateRows undoes log_bin_compress:
//
//	0x80 | algorithm<<4 | n(1) size(n, big-endian) zlib
func inflateRows(p []byte) ([]byte, error) {
	r := cursor{rest: p}
	head := r.uint8()
	var size uint64
	for _, c := range r.bytes(int(head & 7)) {
		size = size<<8 | uint64(c)
	}
	if r.failed || head&0xf0 != 0x80 || size > maxRowsEvent {
		return nil, errors.New("its header is unknown")
	}
	return inflate(r.rest, false, int(size))
}

// inflate returns size bytes of deflated data, raw or in zlib's frame. Memory grows with
// what the data really holds, whatever size claims.
func inflate(p []byte, raw bool, size int) ([]byte, error) {
	z := inflaters.Get().(*inflater)
	defer inflaters.Put(z)
	in, err := z.open(p, raw)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Grow(min(size, 16*len(p)) + bytes.MinRead)
	n, err := io.Copy(&out, io.LimitReader(in, int64(size)+1))
	if err != nil {
		return nil, err
	}
	if n != int64(size) {
		return nil, fmt.Errorf("it holds not the %d bytes that it claims", size)
	}
	return out.Bytes(), nil
}

// An inflater keeps the tables of its decompressors, which are larger than most of what
// they inflate.
type inflater struct {
	in          bytes.Reader
	raw, framed io.ReadCloser
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

func (z *inflater) open(p []byte, raw bool) (io.Reader, error) {
	z.in.Reset(p)
	var err error
	switch {
	case raw && z.raw == nil:
		z.raw = flate.NewReader(&z.in)
	case raw:
		err = z.raw.(flate.Resetter).Reset(&z.in, nil)
	case z.framed == nil:
		z.framed, err = zlib.NewReader(&z.in)
	default:
		err = z.framed.(zlib.Resetter).Reset(&z.in, nil)
	}
	if err != nil {
		z.framed = nil // it may have begun to read
		return nil, err
	}
	if raw {
		return z.raw, nil
	}
	return z.framed, nil
}

// A rowReader decodes the rows of events, one event after the other:
//
//	r.reset(p, b, &e)
//	for r.next() {
//		… r.before, r.after
//	}
//	if r.err != nil …
//
// It keeps memory between events; one goroutine uses it. The zero value is ready.
type rowReader struct {
	// before and after are the images of the row, in the batch's memory: nil when the
	// operation has none. A column that an image does not carry is Absent there.
	before, after capture.Row
	// err says why next returned false before the end of the event. It matches
	// capture.ErrUnreadable.
	err error

	p       *plan
	b       *capture.Batch
	event   *rowsEvent
	rest    []byte
	scratch []byte
	// docs is where the old JSON values are, for partial updates.
	docs [][]byte
}

// reset makes the reader read e, of the table that p is made for, into b, which owns the
// values from then on. e must not change until the last call of next.
func (r *rowReader) reset(p *plan, b *capture.Batch, e *rowsEvent) {
	*r = rowReader{p: p, b: b, event: e, scratch: r.scratch, docs: r.docs}
	if e.none {
		return
	}
	if e.columns != len(p.cells) {
		r.err = fmt.Errorf("%w: rows of %s have %d columns and its table map %d; remedy: check the server's binary log",
			capture.ErrUnreadable, p.table.ID, e.columns, len(p.cells))
		return
	}
	// Values are views into one copy.
	r.rest = b.Copy(e.rows)
}

// next decodes the next row, and reports whether there was one.
func (r *rowReader) next() bool {
	if len(r.rest) == 0 || r.err != nil {
		return false
	}
	r.before, r.after = nil, nil
	was := len(r.rest)
	if r.event.before != nil {
		if r.event.partial {
			r.docs = append(r.docs[:0], make([][]byte, len(r.p.cells))...)
		}
		r.before = r.b.Row(len(r.p.cells))
		if r.err = r.image(r.before, r.event.before, nil, false); r.err != nil {
			return false
		}
	}
	if r.event.after != nil {
		var diffs []byte
		if r.event.partial {
			if diffs, r.err = r.partialBits(); r.err != nil {
				return false
			}
		}
		r.after = r.b.Row(len(r.p.cells))
		if r.err = r.image(r.after, r.event.after, diffs, r.event.partial); r.err != nil {
			return false
		}
	}
	if len(r.rest) == was { // a table without columns, or one that the image leaves out
		r.err = fmt.Errorf("%w: rows of %s without any bytes; remedy: check the server's binary log", capture.ErrUnreadable, r.p.table.ID)
		return false
	}
	return true
}

// partialBits reads what stands before the new image in a partial update: options, and
// if they say so a bit for each JSON column of the table.
func (r *rowReader) partialBits() ([]byte, error) {
	const partialJSON = 1
	c := cursor{rest: r.rest}
	options := c.packed()
	var diffs []byte
	if options&partialJSON != 0 {
		diffs = c.bytes((r.p.jsons + 7) / 8)
	}
	if c.failed || options&^partialJSON != 0 {
		return nil, fmt.Errorf("%w: a partial update of %s of an unknown form; remedy: SET GLOBAL binlog_row_value_options = '' on the server, and start from a new snapshot",
			capture.ErrUnreadable, r.p.table.ID)
	}
	r.rest = c.rest
	return diffs, nil
}

// image decodes one image: a bit for each column that it carries says whether the value
// is NULL, and the other values follow. diffs has a bit for each JSON column.
func (r *rowReader) image(row capture.Row, present, diffs []byte, after bool) error {
	cells := r.p.cells
	n := len(cells)
	full := true
	carried := 0
	for i, m := range present {
		if last := n - 8*i; last < 8 {
			m &= 1<<last - 1
			full = full && m == 1<<last-1
		} else {
			full = full && m == 0xff
		}
		carried += bits.OnesCount8(m)
	}
	size := (carried + 7) / 8
	if size > len(r.rest) {
		return r.short(0)
	}
	nulls, rest := r.rest[:size], r.rest[size:]
	bit, json := 0, 0
	for i := range cells {
		c := &cells[i]
		diff := false
		if c.op == opJSON && diffs != nil {
			diff = diffs[json/8]>>(json%8)&1 != 0
			json++
		}
		if !full && present[i/8]>>(i%8)&1 == 0 {
			row[i] = capture.AbsentValue
			continue
		}
		if nulls[bit/8]>>(bit%8)&1 != 0 {
			row[i] = capture.NullValue
			bit++
			continue
		}
		bit++
		var used int
		var err error
		switch {
		case c.op != opJSON:
			row[i], used, err = c.decode(r, rest)
		case diff:
			row[i], used, err = r.patch(i, rest)
		default:
			if r.event.partial && !after && len(rest) >= 4 {
				r.docs[i] = jsonDocument(rest)
			}
			row[i], used, err = c.decode(r, rest)
		}
		if err != nil {
			return r.fail(i, err)
		}
		if used > len(rest) {
			return r.short(i)
		}
		rest = rest[used:]
	}
	r.rest = rest
	return nil
}

func (r *rowReader) short(column int) error { return r.fail(column, errShort) }

func (r *rowReader) fail(column int, err error) error { return r.p.valueError(column, err) }
