package mysql

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/headwaterdb/headwater/capture"
)

// An op says how a value of the log is read.
type op uint8

const (
	opNull op = iota // a column of the type NULL, always NULL
	opInt8
	opUint8
	opInt16
	opUint16
	opInt24
	opUint24
	opInt32
	opUint32
	opInt64
	opUint64
	opFloat
	opDouble
	opDecimal
	opYear
	opBit  // of one bit
	opBits // of more
	opDate
	opTime      // without a fraction, as before MySQL 5.6
	opDatetime  // likewise
	opTimestamp // likewise
	opTime2
	opDatetime2
	opTimestamp2
	opText
	opBytes
	opBinary // BINARY(n), whose zeros at the end the log leaves out
	opCompressedText
	opCompressedBytes
	opEnum
	opSet
	opJSON
	opGeometry
	opPoint
	opVector
	opUUID // of MariaDB, as the three that follow
	opInet4
	opInet6
)

// A cell decodes one column, from the log and from what a query returns.
type cell struct {
	op op
	// least is how many bytes a value has at least: all of it, or its length.
	least uint8
	// width is the bytes of the length before a value, of ENUM, SET and BIT values, and of
	// the fraction of a second.
	width uint8
	// nullable decides what becomes of dates that do not exist: NULL, or Absent.
	nullable         bool
	precision, scale uint8
	size             int // of BINARY(n) and what MariaDB keeps in such columns
	charset          *charset
	labels           []capture.Value
}

// A plan holds a table definition and decodes its rows. It is never changed after it was
// made; several goroutines may use it.
type plan struct {
	table *capture.Table
	cells []cell
	jsons int // how many of them are JSON
	// columns is what is known of them: by the log, the catalog, or an earlier definition.
	columns []logColumn
	// drift lists the columns that the catalog describes otherwise than the log, or no
	// longer has: they have neither default nor comment. unsure are those of them whose
	// bytes could be of a type that the log does not show.
	drift []int
	// left are the columns that nobody is shown, ascending: those that the server keeps for
	// itself, and generated ones that it does not log in every row. unseen are those of them that
	// are a guess until a row has one, which then is an ordinary column.
	left, unseen []int
	unsure       []logColumn
}

var (
	errShort = errors.New("it ends too early")
	// errForm says that a value is not what the server writes for its type.
	errForm = errors.New("it is not what the server writes for this type")
)

// valueError says which column of which table has a value that cannot be read.
func (p *plan) valueError(column int, err error) error {
	c := &p.table.Columns[column]
	var t *textError
	if errors.As(err, &t) {
		return fmt.Errorf("%w: column %s (%s) of %s holds %w; remedy: mend the value in the table, and start from a new snapshot",
			capture.ErrUnreadable, c.Name, c.Type.Name, p.table.ID, err)
	}
	return fmt.Errorf("%w: a value of column %s (%s) of %s cannot be read: %w; remedy: check the server's log and run a headwater that knows this server version",
		capture.ErrUnreadable, c.Name, c.Type.Name, p.table.ID, err)
}

// noDate stands for a date that does not exist, such as 0000-00-00. Package capture has
// no such dates; a definition without NULL gets what it shows for a missing value.
func (c *cell) noDate() capture.Value {
	if c.nullable {
		return capture.NullValue
	}
	return capture.AbsentValue
}

