package mysql

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"github.com/headwaterdb/headwater/capture"
)

// Queries are made in the text protocol. Their values become the same as the log's, byte
// for byte, if the session has time_zone = '+00:00' and character_set_results = NULL: the
// server then sends strings in the character set of their column, as they lie in the log,
// and not as question marks where it has no other form of them.

// selectExpression is how a query asks for column i of p, whose quoted name is given.
func (p *plan) selectExpression(i int, quoted string) string {
	switch p.cells[i].op {
	case opFloat, opDouble:
		// A FLOAT prints six digits, whatever it holds; FLOAT(m,d) and DOUBLE(m,d) print d
		// behind the point. A product has all digits. A sum would lose the sign of -0.
		return quoted + " * 1e0"
	}
	return quoted
}

// A textReader decodes rows that a query returns.
type textReader struct {
	p       *plan
	scratch []byte
}

// row decodes the packet of a row in the text protocol, into values that b owns. packet
// has one value for each column of the plan, in its order, asked for by selectExpression;
// rest is what follows them.
//
//	{ 0xfb | length value }…
//
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset_row.html
func (r *textReader) row(b *capture.Batch, packet []byte) (row capture.Row, rest []byte, err error) {
	row = b.Row(len(r.p.cells))
	c := cursor{rest: b.Copy(packet)}
	for i := range row {
		if len(c.rest) > 0 && c.rest[0] == 0xfb {
			c.rest = c.rest[1:]
			row[i] = capture.NullValue
			continue
		}
		text := c.sized()
		if c.failed {
			return nil, nil, fmt.Errorf("%w: a row of %s ends too early in column %s", capture.ErrUnreadable, r.p.table.ID, r.p.table.Columns[i].Name)
		}
		if row[i], err = r.p.cells[i].fromText(b, text, &r.scratch); err != nil {
			return nil, nil, r.p.valueError(i, err)
		}
	}
	return row, c.rest, nil
}

// errText says that text is not what the server prints for the type.
var errText = errors.New("its text is not what the server prints for this type")

// fromText decodes what the server prints. b owns text; what a value needs beside it is
// taken from b. scratch keeps memory between calls.
func (c *cell) fromText(b *capture.Batch, text []byte, scratch *[]byte) (capture.Value, error) {
	switch c.op {
	case opInt8, opUint8, opInt16, opUint16, opInt24, opUint24, opInt32, opUint32, opInt64, opYear:
		if i, ok := parseInt(text); ok {
			return capture.IntValue(i), nil
		}
	case opUint64:
		if u, err := strconv.ParseUint(asString(text), 10, 64); err == nil {
			return capture.UintValue(u), nil
		}
	case opFloat, opDouble:
		// A FLOAT was widened before it was printed.
		if f, err := strconv.ParseFloat(asString(text), 64); err == nil {
			if c.op == opFloat {
				f = float64(float32(f))
			}
			return capture.FloatValue(f), nil
		}
	case opDecimal:
		if d, ok := plainDecimal(text); ok {
			return capture.DecimalValue(d), nil
		}
	case opBit:
		if len(text) == 1 {
			return capture.BoolValue(text[0] != 0), nil
		}
	case opBits:
		if len(text) == int(c.width) {
			return bitsValue(b, text), nil
		}
	case opDate:
		s := scanner{text: text}
		year, month, d := s.date()
		if !s.failed && s.pos == len(text) {
			days, ok := civilDays(year, month, d)
			if !ok {
				return c.noDate(), nil
			}
			return capture.DateValue(days), nil
		}
	case opTime, opTime2:
		s := scanner{text: text}
		negative := s.accept('-')
		micros := s.clock(838)
		if negative {
			micros = -micros
		}
		if !s.failed && s.pos == len(text) {
			return capture.TimeValue(micros), nil
		}
	case opDatetime, opDatetime2, opTimestamp, opTimestamp2:
		s := scanner{text: text}
		year, month, d := s.date()
		s.expect(' ')
		micros := s.clock(23)
		if !s.failed && s.pos == len(text) {
			v := c.datetime(year, month, d, micros)
			if v.Kind() == capture.Timestamp && (c.op == opTimestamp || c.op == opTimestamp2) {
				return capture.TimestampTZValue(v.Int()), nil
			}
			return v, nil
		}
	case opText, opCompressedText:
		return c.text(b, text)
	case opBytes, opCompressedBytes:
		return capture.BytesValue(text), nil
	case opBinary:
		return c.padded(b, text)
	case opEnum, opSet:
		return c.text(b, text)
	case opJSON:
		out, ok := compactJSON((*scratch)[:0], text)
		if cap(out) <= keepScratch {
			*scratch = out
		}
		if ok {
			return capture.StringValue(b.Copy(out)), nil
		}
	case opGeometry:
		return c.geometry(b, text)
	case opVector:
		return vectorValue(b, text)
	case opUUID, opInet4, opInet6:
		if isASCII(text) {
			return capture.StringValue(text), nil
		}
	case opNull:
		return capture.NullValue, nil
	}
	return capture.Value{}, errText
}

