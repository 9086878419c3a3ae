package mysql

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/headwaterdb/headwater/capture"
)

// MySQL logs JSON as it stores it, in a binary form. An object or array has a table of
// where its values lie; small ones count in 2 bytes and large ones in 4:
//
//	object: elements bytes { key_offset key_length(2) }… { type(1) value_or_offset }… keys values
//	array:  elements bytes { type(1) value_or_offset }… values
//
// https://dev.mysql.com/doc/dev/mysql-server/latest/json__binary_8h.html
//
// Our text of a value can be made from the log and from what a query prints alike, so that
// it is the same in snapshot and stream. It is what the server prints, without blanks
// between the tokens, and without exponents: a number that the server prints with one is
// written out, with all digits of its exact binary value. What JSON itself does not have
// is text as the server prints it: dates, times, and base64:typeN: before other values.

// Types of binary JSON.
const (
	jsonSmallObject = 0x00
	jsonLargeObject = 0x01
	jsonSmallArray  = 0x02
	jsonLargeArray  = 0x03
	jsonLiteral     = 0x04
	jsonInt16       = 0x05
	jsonUint16      = 0x06
	jsonInt32       = 0x07
	jsonUint32      = 0x08
	jsonInt64       = 0x09
	jsonUint64      = 0x0a
	jsonDouble      = 0x0b
	jsonString      = 0x0c
	jsonOpaque      = 0x0f
)

const (
	literalNull  = 0
	literalTrue  = 1
	literalFalse = 2
)

// maxJSONDepth is how deep the server lets documents be.
const maxJSONDepth = 100

var errJSON = errors.New("its binary JSON is of an unknown form")

// json decodes a document.
func (r *rowReader) json(p []byte) (capture.Value, error) {
	out, err := appendJSON(r.scratch[:0], p)
	if cap(out) <= keepScratch {
		r.scratch = out
	}
	if err != nil {
		return capture.Value{}, err
	}
	return capture.StringValue(r.b.Copy(out)), nil
}

// keepScratch bounds the memory that is kept from one document to the next.
const keepScratch = 1 << 20

// appendJSON appends a document as text. A value of no bytes is what INSERT IGNORE makes
// of NULL in a column without it: the server prints it as null.
func appendJSON(out, doc []byte) ([]byte, error) {
	if len(doc) == 0 {
		return append(out, "null"...), nil
	}
	var d jsonReader
	d.take(doc)
	return d.value(out, doc[0], doc[1:], 0)
}

// A jsonReader renders binary JSON.
type jsonReader struct {
	// left bounds the work: each byte of a document belongs to one value, but offsets
	// that lie could let many values share the same bytes.
	left int
}

// take says that what is rendered may have the bytes of one more document.
func (d *jsonReader) take(doc []byte) { d.left += 2 * len(doc) }

// spend says that a value has n bytes.
func (d *jsonReader) spend(n int) bool {
	d.left -= n
	return d.left >= 0
}

// value appends the value that p begins with.
func (d *jsonReader) value(out []byte, typ byte, p []byte, depth int) ([]byte, error) {
	switch typ {
	case jsonSmallObject, jsonLargeObject, jsonSmallArray, jsonLargeArray:
		return d.container(out, typ, p, depth)
	case jsonLiteral:
		if len(p) < 1 {
			return out, errJSON
		}
		switch p[0] {
		case literalNull:
			return append(out, "null"...), nil
		case literalTrue:
			return append(out, "true"...), nil
		case literalFalse:
			return append(out, "false"...), nil
		}
		return out, errJSON
	}
	size := jsonSizes[typ&15]
	if typ > jsonOpaque || len(p) < size {
		return out, errJSON
	}
	switch typ {
	case jsonInt16:
		return strconv.AppendInt(out, int64(int16(binary.LittleEndian.Uint16(p))), 10), nil
	case jsonUint16:
		return strconv.AppendUint(out, uint64(binary.LittleEndian.Uint16(p)), 10), nil
	case jsonInt32:
		return strconv.AppendInt(out, int64(int32(binary.LittleEndian.Uint32(p))), 10), nil
	case jsonUint32:
		return strconv.AppendUint(out, uint64(binary.LittleEndian.Uint32(p)), 10), nil
	case jsonInt64:
		return strconv.AppendInt(out, int64(binary.LittleEndian.Uint64(p)), 10), nil
	case jsonUint64:
		return strconv.AppendUint(out, binary.LittleEndian.Uint64(p), 10), nil
	case jsonDouble:
		return appendJSONDouble(out, math.Float64frombits(binary.LittleEndian.Uint64(p)))
	case jsonString:
		s, ok := jsonBytes(p)
		if !ok || !d.spend(len(s)) {
			return out, errJSON
		}
		return appendJSONString(out, s)
	case jsonOpaque:
		s, ok := jsonBytes(p[1:])
		if !ok || !d.spend(len(s)) {
			return out, errJSON
		}
		return appendOpaque(out, p[0], s)
	}
	return out, errJSON
}

