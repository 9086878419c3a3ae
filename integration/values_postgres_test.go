package integration

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/integration/servers"
)

// Renderings that the recorded tables have no need of.
var (
	pgBit   = rendering{`(%[1]s)::text`, func(s string) any { return s == "1" }}
	pgBytes = rendering{`encode(%[1]s, 'hex')`, func(s string) any { return "0x" + s }}
	pgMoney = rendering{`(%[1]s)::numeric::text`, asDecimal(2).read}
	// Keys in the server's order.
	pgHstore = rendering{`(SELECT '{' || coalesce(string_agg(to_json(key) || ':' || coalesce(to_json(value)::text, 'null'), ','), '') || '}' FROM each(%[1]s))`, asText.read}
	// A month counts 30.4375 days.
	pgInterval = rendering{`((extract(year FROM %[1]s) * 12 + extract(month FROM %[1]s))::numeric * 2629800000000 + extract(day FROM %[1]s)::numeric * 86400000000
		+ extract(hour FROM %[1]s)::numeric * 3600000000 + extract(minute FROM %[1]s)::numeric * 60000000 + extract(microseconds FROM %[1]s)::numeric)::numeric(30)::text`, asInt.read}
	pgNumeric = rendering{`(%[1]s)::text`, func(s string) any {
		whole, fraction, _ := strings.Cut(s, ".")
		fraction = strings.TrimRight(fraction, "0")
		n, ok := new(big.Int).SetString(whole+fraction, 10)
		if !ok {
			return nil // NaN, and the infinities
		}
		return rawRecord{{name: "scale", value: json.Number(strconv.Itoa(len(fraction)))}, {name: "value", value: fmt.Sprintf("0x%x", twosComplement(n))}}
	}}
)

// A pgColumn is one type: how it is declared, what it is compared with, whether its
// arrays are mapped, and values as text.
type pgColumn struct {
	decl   string
	how    rendering
	arrays bool
	values []string
}

// pgColumns are those that the recorded tables lack.
var pgColumns = []pgColumn{
	{"smallint", asInt, true, []string{"-32768", "32767", "0"}},
	{"bigint", asInt, true, []string{"-9223372036854775808", "9223372036854775807"}},
	{"double precision", asFloat, true, []string{"0.1", "-1.7976931348623157e308", "5e-324", "NaN", "-Infinity"}},
	{"numeric", pgNumeric, true, []string{"1.10", "100", "-123456789012345678901234567890.0987654321", "0.0", "1e-30", "NaN"}},
	{"numeric(10)", asDecimal(0), true, []string{"-1234567890", "5"}},
	{"own.amount", asDecimal(2), false, []string{"1.5", "-99999999.99"}},
	{"money", pgMoney, false, []string{"-92233720368547758.08", "1234567.89", "0"}},
	{"bit(1)", pgBit, true, []string{"1", "0"}},
	{"bit(12)", asBits, true, []string{"101000000001", "000000000001"}},
	{"varbit", asBits, false, []string{"1000000000", "1", ""}},
	{"text", asText, true, []string{"it's \"q\" \\ {x,NULL}", "", "日本 😀", "NULL"}},
	{"own.mood", asText, true, []string{"very, happy", "sad"}},
	{"own.feeling", asText, false, []string{"ok"}},
	{"bytea", pgBytes, true, []string{`\x00ff5c22`, ``}},
	{"json", asText, true, []string{`{"b": 1,  "a":[1,2.50,null]}`, "null"}},
	{"xml", asText, false, []string{`<a b="c">d &amp; é</a>`}},
	{"cidr", asText, true, []string{"10.0.0.0/8", "2001:db8::/32"}},
	{"macaddr", asText, true, []string{"08:00:2b:01:02:03"}},
	{"inet", asText, true, []string{"10.0.0.1", "10.0.0.1/8", "::1/64"}},
	{"tsvector", asText, true, []string{`'a':1A 'fat':2B,4C 'it''s':5`}},
	{"hstore", pgHstore, true, []string{`a=>1, b=>NULL, "c d"=>"NULL", "q\"\\"=>"x, y=>z", ""=>""`, ``}},
	{"numrange", asText, true, []string{"(,5.50]", "empty"}},
	{"tsrange", asText, true, []string{"[2024-01-01 00:00,)"}},
	{"daterange", asText, true, []string{"[2019-03-31,2019-04-30)"}},
	{"time(0)", asMicros(0), true, []string{"24:00:00", "01:02:03.5"}},
	{"timestamp(0)", asMicros(0), true, []string{"2024-02-29 12:34:56.7", "0044-03-15 12:00:00 BC", "-infinity"}},
	{"timestamptz(0)", asTimestampTZ(0), true, []string{"2024-06-01 00:00:00+14", "infinity", "10000-01-01 00:00:00+00"}},
	{"interval", pgInterval, false, []string{"1 year 2 mons -3 days 04:05:06.789", "-1 mon", "-00:00:00.000001", "11 mons 999 days"}},
	{"box", asText, false, []string{"(1,2),(3,4)"}},
	{"polygon", asText, false, []string{"((1,2),(3,4))"}},
	{"own.pair", asText, false, []string{`(1,"a b")`}},
	{"jsonpath", asText, false, []string{"$.a"}},
}

