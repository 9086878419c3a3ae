package avro

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/schema"
)

// appendStruct appends one of the semantic types that are records.
func appendStruct(b []byte, t *schema.Type, v *capture.Value) ([]byte, error) {
	switch t.Form {
	case schema.FormVarDecimal:
		return appendVarDecimal(b, v)
	case schema.FormPoint:
		p, err := schema.Point(v)
		if err != nil {
			return b, err
		}
		b = append(appendDouble(appendDouble(b, p.X), p.Y), second)
		if p.WKB != nil {
			b = appendBytes(b, p.WKB)
		} else {
			b = schema.AppendPointWKB(appendLong(b, schema.PointWKBLen), p.X, p.Y)
		}
		return appendSRID(b, p.SRID, p.HasSRID), nil
	case schema.FormGeometry:
		if v.Kind() != capture.Geometry {
			return b, errKind
		}
		srid, hasSRID := v.SRID()
		return appendSRID(appendBytes(b, v.Bytes()), srid, hasSRID), nil
	}
	return appendSparseVector(b, v)
}

func appendSRID(b []byte, srid uint32, ok bool) []byte {
	if !ok {
		return append(b, first)
	}
	return appendLong(append(b, second), int64(int32(srid)))
}

// appendVarDecimal appends the scale, which is known only after the digits were read.
func appendVarDecimal(b []byte, v *capture.Value) ([]byte, error) {
	if v.Kind() != capture.Decimal {
		return b, errKind
	}
	at := len(b)
	b, scale, err := schema.AppendVariable(append(b, 0, 0), v.Bytes())
	if err != nil {
		return b, err
	}
	if scale < 64 {
		b[at] = byte(scale << 1)
		return closeBytes(b, at+1), nil
	}
	digits := append([]byte(nil), b[at+2:]...)
	return appendBytes(appendLong(b[:at], int64(scale)), digits), nil
}

func appendSparseVector(b []byte, v *capture.Value) ([]byte, error) {
	if v.Kind() != capture.Map {
		return b, errKind
	}
	dim := v.Int()
	if dim > math.MaxInt16 {
		return b, errRange
	}
	pairs := v.Elems()
	b = appendLong(b, dim)
	if len(pairs) > 0 {
		b = appendLong(b, int64(len(pairs)/2))
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i].Kind() != capture.Int || pairs[i+1].Kind() != capture.Float {
			return b, errKind
		}
		b = appendDouble(appendLong(b, pairs[i].Int()), pairs[i+1].Float())
	}
	return append(b, 0), nil
}

// appendMap appends a map of text to text that may be null.
func appendMap(b []byte, v *capture.Value) ([]byte, error) {
	if v.Kind() != capture.Map {
		return b, errKind
	}
	pairs := v.Elems()
	if len(pairs) > 0 {
		b = appendLong(b, int64(len(pairs)/2))
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		key, val := &pairs[i], &pairs[i+1]
		if key.Kind() != capture.String || val.Kind() != capture.String && !val.IsNull() {
			return b, errKind
		}
		if !utf8.Valid(key.Bytes()) || !val.IsNull() && !utf8.Valid(val.Bytes()) {
			return b, errUTF8
		}
		b = appendBytes(b, key.Bytes())
		if val.IsNull() {
			b = append(b, first)
		} else {
			b = appendBytes(append(b, second), val.Bytes())
		}
	}
	return append(b, 0), nil
}

// appendArray appends an array. Inner dimensions are flattened, first index slowest,
// and a record header says what they were.
func (e *Encoder) appendArray(b []byte, t *schema.Type, v *capture.Value, field string) ([]byte, error) {
	if v.Kind() != capture.Array {
		return b, errKind
	}
	elems := v.Elems()
	if len(elems) == 0 {
		return append(b, 0), nil
	}
	if elems[0].Kind() == capture.Array && t.Items.Form != schema.FormArray {
		return e.appendDimensions(b, t, v, field)
	}
	b = appendLong(b, int64(len(elems)))
	for i := range elems {
		var err error
		if b, err = e.appendElement(b, t.Items, &elems[i], field); err != nil {
			return b, err
		}
	}
	return append(b, 0), nil
}

// appendElement appends an element. One that its type cannot hold is null, as a NaN
// in an array of decimals.
func (e *Encoder) appendElement(b []byte, t *schema.Type, v *capture.Value, field string) ([]byte, error) {
	if !t.Optional {
		if v.IsNull() {
			return b, errNull
		}
		return e.appendValue(b, t, v, field)
	}
	if v.IsNull() {
		return append(b, first), nil
	}
	at := len(b)
	b, err := e.appendValue(append(b, second), t, v, field)
	if err != nil {
		return e.unrepresentable(b[:at], &column{optional: true, none: first, name: field}, v, err)
	}
	return b, nil
}

func (e *Encoder) appendDimensions(b []byte, t *schema.Type, v *capture.Value, field string) ([]byte, error) {
	total := 1
	var dims []byte
	for d := v; d.Kind() == capture.Array; {
		n := len(d.Elems())
		if dims != nil {
			dims = append(dims, 'x')
		}
		dims = strconv.AppendInt(dims, int64(n), 10)
		total *= n
		if n == 0 {
			break
		}
		d = &d.Elems()[0]
	}
	e.marks.dims = addMark(e.marks.dims, field, string(dims))
	if total == 0 {
		return append(b, 0), nil
	}
	b = appendLong(b, int64(total))
	b, n, err := e.appendLeaves(b, t.Items, v, field)
	switch {
	case err != nil:
		return b, err
	case n != total:
		return b, errDepth
	}
	return append(b, 0), nil
}

// appendLeaves appends what stands at the bottom of nested arrays, and counts it.
func (e *Encoder) appendLeaves(b []byte, t *schema.Type, v *capture.Value, field string) ([]byte, int, error) {
	if v.Kind() != capture.Array {
		b, err := e.appendElement(b, t, v, field)
		return b, 1, err
	}
	n := 0
	elems := v.Elems()
	for i := range elems {
		var m int
		var err error
		if b, m, err = e.appendLeaves(b, t, &elems[i], field); err != nil {
			return b, n, err
		}
		n += m
	}
	return b, n, nil
}
