package schema

import (
	"math"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/capture"
)

func TestJavaFloat(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		f    float64
		kind Kind
		want string
	}{
		{0, Float64, "0.0"},
		{math.Copysign(0, -1), Float64, "-0.0"},
		{1.25, Float64, "1.25"},
		{100, Float64, "100.0"},
		{-5, Float64, "-5.0"},
		{1e7, Float64, "1.0E7"},
		{9999999, Float64, "9999999.0"},
		{1e-3, Float64, "0.001"},
		{1.5e-4, Float64, "1.5E-4"},
		{-1e300, Float64, "-1.0E300"},
		{float64(float32(0.1)), Float32, "0.1"},
		{3.4028234663852886e38, Float32, "3.4028235E38"},
		{math.Inf(-1), Float64, "-Infinity"},
		{math.NaN(), Float32, "NaN"},
	} {
		if got := string(AppendFloatText(nil, c.f, c.kind)); got != c.want {
			t.Errorf("%v: got %s, want %s", c.f, got, c.want)
		}
	}
}

func TestDates_AreProlepticGregorian(t *testing.T) {
	t.Parallel()
	for days, want := range map[int64]string{
		0: "1970-01-01", -1: "1969-12-31", 19782: "2024-02-29", -719162: "0001-01-01", -719163: "0000-12-31", -735160: "-0043-03-15", -141432: "1582-10-10",
		2932896: "9999-12-31", 2932897: "+10000-01-01", 2145042905: "+5874897-12-31", -2440550: "-4712-01-01",
	} {
		if got := string(appendDate(nil, days)); got != want {
			t.Errorf("day %d: got %s, want %s", days, got, want)
		}
	}
	for day := int64(-800000); day < 800000; day += 137 {
		y, m, d := time.Unix(day*86400, 0).UTC().Date()
		if gy, gm, gd := civil(day); gy != int64(y) || gm != int64(m) || gd != int64(d) {
			t.Fatalf("day %d: got %d-%d-%d, want %d-%d-%d", day, gy, gm, gd, y, m, d)
		}
	}
}

func TestInfinities_AreDebeziums(t *testing.T) {
	t.Parallel()
	for ms, want := range map[int64]string{posInfinityMillis: posInfinityISOTimestamp, negInfinityMillis: negInfinityISOTimestamp} {
		if got := string(appendTimestamp(nil, ms*1000, fractionNeeded)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for day, want := range map[int64]string{106751991166: posInfinityISODate, -106751991168: negInfinityISODate} {
		if got := string(appendDate(nil, day)) + "Z"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestZonedTimestamp_ReachesBeyondWhatInt64Holds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		us      int64
		seconds uint32
		want    string
	}{
		{math.MaxInt64 - 1, 0, "+294247-01-10T04:00:54.775806Z"},
		{math.MaxInt64, 1, "+294247-01-10T04:00:55.775807Z"},
		{9223372036853999999, 945979146, "+294276-12-31T23:59:59.999999Z"},
		{-62162035200000000, 0, "0000-03-01T00:00:00.000000Z"},
		{-62162035200000001, 0, "0000-02-29T23:59:59.999999Z"},
		{-62167219200000001, 0, "-0001-12-31T23:59:59.999999Z"},
		{253402300799999999, 0, "9999-12-31T23:59:59.999999Z"},
		{253402300799999999, 1, "+10000-01-01T00:00:00.999999Z"},
		{1234567890123456, 0, "2009-02-13T23:31:30.123456Z"},
	} {
		if got := string(appendFarTimestamp(nil, c.us, c.seconds, 6)); got != c.want {
			t.Errorf("%d and %d s: got %s, want %s", c.us, c.seconds, got, c.want)
		}
	}
}

func TestDuration_SaturatesAtTheLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		months, days int32
		us, want     int64
	}{
		{0, 0, 5, 5},
		{1, 0, 0, 2629800000000},
		{-12, 1, -1, -31557600000000 + 86400000000 - 1},
		{math.MaxInt32, 0, 0, math.MaxInt64},
		{math.MinInt32, 0, 0, math.MinInt64},
		{0, 1, math.MaxInt64, math.MaxInt64},
		{0, -1, math.MinInt64, math.MinInt64},
	} {
		if got := duration(c.months, c.days, c.us); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}

func TestInterval_PrintsEveryComponent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		months, days int32
		us           int64
		want         string
	}{
		{0, 0, 0, "P0Y0M0DT0H0M0S"}, {14, 3, 14706780000, "P1Y2M3DT4H5M6.78S"}, {-14, -3, -14706780000, "P-1Y-2M-3DT-4H-5M-6.78S"}, {0, 0, -100000, "P0Y0M0DT0H0M-0.1S"},
	} {
		v := capture.IntervalValue(make([]byte, 8), c.months, c.days, c.us)
		if got := string(appendInterval(nil, &v)); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestFractions_HaveTheDigitsAskedFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		frac   int64
		digits int
		want   string
	}{
		{0, 0, ""},
		{500000, 0, ""},
		{500000, 3, ".500"},
		{123456, 6, ".123456"},
		{1, 9, ".000001000"},
		{0, fractionNeeded, ""},
		{500000, fractionNeeded, ".5"},
		{0, fractionISO, ""},
		{500000, fractionISO, ".500"},
		{123400, fractionISO, ".123400"},
	} {
		if got := string(appendFraction(nil, c.frac, c.digits)); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}
