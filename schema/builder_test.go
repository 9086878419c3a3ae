package schema

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

func builder(t *testing.T, adapt func(*Format)) *Builder {
	t.Helper()
	var f Format
	if adapt != nil {
		adapt(&f)
	}
	f.SetDefaults()
	n := Naming{Prefix: "pg"}
	n.SetDefaults()
	b, err := NewBuilder(f, n, capture.Columns{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func define(key []int, cols ...capture.Column) *capture.Table {
	return &capture.Table{ID: capture.TableID{Schema: "own", Name: "t"}, Columns: cols, Key: key, RowKey: key, Origin: &capture.Origin{Connector: "postgresql"}}
}

func col(name string, k capture.TypeKind, null bool) capture.Column {
	return capture.Column{Name: name, Type: capture.Type{Kind: k}, Nullable: null}
}

// row is the text of a table's row fields.
func row(t *testing.T, b *Builder, table *capture.Table) string {
	t.Helper()
	rec, err := b.Table(table)
	if err != nil {
		t.Fatal(err)
	}
	text := rec.Row.JSON()
	_, fields, ok := strings.Cut(text, `"fields":[`)
	if !ok {
		t.Fatal(text)
	}
	return strings.TrimSuffix(fields, `],"connect.name":"pg.own.t.Value"}`)
}

func TestField_HasFourShapes(t *testing.T) {
	t.Parallel()
	def := func(c capture.Column) capture.Column {
		c.Default = capture.Default{Kind: capture.DefaultLiteral, Value: capture.IntValue(5)}
		return c
	}
	i32 := capture.TypeInt32
	for _, c := range []struct {
		col  capture.Column
		want string
	}{
		{col("v", i32, false), `{"name":"v","type":"int"}`},
		{def(col("v", i32, false)), `{"name":"v","type":{"type":"int","connect.default":5},"default":5}`},
		{col("v", i32, true), `{"name":"v","type":["null","int"],"default":null}`},
		{def(col("v", i32, true)), `{"name":"v","type":[{"type":"int","connect.default":5},"null"],"default":5}`},
	} {
		if got := row(t, builder(t, nil), define(nil, c.col)); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestWorkedExample(t *testing.T) {
	t.Parallel()
	zero := capture.Default{Kind: capture.DefaultZero}
	balance := col("balance", capture.TypeDecimal, false)
	balance.Type.Precision, balance.Type.Scale = 10, 2
	balance.Default = capture.Default{Kind: capture.DefaultLiteral, Value: capture.DecimalValue([]byte("0"))}
	id, created, updated := col("id", capture.TypeInt32, false), col("created", capture.TypeTimestamp, true), col("updated", capture.TypeTimestampTZ, true)
	id.Default, updated.Default = zero, zero
	created.Type.Scale, updated.Type.Scale = 6, 6
	table := define([]int{0}, id, col("name", capture.TypeString, false), col("email", capture.TypeString, true), balance,
		col("rating", capture.TypeInt16, true), created, updated)
	table.ID = capture.TableID{Schema: "public", Name: "customers"}
	rec, err := builder(t, nil).Table(table)
	if err != nil {
		t.Fatal(err)
	}
	const key = `{"type":"record","name":"Key","namespace":"pg.public.customers","fields":[{"name":"id","type":{"type":"int","connect.default":0},"default":0}],"connect.name":"pg.public.customers.Key"}`
	if got := rec.Key.JSON(); got != key {
		t.Errorf("key: got %s", got)
	}
	const updatedField = `{"name":"updated","type":[{"type":"string","connect.version":1,"connect.default":"1970-01-01T00:00:00.000000Z","connect.name":"io.debezium.time.ZonedTimestamp"},"null"],"default":"1970-01-01T00:00:00.000000Z"}`
	if got := rec.Envelope.JSON(); !strings.Contains(got, updatedField) || !strings.Contains(got, "\"default\":\"\\u0000\"") {
		t.Errorf("value: got %s", got)
	}
}

func TestNamedTypes_AreDefinedOnce(t *testing.T) {
	t.Parallel()
	array := col("b", capture.TypeArray, true)
	array.Type.Elem = &capture.Type{Kind: capture.TypeVarDecimal}
	got := row(t, builder(t, nil), define(nil, array, col("a", capture.TypeVarDecimal, false), col("g", capture.TypeGeometry, false), col("h", capture.TypeGeometry, true)))
	for name, want := range map[string]int{
		`"name":"VariableScaleDecimal"`: 1, `"name":"Geometry"`: 1,
		`"io.debezium.data.VariableScaleDecimal"`: 2, `{"name":"a","type":"io.debezium.data.VariableScaleDecimal"}`: 1,
		`{"name":"h","type":["null","io.debezium.data.geometry.Geometry"],"default":null}`: 1,
	} {
		if n := strings.Count(got, name); n != want {
			t.Errorf("%s stands %d times, want %d: %s", name, n, want, got)
		}
	}
}

func TestText_IsEscapedAsTheConverterDoes(t *testing.T) {
	t.Parallel()
	c := col("v", capture.TypeString, false)
	c.Default = capture.Default{Kind: capture.DefaultLiteral, Value: capture.TextValue("a\"\\/\b\t\n\f\r\x1f\x7f\u0085é\u2028")}
	want := `"connect.default":"a\"\\/\b\t\n\f\r\u001F` + "\x7f\u0085é\u2028" + `"}`
	if got := row(t, builder(t, nil), define(nil, c)); !strings.Contains(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTypes_FollowTheSettings(t *testing.T) {
	t.Parallel()
	at := func(k capture.TypeKind, scale int) capture.Column {
		c := col("v", k, false)
		c.Type.Scale = scale
		return c
	}
	commented := col("v", capture.TypeInt32, false)
	commented.Comment = "how many"
	labels := col("v", capture.TypeEnum, false)
	labels.Type.Labels = []string{"a", "b,c"}
	named := func(typ, name string) string {
		return `{"type":"` + typ + `","connect.version":1,"connect.name":"` + name + `"}`
	}
	annotated := func(typ, name, logical string) string {
		return strings.TrimSuffix(named(typ, name), "}") + `,"logicalType":"` + logical + `"}`
	}
	mode := func(m string) func(*Format) { return func(f *Format) { f.TimePrecision = m } }
	for _, c := range []struct {
		adapt func(*Format)
		col   capture.Column
		want  string
	}{
		{mode("adaptive"), at(capture.TypeTime, 3), named("int", "io.debezium.time.Time")},
		{mode("adaptive"), at(capture.TypeTime, 6), named("long", "io.debezium.time.MicroTime")},
		{mode("adaptive"), at(capture.TypeTimestamp, 9), named("long", "io.debezium.time.NanoTimestamp")},
		{mode("adaptive_time_microseconds"), at(capture.TypeTime, 0), named("long", "io.debezium.time.MicroTime")},
		{mode("adaptive_time_microseconds"), at(capture.TypeTimestamp, 0), named("long", "io.debezium.time.Timestamp")},
		{mode("microseconds"), at(capture.TypeTimestamp, 0), named("long", "io.debezium.time.MicroTimestamp")},
		{mode("nanoseconds"), at(capture.TypeTime, 0), named("long", "io.debezium.time.NanoTime")},
		{mode("isostring"), at(capture.TypeDate, 0), named("string", "io.debezium.time.IsoDate")},
		{mode("connect"), at(capture.TypeDate, 0), annotated("int", "org.apache.kafka.connect.data.Date", "date")},
		{mode("connect"), at(capture.TypeTime, 6), annotated("int", "org.apache.kafka.connect.data.Time", "time-millis")},
		{mode("connect"), at(capture.TypeTimestamp, 6), annotated("long", "org.apache.kafka.connect.data.Timestamp", "timestamp-millis")},
		{func(f *Format) { f.LogicalTypes = "annotate" }, at(capture.TypeTimestamp, 6), annotated("long", "io.debezium.time.MicroTimestamp", "timestamp-micros")},
		{func(f *Format) { f.LogicalTypes = "annotate" }, at(capture.TypeUUID, 0), annotated("string", "io.debezium.data.Uuid", "uuid")},
		{func(f *Format) { f.Comments = true }, commented, `{"type":"int","connect.doc":"how many"}`},
		{nil, commented, `"int"`},
		{nil, labels, `{"type":"string","connect.version":1,"connect.parameters":{"allowed":"a,b,c"},"connect.name":"io.debezium.data.Enum"}`},
		{func(f *Format) { f.EscapeLabels = true }, labels, `{"type":"string","connect.version":1,"connect.parameters":{"allowed":"a,b\\,c"},"connect.name":"io.debezium.data.Enum"}`},
		{nil, at(capture.TypeBits, 0), `{"type":"bytes","connect.version":1,"connect.parameters":{"length":"2147483647"},"connect.name":"io.debezium.data.Bits"}`},
		{nil, at(capture.TypeSparseVector, 0), `{"type":"record","name":"SparseDoubleVector","namespace":"io.debezium.data","fields":[{"name":"dimensions","type":{"type":"int","connect.type":"int16"}},` +
			`{"name":"vector","type":{"type":"array","items":{"type":"record","name":"MapEntry","namespace":"io.confluent.connect.avro","fields":[{"name":"key","type":{"type":"int","connect.type":"int16"}},` +
			`{"name":"value","type":"double"}]}}}],"connect.doc":"Sparse double vector","connect.version":1,"connect.name":"io.debezium.data.SparseDoubleVector"}`},
		{nil, at(capture.TypeHalfVector, 0), `{"type":"array","items":"float","connect.version":1,"connect.name":"io.debezium.data.FloatVector"}`},
		{func(f *Format) { f.HStore = "map" }, at(capture.TypeMap, 0), `{"type":"map","values":["null","string"]}`},
		{
			func(f *Format) { f.UnsignedBigint = "precise" }, at(capture.TypeUint64, 0),
			`{"type":"bytes","scale":0,"precision":20,"connect.version":1,"connect.parameters":{"scale":"0","connect.decimal.precision":"20"},"connect.name":"org.apache.kafka.connect.data.Decimal","logicalType":"decimal"}`,
		},
	} {
		want := `{"name":"v","type":` + c.want + `}`
		if got := row(t, builder(t, c.adapt), define(nil, c.col)); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}

func TestUnknownTypes_AreNeverDroppedUnseen(t *testing.T) {
	t.Parallel()
	odd := capture.Column{Name: "v", Type: capture.Type{Kind: capture.TypeText, Unmapped: true, Name: "xid8"}}
	id := col("id", capture.TypeInt32, false)
	for mode, want := range map[string]string{
		"text": `{"name":"id","type":"int"},{"name":"v","type":["null","string"],"default":null}`,
		"omit": `{"name":"id","type":"int"}`, "bytes": `{"name":"id","type":"int"},{"name":"v","type":"bytes"}`,
	} {
		b := builder(t, func(f *Format) { f.UnknownTypes = mode })
		if got := row(t, b, define([]int{0}, id, odd)); got != want {
			t.Errorf("%s: got %s, want %s", mode, got, want)
		}
		rec, err := b.Table(define([]int{0}, id, odd))
		if err != nil || len(rec.Notices) != 1 || rec.Notices[0].Kind != NoticeUnmapped || rec.Notices[0].Column != "v" {
			t.Errorf("%s: %v, notices %+v", mode, err, rec.Notices)
		}
		if _, err := b.Table(define([]int{1}, id, odd)); errors.Is(err, ErrTableRefused) != (mode != "text") {
			t.Errorf("%s, in the key: %v", mode, err)
		}
	}
	b := builder(t, func(f *Format) { f.UnknownTypes = "fail" })
	if _, err := b.Table(define([]int{0}, id, odd)); !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), "xid8") {
		t.Errorf("fail: %v", err)
	}
}

func TestKey_FollowsTheRules(t *testing.T) {
	t.Parallel()
	table := func() *capture.Table {
		return define([]int{0}, col("id", capture.TypeInt32, false), col("a", capture.TypeInt32, true), col("b", capture.TypeInt32, false))
	}
	unique := func(rowKey ...int) *capture.Table {
		t := table()
		t.Key, t.KeyIndex, t.RowKey = []int{1}, "t_a_key", rowKey
		return t
	}
	for name, c := range map[string]struct {
		adapt   func(*Format)
		table   *capture.Table
		want    []string
		notices int
	}{
		"primary key":                {nil, table(), []string{"id"}, 0},
		"message.key.columns":        {func(f *Format) { f.KeyColumns = "OWN.T:b,a" }, table(), []string{"b", "a"}, 0},
		"message.key.columns, regex": {func(f *Format) { f.KeyColumns = `x:y;(.*).t:a` }, table(), []string{"a"}, 0},
		"message.key.columns, other": {func(f *Format) { f.KeyColumns = `own.tt:a` }, table(), []string{"id"}, 0},
		"message.key.columns, none":  {func(f *Format) { f.KeyColumns = `own.t:zz` }, table(), []string{"id"}, 0},
		"unique index":               {nil, unique(), []string{"a"}, 1},
		"unique index refused":       {func(f *Format) { f.KeyFallback = "none" }, unique(2), nil, 0},
		"unique index NOT NULL":      {func(f *Format) { f.KeyFallback = "unique_not_null_index" }, unique(2), []string{"b"}, 0},
		"unique index nullable":      {func(f *Format) { f.KeyFallback = "unique_not_null_index" }, unique(), nil, 0},
	} {
		rec, err := builder(t, c.adapt).Table(c.table)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		if rec.Key != nil {
			for _, f := range rec.Key.Fields {
				got = append(got, f.Name)
			}
		}
		if !slices.Equal(got, c.want) || len(rec.Notices) != c.notices {
			t.Errorf("%s: got %v, notices %+v, want %v", name, got, rec.Notices, c.want)
		}
	}
}

func TestMessage_HasFixedRecords(t *testing.T) {
	t.Parallel()
	key, value := builder(t, nil).Message(&capture.Origin{Connector: "postgresql"})
	if got, want := key.JSON(), `{"type":"record","name":"MessageKey","namespace":"io.debezium.connector.postgresql","fields":[{"name":"prefix","type":["null","string"],"default":null}],`+
		`"connect.version":1,"connect.name":"io.debezium.connector.postgresql.MessageKey"}`; got != want {
		t.Errorf("key: got %s", got)
	}
	for _, want := range []string{
		`{"type":"record","name":"MessageValue","namespace":"io.debezium.connector.postgresql","fields":[{"name":"op","type":"string"},{"name":"ts_ms","type":["null","long"],"default":null},{"name":"source","type":{"type":"record","name":"Source","fields":[`,
		`{"name":"message","type":{"type":"record","name":"Message","fields":[{"name":"prefix","type":["null","string"],"default":null},{"name":"content","type":["null","bytes"],"default":null}],"connect.version":1,`,
	} {
		if !strings.Contains(value.JSON(), want) {
			t.Errorf("value: got %s", value.JSON())
		}
	}
}

func TestRegistered_KeepsWhatWasNullable(t *testing.T) {
	t.Parallel()
	b := builder(t, nil)
	rec := func(null bool, more ...capture.Column) *Table {
		r, err := b.Table(define([]int{0}, append([]capture.Column{col("id", capture.TypeInt32, false), col("v", capture.TypeDate, null)}, more...)...))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	old, err := ParseRegistered(rec(true).Envelope.JSON())
	if err != nil {
		t.Fatal(err)
	}
	now := rec(false)
	if got := old.Widen(now.Row); !slices.Equal(got, []string{"v"}) {
		t.Errorf("widened %v", got)
	}
	if now.Envelope.JSON() != rec(true).Envelope.JSON() {
		t.Error("the widened record schema is another one")
	}
	if diffs := old.Differences(now.Row); len(diffs) != 0 {
		t.Errorf("differences: %v", diffs)
	}
	if diffs := old.Differences(rec(true, col("w", capture.TypeInt32, false)).Row); len(diffs) != 1 || !strings.Contains(diffs[0], "field w is new") {
		t.Errorf("differences: %v", diffs)
	}
	if _, err := ParseRegistered("{"); err == nil {
		t.Error("damaged text is taken")
	}
}
