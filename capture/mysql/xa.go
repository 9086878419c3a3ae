package mysql

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/headwaterdb/headwater/capture"
)

// An XA transaction stands in the log twice: its rows when it is prepared, its outcome
// later, as a transaction of its own. Its rows are published with the outcome. What is
// prepared is not behind us: the position leaves it out, so that it is read again after
// a restart, and nothing has to be stored.

// A preparedTx holds the events of captured tables of one XA transaction.
type preparedTx struct {
	gtid   gtid
	begin  place
	before string // see prepared.Before
	// tables says of each table's number whether the table is captured.
	tables map[uint64]bool
	// definitions are those of tables whose columns the log does not name, as they were then.
	definitions map[capture.TableID]*definition
	// events are type(1) server_id(4) size(4) body.
	events [][]byte
	// replaying says that they are being read again, for good.
	replaying bool
}

// xidText prints the id of an XA transaction as the servers' statements do.
func xidText(format uint32, global, branch []byte) string {
	return fmt.Sprintf("X'%x',X'%x',%d", global, branch, format)
}

// recoverXA lists the XA transactions that the server has prepared and neither committed nor rolled
// back, as far as anybody may see. A session must take results as they are stored.
func recoverXA(ctx context.Context, c *conn) ([]string, error) {
	rows, err := c.query(ctx, "XA RECOVER")
	if err != nil {
		return nil, fmt.Errorf("list the prepared XA transactions: %w", explain(err))
	}
	out := make([]string, len(rows))
	for i, r := range rows {
		// formatID, gtrid_length, bqual_length, data
		format, err1 := strconv.ParseInt(r[0], 10, 64)
		global, err2 := parseUint(r[1])
		branch, err3 := parseUint(r[2])
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, fmt.Errorf("list the prepared XA transactions: %w", err)
		}
		if data := []byte(r[3]); global+branch == uint64(len(data)) {
			out[i] = xidText(uint32(format), data[:global], data[global:])
		} else {
			return nil, fmt.Errorf("list the prepared XA transactions: the server gives %d bytes of an id that has %d and %d", len(data), global, branch)
		}
	}
	return out, nil
}

// An xaState is what is known of XA transactions at a place of a server's log.
type xaState struct {
	at place
	// prepared are those that were prepared before the place and not committed.
	prepared map[string]bool
	// commits are the beginnings of those transactions behind the place that commit one.
	commits []place
}

// readOn follows the log up to a place, and says whether the server has sent it so far.
func (x *xaState) readOn(ctx context.Context, s *Source, srv *server, to place) (reached bool, err error) {
	from := x.at
	if from.number() >= to.number() {
		return true, nil
	}
	var read, begin place
	d := dumpRequest{flavour: srv.flavour, file: from.File, pos: offset(from)}
	var failed error
	err = s.peek(ctx, srv, &d, func(h *header, body []byte) (enough bool) {
		switch h.typ {
		case replication.ROTATE_EVENT:
			if p, ok := rotated(body); ok {
				read = p
			}
		case replication.HEARTBEAT_EVENT, replication.HEARTBEAT_LOG_EVENT_V2:
		default:
			if !h.counts() {
				return false
			}
			start := read
			if read = read.after(h); read.number() <= from.number() {
				return false
			}
			if h.typ == replication.MARIADB_GTID_EVENT {
				begin = start
			}
			failed = x.event(h, body, begin, srv)
		}
		return failed != nil || read.number() >= to.number()
	})
	if err = errors.Join(err, failed); err != nil {
		return false, fmt.Errorf("look for XA transactions in the log from %s to %s: %w", from, to, err)
	}
	x.at = read
	return read.number() >= to.number(), nil
}

// event takes one event of the transaction that begins at a place.
func (x *xaState) event(h *header, body []byte, begin place, srv *server) error {
	switch h.typ {
	case replication.XA_PREPARE_LOG_EVENT:
		xid, onePhase, err := parsePrepare(body)
		if err == nil && !onePhase {
			x.prepared[xid] = true
		}
		return err
	case replication.QUERY_EVENT, replication.MARIADB_QUERY_COMPRESSED_EVENT:
		q, err := parseQuery(h.typ, body)
		if err != nil {
			return err
		}
		// What is rolled back is never visible, so it counts as prepared.
		if s := readStatement(q.schema, q.text, dialectOf(q.status, srv.foldsNames())); s.kind == stXACommit {
			delete(x.prepared, s.xid)
			x.commits = append(x.commits, begin)
		}
	}
	return nil
}

// beginXA says that the rows that follow wait for their outcome.
func (st *stream) beginXA() {
	tx := &st.tx
	tx.begun, tx.held = true, &preparedTx{begin: tx.begin, gtid: tx.gtid, tables: make(map[uint64]bool), definitions: make(map[capture.TableID]*definition)}
	if st.srv.flavour == mariaDB {
		tx.held.before = st.at.GTIDs.String()
	}
}

