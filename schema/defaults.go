package schema

import (
	"errors"
	"math"

	"github.com/headwaterdb/headwater/capture"
)

// columnDefault returns the default that a record schema shows for a column, nil for
// none. Structs, arrays and maps never have one, nor have NaN and infinities.
func columnDefault(t *Type, d capture.Default) (*capture.Value, error) {
	if t.Kind == Array || t.Kind == Map || t.Kind == Struct {
		return nil, nil
	}
	var v capture.Value
	switch d.Kind {
	case capture.DefaultLiteral:
		v = d.Value
		if v.IsNull() {
			return nil, nil
		}
	case capture.DefaultZero:
		v = zeroDefault(t)
	default:
		return nil, nil
	}
	var err error
	switch t.Kind {
	case Boolean:
		_, err = t.Bool(&v)
	case Float32, Float64:
		var f float64
		if f, err = t.Float(&v); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, nil
		}
	case String:
		_, err = t.AppendText(nil, &v)
	case Bytes:
		_, err = t.AppendBytes(nil, &v)
	default:
		_, err = t.Integer(&v)
	}
	switch {
	case errors.Is(err, ErrSpecial) || errors.Is(err, ErrInfinite):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &v, nil
}

// zeroDefault is the default of a column whose default the server computes.
func zeroDefault(t *Type) capture.Value {
	switch {
	case t.Form == FormZonedTimestamp:
		return capture.TimestampTZValue(0)
	case t.Name == nameUUID:
		return capture.TextValue("00000000-0000-0000-0000-000000000000")
	}
	return t.Zero
}

// zeroFill is what stands for a NOT NULL column without default that the log did not
// carry.
func zeroFill(t *Type) capture.Value {
	switch t.Form {
	case FormBool, FormBit:
		return capture.BoolValue(false)
	case FormInt:
		return capture.IntValue(0)
	case FormUint, FormUintDecimal:
		return capture.UintValue(0)
	case FormDays:
		return capture.DateValue(0)
	case FormMillis, FormMicros, FormNanos, FormDayMillis:
		return capture.TimestampValue(0)
	case FormDuration:
		return capture.IntervalValue(make([]byte, 8), 0, 0, 0)
	case FormFloat:
		return capture.FloatValue(0)
	case FormDecimal, FormDecimalFloat, FormVarDecimal:
		return capture.DecimalValue([]byte("0"))
	case FormDecimalText:
		return capture.TextValue("0")
	case FormISODate:
		return capture.TextValue("1970-01-01Z")
	case FormISOTime, FormZonedTime:
		return capture.TextValue("00:00:00Z")
	case FormISOTimestamp, FormZonedTimestamp:
		return capture.TextValue("1970-01-01T00:00:00Z")
	case FormInterval:
		return capture.TextValue("P0Y0M0DT0H0M0S")
	case FormMapJSON:
		return capture.TextValue("{}")
	case FormPoint:
		return capture.PointValue(make([]byte, 16), 0, 0)
	case FormGeometry:
		// An empty collection.
		return capture.GeometryValue([]byte{1, 7, 0, 0, 0, 0, 0, 0, 0}, 0, false)
	case FormSparseVector, FormMap:
		return capture.MapValue(nil, 0)
	case FormArray:
		return capture.ArrayValue(nil)
	case FormBytes, FormBase64, FormBase64URL, FormHex:
		return capture.BytesValue(nil)
	}
	if t.Name == nameJSON {
		return capture.TextValue("{}")
	}
	return capture.TextValue("")
}
