package schema_test

import (
	"fmt"
	"math"
	"strings"

	"github.com/headwaterdb/headwater/capture"
)

var postgresOrigin = &capture.Origin{
	Connector: "postgresql", Database: "corpus",
	Fields: []capture.OriginField{
		{Name: "schema", Type: capture.TypeString, From: capture.FromSchema},
		{Name: "table", Type: capture.TypeString, From: capture.FromTable},
		{Name: "txId", Type: capture.TypeInt64, Optional: true},
		{Name: "lsn", Type: capture.TypeInt64, Optional: true},
		{Name: "xmin", Type: capture.TypeInt64, Optional: true},
		{Name: "origin", Type: capture.TypeString, Optional: true},
		{Name: "origin_lsn", Type: capture.TypeInt64, Optional: true},
	},
}

var mysqlOrigin = &capture.Origin{
	Connector: "mysql", Database: "corpus_own",
	Fields: []capture.OriginField{
		{Name: "table", Type: capture.TypeString, Optional: true, From: capture.FromTable},
		{Name: "server_id", Type: capture.TypeInt64},
		{Name: "gtid", Type: capture.TypeString, Optional: true},
		{Name: "file", Type: capture.TypeString},
		{Name: "pos", Type: capture.TypeInt64},
		{Name: "row", Type: capture.TypeInt32},
		{Name: "thread", Type: capture.TypeInt64, Optional: true},
		{Name: "query", Type: capture.TypeString, Optional: true},
	},
}

// Short forms for definitions.

func kind(k capture.TypeKind) capture.Type { return capture.Type{Kind: k} }

func scale(k capture.TypeKind, s int) capture.Type { return capture.Type{Kind: k, Scale: s} }

func length(k capture.TypeKind, n int) capture.Type { return capture.Type{Kind: k, Length: n} }

func numeric(p, s int) capture.Type {
	return capture.Type{Kind: capture.TypeDecimal, Precision: p, Scale: s}
}

func labels(k capture.TypeKind, l ...string) capture.Type { return capture.Type{Kind: k, Labels: l} }

func array(t capture.Type) capture.Type { return capture.Type{Kind: capture.TypeArray, Elem: &t} }

func unmapped(name string) capture.Type {
	return capture.Type{Kind: capture.TypeText, Unmapped: true, Name: name}
}

// is makes a literal default.
func is(v capture.Value) capture.Default {
	return capture.Default{Kind: capture.DefaultLiteral, Value: v}
}

func isText(s string) capture.Default    { return is(capture.TextValue(s)) }
func isInt(i int64) capture.Default      { return is(capture.IntValue(i)) }
func isDecimal(s string) capture.Default { return is(capture.DecimalValue([]byte(s))) }
func isBytes(s string) capture.Default   { return is(capture.BytesValue([]byte(s))) }

var (
	nan  = math.NaN()
	none = capture.Default{}
	zero = capture.Default{Kind: capture.DefaultZero}
	i32  = kind(capture.TypeInt32)
	text = kind(capture.TypeString)
)

func notNull(name string, t capture.Type, d capture.Default) capture.Column {
	return capture.Column{Name: name, Type: t, Default: d}
}

func nullable(name string, t capture.Type, d capture.Default) capture.Column {
	return capture.Column{Name: name, Type: t, Default: d, Nullable: true}
}

func table(o *capture.Origin, name string, key []int, cols ...capture.Column) *capture.Table {
	ns := "own"
	if o == mysqlOrigin {
		ns = "corpus_own"
	}
	return &capture.Table{ID: capture.TableID{Schema: ns, Name: name}, Columns: cols, Key: key, RowKey: key, Origin: o}
}

// typeTable has one type in four columns: nullable, NOT NULL with default, nullable
// with default, and, in PostgreSQL, an array.
func typeTable(o *capture.Origin, name string, t capture.Type, vn, vd capture.Default) *capture.Table {
	cols := []capture.Column{notNull("id", i32, none), nullable("v", t, none), notNull("vn", t, vn), nullable("vd", t, vd)}
	if o == postgresOrigin {
		cols = append(cols, nullable("a", array(t), none))
	}
	return table(o, name, []int{0}, cols...)
}

