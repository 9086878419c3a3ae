package postgres

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headwaterdb/headwater/capture"
)

// A bench is a database whose log is read by a function of SQL, without a stream.
type bench struct {
	*lab
	options string         // of pgoutput
	conn    *pgconn.PgConn // with the pinned settings
	cat     *catalog
}

func newBench(t *testing.T, version string) *bench {
	t.Helper()
	b := &bench{lab: newLab(t, version), cat: newCatalog("db"), options: "'proto_version', '1'"}
	if version != "13" {
		b.options = "'proto_version', '2', 'streaming', 'false', 'messages', 'true'"
	}
	conn, err := b.source().connect(t.Context(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(conn) })
	b.conn = conn
	b.exec("CREATE PUBLICATION p FOR ALL TABLES", "SELECT pg_create_logical_replication_slot('bench_' || current_database(), 'pgoutput')")
	t.Cleanup(func() {
		_, _ = query(context.Background(), conn, "SELECT pg_drop_replication_slot('bench_' || current_database())")
	})
	return b
}

// messages takes what the log says since the last call.
func (b *bench) messages() [][]byte {
	b.t.Helper()
	rows, err := query(b.t.Context(), b.conn, `SELECT data FROM pg_logical_slot_get_binary_changes('bench_' || current_database(), NULL, NULL,
		`+b.options+`, 'publication_names', 'p')`)
	if err != nil {
		b.t.Fatal(err)
	}
	out := make([][]byte, len(rows))
	for i, r := range rows {
		if out[i], err = hex.DecodeString(r[0][2:]); err != nil {
			b.t.Fatal(err)
		}
	}
	return out
}

// A logged is a row message, decoded.
type logged struct {
	def           *tableDef
	op            capture.Op
	before, after capture.Row
}

// log takes what the log says since the last call, definitions amended as rows ask.
func (b *bench) log(batch *capture.Batch) []logged {
	b.t.Helper()
	var out []logged
	defs := make(map[uint32]*tableDef)
	for _, m := range b.messages() {
		switch m[0] {
		case 'R':
			rel, err := decodeRelation(m)
			if err != nil {
				b.t.Fatal(err)
			}
			if defs[rel.OID], err = b.cat.fromRelation(b.t.Context(), b.conn, &rel); err != nil {
				b.t.Fatal(err)
			}
		case 'I', 'U', 'D':
			row, err := decodeRow(batch.Copy(m))
			if err != nil {
				b.t.Fatal(err)
			}
			d := defs[row.Relation]
			l := logged{op: row.Op}
			image := func(kind byte, p []byte) (r capture.Row) {
				if p != nil {
					d, r = b.row(d, func(d *tableDef) (capture.Row, error) { return d.decodeTuple(batch, kind, p) })
				}
				return r
			}
			l.before, l.after = image(row.OldKind, row.Old), image('N', row.New)
			fillUnchanged(l.after, l.before)
			l.def, defs[row.Relation] = d, d
			out = append(out, l)
		}
	}
	return out
}

func (b *bench) row(d *tableDef, decode func(*tableDef) (capture.Row, error)) (*tableDef, capture.Row) {
	b.t.Helper()
	for {
		row, err := decode(d)
		var outdated *outdatedError
		if errors.As(err, &outdated) {
			if d, err = b.cat.amend(b.t.Context(), b.conn, d, outdated); err != nil {
				b.t.Fatal(err)
			}
			continue
		}
		if err != nil {
			b.t.Fatal(err)
		}
		return d, row
	}
}

