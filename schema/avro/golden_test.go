package avro

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

// The file holds rows that a Debezium 3.6.1 wrote for streamed inserts.
const goldenRows = "testdata/debezium-3.6.1-rows.jsonl"

type goldenRow struct {
	DB, Table string
	After     map[string]any
}

func readRows(t *testing.T) map[string]map[int64]goldenRow {
	t.Helper()
	f, err := os.Open(goldenRows)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows := make(map[string]map[int64]goldenRow)
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var g goldenRow
		d := json.NewDecoder(strings.NewReader(s.Text()))
		d.UseNumber()
		if err := d.Decode(&g); err != nil {
			t.Fatal(err)
		}
		id, err := g.After["id"].(json.Number).Int64()
		if err != nil {
			t.Fatal(err)
		}
		name := g.DB + "." + g.Table
		if rows[name] == nil {
			rows[name] = make(map[int64]goldenRow)
		}
		rows[name][id-1000] = g
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return rows
}

// same compares a golden value with a decoded one.
func same(want, got any) bool {
	switch w := want.(type) {
	case json.Number:
		switch g := got.(type) {
		case int64:
			return w.String() == fmt.Sprint(g)
		case float64:
			f, err := w.Float64()
			return err == nil && f == g
		}
		return false
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for i := range w {
			if !same(w[i], g[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for k := range w {
			if !same(w[k], g[k]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(want, got)
}

// typeRows are rows of a table that has one type in columns v, vn, vd and, in
// PostgreSQL, in array a. All of them hold the value, a holds it, NULL and it again.
type typeRows struct {
	table  string
	typ    capture.Type
	values map[int64]capture.Value
	// arrays is false where Debezium's arrays differ from its scalars, which is a
	// defect there, or where it has none.
	arrays bool
}

func goldenTypes() []typeRows {
	const minute = 60 * 1000000
	ts := capture.TimestampValue
	tz := capture.TimestampTZValue
	bytes := func(s string) capture.Value { return capture.BytesValue([]byte(s)) }
	point := func(x, y float64) capture.Value { return capture.PointValue(make([]byte, 16), x, y) }
	float := func(f float64) capture.Value { return capture.FloatValue(f) }
	float32s := func(f float32) capture.Value { return capture.FloatValue(float64(f)) }
	wkb := func(s string) []byte {
		var b []byte
		if _, err := fmt.Sscanf(s, "%x", &b); err != nil {
			panic(err)
		}
		return b
	}
	return []typeRows{
		{"postgres.t_int4", kind(capture.TypeInt32), map[int64]capture.Value{1: num(0), 2: num(42), 3: num(math.MinInt32), 4: num(math.MaxInt32)}, true},
		{"postgres.t_num_5_2", numeric(5, 2), map[int64]capture.Value{1: dec("0.00"), 2: dec("1.10"), 3: dec("-999.99"), 4: dec("999.99")}, true},
		{"postgres.t_num_3_5", numeric(3, 5), map[int64]capture.Value{1: dec("0.00000"), 2: dec("0.00123"), 3: dec("-0.00999")}, true},
		{"postgres.t_num_1000", numeric(1000, 500), map[int64]capture.Value{1: dec("0"), 2: dec("1.5")}, true},
		{"postgres.t_float4", kind(capture.TypeFloat32), map[int64]capture.Value{
			1: float(0), 3: float32s(1.1), 4: float32s(3.4028235e38), 5: float32s(-1.17549e-38), 6: float(math.NaN()),
			7: float(math.Inf(1)), 8: float(math.Inf(-1)), 9: float(16777216),
		}, true},
		{"postgres.t_bool", kind(capture.TypeBool), map[int64]capture.Value{1: capture.BoolValue(true), 2: capture.BoolValue(false)}, true},
		{"postgres.t_char10", kind(capture.TypeString), map[int64]capture.Value{1: str("abc       "), 3: str("日本        ")}, true},
		{"postgres.t_varchar5", kind(capture.TypeString), map[int64]capture.Value{1: str("abcde"), 2: str("😀😀😀😀😀")}, true},
		{"postgres.t_bit8", capture.Type{Kind: capture.TypeBits, Length: 8}, map[int64]capture.Value{1: bytes("\xaa"), 2: bytes("\x01")}, false},
		{"postgres.t_varbit16", capture.Type{Kind: capture.TypeBits, Length: 16}, map[int64]capture.Value{1: bytes("\x01"), 2: bytes("\xaa\xaa")}, false},
		{"postgres.t_date", kind(capture.TypeDate), map[int64]capture.Value{
			1: capture.DateValue(19782), 2: capture.DateValue(0), 3: capture.DateValue(-1), 4: capture.DateValue(-719162), 7: capture.DateValue(2145042905),
		}, true},
		{"postgres.t_date", kind(capture.TypeDate), map[int64]capture.Value{
			5: capture.DateValue(-735160), 6: capture.DateValue(-2440550), 8: capture.DateValue(capture.PosInfinity), 9: capture.DateValue(capture.NegInfinity), 10: capture.DateValue(-141432),
		}, false},
		{"postgres.t_time", scaled(capture.TypeTime, 6), map[int64]capture.Value{1: capture.TimeValue(0)}, true},
		{"postgres.t_time", scaled(capture.TypeTime, 6), map[int64]capture.Value{
			2: capture.TimeValue(86399999999), 3: capture.TimeValue(86400000000), 4: capture.TimeValue(45296000001),
		}, false},
		{"postgres.t_time1", scaled(capture.TypeTime, 1), map[int64]capture.Value{1: capture.TimeValue(45296800000)}, true},
		{"postgres.t_time1", scaled(capture.TypeTime, 1), map[int64]capture.Value{2: capture.TimeValue(86400000000)}, false},
		{"postgres.t_timetz", scaled(capture.TypeTimeTZ, 6), map[int64]capture.Value{
			1: capture.TimeTZValue(0, 0), 2: capture.TimeTZValue(86399999999, -12*3600), 3: capture.TimeTZValue(86400000000, 5*3600+1800),
			4: capture.TimeTZValue(12*60*minute+34*minute+56500000, 15*3600+59*60),
		}, false},
		{"postgres.t_ts", scaled(capture.TypeTimestamp, 6), map[int64]capture.Value{
			1: ts(1709210096789012), 2: ts(0), 3: ts(-1), 6: ts(253402300799999999), 10: ts(capture.PosInfinity), 11: ts(capture.NegInfinity),
		}, true},
		{"postgres.t_ts", scaled(capture.TypeTimestamp, 6), map[int64]capture.Value{
			4: ts(-62135596800000000), 5: ts(-63517780800000000), 7: ts(-12219724800000000), 8: ts(-210863520000000000),
		}, false},
		{"postgres.t_ts1", scaled(capture.TypeTimestamp, 1), map[int64]capture.Value{
			1: ts(1709210096800000), 2: ts(0), 6: ts(253402300800000000), 8: ts(capture.PosInfinity),
		}, true},
		{"postgres.t_tstz", scaled(capture.TypeTimestampTZ, 6), map[int64]capture.Value{
			1: tz(1709210096789012), 2: tz(0), 3: tz(-1), 4: tz(-62135596800000000), 6: tz(253402300799999999), 8: tz(1717149600000000), 9: tz(1717239600123400),
			10: tz(capture.PosInfinity),
		}, true},
		{"postgres.t_tstz", scaled(capture.TypeTimestampTZ, 6), map[int64]capture.Value{
			5: tz(-63517780800000000), 7: tz(-12219724800000000), 11: tz(capture.NegInfinity), 13: tz(-210863520000000000),
		}, false},
		{"postgres.t_tstz3", scaled(capture.TypeTimestampTZ, 3), map[int64]capture.Value{1: tz(1709210096789000), 2: tz(0)}, true},
		{"postgres.t_interval_d3", scaled(capture.TypeInterval, 3), map[int64]capture.Value{1: capture.IntervalValue(make([]byte, 8), 0, 3, 14706789000)}, false},
		{"postgres.t_uuid", kind(capture.TypeUUID), map[int64]capture.Value{1: str("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")}, true},
		{"postgres.t_jsonb", kind(capture.TypeJSON), map[int64]capture.Value{1: str(`{"a": [1, 2.50, null, true], "b": 1, "u": "é"}`), 2: str("null"), 3: str("[]")}, true},
		{"postgres.t_point", kind(capture.TypePoint), map[int64]capture.Value{1: point(1.5, -2.5), 2: point(0, 0), 3: point(math.Inf(1), math.NaN())}, false},
		{"postgres.t_oid", kind(capture.TypeInt64), map[int64]capture.Value{1: num(0), 2: num(4294967295)}, true},
		{"postgres.t_ltree", kind(capture.TypeLtree), map[int64]capture.Value{1: str("Top.Science.Astronomy")}, false},

		{"mysql.t_tinyint1", kind(capture.TypeInt8), map[int64]capture.Value{1: num(0), 2: num(1), 3: num(2), 4: num(-1)}, false},
		{"mysql.t_dec_5_2_u", numeric(5, 2), map[int64]capture.Value{1: dec("0.00"), 2: dec("999.99")}, false},
		{"mysql.t_float_7_3", kind(capture.TypeFloat64), map[int64]capture.Value{1: float(1.5), 2: float32s(1234.567)}, false},
		{"mysql.t_float_24", kind(capture.TypeFloat32), map[int64]capture.Value{1: float32s(0.1)}, false},
		{"mysql.t_bit16", capture.Type{Kind: capture.TypeBits, Length: 16}, map[int64]capture.Value{1: bytes("\x01\x80")}, false},
		{"mysql.t_year", kind(capture.TypeYear), map[int64]capture.Value{1: num(2024), 2: num(1901), 3: num(2155)}, false},
		{"mysql.t_time5", scaled(capture.TypeTime, 5), map[int64]capture.Value{
			1: capture.TimeValue(45296789010), 2: capture.TimeValue(-45296789010), 3: capture.TimeValue(3020398900000), 4: capture.TimeValue(-100000),
		}, false},
		{"mysql.t_dt2", scaled(capture.TypeTimestamp, 2), map[int64]capture.Value{1: ts(1709210096790000), 3: ts(-500000), 4: ts(-30610224000000000), 8: ts(-12219724800000000)}, false},
		{"mysql.t_dt6", scaled(capture.TypeTimestamp, 6), map[int64]capture.Value{1: ts(1709210096789012), 3: ts(-500000), 5: ts(253402300799400000)}, false},
		{"mysql.t_ts2", scaled(capture.TypeTimestampTZ, 2), map[int64]capture.Value{1: tz(1709210096790000), 2: tz(1000000), 5: tz(1719801000500000)}, false},
		{"mysql.t_enum_latin1", capture.Type{Kind: capture.TypeEnum, Labels: []string{"é", "b"}}, map[int64]capture.Value{1: str("é")}, false},
		{"mysql.t_set64", capture.Type{Kind: capture.TypeSet, Labels: []string{"s0", "s63"}}, map[int64]capture.Value{1: str("s0,s63")}, false},
		{"mysql.t_binary4", kind(capture.TypeBytes), map[int64]capture.Value{1: bytes("\x01\x00\x00\x00"), 2: bytes("\x01\x02\x03\x04"), 3: bytes("\x00\x00\x00\x00")}, false},
		{"mysql.t_point_srid", kind(capture.TypePoint), map[int64]capture.Value{
			1: capture.GeometryValue(wkb("010100000000000000000034400000000000002440"), 4326, true),
		}, false},
		{"mysql.t_serial_", kind(capture.TypeUint64), map[int64]capture.Value{1: capture.UintValue(1)}, false},
		{"mysql.t_vc_utf16", kind(capture.TypeString), map[int64]capture.Value{1: str("日本😀")}, false},
	}
}

func TestValues_AreDebezium(t *testing.T) {
	t.Parallel()
	golden := readRows(t)
	for _, c := range goldenTypes() {
		h := newHarness(t, func(cfg *Config) {
			if strings.HasPrefix(c.table, "mysql.") {
				cfg.Format.TimePrecision = "adaptive_time_microseconds"
			}
		})
		table := makeTable("t", []int{0}, required("id", kind(capture.TypeInt32)), nullable("v", c.typ), required("vn", c.typ),
			nullable("vd", c.typ), nullable("a", arrayOf(c.typ)))
		for id, v := range c.values {
			want, ok := golden[c.table][id]
			if !ok {
				t.Errorf("%s has no row %d", c.table, id)
				continue
			}
			row := capture.Row{num(id), v, v, v, list(v, capture.NullValue, v)}
			out := h.mustEncode(t, event(capture.Insert, table, nil, row))
			after := h.decode(t, out.Records[0].Value)["after"].(map[string]any)
			fields := []string{"v", "vn", "vd"}
			if c.arrays {
				fields = append(fields, "a")
			}
			for _, f := range fields {
				if !same(want.After[f], after[f]) {
					t.Errorf("%s row %d %s: got %#v, want %#v", c.table, id, f, after[f], want.After[f])
				}
			}
		}
	}
}

// Debezium writes a column's default in place of NULL. With avro.null.as.default so do we.
func TestNull_BecomesTheDefaultWhenAskedTo(t *testing.T) {
	t.Parallel()
	for asked, want := range map[bool]any{true: int64(7), false: nil} {
		h := newHarness(t, func(c *Config) { c.Format.NullAsDefault = asked })
		table := makeTable("t", []int{0}, required("id", kind(capture.TypeInt32)), withDefault(nullable("v", kind(capture.TypeInt32)), num(7)))
		out := h.mustEncode(t, event(capture.Insert, table, nil, capture.Row{num(1), capture.NullValue}))
		if got := h.decode(t, out.Records[0].Value)["after"].(map[string]any)["v"]; got != want {
			t.Errorf("asked %v: got %v, want %v", asked, got, want)
		}
	}
}
