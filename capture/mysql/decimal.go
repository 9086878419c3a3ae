package mysql

import (
	"encoding/binary"
	"fmt"

	"github.com/headwaterdb/headwater/capture"
)

// A DECIMAL is logged as it is stored: the digits before the point and those behind it in
// groups of nine, each a big-endian number of four bytes. The group of fewer digits, the
// first before the point and the last behind it, takes as many bytes as it needs. The
// highest bit is set for what is not negative; all bits of a negative number are inverted,
// that one included.
// https://dev.mysql.com/doc/dev/mysql-server/latest/decimal_8cc.html

const (
	groupDigits = 9
	// maxPrecision and maxScale are what DECIMAL can have. MariaDB allows 38 digits behind
	// the point.
	maxPrecision = 65
	maxScale     = 38
)

// groupBytes is how many bytes a group of so many digits takes.
var groupBytes = [groupDigits + 1]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4}

// decimalSize is how many bytes a DECIMAL(precision,scale) has.
func decimalSize(precision, scale int) int {
	before := precision - scale
	return before/groupDigits*4 + groupBytes[before%groupDigits] + scale/groupDigits*4 + groupBytes[scale%groupDigits]
}

func (c *logColumn) resolveDecimal(d cell) (capture.Type, cell, error) {
	precision, scale := int(c.meta>>8), int(c.meta&0xff)
	t := capture.Type{Kind: capture.TypeDecimal, Precision: precision, Scale: scale, Name: fmt.Sprintf("decimal(%d,%d)", precision, scale)}
	if c.unsigned {
		t.Name += " unsigned"
	}
	if precision < 1 || precision > maxPrecision || scale > min(precision, maxScale) {
		return t, d, fmt.Errorf("%s is impossible", t.Name)
	}
	d.op, d.precision, d.scale = opDecimal, c.precision(), c.scale()
	d.least = uint8(decimalSize(precision, scale))
	return t, d, nil
}

func (c *logColumn) precision() uint8 { return uint8(c.meta >> 8) }
func (c *logColumn) scale() uint8     { return uint8(c.meta) }

// decimal decodes a number of the column's size.
func (c *cell) decimal(b *capture.Batch, p []byte) (capture.Value, error) {
	// A sign, a zero before the point, and the point.
	out, ok := appendDecimal(b.Alloc(int(c.precision) + 3)[:0], p, int(c.precision), int(c.scale))
	if !ok {
		return capture.Value{}, errForm
	}
	return capture.DecimalValue(out), nil
}

// appendDecimal appends the number as the server prints it. p has decimalSize bytes.
func appendDecimal(out, p []byte, precision, scale int) ([]byte, bool) {
	var invert byte
	if p[0]&0x80 == 0 {
		invert = 0xff
	}
	first := byte(0x80) // inverted once, in the first byte
	group := func(digits int) uint32 {
		var buf [4]byte
		n := groupBytes[digits]
		for i := range n {
			buf[4-n+i] = p[i] ^ invert ^ first
			first = 0
		}
		p = p[n:]
		return binary.BigEndian.Uint32(buf[:])
	}
	begin := len(out)
	if invert != 0 {
		out = append(out, '-')
	}
	before := precision - scale
	zero := true
	written := len(out)
	for digits := before % groupDigits; before > 0; digits = groupDigits {
		if digits == 0 {
			digits = groupDigits
		}
		before -= digits
		u := group(digits)
		if u >= powersOf10[digits] {
			return out, false
		}
		switch {
		case len(out) > written:
			out = appendDigits(out, u, digits)
		case u > 0:
			out = appendUint(out, u)
		}
		zero = zero && u == 0
	}
	if len(out) == written {
		out = append(out, '0')
	}
	if scale > 0 {
		out = append(out, '.')
	}
	for scale > 0 {
		digits := min(scale, groupDigits)
		scale -= digits
		u := group(digits)
		if u >= powersOf10[digits] {
			return out, false
		}
		out = appendDigits(out, u, digits)
		zero = zero && u == 0
	}
	if zero && invert != 0 {
		out = append(out[:begin], out[begin+1:]...) // there is no negative zero
	}
	return out, true
}

var powersOf10 = [groupDigits + 1]uint32{1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}

// appendDigits appends u with zeros before it.
func appendDigits(out []byte, u uint32, digits int) []byte {
	var buf [groupDigits]byte
	for i := digits - 1; i >= 0; i-- {
		buf[i] = byte('0' + u%10)
		u /= 10
	}
	return append(out, buf[:digits]...)
}

// appendUint appends u without zeros before it.
func appendUint(out []byte, u uint32) []byte {
	digits := 1
	for digits < groupDigits && u >= powersOf10[digits] {
		digits++
	}
	return appendDigits(out, u, digits)
}