// define makes the definition of a table from the catalog.
func (b *bench) define(table string) *tableDef {
	b.t.Helper()
	oid, err := parseOID(b.ask("SELECT '" + table + "'::regclass::oid::text"))
	if err != nil {
		b.t.Fatal(err)
	}
	cols := strings.Split(b.ask("SELECT string_agg(attname, '|' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '"+table+"'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"), "|")
	d, err := b.cat.fromTable(b.t.Context(), unprepared{b.conn}, oid, cols)
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

// rows reads a table as a view does, ordered by its first column, which stands for its
// key: by FETCH from a cursor, in the formats of the definition.
func (b *bench) rows(batch *capture.Batch, d *tableDef) []capture.Row {
	b.t.Helper()
	var cols []string
	for _, c := range d.table.Columns {
		cols = append(cols, quoteIdent(c.Name))
	}
	if _, err := query(b.t.Context(), b.conn, "BEGIN; DECLARE chunk NO SCROLL CURSOR FOR SELECT "+strings.Join(cols, ", ")+" FROM "+quoteTable(d.table.ID)+" ORDER BY 1"); err != nil {
		b.t.Fatal(err)
	}
	formats := d.formats([]int{0})
	r := b.conn.ExecParams(b.t.Context(), "FETCH ALL FROM chunk", nil, nil, nil, formats).Read()
	if r.Err != nil {
		b.t.Fatal(r.Err)
	}
	if _, err := query(b.t.Context(), b.conn, "ROLLBACK"); err != nil {
		b.t.Fatal(err)
	}
	for i, f := range r.FieldDescriptions {
		if formats == nil && f.Format != formatText || formats != nil && f.Format != formats[i] {
			b.t.Errorf("column %s came in format %d, asked for %d", f.Name, f.Format, formats)
		}
	}
	var out []capture.Row
	for _, cells := range r.Rows {
		var row capture.Row
		d, row = b.row(d, func(d *tableDef) (capture.Row, error) {
			row, _, err := d.decodeCells(batch, cells, formats)
			return row, err
		})
		out = append(out, row)
	}
	return out
}

// literal writes a value as SQL, by other ways than the server prints it.
func literal(t *testing.T, typ *capture.Type, v *capture.Value) string {
	t.Helper()
	quote := func(b []byte) string { return quoteLiteral(string(b)) }
	instant := func(us int64) string {
		days := us / day
		return fmt.Sprintf("timestamp '1970-01-01' + interval '%d days' + interval '%d seconds' + interval '%d microseconds'", days, us%day/second, us%second)
	}
	infinite := func(s string) string {
		if v.Infinite() < 0 {
			s = strings.Replace(s, "'", "'-", 1)
		}
		return s
	}
	switch v.Kind() {
	case capture.Null:
		return "NULL"
	case capture.Bool:
		if strings.Contains(typ.Name, "bit") {
			return map[bool]string{true: "B'1'", false: "B'0'"}[v.Bool()]
		}
		return strconv.FormatBool(v.Bool())
	case capture.Int:
		return fmt.Sprintf("'%d'", v.Int())
	case capture.Float:
		return "'" + strconv.FormatFloat(v.Float(), 'g', -1, map[bool]int{true: 32, false: 64}[typ.Kind == capture.TypeFloat32]) + "'"
	case capture.Decimal:
		return quote(v.Bytes()) + "::numeric"
	case capture.String:
		return quote(v.Bytes())
	case capture.Bytes:
		if typ.Kind == capture.TypeBytes {
			return fmt.Sprintf("decode('%x', 'hex')", v.Bytes())
		}
		bits := ""
		for i := range 8 * len(v.Bytes()) {
			bits = strconv.Itoa(int(v.Bytes()[i/8]>>(i%8)&1)) + bits
		}
		if n := typ.Length; n > 0 && !strings.Contains(typ.Name, "varying") {
			bits = strings.Repeat("0", n) + bits
			bits = bits[len(bits)-n:]
		} else {
			bits = strings.TrimLeft(bits, "0") // the test has none that begin with 0
		}
		return "B'" + bits + "'"
	case capture.Date:
		if v.Infinite() != 0 {
			return infinite("date 'infinity'")
		}
		return fmt.Sprintf("date '1970-01-01' + %d", v.Int())
	case capture.Timestamp:
		if v.Infinite() != 0 {
			return infinite("timestamp 'infinity'")
		}
		return instant(v.Int())
	case capture.TimestampTZ:
		if v.Infinite() != 0 {
			return infinite("timestamptz 'infinity'")
		}
		return fmt.Sprintf("(%s + interval '%d seconds') AT TIME ZONE 'UTC'", instant(v.Int()), v.Beyond())
	case capture.Time:
		if v.Int() == day {
			return "'24:00'"
		}
		return fmt.Sprintf("time '00:00' + interval '%d seconds' + interval '%d microseconds'", v.Int()/second, v.Int()%second)
	case capture.TimeTZ:
		us, zone := v.Int(), v.ZoneOffset()
		sign := '+'
		if zone < 0 {
			sign, zone = '-', -zone
		}
		return fmt.Sprintf("'%d:%d:%d.%06d%c%02d:%02d:%02d'", us/hour, us%hour/minute, us%minute/second, us%second, sign, zone/3600, zone/60%60, zone%60)
	case capture.Interval:
		months, days, us := v.Interval()
		switch {
		case months == math.MaxInt32 && days == math.MaxInt32 && us == math.MaxInt64: // as the server stores it
			return "interval 'infinity'"
		case months == math.MinInt32 && days == math.MinInt32 && us == math.MinInt64:
			return "interval '-infinity'"
		}
		return fmt.Sprintf("interval '%d months' + interval '%d days' + interval '%d hours' + interval '%d seconds' + interval '%d microseconds'", months, days, us/hour, us%hour/second, us%second)
	case capture.Point:
		x, y := v.Point()
		return fmt.Sprintf("point('%v', '%v')", x, y)
	case capture.Map:
		var keys, values []string
		e := v.Elems()
		for i := 0; i < len(e); i += 2 {
			keys, values = append(keys, literal(t, typ, &e[i])), append(values, literal(t, typ, &e[i+1]))
		}
		return "public.hstore(ARRAY[" + strings.Join(keys, ", ") + "]::text[], ARRAY[" + strings.Join(values, ", ") + "]::text[])"
	case capture.Array:
		if len(v.Elems()) == 0 {
			return "'{}'"
		}
		var elems []string
		for _, e := range v.Elems() {
			if e.Kind() == capture.Array {
				elems = append(elems, literal(t, typ, &e))
			} else {
				elems = append(elems, "("+literal(t, typ.Elem, &e)+")::"+typ.Elem.Name)
			}
		}
		return "ARRAY[" + strings.Join(elems, ", ") + "]"
	}
	t.Fatalf("no literal for %s", v.Kind())
	return ""
}

// A servedType is a type with values at its edges, and what the type comes to. Arrays of
// each are read too.
type servedType struct {
	typ    string
	want   capture.Type
	array  bool // whether arrays are mapped
	values []string
}

var served = []servedType{
	{"boolean", capture.Type{Kind: capture.TypeBool}, true, []string{"true", "false"}},
	{"bit", capture.Type{Kind: capture.TypeBool, Name: "bit(1)"}, true, []string{"1", "0"}},
	{"bit(1)", capture.Type{Kind: capture.TypeBool}, true, []string{"1"}},
	{"bit varying(1)", capture.Type{Kind: capture.TypeBool}, false, []string{"1", "0"}},
	{"bit(3)", capture.Type{Kind: capture.TypeBits, Length: 3}, true, []string{"000", "001", "100"}},
	{"bit(8)", capture.Type{Kind: capture.TypeBits, Length: 8}, true, []string{"10101010", "00000001"}},
	{"bit(64)", capture.Type{Kind: capture.TypeBits, Length: 64}, true, []string{strings.Repeat("10", 32), strings.Repeat("0", 63) + "1"}},
	{"bit varying(16)", capture.Type{Kind: capture.TypeBits, Length: 16}, false, []string{"1", "1010101010101010", ""}},
	{"bit varying", capture.Type{Kind: capture.TypeBits}, false, []string{"1", "101010101", ""}},
	{"smallint", capture.Type{Kind: capture.TypeInt16}, true, []string{"-32768", "32767", "0"}},
	{"integer", capture.Type{Kind: capture.TypeInt32}, true, []string{"-2147483648", "2147483647"}},
	{"bigint", capture.Type{Kind: capture.TypeInt64}, true, []string{"-9223372036854775808", "9223372036854775807", "-1"}},
	{"oid", capture.Type{Kind: capture.TypeInt64}, true, []string{"0", "4294967295"}},
	{"real", capture.Type{Kind: capture.TypeFloat32}, true, []string{"0", "-0.0", "1.1", "3.4028235e38", "-1.17549e-38", "1e-45", "NaN", "Infinity", "-Infinity", "16777217"}},
	{"double precision", capture.Type{Kind: capture.TypeFloat64}, true, []string{"0", "-0.0", "0.1", "1.7976931348623157e308", "5e-324", "NaN", "Infinity", "-Infinity", "9007199254740993"}},
	{"numeric", capture.Type{Kind: capture.TypeVarDecimal}, true, []string{"0", "1.10", "-123456789012345678901234567890.0987654321", "NaN", "1e30", "1e-30"}},
	{"numeric(5,2)", capture.Type{Kind: capture.TypeDecimal, Precision: 5, Scale: 2}, true, []string{"0", "1.1", "-999.99", "NaN"}},
	{"numeric(10)", capture.Type{Kind: capture.TypeDecimal, Precision: 10, Name: "numeric(10,0)"}, true, []string{"-1234567890"}},
	{"numeric(1000,500)", capture.Type{Kind: capture.TypeDecimal, Precision: 1000, Scale: 500}, true, []string{"-" + strings.Repeat("9", 500) + "." + strings.Repeat("9", 500)}},
	{"money", capture.Type{Kind: capture.TypeMoney}, false, []string{"0", "-0.01", "1234567.89", "-92233720368547758.08", "92233720368547758.07"}},
	{"text", capture.Type{Kind: capture.TypeString}, true, []string{"", "NULL", "a'b\"c\\d", "{x,y}", "日本 😀", " ", "line\nbreak", "null"}},
	{"character varying", capture.Type{Kind: capture.TypeString}, true, []string{"x"}},
	{"character varying(5)", capture.Type{Kind: capture.TypeString, Length: 5}, true, []string{"abcde", "😀😀😀😀😀"}},
	{"character(10)", capture.Type{Kind: capture.TypeString, Length: 10}, true, []string{"abc", "", "日本"}},
	{`"char"`, capture.Type{Kind: capture.TypeString}, true, []string{"a", ""}},
	{"name", capture.Type{Kind: capture.TypeString}, false, []string{"pg_class", ""}},
	{"citext", capture.Type{Kind: capture.TypeString, Name: "public.citext"}, true, []string{"MiXed", ""}},
	{"bytea", capture.Type{Kind: capture.TypeBytes}, true, []string{"", `\x00ff5c22`}},
	{"json", capture.Type{Kind: capture.TypeJSON}, true, []string{`{"b": 1,  "a":[1,2.50,null,true]}`, "null"}},
	{"jsonb", capture.Type{Kind: capture.TypeJSON}, true, []string{`{"b": 1, "a":[1,2.50,null,true], "u":"\u00e9"}`, "null", "1e400"}},
	{"xml", capture.Type{Kind: capture.TypeXML}, false, []string{"<a b=\"c\">d</a>"}},
	{"uuid", capture.Type{Kind: capture.TypeUUID}, true, []string{"A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11"}},
	{"inet", capture.Type{Kind: capture.TypeString}, true, []string{"10.0.0.1", "10.0.0.1/8", "::1", "2001:db8::/32"}},
	{"cidr", capture.Type{Kind: capture.TypeString}, true, []string{"10.0.0.0/8"}},
	{"macaddr", capture.Type{Kind: capture.TypeString}, true, []string{"08:00:2b:01:02:03"}},
	{"macaddr8", capture.Type{Kind: capture.TypeString}, true, []string{"08:00:2b:01:02:03:04:05"}},
	{"ltree", capture.Type{Kind: capture.TypeLtree, Name: "public.ltree"}, true, []string{"Top.Science.Astronomy"}},
	{"tsvector", capture.Type{Kind: capture.TypeTsvector}, true, []string{"'a':1A 'fat':2B,4C 'it''s':5"}},
	{"isbn", capture.Type{Kind: capture.TypeString, Name: "public.isbn"}, true, []string{"978-0-393-04002-9"}},
	{"hstore", capture.Type{Kind: capture.TypeMap, Name: "public.hstore"}, true, []string{"", `a=>1, b=>NULL, "c d"=>"NULL", "q\"\\"=>"x, y=>z", ""=>""`}},
	{"date", capture.Type{Kind: capture.TypeDate}, true, []string{"2024-02-29", "1970-01-01", "1969-12-31", "0001-01-01", "0044-03-15 BC", "0001-12-31 BC", "4713-01-01 BC", "4714-11-24 BC", "5874897-12-31", "1582-10-10", "10000-01-01", "2000-02-29", "1900-03-01", "infinity", "-infinity"}},
	{"time without time zone", capture.Type{Kind: capture.TypeTime, Scale: 6}, true, []string{"00:00:00", "23:59:59.999999", "24:00:00", "12:34:56.000001", "01:02:03.5"}},
	{"time(1) without time zone", capture.Type{Kind: capture.TypeTime, Scale: 1}, true, []string{"12:34:56.789012", "23:59:59.999999"}},
	{"time with time zone", capture.Type{Kind: capture.TypeTimeTZ, Scale: 6}, true, []string{"00:00:00+00", "23:59:59.999999-12", "24:00:00+05:30", "12:34:56.5+15:59", "12:00:00-15:59:59"}},
	{"timestamp without time zone", capture.Type{Kind: capture.TypeTimestamp, Scale: 6}, true, []string{"2024-02-29 12:34:56.789012", "1970-01-01 00:00:00", "1969-12-31 23:59:59.999999", "0001-01-01 00:00:00", "0044-03-15 12:00:00 BC", "4713-01-01 00:00:00 BC", "4714-11-24 00:00:00 BC", "9999-12-31 23:59:59.999999", "10000-01-01 00:00:00", "294247-01-10 04:00:54.775805", "infinity", "-infinity"}},
	{"timestamp(0) without time zone", capture.Type{Kind: capture.TypeTimestamp, Scale: 0}, true, []string{"2024-02-29 12:34:56.789012"}},
	{"timestamp(3) without time zone", capture.Type{Kind: capture.TypeTimestamp, Scale: 3}, true, []string{"2024-02-29 12:34:56.789012"}},
	{"timestamp with time zone", capture.Type{Kind: capture.TypeTimestampTZ, Scale: 6}, true, []string{"2024-06-01 00:00:00.1234-11", "2024-06-01 00:00:00+14:00", "0044-03-15 12:00:00 BC", "4713-01-01 00:00:00+00 BC", "4714-11-24 00:00:00+00 BC", "294247-01-10 04:00:54.775806+00", "294247-01-10 04:00:54.775807+00", "294276-12-31 23:59:59.999999+00", "infinity", "-infinity"}},
	{"interval", capture.Type{Kind: capture.TypeInterval}, false, []string{"0", "1 year 2 mons -3 days 04:05:06.789", "-1 year -2 mons 3 days -04:05:06.000001", "-1 mon", "11 mons", "-00:00:00.000001", "2147483647:59:59.999999", "178956970 years 7 mons 2147483647 days", "1 day -1 second", "-178956970 years -8 mons"}},
	{"interval day to second(3)", capture.Type{Kind: capture.TypeInterval}, false, []string{"3 04:05:06.789"}},
	{"point", capture.Type{Kind: capture.TypePoint}, false, []string{"(1.5,-2.5)", "(Infinity,NaN)", "(0.1,1e-300)"}},
	{"int4range", capture.Type{Kind: capture.TypeString}, true, []string{"[1,5)", "empty", "(,)"}},
	{"int8range", capture.Type{Kind: capture.TypeString}, true, []string{"[1,5]"}},
	{"numrange", capture.Type{Kind: capture.TypeString}, true, []string{"(,5.50]"}},
	{"tsrange", capture.Type{Kind: capture.TypeString}, true, []string{"[2024-01-01 00:00,)"}},
	{"tstzrange", capture.Type{Kind: capture.TypeString}, true, []string{"[2024-01-01 00:00+02,)"}},
	{"daterange", capture.Type{Kind: capture.TypeString}, true, []string{"[2019-03-31,2019-04-30)"}},
	{"own.mood", capture.Type{Kind: capture.TypeEnum, Labels: []string{"sad", "ok", "very, happy"}}, true, []string{"ok", "very, happy"}},
	{"own.posint", capture.Type{Kind: capture.TypeInt32}, false, []string{"7"}},
	{"own.instant", capture.Type{Kind: capture.TypeTimestampTZ, Scale: 3}, false, []string{"2024-02-29 12:34:56.789012+00", "-infinity"}},
	{"own.zip2", capture.Type{Kind: capture.TypeString, Length: 5}, false, []string{"12345"}},
	{"own.amount", capture.Type{Kind: capture.TypeDecimal, Precision: 10, Scale: 2}, false, []string{"1.5"}},
	{"own.feeling", capture.Type{Kind: capture.TypeEnum, Labels: []string{"sad", "ok", "very, happy"}}, false, []string{"sad"}},
	{"own.intarr", capture.Type{Kind: capture.TypeArray, Elem: &capture.Type{Kind: capture.TypeInt32, Name: "integer"}}, false, []string{"{1,NULL}"}},
	{"own.pair", unmappedType, false, []string{`(1,"a b")`}},
	{"own.ours", unmappedType, false, []string{"[a,b)"}},
	{"box", unmappedType, false, []string{"(1,2),(3,4)"}},
	{"circle", unmappedType, false, []string{"<(1,2),3>"}},
	{"line", unmappedType, false, []string{"{1,2,3}"}},
	{"lseg", unmappedType, false, []string{"[(1,2),(3,4)]"}},
	{"path", unmappedType, false, []string{"((1,2),(3,4))"}},
	{"polygon", unmappedType, false, []string{"((1,2),(3,4))"}},
	{"tsquery", unmappedType, false, []string{"fat & rat"}},
	{"pg_lsn", unmappedType, false, []string{"0/16B3748"}},
	{"pg_snapshot", unmappedType, false, []string{"10:20:10,14"}},
	{"txid_snapshot", unmappedType, false, []string{"10:20:10,14"}},
	{"regclass", unmappedType, false, []string{"pg_catalog.pg_class"}},
	{"regtype", unmappedType, false, []string{"integer"}},
	{"xid", unmappedType, false, []string{"7"}},
	{"xid8", unmappedType, false, []string{"7"}},
	{"cid", unmappedType, false, []string{"7"}},
	{"tid", unmappedType, false, []string{"(0,1)"}},
	{"jsonpath", unmappedType, false, []string{"$.a"}},
	{"refcursor", unmappedType, false, []string{"c"}},
	{"int2vector", unmappedType, false, []string{"1 2"}},
	{"oidvector", unmappedType, false, []string{"1 2"}},
}

// servedSince are types and values that older servers do not have.
var servedSince = map[int][]servedType{
	14: {
		{"numeric", capture.Type{Kind: capture.TypeVarDecimal}, true, []string{"Infinity", "-Infinity"}},
		{"int4multirange", unmappedType, false, []string{"{[1,3),[5,)}", "{}"}},
		{"tstzmultirange", unmappedType, false, []string{"{[2024-01-01 00:00+02,infinity]}"}},
	},
	15: {
		{"numeric(5,-2)", capture.Type{Kind: capture.TypeDecimal, Precision: 7}, true, []string{"12300", "-9999900", "0"}},
		{"numeric(3,5)", capture.Type{Kind: capture.TypeDecimal, Precision: 3, Scale: 5}, true, []string{"0.00123", "-0.00999"}},
	},
	17: {
		{"interval", capture.Type{Kind: capture.TypeInterval}, false, []string{"infinity", "-infinity"}},
	},
}

func servedBy(version string) []servedType {
	all := slices.Clone(served)
	for since, types := range servedSince {
		if major, err := strconv.Atoi(version); err == nil && major >= since {
			all = append(all, types...)
		}
	}
	return all
}

var unmappedType = capture.Type{Kind: capture.TypeText, Unmapped: true}

const servedTypes = `CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE EXTENSION isn; CREATE SCHEMA own;
	CREATE TYPE own.mood AS ENUM ('sad', 'ok', 'very, happy'); CREATE DOMAIN own.posint AS integer CHECK (VALUE > 0);
	CREATE DOMAIN own.zip AS varchar(5); CREATE DOMAIN own.zip2 AS own.zip; CREATE DOMAIN own.amount AS numeric(10,2);
	CREATE DOMAIN own.instant AS timestamptz(3); CREATE DOMAIN own.feeling AS own.mood; CREATE DOMAIN own.intarr AS integer[]; CREATE TYPE own.pair AS (a int, b text);
	CREATE TYPE own.ours AS RANGE (subtype = text)`

// Values from the log and from a query are the same, share their definition, and the
// server makes of them what it has stored.
func TestCatalog_ReadsEveryType(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, version)
			b.exec(servedTypes)
			types := servedBy(version)
			for i, c := range types {
				cols := "id int PRIMARY KEY, v " + c.typ + ", a " + c.typ + "[]"
				b.exec(fmt.Sprintf("CREATE TABLE t%d (%s)", i, cols))
				for j, v := range c.values {
					lit := quoteLiteral(v)
					b.exec(fmt.Sprintf("INSERT INTO t%d VALUES (%d, %s::%s, ARRAY[%s, NULL, %s]::text[]::%s[])", i, j, lit, c.typ, lit, lit, c.typ))
				}
				lit := quoteLiteral(c.values[0])
				b.exec(fmt.Sprintf("INSERT INTO t%d VALUES (100, NULL, NULL), (101, NULL, '{}'), (102, NULL, ARRAY[[%s, NULL, %s], [%s, %s, %s]]::text[]::%s[])", i, lit, lit, lit, lit, lit, c.typ))
			}
			batch := capture.NewBatch()
			defer batch.Release()
			events := b.log(batch)
			for i, c := range types {
				b.checkType(batch, fmt.Sprintf("public.t%d", i), &c.want, c.typ, c.array, len(c.values), &events)
			}
		})
	}
}

