package avro

import (
	"errors"
	"math"
	"unicode/utf8"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/schema"
)

// Branches of a two-way union.
const (
	first  byte = 0
	second byte = 2 // zigzag of 1
)

// A column is how one field of a key or row is written.
type column struct {
	typ   *schema.Type
	index int // of the value in the row
	// optional fields begin with a branch: some for a value, none for null.
	optional   bool
	some, none byte
	// null, absent and unavailable are what the values without payload become, with
	// their branch. A nil one is an error.
	null, absent, unavailable []byte
	// zero is what a value that the type cannot hold becomes where a setting allows it.
	zero []byte
	name string // of the field
}

// marks collects what record headers say about fields of the record at hand, comma
// separated.
type marks struct {
	unavailable, unrepresentable, dims []byte
}

func (m *marks) reset() {
	m.unavailable, m.unrepresentable, m.dims = m.unavailable[:0], m.unrepresentable[:0], m.dims[:0]
}

func (m *marks) any() bool { return len(m.unavailable)+len(m.unrepresentable)+len(m.dims) > 0 }

var (
	errNull        = errors.New("the log holds NULL and the definition says NOT NULL; remedy: this is a defect of the reader, report it")
	errUnavailable = errors.New("the log does not repeat the unchanged value, and a field of this type can neither be null nor hold a placeholder; remedy: let the database log whole old rows, or let the column be NULL")
	errUTF8        = errors.New("the text is not valid UTF-8; remedy: correct the row, or the encoding of the database")
	errRange       = errors.New("the value does not fit the record type")
	errKind        = errors.New("the reader's value does not go with the column's type; remedy: this is a defect of the reader, report it")
	errDepth       = errors.New("an array's inner dimensions differ in length")
)

// appendRow appends a row image. It returns the column that failed.
func (e *Encoder) appendRow(b []byte, cols []column, row capture.Row) ([]byte, *column, error) {
	for i := range cols {
		c := &cols[i]
		var err error
		if b, err = e.appendColumn(b, c, &row[c.index]); err != nil {
			return b, c, err
		}
	}
	return b, nil, nil
}

func (e *Encoder) appendColumn(b []byte, c *column, v *capture.Value) ([]byte, error) {
	if v.Kind() <= capture.Unchanged {
		return e.appendMissing(b, c, v)
	}
	at := len(b)
	if c.optional {
		b = append(b, c.some)
	}
	grown, err := e.appendValue(b, c.typ, v, c.name)
	if err != nil {
		return e.unrepresentable(grown[:at], c, v, err)
	}
	return grown, nil
}

// appendMissing appends a value without payload.
func (e *Encoder) appendMissing(b []byte, c *column, v *capture.Value) ([]byte, error) {
	switch v.Kind() {
	case capture.Null:
		if c.null == nil {
			return b, errNull
		}
		return append(b, c.null...), nil
	case capture.Absent:
		return append(b, c.absent...), nil
	}
	if c.unavailable == nil {
		return b, errUnavailable
	}
	e.marks.unavailable = addMark(e.marks.unavailable, c.name, "")
	return append(b, c.unavailable...), nil
}

// unrepresentable appends what stands for a value that the type cannot hold: null, or
// zero if the settings say so. The record says it in a header.
func (e *Encoder) unrepresentable(b []byte, c *column, v *capture.Value, err error) ([]byte, error) {
	var what string
	zero := c.zero
	switch {
	case errors.Is(err, schema.ErrSpecial):
		what = string(v.Bytes())
		if !e.numericZero {
			zero = nil
		}
	case errors.Is(err, schema.ErrInfinite):
		if !e.infinityNull {
			return b, err
		}
		what, zero = infinityName(v), nil
	default:
		return b, err
	}
	switch {
	case c.optional:
		b = append(b, c.none)
	case zero != nil:
		b = append(b, zero...)
	default:
		return b, err
	}
	e.marks.unrepresentable = addMark(e.marks.unrepresentable, c.name, what)
	e.notice(schema.NoticeUnrepresentable, c.name, "the record cannot hold "+what)
	return b, nil
}

func infinityName(v *capture.Value) string {
	if v.Infinite() < 0 {
		return "-Infinity"
	}
	return "Infinity"
}

// addMark adds "name" or "name=what" to a comma-separated list that does not end
// with it yet.
func addMark(list []byte, name, what string) []byte {
	n := len(name)
	if what != "" {
		n += 1 + len(what)
	}
	at := len(list)
	if at > 0 {
		list = append(list, ',')
	}
	start := len(list)
	list = append(list, name...)
	if what != "" {
		list = append(append(list, '='), what...)
	}
	if hasMark(list[:at], list[start:start+n]) {
		return list[:at]
	}
	return list
}

func hasMark(list, mark []byte) bool {
	for len(list) >= len(mark) {
		end := len(list)
		for i, c := range list {
			if c == ',' {
				end = i
				break
			}
		}
		if string(list[:end]) == string(mark) {
			return true
		}
		if end == len(list) {
			return false
		}
		list = list[end+1:]
	}
	return false
}

// appendValue appends a value with payload, without a branch. The frequent forms come
// first; field is for the marks.
func (e *Encoder) appendValue(b []byte, t *schema.Type, v *capture.Value, field string) ([]byte, error) {
	switch t.Form {
	case schema.FormString:
		if v.Kind() != capture.String {
			return b, errKind
		}
		s := v.Bytes()
		if !utf8.Valid(s) {
			return b, errUTF8
		}
		return appendBytes(b, s), nil
	case schema.FormBytes:
		if v.Kind() != capture.Bytes && v.Kind() != capture.String {
			return b, errKind
		}
		return appendBytes(b, v.Bytes()), nil
	case schema.FormVarDecimal, schema.FormPoint, schema.FormGeometry, schema.FormSparseVector:
		return appendStruct(b, t, v)
	case schema.FormArray:
		return e.appendArray(b, t, v, field)
	case schema.FormMap:
		return appendMap(b, v)
	}
	switch t.Kind {
	case schema.String:
		at := len(b)
		b, err := t.AppendText(append(b, 0), v)
		if err != nil {
			return b, err
		}
		return closeBytes(b, at), nil
	case schema.Bytes:
		at := len(b)
		b, err := t.AppendBytes(append(b, 0), v)
		if err != nil {
			return b, err
		}
		return closeBytes(b, at), nil
	case schema.Boolean:
		p, err := t.Bool(v)
		return appendBool(b, p), err
	case schema.Float64:
		f, err := t.Float(v)
		return appendDouble(b, f), err
	case schema.Float32:
		f, err := t.Float(v)
		if math.Abs(f) > math.MaxFloat32 && !math.IsInf(f, 0) {
			return b, errRange
		}
		return appendFloat(b, float32(f)), err
	}
	i, err := t.Integer(v)
	return appendLong(b, i), err
}
