package avro

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/schema"
)

// one encodes a row of an id and a value, and returns what a consumer reads for it.
func (h *harness) one(t *testing.T, c capture.Column, v capture.Value) (any, *captured) {
	t.Helper()
	table := makeTable("t", []int{0}, required("id", kind(capture.TypeInt32)), c)
	out, err := h.encode(event(capture.Insert, table, nil, capture.Row{num(1), v}))
	if err != nil {
		return nil, &captured{err: err}
	}
	r := &out.Records[0]
	got := h.decode(t, r.Value)["after"].(map[string]any)["v"]
	return got, &captured{
		unavailable: header(r, headerUnavailable), unrepresentable: header(r, headerUnrepresentable), dims: header(r, headerArrayDims),
	}
}

type captured struct {
	err                                error
	unavailable, unrepresentable, dims string
}

func TestFieldTypes_FollowNullabilityAndDefault(t *testing.T) {
	t.Parallel()
	i32 := kind(capture.TypeInt32)
	for name, c := range map[string]struct {
		column     capture.Column
		null, fits bool
	}{
		"required":              {required("v", i32), false, true},
		"required with default": {withDefault(required("v", i32), num(5)), false, true},
		"optional":              {nullable("v", i32), true, true},
		"optional with default": {withDefault(nullable("v", i32), num(5)), true, true},
	} {
		h := newHarness(t, nil)
		if got, info := h.one(t, c.column, num(42)); got != int64(42) || info.err != nil {
			t.Errorf("%s: got %v %v", name, got, info.err)
		}
		got, info := h.one(t, c.column, capture.NullValue)
		if c.null && (got != nil || info.err != nil) {
			t.Errorf("%s: NULL gives %v %v", name, got, info.err)
		}
		if !c.null && !errors.Is(info.err, capture.ErrUnreadable) {
			t.Errorf("%s: NULL gives %v", name, info.err)
		}
	}
}

func TestAbsent_IsTheDefaultOrTheZero(t *testing.T) {
	t.Parallel()
	point := map[string]any{"x": 0.0, "y": 0.0, "wkb": "0x010100000000000000000000000000000000000000", "srid": nil}
	for _, c := range []struct {
		typ  capture.Type
		want any
	}{
		{kind(capture.TypeInt16), int64(0)},
		{kind(capture.TypeInt64), int64(0)},
		{kind(capture.TypeUint64), int64(0)},
		{kind(capture.TypeFloat32), 0.0},
		{kind(capture.TypeFloat64), 0.0},
		{numeric(10, 2), "0x00"},
		{kind(capture.TypeVarDecimal), map[string]any{"scale": int64(0), "value": "0x00"}},
		{kind(capture.TypeMoney), "0x00"},
		{kind(capture.TypeBool), false},
		{capture.Type{Kind: capture.TypeBits, Length: 1}, false},
		{kind(capture.TypeString), ""},
		{kind(capture.TypeXML), ""},
		{kind(capture.TypeEnum), ""},
		{kind(capture.TypeUUID), ""},
		{kind(capture.TypeJSON), "{}"},
		{kind(capture.TypeBytes), "0x"},
		{capture.Type{Kind: capture.TypeBits, Length: 8}, "0x"},
		{kind(capture.TypeDate), int64(0)},
		{scaled(capture.TypeTime, 6), int64(0)},
		{scaled(capture.TypeTimestamp, 3), int64(0)},
		{scaled(capture.TypeTimestampTZ, 6), "1970-01-01T00:00:00Z"},
		{kind(capture.TypeTimeTZ), "00:00:00Z"},
		{kind(capture.TypeInterval), int64(0)},
		{arrayOf(kind(capture.TypeInt32)), []any{}},
		{kind(capture.TypeMap), "{}"},
		{kind(capture.TypePoint), point},
		{kind(capture.TypeGeometry), map[string]any{"wkb": "0x010700000000000000", "srid": nil}},
		{kind(capture.TypeVector), []any{}},
		{kind(capture.TypeSparseVector), map[string]any{"dimensions": int64(0), "vector": []any{}}},
		{kind(capture.TypeYear), int64(0)},
		{kind(capture.TypeLtree), ""},
		{kind(capture.TypeTsvector), ""},
	} {
		h := newHarness(t, nil)
		got, info := h.one(t, required("v", c.typ), capture.AbsentValue)
		if info.err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("type %d: got %s %v, want %s", c.typ.Kind, show(got), info.err, show(c.want))
		}
		if got, info := h.one(t, nullable("v", c.typ), capture.AbsentValue); got != nil || info.err != nil {
			t.Errorf("type %d, nullable: got %s %v, want null", c.typ.Kind, show(got), info.err)
		}
	}
	h := newHarness(t, nil)
	if got, _ := h.one(t, withDefault(required("v", kind(capture.TypeInt32)), num(42)), capture.AbsentValue); got != int64(42) {
		t.Errorf("default: got %v", got)
	}
}