// jsonSizes is the least that a value of each type has.
var jsonSizes = [16]int{
	jsonInt16: 2, jsonUint16: 2, jsonInt32: 4, jsonUint32: 4, jsonInt64: 8, jsonUint64: 8, jsonDouble: 8,
	jsonString: 1, jsonOpaque: 2,
}

// jsonBytes reads a length, seven bits to a byte with the low ones first, and as many
// bytes.
func jsonBytes(p []byte) ([]byte, bool) {
	n := 0
	for i := range min(len(p), 5) {
		n |= int(p[i]&0x7f) << (7 * i)
		if p[i]&0x80 == 0 {
			p = p[i+1:]
			return p[:min(n, len(p)):min(n, len(p))], n <= len(p)
		}
	}
	return nil, false
}

// A jsonTable is the table of an object or array.
type jsonTable struct {
	p      []byte // the whole container
	count  int
	width  int // of offsets: 2 or 4
	object bool
}

func readJSONTable(typ byte, p []byte) (jsonTable, bool) {
	t := jsonTable{width: 2, object: typ == jsonSmallObject || typ == jsonLargeObject}
	if typ == jsonLargeObject || typ == jsonLargeArray {
		t.width = 4
	}
	if len(p) < 2*t.width {
		return t, false
	}
	count, size := uintN(p, t.width), uintN(p[t.width:], t.width)
	if size > uint64(len(p)) {
		return t, false
	}
	t.p = p[:size]
	entry := uint64(1 + t.width)
	if t.object {
		entry += uint64(t.width + 2)
	}
	if uint64(2*t.width)+count*entry > size {
		return t, false
	}
	t.count = int(count)
	return t, true
}

// key returns the key of entry i of an object.
func (t *jsonTable) key(i int) ([]byte, bool) {
	e := t.p[2*t.width+i*(t.width+2):]
	at, n := uintN(e, t.width), uint64(binary.LittleEndian.Uint16(e[t.width:]))
	if at+n > uint64(len(t.p)) {
		return nil, false
	}
	return t.p[at : at+n], true
}

// value returns the type of entry i, and the bytes that its value begins.
func (t *jsonTable) value(i int) (typ byte, p []byte, ok bool) {
	at := 2 * t.width
	if t.object {
		at += t.count * (t.width + 2)
	}
	e := t.p[at+i*(1+t.width):]
	typ = e[0]
	switch {
	case typ == jsonLiteral, typ == jsonInt16, typ == jsonUint16, t.width == 4 && (typ == jsonInt32 || typ == jsonUint32):
		return typ, e[1 : 1+t.width], true // it lies in the table
	}
	offset := uintN(e[1:], t.width)
	if offset >= uint64(len(t.p)) {
		return 0, nil, false
	}
	return typ, t.p[offset:], true
}

func (d *jsonReader) container(out []byte, typ byte, p []byte, depth int) ([]byte, error) {
	t, ok := readJSONTable(typ, p)
	if !ok || depth >= maxJSONDepth || !d.spend(1+2*t.width+t.count*(1+t.width)) {
		return out, errJSON
	}
	open, end := byte('['), byte(']')
	if t.object {
		open, end = '{', '}'
	}
	out = append(out, open)
	var err error
	for i := range t.count {
		if i > 0 {
			out = append(out, ',')
		}
		if t.object {
			k, ok := t.key(i)
			if !ok || !d.spend(len(k)) {
				return out, errJSON
			}
			if out, err = appendJSONString(out, k); err != nil {
				return out, err
			}
			out = append(out, ':')
		}
		typ, p, ok := t.value(i)
		if !ok {
			return out, errJSON
		}
		if out, err = d.value(out, typ, p, depth+1); err != nil {
			return out, err
		}
	}
	return append(out, end), nil
}

