package avro

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	hamba "github.com/hamba/avro/v2"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/schema"
)

// fakeRegistry numbers record schemas from 1 and refuses what refuse says.
type fakeRegistry struct {
	texts    []string
	subjects map[string][]int
	refuse   func(subject, text string) error
}

func newRegistry() *fakeRegistry { return &fakeRegistry{subjects: make(map[string][]int)} }

func (r *fakeRegistry) Register(_ context.Context, subject, text string) (int, error) {
	if r.refuse != nil {
		if err := r.refuse(subject, text); err != nil {
			return 0, err
		}
	}
	id := 0
	for i, t := range r.texts {
		if t == text {
			id = i + 1
		}
	}
	if id == 0 {
		r.texts = append(r.texts, text)
		id = len(r.texts)
	}
	r.subjects[subject] = append(r.subjects[subject], id)
	return id, nil
}

func (r *fakeRegistry) Latest(_ context.Context, subject string) (string, int, bool, error) {
	ids := r.subjects[subject]
	if len(ids) == 0 {
		return "", 0, false, nil
	}
	id := ids[len(ids)-1]
	return r.texts[id-1], id, true, nil
}

// fakeTopics gives every topic as many partitions as it is, and has none when it is 0.
type fakeTopics int32

func (n fakeTopics) Ensure(_ context.Context, _ string, known bool, _ string) (int32, string, error) {
	if n == 0 && known {
		return 0, "", publish.ErrRefused
	}
	return max(int32(n), 1), "", nil
}

// numberedTopics gives every topic its id, and remembers which one was known before.
type numberedTopics struct {
	fakeTopics
	id    string
	asked []string
}

func (n *numberedTopics) Ensure(ctx context.Context, topic string, known bool, id string) (int32, string, error) {
	n.asked = append(n.asked, id)
	partitions, _, err := n.fakeTopics.Ensure(ctx, topic, known, id)
	return partitions, n.id, err
}

var testClock = time.UnixMicro(1767225600123456).Add(789)

// harness is an Encoder with its surroundings.
type harness struct {
	*Encoder
	registry *fakeRegistry
	notices  []schema.Notice
}

func newHarness(t testing.TB, adapt func(*Config)) *harness {
	t.Helper()
	h := &harness{registry: newRegistry()}
	cfg := Config{
		Naming: schema.Naming{Prefix: "pg"}, Version: "0.1.0",
		Now:    func() time.Time { return testClock },
		Notify: func(n schema.Notice) { h.notices = append(h.notices, n) },
	}
	if adapt != nil {
		adapt(&cfg)
	}
	e, err := New(cfg, h.registry, fakeTopics(12))
	if err != nil {
		t.Fatal(err)
	}
	h.Encoder = e
	return h
}

// encode encodes one event.
func (h *harness) encode(ev capture.Event) (*publish.Encoded, error) {
	b := &capture.Batch{Events: []capture.Event{ev}}
	out := new(publish.Encoded)
	err := h.Encode(context.Background(), b, out)
	return out, err
}

