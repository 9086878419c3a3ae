package postgres

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"unsafe"

	"github.com/headwaterdb/headwater/capture"
)

// Values travel as text, printed under the pinned settings: in the log always, in queries
// but for the types of binary.go. The functions of this file turn such text into values,
// and refuse text that the server would not print.

// An operation says how the text of a type is read.
type operation uint8

const (
	opText operation = iota // as it is
	opBool
	opInt16
	opInt32
	opInt64
	opOID
	opFloat32
	opFloat64
	opDecimal
	opMoney
	opBytea
	opUUID // text as it is
	opBit  // a bit string of at most one bit
	opBits // any bit string
	opDate
	opTime
	opTimeTZ
	opTimestamp
	opTimestampTZ
	opInterval
	opPoint
	opGeometry
	opEnum
	opHstore
	opVector
	opHalfVector
	opSparseVector
	opArray
)

// operations of the types whose kind alone decides; the others are text.
var operations = [...]operation{
	capture.TypeBool: opBool, capture.TypeInt16: opInt16, capture.TypeInt32: opInt32, capture.TypeInt64: opInt64,
	capture.TypeFloat32: opFloat32, capture.TypeFloat64: opFloat64,
	capture.TypeDecimal: opDecimal, capture.TypeVarDecimal: opDecimal, capture.TypeMoney: opMoney,
	capture.TypeBytes: opBytea, capture.TypeBits: opBits, capture.TypeUUID: opUUID,
	capture.TypeDate: opDate, capture.TypeTime: opTime, capture.TypeTimeTZ: opTimeTZ,
	capture.TypeTimestamp: opTimestamp, capture.TypeTimestampTZ: opTimestampTZ, capture.TypeInterval: opInterval,
	capture.TypePoint: opPoint, capture.TypeGeometry: opGeometry, capture.TypeGeography: opGeometry,
	capture.TypeEnum: opEnum, capture.TypeMap: opHstore,
	capture.TypeVector: opVector, capture.TypeHalfVector: opHalfVector, capture.TypeSparseVector: opSparseVector,
	capture.TypeArray: opArray,
}

// views reports whether values are views into the text that they were decoded from.
func (op operation) views() bool {
	switch op {
	case opText, opUUID, opDecimal, opEnum, opHstore, opArray:
		return true
	}
	return false
}

// A columnDecoder turns the text of one column into values. It decides by a switch over
// a small number: measured, that costs no more than a call through a function value, and
// what it does can be asked and amended.
type columnDecoder struct {
	op        operation
	delimiter byte           // of opArray
	enum      uint32         // OID of the enum type, of opEnum and arrays of it
	labels    labelSet       // of opEnum
	elem      *columnDecoder // of opArray
}

// errText says that text is not what the server prints for the type.
var errText = errors.New("its text is not what the server prints for this type")

// A labelError says that an enum's label is not among those known.
type labelError struct{ label string }

func (e *labelError) Error() string { return "its label is unknown" }

