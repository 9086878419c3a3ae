package integration

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// isTypeTable picks the tables that have one type in all columns but the key.
func isTypeTable(topic string) (table string, ok bool) {
	table = topic[strings.LastIndexByte(topic, '.')+1:]
	return table, strings.HasPrefix(table, "t_")
}

// checkBothPaths compares row k, which the snapshot read, with row k + 1000, which came
// from the log and was written by the same statement.
func checkBothPaths(t *testing.T, ours map[string]*goldenTopic) {
	compared := 0
	for topic, o := range ours {
		if _, ok := isTypeTable(topic); !ok {
			continue
		}
		read := map[int64]rawRecord{}
		for _, r := range o.records {
			v, ok := r.value.(rawRecord)
			if !ok {
				continue
			}
			id := rawInt(r.key.(rawRecord).get("id"))
			row, _ := v.get("after").(rawRecord)
			switch v.get("op") {
			case "r":
				read[id] = row
			case "c":
				twin := read[id-1000]
				if len(twin) != len(row) {
					t.Errorf("%s, row %d: %d columns from the log, %d from the snapshot", topic, id, len(row), len(twin))
					continue
				}
				for i := range row {
					if row[i].name != "id" && row[i].bytes != twin[i].bytes {
						t.Errorf("%s, row %d, %s: %s from the log, %s from the snapshot", topic, id, row[i].name, goldenText(row[i].value), goldenText(twin[i].value))
					}
					compared++
				}
			}
		}
	}
	if compared < 500 {
		t.Errorf("%d values compared, which proves too little", compared)
	}
}

// wholeOldRows lists the tables whose log repeats old rows whole.
func wholeOldRows(t *testing.T, conn *pgx.Conn) (tables []string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT array_agg(relname::text) FROM pg_class WHERE relreplident = 'f'").Scan(&tables); err != nil {
		t.Fatal(err)
	}
	return tables
}

// checkBefore compares the old rows that the log repeats whole with what the topic said
// of them before, byte for byte. full lists the tables; nil is all.
func checkBefore(t *testing.T, ours map[string]*goldenTopic, full []string) {
	compared := 0
	for topic, o := range ours {
		table, ok := isTypeTable(topic)
		if !ok || full != nil && !slices.Contains(full, table) {
			continue
		}
		last := map[int64]rawRecord{}
		for n, r := range o.records {
			v, ok := r.value.(rawRecord)
			if !ok {
				continue
			}
			id := rawInt(r.key.(rawRecord).get("id"))
			before, _ := v.get("before").(rawRecord)
			if op := v.get("op"); (op == "u" || op == "d") && len(before) != len(last[id]) {
				t.Errorf("%s, %s: the old row has %d columns, want %d", topic, r.label(n), len(before), len(last[id]))
				continue
			}
			for i, f := range before {
				if f.bytes != last[id][i].bytes {
					t.Errorf("%s, %s, %s: the old row has %s, it had %s", topic, r.label(n), f.name, goldenText(f.value), goldenText(last[id][i].value))
				}
				compared++
			}
			last[id], _ = v.get("after").(rawRecord)
		}
	}
	if compared < 100 {
		t.Errorf("%d values compared, which proves too little", compared)
	}
}

// A rendering is a way to the form of a value that does not go through our decoder: an
// SQL expression over %[1]s, and what its text means in a record.
type rendering struct {
	sql  string
	read func(text string) any
}

// What the server prints by the type's own output function.
const printed = `format('%%s', %[1]s)`

var (
	asText  = rendering{printed, func(s string) any { return s }}
	asInt   = rendering{printed, func(s string) any { return json.Number(s) }}
	asBool  = rendering{`(%[1]s)::text`, func(s string) any { return s == "true" }}
	asFloat = rendering{`(%[1]s)::float8::text`, func(s string) any { return rawFloat(mustParse(strconv.ParseFloat(s, 64))) }}
	asBits  = rendering{`(%[1]s)::text`, bits}
	asPoint = rendering{`(%[1]s)[0]::text || ' ' || (%[1]s)[1]::text`, point}
	asDate  = rendering{`CASE WHEN isfinite(%[1]s) THEN (%[1]s - date '1970-01-01')::text ELSE (%[1]s)::text END`, func(s string) any {
		return json.Number(strings.NewReplacer("-infinity", "-2147472691", "infinity", "-2147472692").Replace(s))
	}}
	asInterval = rendering{`(extract(epoch FROM %[1]s) * 1000000)::numeric(30)::text`, func(s string) any { return json.Number(s) }}
	// Any date but that of a leap second will do: only the time of day remains.
	asTimeTZ = rendering{`to_char((date '2000-01-03' + %[1]s) AT TIME ZONE 'UTC', 'HH24:MI:SS.US')`, func(s string) any {
		return strings.TrimSuffix(strings.TrimRight(s, "0"), ".") + "Z"
	}}
)

