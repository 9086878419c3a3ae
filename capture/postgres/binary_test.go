package postgres

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/capture"
)

// binaryTypes are all that the snapshot reads in binary format.
var binaryTypes = []string{"bool", "int2", "int4", "int8", "oid", "float4", "float8", "bytea", "uuid", "date", "time", "timestamp", "timestamptz"}

func TestFormats_AreBinaryWhereTheFormIsExact(t *testing.T) {
	for name := range oids {
		d := decoderOf(t, name, -1)
		if got, want := d.op.hasBinary(), slices.Contains(binaryTypes, name); got != want {
			t.Errorf("%s: binary %t, want %t", name, got, want)
		}
	}
	for _, name := range []string{"bool[]", "uuid[]", "timestamptz[]", "mood", "hstore"} {
		if d := decoderOf(t, name, -1); d.op.hasBinary() {
			t.Errorf("%s is binary", name)
		}
	}
	d := define(orderColumns)
	all, keyed := d.formats(nil), d.formats([]int{0})
	if all[0] != formatBinary || keyed[0] != formatText || !slices.Equal(all[1:], keyed[1:]) {
		t.Errorf("formats %d, with the key %d", all, keyed)
	}
	if got := define([]relationColumn{{false, "a", oidText, -1}}).formats(nil); got != nil {
		t.Errorf("a table of text has formats %d", got)
	}
}

// printed is what the server prints for a cell in binary format, and false where it has
// no such value.
func printed(typ string, cell []byte) (string, bool) {
	size := map[string]int{"bool": 1, "int2": 2, "int4": 4, "oid": 4, "float4": 4, "date": 4, "bytea": len(cell), "uuid": 16}
	if n, ok := size[typ]; ok && n != len(cell) || !ok && len(cell) != 8 {
		return "", false
	}
	var n uint64
	if len(cell) <= 8 {
		n = binary.BigEndian.Uint64(append(make([]byte, 8-len(cell)), cell...))
	}
	moment := func(seconds int64, layout, zone string) string {
		at, era := time.Unix(seconds, 0).UTC(), ""
		year := at.Year()
		if year <= 0 {
			year, era = 1-year, " BC"
		}
		return fmt.Sprintf("%04d", year) + at.Format(layout) + zone + era
	}
	float := func(f float64, bits int) string {
		if math.IsInf(f, 0) {
			return map[bool]string{true: "Infinity", false: "-Infinity"}[f > 0]
		}
		return strconv.FormatFloat(f, 'g', -1, bits)
	}
	switch typ {
	case "bool":
		return map[uint64]string{0: "f", 1: "t"}[n], n <= 1
	case "int2":
		return strconv.Itoa(int(int16(n))), true
	case "int4":
		return strconv.Itoa(int(int32(n))), true
	case "int8":
		return strconv.FormatInt(int64(n), 10), true
	case "oid":
		return strconv.FormatUint(n, 10), true
	case "float4":
		return float(float64(math.Float32frombits(uint32(n))), 32), true
	case "float8":
		return float(math.Float64frombits(n), 64), true
	case "bytea":
		return `\x` + hex.EncodeToString(cell), true
	case "uuid":
		return fmt.Sprintf("%x-%x-%x-%x-%x", cell[:4], cell[4:6], cell[6:8], cell[8:10], cell[10:]), true
	case "date":
		switch days := int32(n); {
		case days == math.MaxInt32:
			return "infinity", true
		case days == math.MinInt32:
			return "-infinity", true
		default:
			return moment((int64(days)+10957)*86400, "-01-02", ""), days >= firstDay && days < dateEnd
		}
	case "time":
		s := n / second
		return fmt.Sprintf("%02d:%02d:%02d.%06d", s/3600, s/60%60, s%60, n%second), n <= day
	}
	zone := map[string]string{"timestamp": "", "timestamptz": "+00"}[typ]
	switch micros := int64(n); {
	case micros == math.MaxInt64:
		return "infinity", true
	case micros == math.MinInt64:
		return "-infinity", true
	default:
		rest := (micros%second + second) % second
		return moment((micros-rest)/second+10957*86400, "-01-02 15:04:05", fmt.Sprintf(".%06d", rest)+zone), micros >= timestampFrom && micros < timestampEnd
	}
}

