package capture

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"unsafe"
)

// A ValueKind says how to read a [Value]. The table is in the package comment.
type ValueKind uint8

const (
	// Null is SQL NULL, and the zero Value.
	Null ValueKind = iota
	// Absent marks a column that the log does not carry in this image, such as the
	// columns outside the key in the old image of a delete.
	Absent
	// Unchanged marks a column that the update did not touch and the log therefore
	// did not repeat.
	Unchanged
	Bool
	Int
	Uint
	Float
	Decimal
	String
	Bytes
	Date
	Time
	TimeTZ
	Timestamp
	TimestampTZ
	Interval
	Point
	Geometry
	Map
	Array
)

var valueKindNames = [...]string{
	"null", "absent", "unchanged", "bool", "int", "uint", "float", "decimal", "string", "bytes", "date", "time",
	"timetz", "timestamp", "timestamptz", "interval", "point", "geometry", "map", "array",
}

func (k ValueKind) String() string {
	if int(k) < len(valueKindNames) {
		return valueKindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// Payloads of the infinite Date, Timestamp and TimestampTZ.
const (
	PosInfinity = math.MaxInt64
	NegInfinity = math.MinInt64
)

// A Value is one cell of a row: a kind, 64 bits, and a view of bytes or of further
// values that the batch owns. It is 24 bytes, holds no interface and allocates
// nothing; a million rows of ten columns are ten million of them.
type Value struct {
	ptr  unsafe.Pointer // first byte, or first element of Array and Map
	num  uint64
	size uint32 // bytes or elements behind ptr; zone offset of TimeTZ; SRID+1 of Geometry lives in num
	kind ValueKind
}

// A Row is one image of a table's row, in the order of [Table.Columns].
type Row []Value

// NullValue, AbsentValue and UnchangedValue are the values without payload.
var (
	NullValue      = Value{}
	AbsentValue    = Value{kind: Absent}
	UnchangedValue = Value{kind: Unchanged}
)

// BoolValue makes a Bool.
func BoolValue(b bool) Value {
	v := Value{kind: Bool}
	if b {
		v.num = 1
	}
	return v
}

// IntValue makes an Int.
func IntValue(i int64) Value { return Value{kind: Int, num: uint64(i)} }

// UintValue makes a Uint.
func UintValue(u uint64) Value { return Value{kind: Uint, num: u} }

// FloatValue makes a Float.
func FloatValue(f float64) Value { return Value{kind: Float, num: math.Float64bits(f)} }

// DecimalValue makes a Decimal over text that the batch owns.
func DecimalValue(text []byte) Value { return bytesValue(Decimal, text) }

// StringValue makes a String over UTF-8 text that the batch owns.
func StringValue(text []byte) Value { return bytesValue(String, text) }

// TextValue makes a String over s, which needs no owner.
func TextValue(s string) Value { return bytesValue(String, unsafe.Slice(unsafe.StringData(s), len(s))) }

// BytesValue makes a Bytes over b, which the batch owns.
func BytesValue(b []byte) Value { return bytesValue(Bytes, b) }

// DateValue makes a Date: days since 1970-01-01, or an infinity.
func DateValue(days int64) Value { return Value{kind: Date, num: uint64(days)} }

// TimeValue makes a Time: microseconds since midnight.
func TimeValue(micros int64) Value { return Value{kind: Time, num: uint64(micros)} }

// TimeTZValue makes a TimeTZ: microseconds since local midnight and the zone's
// offset in seconds east of UTC.
func TimeTZValue(micros int64, offset int32) Value {
	return Value{kind: TimeTZ, num: uint64(micros), size: uint32(offset)}
}

// TimestampValue makes a Timestamp: microseconds since 1970-01-01, or an infinity.
func TimestampValue(micros int64) Value { return Value{kind: Timestamp, num: uint64(micros)} }

// TimestampTZValue makes a TimestampTZ: microseconds since 1970-01-01 UTC, or an infinity.
func TimestampTZValue(micros int64) Value { return Value{kind: TimestampTZ, num: uint64(micros)} }

// FarTimestampTZValue makes a TimestampTZ that lies seconds after micros, for instants
// beyond 64 bits of microseconds since 1970. Seconds is as small as it can be, so that
// equal instants are equal values; see [Value.Beyond].
func FarTimestampTZValue(micros int64, seconds uint32) Value {
	return Value{kind: TimestampTZ, num: uint64(micros), size: seconds}
}

// IntervalValue makes an Interval. mem holds months and days and must have 8 bytes
// that the batch owns.
func IntervalValue(mem []byte, months, days int32, micros int64) Value {
	binary.LittleEndian.PutUint32(mem[0:4], uint32(months))
	binary.LittleEndian.PutUint32(mem[4:8], uint32(days))
	v := bytesValue(Interval, mem[:8])
	v.num = uint64(micros)
	return v
}

// PointValue makes a Point. mem holds the coordinates and must have 16 bytes that
// the batch owns.
func PointValue(mem []byte, x, y float64) Value {
	binary.LittleEndian.PutUint64(mem[0:8], math.Float64bits(x))
	binary.LittleEndian.PutUint64(mem[8:16], math.Float64bits(y))
	return bytesValue(Point, mem[:16])
}

// GeometryValue makes a Geometry over (E)WKB bytes that the batch owns.
func GeometryValue(wkb []byte, srid uint32, hasSRID bool) Value {
	v := bytesValue(Geometry, wkb)
	if hasSRID {
		v.num = uint64(srid) + 1
	}
	return v
}

// ArrayValue makes an Array over elements that the batch owns.
func ArrayValue(elems []Value) Value {
	return Value{kind: Array, ptr: unsafe.Pointer(unsafe.SliceData(elems)), size: uint32(len(elems))}
}

// MapValue makes a Map over alternating keys and values that the batch owns. dim is
// the dimension of a sparse vector, else 0.
func MapValue(pairs []Value, dim int) Value {
	v := ArrayValue(pairs)
	v.kind, v.num = Map, uint64(dim)
	return v
}

func bytesValue(k ValueKind, b []byte) Value {
	if uint64(len(b)) > math.MaxUint32 {
		panic("capture: a value of 4 GiB or more")
	}
	return Value{kind: k, ptr: unsafe.Pointer(unsafe.SliceData(b)), size: uint32(len(b))}
}

// Kind says what the value is.
func (v *Value) Kind() ValueKind { return v.kind }

// IsNull reports whether the value is SQL NULL.
func (v *Value) IsNull() bool { return v.kind == Null }

// Bool returns the payload of a Bool.
func (v *Value) Bool() bool { return v.num != 0 }

// Int returns the payload of an Int, Date, Time, TimeTZ, Timestamp or TimestampTZ,
// the microseconds of an Interval, and the dimension of a sparse vector.
func (v *Value) Int() int64 { return int64(v.num) }

// Beyond returns the seconds that come on top of Int in a TimestampTZ: 0 but for
// instants after 294247-01-10, where 64 bits of microseconds end.
func (v *Value) Beyond() uint32 { return v.size }

// Uint returns the payload of a Uint.
func (v *Value) Uint() uint64 { return v.num }

// Float returns the payload of a Float.
func (v *Value) Float() float64 { return math.Float64frombits(v.num) }

// Infinite reports +1 or -1 for an infinite Date, Timestamp or TimestampTZ, else 0.
func (v *Value) Infinite() int {
	switch int64(v.num) {
	case PosInfinity:
		return 1
	case NegInfinity:
		return -1
	}
	return 0
}

// Bytes returns the view behind a Decimal, String, Bytes or Geometry. It is valid
// until the batch is released and must not be changed.
func (v *Value) Bytes() []byte {
	if v.kind == Array || v.kind == Map {
		panic("capture: Bytes of an " + v.kind.String())
	}
	return unsafe.Slice((*byte)(v.ptr), v.size)
}

// Elems returns the elements of an Array, or keys and values of a Map, as a view.
func (v *Value) Elems() []Value {
	if v.kind != Array && v.kind != Map {
		panic("capture: Elems of a " + v.kind.String())
	}
	return unsafe.Slice((*Value)(v.ptr), v.size)
}

// ZoneOffset returns the offset of a TimeTZ in seconds east of UTC.
func (v *Value) ZoneOffset() int32 { return int32(v.size) }

// Interval returns months, days and microseconds of an Interval.
func (v *Value) Interval() (months, days int32, micros int64) {
	b := v.Bytes()
	return int32(binary.LittleEndian.Uint32(b[0:4])), int32(binary.LittleEndian.Uint32(b[4:8])), int64(v.num)
}

// Point returns the coordinates of a Point.
func (v *Value) Point() (x, y float64) {
	b := v.Bytes()
	return math.Float64frombits(binary.LittleEndian.Uint64(b[0:8])), math.Float64frombits(binary.LittleEndian.Uint64(b[8:16]))
}

// SRID returns the spatial reference of a Geometry, if it has one.
func (v *Value) SRID() (srid uint32, ok bool) { return uint32(v.num - 1), v.num != 0 }

// hasBytes says whether the payload of the kind includes bytes behind ptr.
func (k ValueKind) hasBytes() bool {
	switch k {
	case Decimal, String, Bytes, Interval, Point, Geometry:
		return true
	}
	return false
}

// AppendKey appends a form of the value in which two values are equal if and only
// if their kinds and payloads are: it compares, it does not sort.
func (v *Value) AppendKey(b []byte) []byte {
	b = append(b, byte(v.kind))
	switch {
	case v.kind == Array || v.kind == Map:
		b = binary.AppendUvarint(b, uint64(v.size))
		b = binary.AppendUvarint(b, v.num)
		for i := range v.Elems() {
			b = v.Elems()[i].AppendKey(b)
		}
	case v.kind.hasBytes():
		b = binary.AppendUvarint(b, v.num)
		b = binary.AppendUvarint(b, uint64(v.size))
		b = append(b, v.Bytes()...)
	default:
		b = binary.LittleEndian.AppendUint64(b, v.num)
		b = binary.LittleEndian.AppendUint32(b, v.size)
	}
	return b
}

// Clone copies the value and all that it points to into b's memory.
func (v *Value) Clone(b *Batch) Value {
	c := *v
	switch {
	case v.kind == Array || v.kind == Map:
		elems := b.Row(int(v.size))
		for i := range v.Elems() {
			elems[i] = v.Elems()[i].Clone(b)
		}
		c.ptr = unsafe.Pointer(unsafe.SliceData(elems))
	case v.kind.hasBytes():
		c.ptr = unsafe.Pointer(unsafe.SliceData(b.Copy(v.Bytes())))
	}
	return c
}

// GoString prints the value for test failures; it is not a stable form.
func (v Value) GoString() string { return v.String() }

// String prints the value for a person, in error messages and test failures.
func (v Value) String() string {
	switch v.kind {
	case Null, Absent, Unchanged:
		return v.kind.String()
	case Bool:
		return strconv.FormatBool(v.Bool())
	case Int, Date, Time, Timestamp:
		return v.kind.String() + ":" + strconv.FormatInt(v.Int(), 10)
	case TimestampTZ:
		if v.Beyond() > 0 {
			return fmt.Sprintf("timestamptz:%d+%ds", v.Int(), v.Beyond())
		}
		return "timestamptz:" + strconv.FormatInt(v.Int(), 10)
	case Uint:
		return "uint:" + strconv.FormatUint(v.num, 10)
	case Float:
		return "float:" + strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case Decimal:
		return "decimal:" + string(v.Bytes())
	case String:
		return strconv.Quote(string(v.Bytes()))
	case Bytes:
		return fmt.Sprintf("0x%x", v.Bytes())
	case TimeTZ:
		return fmt.Sprintf("timetz:%d%+d", v.Int(), v.ZoneOffset())
	case Interval:
		m, d, us := v.Interval()
		return fmt.Sprintf("interval:%dmon %dd %dus", m, d, us)
	case Point:
		x, y := v.Point()
		return fmt.Sprintf("point:(%g,%g)", x, y)
	case Geometry:
		return fmt.Sprintf("geometry:0x%x", v.Bytes())
	}
	s := "["
	if v.kind == Map {
		s = "map["
	}
	for i, e := range v.Elems() {
		if i > 0 {
			s += " "
		}
		s += e.String()
	}
	return s + "]"
}
