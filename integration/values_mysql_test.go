package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/headwaterdb/headwater/integration/servers"
)

// Renderings for MySQL and MariaDB, in a session of UTC.
var (
	myText  = rendering{`CONVERT(%[1]s USING utf8mb4)`, func(s string) any { return s }}
	myInt   = rendering{`CAST(%[1]s AS SIGNED)`, asInt.read}
	myYear  = rendering{`%[1]s + 0`, asInt.read}
	myBool  = rendering{`%[1]s + 0`, func(s string) any { return s == "1" }}
	myFloat = rendering{`%[1]s + 0e0`, asFloat.read}
	myBytes = rendering{`LOWER(HEX(%[1]s))`, func(s string) any { return "0x" + s }}
	myDate  = rendering{`DATEDIFF(%[1]s, '1970-01-01')`, asInt.read}
	// Whole documents are compared as the server writes them, but for its blanks.
	myJSON = rendering{`REPLACE(REPLACE(CAST(%[1]s AS CHAR), ': ', ':'), ', ', ',')`, func(s string) any { return s }}

	myGeometry = rendering{`CONCAT(LOWER(HEX(ST_AsBinary(%[1]s))), ' ', ST_SRID(%[1]s))`, func(s string) any {
		wkb, srid, _ := strings.Cut(s, " ")
		return rawRecord{{name: "wkb", value: "0x" + wkb}, {name: "srid", value: mySRID(srid)}}
	}}
	myPoint = rendering{`CONCAT(ST_X(%[1]s), ' ', ST_Y(%[1]s), ' ', LOWER(HEX(ST_AsBinary(%[1]s))), ' ', ST_SRID(%[1]s))`, func(s string) any {
		f := strings.Fields(s)
		return rawRecord{{name: "x", value: asFloat.read(f[0])}, {name: "y", value: asFloat.read(f[1])}, {name: "wkb", value: "0x" + f[2]}, {name: "srid", value: mySRID(f[3])}}
	}}
)

// mySRID is the reference system in a record, which has none in place of 0.
func mySRID(s string) any {
	if s == "0" {
		return nil
	}
	return json.Number(s)
}

// myDecimal is for DECIMAL with that scale.
func myDecimal(scale int) rendering { return rendering{`CAST(%[1]s AS CHAR)`, asDecimal(scale).read} }

// myBits is for BIT of so many bytes: the lowest comes first.
func myBits(bytes int) rendering {
	return rendering{`LPAD(HEX(%[1]s + 0), ` + strconv.Itoa(2*bytes) + `, '0')`, func(s string) any {
		b := make([]byte, bytes)
		for i := range b {
			b[bytes-1-i] = byte(mustParse(strconv.ParseUint(s[2*i:2*i+2], 16, 8)))
		}
		return fmt.Sprintf("0x%x", b)
	}}
}

// myDatetime is for DATETIME with up to digits digits of a second.
func myDatetime(digits int) rendering {
	return rendering{`TIMESTAMPDIFF(MICROSECOND, '1970-01-01', %[1]s)`, asMicros(digits).read}
}

// myTime is for TIME, which is in microseconds whatever its digits.
var myTime = rendering{`TIMESTAMPDIFF(MICROSECOND, '2000-01-01', ADDTIME('2000-01-01 00:00:00', %[1]s))`, asInt.read}

// myTimestamp is for TIMESTAMP, which has the digits of its column.
func myTimestamp(digits int) rendering {
	return rendering{`DATE_FORMAT(%[1]s, '%%Y-%%m-%%dT%%H:%%i:%%s.%%f')`, func(s string) any {
		if digits == 0 {
			digits = -1 // no point either
		}
		return s[:len(s)-6+digits] + "Z"
	}}
}

// myVector is for VECTOR, by the function that prints one.
func myVector(print string) rendering {
	return rendering{print + `(%[1]s)`, func(s string) any {
		list := []any{}
		for _, e := range strings.Split(strings.Trim(s, "[]"), ",") {
			list = append(list, rawFloat(mustParse(strconv.ParseFloat(e, 32))))
		}
		return list
	}}
}

// A myColumn is one type: how it is declared, what it is compared with, and values in SQL.
type myColumn struct {
	decl   string
	how    rendering
	values []string
}