// appendJSONString appends a string with the escapes that the server prints.
func appendJSONString(out, s []byte) ([]byte, error) {
	if !utf8.Valid(s) {
		return out, errors.New("a string in its JSON is not UTF-8")
	}
	out = append(out, '"')
	from := 0
	for i, c := range s {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		out = append(out, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\b':
			out = append(out, '\\', 'b')
		case '\f':
			out = append(out, '\\', 'f')
		case '\n':
			out = append(out, '\\', 'n')
		case '\r':
			out = append(out, '\\', 'r')
		case '\t':
			out = append(out, '\\', 't')
		default:
			const hex = "0123456789abcdef"
			out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(out, s[from:]...), '"'), nil
}

// appendJSONDouble appends a number of 64 bits. The server prints the shortest digits
// that give it back; with an exponent if the point lies more than 15 places before the
// first of them or behind the last, which is the sixteenth or later.
func appendJSONDouble(out []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return out, errJSON
	}
	var buf [32]byte
	text := strconv.AppendFloat(buf[:0], math.Abs(f), 'e', -1, 64) // d.d…e±n
	mark := bytes.IndexByte(text, 'e')
	exponent, _ := strconv.Atoi(string(text[mark+1:]))
	digits, point := max(mark-1, 1), exponent+1
	if f != 0 && (point > 15 && point >= digits || point < -14) {
		return appendExact(out, f), nil
	}
	begin := len(out)
	out = strconv.AppendFloat(out, f, 'f', -1, 64)
	if bytes.IndexByte(out[begin:], '.') < 0 {
		out = append(out, '.', '0')
	}
	return out, nil
}

// appendExact appends all digits of f, without an exponent.
func appendExact(out []byte, f float64) []byte {
	const most = 1074 // digits behind the point that a float64 can have
	if f == math.Trunc(f) {
		return strconv.AppendFloat(out, f, 'f', 0, 64)
	}
	out = strconv.AppendFloat(out, f, 'f', most, 64)
	return bytes.TrimRight(out, "0")
}

// appendOpaque appends a value of a type that JSON does not have.
func appendOpaque(out []byte, typ byte, p []byte) ([]byte, error) {
	switch typ {
	case typeNewDecimal: // precision(1) scale(1) decimal
		if len(p) < 3 {
			return out, errJSON
		}
		precision, scale := int(p[0]), int(p[1])
		if precision < 1 || precision > 2*maxPrecision || scale > precision || decimalSize(precision, scale) != len(p)-2 {
			return out, errJSON
		}
		out, ok := appendDecimal(out, p[2:], precision, scale)
		if !ok {
			return out, errJSON
		}
		return out, nil
	case typeDate, typeTime, typeDatetime, typeTimestamp:
		if len(p) != 8 {
			return out, errJSON
		}
		return appendPackedTime(out, typ, int64(binary.LittleEndian.Uint64(p))), nil
	}
	out = append(out, `"base64:type`...)
	out = strconv.AppendUint(out, uint64(typ), 10)
	out = append(out, ':')
	return append(base64.StdEncoding.AppendEncode(out, p), '"'), nil
}

// appendPackedTime appends a date or time, which is packed into 40 bits as a column's,
// and 24 bits of microseconds.
func appendPackedTime(out []byte, typ byte, n int64) []byte {
	out = append(out, '"')
	negative := n < 0
	if negative {
		n = -n
	}
	u, micros := uint64(n)>>24, int(uint64(n)&(1<<24-1))
	if typ == typeTime {
		if negative {
			out = append(out, '-')
		}
		out = appendClock(out, int(u>>12&1023), u, micros)
		return append(out, '"')
	}
	ym := int(u >> 22)
	out = appendPadded(out, ym/13, 4)
	out = appendPadded(append(out, '-'), ym%13, 2)
	out = appendPadded(append(out, '-'), int(u>>17&31), 2)
	if typ != typeDate {
		out = appendClock(append(out, ' '), int(u>>12&31), u, micros)
	}
	return append(out, '"')
}

func appendClock(out []byte, hours int, u uint64, micros int) []byte {
	out = appendPadded(out, hours, 2)
	out = appendPadded(append(out, ':'), int(u>>6&63), 2)
	out = appendPadded(append(out, ':'), int(u&63), 2)
	return appendPadded(append(out, '.'), micros, 6)
}

func appendPadded(out []byte, n, digits int) []byte {
	for limit := 10; digits > 1; digits-- {
		if n < limit {
			out = append(out, '0')
		}
		limit *= 10
	}
	return strconv.AppendInt(out, int64(n), 10)
}