func TestUnchanged_IsThePlaceholderAndSaysSo(t *testing.T) {
	t.Parallel()
	const text = "__debezium_unavailable_value"
	raw := "0x5f5f646562657a69756d5f756e617661696c61626c655f76616c7565"
	var numbers []any
	for _, c := range []byte(text) {
		numbers = append(numbers, int64(c))
	}
	for _, c := range []struct {
		typ    capture.Type
		want   any
		binary string
	}{
		{typ: kind(capture.TypeString), want: text},
		{typ: kind(capture.TypeJSON), want: text},
		{typ: kind(capture.TypeXML), want: text},
		{typ: kind(capture.TypeBytes), want: raw},
		{typ: kind(capture.TypeBytes), want: text, binary: "hex"},
		{typ: kind(capture.TypeBytes), want: text, binary: "base64"},
		{typ: arrayOf(kind(capture.TypeString)), want: []any{text}},
		{typ: arrayOf(kind(capture.TypeJSON)), want: []any{text}},
		{typ: arrayOf(kind(capture.TypeBytes)), want: []any{raw}},
		{typ: arrayOf(kind(capture.TypeInt32)), want: numbers},
		{typ: arrayOf(kind(capture.TypeInt64)), want: numbers},
		{typ: arrayOf(kind(capture.TypeDate)), want: numbers},
		{typ: arrayOf(kind(capture.TypeUUID)), want: []any{"b68a35a7-17ad-35b3-af2a-ae46edb4545a"}},
		{typ: kind(capture.TypeMap), want: `{"` + text + `":"` + text + `"}`},
		{typ: numeric(10, 2), want: nil},
		{typ: kind(capture.TypeGeometry), want: nil},
		{typ: arrayOf(numeric(10, 2)), want: nil},
		{typ: arrayOf(kind(capture.TypeMap)), want: nil},
		{typ: kind(capture.TypeVector), want: nil},
	} {
		h := newHarness(t, func(cfg *Config) { cfg.Format.Binary = c.binary })
		got, info := h.one(t, nullable("v", c.typ), capture.UnchangedValue)
		if info.err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("type %d: got %s %v, want %s", c.typ.Kind, show(got), info.err, show(c.want))
		}
		if info.unavailable != "v" {
			t.Errorf("type %d: header %q", c.typ.Kind, info.unavailable)
		}
	}
	h := newHarness(t, nil)
	if got, info := h.one(t, required("v", kind(capture.TypeString)), capture.UnchangedValue); got != text || info.unavailable != "v" {
		t.Errorf("NOT NULL text: got %v, header %q", got, info.unavailable)
	}
	if _, info := h.one(t, required("v", numeric(10, 2)), capture.UnchangedValue); !errors.Is(info.err, capture.ErrUnreadable) {
		t.Errorf("NOT NULL numeric: got %v", info.err)
	}
	h = newHarness(t, func(c *Config) { c.Format.Placeholder = "hex:00ff" })
	if got, _ := h.one(t, nullable("v", kind(capture.TypeBytes)), capture.UnchangedValue); got != "0x00ff" {
		t.Errorf("hex placeholder: got %v", got)
	}
}

