package schema

import (
	"math/big"
	"math/bits"
	"strconv"
)

// AppendUnscaled appends the shortest two's complement, big-endian form of a decimal
// text at a scale: "1.5" at scale 2 is 150. It does not round: digits that the scale
// has no room for are an error unless they are zeros. NaN and infinities give
// ErrSpecial. Up to 38 digits nothing is allocated.
func AppendUnscaled(b, text []byte, scale int) ([]byte, error) {
	d, err := parseDecimal(text)
	if err != nil {
		return b, err
	}
	pad := scale - len(d.frac)
	for pad < 0 { // the column's scale is smaller than the text's
		last := len(d.frac) - 1
		if d.frac[last] != '0' {
			return b, errScale
		}
		d.frac, pad = d.frac[:last], pad+1
	}
	return d.appendUnscaled(b, pad), nil
}

// AppendVariable appends like AppendUnscaled, at the value's own scale without
// trailing zeros, which it returns.
func AppendVariable(b, text []byte) (grown []byte, scale int, err error) {
	d, err := parseDecimal(text)
	if err != nil {
		return b, 0, err
	}
	for len(d.frac) > 0 && d.frac[len(d.frac)-1] == '0' {
		d.frac = d.frac[:len(d.frac)-1]
	}
	return d.appendUnscaled(b, 0), len(d.frac), nil
}

// A decimal is a decimal text taken apart: digits before and after the point.
type decimal struct {
	negative  bool
	int, frac []byte
}

func parseDecimal(text []byte) (decimal, error) {
	var d decimal
	rest := text
	if len(rest) > 0 && rest[0] == '-' {
		d.negative, rest = true, rest[1:]
	}
	point := -1
	for i, c := range rest {
		switch {
		case c >= '0' && c <= '9':
		case c == '.' && point < 0 && i > 0 && i < len(rest)-1:
			point = i
		case isSpecial(rest):
			return d, ErrSpecial
		default:
			return d, errDecimal
		}
	}
	if len(rest) == 0 {
		return d, errDecimal
	}
	d.int = rest
	if point >= 0 {
		d.int, d.frac = rest[:point], rest[point+1:]
	}
	return d, nil
}

func isSpecial(s []byte) bool { return string(s) == "NaN" || string(s) == "Infinity" }

// appendUnscaled appends all digits and pad zeros as one number. 18 digits fit into
// 64 bits, 38 into 128.
func (d *decimal) appendUnscaled(b []byte, pad int) []byte {
	n := len(d.int) + len(d.frac) + pad
	switch {
	case n <= 18:
		var u uint64
		for _, c := range d.int {
			u = u*10 + uint64(c-'0')
		}
		for _, c := range d.frac {
			u = u*10 + uint64(c-'0')
		}
		for range pad {
			u *= 10
		}
		if d.negative {
			u = -u
		}
		return appendInt64(b, int64(u))
	case n <= 38:
		var w wide
		for _, c := range d.int {
			w.push(c)
		}
		for _, c := range d.frac {
			w.push(c)
		}
		for range pad {
			w.push('0')
		}
		if d.negative {
			w.negate()
		}
		return w.append(b)
	}
	digits := make([]byte, 0, n)
	digits = append(append(digits, d.int...), d.frac...)
	for range pad {
		digits = append(digits, '0')
	}
	v, ok := new(big.Int).SetString(string(digits), 10)
	if !ok {
		panic("schema: digits that are no number")
	}
	if d.negative {
		v.Neg(v)
	}
	return appendBig(b, v)
}

// appendInt64 appends the shortest two's complement form.
func appendInt64(b []byte, v int64) []byte {
	n := (bits.Len64(uint64(v^v>>63)) + 8) / 8 // one bit more than the magnitude, for the sign
	for i := n - 1; i >= 0; i-- {
		b = append(b, byte(v>>(8*i)))
	}
	return b
}

// appendUint appends the shortest two's complement form of a number that may have
// its 64th bit set.
func appendUint(b []byte, u uint64) []byte {
	return wide{lo: u}.append(b)
}

// A wide is a 128-bit integer in two's complement.
type wide struct{ hi, lo uint64 }

// push multiplies by ten and adds a digit.
func (w *wide) push(c byte) {
	hi, lo := bits.Mul64(w.lo, 10)
	lo, carry := bits.Add64(lo, uint64(c-'0'), 0)
	w.hi, w.lo = w.hi*10+hi+carry, lo
}

func (w *wide) negate() {
	var borrow uint64
	w.lo, borrow = bits.Sub64(0, w.lo, 0)
	w.hi, _ = bits.Sub64(0, w.hi, borrow)
}

func (w wide) append(b []byte) []byte {
	if hi := int64(w.hi); hi != int64(w.lo)>>63 {
		b = appendInt64(b, hi)
		for i := 7; i >= 0; i-- {
			b = append(b, byte(w.lo>>(8*i)))
		}
		return b
	}
	return appendInt64(b, int64(w.lo))
}

// appendBig appends the shortest two's complement form.
func appendBig(b []byte, v *big.Int) []byte {
	if v.Sign() >= 0 {
		if v.BitLen()%8 == 0 {
			b = append(b, 0)
		}
		return append(b, v.Bytes()...)
	}
	// -v-1 has the bits of v inverted.
	inv := new(big.Int).Not(v)
	n := inv.BitLen()/8 + 1
	at := len(b)
	for range n {
		b = append(b, 0)
	}
	inv.FillBytes(b[at:])
	for i := range b[at:] {
		b[at+i] = ^b[at+i]
	}
	return b
}

// decimalText is a decimal as string mode shows it.
func decimalText(text []byte) []byte {
	switch string(text) {
	case "NaN":
		return []byte("NAN")
	case "Infinity":
		return []byte("POSITIVE_INFINITY")
	case "-Infinity":
		return []byte("NEGATIVE_INFINITY")
	}
	return text
}

// AppendDecimalText appends a decimal at a scale as Java's BigDecimal prints it: plain,
// or with an exponent where more than five zeros would follow the point.
func AppendDecimalText(b, text []byte, scale int) ([]byte, error) {
	d, err := parseDecimal(text)
	if err != nil {
		return b, err
	}
	digits := make([]byte, 0, len(text)+scale)
	digits = append(append(digits, d.int...), d.frac...)
	for range scale - len(d.frac) {
		digits = append(digits, '0')
	}
	digits = digits[:len(d.int)+scale]
	for len(digits) > 1 && digits[0] == '0' {
		digits = digits[1:]
	}
	if d.negative && string(digits) != "0" {
		b = append(b, '-')
	}
	point := len(digits) - scale // digits before the point
	switch {
	case scale == 0:
		return append(b, digits...), nil
	case point > 0:
		b = append(append(b, digits[:point]...), '.')
		return append(b, digits[point:]...), nil
	case point > -6:
		b = append(b, "0."...)
		for range -point {
			b = append(b, '0')
		}
		return append(b, digits...), nil
	}
	b = append(b, digits[0])
	if len(digits) > 1 {
		b = append(append(b, '.'), digits[1:]...)
	}
	return strconv.AppendInt(append(b, 'E'), int64(point-1), 10), nil
}