func (b *bench) checkType(batch *capture.Batch, table string, want *capture.Type, name string, array bool, values int, events *[]logged) {
	t := b.t
	t.Helper()
	d := b.define(table)
	wantType := *want
	if wantType.Name == "" {
		wantType.Name = name
	}
	got := &d.table.Columns[1].Type
	if !got.Equal(&wantType) {
		t.Errorf("%s is %+v, want %+v", name, got, wantType)
	}
	got = &d.table.Columns[2].Type
	wantArray := capture.Type{Kind: capture.TypeArray, Name: wantType.Name + "[]"}
	if elem := wantType; array {
		wantArray.Elem = &elem
	} else {
		wantArray.Kind, wantArray.Unmapped = capture.TypeText, true
	}
	if !got.Equal(&wantArray) {
		t.Errorf("%s[] is %+v, want %+v", name, got, wantArray)
	}
	rows := b.rows(batch, d)
	if len(rows) != values+3 || len(*events) < len(rows) {
		t.Fatalf("%s: %d rows and %d events, want %d of each", name, len(rows), len(*events), values+3)
	}
	for i, row := range rows {
		e := (*events)[i]
		if e.def.table != d.table {
			t.Errorf("%s: log and query have two definitions:\n%+v\n%+v", name, e.def.table, d.table)
		}
		for k := range row {
			if string(row[k].AppendKey(nil)) != string(e.after[k].AppendKey(nil)) {
				t.Errorf("%s row %d: the query says %v and the log %v", name, i, row[k], e.after[k])
			}
		}
		for k, col := range []string{"v", "a"} {
			v := &row[k+1]
			lit := literal(t, &d.table.Columns[k+1].Type, v)
			sql := fmt.Sprintf("SELECT %s::text IS NOT DISTINCT FROM ((%s)::%s)::text, %s::text, ((%s)::%s)::text FROM %s WHERE id = %d",
				col, lit, d.table.Columns[k+1].Type.Name, col, lit, d.table.Columns[k+1].Type.Name, table, row[0].Int())
			answer, err := queryRow(t.Context(), b.conn, sql)
			if err != nil {
				t.Errorf("%s row %d: %v is %s: %v", name, i, *v, lit, err)
			} else if answer[0] != "t" {
				t.Errorf("%s row %d: the server has %s, and we read %v, which is %s", name, i, answer[1], *v, answer[2])
			}
		}
	}
	*events = (*events)[len(rows):]
}