func TestNaN_NeverVanishes(t *testing.T) {
	t.Parallel()
	d := numeric(10, 2)
	for _, text := range []string{"NaN", "Infinity", "-Infinity"} {
		h := newHarness(t, nil)
		got, info := h.one(t, nullable("v", d), dec(text))
		if got != nil || info.unrepresentable != "v="+text {
			t.Errorf("nullable: got %v, header %q", got, info.unrepresentable)
		}
		if len(h.notices) != 1 || h.notices[0].Kind != schema.NoticeUnrepresentable || h.notices[0].Column != "v" {
			t.Errorf("notices: %+v", h.notices)
		}
		got, info = h.one(t, nullable("v", arrayOf(d)), list(dec("1.00"), dec(text)))
		if !reflect.DeepEqual(got, []any{"0x64", nil}) || info.unrepresentable != "v="+text {
			t.Errorf("array: got %v, header %q", got, info.unrepresentable)
		}
		h = newHarness(t, nil)
		_, info = h.one(t, required("v", d), dec(text))
		if !errors.Is(info.err, capture.ErrUnreadable) {
			t.Fatalf("NOT NULL: got %v", info.err)
		}
		for _, want := range []string{"public.t", `"v"`, `{"id":1}`, "decimal.handling.mode", "numeric.special"} {
			if !strings.Contains(info.err.Error(), want) {
				t.Errorf("%q does not say %q", info.err, want)
			}
		}
		h = newHarness(t, func(c *Config) { c.Format.NumericSpecial = "zero" })
		if got, info := h.one(t, required("v", d), dec(text)); got != "0x00" || info.unrepresentable != "v="+text {
			t.Errorf("zero: got %v, header %q", got, info.unrepresentable)
		}
		h = newHarness(t, func(c *Config) { c.Format.NumericSpecial = "zero" })
		if got, _ := h.one(t, nullable("v", d), dec(text)); got != nil {
			t.Errorf("zero, nullable: got %v", got)
		}
	}
	for mode, want := range map[string][]any{
		"double": {"NaN", "Infinity", "-Infinity", 1.5}, "string": {"NAN", "POSITIVE_INFINITY", "NEGATIVE_INFINITY", "1.50"},
	} {
		h := newHarness(t, func(c *Config) { c.Format.Decimals = mode })
		for i, text := range []string{"NaN", "Infinity", "-Infinity", "1.50"} {
			if got, info := h.one(t, required("v", d), dec(text)); got != want[i] || info.err != nil {
				t.Errorf("%s %s: got %v %v", mode, text, got, info.err)
			}
		}
	}
}

func TestInfinity_FollowsTheSetting(t *testing.T) {
	t.Parallel()
	typ := scaled(capture.TypeTimestamp, 6)
	v := capture.TimestampValue(capture.NegInfinity)
	h := newHarness(t, func(c *Config) { c.Format.TemporalInfinity = "null" })
	if got, info := h.one(t, nullable("v", typ), v); got != nil || info.unrepresentable != "v=-Infinity" {
		t.Errorf("null: got %v, header %q", got, info.unrepresentable)
	}
	h = newHarness(t, func(c *Config) { c.Format.TemporalInfinity = "null" })
	if _, info := h.one(t, required("v", typ), v); !errors.Is(info.err, capture.ErrUnreadable) {
		t.Errorf("null, NOT NULL: got %v", info.err)
	}
	h = newHarness(t, func(c *Config) { c.Format.TemporalInfinity = "fail" })
	if _, info := h.one(t, nullable("v", typ), v); !errors.Is(info.err, capture.ErrUnreadable) {
		t.Errorf("fail: got %v", info.err)
	}
}

