package schema

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/headwaterdb/headwater/capture"
)

// Errors of values that a record cannot hold. A setting may turn the first two into
// null or zero.
var (
	// ErrSpecial: a NaN or infinite numeric.
	ErrSpecial = errors.New("a decimal cannot hold NaN or Infinity; remedy: decimal.handling.mode double or string, or numeric.special zero")
	// ErrInfinite: an infinite date or timestamp, and temporal.infinity is not sentinel.
	ErrInfinite = errors.New("temporal.infinity does not let an infinite value through; remedy: temporal.infinity sentinel")

	errUTF8     = errors.New("the text is not valid UTF-8; remedy: correct the row, or the encoding of the database")
	errRange    = errors.New("the value does not fit the record type")
	errNanos    = errors.New("nanoseconds reach from 1677-09-21 to 2262-04-11 only; remedy: time.precision.mode microseconds or isostring")
	errDayTime  = errors.New("time.precision.mode connect holds times from 00:00 up to 24:00 only; remedy: another time.precision.mode")
	errDecimal  = errors.New("the numeric text is malformed")
	errScale    = errors.New("the value has more digits after the point than its column type")
	errPointWKB = errors.New("the value is not the WKB of a point")
)

// What Debezium writes for infinite values: the driver's sentinel instants, in the
// unit of the record type; days wrap at 32 bits.
const (
	posInfinityMillis = 9223372036825200
	negInfinityMillis = -9223372036832400
	posInfinityDays   = -2147472692
	negInfinityDays   = -2147472691

	posInfinityISODate      = "+292278994-08-16Z"
	negInfinityISODate      = "-292275055-05-16Z"
	posInfinityISOTimestamp = "+294247-01-10T04:00:25.2Z"
	negInfinityISOTimestamp = "-290308-12-21T19:59:27.6Z"
)

const (
	microsPerSecond = 1_000_000
	microsPerDay    = 24 * 3600 * microsPerSecond
	// microsPerMonth is 365.25 / 12 days.
	microsPerMonth = 2_629_800 * microsPerSecond
)

// kindError is an error of the reader: a value of a kind that does not go with the
// column's type.
func kindError(v *capture.Value) error {
	return fmt.Errorf("the reader gave %s for this column type", v.Kind())
}

// Bool returns a value of a Boolean type.
func (t *Type) Bool(v *capture.Value) (bool, error) {
	switch {
	case v.Kind() == capture.Bool:
		return v.Bool(), nil
	case t.Form == FormBit && v.Kind() == capture.Bytes:
		b := v.Bytes()
		return len(b) > 0 && b[0]&1 != 0, nil
	}
	return false, kindError(v)
}

// Integer returns a value of a type from Int8 to Int64.
func (t *Type) Integer(v *capture.Value) (int64, error) {
	var i int64
	switch k := v.Kind(); t.Form {
	case FormInt:
		if k != capture.Int {
			return 0, kindError(v)
		}
		i = v.Int()
	case FormUint:
		if k != capture.Uint {
			return 0, kindError(v)
		}
		return int64(v.Uint()), nil
	case FormDays:
		if k != capture.Date {
			return 0, kindError(v)
		}
		if s := v.Infinite(); s != 0 {
			return t.sentinel(s, posInfinityDays, negInfinityDays)
		}
		i = v.Int()
	case FormMillis, FormMicros, FormNanos, FormDayMillis:
		return t.instant(v)
	case FormDuration:
		if k != capture.Interval {
			return 0, kindError(v)
		}
		return duration(v.Interval()), nil
	default:
		panic("schema: Integer of form " + strconv.Itoa(int(t.Form)))
	}
	if t.Kind == Int32 && int64(int32(i)) != i || t.Kind == Int16 && int64(int16(i)) != i || t.Kind == Int8 && int64(int8(i)) != i {
		return 0, errRange
	}
	return i, nil
}

// instant returns a Time or Timestamp in the unit of the form.
func (t *Type) instant(v *capture.Value) (int64, error) {
	us := v.Int()
	switch v.Kind() {
	case capture.Time:
	case capture.Timestamp:
		if s := v.Infinite(); s != 0 {
			switch t.Form {
			case FormMicros:
				return t.sentinel(s, posInfinityMillis*1000, negInfinityMillis*1000)
			case FormNanos:
				return t.sentinel(s, math.MaxInt64, math.MinInt64)
			}
			return t.sentinel(s, posInfinityMillis, negInfinityMillis)
		}
	default:
		return 0, kindError(v)
	}
	switch t.Form {
	case FormMicros:
		return us, nil
	case FormNanos:
		if us > math.MaxInt64/1000 || us < math.MinInt64/1000 {
			return 0, errNanos
		}
		return us * 1000, nil
	}
	ms, _ := floorDiv(us, 1000)
	switch {
	case t.Form == FormDayMillis && (us < 0 || us >= microsPerDay):
		return 0, errDayTime
	case t.Kind == Int32 && int64(int32(ms)) != ms:
		return 0, errRange
	}
	return ms, nil
}

func (t *Type) sentinel(sign int, pos, neg int64) (int64, error) {
	switch {
	case t.noInfinity:
		return 0, ErrInfinite
	case sign > 0:
		return pos, nil
	}
	return neg, nil
}

// duration returns an interval in microseconds. It saturates.
func duration(months, days int32, us int64) int64 {
	long := int64(months)*(microsPerMonth/1000) + int64(days)*(microsPerDay/1000) // milliseconds: cannot overflow
	hi, lo := bits.Mul64(uint64(abs(long)), 1000)
	if hi != 0 || lo > math.MaxInt64 {
		return saturated(long < 0)
	}
	d := int64(lo)
	if long < 0 {
		d = -d
	}
	sum := d + us
	if d > 0 && us > 0 && sum < 0 || d < 0 && us < 0 && sum >= 0 {
		return saturated(d < 0)
	}
	return sum
}