func (h *harness) mustEncode(t testing.TB, ev capture.Event) *publish.Encoded {
	t.Helper()
	out, err := h.encode(ev)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// decode reads framed Avro with a generic library, into the raw form of the golden
// rows: bytes as 0x…, NaN and infinities as text, no logical types.
func (h *harness) decode(t testing.TB, framed []byte) map[string]any {
	t.Helper()
	if len(framed) < 5 || framed[0] != 0 {
		t.Fatalf("not framed: %x", framed)
	}
	text := h.registry.texts[binary.BigEndian.Uint32(framed[1:5])-1]
	s, err := hamba.ParseWithCache(text, "", &hamba.SchemaCache{})
	if err != nil {
		t.Fatal(err)
	}
	r := hamba.NewReader(nil, 0).Reset(framed[5:])
	v := decodeRaw(r, s)
	if r.Error != nil {
		t.Fatalf("decode %x: %v", framed, r.Error)
	}
	r.ReadBool() // nothing must be left
	if r.Error == nil {
		t.Fatalf("bytes are left after the datum %x", framed)
	}
	return v.(map[string]any)
}

func decodeRaw(r *hamba.Reader, s hamba.Schema) any {
	switch s := s.(type) {
	case *hamba.RefSchema:
		return decodeRaw(r, s.Schema())
	case *hamba.RecordSchema:
		m := make(map[string]any)
		for _, f := range s.Fields() {
			m[f.Name()] = decodeRaw(r, f.Type())
		}
		return m
	case *hamba.UnionSchema:
		return decodeRaw(r, s.Types()[r.ReadLong()])
	case *hamba.ArraySchema:
		l := []any{}
		r.ReadArrayCB(func(r *hamba.Reader) bool { l = append(l, decodeRaw(r, s.Items())); return true })
		return l
	case *hamba.MapSchema:
		m := make(map[string]any)
		r.ReadMapCB(func(r *hamba.Reader, k string) bool { m[k] = decodeRaw(r, s.Values()); return true })
		return m
	}
	switch s.Type() {
	case hamba.Boolean:
		return r.ReadBool()
	case hamba.Int:
		return int64(r.ReadInt())
	case hamba.Long:
		return r.ReadLong()
	case hamba.Float:
		return rawFloat(float64(r.ReadFloat()))
	case hamba.Double:
		return rawFloat(r.ReadDouble())
	case hamba.String:
		return r.ReadString()
	case hamba.Bytes:
		return "0x" + hex.EncodeToString(r.ReadBytes())
	}
	return nil
}

func rawFloat(f float64) any {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return f
}

var testOrigin = &capture.Origin{
	Connector: "postgresql", Database: "shop",
	Fields: []capture.OriginField{
		{Name: "schema", Type: capture.TypeString, From: capture.FromSchema},
		{Name: "table", Type: capture.TypeString, From: capture.FromTable},
		{Name: "txId", Type: capture.TypeInt64, Optional: true},
		{Name: "lsn", Type: capture.TypeInt64, Optional: true},
		{Name: "xmin", Type: capture.TypeInt64, Optional: true},
		{Name: "origin", Type: capture.TypeString, Optional: true},
		{Name: "origin_lsn", Type: capture.TypeInt64, Optional: true},
	},
}

var testOriginRow = capture.Row{capture.IntValue(555), capture.IntValue(24023128), capture.NullValue, capture.NullValue, capture.NullValue}

func makeTable(name string, key []int, cols ...capture.Column) *capture.Table {
	return &capture.Table{ID: capture.TableID{Schema: "public", Name: name}, Columns: cols, Key: key, RowKey: key, Origin: testOrigin}
}

func required(name string, t capture.Type) capture.Column {
	return capture.Column{Name: name, Type: t}
}

func nullable(name string, t capture.Type) capture.Column {
	return capture.Column{Name: name, Type: t, Nullable: true}
}

func withDefault(c capture.Column, v capture.Value) capture.Column {
	c.Default = capture.Default{Kind: capture.DefaultLiteral, Value: v}
	return c
}

func kind(k capture.TypeKind) capture.Type { return capture.Type{Kind: k} }

func scaled(k capture.TypeKind, s int) capture.Type { return capture.Type{Kind: k, Scale: s} }

func numeric(p, s int) capture.Type {
	return capture.Type{Kind: capture.TypeDecimal, Precision: p, Scale: s}
}

func arrayOf(t capture.Type) capture.Type { return capture.Type{Kind: capture.TypeArray, Elem: &t} }

func event(op capture.Op, t *capture.Table, before, after capture.Row) capture.Event {
	return capture.Event{
		Kind: capture.Change, Op: op, Table: t, Before: before, After: after, Origin: testOriginRow,
		Sequence: capture.TextValue(`["24023128","24023128"]`), Time: 1767225600000001,
	}
}

func str(s string) capture.Value { return capture.TextValue(s) }

func dec(s string) capture.Value { return capture.DecimalValue([]byte(s)) }

func num(i int64) capture.Value { return capture.IntValue(i) }

func list(v ...capture.Value) capture.Value { return capture.ArrayValue(v) }

func header(r *publish.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func headerNames(r *publish.Record) string {
	var names []string
	for _, h := range r.Headers {
		names = append(names, strings.TrimPrefix(h.Key, "__debezium."))
	}
	return strings.Join(names, " ")
}

func show(v any) string { return fmt.Sprintf("%#v", v) }
