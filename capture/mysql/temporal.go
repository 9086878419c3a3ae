package mysql

import (
	"encoding/binary"

	"github.com/headwaterdb/headwater/capture"
)

// Times are stored big-endian, in an order in which they compare like numbers, with a
// fraction of a second behind them: one byte for two digits, two for four, three for six.
// https://dev.mysql.com/doc/dev/mysql-server/latest/field__types_8h.html

const (
	second = 1_000_000 // microseconds
	minute = 60 * second
	hour   = 60 * minute
	day    = 24 * hour
)

// fraction reads the microseconds that p begins with.
func (c *cell) fraction(p []byte) int64 {
	switch c.width {
	case 1:
		return int64(p[0]) * 10_000
	case 2:
		return int64(binary.BigEndian.Uint16(p)) * 100
	case 3:
		return int64(p[0])<<16 | int64(p[1])<<8 | int64(p[2])
	}
	return 0
}

// date reads year<<9 | month<<5 | day.
func (c *cell) date(u uint32) capture.Value {
	days, ok := civilDays(int(u>>9), int(u>>5&15), int(u&31))
	if !ok {
		return c.noDate()
	}
	return capture.DateValue(days)
}

// datetime2 reads 40 bits: a sign, which is always set, 17 bits year*13+month, 5 bits day,
// 5 hour, 6 minute, 6 second.
func (c *cell) datetime2(p []byte) (capture.Value, error) {
	u := uint64(p[0])<<32 | uint64(binary.BigEndian.Uint32(p[1:]))
	const sign = 1 << 39
	if u&sign == 0 {
		return capture.Value{}, errForm
	}
	return c.packedDatetime(u^sign, c.fraction(p[5:]))
}

// packedDatetime reads what stands behind the sign.
func (c *cell) packedDatetime(u uint64, micros int64) (capture.Value, error) {
	ym, h, m, s := int(u>>22), int64(u>>12&31), int64(u>>6&63), int64(u&63)
	if h > 23 || m > 59 || s > 59 || micros >= second {
		return capture.Value{}, errForm
	}
	return c.datetime(ym/13, ym%13, int(u>>17&31), h*hour+m*minute+s*second+micros), nil
}

func (c *cell) datetime(year, month, dayOfMonth int, micros int64) capture.Value {
	days, ok := civilDays(year, month, dayOfMonth)
	if !ok {
		return c.noDate()
	}
	return capture.TimestampValue(days*day + micros)
}

// oldDatetime reads the decimal number YYYYMMDDhhmmss.
func (c *cell) oldDatetime(u uint64) (capture.Value, error) {
	d, t := u/1_000_000, int64(u%1_000_000)
	h, m, s := t/10_000, t/100%100, t%100
	if d > 9999_99_99 || h > 23 || m > 59 || s > 59 {
		return capture.Value{}, errForm
	}
	return c.datetime(int(d/10_000), int(d/100%100), int(d%100), h*hour+m*minute+s*second), nil
}

// timestamp takes seconds since 1970, UTC. 0 is the date 0000-00-00.
func (c *cell) timestamp(seconds, micros int64) capture.Value {
	if seconds == 0 {
		return c.noDate()
	}
	return capture.TimestampTZValue(seconds*second + micros)
}

// time2 reads 24 bits: a sign, an unused bit, 10 bits hour, 6 minute, 6 second. Together
// with the fraction it is a number above or below the middle.
func (c *cell) time2(p []byte) (capture.Value, error) {
	n := int64(p[0])<<16 | int64(p[1])<<8 | int64(p[2])
	bits := 8 * uint(c.width)
	for _, b := range p[3 : 3+c.width] {
		n = n<<8 | int64(b)
	}
	n -= 1 << (23 + bits)
	negative := n < 0
	if negative {
		n = -n
	}
	var tail [3]byte
	for i := range c.width {
		tail[i] = byte(n >> (bits - 8 - 8*uint(i)))
	}
	return packedTime(uint64(n)>>bits, c.fraction(tail[:]), negative)
}

// packedTime reads 10 bits hour, 6 minute, 6 second.
func packedTime(u uint64, micros int64, negative bool) (capture.Value, error) {
	h, m, s := int64(u>>12), int64(u>>6&63), int64(u&63)
	if h > 838 || m > 59 || s > 59 || micros >= second {
		return capture.Value{}, errForm
	}
	n := h*hour + m*minute + s*second + micros
	if negative {
		n = -n
	}
	return capture.TimeValue(n), nil
}

// oldTime reads the decimal number hhmmss, with a sign in 24 bits.
func oldTime(u uint32) (capture.Value, error) {
	n := int64(int32(u<<8) >> 8)
	sign := int64(1)
	if n < 0 {
		n, sign = -n, -1
	}
	h, m, s := n/10_000, n/100%100, n%100
	if h > 838 || m > 59 || s > 59 {
		return capture.Value{}, errForm
	}
	return capture.TimeValue(sign * (h*hour + m*minute + s*second)), nil
}

// civilDays counts days from 1970-01-01 to a date of the proleptic Gregorian calendar.
// It reports false for a date that does not exist: year, month and day of the server may
// each be 0, and with ALLOW_INVALID_DATES every month has 31 days.
func civilDays(year, month, dayOfMonth int) (int64, bool) {
	if month < 1 || month > 12 || dayOfMonth < 1 || dayOfMonth > daysIn(year, month) {
		return 0, false
	}
	// Years begin with March, so that the leap day is their last; 400 of them repeat.
	y := year
	if month <= 2 {
		y--
		month += 12
	}
	era := y / 400
	if y < 0 {
		era = -1
	}
	yearOfEra := y - 400*era
	dayOfYear := (153*(month-3)+2)/5 + dayOfMonth - 1
	dayOfEra := 365*yearOfEra + yearOfEra/4 - yearOfEra/100 + dayOfYear
	const epoch = 719_468 // days from 0000-03-01 to 1970-01-01
	return int64(era*146_097 + dayOfEra - epoch), true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}