func abs(i int64) int64 { return max(i, -i) }

func saturated(negative bool) int64 {
	if negative {
		return math.MinInt64
	}
	return math.MaxInt64
}

// Float returns a value of Float32 or Float64.
func (t *Type) Float(v *capture.Value) (float64, error) {
	switch {
	case t.Form == FormFloat && v.Kind() == capture.Float:
		return v.Float(), nil
	case t.Form == FormDecimalFloat && v.Kind() == capture.Decimal:
		// Overflow gives an infinity and an error; Debezium writes the infinity.
		f, err := strconv.ParseFloat(view(v.Bytes()), 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return 0, errDecimal
		}
		return f, nil
	}
	return 0, kindError(v)
}

// view is b as a string, without a copy. It must not outlive b.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// AppendText appends a value of a String type, as UTF-8 without a length.
func (t *Type) AppendText(b []byte, v *capture.Value) ([]byte, error) {
	k := v.Kind()
	if k == capture.String && t.Form != FormBase64 && t.Form != FormBase64URL && t.Form != FormHex {
		// Also a default or zero whose text is known better than its value.
		if !utf8.Valid(v.Bytes()) {
			return b, errUTF8
		}
		return append(b, v.Bytes()...), nil
	}
	switch t.Form {
	case FormDecimalText:
		if k == capture.Decimal {
			return append(b, decimalText(v.Bytes())...), nil
		}
	case FormBase64, FormBase64URL, FormHex:
		if k == capture.Bytes || k == capture.String {
			return t.appendBinaryText(b, v.Bytes()), nil
		}
	case FormISODate:
		if k == capture.Date {
			if s := v.Infinite(); s != 0 {
				return t.appendSentinel(b, s, posInfinityISODate, negInfinityISODate)
			}
			return append(appendDate(b, v.Int()), 'Z'), nil
		}
	case FormISOTime:
		if k == capture.Time {
			return append(appendTime(b, v.Int(), fractionISO), 'Z'), nil
		}
	case FormISOTimestamp:
		if k == capture.Timestamp {
			if s := v.Infinite(); s != 0 {
				return t.appendSentinel(b, s, posInfinityISOTimestamp, negInfinityISOTimestamp)
			}
			return appendTimestamp(b, v.Int(), fractionISO), nil
		}
	case FormZonedTime:
		if k == capture.TimeTZ {
			_, us := floorDiv(v.Int()-int64(v.ZoneOffset())*microsPerSecond, microsPerDay)
			return append(appendTime(b, us, fractionNeeded), 'Z'), nil
		}
	case FormZonedTimestamp:
		if k == capture.TimestampTZ {
			if s := v.Infinite(); s != 0 {
				return t.appendSentinel(b, s, "infinity", "-infinity")
			}
			return appendFarTimestamp(b, v.Int(), v.Beyond(), t.Digits), nil
		}
	case FormInterval:
		if k == capture.Interval {
			return appendInterval(b, v), nil
		}
	case FormMapJSON:
		if k == capture.Map {
			return appendMapJSON(b, v.Elems())
		}
	}
	return b, kindError(v)
}

func (t *Type) appendSentinel(b []byte, sign int, pos, neg string) ([]byte, error) {
	switch {
	case t.noInfinity:
		return b, ErrInfinite
	case sign > 0:
		return append(b, pos...), nil
	}
	return append(b, neg...), nil
}

func (t *Type) appendBinaryText(b, data []byte) []byte {
	switch t.Form {
	case FormHex:
		return hex.AppendEncode(b, data)
	case FormBase64URL:
		return base64.URLEncoding.AppendEncode(b, data)
	}
	return base64.StdEncoding.AppendEncode(b, data)
}

// AppendBytes appends a value of a Bytes type, without a length.
func (t *Type) AppendBytes(b []byte, v *capture.Value) ([]byte, error) {
	k := v.Kind()
	switch t.Form {
	case FormBytes:
		if k == capture.Bytes || k == capture.String {
			return append(b, v.Bytes()...), nil
		}
	case FormDecimal:
		if k == capture.Decimal {
			return AppendUnscaled(b, v.Bytes(), t.Scale)
		}
	case FormUintDecimal:
		if k == capture.Uint {
			return appendUint(b, v.Uint()), nil
		}
	}
	return b, kindError(v)
}

// A PointValue is a point taken apart.
type PointValue struct {
	X, Y float64
	// WKB is nil for a point that has none of its own, see AppendPointWKB.
	WKB     []byte
	SRID    uint32
	HasSRID bool
}

// Point takes a point apart: coordinates, or the WKB of one.
func Point(v *capture.Value) (p PointValue, err error) {
	switch v.Kind() {
	case capture.Point:
		p.X, p.Y = v.Point()
	case capture.Geometry:
		p.WKB = v.Bytes()
		p.SRID, p.HasSRID = v.SRID()
		p.X, p.Y, err = parsePointWKB(p.WKB)
	default:
		err = kindError(v)
	}
	return p, err
}

// floorDiv divides rounding down: the remainder is never negative.
func floorDiv(a, b int64) (q, r int64) {
	q, r = a/b, a%b
	if r < 0 {
		q, r = q-1, r+b
	}
	return q, r
}

// must is for values that were checked when the type was made.
func must[T any](v T, err error) T {
	if err != nil {
		panic("schema: a checked default fails: " + err.Error())
	}
	return v
}
