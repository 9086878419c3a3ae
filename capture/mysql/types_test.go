package mysql

import (
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/headwaterdb/headwater/capture"
)

var update = flag.Bool("update", false, "record the events of the type table in testdata")

// A typeCase is a column type, and values for it as SQL.
type typeCase struct {
	decl   string
	kind   capture.TypeKind
	values []string
	only   string // server names that have the type begin with it
	// shows is how SQL prints a value, with %s for the column; the default is by kind.
	shows string
}

func geometry(text string) string { return "ST_GeomFromText('" + text + "')" }

var typeCases = []typeCase{
	{decl: "tinyint", kind: capture.TypeInt8, values: []string{"-128", "127", "0"}},
	{decl: "tinyint unsigned", kind: capture.TypeInt16, values: []string{"255", "128", "0"}},
	{decl: "bool", kind: capture.TypeInt8, values: []string{"true", "false", "-1"}},
	{decl: "smallint", kind: capture.TypeInt16, values: []string{"-32768", "32767"}},
	{decl: "smallint unsigned", kind: capture.TypeInt32, values: []string{"65535"}},
	{decl: "mediumint", kind: capture.TypeInt32, values: []string{"-8388608", "8388607", "-1"}},
	{decl: "mediumint unsigned", kind: capture.TypeInt32, values: []string{"16777215"}},
	{decl: "int", kind: capture.TypeInt32, values: []string{"-2147483648", "2147483647"}},
	{decl: "int unsigned", kind: capture.TypeInt64, values: []string{"4294967295"}},
	{decl: "int(6) zerofill", kind: capture.TypeInt64, values: []string{"42", "1234567"}},
	{decl: "bigint", kind: capture.TypeInt64, values: []string{"-9223372036854775808", "9223372036854775807"}},
	{decl: "bigint unsigned", kind: capture.TypeUint64, values: []string{"18446744073709551615", "0"}},
	{decl: "bigint(20) zerofill", kind: capture.TypeUint64, values: []string{"7", "18446744073709551615"}},
	{decl: "bit", kind: capture.TypeBool, values: []string{"b'1'", "b'0'"}},
	{decl: "bit(8)", kind: capture.TypeBits, values: []string{"b'10000001'"}},
	{decl: "bit(10)", kind: capture.TypeBits, values: []string{"b'1000000001'", "1"}},
	{decl: "bit(64)", kind: capture.TypeBits, values: []string{"18446744073709551615", "1"}},
	{decl: "decimal(65,30)", kind: capture.TypeDecimal, values: []string{
		"12345678901234567890123456789012345.123456789012345678901234567890", "-0.000000000000000000000000000001", "0", "-1", "99999999999999999999999999999999999.999999999999999999999999999999",
	}},
	{decl: "decimal(10,0)", kind: capture.TypeDecimal, values: []string{"-42", "0", "9999999999", "1000000000", "999999999"}},
	{decl: "decimal(5,2) unsigned", kind: capture.TypeDecimal, values: []string{"1.5", "999.99", "0.01"}},
	{decl: "decimal(30,30)", kind: capture.TypeDecimal, values: []string{"0.1", "-0.1", "-0.000000001"}},
	{decl: "decimal(18,9)", kind: capture.TypeDecimal, values: []string{"123456789.987654321", "-1.000000001", "-100000000"}},
	{decl: "decimal(10,3) zerofill", kind: capture.TypeDecimal, values: []string{"1.5", "0", "1234567.891"}, shows: "%s + 0.000"},
	{decl: "float", kind: capture.TypeFloat32, values: []string{"1.1", "16777217", "3.4e38", "-1.17549435e-38", "0.1", "-0e0", "123456.789"}, shows: "%s * 1e0"},
	{decl: "float unsigned", kind: capture.TypeFloat32, values: []string{"1.5"}, shows: "%s * 1e0"},
	{decl: "float(7,4)", kind: capture.TypeFloat64, values: []string{"999.00009", "0.1"}, shows: "%s * 1e0"},
	{decl: "float(30)", kind: capture.TypeFloat64, values: []string{"0.1"}, shows: "%s * 1e0"},
	{decl: "double", kind: capture.TypeFloat64, values: []string{"0.1", "1e308", "-0e0", "4.9e-324", "123456789012345680", "2.2250738585072014e-308"}, shows: "%s * 1e0"},
	{decl: "double(8,2)", kind: capture.TypeFloat64, values: []string{"1.25", "123456.785"}, shows: "%s * 1e0"},
	{decl: "date", kind: capture.TypeDate, values: []string{"'2024-02-29'", "'0000-00-00'", "'2024-00-00'", "'2024-01-00'", "'9999-12-31'", "'1000-01-01'", "'0001-01-01'", "'1582-10-10'"}},
	{decl: "datetime", kind: capture.TypeTimestamp, values: []string{"'2024-07-01 12:00:00'", "'0000-00-00'", "'2024-00-05 01:02:03'", "'1969-12-31 23:59:59'"}},
	{decl: "datetime(6)", kind: capture.TypeTimestamp, values: []string{"'2024-07-01 12:00:00.000001'", "'9999-12-31 23:59:59.999999'", "'0000-00-00'", "'1000-01-01 00:00:00'", "'0001-01-01 00:00:00.5'"}},
	{decl: "datetime(3)", kind: capture.TypeTimestamp, values: []string{"'2024-07-01 12:00:00.1'", "'1969-12-31 23:59:59.999'"}},
	{decl: "datetime(1)", kind: capture.TypeTimestamp, values: []string{"'2024-07-01 12:00:00.1'"}},
	{decl: "timestamp null", kind: capture.TypeTimestampTZ, values: []string{"'2024-07-01 12:00:00'", "'0000-00-00'", "'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"}},
	{decl: "timestamp(6) null", kind: capture.TypeTimestampTZ, values: []string{"'2024-07-01 12:00:00.000001'", "'2038-01-19 03:14:07.999999'", "'1970-01-01 00:00:01.000000'", "'0000-00-00'"}},
	{decl: "timestamp(3) null", kind: capture.TypeTimestampTZ, values: []string{"'2100-01-01 00:00:00.123'", "'2106-02-07 06:28:15.999'"}, only: "mariadb-11"},
	{decl: "timestamp(2) null", kind: capture.TypeTimestampTZ, values: []string{"'2024-11-03 06:30:00.12'"}},
	{decl: "time", kind: capture.TypeTime, values: []string{"'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'", "'24:00:00'"}},
	{decl: "time(6)", kind: capture.TypeTime, values: []string{"'838:59:58.999999'", "'-838:59:58.999999'", "'-00:00:00.000001'", "'-01:00:00.5'", "'00:00:00.000001'"}},
	{decl: "time(2)", kind: capture.TypeTime, values: []string{"'-00:00:00.01'", "'12:34:56.50'", "'-00:00:01.10'", "'-12:34:56.99'"}},
	{decl: "time(1)", kind: capture.TypeTime, values: []string{"'-00:00:00.1'", "'-10:00:00.9'"}},
	{decl: "time(3)", kind: capture.TypeTime, values: []string{"'-00:00:00.001'", "'-00:00:59.999'"}},
	{decl: "time(4)", kind: capture.TypeTime, values: []string{"'-00:00:00.0001'", "'100:00:59.9999'"}},
	{decl: "year", kind: capture.TypeYear, values: []string{"1901", "2155", "'0000'", "2000"}},
	{decl: "char(10)", kind: capture.TypeString, values: []string{"'ab  '", "''", "'😀é'", "' x'"}},
	{decl: "char(10) collate utf8mb4_bin", kind: capture.TypeString, values: []string{"'ab  '"}},
	{decl: "char(255)", kind: capture.TypeString, values: []string{"'x'", "repeat('日', 255)"}},
	{decl: "char(100) character set utf8mb3", kind: capture.TypeString, values: []string{"repeat('é', 100)"}},
	{decl: "varchar(10)", kind: capture.TypeString, values: []string{"'ab  '", "''", "'a\\0b'"}},
	{decl: "varchar(300)", kind: capture.TypeString, values: []string{"'ab  '", "'😀'", "repeat('é', 300)"}},
	{decl: "binary(6)", kind: capture.TypeBytes, values: []string{"0x61000000", "0x610061", "''", "'abcdef'"}},
	{decl: "binary(255)", kind: capture.TypeBytes, values: []string{"'x'", "repeat('y', 255)"}},
	{decl: "varbinary(10)", kind: capture.TypeBytes, values: []string{"0xff00fe", "''", "0x6100"}},
	{decl: "varbinary(1000)", kind: capture.TypeBytes, values: []string{"repeat('z', 1000)"}},
	{decl: "tinyblob", kind: capture.TypeBytes, values: []string{"0x01", "''"}},
	{decl: "blob", kind: capture.TypeBytes, values: []string{"0xff00fe"}},
	{decl: "mediumblob", kind: capture.TypeBytes, values: []string{"repeat('x', 70000)"}},
	{decl: "longblob", kind: capture.TypeBytes, values: []string{"''", "'b'"}},
	{decl: "tinytext", kind: capture.TypeString, values: []string{"'é'"}},
	{decl: "text", kind: capture.TypeString, values: []string{"'é😀'", "''"}},
	{decl: "mediumtext character set gbk", kind: capture.TypeString, values: []string{"'中'"}},
	{decl: "longtext character set utf16", kind: capture.TypeString, values: []string{"'a中😀'"}},
	{decl: "char(5) character set latin1", kind: capture.TypeString, values: []string{"'é€ '", "0x81"}},
	{decl: "char(5) character set utf16", kind: capture.TypeString, values: []string{"'a'", "'a  '"}},
	{decl: "char(5) character set utf32", kind: capture.TypeString, values: []string{"'b '"}},
	{decl: "varchar(20) character set latin1", kind: capture.TypeString, values: []string{"'é€'"}},
	{decl: "varchar(20) character set utf16le", kind: capture.TypeString, values: []string{"'a😀'"}},
	{decl: "varchar(20) character set utf32", kind: capture.TypeString, values: []string{"'a😀'"}},
	{decl: "varchar(20) character set ucs2", kind: capture.TypeString, values: []string{"'a中'"}},
	{decl: "varchar(20) character set sjis", kind: capture.TypeString, values: []string{"'日本ｱ'"}},
	{decl: "varchar(20) character set ujis", kind: capture.TypeString, values: []string{"'日本ｱ丂'"}},
	{decl: "varchar(20) character set big5", kind: capture.TypeString, values: []string{"'中'"}},
	{decl: "varchar(20) character set euckr", kind: capture.TypeString, values: []string{"'한국'"}},
	{decl: "varchar(20) character set koi8r", kind: capture.TypeString, values: []string{"'Жя'"}},
	{decl: "varchar(20) character set swe7", kind: capture.TypeString, values: []string{"'Äö'"}},
	{decl: "varchar(20) character set gb18030", kind: capture.TypeString, values: []string{"'中😀'"}, only: "mysql"},
	{decl: "enum('a','b','ü')", kind: capture.TypeEnum, values: []string{"'b'", "'ü'", "'nope'", "1"}},
	{decl: "enum('é','b') character set latin1", kind: capture.TypeEnum, values: []string{"'é'"}},
	{decl: "enum('a\\\\b','c''d','e,f','x\\ny')", kind: capture.TypeEnum, values: []string{"1", "2", "3", "4"}},
	{decl: "set('a','b','c')", kind: capture.TypeSet, values: []string{"'a,c'", "''", "'b'"}},
	{decl: "set('é','中') character set gbk", kind: capture.TypeSet, values: []string{"'中,é'"}},
	{decl: "set(" + numbered(64) + ")", kind: capture.TypeSet, values: []string{"'s0,s63'", "18446744073709551615"}},
	{decl: "set(" + numbered(20) + ")", kind: capture.TypeSet, values: []string{"'s19'"}},
	{decl: "enum(" + numbered(300) + ")", kind: capture.TypeEnum, values: []string{"'s299'", "'s254'", "'s255'"}},
	{decl: "geometry", kind: capture.TypeGeometry, values: []string{geometry("POINT(1 2)"), geometry("POLYGON((0 0,1 0,1 1,0 0))"), geometry("GEOMETRYCOLLECTION EMPTY")}},
	{decl: "point", kind: capture.TypePoint, values: []string{geometry("POINT(1.5 -2)")}},
	{decl: "point srid 4326", kind: capture.TypePoint, values: []string{"ST_GeomFromText('POINT(10 20)', 4326)"}, only: "mysql"},
	{decl: "linestring", kind: capture.TypeGeometry, values: []string{geometry("LINESTRING(0 0,1 1)")}},
	{decl: "multipoint", kind: capture.TypeGeometry, values: []string{geometry("MULTIPOINT(0 0,1 1)")}},
	{decl: "geometrycollection", kind: capture.TypeGeometry, values: []string{geometry("GEOMETRYCOLLECTION(POINT(1 1))")}},
	{decl: "json", kind: capture.TypeJSON, values: jsonValues, only: "mysql"},
	{decl: "json", kind: capture.TypeString, values: []string{"'{\"a\": 1}'"}, only: "mariadb"},
	{decl: "uuid", kind: capture.TypeUUID, only: "mariadb", values: []string{
		"'a0eebc99-9c0b-1ef8-bb6d-6bb9bd380a11'", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380000'", "'00000000-0000-0000-0000-000000000000'", "'00112233-4455-7677-8899-aabbccddee00'",
	}},
	{decl: "inet4", kind: capture.TypeString, values: []string{"'1.2.3.4'", "'10.0.0.0'", "'0.0.0.0'"}, only: "mariadb"},
	{decl: "inet6", kind: capture.TypeString, only: "mariadb", values: []string{
		"'::'", "'::1'", "'::ffff:1.2.3.4'", "'::1.2.3.4'", "'::1:2'", "'::0.1.0.0'", "'::0.0.1.0'", "'2001:db8::'", "'1:0:0:2:0:0:0:3'", "'1:0:0:2:3:0:0:4'", "'1:0:2:3:4:5:6:7'", "'0:2:3:4:5:6:7:8'", "'1:2:3:4:5:6:7:0'", "'::ffff:0:0'", "'::fffe:1.2.3.4'", "'64:ff9b::1.2.3.4'", "'fe80::ABCD'",
	}},
	{decl: "varchar(300) compressed character set latin1", kind: capture.TypeString, values: []string{"repeat('é', 250)", "'é'", "''"}, only: "mariadb"},
	{decl: "varbinary(300) compressed", kind: capture.TypeBytes, values: []string{"repeat('x', 300)", "0x00"}, only: "mariadb"},
	{decl: "blob compressed", kind: capture.TypeBytes, values: []string{"repeat('x', 1000)", "''", "0x00ff"}, only: "mariadb"},
	{decl: "longtext compressed", kind: capture.TypeString, values: []string{"repeat('日', 30000)", "'short'"}, only: "mariadb"},
	{decl: "vector(3)", kind: capture.TypeHalfVector, values: []string{"STRING_TO_VECTOR('[1,2.5,-3]')"}, only: "mysql-9"},
	{decl: "vector(3)", kind: capture.TypeHalfVector, values: []string{"VEC_FromText('[1,2.5,-3]')", "VEC_FromText('[0,0,0]')"}, only: "mariadb-11"},
	{decl: "datetime(2)", kind: capture.TypeTimestamp, values: []string{"'2024-07-01 12:00:00.12'", "'1969-12-31 23:59:59.99'", "'0000-00-00'"}},
	{decl: "datetime(4)", kind: capture.TypeTimestamp, values: []string{"'2024-07-01 12:00:00.1234'", "'1000-01-01 00:00:00.0001'"}},
	{decl: "datetime(5)", kind: capture.TypeTimestamp, values: []string{"'2024-07-01 12:00:00.12345'", "'9999-12-31 23:59:59.99999'"}},
	{decl: "timestamp(1) null", kind: capture.TypeTimestampTZ, values: []string{"'2024-11-03 06:30:00.1'", "'1970-01-01 00:00:01.9'"}},
	{decl: "timestamp(4) null", kind: capture.TypeTimestampTZ, values: []string{"'2024-11-03 06:30:00.1234'", "'2038-01-19 03:14:07.9999'"}},
	{decl: "timestamp(5) null", kind: capture.TypeTimestampTZ, values: []string{"'2024-11-03 06:30:00.12345'", "'0000-00-00'"}},
	{decl: "time(5)", kind: capture.TypeTime, values: []string{"'-00:00:00.00001'", "'838:59:58.99999'", "'-838:59:58.99999'"}},
}