// decode reads text, which b owns where the operation makes views of it. What a value
// needs beside the text is taken from b.
func (d *columnDecoder) decode(b *capture.Batch, text []byte) (capture.Value, error) {
	switch d.op {
	case opText, opUUID:
		return capture.StringValue(text), nil
	case opBool:
		if len(text) == 1 && (text[0] == 't' || text[0] == 'f') {
			return capture.BoolValue(text[0] == 't'), nil
		}
	case opInt16:
		if i, ok := parseInt(text); ok && int64(int16(i)) == i {
			return capture.IntValue(i), nil
		}
	case opInt32:
		if i, ok := parseInt(text); ok && int64(int32(i)) == i {
			return capture.IntValue(i), nil
		}
	case opInt64:
		if i, ok := parseInt(text); ok {
			return capture.IntValue(i), nil
		}
	case opOID:
		if i, ok := parseInt(text); ok && int64(uint32(i)) == i {
			return capture.IntValue(i), nil
		}
	case opFloat32:
		if f, ok := parseFloat(text, 32); ok {
			return capture.FloatValue(f), nil
		}
	case opFloat64:
		if f, ok := parseFloat(text, 64); ok {
			return capture.FloatValue(f), nil
		}
	case opDecimal:
		if isDecimal(text) {
			return capture.DecimalValue(text), nil
		}
	case opMoney:
		return decodeMoney(b, text)
	case opBytea:
		return decodeBytea(b, text)
	case opBit:
		switch string(text) {
		case "", "0":
			return capture.BoolValue(false), nil
		case "1":
			return capture.BoolValue(true), nil
		}
	case opBits:
		return decodeBits(b, text)
	case opDate:
		if days, ok := parseDate(text); ok {
			return capture.DateValue(days), nil
		}
	case opTime:
		s := scanner{text: text}
		if micros := s.clock(); s.done() {
			return capture.TimeValue(micros), nil
		}
	case opTimeTZ:
		s := scanner{text: text}
		micros, zone := s.clock(), s.zone()
		if s.done() {
			return capture.TimeTZValue(micros, zone), nil
		}
	case opTimestamp:
		if micros, beyond, ok := parseTimestamp(text, false); ok {
			if beyond > 0 {
				micros = lastMicros
			}
			return capture.TimestampValue(micros), nil
		}
	case opTimestampTZ:
		if micros, beyond, ok := parseTimestamp(text, true); ok {
			return capture.FarTimestampTZValue(micros, beyond), nil
		}
	case opInterval:
		if months, days, micros, ok := parseInterval(text); ok {
			return capture.IntervalValue(b.Alloc(8), months, days, micros), nil
		}
	case opPoint:
		return decodePoint(b, text)
	case opGeometry:
		return decodeGeometry(b, text)
	case opEnum:
		if !d.labels.has(text) {
			return capture.Value{}, &labelError{string(text)}
		}
		return capture.StringValue(text), nil
	case opHstore:
		return decodeHstore(b, text)
	case opVector:
		return decodeVector(b, text, 64)
	case opHalfVector:
		return decodeVector(b, text, 32)
	case opSparseVector:
		return decodeSparseVector(b, text)
	case opArray:
		return d.decodeArray(b, text)
	}
	return capture.Value{}, errText
}

// A labelSet holds the labels of an enum.
type labelSet struct{ index map[string]struct{} }

func newLabelSet(labels []string) labelSet {
	s := labelSet{make(map[string]struct{}, len(labels))}
	for _, l := range labels {
		s.index[l] = struct{}{}
	}
	return s
}

func (s labelSet) has(text []byte) bool {
	_, ok := s.index[string(text)]
	return ok
}

