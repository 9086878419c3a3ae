package mysql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/klauspost/compress/zstd"

	"github.com/headwaterdb/headwater/capture"
)

// recorded are the files of testdata that TestTypes recorded.
func recorded(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/types-*.events.zst")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded events: %v", err)
	}
	return files
}

// recordedCompressed are the files of testdata with MariaDB's compressed rows.
func recordedCompressed(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/compressed-*.events.zst")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded compressed rows: %v", err)
	}
	return files
}

// readEvents reads events that writeEvents wrote.
func readEvents(t testing.TB, file string) []loggedEvent {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if data, err = r.DecodeAll(data, nil); err != nil {
		t.Fatal(err)
	}
	var out []loggedEvent
	for len(data) > 0 {
		size := binary.LittleEndian.Uint32(data[9:])
		out = append(out, loggedEvent{replication.EventType(data[4]), data[replication.EventHeaderSize:size]})
		data = data[size:]
	}
	return out
}

func isMariaDB(file string) bool { return strings.Contains(file, "mariadb") }

// recordedFacts stand in for the catalog: MariaDB's log does not tell some types.
func recordedFacts(file string, id capture.TableID) *tableFacts {
	if !isMariaDB(file) {
		return nil
	}
	f := &tableFacts{id: id, mariadb: true, columns: []columnFacts{{name: "id", columnType: "int(11)"}}}
	for i, c := range recordedCases(file) {
		if fmt.Sprintf("t%03d", i) != id.Name {
			continue
		}
		switch word, _, _ := splitType(c.decl); word {
		case "uuid", "inet4", "inet6", "vector", "float":
			f.columns = append(f.columns, columnFacts{name: "v", columnType: c.decl, nullable: true})
			return f
		}
	}
	return nil
}

func recordedCases(file string) []typeCase {
	name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "types-"), ".events.zst")
	return casesOf(name)
}

func TestDecode_RecordedLogsOfEveryServerMeanWhatTheyMeantThen(t *testing.T) {
	for _, file := range recorded(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			b := capture.NewBatch()
			defer b.Release()
			rows, err := decodeLog(readEvents(t, file), isMariaDB(file), b, func(id capture.TableID) *tableFacts { return recordedFacts(file, id) })
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(file, ".events.zst") + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			got, wanted := strings.Split(transcript(rows), "\n"), strings.Split(string(want), "\n")
			for i := range min(len(got), len(wanted)) {
				if got[i] != wanted[i] {
					t.Fatalf("line %d is\n%s\nwant\n%s", i+1, got[i], wanted[i])
				}
			}
			if len(got) != len(wanted) {
				t.Errorf("%d lines, want %d", len(got), len(wanted))
			}
		})
	}
}

// TestDecode_CutEventsAreErrors cuts every recorded event at every place.
func TestDecode_CutEventsAreErrors(t *testing.T) {
	for _, file := range recorded(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			cutEvents(t, file)
		})
	}
}

func cutEvents(t *testing.T, file string) {
	b := capture.NewBatch()
	defer b.Release()
	var last loggedEvent
	var r rowReader
	for _, ev := range readEvents(t, file) {
		step := 1 + len(ev.body)/200
		if ev.typ == replication.TABLE_MAP_EVENT {
			for n := 0; n < len(ev.body); n += step {
				// A cut at an item's end leaves a map of less metadata.
				if _, err := parseTableMap(ev.body[:n], isMariaDB(file)); err != nil && !errors.Is(err, capture.ErrUnreadable) {
					t.Fatalf("a table map of %d bytes of %d: %v", n, len(ev.body), err)
				}
			}
			last = ev
			continue
		}
		m, err := parseTableMap(last.body, isMariaDB(file))
		if err != nil {
			t.Fatal(err)
		}
		p, err := newPlan(nil, m, recordedFacts(file, m.table))
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(ev.body); n += step {
			e, err := parseRows(ev.typ, ev.body[:n])
			if err == nil {
				r.reset(p, b, &e)
				for r.next() {
				}
				err = r.err
			}
			if err != nil && !errors.Is(err, capture.ErrUnreadable) {
				t.Fatalf("rows of %d bytes of %d: %v", n, len(ev.body), err)
			}
		}
	}
}

// simpleTable is the table map of columns of one type, by its number and metadata.
func simpleTable(typ byte, meta ...byte) []byte {
	b := []byte{1, 0, 0, 0, 0, 0, 1, 0, 1, 's', 0, 1, 't', 0, 1, typ, byte(len(meta))}
	b = append(append(b, meta...), 1)          // nullable
	b = append(b, optColumnName, 2, 1, 'v')    // its name
	return append(b, optDefaultCharset, 1, 45) // utf8mb4
}