var myColumns = []myColumn{
	{"tinyint", myInt, []string{"-128", "127", "0"}},
	{"tinyint unsigned", myInt, []string{"255", "0"}},
	{"tinyint(1)", myInt, []string{"1", "-1"}},
	{"smallint", myInt, []string{"-32768", "32767"}},
	{"smallint unsigned", myInt, []string{"65535"}},
	{"mediumint", myInt, []string{"-8388608", "8388607"}},
	{"mediumint unsigned", myInt, []string{"16777215"}},
	{"int", myInt, []string{"-2147483648", "2147483647"}},
	{"int unsigned", myInt, []string{"4294967295"}},
	{"int(6) zerofill", myInt, []string{"42"}},
	{"bigint", myInt, []string{"-9223372036854775808", "9223372036854775807"}},
	{"bigint unsigned", myInt, []string{"18446744073709551615", "9223372036854775807"}},
	{"decimal(5,2)", myDecimal(2), []string{"-999.99", "1.28", "0"}},
	{"decimal(65,30)", myDecimal(30), []string{"-12345678901234567890123456789012345.123456789012345678901234567890", "0.000000000000000000000000000001"}},
	{"decimal(20,0) unsigned", myDecimal(0), []string{"99999999999999999999"}},
	{"float", myFloat, []string{"0.1", "-3.4e38", "1e-38", "16777216"}},
	{"double", myFloat, []string{"0.1", "-1.7976931348623157e308", "2.2250738585072014e-308", "123456789.123456789"}},
	{"bit(1)", myBool, []string{"1", "0"}},
	{"bit(8)", myBits(1), []string{"b'10000001'", "0"}},
	{"bit(12)", myBits(2), []string{"b'101000000001'", "1"}},
	{"bit(64)", myBits(8), []string{"18446744073709551614", "1"}},
	{"date", myDate, []string{"'1000-01-01'", "'9999-12-31'", "'1969-12-31'", "'2024-02-29'"}},
	{"datetime", myDatetime(0), []string{"'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'1969-12-31 23:59:59'"}},
	{"datetime(3)", myDatetime(3), []string{"'1969-12-31 23:59:59.999'", "'2024-02-29 12:34:56.789'"}},
	{"datetime(6)", myDatetime(6), []string{"'1969-12-31 23:59:59.999999'", "'9999-12-31 23:59:59.999999'"}},
	{"timestamp NULL", myTimestamp(0), []string{"'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"}},
	{"timestamp(2) NULL", myTimestamp(2), []string{"'2024-02-29 12:34:56.70'", "'2024-02-29 12:34:56'"}},
	{"timestamp(6) NULL", myTimestamp(6), []string{"'2024-02-29 12:34:56.789012'", "'1970-01-01 00:00:01.000001'"}},
	{"time", myTime, []string{"'-838:59:59'", "'838:59:59'", "'00:00:00'"}},
	{"time(3)", myTime, []string{"'-00:00:00.001'", "'12:34:56.789'"}},
	{"time(6)", myTime, []string{"'-01:02:03.000004'", "'23:59:59.999999'"}},
	{"year", myYear, []string{"1901", "2155", "0"}},
	{"char(10)", myText, []string{"'ab  '", "''", "'😀é'"}},
	{"varchar(20)", myText, []string{"'ab  '", "'日本😀'", `'a\0b'`}},
	{"varchar(20) CHARACTER SET latin1", myText, []string{"'é€'", "''"}},
	{"varchar(20) CHARACTER SET utf16", myText, []string{"'日本😀'"}},
	{"varchar(20) CHARACTER SET sjis", myText, []string{"'日本ｱ'"}},
	{"tinytext", myText, []string{"'é'"}},
	{"longtext", myText, []string{"repeat('日', 30000)", "''"}},
	{"text CHARACTER SET gbk", myText, []string{"'中文'"}},
	{"binary(4)", myBytes, []string{"0x61000000", "'abcd'", "''"}},
	{"varbinary(10)", myBytes, []string{"0x00ff00fe", "''", "0x6100"}},
	{"blob", myBytes, []string{"0xff00fe", "''"}},
	{"longblob", myBytes, []string{"repeat('x', 70000)"}},
	{"enum('a','b','ü')", myText, []string{"'ü'", "1"}},
	{"set('a','b','ü')", myText, []string{"1", "5", "''"}},
	{"point", myPoint, []string{"ST_GeomFromText('POINT(1.5 -2)')"}},
	{"geometry", myGeometry, []string{"ST_GeomFromText('LINESTRING(0 0,1 1.25)')", "ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')"}},
	{"multipoint", myGeometry, []string{"ST_GeomFromText('MULTIPOINT(0 0,1 1)')"}},
}

// Types that one of the two has.
var (
	onlyMySQL = []myColumn{
		{"json", myJSON, []string{`'{"b":[1,-1.5,true,null,"é😀"],"a":{}}'`, `'9007199254740993'`, `'"x"'`}},
		{"vector(3)", myVector("VECTOR_TO_STRING"), []string{"STRING_TO_VECTOR('[1,2.5,-3]')"}},
	}
	onlyMariaDB = []myColumn{
		{"json", myText, []string{`'{"b": [1, 2],  "a": {}}'`}},
		{"uuid", myText, []string{"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'"}},
		{"inet4", myText, []string{"'10.0.0.1'"}},
		{"inet6", myText, []string{"'2001:db8::1'", "'::ffff:1.2.3.4'"}},
		{"longtext COMPRESSED", myText, []string{"repeat('日', 3000)", "'short'"}},
		{"vector(3)", myVector("VEC_ToText"), []string{"VEC_FromText('[1,2.5,-3]')"}},
	}
)

