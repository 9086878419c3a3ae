package mysql

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/headwaterdb/headwater/capture"
)

// Column types of the log. String columns are further told apart by their metadata, which
// [parseTableMap] resolves: typeEnum, typeSet and typeString are what they are.
// https://dev.mysql.com/doc/dev/mysql-server/latest/field__types_8h.html
const (
	typeDecimal           byte = 0 // of MySQL 4, gone
	typeTiny              byte = 1
	typeShort             byte = 2
	typeLong              byte = 3
	typeFloat             byte = 4
	typeDouble            byte = 5
	typeNull              byte = 6
	typeTimestamp         byte = 7 // without a fraction, of tables made before 5.6
	typeLongLong          byte = 8
	typeInt24             byte = 9
	typeDate              byte = 10
	typeTime              byte = 11 // as typeTimestamp
	typeDatetime          byte = 12 // as typeTimestamp
	typeYear              byte = 13
	typeNewDate           byte = 14
	typeVarchar           byte = 15
	typeBit               byte = 16
	typeTimestamp2        byte = 17
	typeDatetime2         byte = 18
	typeTime2             byte = 19
	typeBlobCompressed    byte = 140 // MariaDB
	typeVarcharCompressed byte = 141 // MariaDB
	typeVector            byte = 242 // MySQL
	typeJSON              byte = 245 // MySQL
	typeNewDecimal        byte = 246
	typeEnum              byte = 247
	typeSet               byte = 248
	typeBlob              byte = 252
	typeVarString         byte = 253
	typeString            byte = 254
	typeGeometry          byte = 255
)

// A tableMap is a TABLE_MAP_EVENT: what the rows that follow it look like.
//
//	table_id(6) flags(2) schema table columns types metadata nullable { tag length value }…
//
// It owns its memory and is never changed, so that plans are kept by its address.
// https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Table__map__event.html
type tableMap struct {
	// id numbers the table from this event on. It changes when the server opens the
	// table anew; the rest may stay the same.
	id      uint64
	table   capture.TableID
	columns []logColumn
	// named says that it has what binlog_row_metadata = FULL adds: column names, labels, and
	// the primary key. signs and shapes say that the log tells signs of numbers and subtypes of
	// geometries, as all do but those of MariaDB with NO_LOG.
	named, signs, shapes bool
	// mariadb says whose log it is.
	mariadb bool
	// key lists the columns of the primary key in key order, if named.
	key []int
	// rest is the event behind id.
	rest []byte
}

// A logColumn is what the log says about a column, or what the catalog says in the log's
// words.
type logColumn struct {
	name string
	typ  byte
	// meta is the number that goes with typ: bytes of a length, digits of a second, …
	meta      uint16
	nullable  bool
	unsigned  bool
	charset   *charset // of text and of labels; nil when unknown
	labels    []string // of typeEnum and typeSet
	geometry  byte     // the declared subtype: 0 is any, 1 is POINT
	dimension int      // of typeVector
	invisible bool
	// special and double are known to the catalog alone: a type that the log shows as a
	// string of bytes, and FLOAT(m,d), which is DOUBLE to a consumer.
	special byte
	double  bool
	// values says whether MariaDB makes the values, as far as that is told.
	values valueSource
}

// A valueSource is where the values of a column come from.
type valueSource uint8

const (
	written  valueSource = iota // by whoever writes the row
	computed                    // by the server: a generated column
	untold                      // one of the two
)

// tableMapID returns the table id of a TABLE_MAP_EVENT's or a rows event's body, or 0 if
// the body is too short: the parser then says so.
func tableMapID(body []byte) uint64 {
	if len(body) < tableIDSize {
		return 0
	}
	return uint64(binary.LittleEndian.Uint32(body)) | uint64(binary.LittleEndian.Uint16(body[4:]))<<32
}

const tableIDSize = 6

// says reports whether the TABLE_MAP_EVENT with this body says the same as m, but for
// the id. A statement that changes rows sends its table map again: this spares parsing it.
func (m *tableMap) says(body []byte) bool {
	return len(body) >= tableIDSize && bytes.Equal(m.rest, body[tableIDSize:])
}

// parseTableMap reads the body of a TABLE_MAP_EVENT, without header and checksum. mariadb
// tells whose: the two differ in what they count as a character column.
func parseTableMap(body []byte, mariadb bool) (*tableMap, error) {
	m := &tableMap{id: tableMapID(body), mariadb: mariadb}
	r := cursor{rest: body}
	r.bytes(tableIDSize)
	m.rest = bytes.Clone(r.rest)
	r.rest = m.rest
	r.bytes(2) // flags
	m.table.Schema = string(r.name())
	m.table.Name = string(r.name())
	types := r.sized()
	meta := cursor{rest: r.sized()}
	nulls := r.bytes((len(types) + 7) / 8)
	if r.failed {
		return nil, errTableMap(m, "its columns")
	}
	m.columns = make([]logColumn, len(types))
	for i := range m.columns {
		c := &m.columns[i]
		c.nullable = nulls[i/8]>>(i%8)&1 != 0
		if !c.setType(types[i], &meta) {
			return nil, fmt.Errorf("%w: column %d of %s has the type %d, which is unknown; remedy: run a headwater that knows this server version",
				capture.ErrUnreadable, i+1, m.table, types[i])
		}
	}
	if meta.failed || len(meta.rest) > 0 {
		return nil, errTableMap(m, "the metadata of its columns")
	}
	for len(r.rest) > 0 {
		tag := r.uint8()
		value := cursor{rest: r.sized()}
		if r.failed {
			return nil, errTableMap(m, "its optional metadata")
		}
		m.option(tag, &value, mariadb)
		if value.failed {
			return nil, errTableMap(m, fmt.Sprintf("its optional metadata %d", tag))
		}
	}
	return m, m.decodeNames()
}

