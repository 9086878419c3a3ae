package schema

import (
	"strings"
	"unicode/utf16"
)

// An adjuster makes names legal in Avro, one of the three modes of
// schema.name.adjustment.mode and field.name.adjustment.mode. It scans a name once,
// by UTF-16 units as Java does: a character beyond the basic plane counts twice.
type adjuster struct {
	mode string
	dots bool // legal after the first character
}

func (a adjuster) adjust(name string) string {
	if a.mode == modeNone || name == "" {
		return name
	}
	var b strings.Builder
	for i, u := range utf16.Encode([]rune(name)) {
		if a.legal(u, i == 0) {
			b.WriteByte(byte(u))
			continue
		}
		switch {
		case a.mode == modeAvroUnicode:
			writeUnicodeEscape(&b, u)
		case i == 0 && isDigit(u):
			b.WriteByte('_')
			b.WriteByte(byte(u))
		default:
			b.WriteByte('_')
		}
	}
	return b.String()
}

func (a adjuster) legal(u uint16, first bool) bool {
	switch {
	case u >= 'a' && u <= 'z' || u >= 'A' && u <= 'Z':
		return true
	case u == '_':
		return a.mode == modeAvro // it is the escape character of the other mode
	case first:
		return false
	case u == '.':
		return a.dots
	}
	return isDigit(u)
}

func isDigit(u uint16) bool { return u >= '0' && u <= '9' }

// writeUnicodeEscape writes _u and four lower-case hexadecimal digits.
func writeUnicodeEscape(b *strings.Builder, u uint16) {
	const digits = "0123456789abcdef"
	b.WriteString("_u")
	for shift := 12; shift >= 0; shift -= 4 {
		b.WriteByte(digits[u>>shift&15])
	}
}