// An update names the definitions by their OIDs; old images follow the replica
// identity.
func TestCatalog_FollowsTheReplicaIdentity(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, version)
			b.exec("CREATE TABLE t (v text, id int PRIMARY KEY, big text)", "ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
				"INSERT INTO t VALUES ('a', 1, repeat('x', 9000))")
			b.exec("UPDATE t SET v = 'b'", "UPDATE t SET id = 2", "ALTER TABLE t REPLICA IDENTITY FULL", "UPDATE t SET v = NULL", "DELETE FROM t")
			batch := capture.NewBatch()
			defer batch.Release()
			got := b.log(batch)
			big := fmt.Sprintf("%q", strings.Repeat("x", 9000))
			want := []string{
				`insert [] ["a" int:1 ` + big + `]`,
				`update [] ["b" int:1 unchanged]`,
				`update [absent int:1 absent] ["b" int:2 unchanged]`,
				`update ["b" int:2 ` + big + `] [null int:2 ` + big + `]`,
				`delete [null int:2 ` + big + `] []`,
			}
			for i, e := range got {
				if s := fmt.Sprint(e.op, " ", e.before, " ", e.after); i >= len(want) || s != want[i] {
					t.Errorf("event %d: %.200s", i, s)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d events, want %d", len(got), len(want))
			}
			if got[0].def.table != got[4].def.table {
				t.Error("the replica identity made another definition")
			}
		})
	}
}

