package postgres

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"slices"

	"github.com/headwaterdb/headwater/capture"
)

// Formats of a query's cells.
// https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-FORMAT-CODES
const (
	formatText   int16 = 0
	formatBinary int16 = 1
)

// errBinary says that a cell is not what the server sends for the type.
var errBinary = errors.New("its binary form is not what the server sends for this type")

// formats are those in which a query for decodeCells asks for the columns, nil for text
// alone: binary where that is a fixed form which gives the text's value exactly. The
// columns of key stay text.
func (d *tableDef) formats(key []int) []int16 {
	out := make([]int16, len(d.columns))
	for i := range d.columns {
		if d.columns[i].op.hasBinary() && !slices.Contains(key, i) {
			out[i] = formatBinary
		}
	}
	if !slices.Contains(out, formatBinary) {
		return nil
	}
	return out
}

// hasBinary reports whether decodeBinary knows the operation. Each of these operations
// belongs to one type that comes with the server, and to the domains over it.
func (op operation) hasBinary() bool {
	switch op {
	case opBool, opInt16, opInt32, opInt64, opOID, opFloat32, opFloat64, opBytea, opUUID, opDate, opTime, opTimestamp, opTimestampTZ:
		return true
	}
	return false
}

// The server counts days and microseconds from 2000-01-01. Its dates and timestamps begin
// with 4714-11-24 BC, its last date is 5874897-12-31, and its last timestamp the moment
// before 294277-01-01. The largest and the smallest number are the infinities.
// https://github.com/postgres/postgres/blob/master/src/include/datatype/timestamp.h
const (
	epochDays   = 10_957
	epochMicros = epochDays * day

	firstDay      = -2_451_545
	dateEnd       = 2_145_031_949
	timestampEnd  = 106_751_983 * day
	timestampFrom = firstDay * day
)

// decodeBinary reads what the server sends for a type in binary format, and returns what
// decode returns for the text. It keeps no view into cell.
// https://github.com/postgres/postgres/tree/master/src/backend/utils/adt
func (d *columnDecoder) decodeBinary(b *capture.Batch, cell []byte) (capture.Value, error) {
	switch d.op {
	case opBool:
		if len(cell) == 1 && cell[0] <= 1 {
			return capture.BoolValue(cell[0] == 1), nil
		}
	case opInt16:
		if len(cell) == 2 {
			return capture.IntValue(int64(int16(binary.BigEndian.Uint16(cell)))), nil
		}
	case opInt32:
		if len(cell) == 4 {
			return capture.IntValue(int64(int32(binary.BigEndian.Uint32(cell)))), nil
		}
	case opInt64:
		if len(cell) == 8 {
			return capture.IntValue(int64(binary.BigEndian.Uint64(cell))), nil
		}
	case opOID:
		if len(cell) == 4 {
			return capture.IntValue(int64(binary.BigEndian.Uint32(cell))), nil
		}
	case opFloat32:
		if len(cell) == 4 {
			return floatValue(float64(math.Float32frombits(binary.BigEndian.Uint32(cell)))), nil
		}
	case opFloat64:
		if len(cell) == 8 {
			return floatValue(math.Float64frombits(binary.BigEndian.Uint64(cell))), nil
		}
	case opBytea:
		return capture.BytesValue(b.Copy(cell)), nil
	case opUUID:
		if len(cell) == 16 {
			return uuidValue(b, cell), nil
		}
	case opDate:
		if len(cell) == 4 {
			return dateValue(int32(binary.BigEndian.Uint32(cell)))
		}
	case opTime:
		if len(cell) == 8 {
			if micros := int64(binary.BigEndian.Uint64(cell)); 0 <= micros && micros <= day {
				return capture.TimeValue(micros), nil
			}
		}
	case opTimestamp, opTimestampTZ:
		if len(cell) == 8 {
			return timestampValue(int64(binary.BigEndian.Uint64(cell)), d.op == opTimestampTZ)
		}
	}
	return capture.Value{}, errBinary
}

// floatValue gives every NaN the bits that the text NaN gets.
func floatValue(f float64) capture.Value {
	if f != f {
		f = math.NaN()
	}
	return capture.FloatValue(f)
}

func uuidValue(b *capture.Batch, cell []byte) capture.Value {
	text := b.Alloc(36)
	hex.Encode(text, cell[:4])
	at := 9
	for i := 4; i < 10; i += 2 {
		text[at-1] = '-'
		hex.Encode(text[at:], cell[i:i+2])
		at += 5
	}
	text[at-1] = '-'
	hex.Encode(text[at:], cell[10:16])
	return capture.StringValue(text)
}

func dateValue(days int32) (capture.Value, error) {
	switch {
	case days == math.MaxInt32:
		return capture.DateValue(capture.PosInfinity), nil
	case days == math.MinInt32:
		return capture.DateValue(capture.NegInfinity), nil
	case days < firstDay || days >= dateEnd:
		return capture.Value{}, errBinary
	}
	return capture.DateValue(int64(days) + epochDays), nil
}

// timestampValue treats moments beyond 64 bits since 1970 as parseTimestamp and decode do.
func timestampValue(micros int64, zoned bool) (capture.Value, error) {
	var beyond uint32
	switch {
	case micros == math.MaxInt64:
		micros = capture.PosInfinity
	case micros == math.MinInt64:
		micros = capture.NegInfinity
	case micros < timestampFrom || micros >= timestampEnd:
		return capture.Value{}, errBinary
	case micros <= lastMicros-epochMicros:
		micros += epochMicros
	case !zoned:
		micros = lastMicros
	default:
		over := micros - (lastMicros - epochMicros)
		seconds := (over + second - 1) / second
		micros, beyond = lastMicros+over-seconds*second, uint32(seconds)
	}
	if zoned {
		return capture.FarTimestampTZValue(micros, beyond), nil
	}
	return capture.TimestampValue(micros), nil
}