func asDecimal(scale int) rendering {
	return rendering{`(%[1]s)::text`, func(s string) any {
		r, ok := new(big.Rat).SetString(s)
		if !ok {
			return nil // NaN
		}
		r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)))
		if !r.IsInt() {
			return "more digits than the scale: " + s
		}
		return fmt.Sprintf("0x%x", twosComplement(r.Num()))
	}}
}

// asMicros is for times and timestamps with up to digits digits of a second.
func asMicros(digits int) rendering {
	unit := int64(1)
	if digits <= 3 {
		unit = 1000
	}
	return rendering{`CASE WHEN (%[1]s)::text LIKE '%%infinity' THEN (%[1]s)::text ELSE (extract(epoch FROM %[1]s) * 1000000)::numeric(30)::text END`, func(s string) any {
		switch s {
		case "infinity":
			return json.Number(strconv.FormatInt(9223372036825200000/unit, 10))
		case "-infinity":
			return json.Number(strconv.FormatInt(-9223372036832400000/unit, 10))
		}
		n, ok := new(big.Int).SetString(s, 10)
		if !ok {
			return "not a number: " + s
		}
		// The limit itself stands for the infinity until it is written.
		if limit := big.NewInt(math.MaxInt64 - 1); n.Cmp(limit) > 0 {
			n = limit
		}
		// Div rounds down for a positive divisor.
		return json.Number(n.Div(n, big.NewInt(unit)).String())
	}}
}

func asTimestampTZ(digits int) rendering {
	const utc = `%[1]s AT TIME ZONE 'UTC'`
	return rendering{`CASE WHEN isfinite(%[1]s) THEN extract(year FROM ` + utc + `)::text || to_char(` + utc + `, ' MM-DD"T"HH24:MI:SS.US') ELSE (%[1]s)::text END`, func(s string) any {
		year, rest, finite := strings.Cut(s, " ")
		if !finite {
			return s
		}
		y := mustParse(strconv.Atoi(year))
		if y < 0 {
			y++ // 1 BC is year 0
		}
		switch year = fmt.Sprintf("%04d", y); {
		case y < 0:
			year = fmt.Sprintf("-%04d", -y)
		case y > 9999:
			year = "+" + year
		}
		if digits == 0 {
			digits = -1 // no point either
		}
		return year + "-" + rest[:len(rest)-6+digits] + "Z"
	}}
}

var renderings = map[string]rendering{
	"t_int4": asInt, "t_oid": asInt, "t_domain_int": asInt, "t_domain_arr": asInt,
	"t_num_5_2": asDecimal(2), "t_num_3_5": asDecimal(5), "t_num_1000": asDecimal(500),
	"t_float4": asFloat, "t_bool": asBool, "t_point": asPoint,
	"t_bit8": asBits, "t_bit64": asBits, "t_varbit16": asBits,
	"t_date": asDate, "t_timetz": asTimeTZ, "t_interval_d3": asInterval,
	"t_time": asMicros(6), "t_time1": asMicros(1), "t_time3": asMicros(3), "t_time5": asMicros(5),
	"t_ts": asMicros(6), "t_ts1": asMicros(1), "t_ts3": asMicros(3), "t_ts5": asMicros(5),
	"t_tstz": asTimestampTZ(6), "t_tstz3": asTimestampTZ(3),
}

// checkServerValues compares the last record of every row with what the server says of
// the row, elements of arrays included.
func checkServerValues(t *testing.T, conn *pgx.Conn, ours map[string]*goldenTopic) {
	compared := 0
	for topic, o := range ours {
		table, ok := isTypeTable(topic)
		if !ok {
			continue
		}
		how, ok := renderings[table]
		if !ok {
			how = asText
		}
		last := map[int64]rawRecord{}
		for _, r := range o.records {
			id := rawInt(r.key.(rawRecord).get("id"))
			delete(last, id)
			if v, ok := r.value.(rawRecord); ok {
				if row, ok := v.get("after").(rawRecord); ok {
					last[id] = row
				}
			}
		}
		var held []int64
		if err := conn.QueryRow(t.Context(), "SELECT array_agg(id ORDER BY id) FROM own."+table).Scan(&held); err != nil {
			t.Fatal(err)
		}
		if len(held) != len(last) {
			t.Errorf("%s: the table has %d rows, the topic %d", topic, len(held), len(last))
		}
		for _, id := range held {
			for _, f := range last[id] {
				if f.name == "id" {
					continue
				}
				compared++
				want, err := serverValue(t, conn, table, f, id, how)
				if err != nil {
					t.Errorf("%s, row %d, %s: %v", topic, id, f.name, err)
				} else if got := goldenText(f.value); got != want {
					t.Errorf("%s, row %d, %s: the topic says %s, the server %s", topic, id, f.name, clip(got), clip(want))
				}
			}
		}
	}
	if compared < 1000 {
		t.Errorf("%d values compared, which proves too little", compared)
	}
}

