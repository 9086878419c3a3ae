package avro

import (
	"encoding/binary"
	"math"
)

// appendLong appends an Avro int or long: zigzag, seven bits per byte.
func appendLong(b []byte, v int64) []byte {
	u := uint64(v<<1) ^ uint64(v>>63)
	for u >= 0x80 {
		b = append(b, byte(u)|0x80)
		u >>= 7
	}
	return append(b, byte(u))
}

// appendBytes appends Avro bytes or string.
func appendBytes[T []byte | string](b []byte, s T) []byte {
	return append(appendLong(b, int64(len(s))), s...)
}

// The NaN that Java makes. Go's has another payload, and equal rows should have equal
// bytes whoever wrote them.
const (
	javaNaN32 = 0x7fc00000
	javaNaN64 = 0x7ff8000000000000
)

func appendFloat(b []byte, f float32) []byte {
	u := math.Float32bits(f)
	if f != f {
		u = javaNaN32
	}
	return binary.LittleEndian.AppendUint32(b, u)
}

func appendDouble(b []byte, f float64) []byte {
	u := math.Float64bits(f)
	if f != f {
		u = javaNaN64
	}
	return binary.LittleEndian.AppendUint64(b, u)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// closeBytes sets the length of Avro bytes or string whose content was appended after
// one byte that was left free at position at. A length of 64 and more needs more
// room, and the content moves.
func closeBytes(b []byte, at int) []byte {
	n := len(b) - at - 1
	if n < 64 {
		b[at] = byte(n << 1)
		return b
	}
	var mem [binary.MaxVarintLen64]byte
	length := appendLong(mem[:0], int64(n))
	b = append(b, length[1:]...)
	copy(b[at+len(length):], b[at+1:at+1+n])
	copy(b[at:], length)
	return b
}

// appendHeader appends the head of the Confluent wire format: a zero and the schema id.
func appendHeader(b []byte, id int) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0), uint32(id))
}