// asString is text as a string, for the time of a call.
func asString(text []byte) string { return unsafe.String(unsafe.SliceData(text), len(text)) }

// parseInt reads -?digits; a column with ZEROFILL has zeros before them.
func parseInt(text []byte) (int64, bool) {
	digits := text
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		digits = text[1:]
	}
	if len(digits) == 0 || len(digits) > 19 {
		i, err := strconv.ParseInt(asString(text), 10, 64)
		return i, err == nil
	}
	var n uint64 // 19 digits fit
	for _, c := range digits {
		if c -= '0'; c > 9 {
			return 0, false
		}
		n = n*10 + uint64(c)
	}
	if negative {
		return -int64(n), n <= 1<<63
	}
	return int64(n), n < 1<<63
}

// plainDecimal takes the zeros of ZEROFILL away from -?digits[.digits].
func plainDecimal(text []byte) ([]byte, bool) {
	p := text
	if len(p) > 0 && p[0] == '-' {
		p = p[1:]
	}
	point := -1
	for i, c := range p {
		switch {
		case c-'0' <= 9:
		case c == '.' && point < 0 && i > 0 && i < len(p)-1:
			point = i
		default:
			return nil, false
		}
	}
	if len(p) == 0 {
		return nil, false
	}
	if len(p) != len(text) || p[0] != '0' {
		return text, true
	}
	if point < 0 {
		point = len(p)
	}
	for point > 1 && p[0] == '0' {
		p = p[1:]
		point--
	}
	return p, true
}

// A scanner reads text from its front. After a step that does not fit, it remembers that.
type scanner struct {
	text   []byte
	pos    int
	failed bool
}

func (s *scanner) accept(c byte) bool {
	if s.pos < len(s.text) && s.text[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) expect(c byte) {
	if !s.accept(c) {
		s.failed = true
	}
}

// digits reads least to most digits.
func (s *scanner) digits(least, most int) int {
	n, i := 0, s.pos
	for ; i < len(s.text) && i-s.pos < most; i++ {
		c := s.text[i] - '0'
		if c > 9 {
			break
		}
		n = n*10 + int(c)
	}
	if i-s.pos < least {
		s.failed = true
	}
	s.pos = i
	return n
}

// date reads year-month-day.
func (s *scanner) date() (year, month, dayOfMonth int) {
	year = s.digits(4, 4)
	s.expect('-')
	month = s.digits(2, 2)
	s.expect('-')
	return year, month, s.digits(2, 2)
}

// clock reads hours:minutes:seconds[.fraction] in microseconds.
func (s *scanner) clock(most int) int64 {
	h := s.digits(2, 3)
	s.expect(':')
	m := s.digits(2, 2)
	s.expect(':')
	sec := s.digits(2, 2)
	if h > most || m > 59 || sec > 59 {
		s.failed = true
	}
	micros := 0
	if s.accept('.') {
		begin := s.pos
		micros = s.digits(1, 6)
		for i := s.pos - begin; i < 6; i++ {
			micros *= 10
		}
	}
	return int64(h)*hour + int64(m)*minute + int64(sec)*second + int64(micros)
}

// compactJSON appends JSON text that the server prints in our form; see json.go. It
// checks no more of the text than it needs to.
func compactJSON(out, text []byte) ([]byte, bool) {
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == ' ':
			i++
		case c == '"':
			n := jsonStringEnd(text[i:])
			if n < 0 {
				return out, false
			}
			out = append(out, text[i:i+n]...)
			i += n
		case c == '-' || c-'0' <= 9:
			n := 1
			for i+n < len(text) && bytes.IndexByte([]byte("0123456789.eE+-"), text[i+n]) >= 0 {
				n++
			}
			number := text[i : i+n]
			if bytes.IndexByte(number, 'e') < 0 {
				out = append(out, number...)
			} else {
				f, err := strconv.ParseFloat(asString(number), 64)
				if err != nil {
					return out, false
				}
				out = appendExact(out, f)
			}
			i += n
		default:
			out = append(out, c)
			i++
		}
	}
	return out, len(out) > 0
}