func TestArrays_AreFlattenedAndSaySo(t *testing.T) {
	t.Parallel()
	i32 := arrayOf(kind(capture.TypeInt32))
	for name, c := range map[string]struct {
		v    capture.Value
		want []any
		dims string
	}{
		"empty": {list(), []any{}, ""},
		"flat":  {list(num(1), capture.NullValue), []any{int64(1), nil}, ""},
		"2x2":   {list(list(num(1), num(2)), list(num(3), capture.NullValue)), []any{int64(1), int64(2), int64(3), nil}, "v=2x2"},
		"1x2x1": {list(list(list(num(1)), list(num(2)))), []any{int64(1), int64(2)}, "v=1x2x1"},
	} {
		h := newHarness(t, nil)
		got, info := h.one(t, nullable("v", i32), c.v)
		if !reflect.DeepEqual(got, c.want) || info.dims != c.dims {
			t.Errorf("%s: got %v, header %q %v", name, got, info.dims, info.err)
		}
	}
	h := newHarness(t, nil)
	if _, info := h.one(t, nullable("v", i32), list(list(num(1)), list(num(2), num(3)))); !errors.Is(info.err, capture.ErrUnreadable) {
		t.Errorf("ragged: got %v", info.err)
	}
}

func TestModes_ChangeValues(t *testing.T) {
	t.Parallel()
	bytes := capture.BytesValue([]byte{0xfb, 0xff, 0x01})
	pairs := capture.MapValue([]capture.Value{str("k"), str("v"), str(`n"`), capture.NullValue}, 0)
	date, ts := capture.DateValue(17424), capture.TimestampValue(1505448311789000)
	for name, c := range map[string]struct {
		adapt func(*schema.Format)
		typ   capture.Type
		v     capture.Value
		want  any
	}{
		"base64":     {func(f *schema.Format) { f.Binary = "base64" }, kind(capture.TypeBytes), bytes, "+/8B"},
		"base64 url": {func(f *schema.Format) { f.Binary = "base64-url-safe" }, kind(capture.TypeBytes), bytes, "-_8B"},
		"hex":        {func(f *schema.Format) { f.Binary = "hex" }, kind(capture.TypeBytes), bytes, "fbff01"},
		"interval": {
			func(f *schema.Format) { f.Intervals = "string" }, kind(capture.TypeInterval),
			capture.IntervalValue(make([]byte, 8), 14, 3, 14706780000), "P1Y2M3DT4H5M6.78S",
		},
		"interval numeric": {func(*schema.Format) {}, kind(capture.TypeInterval), capture.IntervalValue(make([]byte, 8), 1, 0, 0), int64(2629800000000)},
		"unsigned wraps":   {func(*schema.Format) {}, kind(capture.TypeUint64), capture.UintValue(math.MaxUint64), int64(-1)},
		"unsigned precise": {func(f *schema.Format) { f.UnsignedBigint = "precise" }, kind(capture.TypeUint64), capture.UintValue(math.MaxUint64), "0x00ffffffffffffffff"},
		"hstore json":      {func(*schema.Format) {}, kind(capture.TypeMap), pairs, `{"k":"v","n\"":null}`},
		"hstore map":       {func(f *schema.Format) { f.HStore = "map" }, kind(capture.TypeMap), pairs, map[string]any{"k": "v", `n"`: nil}},
		"money":            {func(f *schema.Format) { n := 3; f.MoneyDigits = &n }, kind(capture.TypeMoney), dec("1.5"), "0x05dc"},
		"iso date":         {func(f *schema.Format) { f.TimePrecision = "isostring" }, kind(capture.TypeDate), date, "2017-09-15Z"},
		"iso timestamp":    {func(f *schema.Format) { f.TimePrecision = "isostring" }, scaled(capture.TypeTimestamp, 6), ts, "2017-09-15T04:05:11.789Z"},
		"iso time":         {func(f *schema.Format) { f.TimePrecision = "isostring" }, scaled(capture.TypeTime, 6), capture.TimeValue(14711789000), "04:05:11.789Z"},
		"iso infinity": {
			func(f *schema.Format) { f.TimePrecision = "isostring" }, scaled(capture.TypeTimestamp, 6),
			capture.TimestampValue(capture.PosInfinity), "+294247-01-10T04:00:25.2Z",
		},
		"connect timestamp": {func(f *schema.Format) { f.TimePrecision = "connect" }, scaled(capture.TypeTimestamp, 6), ts, int64(1505448311789)},
		"nanos":             {func(f *schema.Format) { f.TimePrecision = "nanoseconds" }, scaled(capture.TypeTimestamp, 6), ts, int64(1505448311789000000)},
		"micros":            {func(f *schema.Format) { f.TimePrecision = "microseconds" }, scaled(capture.TypeTimestamp, 0), ts, int64(1505448311789000)},
		"numeric(5,-2)":     {func(*schema.Format) {}, numeric(5, -2), dec("1234500"), "0x12d644"},
		"unmapped bytes": {
			func(f *schema.Format) { f.UnknownTypes = "bytes" },
			capture.Type{Kind: capture.TypeText, Unmapped: true, Name: "xid8"},
			str("17"), "0x3137",
		},
		"unmapped text": {func(*schema.Format) {}, capture.Type{Kind: capture.TypeText, Unmapped: true, Name: "xid8"}, str("17"), "17"},
		"variable":      {func(*schema.Format) {}, kind(capture.TypeVarDecimal), dec("1.10"), map[string]any{"scale": int64(1), "value": "0x0b"}},
		"variable 100":  {func(*schema.Format) {}, kind(capture.TypeVarDecimal), dec("100"), map[string]any{"scale": int64(0), "value": "0x64"}},
		"variable long": {func(*schema.Format) {}, kind(capture.TypeVarDecimal), dec("0." + strings.Repeat("0", 99) + "1"), map[string]any{"scale": int64(100), "value": "0x01"}},
		"vector":        {func(*schema.Format) {}, kind(capture.TypeHalfVector), list(capture.FloatValue(1.5), capture.FloatValue(-2)), []any{1.5, -2.0}},
		"sparse": {
			func(*schema.Format) {}, kind(capture.TypeSparseVector), capture.MapValue([]capture.Value{num(3), capture.FloatValue(0.5)}, 5),
			map[string]any{"dimensions": int64(5), "vector": []any{map[string]any{"key": int64(3), "value": 0.5}}},
		},
		"geography": {func(*schema.Format) {}, kind(capture.TypeGeography), capture.GeometryValue([]byte{1, 2}, 4326, true), map[string]any{"wkb": "0x0102", "srid": int64(4326)}},
	} {
		h := newHarness(t, func(cfg *Config) { c.adapt(&cfg.Format) })
		if got, info := h.one(t, nullable("v", c.typ), c.v); info.err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %s %v, want %s", name, show(got), info.err, show(c.want))
		}
	}
}