// A partial update (binlog_row_value_options=PARTIAL_JSON) has a list of differences to
// the old document in the place of the new one:
//
//	{ operation(1) path_length path [ value_length value ] }…
//
// https://dev.mysql.com/doc/dev/mysql-server/latest/classJson__diff.html
const (
	diffReplace = 0
	diffInsert  = 1
	diffRemove  = 2
)

// jsonDocument returns the document of a JSON value in an image, or nil.
func jsonDocument(p []byte) []byte {
	n := uint64(binary.LittleEndian.Uint32(p))
	if n > uint64(len(p)-4) {
		return nil
	}
	return p[4 : 4+n : 4+n]
}

// errNoDocument says that a partial update changes a document that the old image does not
// carry.
var errNoDocument = errors.New("the log holds only a difference to the old document, which it does not hold (binlog_row_value_options = PARTIAL_JSON together with another binlog_row_image than FULL)")

// patch makes the new document of a column from the old one and the differences that p
// begins with.
func (r *rowReader) patch(column int, p []byte) (v capture.Value, used int, err error) {
	if len(p) < 4 {
		return v, 0, errShort
	}
	diffs := jsonDocument(p)
	if diffs == nil {
		return v, 0, errShort
	}
	old := r.docs[column]
	if old == nil {
		return v, 0, errNoDocument
	}
	var d jsonReader
	root, err := d.parse(old)
	if err != nil {
		return v, 0, err
	}
	c := cursor{rest: diffs}
	for len(c.rest) > 0 {
		operation := c.uint8()
		path := c.sized()
		var value *jsonNode
		if operation != diffRemove {
			doc := c.sized()
			if c.failed {
				return v, 0, errJSON
			}
			if value, err = d.parse(doc); err != nil {
				return v, 0, err
			}
		}
		if c.failed {
			return v, 0, errJSON
		}
		if err := root.apply(operation, path, value); err != nil {
			return v, 0, err
		}
	}
	out, err := d.tree(r.scratch[:0], root, 0)
	if err != nil {
		return v, 0, err
	}
	if cap(out) <= keepScratch {
		r.scratch = out
	}
	return capture.StringValue(r.b.Copy(out)), 4 + len(diffs), nil
}

// A jsonNode is a document that can be changed. Values that are no container stay in
// binary form.
type jsonNode struct {
	typ     byte
	scalar  []byte
	object  bool
	members []jsonMember // of an object in the server's order, or of an array without keys
}

type jsonMember struct {
	key  []byte
	node *jsonNode
}

// parse makes a tree of one more document.
func (d *jsonReader) parse(doc []byte) (*jsonNode, error) {
	if len(doc) == 0 {
		return &jsonNode{typ: jsonLiteral, scalar: []byte{literalNull}}, nil
	}
	d.take(doc)
	return d.node(doc[0], doc[1:], 0)
}