// hold keeps an event of the XA transaction at hand, if it is about a captured table.
func (st *stream) hold(ctx context.Context, h *header, body []byte) error {
	tables, id := st.tx.held.tables, tableMapID(body)
	if _, known := tables[id]; h.typ == replication.TABLE_MAP_EVENT && !known {
		tm, err := parseTableMap(body, st.srv.flavour == mariaDB)
		if err != nil {
			return st.readError(err)
		}
		tables[id] = st.src.captures(tm.table)
		if tables[id] && !tm.named {
			d, err := st.proven(ctx, tm)
			if err != nil {
				return st.readError(err)
			}
			st.tx.held.definitions[tm.table] = d
		}
	}
	if !tables[id] {
		return nil
	}
	e := make([]byte, 9, 9+len(body))
	e[0] = byte(h.typ)
	binary.LittleEndian.PutUint32(e[1:], h.server)
	binary.LittleEndian.PutUint32(e[5:], h.size)
	e = append(e, body...)
	st.preparedBytes += cap(e)
	if st.preparedBytes > st.src.cfg.PreparedBytes {
		return fmt.Errorf("%w: the XA transactions that are prepared and not decided have more than prepared_bytes = %d of rows; remedy: decide them (XA RECOVER lists them), or raise prepared_bytes",
			capture.ErrMisconfigured, st.src.cfg.PreparedBytes)
	}
	st.tx.held.events = append(st.tx.held.events, e)
	st.src.metrics.prepared.Set(float64(st.preparedBytes))
	return nil
}

// forget lets the rows of an XA transaction go.
func (st *stream) forget(p *preparedTx) {
	for _, e := range p.events {
		st.preparedBytes -= cap(e)
	}
	p.events = nil
	st.src.metrics.prepared.Set(float64(st.preparedBytes))
}

// prepare ends the first part of an XA transaction, or all of it if it has one phase.
func (st *stream) prepare(ctx context.Context, body []byte) error {
	xid, onePhase, err := parsePrepare(body)
	if err != nil {
		return st.readError(err)
	}
	tx := &st.tx
	if !tx.open {
		return st.unreadable("the end of an XA transaction that did not begin")
	}
	if tx.skip {
		st.leave()
		return nil
	}
	if tx.held == nil {
		return st.unreadable("the end of an XA transaction that did not begin as one")
	}
	if onePhase {
		if err := st.replay(ctx, tx.held); err != nil {
			return err
		}
		return st.commit()
	}
	held := tx.held
	st.prepared[xid] = held
	if !slices.ContainsFunc(st.at.Prepared, func(p prepared) bool { return p.XID == xid }) {
		p := prepared{XID: xid, Before: held.before, place: held.begin}
		if !held.gtid.isZero() {
			p.GTID = held.gtid.String()
		}
		st.at.Prepared = append(st.at.Prepared, p)
		if st.srv.flavour == mariaDB || st.at.GTIDs == nil {
			// Later ones are counted from the newest, and this one by its name.
			if err := st.pass(&held.gtid); err != nil {
				return err
			}
		}
		st.boundary()
	}
	st.tx.held = nil // it stays
	st.leave()
	if err := st.watermarks(); err != nil {
		return err
	}
	return st.beat()
}

// decide takes the outcome of an XA transaction.
func (st *stream) decide(ctx context.Context, xid string, committed bool) error {
	if st.tx.skip {
		st.leave()
		return nil
	}
	held := st.prepared[xid]
	if held == nil && committed {
		return fmt.Errorf("%w: at %s the log commits the XA transaction %s, which was prepared before the pipeline began: its rows are not to be had any more; remedy: %s",
			capture.ErrPositionLost, st.start, xid, readAnew)
	}
	if held != nil {
		if committed {
			if err := st.replay(ctx, held); err != nil {
				return err
			}
		}
		st.forget(held)
		delete(st.prepared, xid)
		st.at.Prepared = slices.DeleteFunc(slices.Clone(st.at.Prepared), func(p prepared) bool { return p.XID == xid })
		if st.srv.flavour == mySQL {
			if err := st.pass(&held.gtid); err != nil {
				return err
			}
		}
	}
	return st.commit()
}

// replay reads the rows of an XA transaction as those of the transaction at hand.
func (st *stream) replay(ctx context.Context, held *preparedTx) error {
	if err := st.expected(); err != nil {
		return err
	}
	held.replaying = true
	st.tx.held = held
	// Its rows bring the definitions of the moment in which it was prepared.
	lent := func(_ uint64, t *logTable) bool { return t.lent }
	maps.DeleteFunc(st.tables, lent)
	for _, e := range held.events {
		h := header{typ: replication.EventType(e[0]), server: binary.LittleEndian.Uint32(e[1:]), size: binary.LittleEndian.Uint32(e[5:])}
		if err := st.dispatch(ctx, &h, e[9:]); err != nil {
			return err
		}
	}
	maps.DeleteFunc(st.tables, lent)
	return nil
}
