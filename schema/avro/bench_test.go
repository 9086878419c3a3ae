package avro

import (
	"context"
	"testing"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/publish"
)

// wideTable is a table as shops have them: 20 columns, 13 of them nullable.
func wideTable() (*capture.Table, capture.Row) {
	i64, i32, text := kind(capture.TypeInt64), kind(capture.TypeInt32), kind(capture.TypeString)
	ts, tz := scaled(capture.TypeTimestamp, 6), scaled(capture.TypeTimestampTZ, 6)
	t := makeTable("orders", []int{0},
		required("id", i64), required("customer_id", i64), required("status", i32), required("qty", i32),
		required("price", numeric(12, 2)), nullable("discount", numeric(12, 2)), nullable("tax", numeric(12, 2)),
		required("created_at", ts), nullable("updated_at", tz), nullable("ship_date", kind(capture.TypeDate)),
		required("name", text), nullable("email", text), nullable("city", text), nullable("country", text), nullable("note", text), nullable("ref", text),
		nullable("active", kind(capture.TypeBool)), nullable("score", kind(capture.TypeFloat64)), nullable("parent_id", i64), nullable("blob", kind(capture.TypeBytes)))
	return t, capture.Row{
		num(100001), num(998877), num(3), num(12), dec("19.99"), dec("1.00"), capture.NullValue,
		capture.TimestampValue(1767225600123456), capture.TimestampTZValue(1767225600123456), capture.DateValue(20500),
		str("ACME Trading GmbH"), str("orders@acme.example"), str("Berlin"), str("DE"), capture.NullValue, capture.NullValue,
		capture.BoolValue(true), capture.FloatValue(0.75), capture.NullValue, capture.NullValue,
	}
}

func batchOf(n int, ev capture.Event) *capture.Batch {
	b := new(capture.Batch)
	for range n {
		b.Events = append(b.Events, ev)
	}
	return b
}

func reset(out *publish.Encoded) {
	out.Records, out.Entries, out.Buf = out.Records[:0], out.Entries[:0], out.Buf[:0]
}

func BenchmarkEncode(b *testing.B) {
	table, row := wideTable()
	partial := make(capture.Row, len(row))
	for i := range partial {
		partial[i] = capture.AbsentValue
	}
	partial[0] = row[0]
	for name, ev := range map[string]capture.Event{
		"insert":         event(capture.Insert, table, nil, row),
		"update-full":    event(capture.Update, table, row, row),
		"delete-partial": event(capture.Delete, table, partial, nil),
	} {
		b.Run(name, func(b *testing.B) {
			const rows = 1000
			h := newHarness(b, nil)
			batch, out := batchOf(rows, ev), new(publish.Encoded)
			if err := h.Encode(context.Background(), batch, out); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(out.Buf)))
			b.ReportAllocs()
			for b.Loop() {
				reset(out)
				if err := h.Encode(context.Background(), batch, out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
		})
	}
}

func TestEncode_AllocatesNothingOnceATableIsKnown(t *testing.T) {
	table, row := wideTable()
	all := makeTable("all", []int{0}, required("id", kind(capture.TypeInt64)),
		nullable("var", kind(capture.TypeVarDecimal)), nullable("wide", numeric(38, 10)), nullable("date", kind(capture.TypeDate)),
		nullable("time", scaled(capture.TypeTime, 6)), nullable("timetz", scaled(capture.TypeTimeTZ, 6)), nullable("interval", kind(capture.TypeInterval)),
		nullable("bits", capture.Type{Kind: capture.TypeBits, Length: 12}), nullable("point", kind(capture.TypePoint)), nullable("geo", kind(capture.TypeGeometry)),
		nullable("arr", arrayOf(kind(capture.TypeInt32))), nullable("map", kind(capture.TypeMap)), nullable("vec", kind(capture.TypeVector)),
		nullable("sparse", kind(capture.TypeSparseVector)), nullable("decs", arrayOf(numeric(10, 2))))
	allRow := capture.Row{
		num(1), dec("12345.6700"), dec("1234567890123456789012345678.1234567890"), capture.DateValue(1), capture.TimeValue(1), capture.TimeTZValue(1, 3600),
		capture.IntervalValue(make([]byte, 8), 1, 2, 3), capture.BytesValue([]byte{1, 2}), capture.PointValue(make([]byte, 16), 1, 2),
		capture.GeometryValue(make([]byte, 21), 4326, true), list(num(1), capture.NullValue, num(2)),
		capture.MapValue([]capture.Value{str("k"), str("v")}, 0), list(capture.FloatValue(1), capture.FloatValue(2)),
		capture.MapValue([]capture.Value{num(1), capture.FloatValue(2)}, 3), list(dec("1.00"), dec("2.50")),
	}
	for name, ev := range map[string]capture.Event{
		"insert": event(capture.Insert, table, nil, row), "update": event(capture.Update, table, row, row),
		"delete": event(capture.Delete, table, row, nil), "read": event(capture.Read, table, nil, row),
		"every type": event(capture.Insert, all, nil, allRow),
	} {
		h := newHarness(t, nil)
		batch, out := batchOf(10, ev), new(publish.Encoded)
		encode := func() {
			reset(out)
			if err := h.Encode(context.Background(), batch, out); err != nil {
				t.Fatal(err)
			}
		}
		encode()
		if n := testing.AllocsPerRun(20, encode); n != 0 {
			t.Errorf("%s: %v allocations for 10 changes, want none", name, n)
		}
	}
}
