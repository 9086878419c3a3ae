package schema

import (
	"bytes"
	"math"
	"strconv"
)

func floatBits(k Kind) int {
	if k == Float32 {
		return 32
	}
	return 64
}

// appendJavaFloat appends a finite number as Java prints it: the shortest digits that
// give it back, at least one of them after the point, with an exponent below 10^-3
// and from 10^7 on.
func appendJavaFloat(b []byte, f float64, size int) []byte {
	if a := math.Abs(f); a != 0 && (a < 1e-3 || a >= 1e7) {
		return appendJavaExponent(b, f, size)
	}
	at := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, size)
	if bytes.IndexByte(b[at:], '.') < 0 {
		b = append(b, ".0"...)
	}
	return b
}

func appendJavaExponent(b []byte, f float64, size int) []byte {
	var mem [32]byte
	s := strconv.AppendFloat(mem[:0], f, 'e', -1, size) // d.ddde±dd
	mantissa, exponent, _ := bytes.Cut(s, []byte{'e'})
	b = append(b, mantissa...)
	if bytes.IndexByte(mantissa, '.') < 0 {
		b = append(b, ".0"...)
	}
	b = append(b, 'E')
	if exponent[0] == '-' {
		b = append(b, '-')
	}
	exponent = exponent[1:]
	for len(exponent) > 1 && exponent[0] == '0' {
		exponent = exponent[1:]
	}
	return append(b, exponent...)
}

// AppendFloatText appends a float as Java prints it, also NaN and the infinities.
func AppendFloatText(b []byte, f float64, k Kind) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	}
	return appendJavaFloat(b, f, floatBits(k))
}
