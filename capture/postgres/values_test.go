package postgres

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

// decoderOf is the decoder of a column of the type, named by its OID or, for what
// extensions and users bring, by its name.
func decoderOf(t testing.TB, typ string, mod int32) columnDecoder {
	t.Helper()
	m := typeMap{}
	name, array := strings.CutSuffix(typ, "[]")
	e := &pgType{oid: firstNormalOID, name: name, typtype: 'b', delimiter: ','}
	switch name {
	case "mood":
		e.typtype, e.labels = 'e', []string{"sad", "ok", "very, happy"}
	case "geometry", "geography":
		e.delimiter = ':'
	}
	if oid, ok := oids[name]; ok {
		e.oid = oid
	}
	m[e.oid] = e
	oid := e.oid
	if array {
		oid++
		m[oid] = &pgType{oid: oid, typtype: 'b', elem: e.oid}
	}
	r := m.resolve(oid, mod, typ)
	if r.Type.Unmapped {
		t.Fatalf("%s is not mapped", typ)
	}
	return r.dec
}

var oids = map[string]uint32{
	"bool": oidBool, "int2": oidInt2, "int4": oidInt4, "int8": oidInt8, "oid": oidOID, "float4": oidFloat4, "float8": oidFloat8, "numeric": oidNumeric,
	"money": oidMoney, "bytea": oidBytea, "bit": oidBit, "varbit": oidVarbit, "date": oidDate, "time": oidTime, "timetz": oidTimeTZ, "timestamp": oidTimestamp,
	"timestamptz": oidTimestampTZ, "interval": oidInterval, "point": oidPoint, "text": oidText, "uuid": oidUUID,
}

func TestValues_OfText(t *testing.T) {
	for _, c := range []struct {
		typ  string
		mod  int32
		text string
		want string
	}{
		{"timestamp", -1, "294247-01-10 04:00:54.775805", "timestamp:9223372036854775805"},
		// Beyond 64 bits, next to the infinity.
		{"timestamp", -1, "294247-01-10 04:00:54.775806", "timestamp:9223372036854775806"},
		{"timestamp", -1, "294247-01-10 04:00:54.775807", "timestamp:9223372036854775806"},
		{"timestamp", -1, "294276-12-31 23:59:59.999999", "timestamp:9223372036854775806"},
		{"timestamp", -1, "294247-01-09 00:00:00", "timestamp:9223371936000000000"},
		{"timestamptz", -1, "294247-01-10 04:00:54.775806+00", "timestamptz:9223372036854775806"},
		{"timestamptz", -1, "294247-01-10 04:00:54.775807+00", "timestamptz:9223372036853775807+1s"},
		{"timestamptz", -1, "294276-12-31 23:59:59.999999+00", "timestamptz:9223372036853999999+945979146s"},
		{"timestamptz", -1, "2024-06-01 00:00:00.5-11:30", "timestamptz:1717241400500000"},
		{"timestamp", -1, "infinity", "timestamp:9223372036854775807"},
		{"timestamptz", -1, "-infinity", "timestamptz:-9223372036854775808"},
		{"date", -1, "0044-03-15 BC", "date:-735160"},
		{"date", -1, "1582-10-10", "date:-141432"},
		{"date", -1, "infinity", "date:9223372036854775807"},
		{"time", -1, "24:00:00", "time:86400000000"},
		{"timetz", -1, "12:00:00.5-15:59:59", "timetz:43200500000-57599"},
		{"interval", -1, "infinity", "interval:2147483647mon 2147483647d 9223372036854775807us"},
		{"interval", -1, "-infinity", "interval:-2147483648mon -2147483648d -9223372036854775808us"},
		{"interval", -1, "-2562047788:00:54.775808", "interval:0mon 0d -9223372036854775808us"},
		{"interval", -1, "1 year 2 mons -3 days +04:05:06.78", "interval:14mon -3d 14706780000us"},
		{"interval", -1, "00:00:00", "interval:0mon 0d 0us"},
		{"money", -1, "-$92,233,720,368,547,758.08", "decimal:-92233720368547758.08"},
		{"money", -1, "$0.00", "decimal:0.00"},
		{"numeric", -1, "Infinity", "decimal:Infinity"},
		{"numeric", -1, "-Infinity", "decimal:-Infinity"},
		{"numeric", 4 + (5<<16 | 0x7fe), "12300", "decimal:12300"},
		{"varbit", -1, "0000000000000001", "0x01"},
		{"varbit", -1, "1000000000", "0x0002"},
		{"bytea", -1, `\x`, "0x"},
		{"geometry", -1, "0101000020E6100000000000000000F03F0000000000000040", "geometry:0x0101000020e6100000000000000000f03f0000000000000040"},
		{"geography", -1, "00000000013FF00000000000004000000000000000", "geometry:0x00000000013ff00000000000004000000000000000"},
		{"geometry[]", -1, "{0101000000000000000000F03F0000000000000040:NULL}", "[geometry:0x0101000000000000000000f03f0000000000000040 null]"},
		{"vector", -1, "[1,-2.5,0.1]", "[float:1 float:-2.5 float:0.1]"},
		{"halfvec", -1, "[0.1]", "[float:" + strconv.FormatFloat(float64(float32(0.1)), 'g', -1, 64) + "]"},
		{"sparsevec", -1, "{1:1.5,3:-2}/5", "map[int:1 float:1.5 int:3 float:-2]"},
		{"sparsevec", -1, "{}/5", "map[]"},
		{"hstore", -1, `"a"=>"1", "b\"\\"=>NULL, ""=>"NULL"`, `map["a" "1" "b\"\\" null "" "NULL"]`},
		{"int4[]", -1, "{}", "[]"},
		{"int4[]", -1, "[2:3]={1,NULL}", "[int:1 null]"},
		{"int4[]", -1, "[-1:0][0:1]={{1,2},{3,4}}", "[[int:1 int:2] [int:3 int:4]]"},
		{"int4[]", -1, "{{{1}},{{2}}}", "[[[int:1]] [[int:2]]]"},
		{"text[]", -1, `{a,"NULL",NULL,"x\"y\\z",""," {,}"}`, `["a" "NULL" null "x\"y\\z" "" " {,}"]`},
		{"mood[]", -1, `{sad,"very, happy"}`, `["sad" "very, happy"]`},
		{"hstore[]", -1, `{"\"a\"=>\"\\\\\"",NULL}`, `[map["a" "\\"] null]`},
		{"timestamptz[]", -1, `{"2024-02-29 12:34:56+00",infinity}`, "[timestamptz:1709210096000000 timestamptz:9223372036854775807]"},
		{"bit[]", 1, "{1,0}", "[true false]"},
		{"bit[]", 3, "{101}", "[0x05]"},
		{"bit", -1, "101", "0x05"}, // without a modifier any length
		{"varbit", 1, "", "false"},
	} {
		b := capture.NewBatch()
		d := decoderOf(t, c.typ, c.mod)
		v, err := d.decode(b, []byte(c.text))
		if err != nil || v.String() != c.want {
			t.Errorf("%s %s: %v, %v; want %s", c.typ, c.text, v, err, c.want)
		}
		b.Release()
	}
}

