package postgres

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

var record = flag.Bool("record", false, "write testdata/pgoutput-*.txt anew from real servers")

// show decodes a message of any type and prints it.
func show(m []byte) (string, error) {
	var kind byte
	if len(m) > 0 {
		kind = m[0]
	}
	switch kind {
	case 'B':
		b, err := decodeBegin(m)
		return fmt.Sprintf("begin %s xid %d at %d", b.FinalLSN, b.XID, b.Time), err
	case 'C':
		c, err := decodeCommit(m)
		return fmt.Sprintf("commit %s up to %s at %d", c.CommitLSN, c.EndLSN, c.Time), err
	case 'O':
		o, err := decodeOrigin(m)
		return fmt.Sprintf("origin %q %s", o.Name, o.CommitLSN), err
	case 'Y':
		y, err := decodeType(m)
		return fmt.Sprintf("type %d %s.%s", y.OID, y.Schema, y.Name), err
	case 'R':
		r, err := decodeRelation(m)
		s := fmt.Sprintf("relation %d %s identity %c:", r.OID, r.Table, r.Identity)
		for _, c := range r.Columns {
			s += fmt.Sprintf(" %s %d(%d)", c.Name, c.Type, c.Modifier)
			if c.Key {
				s += " key"
			}
		}
		return s, err
	case 'T':
		t, err := decodeTruncate(m)
		s := fmt.Sprintf("truncate cascade=%t restart=%t:", t.Cascade, t.RestartIdentity)
		for i := range t.Tables() {
			s += fmt.Sprint(" ", t.Table(i))
		}
		return s, err
	case 'M':
		l, err := decodeLogicalMessage(m)
		return fmt.Sprintf("message transactional=%t %s %q %q", l.Transactional, l.LSN, l.Prefix, l.Content), err
	}
	r, err := decodeRow(m)
	s := fmt.Sprintf("%s %d", r.Op, r.Relation)
	if r.Old != nil {
		s += fmt.Sprintf(" %c %s", r.OldKind, showTuple(r.Old))
	}
	if r.New != nil {
		s += " N " + showTuple(r.New)
	}
	return s, err
}

func showTuple(p []byte) string {
	r := reader{rest: p}
	var cells []string
	for range r.uint16() {
		switch k := r.uint8(); k {
		case 't':
			cells = append(cells, fmt.Sprintf("%.20q", r.sized()))
		default:
			cells = append(cells, string(k))
		}
	}
	return "(" + strings.Join(cells, " ") + ")"
}

// recordMessages makes a server say every message there is.
func recordMessages(t *testing.T, version string) [][]byte {
	b := newBench(t, version)
	b.exec("CREATE TYPE mood AS ENUM ('sad')", `CREATE TABLE a (id int PRIMARY KEY, v text, m mood, "odd ü name" numeric(10,2))`, "CREATE TABLE b (id int PRIMARY KEY)",
		"ALTER TABLE a ALTER v SET STORAGE EXTERNAL")
	b.tx("INSERT INTO a VALUES (1, repeat('x', 3000), 'sad', 1.5), (2, NULL, NULL, NULL)", "UPDATE a SET m = NULL WHERE id = 1", "UPDATE a SET id = 3 WHERE id = 2",
		"DELETE FROM a WHERE id = 3", "INSERT INTO b VALUES (1)", "TRUNCATE a, b RESTART IDENTITY CASCADE")
	b.exec("ALTER TABLE a REPLICA IDENTITY FULL")
	b.tx("INSERT INTO a VALUES (1, '', 'sad', 'NaN')", "UPDATE a SET v = 'y'", "DELETE FROM a")
	b.exec("SELECT pg_logical_emit_message(false, 'prefix', 'outside')")
	b.tx("SELECT pg_logical_emit_message(true, '', E'in\\\\000side')")
	name := "bench_" + b.ask("SELECT current_database()")
	b.exec("SELECT pg_replication_origin_create('"+name+"')", "SELECT pg_replication_origin_session_setup('"+name+"')")
	b.tx("SELECT pg_replication_origin_xact_setup('0/1234', '2020-01-01')", "INSERT INTO b VALUES (2)")
	b.exec("SELECT pg_replication_origin_session_reset()", "SELECT pg_replication_origin_drop('"+name+"')")
	return b.messages()
}