// ofBytes makes the text of a simple table bytes.
func ofBytes(table []byte) []byte {
	table[len(table)-1] = 63
	return table
}

// datetime is a DATETIME as it is stored.
func datetime(year, month, dayOfMonth, h, m, s uint64) []byte {
	u := 1<<39 | (year*13+month)<<22 | dayOfMonth<<17 | h<<12 | m<<6 | s
	return binary.BigEndian.AppendUint64(nil, u)[3:]
}

// decodeOne decodes the value of a one-column row.
func decodeOne(t *testing.T, table []byte, value ...byte) (capture.Value, error) {
	t.Helper()
	m, err := parseTableMap(table, false)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPlan(nil, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	body := append([]byte{1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 1, 0}, value...)
	e, err := parseRows(replication.WRITE_ROWS_EVENTv2, body)
	if err != nil {
		t.Fatal(err)
	}
	var r rowReader
	b := new(capture.Batch)
	r.reset(p, b, &e)
	if !r.next() {
		return capture.Value{}, r.err
	}
	v := r.after[0]
	if r.next() || r.err != nil {
		return v, fmt.Errorf("more than one row: %w", r.err)
	}
	return v, nil
}

func TestDecode_FormsOfTimesBeforeMySQL56(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		typ   byte
		value []byte
		want  capture.Value
	}{
		{typeTimestamp, le.AppendUint32(nil, 1_700_000_000), capture.TimestampTZValue(1_700_000_000 * second)},
		{typeTimestamp, le.AppendUint32(nil, 0), capture.NullValue},
		{typeDatetime, le.AppendUint64(nil, 2023_11_14_22_13_20), capture.TimestampValue(1_700_000_000 * second)},
		{typeDatetime, le.AppendUint64(nil, 0), capture.NullValue},
		{typeTime, []byte{0x7e, 0xf2, 0x7f}, capture.TimeValue(838*hour + 51*minute + 50*second)},
		{typeTime, []byte{0xff, 0xff, 0xff}, capture.TimeValue(-second)},
	} {
		v, err := decodeOne(t, simpleTable(c.typ), c.value...)
		if err != nil || string(v.AppendKey(nil)) != string(c.want.AppendKey(nil)) {
			t.Errorf("type %d %x is %v (%v), want %v", c.typ, c.value, v, err, c.want)
		}
	}
}

func TestPlan_OldTimesWithAFractionAreRefused(t *testing.T) {
	m, err := parseTableMap(simpleTable(typeDatetime), true)
	if err != nil {
		t.Fatal(err)
	}
	f := &tableFacts{id: m.table, mariadb: true, columns: []columnFacts{{name: "v", columnType: "datetime(3)", nullable: true}}}
	if _, err := newPlan(nil, m, f); !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "mysql56_temporal_format") {
		t.Errorf("got %v", err)
	}
	f.columns[0].columnType = "datetime"
	if p, err := newPlan(nil, m, f); err != nil || len(p.drift) > 0 {
		t.Errorf("without a fraction: %v, drift %v", err, p.drift)
	}
}

func TestDecode_WhatIsNoTextNamesTableAndColumn(t *testing.T) {
	_, err := decodeOne(t, simpleTable(typeVarchar, 40, 0), 3, 'a', 0xff, 'b')
	if !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "column v (varchar(10)) of s.t") || strings.Contains(err.Error(), "61") {
		t.Errorf("got %v", err)
	}
}