// jsonStringEnd returns how long the string is that p begins with, or -1.
func jsonStringEnd(p []byte) int {
	for i := 1; i < len(p); i++ {
		switch p[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return -1
}

// defaultOf reads the default of a column. MySQL shows a literal as plain text and marks
// expressions; MariaDB shows an expression in any case. What is no literal is shown as
// event formats have it: the zero of the type for the current time where the column is a
// time that must be there, else nothing.
func (f *columnFacts) defaultOf(c *cell, t *capture.Type, mariadb bool) capture.Default {
	none := capture.Default{}
	if f.fallback == nil {
		return none
	}
	text := *f.fallback
	if isCurrentTime(text) && (t.Kind == capture.TypeTimestamp || t.Kind == capture.TypeTimestampTZ) {
		if t.Kind == capture.TypeTimestampTZ && f.nullable {
			return none
		}
		return capture.Default{Kind: capture.DefaultZero}
	}
	if strings.Contains(f.extra, "DEFAULT_GENERATED") {
		return none
	}
	switch {
	case f.blurred(mariadb):
		if f.stored == nil {
			return none
		}
		text = *f.stored
	case mariadb && strings.HasPrefix(text, "x'"): // bytes, since MariaDB 11
		plain, err := hex.DecodeString(strings.TrimSuffix(text[2:], "'"))
		if err != nil {
			return none
		}
		text = string(plain)
	case mariadb && strings.HasPrefix(text, "'"):
		plain, rest, ok := unquote(text)
		if !ok || rest != "" {
			return none
		}
		text = plain
	case mariadb && !isLiteral(text):
		return none
	}
	v, ok := c.literal(text)
	if f, err := strconv.ParseFloat(text, 64); err == nil && t.Kind == capture.TypeFloat64 {
		v = capture.FloatValue(f) // of FLOAT(m,d), too: as it was written
	}
	switch {
	case !ok || v.IsNull():
		return none
	case v.Kind() == capture.Absent:
		return capture.Default{Kind: capture.DefaultZero}
	}
	return capture.Default{Kind: capture.DefaultLiteral, Value: v}
}

// isCurrentTime recognises CURRENT_TIMESTAMP, with or without digits of a second, in the
// forms of both servers.
func isCurrentTime(s string) bool {
	return strings.HasPrefix(strings.ToLower(s), "current_timestamp")
}

// isLiteral recognises numbers and b'…'.
func isLiteral(s string) bool {
	if strings.HasPrefix(s, "b'") {
		return true
	}
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// blurred reports whether COLUMN_DEFAULT may not show a literal as it is: the catalog is in
// UTF-8 of up to three bytes and has a question mark for what that cannot say; of bytes MySQL
// shows those before the first zero byte, and MariaDB before 11 what text they make. A moment
// MySQL shows as it was written, in the time zone of a session that nobody knows any more.
func (f *columnFacts) blurred(mariadb bool) bool {
	if f.fallback == nil || strings.Contains(f.extra, "DEFAULT_GENERATED") || mariadb && !strings.HasPrefix(*f.fallback, "'") {
		return false
	}
	isBytes := f.charset == "" && (strings.Contains(f.columnType, "binary") || strings.Contains(f.columnType, "blob"))
	isMoment := !mariadb && strings.HasPrefix(f.columnType, "timestamp")
	return isBytes || isMoment || strings.Contains(*f.fallback, "?")
}

// literal reads a default. The value owns its memory.
func (c *cell) literal(s string) (v capture.Value, ok bool) {
	b := new(capture.Batch) // never released
	text := []byte(s)
	var err error
	switch c.op {
	case opText, opCompressedText, opEnum, opSet:
		return capture.TextValue(s), true
	case opBytes, opCompressedBytes:
		return capture.BytesValue(text), true
	case opBinary:
		v, err = c.padded(b, text)
		return v, err == nil
	case opBit, opBits:
		if len(s) < 3 || s[:2] != "b'" || s[len(s)-1] != '\'' {
			return v, false
		}
		u, err := strconv.ParseUint(s[2:len(s)-1], 2, 64)
		if err != nil {
			return v, false
		}
		if c.op == opBit {
			return capture.BoolValue(u != 0), true
		}
		out := make([]byte, c.width)
		for i := range out {
			out[i] = byte(u >> (8 * i))
		}
		return capture.BytesValue(out), true
	case opJSON, opGeometry, opVector:
		return v, false // expressions alone
	}
	var scratch []byte
	v, err = c.fromText(b, text, &scratch)
	return v, err == nil
}