func TestUnreadableValues_StopWithPlaceAndRemedy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		adapt func(*schema.Format)
		typ   capture.Type
		v     capture.Value
		say   string
	}{
		"invalid UTF-8": {nil, kind(capture.TypeString), capture.StringValue([]byte("a\xff")), "UTF-8"},
		"too long":      {nil, numeric(10, 2), dec("1.234"), "digits after the point"},
		"smallint":      {nil, kind(capture.TypeInt16), num(40000), "fit"},
		"nanoseconds": {
			func(f *schema.Format) { f.TimePrecision = "nanoseconds" }, scaled(capture.TypeTimestamp, 6),
			capture.TimestampValue(253402300799999999), "time.precision.mode",
		},
		"connect time": {func(f *schema.Format) { f.TimePrecision = "connect" }, scaled(capture.TypeTime, 6), capture.TimeValue(86400000000), "time.precision.mode"},
		"wrong kind":   {nil, kind(capture.TypeInt32), str("x"), "reader"},
	} {
		h := newHarness(t, func(cfg *Config) {
			if c.adapt != nil {
				c.adapt(&cfg.Format)
			}
		})
		_, info := h.one(t, nullable("v", c.typ), c.v)
		if !errors.Is(info.err, capture.ErrUnreadable) {
			t.Errorf("%s: got %v", name, info.err)
			continue
		}
		for _, want := range []string{"public.t", `"v"`, `{"id":1}`, c.say} {
			if !strings.Contains(info.err.Error(), want) {
				t.Errorf("%s: %q does not say %q", name, info.err, want)
			}
		}
	}
}