// checkBinary compares what becomes of a cell in both formats.
func checkBinary(t *testing.T, b *capture.Batch, typ string, cell []byte) {
	t.Helper()
	d := decoderOf(t, typ, -1)
	own := bytes.Clone(cell)
	got, err := d.decodeBinary(b, own)
	if !bytes.Equal(own, cell) {
		t.Fatalf("%s %x: the cell was changed", typ, cell)
	}
	text, ok := printed(typ, cell)
	if !ok {
		if !errors.Is(err, errBinary) {
			t.Errorf("%s %x: %v, %v", typ, cell, got, err)
		}
		return
	}
	want, errText := d.decode(b, []byte(text))
	if err != nil || errText != nil {
		t.Fatalf("%s %x: %v; as text %s: %v", typ, cell, err, text, errText)
	}
	for i := range own {
		own[i] ^= 0xff
	}
	if !bytes.Equal(got.AppendKey(nil), want.AppendKey(nil)) {
		t.Errorf("%s %x is %v, as text %s %v", typ, cell, got, text, want)
	}
}

var binaryEdges = []int64{
	0, 1, -1, 2, 127, 128, -32768, 32767, math.MinInt32, math.MinInt32 + 1, math.MaxInt32, math.MaxInt32 - 1, math.MinInt64, math.MinInt64 + 1, math.MaxInt64, math.MaxInt64 - 1,
	firstDay, firstDay - 1, dateEnd, dateEnd - 1, -epochDays, day, day - 1, day + 1, second - 1, -second + 1, -epochMicros, -epochMicros - 1,
	timestampFrom, timestampFrom - 1, timestampFrom + 1, timestampEnd, timestampEnd - 1,
	lastMicros - epochMicros, lastMicros - epochMicros - 1, lastMicros - epochMicros + 1, lastMicros - epochMicros + 2,
	lastMicros - epochMicros + second - 1, lastMicros - epochMicros + second, lastMicros - epochMicros + second + 1,
}

func TestDecodeBinary_EqualsTheText(t *testing.T) {
	b := capture.NewBatch()
	defer b.Release()
	cells := [][]byte{{}, []byte("0123456789abcdef"), {0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11}, make([]byte, 17)}
	for _, n := range binaryEdges {
		for _, size := range []int{1, 2, 4, 8} {
			cells = append(cells, binary.BigEndian.AppendUint64(nil, uint64(n))[8-size:])
		}
	}
	for _, f := range []float64{0, math.Copysign(0, -1), 0.1, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1), math.NaN(), -math.NaN(), math.Float64frombits(0xfff8000000000123), 1 << 53} {
		cells = append(cells, binary.BigEndian.AppendUint64(nil, math.Float64bits(f)), binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(f))))
	}
	cells = append(cells, binary.BigEndian.AppendUint32(nil, 1), binary.BigEndian.AppendUint32(nil, 0xffc00001)) // the smallest float4, and a NaN
	for _, typ := range binaryTypes {
		for _, cell := range cells {
			checkBinary(t, b, typ, cell)
		}
	}
	text := decoderOf(t, "text", -1)
	if _, err := text.decodeBinary(b, []byte("x")); !errors.Is(err, errBinary) {
		t.Errorf("text in binary format: %v", err)
	}
}

// Every cell means in binary format what its text means.
func FuzzBinary(f *testing.F) {
	for _, n := range binaryEdges {
		f.Add(binary.BigEndian.AppendUint64(nil, uint64(n)))
		f.Add(binary.BigEndian.AppendUint32(nil, uint32(n)))
	}
	for _, s := range []string{"", "\x00", "\x01", "\x02", "\xff\xff", "0123456789abcdef", "\x7f\xc0\x00\x00", "\xff\xf8\x00\x00\x00\x00\x00\x01", "\x80\x00\x00\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, cell []byte) {
		b := capture.NewBatch()
		defer b.Release()
		for _, typ := range binaryTypes {
			checkBinary(t, b, typ, cell)
		}
	})
}

func BenchmarkCells(b *testing.B) {
	d := define(orderColumns)
	id := binary.BigEndian.AppendUint64
	mixed := slices.Clone(orderRow)
	formats := d.formats([]int{0})
	for i := range formats {
		if formats[i] != formatBinary {
			continue
		}
		switch d.columns[i].op {
		case opInt64, opTimestamp, opTimestampTZ:
			mixed[i] = id(nil, 9876543210)
		case opInt32:
			mixed[i] = []byte{0, 0, 0, 42}
		case opBool:
			mixed[i] = []byte{1}
		default:
			b.Fatalf("column %d has operation %d", i, d.columns[i].op)
		}
	}
	for _, c := range []struct {
		name    string
		cells   [][]byte
		formats []int16
	}{{"text", orderRow, nil}, {"binary", mixed, formats}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			batch := capture.NewBatch()
			n := 0
			for b.Loop() {
				if _, _, err := d.decodeCells(batch, c.cells, c.formats); err != nil {
					b.Fatal(err)
				}
				if n++; n == 200 {
					n = 0
					batch.Release()
					batch = capture.NewBatch()
				}
			}
		})
	}
}
