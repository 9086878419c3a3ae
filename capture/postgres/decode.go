package postgres

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/headwaterdb/headwater/capture"
)

// The functions of this file read the messages of pgoutput in protocol version 1, and
// in version 2 without streaming, which has the same. Integers are big-endian, strings
// end with NUL. What they return points into the message. Any input gives a result or
// an error that matches capture.ErrUnreadable.
//
// https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html

// A beginMessage opens a transaction:
//
//	'B' final_lsn(8) commit_time(8) xid(4)
type beginMessage struct {
	FinalLSN LSN   // of its commit record
	Time     int64 // of its commit: microseconds since the Unix epoch
	XID      uint32
}

func decodeBegin(m []byte) (beginMessage, error) {
	r := reader{m, false}
	r.kind('B')
	out := beginMessage{FinalLSN: LSN(r.uint64()), Time: r.time(), XID: r.uint32()}
	return out, r.end("a begin message")
}

// A commitMessage ends a transaction:
//
//	'C' flags(1) commit_lsn(8) end_lsn(8) commit_time(8)
type commitMessage struct {
	CommitLSN LSN   // of the commit record
	EndLSN    LSN   // behind it: the place to resume from
	Time      int64 // microseconds since the Unix epoch
}

func decodeCommit(m []byte) (commitMessage, error) {
	r := reader{m, false}
	r.kind('C')
	r.uint8() // flags, none is in use
	out := commitMessage{CommitLSN: LSN(r.uint64()), EndLSN: LSN(r.uint64()), Time: r.time()}
	return out, r.end("a commit message")
}

// An originMessage follows the begin of a transaction that was replicated to the
// server:
//
//	'O' commit_lsn(8) name
type originMessage struct {
	CommitLSN LSN // at the origin
	Name      []byte
}

func decodeOrigin(m []byte) (originMessage, error) {
	r := reader{m, false}
	r.kind('O')
	out := originMessage{CommitLSN: LSN(r.uint64()), Name: r.string()}
	return out, r.end("an origin message")
}

// A typeMessage names a data type before the first relation that uses it. The catalog
// says more, so that we do not need it:
//
//	'Y' oid(4) schema name
type typeMessage struct {
	OID          uint32
	Schema, Name []byte
}

func decodeType(m []byte) (typeMessage, error) {
	r := reader{m, false}
	r.kind('Y')
	out := typeMessage{OID: r.uint32(), Schema: r.string(), Name: r.string()}
	return out, r.end("a type message")
}

// A relationMessage describes a table before its first row, and again after every
// change of its definition:
//
//	'R' oid(4) schema name identity(1) columns(2)
//	    { flags(1) name type(4) modifier(4) }…
type relationMessage struct {
	OID      uint32
	Table    capture.TableID
	Identity byte // replica identity: 'd'efault, 'n'othing, 'f'ull or 'i'ndex
	Columns  []relationColumn
}

type relationColumn struct {
	Key      bool // belongs to the replica identity
	Name     string
	Type     uint32 // OID
	Modifier int32  // -1 for none
}

// decodeRelation allocates: a relation message comes once per definition.
func decodeRelation(m []byte) (relationMessage, error) {
	r := reader{m, false}
	r.kind('R')
	out := relationMessage{OID: r.uint32()}
	out.Table = capture.TableID{Schema: string(r.string()), Name: string(r.string())}
	if out.Table.Schema == "" {
		out.Table.Schema = "pg_catalog" // sent as the empty string
	}
	out.Identity = r.uint8()
	n := int(r.uint16())
	const least = 1 + 1 + 4 + 4 // bytes of one column
	if n*least <= len(r.rest) {
		out.Columns = make([]relationColumn, n)
	} else {
		r.failed = true
	}
	for i := range out.Columns {
		out.Columns[i] = relationColumn{r.uint8()&1 != 0, string(r.string()), r.uint32(), int32(r.uint32())}
	}
	return out, r.end("a relation message")
}

// A rowMessage is a row inserted, updated or deleted:
//
//	'I' oid(4) 'N' tuple
//	'U' oid(4) [ 'K' tuple | 'O' tuple ] 'N' tuple
//	'D' oid(4)   'K' tuple | 'O' tuple
type rowMessage struct {
	Op       capture.Op
	Relation uint32 // OID
	// OldKind is 'O' when Old is the whole old row, 'K' when it has only the columns of
	// the replica identity and NULL elsewhere, 0 when there is no old row.
	OldKind  byte
	Old, New []byte // TupleData, nil when the message has none
}