// parseInt reads -?digits.
func parseInt(text []byte) (int64, bool) {
	digits := text
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		digits = text[1:]
	}
	if len(digits) == 0 || len(digits) > 19 {
		return 0, false
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

// parseFloat reads what float4out and float8out print: the shortest decimal that gives
// the number back, NaN, Infinity or -Infinity.
// https://www.postgresql.org/docs/current/datatype-numeric.html#DATATYPE-FLOAT
func parseFloat(text []byte, bits int) (float64, bool) {
	switch string(text) {
	case "NaN":
		return math.NaN(), true
	case "Infinity":
		return math.Inf(1), true
	case "-Infinity":
		return math.Inf(-1), true
	}
	for _, c := range text {
		// strconv knows hexadecimal numbers and more names.
		if c-'0' > 9 && c != '.' && c != '-' && c != '+' && c != 'e' {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(text), len(text)), bits)
	return f, err == nil
}

// isDecimal accepts -?digits[.digits], NaN, Infinity and -Infinity.
func isDecimal(text []byte) bool {
	p := text
	if len(p) > 0 && p[0] == '-' {
		p = p[1:]
	}
	point := -1
	for i, c := range p {
		if c-'0' <= 9 {
			continue
		}
		if c != '.' || point >= 0 {
			switch string(text) {
			case "NaN", "Infinity", "-Infinity":
				return true
			}
			return false
		}
		point = i
	}
	return len(p) > 0 && point != 0 && point != len(p)-1
}

// decodeMoney reads what cash_out prints in the locale C: -?$digits with a comma
// between groups of three, and two digits behind the point.
// https://www.postgresql.org/docs/current/datatype-money.html
func decodeMoney(b *capture.Batch, text []byte) (capture.Value, error) {
	out := b.Alloc(len(text))[:0]
	p := text
	if len(p) > 0 && p[0] == '-' {
		out, p = append(out, '-'), p[1:]
	}
	if len(p) < 5 || p[0] != '$' {
		return capture.Value{}, errText
	}
	for _, c := range p[1:] {
		if c != ',' {
			out = append(out, c)
		}
	}
	if p[1]-'0' > 9 || !isDecimal(out) || len(out) < 3 || out[len(out)-3] != '.' {
		return capture.Value{}, errText
	}
	return capture.DecimalValue(out), nil
}

// decodeBytea reads \x and two hexadecimal digits per byte.
func decodeBytea(b *capture.Batch, text []byte) (capture.Value, error) {
	if len(text) < 2 || text[0] != '\\' || text[1] != 'x' {
		return capture.Value{}, errText
	}
	out, ok := decodeHex(b, text[2:])
	if !ok {
		return capture.Value{}, errText
	}
	return capture.BytesValue(out), nil
}

func decodeHex(b *capture.Batch, text []byte) ([]byte, bool) {
	out := b.Alloc(hex.DecodedLen(len(text)))
	_, err := hex.Decode(out, text)
	return out, err == nil
}

// decodeBits reads a bit string. Its last digit is bit 0 of byte 0; high bytes that are
// zero are left out.
func decodeBits(b *capture.Batch, text []byte) (capture.Value, error) {
	out := b.Alloc((len(text) + 7) / 8)
	clear(out)
	used := 0
	for i := range text {
		switch text[len(text)-1-i] {
		case '1':
			out[i/8] |= 1 << (i % 8)
			used = i/8 + 1
		case '0':
		default:
			return capture.Value{}, errText
		}
	}
	return capture.BytesValue(out[:used]), nil
}

// A scanner reads text from its front. After a step that does not fit, it remembers
// that.
type scanner struct {
	text   []byte
	pos    int
	failed bool
}

func (s *scanner) done() bool { return !s.failed && s.pos == len(s.text) }

// accept steps over a byte if it comes next.
func (s *scanner) accept(c byte) bool {
	if s.pos < len(s.text) && s.text[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) acceptText(want string) bool {
	if bytes.HasPrefix(s.text[s.pos:], unsafe.Slice(unsafe.StringData(want), len(want))) {
		s.pos += len(want)
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
func (s *scanner) digits(least, most int) int64 {
	var n int64
	i := s.pos
	for ; i < len(s.text) && i-s.pos < most; i++ {
		c := s.text[i] - '0'
		if c > 9 {
			break
		}
		n = n*10 + int64(c)
	}
	if i-s.pos < least {
		s.failed = true
	}
	s.pos = i
	return n
}

// two reads exactly two digits, which make a number up to most.
func (s *scanner) two(most int64) int64 {
	p := s.text[s.pos:]
	if len(p) < 2 || p[0]-'0' > 9 || p[1]-'0' > 9 {
		s.failed = true
		return 0
	}
	s.pos += 2
	n := int64(p[0]-'0')*10 + int64(p[1]-'0')
	if n > most {
		s.failed = true
	}
	return n
}

const (
	second = 1_000_000 // microseconds
	minute = 60 * second
	hour   = 60 * minute
	day    = 24 * hour
)

// clock reads hours:minutes:seconds[.fraction] of a day, up to 24:00:00.
func (s *scanner) clock() int64 {
	h := s.two(24)
	s.expect(':')
	m := s.two(59)
	s.expect(':')
	sec := s.two(59)
	n := h*hour + m*minute + sec*second + s.fraction()
	if n > day {
		s.failed = true
	}
	return n
}

// fraction reads [.digits], at most six.
func (s *scanner) fraction() int64 {
	if !s.accept('.') {
		return 0
	}
	begin := s.pos
	n := s.digits(1, 6)
	for i := s.pos - begin; i < 6; i++ {
		n *= 10
	}
	return n
}

// zone reads an offset ±hours[:minutes[:seconds]] in seconds east of UTC.
func (s *scanner) zone() int32 {
	negative := s.accept('-')
	if !negative {
		s.expect('+')
	}
	n := s.two(99) * 3600
	if s.accept(':') {
		n += s.two(59) * 60
		if s.accept(':') {
			n += s.two(59)
		}
	}
	if negative {
		n = -n
	}
	return int32(n)
}

// date reads year-month-day; the year has four digits or more.
func (s *scanner) date() (year, month, d int64) {
	year = s.digits(4, 7)
	s.expect('-')
	month = s.two(12)
	s.expect('-')
	d = s.two(31)
	if year == 0 || month == 0 || d == 0 {
		s.failed = true
	}
	return year, month, d
}

// era reads [ BC] and returns the year as astronomers count it: 1 BC is 0.
func (s *scanner) era(year int64) int64 {
	if s.acceptText(" BC") {
		return 1 - year
	}
	return year
}

// daysFrom returns the days from 1970-01-01 to a date of the proleptic Gregorian
// calendar. Years are counted from March, so that the leap day is the last one, and in
// cycles of 400 years, which have 146,097 days.
func daysFrom(year, month, d int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	cycle := year / 400
	if year < 0 {
		cycle = (year - 399) / 400
	}
	y := year - cycle*400
	dayOfYear := (153*(month-3)+2)/5 + d - 1
	return cycle*146_097 + y*365 + y/4 - y/100 + dayOfYear - 719_468
}

// parseDate reads year-month-day[ BC], infinity or -infinity.
// https://www.postgresql.org/docs/current/datatype-datetime.html
func parseDate(text []byte) (days int64, ok bool) {
	s := scanner{text: text}
	year, month, d := s.date()
	year = s.era(year)
	if s.done() {
		return daysFrom(year, month, d), true
	}
	return parseInfinity(text)
}

func parseInfinity(text []byte) (int64, bool) {
	switch string(text) {
	case "infinity":
		return capture.PosInfinity, true
	case "-infinity":
		return capture.NegInfinity, true
	}
	return 0, false
}

// lastMicros is the last moment of a timestamp: the number after it is the infinity.
const lastMicros = math.MaxInt64 - 1

// parseTimestamp reads date time[zone][ BC], infinity or -infinity. The server's
// timestamps end in 294276, about 30 years after lastMicros: such a moment lies beyond
// seconds after micros. A timestamp without zone has no room for them and saturates.
func parseTimestamp(text []byte, zoned bool) (micros int64, beyond uint32, ok bool) {
	s := scanner{text: text}
	year, month, d := s.date()
	s.expect(' ')
	clock := s.clock()
	if zoned {
		clock -= int64(s.zone()) * second
	}
	year = s.era(year)
	if !s.done() {
		micros, ok = parseInfinity(text)
		return micros, 0, ok
	}
	days := daysFrom(year, month, d)
	const sure = math.MaxInt64/day - 2 // the microseconds of such a day surely fit
	switch {
	case days < -sure || year > 294276:
		return 0, 0, false
	case days <= sure:
		return days*day + clock, 0, true
	}
	over := (days-sure)*day + clock - (lastMicros - sure*day)
	if over <= 0 {
		return lastMicros + over, 0, true
	}
	seconds := (over + second - 1) / second
	return lastMicros + over - seconds*second, uint32(seconds), true
}

// parseInterval reads the style "postgres": up to three of years, months and days, each
// with its sign, and a time with one sign for the whole. The infinite intervals of
// PostgreSQL 17 are the largest parts, as the server stores them.
// https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-INTERVAL-OUTPUT
func parseInterval(text []byte) (months, days int32, micros int64, ok bool) {
	switch string(text) {
	case "infinity":
		return math.MaxInt32, math.MaxInt32, math.MaxInt64, true
	case "-infinity":
		return math.MinInt32, math.MinInt32, math.MinInt64, true
	case "":
		return 0, 0, 0, false
	}
	s := scanner{text: text}
	var m, d int64
	for units := 0; units < 4 && !s.failed; units++ {
		negative := s.accept('-')
		if !negative {
			s.accept('+')
		}
		n := s.digits(1, 10)
		if s.accept(':') {
			micros = s.intervalTime(n, negative)
			break
		}
		if negative {
			n = -n
		}
		s.expect(' ')
		switch {
		case s.acceptText("year"):
			m += 12 * n
		case s.acceptText("mon"):
			m += n
		case s.acceptText("day"):
			d += n
		default:
			s.failed = true
		}
		s.accept('s')
		if !s.accept(' ') {
			break
		}
		if s.pos == len(s.text) {
			s.failed = true
		}
	}
	ok = s.done() && int64(int32(m)) == m && int64(int32(d)) == d
	return int32(m), int32(d), micros, ok
}

// intervalTime reads on behind "hours:". It counts downwards, because the smallest
// number has no positive counterpart.
func (s *scanner) intervalTime(hours int64, negative bool) int64 {
	m := s.two(59)
	s.expect(':')
	sec := s.two(59)
	rest := m*minute + sec*second + s.fraction()
	if hours > -(math.MinInt64/hour) || -hours*hour < math.MinInt64+rest {
		s.failed = true
		return 0
	}
	n := -hours*hour - rest
	if negative {
		return n
	}
	if n == math.MinInt64 {
		s.failed = true
	}
	return -n
}

// decodePoint reads (x,y).
func decodePoint(b *capture.Batch, text []byte) (capture.Value, error) {
	if n := len(text); n > 2 && text[0] == '(' && text[n-1] == ')' {
		if xs, ys, found := bytes.Cut(text[1:n-1], []byte{','}); found {
			x, ok1 := parseFloat(xs, 64)
			y, ok2 := parseFloat(ys, 64)
			if ok1 && ok2 {
				return capture.PointValue(b.Alloc(16), x, y), nil
			}
		}
	}
	return capture.Value{}, errText
}

// decodeGeometry reads extended well-known binary (EWKB) in hexadecimal:
//
//	byte_order(1) type(4) [ srid(4) ] …
//
// byte_order is 1 for little-endian; bit 29 of the type says that there is an SRID.
// https://postgis.net/docs/using_postgis_dbmanagement.html#EWKB_EWKT
func decodeGeometry(b *capture.Batch, text []byte) (capture.Value, error) {
	wkb, ok := decodeHex(b, text)
	if !ok || len(wkb) < 5 || wkb[0] > 1 {
		return capture.Value{}, errText
	}
	word := func(p []byte) uint32 {
		if wkb[0] == 1 {
			return uint32(p[0]) | uint32(p[1])<<8 | uint32(p[2])<<16 | uint32(p[3])<<24
		}
		return uint32(p[3]) | uint32(p[2])<<8 | uint32(p[1])<<16 | uint32(p[0])<<24
	}
	if word(wkb[1:])&(1<<29) == 0 {
		return capture.GeometryValue(wkb, 0, false), nil
	}
	if len(wkb) < 9 {
		return capture.Value{}, errText
	}
	return capture.GeometryValue(wkb, word(wkb[5:]), true), nil
}

// decodeHstore reads "key"=>"value", "key"=>NULL, …
// https://www.postgresql.org/docs/current/hstore.html
func decodeHstore(b *capture.Batch, text []byte) (capture.Value, error) {
	n := 0
	for s := (scanner{text: text}); s.pos < len(text); n++ {
		s.hstorePair()
		if s.failed {
			return capture.Value{}, errText
		}
	}
	pairs := b.Row(2 * n)
	s := scanner{text: text}
	for i := range n {
		key, value, null := s.hstorePair()
		pairs[2*i], pairs[2*i+1] = capture.StringValue(unescape(b, key)), capture.NullValue
		if !null {
			pairs[2*i+1] = capture.StringValue(unescape(b, value))
		}
	}
	return capture.MapValue(pairs, 0), nil
}

// hstorePair reads one pair, escaped as it is, and the comma behind it.
func (s *scanner) hstorePair() (key, value []byte, null bool) {
	key = s.quoted()
	if !s.acceptText("=>") {
		s.failed = true
	}
	if null = s.acceptText("NULL"); !null {
		value = s.quoted()
	}
	if s.pos < len(s.text) {
		if !s.acceptText(", ") || s.pos == len(s.text) {
			s.failed = true
		}
	}
	return key, value, null
}

// quoted reads "text", in which a backslash keeps the next byte from its meaning, and
// returns what stands between the quotes.
func (s *scanner) quoted() []byte {
	s.expect('"')
	begin := s.pos
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case '"':
			s.pos++
			return s.text[begin : s.pos-1]
		case '\\':
			s.pos++
		}
		s.pos++
	}
	s.pos, s.failed = len(s.text), true
	return nil
}

// unescape drops the backslashes that protect the next byte. It copies only if there
// is one.
func unescape(b *capture.Batch, text []byte) []byte {
	i := bytes.IndexByte(text, '\\')
	if i < 0 {
		return text
	}
	out := append(b.Alloc(len(text))[:0], text[:i]...)
	for ; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
		}
		out = append(out, text[i])
	}
	return out
}

