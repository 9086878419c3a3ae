package mysql

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/headwaterdb/headwater/capture"
)

func TestJSON_NumbersHaveNoExponent(t *testing.T) {
	for _, c := range []struct {
		f    float64
		want string
	}{
		{0, "0.0"},
		{math.Copysign(0, -1), "-0.0"},
		{1, "1.0"},
		{0.1, "0.1"},
		{1e14, "100000000000000.0"},
		{1e15, "1000000000000000"},
		{1.8446744073709552e19, "18446744073709551616"},
		{-1e22, "-10000000000000000000000"},
		{1e100, "10000000000000000159028911097599180468360808563945281389781327557747838772170381060813469985856815104"},
		{1e-14, "0.00000000000001"},
		{1e-15, "0.000000000000001"},
		{1e-16, "0.00000000000000009999999999999999790977867240346035618411149408467364363417573258630000054836273193359375"},
		{1234567891234567.75, "1234567891234567.8"},
		{math.SmallestNonzeroFloat64, new(big.Float).SetPrec(1074).SetFloat64(math.SmallestNonzeroFloat64).Text('f', 1074)},
		{math.MaxFloat64, new(big.Float).SetFloat64(math.MaxFloat64).Text('f', 0)},
	} {
		got, err := appendJSONDouble(nil, c.f)
		if err != nil || string(got) != c.want {
			t.Errorf("%g is %s (%v), want %s", c.f, got, err, c.want)
		}
		if back, ok := new(big.Float).SetPrec(2000).SetString(string(got)); !ok {
			t.Errorf("%s is no number", got)
		} else if f, _ := back.Float64(); f != c.f {
			t.Errorf("%s gives %g back, want %g", got, f, c.f)
		}
	}
}

// TestJSON_DoublesAreWhatTheServerPrints compares where an exponent begins, and the
// digits before that.
func TestJSON_DoublesAreWhatTheServerPrints(t *testing.T) {
	forMySQL(t, func(t *testing.T, l *typeLab) {
		l.exec("CREATE TABLE d (id int PRIMARY KEY, v json)")
		r := rand.New(rand.NewPCG(1, 2))
		var values []string
		for e := -20; e < 25; e++ {
			for _, m := range []string{"1", "9.999999999999999", "1.5", "123456789.12345678"} {
				values = append(values, fmt.Sprintf("%se%d", m, e))
			}
		}
		for range 500 {
			f := math.Float64frombits(r.Uint64())
			if math.IsNaN(f) || math.IsInf(f, 0) {
				continue
			}
			values = append(values, fmt.Sprintf("%g", f), fmt.Sprintf("%.17g", r.NormFloat64()*1e6))
		}
		events := l.log(func() {
			var rows []string
			for i, v := range values {
				rows = append(rows, fmt.Sprintf("(%d, '%s')", i, v))
			}
			l.exec("INSERT INTO d VALUES " + strings.Join(rows, ","))
		})
		compareJSON(l, events)
	})
}

