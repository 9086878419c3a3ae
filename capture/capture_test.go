package capture

import (
	"bytes"
	"fmt"
	"math"
	"testing"
	"unsafe"
)

func sampleValues(b *Batch) []Value {
	inner := b.Row(2)
	inner[0], inner[1] = IntValue(1), NullValue
	outer := b.Row(1)
	outer[0] = ArrayValue(inner)
	pairs := b.Row(2)
	pairs[0], pairs[1] = StringValue(b.Copy([]byte("k"))), NullValue
	return []Value{
		NullValue, AbsentValue, UnchangedValue, BoolValue(true), IntValue(math.MinInt64), UintValue(math.MaxUint64),
		FloatValue(math.Inf(-1)), DecimalValue(b.Copy([]byte("-1.50"))), StringValue(b.Copy([]byte("naïve"))),
		StringValue(b.Copy(nil)), BytesValue(b.Copy([]byte{0, 255})), DateValue(-735160), DateValue(PosInfinity),
		TimeValue(86_400_000_000), TimeTZValue(1, -18000), TimestampValue(NegInfinity), TimestampTZValue(5), FarTimestampTZValue(5, 1),
		IntervalValue(b.Alloc(8), -1, 2, -3), PointValue(b.Alloc(16), 1.5, -2), GeometryValue(b.Copy([]byte{1, 2}), 0, true),
		ArrayValue(outer), ArrayValue(nil), MapValue(pairs, 7),
	}
}

func TestValue_IsThreeWords(t *testing.T) {
	if n := unsafe.Sizeof(Value{}); n != 24 {
		t.Errorf("a Value has %d bytes, want 24", n)
	}
}

func TestValue_ReturnsWhatWasPutIn(t *testing.T) {
	b := NewBatch()
	defer b.Release()
	tz := TimeTZValue(1, -18000)
	if tz.Int() != 1 || tz.ZoneOffset() != -18000 {
		t.Errorf("timetz: %v", tz)
	}
	iv := IntervalValue(b.Alloc(8), -1, 2, -3)
	if m, d, us := iv.Interval(); m != -1 || d != 2 || us != -3 {
		t.Errorf("interval: %v", iv)
	}
	pt := PointValue(b.Alloc(16), 1.5, -2)
	if x, y := pt.Point(); x != 1.5 || y != -2 {
		t.Errorf("point: %v", pt)
	}
	g := GeometryValue([]byte{9}, 0, true)
	if s, ok := g.SRID(); s != 0 || !ok {
		t.Errorf("srid 0 got lost: %v %v", s, ok)
	}
	g = GeometryValue([]byte{9}, 0, false)
	if _, ok := g.SRID(); ok {
		t.Error("a geometry without SRID has one")
	}
	inf := DateValue(NegInfinity)
	if inf.Infinite() != -1 {
		t.Error("-infinity is finite")
	}
	if txt := TextValue("x"); string(txt.Bytes()) != "x" {
		t.Error("text")
	}
}

func TestValue_KeysAreEqualExactlyWhenValuesAre(t *testing.T) {
	a, b := NewBatch(), NewBatch()
	defer a.Release()
	defer b.Release()
	va, vb := sampleValues(a), sampleValues(b)
	for i := range va {
		for j := range vb {
			same := bytes.Equal(va[i].AppendKey(nil), vb[j].AppendKey(nil))
			if same != (i == j) {
				t.Errorf("%v and %v: equal keys %v", va[i], vb[j], same)
			}
		}
	}
}

func TestValue_CloneOutlivesItsBatch(t *testing.T) {
	from, to := NewBatch(), NewBatch()
	defer to.Release()
	var want [][]byte
	var clones []Value
	for _, v := range sampleValues(from) {
		want = append(want, v.AppendKey(nil))
		clones = append(clones, v.Clone(to))
	}
	for _, c := range from.bytes.all {
		for i := range c {
			c[i] = 0xEE // what the next user of the memory would do
		}
	}
	from.Release()
	for i := range clones {
		if got := clones[i].AppendKey(nil); !bytes.Equal(got, want[i]) {
			t.Errorf("clone %d changed with the memory it came from: %v", i, clones[i])
		}
	}
}