// jsonValues have no number that the server prints with an exponent, and no colon or
// comma before a blank in a string.
var jsonValues = []string{
	`'{"b":1,"a":1.0,"zz":18446744073709551615,"d":1e2,"n":null,"t":true,"f":false,"s":"é😀","x":0.1}'`,
	`'[1,-1,1.5,"x",{"k":[]},{},[[]]]'`, `'null'`, `'true'`, `'9007199254740993'`, `'-9223372036854775808'`, `'3.0'`, `'-0.0'`, `'""'`,
	`'"<&>/\\u0001\\n\\t\\"\\\\\\u007f"'`, `'[32767,32768,-32768,-32769,65535,65536,2147483647,2147483648,-2147483649,4294967296]'`,
	`'[123456789012345.6,0.00001,1e14,999999999999999,1.5e-14,123456.789e3]'`,
	"cast(cast(1.10 as decimal(5,2)) as json)", "cast(cast('-12345678901234567890.123456789' as decimal(40,20)) as json)",
	"cast(date'2024-02-29' as json)", "cast(timestamp'2024-02-29 01:02:03.000004' as json)", "cast(timestamp'2024-02-29 01:02:03' as json)",
	"cast(time'-01:02:03.5' as json)", "cast(time'838:59:59' as json)", "cast(cast('2024-02-29 01:02:03.5' as datetime(6)) as json)",
	"cast(0xff00 as json)", "cast(b'101' as json)", "json_object('p', st_geomfromtext('POINT(1 2)'))", "json_object('aa',1,'b',2,'',3)", "json_object('d', 1.50)",
	"json_array(repeat('x', 70000), 1, 100000, -100000, 1.5, null)", "json_object('k', repeat('é', 200), 'l', repeat('y', 127), 'm', repeat('z', 128))",
	"concat('[', repeat('1,', 9000), '70000]')", "concat('[', repeat('\"abcdef\",', 9000), '70000, 40000, null]')",
	"concat(repeat('[', 99), repeat(']', 99))",
}