// decode reads the value that p begins with, and says how many bytes it has. What is text
// in UTF-8 or bytes in p stays there as a view.
func (c *cell) decode(r *rowReader, p []byte) (v capture.Value, used int, err error) {
	if len(p) < int(c.least) {
		return v, 0, errShort
	}
	switch c.op {
	case opInt8:
		return capture.IntValue(int64(int8(p[0]))), 1, nil
	case opUint8:
		return capture.IntValue(int64(p[0])), 1, nil
	case opInt16:
		return capture.IntValue(int64(int16(binary.LittleEndian.Uint16(p)))), 2, nil
	case opUint16:
		return capture.IntValue(int64(binary.LittleEndian.Uint16(p))), 2, nil
	case opInt24:
		return capture.IntValue(int64(int32(uint24(p)<<8) >> 8)), 3, nil
	case opUint24:
		return capture.IntValue(int64(uint24(p))), 3, nil
	case opInt32:
		return capture.IntValue(int64(int32(binary.LittleEndian.Uint32(p)))), 4, nil
	case opUint32:
		return capture.IntValue(int64(binary.LittleEndian.Uint32(p))), 4, nil
	case opInt64:
		return capture.IntValue(int64(binary.LittleEndian.Uint64(p))), 8, nil
	case opUint64:
		return capture.UintValue(binary.LittleEndian.Uint64(p)), 8, nil
	case opFloat:
		return capture.FloatValue(float64(math.Float32frombits(binary.LittleEndian.Uint32(p)))), 4, nil
	case opDouble:
		return capture.FloatValue(math.Float64frombits(binary.LittleEndian.Uint64(p))), 8, nil
	case opDecimal:
		v, err = c.decimal(r.b, p[:c.least])
		return v, int(c.least), err
	case opYear:
		return yearValue(p[0]), 1, nil
	case opBit:
		return capture.BoolValue(p[0] != 0), 1, nil
	case opBits:
		return bitsValue(r.b, p[:c.width]), int(c.width), nil
	case opDate:
		return c.date(uint24(p)), 3, nil
	case opTime:
		v, err = oldTime(uint24(p))
		return v, 3, err
	case opDatetime:
		v, err = c.oldDatetime(binary.LittleEndian.Uint64(p))
		return v, 8, err
	case opTimestamp:
		return c.timestamp(int64(binary.LittleEndian.Uint32(p)), 0), 4, nil
	case opTime2:
		v, err = c.time2(p)
		return v, int(c.least), err
	case opDatetime2:
		v, err = c.datetime2(p)
		return v, int(c.least), err
	case opTimestamp2:
		return c.timestamp(int64(binary.BigEndian.Uint32(p)), c.fraction(p[4:])), int(c.least), nil
	case opEnum:
		v, err = c.label(uintN(p, int(c.width)))
		return v, int(c.width), err
	case opSet:
		v, err = c.members(r.b, uintN(p, int(c.width)))
		return v, int(c.width), err
	case opNull:
		return capture.NullValue, 0, nil
	}
	// The others have a length.
	w := int(c.width)
	n := uintN(p, w)
	if n > uint64(len(p)-w) {
		return v, 0, errShort
	}
	used = w + int(n)
	v, err = c.sized(r, p[w:used:used])
	return v, used, err
}

// sized decodes the bytes behind a length.
func (c *cell) sized(r *rowReader, p []byte) (capture.Value, error) {
	switch c.op {
	case opText:
		return c.text(r.b, p)
	case opBytes:
		return capture.BytesValue(p), nil
	case opBinary:
		return c.padded(r.b, p)
	case opCompressedText, opCompressedBytes:
		p, err := inflateColumn(p)
		if err != nil {
			return capture.Value{}, err
		}
		if c.op == opCompressedBytes {
			return capture.BytesValue(r.b.Copy(p)), nil
		}
		return c.text(r.b, r.b.Copy(p))
	case opJSON:
		return r.json(p)
	case opGeometry, opPoint:
		return c.geometry(r.b, p)
	case opVector:
		return vectorValue(r.b, p)
	case opUUID, opInet4, opInet6:
		v, err := c.padded(r.b, p)
		switch {
		case err != nil:
			return v, err
		case c.op == opUUID:
			return uuidValue(r.b, v.Bytes()), nil
		}
		return inetValue(r.b, v.Bytes()), nil
	}
	return capture.Value{}, errForm
}

func uint24(p []byte) uint32 { return uint32(p[0]) | uint32(p[1])<<8 | uint32(p[2])<<16 }