func TestCatalog_FindsTheKeys(t *testing.T) {
	cases := []struct {
		table, sql string
		key        []string
		index      string
		rowKey     []string
	}{
		{"pk", "CREATE TABLE pk (z text, y int, x int, v text, PRIMARY KEY (y, z)); CREATE UNIQUE INDEX a ON pk (x)", []string{"y", "z"}, "", []string{"y", "z"}},
		{"keyless", "CREATE TABLE keyless (a int); CREATE INDEX ON keyless (a)", nil, "", nil},
		{
			"uniq", "CREATE TABLE uniq (a int, b int NOT NULL, c int NOT NULL); CREATE UNIQUE INDEX u1 ON uniq ((a + 1)); CREATE UNIQUE INDEX u2 ON uniq (a); CREATE UNIQUE INDEX u3 ON uniq (c, b) INCLUDE (a)",
			[]string{"a"},
			"u2",
			[]string{"c", "b"},
		},
		{"part", "CREATE TABLE part (a int NOT NULL, b int); CREATE UNIQUE INDEX p1 ON part (a) WHERE b > 0", []string{"a"}, "p1", nil},
		{"late", "CREATE TABLE late (a int PRIMARY KEY DEFERRABLE, b int NOT NULL UNIQUE)", []string{"a"}, "", []string{"b"}},
		{"order", "CREATE TABLE \"order\" (\"B c\" int NOT NULL, \"A\" int, CONSTRAINT \"Z\" UNIQUE (\"B c\"), CONSTRAINT \"z\" UNIQUE (\"A\"))", []string{"B c"}, "Z", []string{"B c"}},
	}
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, version)
			b.exec("CREATE TABLE root (id int, day int, PRIMARY KEY (id, day)) PARTITION BY LIST (day)", "CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1)")
			for _, c := range cases {
				b.exec(c.sql)
				b.exec("INSERT INTO " + quoteIdent(c.table) + " SELECT " + strings.Join(slices.Repeat([]string{"1"}, strings.Count(b.ask("SELECT string_agg(attname, ',') FROM pg_attribute WHERE attrelid = '"+quoteIdent(c.table)+"'::regclass AND attnum > 0"), ",")+1), ","))
			}
			b.exec("INSERT INTO root VALUES (1, 1)")
			batch := capture.NewBatch()
			defer batch.Release()
			events := b.log(batch)
			b.exec("ALTER PUBLICATION p SET (publish_via_partition_root = true)", "INSERT INTO root VALUES (2, 1)")
			events = append(events, b.log(batch)...)
			check := func(e logged, table string, key []string, index string, rowKey []string) {
				t.Helper()
				d := e.def.table
				if d.ID.Name != table {
					t.Fatalf("the event is one of %s, want %s", d.ID, table)
				}
				if k, r := columnNames(d, d.Key), columnNames(d, d.RowKey); !slices.Equal(k, key) || d.KeyIndex != index || !slices.Equal(r, rowKey) {
					t.Errorf("%s: key %v of %q, row key %v; want %v of %q, %v", table, k, d.KeyIndex, r, key, index, rowKey)
				}
				if fromCatalog := b.define(quoteIdent(table)).table; fromCatalog != d {
					t.Errorf("%s: log and catalog differ:\n%+v\n%+v", table, d, fromCatalog)
				}
			}
			for i, c := range cases {
				check(events[i], c.table, c.key, c.index, c.rowKey)
			}
			check(events[len(cases)], "leaf", []string{"id", "day"}, "", []string{"id", "day"})
			if got := events[len(cases)].def.table.PartOf; !slices.Equal(got, []capture.TableID{{Schema: "public", Name: "root"}}) {
				t.Errorf("leaf is a part of %v", got)
			}
			check(events[len(cases)+1], "root", []string{"id", "day"}, "", []string{"id", "day"})
		})
	}
}