func numbered(n int) string {
	var s []string
	for i := range n {
		s = append(s, fmt.Sprintf("'s%d'", i))
	}
	return strings.Join(s, ",")
}

// casesOf are the types that a server has.
func casesOf(name string) []typeCase {
	return slices.DeleteFunc(slices.Clone(typeCases), func(c typeCase) bool { return !strings.HasPrefix(name, c.only) })
}

func TestTypes_LogAndQueryGiveWhatTheServerPrints(t *testing.T) {
	forEachServer(t, func(t *testing.T, l *typeLab) {
		_, name, _ := strings.Cut(t.Name(), "/")
		cases := casesOf(name)
		events := l.log(func() {
			for i, c := range cases {
				l.exec(fmt.Sprintf("CREATE TABLE t%03d (id int PRIMARY KEY, v %s) CHARACTER SET utf8mb4", i, c.decl))
				rows := make([]string, 0, len(c.values)+1)
				for j, v := range append(c.values, "NULL") {
					rows = append(rows, fmt.Sprintf("(%d, %s)", j, v))
				}
				l.exec(fmt.Sprintf("INSERT INTO t%03d VALUES %s", i, strings.Join(rows, ", ")))
			}
		})
		b := capture.NewBatch()
		defer b.Release()
		facts := func(id capture.TableID) *tableFacts { return l.facts(id.Name) }
		rows, err := decodeLog(events, l.mariadb, b, facts)
		if err != nil {
			t.Fatal(err)
		}
		byTable := make(map[string][]loggedRow)
		for _, r := range rows {
			byTable[r.plan.table.ID.Name] = append(byTable[r.plan.table.ID.Name], r)
		}
		for i, c := range cases {
			table := fmt.Sprintf("t%03d", i)
			compareCase(l, c, table, byTable[table], b)
		}
		if *update {
			record(t, name, l, events, rows)
		}
	})
}