func errTableMap(m *tableMap, what string) error {
	return fmt.Errorf("%w: the table map of %s: %s cannot be read; remedy: run a headwater that knows this server version",
		capture.ErrUnreadable, m.table, what)
}

// setType takes the metadata of a type from meta. It reports false for a type that it
// does not know.
func (c *logColumn) setType(typ byte, meta *cursor) bool {
	c.typ = typ
	switch typ {
	case typeTiny, typeShort, typeLong, typeLongLong, typeInt24, typeYear, typeNull,
		typeTimestamp, typeDate, typeTime, typeDatetime, typeNewDate:
	case typeFloat, typeDouble, typeBlob, typeBlobCompressed, typeGeometry, typeVector, typeJSON,
		typeTimestamp2, typeDatetime2, typeTime2:
		c.meta = uint16(meta.uint8())
	case typeVarchar, typeVarString, typeVarcharCompressed, typeBit:
		c.meta = meta.uint16()
		if typ == typeVarString {
			c.typ = typeVarchar
		}
	case typeNewDecimal: // precision and scale
		c.meta = uint16(meta.uint8())<<8 | uint16(meta.uint8())
	case typeString, typeEnum, typeSet:
		// The real type, and the length in bytes. Lengths of more than 255 have their two
		// high bits inverted in the type.
		real, length := meta.uint8(), uint16(meta.uint8())
		if real&0x30 != 0x30 {
			length |= uint16(real&0x30^0x30) << 4
			real |= 0x30
		}
		c.typ, c.meta = real, length
		switch real {
		case typeString, typeEnum, typeSet:
		default:
			return meta.failed
		}
	default:
		return false
	}
	return true
}

// Tags of the optional metadata.
const (
	optSignedness         = 1
	optDefaultCharset     = 2
	optColumnCharset      = 3
	optColumnName         = 4
	optSetValues          = 5
	optEnumValues         = 6
	optGeometryType       = 7
	optPrimaryKey         = 8
	optPrimaryKeyPrefix   = 9
	optLabelCharset       = 10
	optLabelColumnCharset = 11
	optVisibility         = 12
	optDimension          = 13
)

// option reads one item of the optional metadata. Items that are unknown are left alone:
// newer servers add some.
func (m *tableMap) option(tag byte, r *cursor, mariadb bool) {
	switch tag {
	case optSignedness:
		m.signs = true
		m.bits(r, (*logColumn).isNumber, func(c *logColumn, set bool) { c.unsigned = set })
	case optDefaultCharset, optLabelCharset:
		m.defaultCollation(r, characterColumns(tag == optLabelCharset, mariadb))
	case optColumnCharset, optLabelColumnCharset:
		m.each(characterColumns(tag == optLabelColumnCharset, mariadb), func(c *logColumn) { c.charset = charsetOf(r.small()) })
	case optColumnName:
		m.named = true
		m.each(anyColumn, func(c *logColumn) { c.name = string(r.sized()) })
	case optSetValues, optEnumValues:
		typ := typeSet
		if tag == optEnumValues {
			typ = typeEnum
		}
		m.each(func(c *logColumn) bool { return c.typ == typ }, func(c *logColumn) { c.readLabels(r) })
	case optGeometryType:
		m.shapes = true
		m.each(func(c *logColumn) bool { return c.typ == typeGeometry }, func(c *logColumn) { c.geometry = byte(r.small()) })
	case optPrimaryKey, optPrimaryKeyPrefix:
		for len(r.rest) > 0 {
			i := r.small()
			if i >= len(m.columns) {
				r.failed = true
				return
			}
			m.key = append(m.key, i)
			if tag == optPrimaryKeyPrefix {
				r.small() // how much of the column the index holds; the row has all of it
			}
		}
	case optVisibility:
		m.bits(r, anyColumn, func(c *logColumn, set bool) { c.invisible = !set })
	case optDimension:
		m.each(func(c *logColumn) bool { return c.typ == typeVector }, func(c *logColumn) { c.dimension = r.small() })
	}
}

func anyColumn(*logColumn) bool { return true }

func (c *logColumn) isNumber() bool {
	switch c.typ {
	case typeTiny, typeShort, typeInt24, typeLong, typeLongLong, typeNewDecimal, typeFloat, typeDouble, typeYear:
		return true
	}
	return false
}