func TestMissingImages_AreTheReadersFault(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	table := people()
	for name, ev := range map[string]capture.Event{
		"insert without after":  event(capture.Insert, table, nil, nil),
		"delete without before": event(capture.Delete, table, nil, nil),
		"short row":             event(capture.Insert, table, nil, capture.Row{num(1)}),
		"key not logged":        event(capture.Delete, table, capture.Row{capture.AbsentValue, str("x"), capture.NullValue}, nil),
	} {
		if _, err := h.encode(ev); !errors.Is(err, capture.ErrUnreadable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestUpdate_TakesAnUnchangedKeyFromTheOldImage(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	table := makeTable("t", []int{0}, required("id", kind(capture.TypeString)), nullable("v", kind(capture.TypeInt32)))
	out := h.mustEncode(t, event(capture.Update, table, capture.Row{str("k"), num(1)}, capture.Row{capture.UnchangedValue, num(2)}))
	if len(out.Records) != 1 || h.decode(t, out.Records[0].Key)["id"] != "k" {
		t.Errorf("got %d records", len(out.Records))
	}
}

func TestKeyText_IsWhatConnectPrints(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ  capture.Type
		v    capture.Value
		want string
		mode string
	}{
		{typ: kind(capture.TypeInt64), v: num(-5), want: `-5`},
		{typ: kind(capture.TypeString), v: str(`a"b\c`), want: `"a\"b\\c"`},
		{typ: kind(capture.TypeBytes), v: capture.BytesValue([]byte{1, 2}), want: `"AQI="`},
		{typ: kind(capture.TypeBool), v: capture.BoolValue(true), want: `true`},
		{typ: kind(capture.TypeFloat64), v: capture.FloatValue(1e10), want: `1.0E10`},
		{typ: numeric(10, 2), v: dec("-0.05"), want: `-0.05`},
		{typ: numeric(10, 8), v: dec("0.00000012"), want: `1.2E-7`},
		{typ: kind(capture.TypeVarDecimal), v: dec("1.5"), want: `{"scale":1,"value":"Dw=="}`},
		{typ: kind(capture.TypeDate), v: capture.DateValue(19782), want: `19782`},
		{typ: kind(capture.TypeDate), v: capture.DateValue(19782), want: `2024-02-29`, mode: "connect"},
		{typ: scaled(capture.TypeTimestamp, 3), v: capture.TimestampValue(1709210096789000), want: `2024-02-29T12:34:56.789Z`, mode: "connect"},
		{typ: scaled(capture.TypeTimestampTZ, 3), v: capture.TimestampTZValue(0), want: `"1970-01-01T00:00:00.000Z"`},
		{typ: arrayOf(kind(capture.TypeInt32)), v: list(num(1), capture.NullValue), want: `[1,null]`},
	} {
		h := newHarness(t, func(cfg *Config) { cfg.Format.TimePrecision = c.mode })
		table := makeTable("t", []int{0}, required("k", c.typ), required("n", kind(capture.TypeInt32)))
		h.mustEncode(t, event(capture.Insert, table, nil, capture.Row{c.v, num(1)}))
		if got := string(appendKeyText(nil, h.plans[table].key, capture.Row{c.v, num(1)}, nil)); got != `{"k":`+c.want+`}` {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