func TestValues_KeepSRIDAndDimension(t *testing.T) {
	b := capture.NewBatch()
	defer b.Release()
	for typ, c := range map[string]struct {
		text string
		srid uint32
		ok   bool
	}{
		"geometry":  {"0101000020E6100000000000000000F03F0000000000000040", 4326, true},
		"geography": {"0020000001000010E63FF00000000000004000000000000000", 4326, true},
	} {
		d := decoderOf(t, typ, -1)
		v, err := d.decode(b, []byte(c.text))
		if srid, ok := v.SRID(); err != nil || srid != c.srid || ok != c.ok {
			t.Errorf("%s: SRID %d, %t, %v", typ, srid, ok, err)
		}
	}
	d := decoderOf(t, "sparsevec", -1)
	if v, err := d.decode(b, []byte("{1:1.5}/1000")); err != nil || v.Int() != 1000 {
		t.Errorf("dimension %d, %v", v.Int(), err)
	}
}

func TestValues_RefuseWhatTheServerDoesNotPrint(t *testing.T) {
	for typ, list := range map[string][]string{
		"bool":        {"", "true", "x"},
		"int2":        {"", "-", "32768", "-32769", "1 ", "+1", "1.0"},
		"int4":        {"2147483648", "-2147483649", "0x1"},
		"int8":        {"9223372036854775808", "-9223372036854775809", "99999999999999999999", "18446744073709551616"},
		"oid":         {"-1", "4294967296"},
		"float4":      {"", "1e39", "nan", "inf", "0x1p3", "1_0"},
		"float8":      {"1e309", "-nan", "infinity"},
		"numeric":     {"", "-", ".", "1.", ".5", "1e3", "--1", "1.2.3", "-NaN", "+1"},
		"money":       {"", "$", "1.00", "$1", "$1.0", "$-1.00", "-$", "$1.000"},
		"bytea":       {"", "00", `\x0`, `\xzz`},
		"varbit":      {"2", "1 0"},
		"date":        {"", "2024-02-3", "24-02-03", "2024-13-01", "2024-00-01", "2024-01-32", "0000-01-01", "2024-01-01 AD", "2024-01-01 ", "Infinity"},
		"time":        {"", "25:00:00", "24:00:01", "12:60:00", "12:00:60", "12:00", "12:00:00.", "12:00:00.1234567"},
		"timetz":      {"12:00:00", "12:00:00+1", "12:00:00 UTC"},
		"timestamp":   {"2024-01-01", "2024-01-01T00:00:00", "2024-01-01 00:00:00+00", "", "294277-01-01 00:00:00", "9999999-01-01 00:00:00 BC"},
		"timestamptz": {"2024-01-01 00:00:00", "2024-01-01 00:00:00+00 AD"},
		"interval":    {"", "1", "1 year ", "1 week", "1 year2 mons", "@ 1 year", "P1Y", "1:2", "00:60:00", "2562047788:00:54.775808", "-2562047788:00:54.775809", "99999999999:00:00", "200000000 years", "1 day 1 day 1 day 1 day 1 day", "--1 day"},
		"point":       {"", "()", "(1)", "(1,2", "(1,2,3)", "1,2"},
		"mood[]":      {"sad", "{sad", "{sad}}", "{{sad},}", "{,}", "{sad,}", "{\"sad}", "[1:2]{sad}", "{{{{{{{sad}}}}}}}", "{sad}{ok}", "{sad\"}"},
		"int4[]":      {"", "{", "}", "{1,x}", "[1:2={1,2}", "{1}x", "{{1}{2}}"},
		"hstore":      {"a=>b", `"a"`, `"a"=>`, `"a"=>"b",`, `"a"=>"b", `, `"a"=>null`, `"a\`},
		"vector":      {"", "[]", "[1", "1", "[1,]", "[x]"},
		"sparsevec":   {"", "{}", "{1:1}", "{0:1}/3", "{4:1}/3", "{1}/3", "{1:1,}/3", "{}/0", "}/3"},
		"geometry":    {"", "01", "0201000000", "010100002000", "zz"},
	} {
		d := decoderOf(t, typ, -1)
		for _, text := range list {
			b := capture.NewBatch()
			v, err := d.decode(b, []byte(text))
			if !errors.Is(err, errText) {
				t.Errorf("%s %q: %v, %v", typ, text, v, err)
			}
			b.Release()
		}
	}
}

// Every number of days comes back from the date that the server prints for it.
func TestDaysFrom_CountsTheProlepticCalendar(t *testing.T) {
	month := [...]int64{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}
	want := daysFrom(-4713, 1, 1)
	if got := daysFrom(-4713, 11, 24); got != -2440588 { // where Julian days begin
		t.Errorf("4714-11-24 BC is day %d", got)
	}
	for year := int64(-4713); year < 3000; year++ {
		for m := range int64(12) {
			days := month[m]
			if m == 1 && (year%4 == 0 && year%100 != 0 || year%400 == 0) {
				days++
			}
			for d := range days {
				if got := daysFrom(year, m+1, d+1); got != want {
					t.Fatalf("%d-%d-%d is day %d, want %d", year, m+1, d+1, got, want)
				}
				want++
			}
		}
	}
}

func FuzzNumbersRoundTrip(f *testing.F) {
	f.Add(int64(math.MinInt64), math.MaxFloat64, float32(math.SmallestNonzeroFloat32))
	f.Add(int64(0), 0.1, float32(0.1))
	f.Fuzz(func(t *testing.T, i int64, x float64, y float32) {
		if got, ok := parseInt(strconv.AppendInt(nil, i, 10)); !ok || got != i {
			t.Errorf("%d became %d", i, got)
		}
		if math.IsInf(x, 0) || math.IsNaN(x) || math.IsInf(float64(y), 0) || math.IsNaN(float64(y)) {
			return
		}
		if got, ok := parseFloat(strconv.AppendFloat(nil, x, 'g', -1, 64), 64); !ok || got != x {
			t.Errorf("%g became %g", x, got)
		}
		if got, ok := parseFloat(strconv.AppendFloat(nil, float64(y), 'g', -1, 32), 32); !ok || float32(got) != y {
			t.Errorf("%g became %g", y, got)
		}
	})
}

// No text makes a decoder panic.
func FuzzValue(f *testing.F) {
	for _, s := range []string{
		"", "t", "-1", "1.5", "NaN", "-$1,234.50", `\x00ff`, "101", "2024-02-29 12:34:56.789012+00 BC", "24:00:00+05:30", "1 year -2 mons +3 days -04:05:06.7",
		"(1,2)", `"a"=>"b\"", "c"=>NULL`, "[1,2]", "{1:2}/3", "[2:3]={{1,NULL},{\"x\\\\\",y}}", "0101000020E6100000000000000000F03F0000000000000040", "infinity",
	} {
		f.Add(s)
	}
	var decoders []columnDecoder
	for name := range oids {
		decoders = append(decoders, decoderOf(f, name, -1))
	}
	for _, name := range []string{"mood", "geometry", "vector", "halfvec", "sparsevec", "hstore", "text[]", "int4[]", "mood[]", "hstore[]", "geometry[]", "timetz[]"} {
		decoders = append(decoders, decoderOf(f, name, -1))
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := capture.NewBatch()
		defer b.Release()
		for i := range decoders {
			text := []byte(s)
			v, err := decoders[i].decode(b, text)
			if string(text) != s {
				t.Fatalf("the text was changed to %q", text)
			}
			if err == nil {
				_ = v.String()
			}
		}
	})
}