// decodeVector reads [x,y,…].
// https://github.com/pgvector/pgvector#vector-type
func decodeVector(b *capture.Batch, text []byte, bits int) (capture.Value, error) {
	n := len(text)
	if n < 3 || text[0] != '[' || text[n-1] != ']' {
		return capture.Value{}, errText
	}
	rest := text[1 : n-1]
	elems := b.Row(bytes.Count(rest, []byte{','}) + 1)
	for i := range elems {
		var part []byte
		part, rest, _ = bytes.Cut(rest, []byte{','})
		f, ok := parseFloat(part, bits)
		if !ok {
			return capture.Value{}, errText
		}
		elems[i] = capture.FloatValue(f)
	}
	return capture.ArrayValue(elems), nil
}

// decodeSparseVector reads {index:value,…}/dimension; indexes count from 1.
// https://github.com/pgvector/pgvector#sparsevec-type
func decodeSparseVector(b *capture.Batch, text []byte) (capture.Value, error) {
	body, dimension, ok := bytes.Cut(text, []byte("}/"))
	dim, ok1 := parseInt(dimension)
	if !ok || !ok1 || len(body) == 0 || body[0] != '{' || dim < 1 || dim > math.MaxInt32 {
		return capture.Value{}, errText
	}
	rest := body[1:]
	n := 0
	if len(rest) > 0 {
		n = bytes.Count(rest, []byte{','}) + 1
	}
	pairs := b.Row(2 * n)
	for i := range n {
		var part []byte
		part, rest, _ = bytes.Cut(rest, []byte{','})
		index, value, _ := bytes.Cut(part, []byte{':'})
		at, ok1 := parseInt(index)
		f, ok2 := parseFloat(value, 64)
		if !ok1 || !ok2 || at < 1 || at > dim {
			return capture.Value{}, errText
		}
		pairs[2*i], pairs[2*i+1] = capture.IntValue(at), capture.FloatValue(f)
	}
	return capture.MapValue(pairs, int(dim)), nil
}