func (d *jsonReader) node(typ byte, p []byte, depth int) (*jsonNode, error) {
	n := &jsonNode{typ: typ, scalar: p}
	if typ > jsonLargeArray {
		return n, nil
	}
	t, ok := readJSONTable(typ, p)
	if !ok || depth >= maxJSONDepth || !d.spend(1+2*t.width+t.count*(1+t.width)) {
		return nil, errJSON
	}
	n.object = t.object
	n.members = make([]jsonMember, t.count)
	for i := range n.members {
		m := &n.members[i]
		if t.object {
			if m.key, ok = t.key(i); !ok || !d.spend(len(m.key)) {
				return nil, errJSON
			}
		}
		typ, p, ok := t.value(i)
		if !ok {
			return nil, errJSON
		}
		var err error
		if m.node, err = d.node(typ, p, depth+1); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *jsonNode) isContainer() bool { return n.typ <= jsonLargeArray }

// tree appends a node as text.
func (d *jsonReader) tree(out []byte, n *jsonNode, depth int) ([]byte, error) {
	if !n.isContainer() {
		return d.value(out, n.typ, n.scalar, depth)
	}
	if depth >= maxJSONDepth {
		return out, errJSON
	}
	open, end := byte('['), byte(']')
	if n.object {
		open, end = '{', '}'
	}
	out = append(out, open)
	var err error
	for i, m := range n.members {
		if i > 0 {
			out = append(out, ',')
		}
		if n.object {
			if out, err = appendJSONString(out, m.key); err != nil {
				return out, err
			}
			out = append(out, ':')
		}
		if out, err = d.tree(out, m.node, depth+1); err != nil {
			return out, err
		}
	}
	return append(out, end), nil
}

// errPatch says that a difference does not fit the old document.
var errPatch = errors.New("a difference in the log does not fit the old document")

// apply changes the document at a path. The last leg names what is replaced, inserted or
// removed.
func (n *jsonNode) apply(operation byte, path []byte, value *jsonNode) error {
	legs, err := parseJSONPath(path)
	if err != nil {
		return err
	}
	if len(legs) == 0 {
		if operation != diffReplace {
			return errPatch
		}
		*n = *value
		return nil
	}
	last := legs[len(legs)-1]
	for _, l := range legs[:len(legs)-1] {
		i, ok := n.find(l)
		if !ok {
			return errPatch
		}
		n = n.members[i].node
	}
	if !n.isContainer() || n.object != last.member {
		return errPatch
	}
	i, ok := n.find(last)
	switch {
	case operation == diffReplace && ok:
		n.members[i].node = value
	case operation == diffRemove && ok:
		n.members = slices.Delete(n.members, i, i+1)
	case operation == diffInsert && (!ok || !n.object):
		n.members = slices.Insert(n.members, i, jsonMember{last.key, value})
	default:
		return errPatch
	}
	return nil
}

// find returns where the member of a leg is, or would be inserted.
func (n *jsonNode) find(l jsonLeg) (i int, ok bool) {
	switch {
	case !n.isContainer() || n.object != l.member:
		return 0, false
	case l.member:
		return slices.BinarySearchFunc(n.members, l.key, func(m jsonMember, key []byte) int { return compareJSONKeys(m.key, key) })
	}
	return min(l.index, len(n.members)), l.index < len(n.members)
}

// compareJSONKeys orders the keys of an object as the server does: short ones first.
func compareJSONKeys(a, b []byte) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare(a, b)
}

// A jsonLeg is a step of a path: .key, ."key" or [index].
type jsonLeg struct {
	member bool
	key    []byte
	index  int
}

// parseJSONPath reads the legs of a path. The log has them with and without the $ before
// them.
func parseJSONPath(path []byte) ([]jsonLeg, error) {
	bad := fmt.Errorf("the path %q of a difference in the log is of an unknown form", path)
	var legs []jsonLeg
	p := bytes.TrimPrefix(path, []byte("$"))
	for len(p) > 0 {
		switch p[0] {
		case '[':
			i := bytes.IndexByte(p, ']')
			if i < 0 {
				return nil, bad
			}
			n, err := strconv.ParseUint(string(p[1:i]), 10, 31)
			if err != nil {
				return nil, bad
			}
			legs = append(legs, jsonLeg{index: int(n)})
			p = p[i+1:]
		case '.':
			p = p[1:]
			if len(p) > 0 && p[0] == '"' {
				key, rest, ok := unquoteJSON(p)
				if !ok {
					return nil, bad
				}
				legs = append(legs, jsonLeg{member: true, key: key})
				p = rest
				continue
			}
			i := bytes.IndexAny(p, ".[")
			if i < 0 {
				i = len(p)
			}
			legs = append(legs, jsonLeg{member: true, key: p[:i:i]})
			p = p[i:]
		default:
			return nil, bad
		}
	}
	return legs, nil
}

// unquoteJSON reads a JSON string from the front of p.
func unquoteJSON(p []byte) (text, rest []byte, ok bool) {
	for i := 1; i < len(p); i++ {
		switch p[i] {
		case '"':
			return text, p[i+1:], true
		case '\\':
			if i++; i == len(p) {
				return nil, nil, false
			}
			switch p[i] {
			case 'b':
				text = append(text, '\b')
			case 'f':
				text = append(text, '\f')
			case 'n':
				text = append(text, '\n')
			case 'r':
				text = append(text, '\r')
			case 't':
				text = append(text, '\t')
			case 'u':
				if i+4 >= len(p) {
					return nil, nil, false
				}
				r, err := strconv.ParseUint(string(p[i+1:i+5]), 16, 16)
				if err != nil {
					return nil, nil, false
				}
				text = utf8.AppendRune(text, rune(r))
				i += 4
			default:
				text = append(text, p[i])
			}
		default:
			text = append(text, p[i])
		}
	}
	return nil, nil, false
}