// compareJSON compares the JSON of table d as the log has it and as a query does.
func compareJSON(l *typeLab, events []loggedEvent) {
	t := l.t
	t.Helper()
	b := capture.NewBatch()
	defer b.Release()
	rows, err := decodeLog(events, l.mariadb, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	last := make(map[int64]capture.Value)
	for _, r := range rows {
		last[r.after[0].Int()] = r.after[1]
	}
	printed := l.cells("SELECT id, v FROM d")
	if len(printed) != len(last) {
		t.Errorf("%d rows in the log, %d in the table", len(last), len(printed))
	}
	for _, p := range printed {
		var id int64
		if _, err := fmt.Sscan(*p[0], &id); err != nil {
			t.Fatal(err)
		}
		want, _ := compactJSON(nil, []byte(*p[1]))
		v := last[id]
		if got := string(v.Bytes()); got != string(want) {
			t.Errorf("row %d: the log has %.300s and the server prints %.300s", id, got, want)
		}
	}
}

func TestJSON_PartialUpdatesMakeWhatTheServerStores(t *testing.T) {
	forMySQL(t, func(t *testing.T, l *typeLab) {
		l.exec("CREATE TABLE d (id int PRIMARY KEY, v json, w json, n int, x json)")
		l.exec(`INSERT INTO d VALUES
			(1, '{"a":1,"bb":[1,2,3,{"c":"long enough to matter, really, or the server logs all of it"}],"c.d":{"e f":true},"é":null}', '[1,2]', 0, null),
			(2, '[[1,2,[3,4]],{"k":{"k":{"k":"a value that is long enough for a partial update"}}},"three"]', null, 0, '{}'),
			(3, concat('{"big":"', repeat('x', 70000), '","s":1}'), '{}', 0, '[]')`)
		l.exec("SET binlog_row_value_options = PARTIAL_JSON")
		partial := 0
		events := l.log(func() {
			for _, set := range []string{
				`v = JSON_SET(v, '$.a', 'x')`, `v = JSON_SET(v, '$.new', 1)`, `v = JSON_SET(v, '$.bb[1]', '{"z":1}')`,
				`v = JSON_REPLACE(v, '$.bb[3].c', 7)`, `v = JSON_REMOVE(v, '$.bb[0]')`, `v = JSON_REMOVE(v, '$."c.d"."e f"')`,
				`v = JSON_SET(v, '$.bb[100]', 'end')`, `v = JSON_SET(JSON_SET(v, '$.é', 2), '$.a', JSON_ARRAY(1,2))`,
				`v = JSON_SET(v, '$."q\\"uote"', 1)`, `v = JSON_SET(v, '$."q\\"uote"', JSON_OBJECT('in', 1))`, `v = JSON_REMOVE(v, '$."q\\"uote"')`,
				`v = JSON_SET(v, '$[0][2][0]', 'deep')`, `v = JSON_SET(v, '$[1].k.k.k', 1.5), w = JSON_ARRAY(1), n = 1`, `v = JSON_REMOVE(v, '$[1].k.k')`,
				`v = JSON_SET(v, '$.big', 'small now'), x = JSON_SET(x, '$.n', CAST('2024-02-29' AS DATE))`, `v = JSON_SET(v, '$.s', REPEAT('y', 300))`, `w = JSON_SET(w, '$.a', JSON_OBJECT('b', 1))`,
				`v = '{"all":"of it"}'`, `v = JSON_SET(v, '$.all', null)`, `n = 2`,
			} {
				l.exec("UPDATE d SET " + set)
			}
		})
		for _, e := range events {
			if e.typ == replication.PARTIAL_UPDATE_ROWS_EVENT {
				partial++
			}
		}
		if partial == 0 {
			t.Error("the log has no partial update")
		}
		compareJSON(l, events)
	})
}

func TestJSON_PartialUpdateWithoutTheOldDocumentIsAnError(t *testing.T) {
	table := simpleTable(typeJSON, 4)
	m, err := parseTableMap(table, false)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPlan(nil, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Neither image has columns, but the new one a difference.
	body := []byte{1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 0, 1, 1, 1, 0, 4, 0, 0, 0, diffRemove, 2, '$', '.'}
	e, err := parseRows(replication.PARTIAL_UPDATE_ROWS_EVENT, body)
	if err != nil {
		t.Fatal(err)
	}
	var r rowReader
	r.reset(p, new(capture.Batch), &e)
	if r.next() || !errors.Is(r.err, capture.ErrUnreadable) || !strings.Contains(r.err.Error(), "PARTIAL_JSON") {
		t.Errorf("got %v", r.err)
	}
}

func TestJSON_QueryTextLosesBlanksOnlyOutsideOfStrings(t *testing.T) {
	for text, want := range map[string]string{
		`{"a": 1, "b c": "x, y: z", "q": "\"  \\"}`: `{"a":1,"b c":"x, y: z","q":"\"  \\"}`,
		`[1e15, -1.5e-16, 1.0, "1e5"]`:              `[1000000000000000,-0.000000000000000149999999999999996864668008605190534276167241127010465451263598879450000822544097900390625,1.0,"1e5"]`,
		`null`:                                      `null`,
	} {
		got, ok := compactJSON(nil, []byte(text))
		if !ok || string(got) != want {
			t.Errorf("%s becomes %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{``, `"a`, `"a\`, `1e`} {
		if got, ok := compactJSON(nil, []byte(text)); ok {
			t.Errorf("%q becomes %s", text, got)
		}
	}
}

// sharedJSON is a document whose entries all point at the same array, level by level: as
// text it would be exponentially large.
func sharedJSON() []byte {
	const levels = 40
	var doc []byte
	for i := range levels {
		body := []byte{2, 0}
		body = binary.LittleEndian.AppendUint16(body, uint16(10+len(doc)))
		for range 2 {
			body = append(body, jsonSmallArray, 10, 0)
		}
		if i == 0 {
			body = []byte{0, 0, 4, 0}
		}
		doc = append(body, doc...)
	}
	return append([]byte{jsonSmallArray}, doc...)
}

func TestJSON_ValuesThatShareBytesAreAnError(t *testing.T) {
	for what, doc := range map[string][]byte{"arrays": sharedJSON(), "strings": sharedStrings(2000, 60_000)} {
		if out, err := appendJSON(nil, doc); err == nil {
			t.Errorf("%s: %d bytes of text", what, len(out))
		}
		if out, err := renderTree(doc); err == nil {
			t.Errorf("%s: %d bytes of text by nodes", what, len(out))
		}
	}
}

// sharedStrings is an array of n strings, all of which lie at the same place.
func sharedStrings(n, size int) []byte {
	le := binary.LittleEndian
	head := 8 + 5*n
	doc := le.AppendUint32([]byte{jsonLargeArray}, uint32(n))
	doc = le.AppendUint32(doc, uint32(head+3+size))
	for range n {
		doc = le.AppendUint32(append(doc, jsonString), uint32(head))
	}
	doc = append(doc, byte(size|0x80), byte(size>>7|0x80), byte(size>>14))
	return append(doc, bytes.Repeat([]byte{'x'}, size)...)
}

// renderTree is what a partial update makes of a document that it does not change.
func renderTree(doc []byte) ([]byte, error) {
	var d jsonReader
	root, err := d.parse(doc)
	if err != nil {
		return nil, err
	}
	return d.tree(nil, root, 0)
}

func TestJSON_PartialUpdatesAreBoundedAsAWhole(t *testing.T) {
	var d jsonReader
	root, err := d.parse([]byte{jsonSmallArray, 1, 0, 7, 0, jsonLiteral, literalNull, 0})
	if err != nil {
		t.Fatal(err)
	}
	put := func(path, doc []byte) {
		t.Helper()
		value, err := d.parse(doc)
		if err == nil {
			err = root.apply(diffReplace, path, value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	nested := []byte{jsonSmallArray, 1, 0, 7, 0, jsonLiteral, literalNull, 0}
	path := []byte("$")
	for range maxJSONDepth - 1 {
		path = append(path, "[0]"...)
		put(path, nested)
	}
	if out, err := d.tree(nil, root, 0); err != nil || len(out) != 2*maxJSONDepth+len("null") {
		t.Errorf("as deep as the server lets documents be: %d bytes of text (%v)", len(out), err)
	}
	put(append(path, "[0]"...), nested)
	if out, err := d.tree(nil, root, 0); err == nil {
		t.Errorf("deeper than that: %d bytes of text", len(out))
	}
	put([]byte("$[0]"), sharedStrings(100, 10_000))
	if out, err := d.tree(nil, root, 0); err == nil {
		t.Errorf("with a value whose parts share bytes: %d bytes of text", len(out))
	}
}

// addDocuments adds the documents of rows of a number and JSON.
func addDocuments(f *testing.F, ev loggedEvent) {
	e, err := parseRows(ev.typ, ev.body)
	if err != nil {
		f.Fatal(err)
	}
	c := cursor{rest: e.rows}
	for len(c.rest) > 0 {
		const isNull = 2
		null := c.uint8()&isNull != 0
		c.uint32() // id
		if null {
			continue
		}
		if doc := c.bytes(int(c.uint32())); len(doc) < 4<<10 {
			f.Add(doc)
		}
	}
	if c.failed {
		f.Fatal("the recorded rows cannot be read")
	}
}

func FuzzJSON(f *testing.F) {
	for _, file := range recorded(f) {
		if isMariaDB(file) {
			continue
		}
		var m *tableMap
		for _, ev := range readEvents(f, file) {
			if ev.typ == replication.TABLE_MAP_EVENT {
				var err error
				if m, err = parseTableMap(ev.body, false); err != nil {
					f.Fatal(err)
				}
			} else if m.columns[1].typ == typeJSON {
				addDocuments(f, ev)
			}
		}
	}
	f.Add(sharedJSON())
	f.Add([]byte{jsonOpaque, typeDatetime, 8, 0, 0, 0, 0, 0, 0x1e, 0xb2, 0x99})
	f.Fuzz(func(t *testing.T, doc []byte) {
		out, err := appendJSON(nil, doc)
		// The largest growth is that of a double: 9 bytes with its entry become 1100.
		if len(out) > 200*len(doc)+16 {
			t.Fatalf("%d bytes make a text of %d", len(doc), len(out))
		}
		again, err2 := renderTree(doc)
		if len(again) > 200*len(doc)+16 {
			t.Fatalf("%d bytes make a text of %d by nodes", len(doc), len(again))
		}
		if err != nil {
			return
		}
		if !json.Valid(out) {
			t.Errorf("%x becomes %s", doc, out)
		}
		if err2 != nil || string(again) != string(out) {
			t.Errorf("%s becomes %s by nodes (%v)", out, again, err2)
		}
		if compact, ok := compactJSON(nil, out); !ok || string(compact) != string(out) {
			t.Errorf("%s becomes %s when it is read as what a query prints", out, compact)
		}
	})
}