// maxDimensions is how many the server allows an array.
const maxDimensions = 6

// decodeArray reads {element,…}, where an element is NULL, bare text, quoted text, or
// for a further dimension an array again. Bounds other than 1 stand in front, such as
// [0:1][2:3]=; they say nothing about the elements.
// https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
func (d *columnDecoder) decodeArray(b *capture.Batch, text []byte) (capture.Value, error) {
	s := scanner{text: text}
	for s.accept('[') {
		s.accept('-')
		s.digits(1, 10)
		s.expect(':')
		s.accept('-')
		s.digits(1, 10)
		s.expect(']')
	}
	if s.pos > 0 {
		s.expect('=')
	}
	if s.failed {
		return capture.Value{}, errText
	}
	v, err := d.decodeDimension(b, &s, 1)
	if err == nil && !s.done() {
		err = errText
	}
	return v, err
}

func (d *columnDecoder) decodeDimension(b *capture.Batch, s *scanner, depth int) (capture.Value, error) {
	n, ok := countElements(s.text[s.pos:], d.delimiter)
	if !ok || depth > maxDimensions {
		return capture.Value{}, errText
	}
	s.expect('{')
	elems := b.Row(n)
	for i := range elems {
		if i > 0 {
			s.expect(d.delimiter)
		}
		var err error
		if elems[i], err = d.decodeElement(b, s, depth); err != nil {
			return capture.Value{}, err
		}
	}
	s.expect('}')
	if s.failed {
		return capture.Value{}, errText
	}
	return capture.ArrayValue(elems), nil
}

func (d *columnDecoder) decodeElement(b *capture.Batch, s *scanner, depth int) (capture.Value, error) {
	if s.pos == len(s.text) || s.failed {
		return capture.Value{}, errText
	}
	switch s.text[s.pos] {
	case '{':
		return d.decodeDimension(b, s, depth+1)
	case '"':
		text := s.quoted()
		if s.failed {
			return capture.Value{}, errText
		}
		return d.elem.decode(b, unescape(b, text))
	}
	begin := s.pos
	for s.pos < len(s.text) && s.text[s.pos] != d.delimiter && s.text[s.pos] != '}' {
		s.pos++
	}
	text := s.text[begin:s.pos]
	switch string(text) {
	case "":
		return capture.Value{}, errText
	case "NULL":
		return capture.NullValue, nil
	}
	return d.elem.decode(b, text)
}

// countElements returns how many elements the array has at whose "{" text begins.
func countElements(text []byte, delimiter byte) (n int, ok bool) {
	if len(text) < 2 || text[0] != '{' {
		return 0, false
	}
	if text[1] == '}' {
		return 0, true
	}
	depth := 0
	n = 1
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return n, true
			}
		case c == '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case c == delimiter && depth == 1:
			n++
		}
	}
	return 0, false
}