// Every message that servers of each version sent is understood as it was when it was
// recorded. To record again, and review what changed: go test -run Recorded -record
func TestMessages_Recorded(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			file := filepath.Join("testdata", "pgoutput-"+version+".txt")
			if *record {
				var out bytes.Buffer
				for _, m := range recordMessages(t, version) {
					text, err := show(m)
					if err != nil {
						t.Fatalf("%x: %v", m, err)
					}
					fmt.Fprintf(&out, "%s\n%x\n", text, m)
				}
				if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			seen := make(map[byte]bool)
			for _, m := range recorded(t, version) {
				seen[m.data[0]] = true
				if got, err := show(m.data); err != nil || got != m.text {
					t.Errorf("%x:\n got %s, %v\nwant %s", m.data, got, err, m.text)
				}
				for n := range m.data {
					if got, err := show(m.data[:n]); !errors.Is(err, capture.ErrUnreadable) {
						t.Fatalf("%s cut to %d bytes: %s, %v", m.text, n, got, err)
					}
				}
				if _, err := show(append(bytes.Clone(m.data), 0)); !errors.Is(err, capture.ErrUnreadable) {
					t.Errorf("%s with a byte more: %v", m.text, err)
				}
			}
			want := "BCORYIUDTM"
			if version == "13" {
				want = "BCORYIUDT" // messages came with 14
			}
			for _, k := range want {
				if !seen[byte(k)] {
					t.Errorf("no message of type %q", k)
				}
			}
		})
	}
}

type recordedMessage struct {
	text string
	data []byte
}

func recorded(t testing.TB, version string) (out []recordedMessage) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "pgoutput-"+version+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		data, err := hex.DecodeString(lines[i+1])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, recordedMessage{lines[i], data})
	}
	return out
}

// Nothing that a server could send makes the decoders panic, and rows are decoded only
// within their message.
func FuzzMessage(f *testing.F) {
	for _, version := range versions {
		for _, m := range recorded(f, version) {
			f.Add(m.data)
		}
	}
	cols := []relationColumn{{true, "id", oidInt4, -1}, {false, "v", oidText, -1}, {false, "m", oidBytea, -1}, {false, "n", oidNumeric, -1}}
	d := define(cols)
	f.Fuzz(func(t *testing.T, m []byte) {
		_, _ = show(m)
		b := capture.NewBatch()
		defer b.Release()
		for _, image := range []byte("NKO") {
			_, _ = d.decodeTuple(b, image, m)
		}
		if r, err := decodeRow(m); err == nil {
			for _, p := range [][]byte{r.Old, r.New} {
				if row, err := d.decodeTuple(b, 'N', p); err == nil && len(row) != len(cols) {
					t.Errorf("a row of %d columns", len(row))
				}
			}
		}
	})
}