func columnNames(t *capture.Table, cols []int) []string {
	var out []string
	for _, i := range cols {
		out = append(out, t.Columns[i].Name)
	}
	return out
}

// What the log says of a row wins over what the catalog says by now.
func TestCatalog_OutlivesDefinitionChanges(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, version)
			b.exec("CREATE TYPE mood AS ENUM ('sad', 'ok')",
				"CREATE TABLE narrowed (id int PRIMARY KEY, v int, w text DEFAULT 'x')",
				"INSERT INTO narrowed VALUES (1, NULL, NULL)", "UPDATE narrowed SET v = 0, w = ''",
				"ALTER TABLE narrowed ALTER v SET NOT NULL, ALTER w SET NOT NULL",
				"CREATE TABLE altered (id int PRIMARY KEY, a int NOT NULL DEFAULT 1, b int NOT NULL DEFAULT 2)",
				"INSERT INTO altered VALUES (1)",
				"ALTER TABLE altered ALTER a TYPE bigint, ALTER b SET DEFAULT 3",
				"CREATE TABLE rekeyed (id int PRIMARY KEY, other int NOT NULL)", "INSERT INTO rekeyed VALUES (1, 2)", "DELETE FROM rekeyed",
				"ALTER TABLE rekeyed DROP CONSTRAINT rekeyed_pkey", "ALTER TABLE rekeyed ADD PRIMARY KEY (other)",
				"CREATE TABLE keyed (id int NOT NULL)", "INSERT INTO keyed VALUES (1)", "ALTER TABLE keyed ADD PRIMARY KEY (id)",
				"CREATE TABLE dropped (id int PRIMARY KEY, m mood, n int NOT NULL)", "INSERT INTO dropped VALUES (1, 'ok', 2)", "DROP TABLE dropped", "DROP TYPE mood")
			batch := capture.NewBatch()
			defer batch.Release()
			var got []string
			for _, e := range b.log(batch) {
				s := fmt.Sprint(e.def.table.ID.Name, " ", e.op, " ", e.before, e.after, " key ", columnNames(e.def.table, e.def.table.Key))
				for _, c := range e.def.table.Columns {
					s += fmt.Sprint(" ", c.Name, ":", c.Type.Name)
					if c.Nullable {
						s += "?"
					}
					if c.Default.Kind == capture.DefaultLiteral {
						s += fmt.Sprint("=", c.Default.Value)
					}
				}
				got = append(got, s)
			}
			want := []string{
				`narrowed insert [] [int:1 null null] key [id] id:integer v:integer? w:text?="x"`,
				// The definition widens as far as rows ask for it, and no relation message came between.
				`narrowed update [] [int:1 int:0 ""] key [id] id:integer v:integer? w:text?="x"`,
				`altered insert [] [int:1 int:1 int:2] key [id] id:integer a:integer? b:integer=int:3`,
				`rekeyed insert [] [int:1 int:2] key [id] id:integer other:integer`,
				`rekeyed delete [int:1 absent] [] key [id] id:integer other:integer`,
				`keyed insert [] [int:1] key [] id:integer`,
			}
			if len(got) != len(want)+1 {
				t.Fatalf("%d events: %s", len(got), strings.Join(got, "\n"))
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("event %d:\n got %s\nwant %s", i, got[i], want[i])
				}
			}
			if last := got[len(want)]; !strings.HasPrefix(last, `dropped insert [] [int:1 "ok" int:2] key [id] id:integer m:type `) {
				t.Errorf("the dropped table: %s", last)
			}
		})
	}
}