// noArray drops the array column, for which no mapping exists.
func noArray(t *capture.Table) *capture.Table {
	t.Columns = t.Columns[:4]
	return t
}

func postgresTables() []*capture.Table {
	pg := func(name string, t capture.Type, vn, vd capture.Default) *capture.Table {
		return typeTable(postgresOrigin, name, t, vn, vd)
	}
	pk := func(name string, t capture.Type) *capture.Table {
		return table(postgresOrigin, name, []int{0}, notNull("k", t, none), nullable("v", text, none))
	}
	no := func(name, typ string) *capture.Table { return pg(name, unmapped(typ), none, none) }
	const day = 86400 * 1000000
	micros := func(us int64) capture.Default { return is(capture.TimestampValue(us)) }
	zoned := func(us int64) capture.Default { return is(capture.TimestampTZValue(us)) }
	tod := func(us int64) capture.Default { return is(capture.TimeValue(us)) }
	interval := func(days int32, us int64) capture.Default {
		return is(capture.IntervalValue(make([]byte, 8), 0, days, us))
	}
	tables := []*capture.Table{
		pg("t_int4", i32, isInt(42), isInt(0)),
		pg("t_num_5_2", numeric(5, 2), isDecimal("1.1"), isDecimal("0")),
		pg("t_num_3_5", numeric(3, 5), isDecimal("0.00123"), isDecimal("0")),
		pg("t_num_1000", numeric(1000, 500), isDecimal("1.5"), isDecimal("0")),
		pg("t_float4", kind(capture.TypeFloat32), is(capture.FloatValue(0)), is(capture.FloatValue(0))),
		pg("t_bool", kind(capture.TypeBool), is(capture.BoolValue(false)), is(capture.BoolValue(true))),
		pg("t_char10", text, isText(""), isText("abc")),
		pg("t_bchar", text, none, none),
		noArray(pg("t_name", text, none, none)),
		pg("t_varchar5", text, isText("😀😀😀😀😀"), isText("abcde")),
		pg("t_citext", text, none, none),
		pg("t_bit8", length(capture.TypeBits, 8), isBytes("\x01"), isBytes("\xaa")),
		pg("t_bit64", length(capture.TypeBits, 64), isBytes(strings.Repeat("\xaa", 8)), isBytes(strings.Repeat("\xaa", 8))),
		noArray(pg("t_varbit16", length(capture.TypeBits, 16), isBytes("\xaa\xaa"), isBytes("\x01"))),
		pg("t_date", kind(capture.TypeDate), is(capture.DateValue(0)), is(capture.DateValue(19782))),
		pg("t_time", scale(capture.TypeTime, 6), tod(day-1), tod(0)),
		pg("t_time1", scale(capture.TypeTime, 1), tod(day), tod(45296789012)),
		pg("t_time3", scale(capture.TypeTime, 3), tod(day), tod(45296789012)),
		pg("t_time5", scale(capture.TypeTime, 5), tod(day), tod(45296789012)),
		pg("t_timetz", scale(capture.TypeTimeTZ, 6), none, none),
		pg("t_ts", scale(capture.TypeTimestamp, 6), micros(0), micros(1709210096789012)),
		pg("t_ts1", scale(capture.TypeTimestamp, 1), micros(0), micros(1709210096789012)),
		pg("t_ts3", scale(capture.TypeTimestamp, 3), micros(0), micros(1709210096789012)),
		pg("t_ts5", scale(capture.TypeTimestamp, 5), micros(0), micros(1709210096789012)),
		pg("t_tstz", scale(capture.TypeTimestampTZ, 6), zoned(0), zoned(1709210096789012)),
		pg("t_tstz3", scale(capture.TypeTimestampTZ, 3), zoned(-1), zoned(1709210096789012)),
		noArray(pg("t_interval_d3", scale(capture.TypeInterval, 3), interval(3, 14706789000), interval(3, 14706789000))),
		pg("t_uuid", kind(capture.TypeUUID), isText("00000000-0000-0000-0000-000000000000"), isText("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
		pg("t_jsonb", kind(capture.TypeJSON), isText("null"), isText(`{"a": [1, 2.50, null, true], "b": 1, "u": "é"}`)),
		pg("t_inet", text, none, none),
		pg("t_macaddr8", text, none, none),
		noArray(pg("t_point", kind(capture.TypePoint), none, none)),
		no("t_line", "line"), no("t_tsquery", "tsquery"), no("t_nummultirange", "nummultirange"), no("t_regclass", "regclass"),
		no("t_xid8", "xid8"), no("t_pg_lsn", "pg_lsn"), no("t_cidtype", "cid"),
		pg("t_int4range", text, none, none), pg("t_int8range", text, none, none), pg("t_tstzrange", text, none, none),
		pg("t_oid", kind(capture.TypeInt64), none, none),
		noArray(pg("t_domain_int", i32, none, none)),
		noArray(pg("t_domain_vc", text, none, none)),
		noArray(pg("t_domain_arr", array(i32), none, none)),
		pg("t_ltree", kind(capture.TypeLtree), none, none),
		pg("t_isbn", text, none, none),

		pk("pk_0", kind(capture.TypeUUID)), pk("pk_2", numeric(10, 2)), pk("pk_4", scale(capture.TypeTimestamp, 6)),
		pk("pk_6", kind(capture.TypeDate)), pk("pk_8", kind(capture.TypeBytes)), pk("pk_10", kind(capture.TypeFloat64)),
		pk("pk_12", text), pk("pk_14", text), pk("pk_16", scale(capture.TypeInterval, 6)), pk("pk_18", kind(capture.TypeJSON)),

		table(postgresOrigin, "gen", []int{0}, notNull("id", i32, none), nullable("a", i32, none), nullable("b", i32, none)),
		table(postgresOrigin, "ri_full", nil, nullable("a", i32, none), nullable("b", text, none)),
		table(postgresOrigin, "ri_nothing", []int{0}, notNull("id", i32, none), nullable("b", text, none)),
		table(postgresOrigin, "ri_index", []int{0}, notNull("id", i32, none), notNull("u", text, none), nullable("v", text, none)),
		table(postgresOrigin, "nopk", nil, nullable("a", i32, none), nullable("b", text, none)),
		table(postgresOrigin, "multi_pk", []int{1, 0, 2}, notNull("z", text, none), notNull("y", i32, none),
			notNull("x", scale(capture.TypeTimestampTZ, 6), none), nullable("v", text, none)),
		table(postgresOrigin, "trunc_a", []int{0}, notNull("id", i32, none), nullable("v", text, none)),
		table(postgresOrigin, "trunc_b", []int{0}, notNull("id", i32, none)),
		table(postgresOrigin, "dflt", []int{0},
			notNull("id", i32, zero), notNull("bs", kind(capture.TypeInt64), zero), notNull("idn", kind(capture.TypeInt64), none),
			nullable("c1", i32, none), nullable("c2", text, isText("it's")), nullable("c3", text, zero),
			nullable("c4", scale(capture.TypeTimestampTZ, 6), zoned(1609459200000000)),
			nullable("c5", scale(capture.TypeTimestamp, 6), micros(1577836800000000)),
			nullable("c6", kind(capture.TypeDate), is(capture.DateValue(18628))), nullable("c7", kind(capture.TypeBool), is(capture.BoolValue(true))),
			nullable("c8", numeric(10, 2), isDecimal("12.5")), nullable("c9", kind(capture.TypeUUID), isText("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
			nullable("c10", kind(capture.TypeJSON), isText("{}")), nullable("c11", array(i32), none), nullable("c12", kind(capture.TypeBytes), none),
			nullable("c13", kind(capture.TypeFloat64), is(capture.FloatValue(nan))), nullable("c14", scale(capture.TypeInterval, 6), interval(1, 0)),
			nullable("c15", labels(capture.TypeEnum, "sad", "ok", "very, happy"), isText("ok")), nullable("c16", text, none),
			notNull("c17", text, isText("")), notNull("c18", i32, isInt(-5)), nullable("c19", length(capture.TypeBits, 3), isBytes("\x05")),
			nullable("c20", scale(capture.TypeTime, 6), tod(3723000000)), nullable("c21", scale(capture.TypeTimestampTZ, 6), zoned(1577829600000000)),
			nullable("c22", kind(capture.TypeVarDecimal), none), nullable("c23", kind(capture.TypeMoney), none),
			nullable("c24", kind(capture.TypeFloat32), is(capture.FloatValue(1.5))), nullable("c25", text, isText("a")),
			nullable("c26", text, zero), nullable("c27", i32, none)),
	}
	return tables
}

func mysqlTables() []*capture.Table {
	my := func(name string, t capture.Type, vn, vd capture.Default) *capture.Table {
		return typeTable(mysqlOrigin, name, t, vn, vd)
	}
	pk := func(name string, t capture.Type) *capture.Table {
		return table(mysqlOrigin, name, []int{0}, notNull("k", t, none), nullable("v", text, none))
	}
	i16, i64, u64, f64 := kind(capture.TypeInt16), kind(capture.TypeInt64), kind(capture.TypeUint64), kind(capture.TypeFloat64)
	bytes, datetime, stamp, tod := kind(capture.TypeBytes), capture.TypeTimestamp, capture.TypeTimestampTZ, capture.TypeTime
	dt := func(us int64) capture.Default { return is(capture.TimestampValue(us)) }
	ts := func(us int64) capture.Default { return is(capture.TimestampTZValue(us)) }
	td := func(us int64) capture.Default { return is(capture.TimeValue(us)) }
	f := func(x float64) capture.Default { return is(capture.FloatValue(x)) }
	u := func(x uint64) capture.Default { return is(capture.UintValue(x)) }
	var s64 []string
	for i := range 64 {
		s64 = append(s64, fmt.Sprintf("s%d", i))
	}
	return []*capture.Table{
		my("t_tinyint_u", i16, isInt(1), isInt(0)), my("t_smallint_u", i32, isInt(1), isInt(0)), my("t_mediumint_u", i32, isInt(1), isInt(0)),
		my("t_int_u", i64, isInt(1), isInt(0)), my("t_bigint", i64, isInt(1), isInt(0)), my("t_tinyint1", kind(capture.TypeInt8), isInt(1), isInt(0)),
		my("t_dec_5_2_u", numeric(5, 2), isDecimal("999.99"), isDecimal("0")), my("t_dec_4_0", numeric(4, 0), isDecimal("-9999"), isDecimal("0")),
		my("t_dec_zf", numeric(10, 3), isDecimal("1.5"), isDecimal("1.500")),
		my("t_float_7_3", f64, f(1234.567), f(1.5)), my("t_float_24", kind(capture.TypeFloat32), f(float64(float32(0.1))), f(float64(float32(0.1)))),
		my("t_double_8_2", f64, f(1.25), f(1.25)),
		my("t_bit8", length(capture.TypeBits, 8), isBytes("\x81"), isBytes("\x81")), my("t_bit16", length(capture.TypeBits, 16), isBytes("\x01\x80"), isBytes("\x01\x80")),
		my("t_date", kind(capture.TypeDate), is(capture.DateValue(0)), is(capture.DateValue(19782))),
		my("t_year", kind(capture.TypeYear), isInt(1901), isInt(2024)),
		my("t_time1", scale(tod, 1), td(-45296800000), td(45296800000)), my("t_time3", scale(tod, 3), td(-45296789000), td(45296789000)),
		my("t_time5", scale(tod, 5), td(-45296789010), td(45296789010)),
		my("t_dt0", scale(datetime, 0), dt(0), dt(1709210097000000)), my("t_dt2", scale(datetime, 2), dt(0), dt(1709210096790000)),
		my("t_dt4", scale(datetime, 4), dt(0), dt(1709210096789000)), my("t_dt6", scale(datetime, 6), dt(0), dt(1709210096789012)),
		my("t_ts0", scale(stamp, 0), ts(1000000), ts(1709210097000000)), my("t_ts2", scale(stamp, 2), ts(1000000), ts(1709210096790000)),
		my("t_ts4", scale(stamp, 4), ts(1000000), ts(1709210096789000)), my("t_ts6", scale(stamp, 6), ts(1000000), ts(1709210096789012)),
		my("t_char10", text, isText(""), isText("abc")), my("t_varchar", text, isText(""), isText("x")), my("t_vc_latin1", text, isText(""), isText("é€")),
		my("t_vc_gbk", text, isText("中文"), isText("中文")), my("t_vc_utf16", text, isText("日本😀"), isText("日本😀")), my("t_vc_bin", text, isText("aB"), isText("aB")),
		my("t_vc_utf8bin", text, isText("aB"), isText("aB")), my("t_nvarchar", text, isText("né"), isText("né")), my("t_text_latin1", text, none, none),
		my("t_enum_latin1", labels(capture.TypeEnum, "é", "b"), isText("é"), isText("é")), my("t_set64", labels(capture.TypeSet, s64...), isText("s0,s63"), isText("s0,s63")),
		my("t_binary4", bytes, isBytes("\x01\x02\x03\x04"), isBytes("\x01\x00\x00\x00")), my("t_tinyblob", bytes, none, none), my("t_longblob", bytes, none, none),
		my("t_point_srid", kind(capture.TypePoint), none, none), my("t_multilinestring", kind(capture.TypeGeometry), none, none),
		my("t_multipolygon", kind(capture.TypeGeometry), none, none), my("t_serial_", u64, u(1), u(1)),

		pk("pk_0", text), pk("pk_2", numeric(10, 2)), pk("pk_4", scale(stamp, 3)), pk("pk_6", scale(tod, 0)), pk("pk_8", bytes),
		pk("pk_10", u64), pk("pk_12", labels(capture.TypeSet, "a", "b")), pk("pk_14", f64),

		table(mysqlOrigin, "gen", []int{0}, notNull("id", i32, none), nullable("a", i32, none), nullable("b", i32, none), nullable("c", i32, none), nullable("d", i32, isInt(4))),
		table(mysqlOrigin, "nopk", nil, nullable("a", i32, none), nullable("b", text, none)),
		table(mysqlOrigin, "uniq_only", []int{2}, nullable("a", i32, none), nullable("b", text, none), notNull("c", i32, none)),
		table(mysqlOrigin, "multi_pk", []int{1, 0, 2}, notNull("z", text, none), notNull("y", i32, none), notNull("x", scale(datetime, 0), none), nullable("v", text, none)),
		table(mysqlOrigin, "trunc_a", []int{0}, notNull("id", i32, none), nullable("v", text, none)),
		table(mysqlOrigin, "ddl", []int{0}, notNull("id", i32, none), nullable("a", i32, none), nullable("b", text, none), nullable("c", text, none)),
		table(mysqlOrigin, "part", []int{0, 1}, notNull("id", i32, none), notNull("d", kind(capture.TypeDate), none), nullable("v", text, none)),
		table(mysqlOrigin, "dflt", []int{0},
			notNull("id", i32, none), nullable("c1", i32, isInt(5)), nullable("c2", text, isText("it's")), nullable("c3", scale(datetime, 0), zero),
			notNull("c4", scale(stamp, 0), zero), nullable("c5", scale(datetime, 3), dt(1577836800123000)), nullable("c6", kind(capture.TypeDate), is(capture.DateValue(18262))),
			nullable("c7", kind(capture.TypeInt8), isInt(1)), nullable("c8", numeric(10, 2), isDecimal("12.50")), nullable("c9", length(capture.TypeBits, 3), isBytes("\x05")),
			nullable("c10", labels(capture.TypeEnum, "a", "b"), isText("b")), nullable("c11", labels(capture.TypeSet, "a", "b"), isText("a,b")),
			nullable("c12", scale(tod, 0), td(3723000000)), nullable("c13", kind(capture.TypeYear), isInt(2020)), nullable("c14", f64, f(1.5)),
			notNull("c15", text, isText("")), nullable("c16", i32, none), nullable("c17", u64, u(18446744073709551615)), nullable("c18", bytes, isBytes("abc")),
			nullable("c19", i32, none), nullable("c20", kind(capture.TypeJSON), none), nullable("c21", text, none), nullable("c22", scale(stamp, 0), ts(1577836800000000)),
			nullable("c23", text, none), nullable("c24", kind(capture.TypeFloat32), f(-1.5)), notNull("c25", kind(capture.TypeInt8), isInt(7))),
	}
}