// uintN reads n little-endian bytes, n at most 8.
func uintN(p []byte, n int) uint64 {
	switch n {
	case 1:
		return uint64(p[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(p))
	case 4:
		return uint64(binary.LittleEndian.Uint32(p))
	}
	var u uint64
	for i := range n {
		u |= uint64(p[i]) << (8 * i)
	}
	return u
}

// yearValue is 0 for the year 0000, which the log has as 0; other years count from 1900.
func yearValue(b byte) capture.Value {
	if b == 0 {
		return capture.IntValue(0)
	}
	return capture.IntValue(1900 + int64(b))
}

// bitsValue turns BIT(n) around: the server has the highest byte first.
func bitsValue(b *capture.Batch, p []byte) capture.Value {
	out := b.Alloc(len(p))
	for i, c := range p {
		out[len(p)-1-i] = c
	}
	return capture.BytesValue(out)
}

// text decodes a string in the column's character set.
func (c *cell) text(b *capture.Batch, p []byte) (capture.Value, error) {
	out, ok := c.charset.text(b, p)
	if !ok {
		return capture.Value{}, &textError{c.charset.name, len(p)}
	}
	return capture.StringValue(out), nil
}

// A textError says that a string is not text of its character set.
type textError struct {
	charset string
	size    int // the bytes themselves are nobody's but the table's
}

func (e *textError) Error() string {
	return fmt.Sprintf("%d bytes that are no text of its character set %s", e.size, e.charset)
}

// padded is BINARY(n) with the zeros at its end.
func (c *cell) padded(b *capture.Batch, p []byte) (capture.Value, error) {
	if len(p) == c.size {
		return capture.BytesValue(p), nil
	}
	if len(p) > c.size {
		return capture.Value{}, errForm
	}
	out := b.Alloc(c.size)
	clear(out[copy(out, p):])
	return capture.BytesValue(out), nil
}

// label is the label with a number: 0 is the empty string, which stands for a label that
// did not exist when it was stored.
func (c *cell) label(n uint64) (capture.Value, error) {
	if n == 0 {
		return capture.TextValue(""), nil
	}
	if n > uint64(len(c.labels)) {
		return capture.Value{}, fmt.Errorf("its number %d is beyond the %d labels", n, len(c.labels))
	}
	return c.labels[n-1], nil
}

// members is the labels whose bits are set, with commas between them.
func (c *cell) members(b *capture.Batch, set uint64) (capture.Value, error) {
	size := 0
	for i := range c.labels {
		if set>>i&1 != 0 {
			size += len(c.labels[i].Bytes()) + 1
		}
	}
	if len(c.labels) < 64 && set>>len(c.labels) != 0 {
		return capture.Value{}, fmt.Errorf("its bits %b are beyond the %d labels", set, len(c.labels))
	}
	if size == 0 {
		return capture.TextValue(""), nil
	}
	out := b.Alloc(size)[:0]
	for i := range c.labels {
		if set>>i&1 != 0 {
			out = append(append(out, c.labels[i].Bytes()...), ',')
		}
	}
	return capture.StringValue(out[:size-1]), nil
}

// geometry takes the spatial reference from the front: SRID(4) WKB.
// https://dev.mysql.com/doc/refman/8.4/en/gis-data-formats.html#gis-internal-format
func (c *cell) geometry(b *capture.Batch, p []byte) (capture.Value, error) {
	if len(p) < 4+5 {
		return capture.Value{}, errForm
	}
	srid, wkb := binary.LittleEndian.Uint32(p), p[4:]
	return capture.GeometryValue(wkb, srid, srid != 0), nil
}

// vectorValue reads numbers of 32 bits.
func vectorValue(b *capture.Batch, p []byte) (capture.Value, error) {
	if len(p)%4 != 0 {
		return capture.Value{}, errForm
	}
	elems := b.Row(len(p) / 4)
	for i := range elems {
		elems[i] = capture.FloatValue(float64(math.Float32frombits(binary.LittleEndian.Uint32(p[4*i:]))))
	}
	return capture.ArrayValue(elems), nil
}

// inflateColumn undoes the compression of MariaDB's COMPRESSED columns. No bytes are the
// empty string; else 0 stands before plain bytes, and before others
//
//	0x80 | raw<<3 | n(1) size(n, big-endian) deflate
//
// where raw is 0 for zlib's frame around the data.
// https://mariadb.com/kb/en/storage-engine-independent-column-compression/
func inflateColumn(p []byte) ([]byte, error) {
	if len(p) == 0 || p[0] == 0 {
		return p[min(1, len(p)):], nil
	}
	r := cursor{rest: p}
	head := r.uint8()
	var size uint64
	for _, c := range r.bytes(int(head & 7)) {
		size = size<<8 | uint64(c)
	}
	if r.failed || head&0xf0 != 0x80 || size > math.MaxUint32 {
		return nil, errForm
	}
	return inflate(r.rest, head&8 != 0, int(size))
}

// uuidValue prints 16 bytes as the server does.
func uuidValue(b *capture.Batch, p []byte) capture.Value {
	out := b.Alloc(36)
	i := 0
	for j, c := range p[:16] {
		if j == 4 || j == 6 || j == 8 || j == 10 {
			out[i] = '-'
			i++
		}
		i += hex.Encode(out[i:], []byte{c})
	}
	return capture.StringValue(out)
}

// inetValue prints an address as the server does: 4 bytes or 16.
func inetValue(b *capture.Batch, p []byte) capture.Value {
	var buf [48]byte
	if len(p) == 4 {
		return capture.StringValue(b.Copy(appendIPv4(buf[:0], p)))
	}
	// The longest run of zeros, the first of them, is left out, even a single one.
	begin, run := 0, 0
	for i := 0; i < 8; i++ {
		n := 0
		for i+n < 8 && p[2*(i+n)] == 0 && p[2*(i+n)+1] == 0 {
			n++
		}
		if n > run {
			begin, run = i, n
		}
		i += n
	}
	dotted := begin == 0 && (run == 6 || run == 5 && p[10] == 0xff && p[11] == 0xff)
	out := buf[:0]
	for i := 0; i < 8; i++ {
		if run > 0 && i == begin {
			out = append(out, "::"...)
			i += run - 1
			continue
		}
		if i > 0 && (run == 0 || i != begin+run) {
			out = append(out, ':')
		}
		if dotted && i == 6 {
			out = appendIPv4(out, p[12:])
			break
		}
		out = strconv.AppendUint(out, uint64(binary.BigEndian.Uint16(p[2*i:])), 16)
	}
	return capture.StringValue(b.Copy(out))
}

func appendIPv4(out, p []byte) []byte {
	for i, c := range p[:4] {
		if i > 0 {
			out = append(out, '.')
		}
		out = strconv.AppendUint(out, uint64(c), 10)
	}
	return out
}