func compareCase(l *typeLab, c typeCase, table string, logged []loggedRow, b *capture.Batch) {
	t := l.t
	if len(logged) != len(c.values)+1 {
		t.Errorf("%s: %d rows in the log, want %d", c.decl, len(logged), len(c.values)+1)
		return
	}
	p, err := scanPlan(nil, l.facts(table))
	if err != nil {
		t.Errorf("%s: %v", c.decl, err)
		return
	}
	if !p.table.Equal(logged[0].plan.table) {
		t.Errorf("%s: the log makes %+v and the catalog %+v", c.decl, logged[0].plan.table.Columns, p.table.Columns)
	}
	if got := p.table.Columns[1].Type.Kind; got != c.kind {
		t.Errorf("%s: is of the kind %d, want %d", c.decl, got, c.kind)
	}
	if len(logged[0].plan.drift) > 0 {
		t.Errorf("%s: the catalog describes %v otherwise than the log", c.decl, logged[0].plan.drift)
	}
	l.exec("SET character_set_results = NULL")
	packets := l.packets("SELECT id, " + p.selectExpression(1, "v") + " FROM " + table + " ORDER BY id")
	l.exec("SET character_set_results = utf8mb4")
	shows := c.shows
	if shows == "" {
		shows = showing[c.kind]
	}
	if shows == "" {
		shows = "%s"
	}
	printed := l.cells("SELECT " + strings.ReplaceAll(shows, "%s", "v") + ", v FROM " + table + " ORDER BY id")
	reader := textReader{p: p}
	for i, r := range logged {
		value := "NULL"
		if i < len(c.values) {
			value = c.values[i]
		}
		queried, _, err := reader.row(b, packets[i])
		if err != nil {
			t.Errorf("%s %.60s: %v", c.decl, value, err)
			continue
		}
		v := &r.after[1]
		if string(v.AppendKey(nil)) != string(queried[1].AppendKey(nil)) {
			t.Errorf("%s %.60s: the log has %.80s and a query %.80s", c.decl, value, v.String(), queried[1].String())
		}
		want := "null"
		if printed[i][0] != nil {
			want = *printed[i][0]
		}
		if got := print(v, &p.table.Columns[1].Type); got != want && !(isMissingDate(want) && v.IsNull()) {
			t.Errorf("%s %.60s: the log has %.200s and the server prints %.200s", c.decl, value, got, want)
		}
	}
}