// decodeRow allocates nothing. The columns of the tuples are not checked.
func decodeRow(m []byte) (rowMessage, error) {
	r := reader{m, false}
	var out rowMessage
	op := r.uint8()
	out.Relation = r.uint32()
	kind := r.uint8()
	switch op {
	case 'I':
		out.Op = capture.Insert
	case 'U':
		out.Op = capture.Update
	case 'D':
		out.Op = capture.Delete
	default:
		r.failed = true
	}
	if op != 'I' && (kind == 'K' || kind == 'O') {
		out.OldKind, out.Old = kind, r.tuple()
		if op == 'U' {
			kind = r.uint8()
		}
	}
	switch {
	case op != 'D' && kind == 'N':
		out.New = r.tuple()
	case op != 'D', out.Old == nil:
		r.failed = true
	}
	return out, r.end("a row message")
}

// A truncateMessage empties tables, all in one step:
//
//	'T' tables(4) flags(1) { oid(4) }…
type truncateMessage struct {
	Cascade, RestartIdentity bool
	oids                     []byte
}

func decodeTruncate(m []byte) (truncateMessage, error) {
	r := reader{m, false}
	r.kind('T')
	n := uint64(r.uint32())
	flags := r.uint8()
	out := truncateMessage{Cascade: flags&1 != 0, RestartIdentity: flags&2 != 0}
	if 4*n != uint64(len(r.rest)) {
		r.failed = true
	} else {
		out.oids = r.bytes(len(r.rest))
	}
	return out, r.end("a truncate message")
}

// Tables is the number of tables, and Table the OID of one.
func (t *truncateMessage) Tables() int        { return len(t.oids) / 4 }
func (t *truncateMessage) Table(i int) uint32 { return binary.BigEndian.Uint32(t.oids[4*i:]) }

// A logicalMessage is what an application wrote by pg_logical_emit_message:
//
//	'M' flags(1) lsn(8) prefix length(4) content
type logicalMessage struct {
	Transactional   bool
	LSN             LSN
	Prefix, Content []byte
}

func decodeLogicalMessage(m []byte) (logicalMessage, error) {
	r := reader{m, false}
	r.kind('M')
	out := logicalMessage{Transactional: r.uint8()&1 != 0, LSN: LSN(r.uint64()), Prefix: r.string()}
	out.Content = r.sized()
	return out, r.end("a logical message")
}

// A reader takes a message apart from its front. After a step beyond the end, it
// remembers that and returns zeros.
type reader struct {
	rest   []byte
	failed bool
}

// end returns an error unless the message was read to its end.
func (r *reader) end(what string) error {
	if r.failed || len(r.rest) > 0 {
		return fmt.Errorf("%w: %s of an unknown form; remedy: run a headwater that knows this server version", capture.ErrUnreadable, what)
	}
	return nil
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.rest, r.failed = nil, true
		return nil
	}
	p := r.rest[:n:n]
	r.rest = r.rest[n:]
	return p
}

func (r *reader) uint8() byte {
	if p := r.bytes(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if p := r.bytes(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if p := r.bytes(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if p := r.bytes(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// time reads microseconds since 2000-01-01.
func (r *reader) time() int64 { return int64(r.uint64()) + pgEpoch }

func (r *reader) kind(want byte) { r.failed = r.uint8() != want || r.failed }

func (r *reader) string() []byte {
	i := bytes.IndexByte(r.rest, 0)
	p := r.bytes(i + 1) // -1+1: nothing
	if i < 0 {
		r.rest, r.failed = nil, true
		return nil
	}
	return p[:i:i]
}

// sized reads length(4) and as many bytes.
func (r *reader) sized() []byte {
	n := r.uint32()
	if uint64(n) > uint64(len(r.rest)) {
		r.rest, r.failed = nil, true
		return nil
	}
	return r.bytes(int(n))
}

// tuple returns a TupleData as a whole:
//
//	columns(2) { 'n' | 'u' | 't' length(4) text | 'b' length(4) binary }…
//
// 'n' is NULL, 'u' a value stored out of line (TOAST) that the update did not touch.
func (r *reader) tuple() []byte {
	all := r.rest
	for n := r.uint16(); n > 0 && !r.failed; n-- {
		switch r.uint8() {
		case 'n', 'u':
		case 't', 'b':
			r.sized()
		default:
			r.failed = true
		}
	}
	if r.failed {
		return nil
	}
	n := len(all) - len(r.rest)
	return all[:n:n]
}