// serverValue asks the server for a column. A column that is an array in the record is
// taken element by element, in row-major order.
func serverValue(t *testing.T, conn *pgx.Conn, table string, f rawValue, id int64, how rendering) (string, error) {
	t.Helper()
	_, isArray := f.value.([]any)
	_, isText := f.value.(string)
	if isText && f.name == "a" {
		how = asText // an array without a mapping: its text
	}
	query := fmt.Sprintf(`SELECT CASE WHEN %[1]s IS NOT NULL THEN ARRAY[%[2]s] END FROM own.%[3]s WHERE id = %[4]d`, f.name, fmt.Sprintf(how.sql, f.name), table, id)
	switch {
	case isArray:
		query = fmt.Sprintf(`SELECT CASE WHEN %[1]s IS NOT NULL THEN ARRAY(SELECT CASE WHEN e IS NOT NULL THEN %[2]s END
			FROM unnest(%[1]s) WITH ORDINALITY AS u (e, n) ORDER BY n) END FROM own.%[3]s WHERE id = %[4]d`, f.name, fmt.Sprintf(how.sql, "e"), table, id)
	case f.value == nil:
		query = fmt.Sprintf(`SELECT CASE WHEN %[1]s IS NOT NULL THEN ARRAY[(%[1]s)::text] END FROM own.%[2]s WHERE id = %[3]d`, f.name, table, id)
	}
	var parts []*string
	if err := conn.QueryRow(t.Context(), query).Scan(&parts); err != nil {
		return "", err
	}
	if parts == nil {
		return "null", nil
	}
	values := []any{}
	for _, p := range parts {
		if p == nil {
			values = append(values, nil)
		} else {
			values = append(values, how.read(*p))
		}
	}
	if isArray {
		return goldenText(values), nil
	}
	return goldenText(values[0]), nil
}

// bits is the little-endian number that a text of zeros and ones is, without zero bytes
// at its high end.
func bits(s string) any {
	n, ok := new(big.Int).SetString(s, 2)
	if !ok && s != "" {
		return "not bits: " + s
	}
	if !ok {
		n = new(big.Int)
	}
	b := n.Bytes()
	slices.Reverse(b)
	return fmt.Sprintf("0x%x", b)
}

func point(s string) any {
	xs, ys, _ := strings.Cut(s, " ")
	x, y := mustParse(strconv.ParseFloat(xs, 64)), mustParse(strconv.ParseFloat(ys, 64))
	wkb := binary.LittleEndian.AppendUint32([]byte{1}, 1)
	for _, c := range []float64{x, y} {
		bits := math.Float64bits(c)
		if math.IsNaN(c) {
			bits = 0x7ff8000000000000 // the one that every server and Java write
		}
		wkb = binary.LittleEndian.AppendUint64(wkb, bits)
	}
	return rawRecord{{name: "x", value: rawFloat(x)}, {name: "y", value: rawFloat(y)}, {name: "wkb", value: fmt.Sprintf("0x%x", wkb)}, {name: "srid"}}
}

// twosComplement is the shortest big-endian form of a number, as Java writes it.
func twosComplement(n *big.Int) []byte {
	if n.Sign() >= 0 {
		b := n.Bytes()
		if len(b) == 0 || b[0] > 127 {
			b = append([]byte{0}, b...)
		}
		return b
	}
	bytes := (new(big.Int).Not(n).BitLen() + 8) / 8
	return new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), uint(8*bytes))).FillBytes(make([]byte, bytes))
}

func mustParse[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestRenderings_MatchKnownValues(t *testing.T) {
	for _, c := range []struct {
		how        rendering
		text, want string
	}{
		{asDecimal(2), "-1.28", `"0x80"`},
		{asDecimal(2), "1.28", `"0x0080"`},
		{asDecimal(2), "0", `"0x00"`},
		{asDecimal(2), "-2.56", `"0xff00"`},
		{asDecimal(2), "-2.57", `"0xfeff"`},
		{asDecimal(2), "NaN", `null`},
		{asDate, "-infinity", `-2147472691`},
		{asMicros(6), "infinity", `9223372036825200000`},
		{asMicros(6), "9224318015999999999", `9223372036854775806`},
		{asMicros(3), "-1", `-1`},
		{asMicros(3), "1999", `1`},
		{asTimestampTZ(3), "-44 03-15T12:00:00.123456", `"-0043-03-15T12:00:00.123Z"`},
		{asTimestampTZ(0), "-1 03-15T12:00:00.123456", `"0000-03-15T12:00:00Z"`},
		{asTimestampTZ(6), "12024 03-15T12:00:00.100000", `"+12024-03-15T12:00:00.100000Z"`},
		{asTimeTZ, "18:30:00.000000", `"18:30:00Z"`},
		{asTimeTZ, "18:30:00.120000", `"18:30:00.12Z"`},
		{asBits, "0000000100000010", `"0x0201"`},
		{asBits, "0000000000000010", `"0x02"`},
		{asBits, "", `"0x"`},
		{asFloat, "-0", `-0.0`},
		{asPoint, "1.5 NaN", `{"x":1.5,"y":"NaN","wkb":"0x0101000000000000000000f83f000000000000f87f","srid":null}`},
	} {
		if got := goldenText(c.how.read(c.text)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.text, got, c.want)
		}
	}
}
