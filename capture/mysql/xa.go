package mysql

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

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
	// events are type(1) server_id(4) size(4) body.
	events [][]byte
	// replaying says that they are being read again, for good.
	replaying bool
}

// beginXA says that the rows that follow wait for their outcome.
func (st *stream) beginXA() {
	tx := &st.tx
	tx.begun, tx.held = true, &preparedTx{begin: tx.begin, gtid: tx.gtid, tables: make(map[uint64]bool)}
	if st.srv.flavour == mariaDB {
		tx.held.before = st.at.GTIDs.String()
	}
}

// hold keeps an event of the XA transaction at hand, if it is about a captured table.
func (st *stream) hold(h *header, body []byte) error {
	tables, id := st.tx.held.tables, tableMapID(body)
	if h.typ == replication.TABLE_MAP_EVENT {
		tm, err := parseTableMap(body, st.srv.flavour == mariaDB)
		if err != nil {
			return st.readError(err)
		}
		tables[id] = st.src.captures(tm.table)
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
	// Numbers of tables are those of the moment in which it was prepared.
	clear(st.tables)
	for _, e := range held.events {
		h := header{typ: replication.EventType(e[0]), server: binary.LittleEndian.Uint32(e[1:]), size: binary.LittleEndian.Uint32(e[5:])}
		if err := st.dispatch(ctx, &h, e[9:]); err != nil {
			return err
		}
	}
	clear(st.tables)
	return nil
}