// TestValues_OfMySQLAreWhatTheServerPrints carries a table of all types through the whole
// program, rows that the snapshot reads and the same ones from the log, and compares what the
// topic holds with what the server prints by its own functions.
func TestValues_OfMySQLAreWhatTheServerPrints(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func() *servers.MySQL{
		"MySQL":   func() *servers.MySQL { return servers.Shared(t).MySQL("9") },
		"MariaDB": func() *servers.MySQL { return servers.Shared(t).MariaDB("11") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkValuesMySQL(t, start())
		})
	}
}

func checkValuesMySQL(t *testing.T, db *servers.MySQL) {
	ctx := t.Context()
	columns := slices.Concat(myColumns, onlyMySQL)
	if db.Flavor == mysql.MariaDBFlavor {
		columns = slices.Concat(myColumns, onlyMariaDB)
	}
	database := db.Database(t)
	conn, err := db.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Quit()
	declared, rows := []string{"id int PRIMARY KEY"}, 1 // the last is all NULL
	for i, c := range columns {
		declared = append(declared, fmt.Sprintf("c%d %s", i, c.decl))
		rows = max(rows, len(c.values)+1)
	}
	runMySQL(t, conn, "SET NAMES utf8mb4", "SET time_zone = '+00:00', sql_mode = ''",
		"CREATE TABLE everything ("+strings.Join(declared, ", ")+") CHARACTER SET utf8mb4")
	insert := func(from int) {
		for n := range rows {
			values := []string{strconv.Itoa(from + n)}
			for _, c := range columns {
				v := "NULL"
				if n < rows-1 {
					v = c.values[n%len(c.values)]
				}
				values = append(values, v)
			}
			runMySQL(t, conn, "INSERT INTO everything VALUES ("+strings.Join(values, ", ")+")")
		}
	}
	source := fmt.Sprintf("mysql: {url: %q}", strings.TrimSuffix(db.URL(""), "/"))
	read := readTwice(t, "values-"+strings.ToLower(db.Flavor), source, database+".everything", rows, len(columns)+1, insert)
	for n, row := range read {
		for i, c := range columns {
			got := row[i+1]
			want, err := serverValueMySQL(conn, c.how, got.name, rawInt(row[0].value))
			if err != nil {
				t.Errorf("%s: %v", c.decl, err)
			} else if text := goldenText(got.value); text != want {
				t.Errorf("record %d, %s: the topic says %s, the server %s", n, c.decl, clip(text), clip(want))
			}
			if n >= rows && got.bytes != read[n-rows][i+1].bytes {
				t.Errorf("record %d, %s: %s from the log, %s from the snapshot", n, c.decl, clip(goldenText(got.value)), clip(goldenText(read[n-rows][i+1].value)))
			}
		}
	}
}

// readTwice carries as many rows of a table to Kafka by a snapshot as then by the log, and
// returns them in this order.
func readTwice(t *testing.T, prefix, source, table string, rows, width int, insert func(from int)) (read []rawRecord) {
	t.Helper()
	insert(0)
	kafka, registry := servers.Shared(t).Kafka(), servers.Shared(t).Registry()
	p := newPipeline(t, fmt.Sprintf(`
name: %[1]s
source:
  %[2]s
tables: {include: [%[3]q]}
topics: {prefix: %[1]s, partitions: 1, replication: 1}
registry: {url: %[4]q}
kafka: {brokers: [%[5]q]}
`, prefix, source, table, registry.URL, kafka.Bootstrap[0]))
	p.start("run")
	reader := newGoldenReader(t, kafka.Bootstrap, registry.URL)
	await := func(want int) {
		t.Helper()
		waitFor(t, p, 4*time.Minute, fmt.Sprintf("%d records", want), func() (bool, error) {
			n := 0
			err := reader.each(t.Context(), prefix, func(*kgo.Record) error { n++; return nil })
			return n >= want, err
		})
	}
	await(rows)
	insert(1000)
	await(2 * rows)
	p.stop()

	topic := reader.readGolden(t.Context(), prefix)[prefix+"."+table]
	if topic == nil || len(topic.records) != 2*rows {
		t.Fatalf("the topic has not the %d records that it should have", 2*rows)
	}
	for n, r := range topic.records {
		v := r.value.(rawRecord)
		row, _ := v.get("after").(rawRecord)
		if op := map[bool]string{true: "r", false: "c"}[n < rows]; v.get("op") != op || len(row) != width {
			t.Fatalf("record %d is %v with %d columns, want %s with %d", n, v.get("op"), len(row), op, width)
		}
		read = append(read, row)
	}
	return read
}

// serverValueMySQL asks the server for a column.
func serverValueMySQL(conn *client.Conn, how rendering, column string, id int64) (string, error) {
	r, err := conn.Execute(fmt.Sprintf("SELECT %s FROM everything WHERE id = %d", fmt.Sprintf(how.sql, column), id))
	if err != nil {
		return "", err
	}
	if null, err := r.IsNull(0, 0); err != nil || null {
		return "null", err
	}
	text, err := r.GetString(0, 0)
	if err != nil {
		return "", err
	}
	return goldenText(how.read(text)), nil
}

func runMySQL(t *testing.T, conn *client.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Execute(sql); err != nil {
			t.Fatalf("%s: %v", clip(sql), err)
		}
	}
}