// showing is SQL that prints a value so that it can be compared.
var showing = map[capture.TypeKind]string{
	capture.TypeBytes: "LOWER(HEX(%s))", capture.TypeBool: "%s + 0", capture.TypeBits: "LOWER(HEX(%s + 0))",
	capture.TypeGeometry: "LOWER(HEX(%s))", capture.TypePoint: "LOWER(HEX(%s))", capture.TypeHalfVector: "LOWER(HEX(%s))",
	capture.TypeJSON: "REPLACE(REPLACE(%s, ': ', ':'), ', ', ',')", capture.TypeInt64: "%s + 0", capture.TypeUint64: "%s + 0", capture.TypeYear: "%s + 0",
}

func isMissingDate(s string) bool {
	return len(s) >= 10 && s[4] == '-' && (s[5:7] == "00" || s[8:10] == "00")
}

// print is what the server prints for a value.
func print(v *capture.Value, t *capture.Type) string {
	switch v.Kind() {
	case capture.Null:
		return "null"
	case capture.Bool:
		if v.Bool() {
			return "1"
		}
		return "0"
	case capture.Int:
		return strconv.FormatInt(v.Int(), 10)
	case capture.Uint:
		return strconv.FormatUint(v.Uint(), 10)
	case capture.Float:
		s := strconv.FormatFloat(v.Float(), 'g', -1, 64)
		d, _ := appendJSONDouble(nil, v.Float())
		if f := strings.TrimSuffix(string(d), ".0"); len(f) <= 17 || !strings.Contains(s, "e") {
			return f
		}
		return strings.NewReplacer("e+", "e", "e-0", "e-").Replace(s)
	case capture.Bytes:
		p := slices.Clone(v.Bytes())
		if t.Kind == capture.TypeBits {
			slices.Reverse(p)
			s := strings.TrimLeft(hex.EncodeToString(p), "0")
			return s
		}
		return hex.EncodeToString(p)
	case capture.Geometry:
		srid, ok := v.SRID()
		if !ok {
			srid = 0
		}
		return hex.EncodeToString(append([]byte{byte(srid), byte(srid >> 8), byte(srid >> 16), byte(srid >> 24)}, v.Bytes()...))
	case capture.Date:
		return time.Unix(v.Int()*86400, 0).UTC().Format("2006-01-02")
	case capture.Timestamp, capture.TimestampTZ:
		format := "2006-01-02 15:04:05"
		if t.Scale > 0 {
			format += "." + strings.Repeat("0", t.Scale)
		}
		return time.UnixMicro(v.Int()).UTC().Format(format)
	case capture.Time:
		n, sign := v.Int(), ""
		if n < 0 {
			n, sign = -n, "-"
		}
		s := fmt.Sprintf("%s%02d:%02d:%02d.%06d", sign, n/hour, n/minute%60, n/second%60, n%second)
		if t.Scale == 0 {
			return strings.TrimSuffix(s, ".000000")
		}
		return s[:len(s)-6+t.Scale]
	case capture.Array:
		var p []byte
		for _, e := range v.Elems() {
			p = binary.LittleEndian.AppendUint32(p, math.Float32bits(float32(e.Float())))
		}
		return hex.EncodeToString(p)
	}
	return string(v.Bytes())
}

