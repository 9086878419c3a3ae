package mysql

import (
	"errors"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

// textPlan is the plan of a table with one column of each kind of text.
func textPlan(t testing.TB) *plan {
	t.Helper()
	f := &tableFacts{id: capture.TableID{Schema: "s", Name: "t"}}
	for i, typ := range []string{
		"tinyint", "bigint unsigned", "float", "decimal(10,2) unsigned zerofill", "bit(1)", "bit(12)", "date", "time(3)", "datetime(6)", "timestamp", "year",
		"varchar(10)", "blob", "binary(4)", "enum('a','b')", "json", "point",
	} {
		c := columnFacts{name: string(rune('a' + i)), columnType: typ, nullable: true}
		if typ == "varchar(10)" || strings.HasPrefix(typ, "enum") {
			c.charset = "latin1"
		}
		f.columns = append(f.columns, c)
	}
	p, err := scanPlan(nil, f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestText_WhatTheServerDoesNotPrintIsRefused(t *testing.T) {
	p := textPlan(t)
	b := new(capture.Batch)
	var scratch []byte
	for i, list := range [][]string{
		{"", "-", "1x", "1.0", "99999999999999999999"},
		{"-1", "18446744073709551616", ""},
		{"x", ""},
		{"", ".", "1.", ".5", "1.2.3", "-"},
		{"", "\x00\x00"},
		{"\x00"},
		{"2024-1-1", "2024-01-01 ", "", "20240101"},
		{"1:00:00", "00:60:00", "839:00:00", "00:00:00.", "00:00:00.1234567"},
		{"2024-01-01", "2024-01-01 24:00:00", "2024-01-01T00:00:00"},
		{"2024-01-01 00:00"},
		{"x"},
		nil, nil,
		{"12345"},
		nil,
		{"", `"a`},
		{"\x00\x00\x00\x00\x01"},
	} {
		for _, text := range list {
			if v, err := p.cells[i].fromText(b, []byte(text), &scratch); err == nil {
				t.Errorf("%s: %q is %s", p.table.Columns[i].Type.Name, text, v)
			}
		}
	}
}

func TestText_RowsThatAreCutAreErrors(t *testing.T) {
	r := textReader{p: textPlan(t)}
	b := new(capture.Batch)
	var packet []byte
	for range r.p.cells {
		packet = append(packet, 0xfb)
	}
	if row, rest, err := r.row(b, append(packet, 1, 'k')); err != nil || len(row) != len(packet) || string(rest) != "\x01k" {
		t.Errorf("a row of NULL: %v, %q, %v", row, rest, err)
	}
	for _, p := range [][]byte{packet[1:], {1}, {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}} {
		if row, _, err := r.row(b, p); !errors.Is(err, capture.ErrUnreadable) {
			t.Errorf("%x: %v, %v", p, row, err)
		}
	}
}

func TestText_WhatIsNoTextNamesTableAndColumn(t *testing.T) {
	p, err := scanPlan(nil, &tableFacts{id: capture.TableID{Schema: "s", Name: "t"}, columns: []columnFacts{
		{name: "v", columnType: "varchar(10)", charset: "utf8mb4"}, {name: "g", columnType: "char(5)", charset: "gbk"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := textReader{p: p}
	for packet, want := range map[string]string{"\x03a\xffb\x00": "column v (varchar(10)) of s.t holds 3 bytes that are no text", "\x00\x02a\x81": "column g (char(5)) of s.t"} {
		if row, _, err := r.row(new(capture.Batch), []byte(packet)); !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "61") {
			t.Errorf("%x: %v, %v", packet, row, err)
		}
	}
}

func FuzzText(f *testing.F) {
	p := textPlan(f)
	for i, text := range []string{"-128", "18446744073709551615", "1.5", "00001.50", "\x01", "\x0f\xff", "2024-02-29", "-838:59:59.999", "2024-02-29 23:59:59.123456", "0000-00-00 00:00:00", "0000", "é", "x", "ab", "b", `{"a": [1e5, "x"]}`, "\x00\x00\x00\x00\x01\x01\x00\x00\x00"} {
		f.Add(byte(i), []byte(text))
	}
	f.Fuzz(func(t *testing.T, which byte, text []byte) {
		b := new(capture.Batch)
		var scratch []byte
		v, err := p.cells[int(which)%len(p.cells)].fromText(b, text, &scratch)
		if err == nil {
			v.AppendKey(nil)
		}
		if b.Size() > 512*len(text)+64 {
			t.Errorf("%d bytes of text take %d", len(text), b.Size())
		}
	})
}