func TestCatalog_ReadsUnknownLabelsAgain(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, version)
			b.exec("CREATE TYPE mood AS ENUM ('sad', 'ok')", "CREATE TABLE t (id int PRIMARY KEY, m mood, a mood[])", "INSERT INTO t VALUES (1, 'ok', '{sad}')")
			batch := capture.NewBatch()
			defer batch.Release()
			d := b.log(batch)[0].def
			b.exec("ALTER TYPE mood ADD VALUE 'so so' BEFORE 'ok'", "ALTER TYPE mood ADD VALUE ''", "INSERT INTO t VALUES (2, NULL, '{\"so so\",\"\"}')", "INSERT INTO t VALUES (3, '', '{}')",
				"ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'", "INSERT INTO t VALUES (4, 'fine', '{}')")
			labels := func(d *tableDef) string {
				return fmt.Sprintf("%q %q", d.table.Columns[1].Type.Labels, d.table.Columns[2].Type.Elem.Labels)
			}
			for i, cells := range [][][]byte{{[]byte("2"), nil, []byte(`{"so so",""}`)}, {[]byte("3"), {}, []byte("{}")}, texts("5", "ok", "{sad}")} {
				var row capture.Row
				old := labels(d)
				next, row := b.row(d, func(d *tableDef) (capture.Row, error) { return d.decodeTuple(batch, 'N', tuple(cells...)) })
				if labels(d) != old {
					t.Error("the definition at hand was changed")
				}
				d = next
				want := []string{
					`["sad" "so so" "fine" ""] ["sad" "so so" "fine" ""]`,
					`["sad" "so so" "fine" ""] ["sad" "so so" "fine" ""]`,
					`["sad" "so so" "fine" "" "ok"] ["sad" "so so" "fine" "" "ok"]`, // renamed since
				}[i]
				if got := labels(d); got != want {
					t.Errorf("after %v: labels %s, want %s", row, got, want)
				}
			}
			// A later relation message knows the labels.
			events := b.log(batch)
			if got, want := labels(events[0].def), `["sad" "so so" "fine" ""] ["sad" "so so" "fine" ""]`; got != want {
				t.Errorf("labels %s, want %s", got, want)
			}
			if events[0].def.table != events[2].def.table || events[0].def.table != b.define("t").table {
				t.Error("equal definitions are not shared")
			}
		})
	}
}