// record writes events and what they mean to testdata, where tests and fuzzing without a
// server find them.
func record(t *testing.T, name string, l *typeLab, events []loggedEvent, rows []loggedRow) {
	t.Helper()
	writeEvents(t, "types-"+name+".events.zst", events)
	writeTestdata(t, "types-"+name+".txt", []byte(strings.ReplaceAll(transcript(rows), l.db, "db")))
}

// writeEvents writes events for readEvents.
func writeEvents(t *testing.T, name string, events []loggedEvent) {
	t.Helper()
	var log []byte
	for _, e := range events {
		log = append(append(log, eventHeader(e.typ, len(e.body))...), e.body...)
	}
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	writeTestdata(t, name, w.EncodeAll(log, nil))
}

func writeTestdata(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join("testdata", name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// transcript shows rows for a person.
func transcript(rows []loggedRow) string {
	var b strings.Builder
	var last *plan
	for _, r := range rows {
		if r.plan != last {
			last = r.plan
			for _, c := range last.table.Columns {
				fmt.Fprintf(&b, "%s %s\n", c.Name, c.Type.Name)
			}
		}
		fmt.Fprintf(&b, "\t%s", r.op)
		for _, image := range []capture.Row{r.before, r.after} {
			for _, v := range image {
				s := v.String()
				if len(s) > 120 {
					s = fmt.Sprintf("%s… %d", s[:100], len(s))
				}
				fmt.Fprintf(&b, " %s", s)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
