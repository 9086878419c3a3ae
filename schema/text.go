package schema

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/headwaterdb/headwater/capture"
)

// Numbers of digits of a second, beside 0 to 6.
const (
	fractionNeeded = -1 // as many as there are
	fractionISO    = -2 // 0, 3 or 6, as many as are needed
)

// appendDate appends YYYY-MM-DD, proleptic Gregorian with astronomical years; years
// beyond 9999 carry a sign.
func appendDate(b []byte, days int64) []byte {
	y, m, d := civil(days)
	switch {
	case y < 0:
		b = append(b, '-')
		y = -y
	case y > 9999:
		b = append(b, '+')
	}
	if y > 9999 {
		b = strconv.AppendInt(b, y, 10)
	} else {
		b = append(b, byte('0'+y/1000), byte('0'+y/100%10), byte('0'+y/10%10), byte('0'+y%10))
	}
	return append(b, '-', byte('0'+m/10), byte('0'+m%10), '-', byte('0'+d/10), byte('0'+d%10))
}

// civil returns the date of a day number.
func civil(days int64) (year, month, day int64) {
	era, doe := floorDiv(days+marchOfYear0, daysOfEra)
	y, m, d := dateInEra(uint32(doe))
	return era*400 + int64(y), int64(m), int64(d)
}

// marchOfYear0 is how many days 0000-03-01 lies before 1970-01-01. From it on years are
// counted from March, so that the leap day is the last, in eras of 400 years.
const marchOfYear0, daysOfEra = 719468, 146097

// dateInEra returns the date of a day of an era, or of one of the next 50.
func dateInEra(days uint32) (year, month, day uint32) {
	era, doe := days/daysOfEra, days%daysOfEra
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day = doy - (153*mp+2)/5 + 1
	month, year = mp+3, era*400+yoe
	if month > 12 {
		month, year = month-12, year+1
	}
	return year, month, day
}

// appendTime appends HH:MM:SS and a fraction. A time beyond a day has more hours, a
// negative one a sign.
func appendTime(b []byte, us int64, fraction int) []byte {
	if us < 0 {
		b = append(b, '-')
		us = -us
	}
	s, frac := us/microsPerSecond, us%microsPerSecond
	if h := s / 3600; h > 99 {
		b = strconv.AppendInt(b, h, 10)
	} else {
		b = append(b, byte('0'+h/10), byte('0'+h%10))
	}
	m, sec := s/60%60, s%60
	b = append(b, ':', byte('0'+m/10), byte('0'+m%10), ':', byte('0'+sec/10), byte('0'+sec%10))
	return appendFraction(b, frac, fraction)
}

// appendFraction appends the point and the digits of microseconds within a second.
func appendFraction(b []byte, frac int64, digits int) []byte {
	var d [6]byte
	copy(d[0:], pair(uint32(frac)/10000))
	copy(d[2:], pair(uint32(frac)/100%100))
	copy(d[4:], pair(uint32(frac)%100))
	switch digits {
	case fractionNeeded, fractionISO:
		n := 6
		for n > 0 && d[n-1] == '0' {
			n--
		}
		if digits == fractionISO {
			n = (n + 2) / 3 * 3
		}
		digits = n
	}
	if digits <= 0 {
		return b
	}
	b = append(b, '.')
	b = append(b, d[:min(digits, 6)]...)
	for range digits - 6 {
		b = append(b, '0')
	}
	return b
}

// appendTimestamp appends an instant at UTC.
func appendTimestamp(b []byte, us int64, fraction int) []byte {
	return appendFarTimestamp(b, us, 0, fraction)
}