func TestTableDef_RefusesForeignRows(t *testing.T) {
	d := define(orderColumns)
	b := capture.NewBatch()
	defer b.Release()
	row := tuple(orderRow...)
	for what, p := range map[string][]byte{
		"no tuple":        nil,
		"fewer columns":   tuple(orderRow[1:]...),
		"more columns":    tuple(append(orderRow[:1:1], orderRow...)...),
		"a cut value":     row[:len(row)-1],
		"more bytes":      append(bytes.Clone(row), 0),
		"a binary value":  bytes.Replace(row, []byte("t\x00"), []byte("b\x00"), 1),
		"an unknown kind": bytes.Replace(row, []byte("t\x00"), []byte("x\x00"), 1),
		"an invalid text": bytes.Replace(row, []byte("12345.67"), []byte("12345,67"), 1),
	} {
		if _, err := d.decodeTuple(b, 'N', p); !errors.Is(err, capture.ErrUnreadable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := d.decodeTuple(b, 'N', bytes.Replace(row, []byte("12345.67"), []byte("12345,67"), 1))
	if want := `column "price" of type some type`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not name %s", err, want)
	}
	if _, _, err := d.decodeCells(b, orderRow[1:], nil); !errors.Is(err, capture.ErrUnreadable) {
		t.Errorf("a row of a query: %v", err)
	}
}

// Values do not outlive their bytes in a log row, and own copies in a query's row.
func TestTableDef_OwnsTheCellsOfQueries(t *testing.T) {
	d := define(orderColumns)
	b := capture.NewBatch()
	defer b.Release()
	cells := make([][]byte, len(orderRow))
	for i, c := range orderRow {
		cells[i] = bytes.Clone(c)
	}
	row, size, err := d.decodeCells(b, cells, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint(row)
	for _, c := range cells {
		clear(c)
	}
	if got := fmt.Sprint(row); got != want || size != len(bytes.Join(cells, nil)) {
		t.Errorf("%s of %d bytes became %s", want, size, got)
	}
}

// tuple makes a TupleData of text columns; nil is NULL.
func tuple(cells ...[]byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, uint16(len(cells)))
	for _, c := range cells {
		if c == nil {
			p = append(p, 'n')
			continue
		}
		p = append(binary.BigEndian.AppendUint32(append(p, 't'), uint32(len(c))), c...)
	}
	return p
}

func texts(cells ...string) [][]byte {
	out := make([][]byte, len(cells))
	for i, c := range cells {
		out[i] = []byte(c)
	}
	return out
}

// An order is the row of the benchmark and of a few tests.
var orderColumns = []relationColumn{
	{true, "id", oidInt8, -1},
	{false, "customer", oidInt8, -1},
	{false, "quantity", oidInt4, -1},
	{false, "price", oidNumeric, 4 + (10<<16 | 2)},
	{false, "created", oidTimestampTZ, -1},
	{false, "updated", oidTimestampTZ, -1},
	{false, "note", oidText, -1},
	{false, "address", oidText, -1},
	{false, "paid", oidBool, -1},
	{false, "status", oidVarchar, 4 + 20},
}

var orderRow = texts("1234567890123", "9876543210", "42", "12345.67", "2024-02-29 12:34:56.789012+00", "2024-03-01 01:02:03.5+00",
	"leave it at the neighbour's", "12 Long Street, Some Town 12345", "t", "shipped")

// define makes a definition without a server.
func define(cols []relationColumn, types ...*pgType) *tableDef {
	f := &facts{types: typeMap{}, typeNames: make([]string, len(cols))}
	for i, c := range cols {
		f.typeNames[i] = "some type"
		if _, ok := builtin[c.Type]; ok {
			f.types[c.Type] = &pgType{oid: c.Type, typtype: 'b', delimiter: ','}
		}
		f.attributes = append(f.attributes, attribute{relationColumn: c, notNull: c.Key})
	}
	for _, t := range types {
		f.types[t.oid] = t
	}
	m := &relationMessage{OID: 1, Table: capture.TableID{Schema: "public", Name: "t"}, Identity: 'd', Columns: cols}
	return newCatalog("db").build(m, f)
}

func BenchmarkInsert(b *testing.B) {
	d := define(orderColumns)
	m := append([]byte{'I', 0, 0, 0, 1, 'N'}, tuple(orderRow...)...)
	b.SetBytes(int64(len(m)))
	b.ReportAllocs()
	batch := capture.NewBatch()
	n := 0
	for b.Loop() {
		row, err := decodeRow(batch.Copy(m))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := d.decodeTuple(batch, 'N', row.New); err != nil {
			b.Fatal(err)
		}
		if n++; n == 200 {
			n = 0
			batch.Release()
			batch = capture.NewBatch()
		}
	}
}