func TestBatch_MemoryDoesNotMoveOrOverlap(t *testing.T) {
	b := NewBatch()
	defer b.Release()
	var parts [][]byte
	for i := range 2000 {
		p := b.Alloc(1 + i%900)
		for j := range p {
			p[j] = byte(i)
		}
		parts = append(parts, p)
	}
	parts = append(parts, b.Alloc(3<<20))
	for i, p := range parts[:2000] {
		for _, c := range p {
			if c != byte(i) {
				t.Fatalf("part %d was overwritten", i)
			}
		}
		if cap(p) != len(p) {
			t.Fatalf("part %d can grow into its neighbour", i)
		}
	}
}

func TestBatch_ReleasedMemoryIsBounded(t *testing.T) {
	b := new(Batch)
	for range 3 {
		b.Alloc(64 << 20)
		for range 100 {
			b.Alloc(byteChunk)
			b.Row(valueChunk)
		}
		b.Release()
	}
	kept := 0
	for _, c := range b.bytes.all {
		kept += len(c)
	}
	for _, c := range b.values.all {
		kept += 24 * len(c)
	}
	if kept > 2*keepBytes {
		t.Errorf("a released batch keeps %d bytes", kept)
	}
}

func TestBatch_SteadyUseDoesNotAllocate(t *testing.T) {
	b := new(Batch)
	use := func() {
		for range 1000 {
			ev := b.Add()
			ev.After = b.Row(10)
			ev.Tx = b.Tx("x", 1)
			for i := range ev.After {
				ev.After[i] = BytesValue(b.Alloc(18))
			}
		}
		clear(b.Events)
		b.Events = b.Events[:0]
		b.bytes.reset(byteChunk, keepBytes)
		b.values.reset(valueChunk, keepBytes/24)
		b.txs.reset(txChunk, 1024)
	}
	use()
	if n := testing.AllocsPerRun(20, use); n > 0 {
		t.Errorf("%v allocations per batch of 1000 rows", n)
	}
}

func TestTable_EqualSeesEveryDifference(t *testing.T) {
	base := func() *Table {
		return &Table{ID: TableID{"s", "t"}, Key: []int{0}, RowKey: []int{0}, Columns: []Column{
			{Name: "id", Type: Type{Kind: TypeInt64, Name: "bigint"}},
			{Name: "e", Type: Type{Kind: TypeArray, Elem: &Type{Kind: TypeEnum, Labels: []string{"a"}}}, Nullable: true, Default: Default{Kind: DefaultLiteral, Value: TextValue("a")}},
		}}
	}
	if !base().Equal(base()) {
		t.Fatal("equal definitions differ")
	}
	for i, change := range []func(*Table){
		func(t *Table) { t.ID.Name = "u" },
		func(t *Table) { t.Key = nil },
		func(t *Table) { t.RowKey = []int{1} },
		func(t *Table) { t.Origin = &Origin{} },
		func(t *Table) { t.Columns = t.Columns[:1] },
		func(t *Table) { t.Columns[0].Name = "ID" },
		func(t *Table) { t.Columns[0].Nullable = true },
		func(t *Table) { t.Columns[0].Type.Scale = 1 },
		func(t *Table) { t.Columns[1].Type.Elem.Labels = []string{"a", "b"} },
		func(t *Table) { t.Columns[1].Default.Value = TextValue("b") },
		func(t *Table) { t.Columns[1].Default.Kind = DefaultZero },
		func(t *Table) { t.Columns[1].Comment = "c" },
	} {
		o := base()
		change(o)
		if base().Equal(o) {
			t.Errorf("change %d is not seen", i)
		}
	}
}

func ExampleFinding() {
	f := Finding{What: "wal_level is replica", Remedy: "ALTER SYSTEM SET wal_level = logical, then restart"}
	fmt.Println(f.Error())
	// Output: wal_level is replica; remedy: ALTER SYSTEM SET wal_level = logical, then restart
}
