package mysql

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/encoding/unicode"

	"github.com/headwaterdb/headwater/capture"
)

// bytesTable makes a table with the numbers of a byte.
func bytesTable(l *typeLab) {
	l.t.Helper()
	var rows []string
	for i := range 256 {
		rows = append(rows, fmt.Sprintf("(%d, 0x%02x)", i, i))
	}
	l.exec("CREATE TABLE n (i int PRIMARY KEY, b binary(1))")
	l.exec("INSERT INTO n VALUES " + strings.Join(rows, ","))
}

// TestCharset_EveryCharacterIsTheServers compares all strings of one byte and of two with
// what the server makes of them, and in EUC those of three that have an own table.
func TestCharset_EveryCharacterIsTheServers(t *testing.T) {
	forNewServers(t, func(t *testing.T, l *typeLab) {
		bytesTable(l)
		known := make(map[string]bool)
		for _, r := range l.cells("SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS") {
			known[*r[0]] = true
			if charsetNamed(*r[0]) == nil {
				t.Errorf("the character set %s is unknown", *r[0])
			}
		}
		compare := func(cs *charset, expression, from string) {
			rows := l.cells(fmt.Sprintf(`SELECT HEX(%[1]s), CONVERT(CONVERT(%[1]s USING %[2]s) USING utf8mb4), LENGTH(CONVERT(%[1]s USING %[2]s)) = LENGTH(%[1]s)
				AND CHAR_LENGTH(CONVERT(CONVERT(%[1]s USING %[2]s) USING utf8mb4)) = CHAR_LENGTH(CONVERT(%[1]s USING %[2]s)) FROM %[3]s`, expression, cs.name, from))
			compared := 0
			for _, r := range rows {
				raw := unhex(t, *r[0])
				if r[1] == nil || *r[2] == "0" || strings.ContainsAny(*r[1], "?\uFFFD") {
					continue // it has no character, or is no text and was cut
				}
				compared++
				got, ok := cs.text(nil, raw)
				if !ok || string(got) != *r[1] {
					t.Errorf("%s: 0x%x is %q (%v), the server has %q", cs.name, raw, got, ok, *r[1])
					return
				}
			}
			if compared < 90 {
				t.Errorf("%s: only %d strings compared", cs.name, compared)
			}
		}
		names := make([]string, 0, len(charsets))
		for name := range charsets {
			if known[name] && name != "binary" {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			cs := charsets[name]
			if !slices.Contains([]string{"utf16", "utf16le", "ucs2", "utf32"}, name) {
				compare(cs, "b", "n")
			}
			if _, single := singleBytes[name]; single || strings.HasPrefix(name, "utf8") || name == "utf32" {
				continue
			}
			compare(cs, "CONCAT(n.b, m.b)", "n JOIN n m")
			if cs.most == 3 {
				compare(cs, "CONCAT(0x8f, n.b, m.b)", "n JOIN n m")
			}
		}
	})
}

// TestCharset_UnicodeComesBack sends characters through the server's own encoders.
func TestCharset_UnicodeComesBack(t *testing.T) {
	forNewServers(t, func(t *testing.T, l *typeLab) {
		bytesTable(l)
		for name, planes := range map[string]string{"gb18030": "0,1,2,16", "utf16": "0,1,16", "utf16le": "0,2", "ucs2": "0", "utf32": "0,3,16", "utf8mb3": "0"} {
			if name == "gb18030" && l.mariadb {
				continue
			}
			rows := l.cells(fmt.Sprintf(`SELECT HEX(CONVERT(CONVERT(CONCAT(0x00, p.b, n.b, m.b) USING utf32) USING %s)), (p.i << 16) + (n.i << 8) + m.i
				FROM n p JOIN n JOIN n m WHERE p.i IN (%s) AND (p.i = 0 OR m.i %% 16 = 3)`, name, planes))
			compared := 0
			for _, r := range rows {
				var want rune
				if _, err := fmt.Sscan(*r[1], &want); err != nil {
					t.Fatal(err)
				}
				if r[0] == nil || !utf8.ValidRune(want) || want == utf8.RuneError {
					continue
				}
				raw := unhex(t, *r[0])
				got, ok := charsets[name].text(nil, raw)
				if ok && string(got) == "?" && want != '?' {
					continue // it has no such character
				}
				compared++
				if !ok || string(got) != string(want) {
					t.Errorf("%s: %U is 0x%x, which is read as %q (%v)", name, want, raw, got, ok)
					break
				}
			}
			if compared < 60_000 {
				t.Errorf("%s: only %d characters compared", name, compared)
			}
		}
	})
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	var out []byte
	if _, err := fmt.Sscanf(s, "%x", &out); err != nil && s != "" {
		t.Fatal(err)
	}
	return out
}

func TestCharset_CollationsOfEveryServerAreKnown(t *testing.T) {
	forEachServer(t, func(t *testing.T, l *typeLab) {
		query := "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS"
		if l.mariadb {
			query = "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY"
		}
		for _, r := range l.cells(query) {
			var id int
			if _, err := fmt.Sscan(*r[0], &id); err != nil {
				t.Fatal(err)
			}
			want := strings.Replace(*r[1]+"$", "utf8$", "utf8mb3$", 1)
			if cs := charsetOf(id); cs == nil || cs.name+"$" != want {
				t.Errorf("the collation %d is of %s", id, *r[1])
			}
		}
	})
}

func TestCharset_WhatIsNoTextIsRefused(t *testing.T) {
	for _, c := range []struct{ charset, bytes string }{
		{"utf8mb4", "a\xff"},
		{"utf8mb4", "\xed\xa0\x80"},
		{"ascii", "\x80"},
		{"cp1251", "\x98"},
		{"sjis", "\x81"},
		{"gbk", "a\x81\x20"},
		{"ujis", "\x8f\xa1"},
		{"big5", "\xff\xff"},
		{"utf16", "a"},
		{"utf16", "\xd8\x3d\x00a"},
		{"utf16", "\xdc\x00"},
		{"utf16le", "\x3d\xd8"},
		{"ucs2", "\xd8\x3d\xde\x00"},
		{"utf32", "\x00\x11\x00\x00"},
		{"utf32", "\x00\x00\xd8\x00"},
		{"gb18030", "\x81"},
		{"gb18030", "\xff"},
		{"swe7", "\x7f"},
	} {
		if got, ok := charsets[c.charset].text(nil, []byte(c.bytes)); ok {
			t.Errorf("%s: %q is %q", c.charset, c.bytes, got)
		}
	}
	if got, ok := charsets["gb18030"].text(nil, []byte("\x84\x31\xa4\x37")); !ok || string(got) != "\uFFFD" {
		t.Errorf("U+FFFD in gb18030 is %q, %v", got, ok)
	}
}

// FuzzCharset compares UTF-16 with the library, and looks for text that is no UTF-8 or
// larger than the memory that is taken for it.
func FuzzCharset(f *testing.F) {
	names := make([]string, 0, len(charsets))
	for name := range charsets {
		if name != "binary" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for i := range names {
		f.Add(byte(i), []byte("a\x81\x40\x8f\xa1\xa1\xd8\x3d\xde\x00"))
	}
	f.Fuzz(func(t *testing.T, which byte, p []byte) {
		cs := charsets[names[int(which)%len(names)]]
		b := new(capture.Batch)
		got, ok := cs.text(b, p)
		if !ok {
			return
		}
		if !utf8.Valid(got) {
			t.Errorf("%s: 0x%x becomes 0x%x", cs.name, p, got)
		}
		if cs.decode != nil && len(got) > max(cs.grows*len(p), len(p)) {
			t.Errorf("%s: %d bytes become %d", cs.name, len(p), len(got))
		}
		if cs.name == "utf16" {
			want, err := unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM).NewDecoder().Bytes(p)
			if err != nil || string(want) != string(got) {
				t.Errorf("0x%x becomes %q, the library has %q", p, got, want)
			}
		}
	})
}