// characterColumns returns which columns a list of collations is about: those with
// labels, or the other ones with text.
func characterColumns(labels, mariadb bool) func(*logColumn) bool {
	if labels {
		return func(c *logColumn) bool { return c.typ == typeEnum || c.typ == typeSet }
	}
	return func(c *logColumn) bool {
		switch c.typ {
		case typeString, typeVarchar, typeBlob:
			return true
		case typeGeometry, typeVarcharCompressed, typeBlobCompressed:
			return mariadb
		}
		return false
	}
}

// each calls f for the columns that an item is about, in order.
func (m *tableMap) each(about func(*logColumn) bool, f func(*logColumn)) {
	for i := range m.columns {
		if about(&m.columns[i]) {
			f(&m.columns[i])
		}
	}
}

// bits reads one bit for each column that an item is about, the highest of a byte first.
func (m *tableMap) bits(r *cursor, about func(*logColumn) bool, f func(c *logColumn, set bool)) {
	i := 0
	all := r.rest
	m.each(about, func(c *logColumn) {
		if i/8 >= len(all) {
			r.failed = true
			return
		}
		f(c, all[i/8]>>(7-i%8)&1 != 0)
		i++
	})
}

// defaultCollation reads a collation, and index and collation of the columns that have
// another one.
func (m *tableMap) defaultCollation(r *cursor, about func(*logColumn) bool) {
	common := charsetOf(r.small())
	var list []*logColumn
	m.each(about, func(c *logColumn) {
		c.charset = common
		list = append(list, c)
	})
	for len(r.rest) > 0 && !r.failed {
		i, collation := r.small(), r.small()
		if i >= len(list) {
			r.failed = true
			return
		}
		list[i].charset = charsetOf(collation)
	}
}

// readLabels takes the labels of one column, in its own character set.
func (c *logColumn) readLabels(r *cursor) {
	n := r.small()
	if n > len(r.rest) { // each label has a length byte
		r.failed = true
		return
	}
	c.labels = make([]string, 0, n)
	for range n {
		c.labels = append(c.labels, string(r.sized()))
	}
}

// decodeNames turns labels into UTF-8. Names are UTF-8 already.
func (m *tableMap) decodeNames() error {
	for i := range m.columns {
		c := &m.columns[i]
		if len(c.labels) == 0 {
			continue
		}
		cs := c.charset
		if cs == nil {
			return errTableMap(m, "the character set of its labels")
		}
		for j, l := range c.labels {
			text, ok := cs.text(nil, []byte(l))
			if !ok {
				return fmt.Errorf("%w: label %d of column %s of %s is not text of its character set %s; remedy: mend the label by ALTER TABLE and start from a new snapshot",
					capture.ErrUnreadable, j+1, c.name, m.table, cs.name)
			}
			c.labels[j] = string(text)
		}
	}
	return nil
}

// lastColumn is the last one that is not MariaDB's for an index.
func (m *tableMap) lastColumn() int {
	last := len(m.columns) - 1
	for last > 0 && m.columns[last].isHash(m.mariadb) {
		last--
	}
	return last
}

// A cursor takes little-endian bytes apart from their front. After a step beyond the end,
// it remembers that and returns zeros.
type cursor struct {
	rest   []byte
	failed bool
}

func (r *cursor) bytes(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.rest, r.failed = nil, true
		return nil
	}
	p := r.rest[:n:n]
	r.rest = r.rest[n:]
	return p
}

func (r *cursor) uint8() byte {
	if p := r.bytes(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *cursor) uint16() uint16 {
	if p := r.bytes(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (r *cursor) uint32() uint32 {
	if p := r.bytes(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (r *cursor) uint64() uint64 {
	if p := r.bytes(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// packed reads a length-encoded integer.
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_dt_integers.html
func (r *cursor) packed() uint64 {
	switch c := r.uint8(); c {
	case 0xfc:
		return uint64(r.uint16())
	case 0xfd:
		p := r.bytes(3)
		if p == nil {
			return 0
		}
		return uint64(p[0]) | uint64(p[1])<<8 | uint64(p[2])<<16
	case 0xfe:
		return r.uint64()
	case 0xfb, 0xff:
		r.rest, r.failed = nil, true
		return 0
	default:
		return uint64(c)
	}
}

// small reads a length-encoded integer that is an index, an id or a count.
func (r *cursor) small() int {
	n := r.packed()
	if n > math.MaxInt32 {
		r.rest, r.failed = nil, true
		return 0
	}
	return int(n)
}

// sized reads a length-encoded integer and as many bytes.
func (r *cursor) sized() []byte {
	n := r.packed()
	if n > uint64(len(r.rest)) {
		r.rest, r.failed = nil, true
		return nil
	}
	return r.bytes(int(n))
}

// name reads length(1), as many bytes, and NUL.
func (r *cursor) name() []byte {
	p := r.bytes(int(r.uint8()))
	if r.uint8() != 0 {
		r.failed = true
	}
	return p
}