// appendFarTimestamp appends the instant that lies seconds after another, at UTC.
func appendFarTimestamp(b []byte, us int64, seconds uint32, fraction int) []byte {
	days, tod := floorDiv(us, microsPerDay)
	more, tod := floorDiv(tod+int64(seconds)*microsPerSecond, microsPerDay)
	days += more
	if days < firstFourDigits || days > lastFourDigits {
		b = append(appendDate(b, days), 'T')
		return append(appendTime(b, tod, fraction), 'Z')
	}
	y, m, d := dateInEra(uint32(days + marchOfYear0))
	sec, frac := uint32(tod/microsPerSecond), tod%microsPerSecond
	var text [len("2006-01-02T15:04:05")]byte
	copy(text[0:], pair(y/100))
	copy(text[2:], pair(y%100))
	text[4] = '-'
	copy(text[5:], pair(m))
	text[7] = '-'
	copy(text[8:], pair(d))
	text[10] = 'T'
	copy(text[11:], pair(sec/3600))
	text[13] = ':'
	copy(text[14:], pair(sec/60%60))
	text[16] = ':'
	copy(text[17:], pair(sec%60))
	return append(appendFraction(append(b, text[:]...), frac, fraction), 'Z')
}

// The days 0000-03-01 and 9999-12-31: between them a year has four digits and no sign.
const firstFourDigits, lastFourDigits = -marchOfYear0, 2932896

// pairs holds the numbers from 00 to 99.
const pairs = "00010203040506070809101112131415161718192021222324252627282930313233343536373839" +
	"40414243444546474849505152535455565758596061626364656667686970717273747576777879" +
	"8081828384858687888990919293949596979899"

// pair is a number below 100 in two digits.
func pair(n uint32) string { return pairs[2*n : 2*n+2] }

// appendInterval appends an ISO 8601 duration with every component.
func appendInterval(b []byte, v *capture.Value) []byte {
	months, days, us := v.Interval()
	component := func(n int64, unit byte) {
		b = append(strconv.AppendInt(b, n, 10), unit)
	}
	b = append(b, 'P')
	component(int64(months/12), 'Y')
	component(int64(months%12), 'M')
	component(int64(days), 'D')
	b = append(b, 'T')
	component(us/(3600*microsPerSecond), 'H')
	component(us/(60*microsPerSecond)%60, 'M')
	rest := us % (60 * microsPerSecond)
	if rest < 0 {
		b = append(b, '-')
		rest = -rest
	}
	b = strconv.AppendInt(b, rest/microsPerSecond, 10)
	return append(appendFraction(b, rest%microsPerSecond, fractionNeeded), 'S')
}

// appendMapJSON appends a JSON object without spaces.
func appendMapJSON(b []byte, pairs []capture.Value) ([]byte, error) {
	b = append(b, '{')
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		for j := range 2 {
			v := &pairs[i+j]
			switch {
			case j == 1 && v.IsNull():
				b = append(b, "null"...)
			case v.Kind() != capture.String:
				return b, kindError(v)
			case !utf8.Valid(v.Bytes()):
				return b, errUTF8
			default:
				b = (&renderer{b: b}).quoted(view(v.Bytes()))
			}
			if j == 0 {
				b = append(b, ':')
			}
		}
	}
	return append(b, '}'), nil
}

// quoted appends a JSON string to r's bytes and returns them.
func (r *renderer) quoted(s string) []byte {
	r.string(s)
	return r.b
}

// PointWKBLen is the length of what AppendPointWKB appends.
const PointWKBLen = 21

// AppendPointWKB appends the little-endian WKB of a point.
func AppendPointWKB(b []byte, x, y float64) []byte {
	b = append(b, 1, 1, 0, 0, 0)
	for _, f := range [2]float64{x, y} {
		u := math.Float64bits(f)
		if f != f {
			u = 0x7ff8000000000000 // the NaN that Java makes
		}
		b = binary.LittleEndian.AppendUint64(b, u)
	}
	return b
}

func parsePointWKB(b []byte) (x, y float64, err error) {
	if len(b) != PointWKBLen || b[0] > 1 {
		return 0, 0, errPointWKB
	}
	var order binary.ByteOrder = binary.BigEndian
	if b[0] == 1 {
		order = binary.LittleEndian
	}
	if order.Uint32(b[1:]) != 1 {
		return 0, 0, errPointWKB
	}
	return math.Float64frombits(order.Uint64(b[5:])), math.Float64frombits(order.Uint64(b[13:])), nil
}