func TestCatalog_PublishedGeneratedColumns(t *testing.T) {
	b := newBench(t, "18")
	b.exec("ALTER PUBLICATION p SET (publish_generated_columns = stored)",
		"CREATE TABLE t (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED, c int GENERATED ALWAYS AS (a * 3))", "INSERT INTO t VALUES (1, 21)")
	batch := capture.NewBatch()
	defer batch.Release()
	e := b.log(batch)[0]
	if got := fmt.Sprint(e.after); got != "[int:1 int:21 int:42]" || e.def.table.Columns[2].Default.Kind != capture.DefaultZero {
		t.Errorf("got %s with %+v", got, e.def.table.Columns[2])
	}
}

func TestCatalog_UnvalidatedNotNullIsNullable(t *testing.T) {
	b := newBench(t, "18")
	b.exec("CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1)", "ALTER TABLE t ADD CONSTRAINT c NOT NULL v NOT VALID")
	if c := b.define("t").table.Columns[1]; !c.Nullable {
		t.Errorf("%+v is not nullable", c)
	}
}

func TestCatalog_CarriesComments(t *testing.T) {
	b := newBench(t, "15")
	b.exec("CREATE TABLE t (id int PRIMARY KEY, v int)", "COMMENT ON COLUMN t.v IS 'what it''s for'")
	if c := b.define("t").table.Columns[1]; c.Comment != "what it's for" {
		t.Errorf("comment %q", c.Comment)
	}
}

// Definitions and values do not depend on what the database or the role sets.
func TestCatalog_IgnoresTheDatabasesSettings(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, version)
			b.exec(servedTypes, "CREATE TABLE t (id int PRIMARY KEY, c text DEFAULT E'a\\\\b', d date DEFAULT '2021-02-03', f real, i interval, b bytea, m own.mood, y money)",
				`INSERT INTO t VALUES (1, NULL, '2020-01-02', 1.1, '1 day -1 hour', '\x01', 'ok', 1)`)
			batch := capture.NewBatch()
			defer batch.Release()
			first := b.define("t")
			want := fmt.Sprint(b.rows(batch, first))
			name := quoteIdent(b.ask("SELECT current_database()"))
			for _, s := range []string{
				"standard_conforming_strings = off", "quote_all_identifiers = on", "bytea_output = escape", "DateStyle = 'German, DMY'",
				"IntervalStyle = iso_8601", "extra_float_digits = -10", "TimeZone = 'Asia/Kathmandu'", "search_path = own", "lc_monetary = 'POSIX'", "client_encoding = LATIN1",
			} {
				b.exec("ALTER DATABASE " + name + " SET " + s)
			}
			for _, replication := range []bool{true, false} {
				conn, err := b.source().connect(t.Context(), replication, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer closeConn(conn)
				// Rule R27. A machine may have no locale with another form of money, and
				// what the log prints is printed by the replication connection.
				settings := `SELECT split_part(current_setting('DateStyle'), ',', 1), ` + strings.Join([]string{
					"current_setting('IntervalStyle')", "current_setting('TimeZone')",
					"current_setting('extra_float_digits')", "current_setting('bytea_output')", "current_setting('lc_monetary')", "current_setting('client_encoding')",
				}, ", ")
				row, err := queryRow(t.Context(), conn, settings)
				if want := []string{"ISO", "postgres", "UTC", "3", "hex", "C", "UTF8"}; err != nil || !slices.Equal(row, want) {
					t.Errorf("replication %t: the settings are %q, want %q: %v", replication, row, want, err)
				}
				b.conn = conn
			}
			again := b.define("t")
			if again.table != first.table {
				t.Errorf("the definition became\n%+v, was\n%+v", again.table, first.table)
			}
			if got := fmt.Sprint(b.rows(batch, again)); got != want {
				t.Errorf("the row became %s, was %s", got, want)
			}
			if got := fmt.Sprint(b.log(batch)[0].after); "["+got+"]" != want {
				t.Errorf("the log has %s, the table %s", got, want)
			}
		})
	}
}

func TestCatalog_RemembersFewDefinitions(t *testing.T) {
	c := newCatalog("db")
	var last *capture.Table
	for i := range 3 * keepDefinitions {
		last = c.intern(&capture.Table{ID: capture.TableID{Schema: "s", Name: "t"}, KeyIndex: strconv.Itoa(i)})
	}
	if n := len(c.tables[last.ID]); n != keepDefinitions {
		t.Errorf("%d definitions are remembered", n)
	}
	same := *last
	if c.intern(&same) != last {
		t.Error("the newest definition is not shared")
	}
}

func TestCatalog_SourceBlock(t *testing.T) {
	o := newCatalog("shop").origin
	var names []string
	for _, f := range o.Fields {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "schema table txId lsn xmin origin origin_lsn" || o.Connector != "postgresql" || o.Database != "shop" {
		t.Errorf("%s of %q and %q", got, o.Connector, o.Database)
	}
}