// pgColumnsSince are types that older servers do not have.
var pgColumnsSince = []pgColumn{
	{"numeric(5,-2)", asDecimal(0), true, []string{"12345", "-9999900"}},
	{"int8multirange", asText, false, []string{"{[1,3),[5,)}", "{}"}},
}

// TestValues_OfPostgreSQLAreWhatTheServerPrints carries a table of all other types through
// the whole program, rows that the snapshot reads and the same ones from the log, and
// compares what the topic holds with what the server prints by its own functions.
func TestValues_OfPostgreSQLAreWhatTheServerPrints(t *testing.T) {
	t.Parallel()
	for version, columns := range map[string][]pgColumn{"13": pgColumns, "18": slices.Concat(pgColumns, pgColumnsSince)} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			checkValuesPostgres(t, servers.Shared(t).Postgres(version).Database(t), "values-postgresql-"+version, columns)
		})
	}
}

func checkValuesPostgres(t *testing.T, url, prefix string, columns []pgColumn) {
	conn := connect(t, url)
	mustExec(t, conn, `CREATE EXTENSION hstore; CREATE SCHEMA own; CREATE DOMAIN own.amount AS numeric(10,2); CREATE TYPE own.pair AS (a int, b text);
		CREATE TYPE own.mood AS ENUM ('sad', 'ok', 'very, happy'); CREATE DOMAIN own.feeling AS own.mood`)
	declared, rows := []string{"id int PRIMARY KEY"}, 1 // the last is all NULL
	for i, c := range columns {
		declared = append(declared, fmt.Sprintf("c%d %s, a%[1]d %[2]s[]", i, c.decl))
		rows = max(rows, len(c.values)+1)
	}
	mustExec(t, conn, "CREATE TABLE own.everything ("+strings.Join(declared, ", ")+")")
	insert := func(from int) {
		for n := range rows {
			values := []string{strconv.Itoa(from + n)}
			for _, c := range columns {
				one, many := "NULL", "NULL"
				if n < rows-1 {
					text := "'" + strings.ReplaceAll(c.values[n%len(c.values)], "'", "''") + "'"
					one, many = text+"::"+c.decl, fmt.Sprintf("ARRAY[%s, NULL, %[1]s]::text[]::%s[]", text, c.decl)
				}
				values = append(values, one, many)
			}
			mustExec(t, conn, "INSERT INTO own.everything VALUES ("+strings.Join(values, ", ")+")")
		}
	}
	read := readTwice(t, prefix, fmt.Sprintf("postgres: {url: %q}", url), "own.everything", rows, 2*len(columns)+1, insert)
	for n, row := range read {
		for i := range row[1:] {
			c, got, how := &columns[i/2], row[i+1], columns[i/2].how
			if array := i%2 == 1; array && !c.arrays {
				how = asText // the array as the server prints it
			} else if _, list := got.value.([]any); list != array && got.value != nil {
				t.Errorf("record %d, %s %s: the topic has %s", n, c.decl, got.name, clip(goldenText(got.value)))
				continue
			}
			want, err := serverValue(t, conn, "everything", got, rawInt(row[0].value), how)
			if err != nil {
				t.Errorf("%s: %v", c.decl, err)
			} else if text := goldenText(got.value); text != want {
				t.Errorf("record %d, %s %s: the topic says %s, the server %s", n, c.decl, got.name, clip(text), clip(want))
			}
			if n >= rows && got.bytes != read[n-rows][i+1].bytes {
				t.Errorf("record %d, %s %s: %s from the log, %s from the snapshot", n, c.decl, got.name, clip(goldenText(got.value)), clip(goldenText(read[n-rows][i+1].value)))
			}
		}
	}
}