func TestDecode_ImpossibleValuesAreErrors(t *testing.T) {
	for name, c := range map[string]struct {
		table []byte
		value []byte
	}{
		"a datetime below zero":            {simpleTable(typeDatetime2, 0), []byte{0, 0, 0, 0, 1}},
		"an hour beyond 23":                {simpleTable(typeDatetime2, 0), datetime(2024, 1, 1, 24, 0, 0)},
		"a minute beyond 59":               {simpleTable(typeDatetime2, 0), datetime(2024, 1, 1, 0, 60, 0)},
		"minutes beyond 59":                {simpleTable(typeTime2, 0), []byte{0x80, 0x0f, 0xc0}},
		"nine digits in a group of two":    {simpleTable(typeNewDecimal, 2, 0), []byte{0x80 | 100}},
		"a length beyond the event":        {simpleTable(typeBlob, 4), []byte{0xff, 0xff, 0xff, 0xff, 'x'}},
		"more bytes than BINARY(n) has":    {ofBytes(simpleTable(typeString, typeString, 2)), []byte{3, 1, 2, 3}},
		"a JSON object beyond its end":     {simpleTable(typeJSON, 4), []byte{5, 0, 0, 0, jsonSmallObject, 9, 0, 4, 0}},
		"JSON of a type that is not there": {simpleTable(typeJSON, 4), []byte{1, 0, 0, 0, 0x0d}},
		"a geometry without its type":      {simpleTable(typeGeometry, 4), []byte{4, 0, 0, 0, 0, 0, 0, 0}},
		"a vector of half a number":        {simpleTable(typeVector, 4), []byte{2, 0, 0, 0, 0, 0}},
	} {
		if v, err := decodeOne(t, c.table, c.value...); !errors.Is(err, capture.ErrUnreadable) {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
}

func TestDecode_RowsOfAnotherNumberOfColumnsThanTheirTableAreAnError(t *testing.T) {
	m, err := parseTableMap(simpleTable(typeLong), false)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPlan(nil, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	for columns, present := range map[byte]byte{0: 0, 2: 3, 7: 1} {
		body := []byte{1, 0, 0, 0, 0, 0, 1, 0, 2, 0, columns, present, 0, 1, 0, 0, 0, 2, 0, 0, 0}
		e, err := parseRows(replication.WRITE_ROWS_EVENTv2, body)
		if err != nil {
			t.Fatal(err)
		}
		var r rowReader
		r.reset(p, new(capture.Batch), &e)
		if want := fmt.Sprintf("rows of s.t have %d columns and its table map 1; remedy: ", columns); r.next() || !errors.Is(r.err, capture.ErrUnreadable) || !strings.Contains(r.err.Error(), want) {
			t.Errorf("%d columns: got %v", columns, r.err)
		}
	}
}

func TestDecode_EventsThatOnlyEndAStatementHaveNoRows(t *testing.T) {
	e, err := parseRows(replication.WRITE_ROWS_EVENTv2, []byte{0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 2, 0, 0})
	if err != nil || !e.none || !e.last {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestTableMap_SaysWhatAnotherSaysButForItsID(t *testing.T) {
	body := simpleTable(typeLong)
	m, err := parseTableMap(body, false)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(body)
	other[0] = 9
	if !m.says(other) || tableMapID(other) != 9 {
		t.Error("another id makes a difference")
	}
	for i := tableIDSize; i < len(body); i++ {
		other := bytes.Clone(body)
		other[i]++
		if m.says(other) {
			t.Errorf("byte %d makes no difference", i)
		}
	}
}

func FuzzTableMap(f *testing.F) {
	for _, file := range recorded(f) {
		for _, ev := range readEvents(f, file) {
			if ev.typ == replication.TABLE_MAP_EVENT {
				f.Add(ev.body, isMariaDB(file))
			}
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, mariadb bool) {
		m, err := parseTableMap(body, mariadb)
		if err == nil {
			_, err = newPlan(nil, m, nil)
		}
		if err != nil && !errors.Is(err, capture.ErrUnreadable) {
			t.Errorf("an error that stops nothing: %v", err)
		}
	})
}

func FuzzRows(f *testing.F) {
	for _, file := range append(recorded(f), recordedCompressed(f)...) {
		var last []byte
		for _, ev := range readEvents(f, file) {
			if ev.typ == replication.TABLE_MAP_EVENT {
				last = ev.body
			} else if len(ev.body) < 4<<10 {
				f.Add(last, byte(ev.typ), ev.body, isMariaDB(file))
			}
		}
	}
	f.Fuzz(func(t *testing.T, table []byte, typ byte, body []byte, mariadb bool) {
		m, err := parseTableMap(table, mariadb)
		if err != nil {
			return
		}
		p, err := newPlan(nil, m, nil)
		if err != nil || !isRows(replication.EventType(typ)) {
			return
		}
		e, err := parseRows(replication.EventType(typ), body)
		if err != nil {
			return
		}
		b := new(capture.Batch)
		var r rowReader
		r.reset(p, b, &e)
		// A NULL takes a bit in the event and a value in a row.
		limit := 1<<20 + 200*len(e.rows)*(1+len(m.columns))
		for r.next() {
			for _, row := range []capture.Row{r.before, r.after} {
				for i := range row {
					row[i].AppendKey(nil)
				}
			}
			if b.Size() > limit {
				t.Fatalf("%d bytes of rows make values of %d", len(e.rows), b.Size())
			}
		}
		if r.err != nil && !errors.Is(r.err, capture.ErrUnreadable) {
			t.Errorf("an error that stops nothing: %v", r.err)
		}
	})
}
