package avro

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/schema"
)

func people() *capture.Table {
	return makeTable("people", []int{0}, required("id", kind(capture.TypeInt32)), required("name", kind(capture.TypeString)), nullable("note", kind(capture.TypeString)))
}

func person(id int64, name string) capture.Row {
	return capture.Row{num(id), str(name), capture.NullValue}
}

func TestInsert_IsOneFramedEnvelope(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	ev := event(capture.Insert, people(), nil, person(7, "Ada"))
	out := h.mustEncode(t, ev)
	if len(out.Records) != 1 {
		t.Fatalf("got %d records, want 1", len(out.Records))
	}
	r := &out.Records[0]
	if r.Topic != "pg.public.people" {
		t.Errorf("topic: got %s", r.Topic)
	}
	if got, want := slices.Sorted(maps.Keys(h.registry.subjects)), []string{"pg.public.people-key", "pg.public.people-value"}; !slices.Equal(got, want) {
		t.Errorf("subjects: got %v, want %v", got, want)
	}
	if key := h.decode(t, r.Key); key["id"] != int64(7) || len(key) != 1 {
		t.Errorf("key: got %v", key)
	}
	v := h.decode(t, r.Value)
	source := v["source"].(map[string]any)
	for name, want := range map[string]any{
		"version": "0.1.0", "connector": "postgresql", "name": "pg", "ts_ms": int64(1767225600000), "snapshot": "false", "db": "shop",
		"sequence": `["24023128","24023128"]`, "ts_us": int64(1767225600000001), "ts_ns": int64(1767225600000001000),
		"schema": "public", "table": "people", "txId": int64(555), "lsn": int64(24023128), "xmin": nil, "origin": nil, "origin_lsn": nil,
	} {
		if source[name] != want {
			t.Errorf("source.%s: got %v, want %v", name, source[name], want)
		}
	}
	for name, want := range map[string]any{
		"before": nil, "transaction": nil, "op": "c",
		"ts_ms": int64(1767225600123), "ts_us": int64(1767225600123456), "ts_ns": int64(1767225600123456789),
	} {
		if v[name] != want {
			t.Errorf("%s: got %v, want %v", name, v[name], want)
		}
	}
	if after := v["after"].(map[string]any); after["id"] != int64(7) || after["name"] != "Ada" || after["note"] != nil {
		t.Errorf("after: got %v", after)
	}
}

func TestOperations_BecomeRecords(t *testing.T) {
	t.Parallel()
	const context = "context.connectorLogicalName context.taskId context.connectorName"
	table := people()
	old, now := person(1, "Ada"), person(1, "Ada L.")
	identity := capture.Row{num(1), capture.AbsentValue, capture.AbsentValue}
	for name, c := range map[string]struct {
		ev   capture.Event
		want []string // op of before/after, or tombstone
	}{
		"insert":                      {event(capture.Insert, table, nil, now), []string{"c -/Ada L."}},
		"read":                        {event(capture.Read, table, nil, now), []string{"r -/Ada L."}},
		"update without before":       {event(capture.Update, table, nil, now), []string{"u -/Ada L."}},
		"update with before":          {event(capture.Update, table, old, now), []string{"u Ada/Ada L."}},
		"update with identity before": {event(capture.Update, table, identity, now), []string{"u -/Ada L."}},
		"delete":                      {event(capture.Delete, table, old, nil), []string{"d Ada/-", "tombstone"}},
		"delete with identity":        {event(capture.Delete, table, identity, nil), []string{"d /-", "tombstone"}},
	} {
		h := newHarness(t, nil)
		out := h.mustEncode(t, c.ev)
		var got []string
		for i := range out.Records {
			r := &out.Records[i]
			if headerNames(r) != context {
				t.Errorf("%s: headers %s", name, headerNames(r))
			}
			if key := h.decode(t, r.Key); key["id"] != int64(1) {
				t.Errorf("%s: key %v", name, key)
			}
			if r.Value == nil {
				got = append(got, "tombstone")
				continue
			}
			v := h.decode(t, r.Value)
			got = append(got, v["op"].(string)+" "+nameIn(v["before"])+"/"+nameIn(v["after"]))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func nameIn(image any) string {
	if image == nil {
		return "-"
	}
	return image.(map[string]any)["name"].(string)
}

func TestKeyChange_IsDeleteTombstoneInsert(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	table := people()
	before := capture.Row{num(1004), capture.AbsentValue, capture.AbsentValue}
	out := h.mustEncode(t, event(capture.Update, table, before, person(1005, "Ada")))
	if len(out.Records) != 3 {
		t.Fatalf("got %d records, want 3", len(out.Records))
	}
	const context = " context.connectorLogicalName context.taskId context.connectorName"
	for i, want := range []struct {
		key    int64
		op     any
		header string
		text   string
	}{
		{1004, "d", "newkey", `{"id":1005}`}, {1004, nil, "newkey", `{"id":1005}`}, {1005, "c", "oldkey", `{"id":1004}`},
	} {
		r := &out.Records[i]
		if key := h.decode(t, r.Key); key["id"] != want.key {
			t.Errorf("record %d: key %v, want %d", i, key, want.key)
		}
		if headerNames(r) != want.header+context {
			t.Errorf("record %d: headers %s", i, headerNames(r))
		}
		if got := header(r, "__debezium."+want.header); got != want.text {
			t.Errorf("record %d: %s is %s, want %s", i, want.header, got, want.text)
		}
		if want.op == nil {
			if r.Value != nil {
				t.Errorf("record %d is no tombstone", i)
			}
			continue
		}
		v := h.decode(t, r.Value)
		if v["op"] != want.op || v["source"].(map[string]any)["lsn"] != int64(24023128) {
			t.Errorf("record %d: %v", i, v)
		}
	}
	if v := h.decode(t, out.Records[2].Value); v["before"] != nil {
		t.Errorf("the insert has a before: %v", v["before"])
	}
}

func TestTombstones_CanBeSwitchedOff(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { c.Format.Tombstones = new(bool) })
	if out := h.mustEncode(t, event(capture.Delete, people(), person(1, "Ada"), nil)); len(out.Records) != 1 {
		t.Errorf("got %d records, want 1", len(out.Records))
	}
}

func TestKeylessTable_HasNullKeysInOnePartition(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	table := makeTable("log", nil, nullable("a", kind(capture.TypeInt32)))
	for i := range int64(20) {
		out := h.mustEncode(t, event(capture.Delete, table, capture.Row{num(i)}, nil))
		if len(out.Records) != 2 || out.Records[1].Value != nil {
			t.Fatalf("got %d records", len(out.Records))
		}
		for _, r := range out.Records {
			if r.Key != nil || r.Partition != (murmur2([]byte("pg.public.log"))&0x7fffffff)%12 {
				t.Fatalf("key %x, partition %d", r.Key, r.Partition)
			}
		}
	}
	if len(h.registry.subjects) != 1 {
		t.Errorf("subjects: %v", h.registry.subjects)
	}
}

func TestTableWithoutColumns_Works(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	out := h.mustEncode(t, event(capture.Insert, makeTable("empty", nil), nil, capture.Row{}))
	if after := h.decode(t, out.Records[0].Value)["after"].(map[string]any); len(after) != 0 {
		t.Errorf("after: %v", after)
	}
}

func TestSnapshotMarks(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	for mark, want := range map[capture.SnapshotMark]string{
		capture.NotSnapshot: "false", capture.SnapshotRow: "true", capture.SnapshotFirst: "first", capture.SnapshotLast: "last",
		capture.SnapshotFirstInTable: "first_in_data_collection", capture.SnapshotLastInTable: "last_in_data_collection",
	} {
		ev := event(capture.Read, people(), nil, person(1, "Ada"))
		ev.Snapshot = mark
		ev.Sequence = capture.NullValue
		source := h.decode(t, h.mustEncode(t, ev).Records[0].Value)["source"].(map[string]any)
		if source["snapshot"] != want || source["sequence"] != nil {
			t.Errorf("got %v, want %s", source, want)
		}
	}
}

func TestTruncate_IsCountedAndPublishedOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	table := people()
	h := newHarness(t, nil)
	for range 3 {
		if out := h.mustEncode(t, event(capture.Truncate, table, nil, nil)); len(out.Records) != 0 {
			t.Errorf("got %d records, want none", len(out.Records))
		}
	}
	if len(h.notices) != 3 || !h.notices[0].First || h.notices[1].First || h.notices[0].Kind != schema.NoticeTruncate {
		t.Errorf("notices: %+v", h.notices)
	}
	h = newHarness(t, func(c *Config) { c.Format.Skipped = "none" })
	out := h.mustEncode(t, event(capture.Truncate, table, nil, nil))
	if len(out.Records) != 1 || out.Records[0].Key != nil {
		t.Fatalf("records: %+v", out.Records)
	}
	if v := h.decode(t, out.Records[0].Value); v["op"] != "t" || v["before"] != nil || v["after"] != nil {
		t.Errorf("got %v", v)
	}
}

func TestSkippedOperations_LeaveNoRecord(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { c.Format.Skipped = "c, d" })
	table := people()
	for op, want := range map[capture.Op]int{capture.Insert: 0, capture.Delete: 0, capture.Update: 1, capture.Read: 1} {
		if out := h.mustEncode(t, event(op, table, person(1, "a"), person(1, "b"))); len(out.Records) != want {
			t.Errorf("%s: got %d records, want %d", op, len(out.Records), want)
		}
	}
}

func TestBatch_OnlyChangesLeaveRecordsAndOnlyOwnNotesEntries(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	b := &capture.Batch{
		Events: []capture.Event{
			{Kind: capture.Watermark, Mark: 1},
			event(capture.Insert, people(), nil, person(1, "Ada")),
			{Kind: capture.Commit, Entries: []capture.Entry{{Key: "s/people", Value: []byte("x")}}},
		},
		End: `{"lsn":"0/1"}`, InTx: &capture.InTx{ID: "7", Done: 3},
	}
	out := new(publish.Encoded)
	if err := h.Encode(context.Background(), b, out); err != nil {
		t.Fatal(err)
	}
	if len(out.Records) != 1 {
		t.Errorf("got %+v", out)
	}
	var keys []string
	for _, e := range out.Entries {
		keys = append(keys, e.Key)
	}
	if want := []string{"t/pg.public.people"}; !slices.Equal(keys, want) {
		t.Errorf("entries: got %v, want %v", keys, want)
	}
}

func TestContextHeaders_AreSharedAndOptional(t *testing.T) {
	t.Parallel()
	table := people()
	h := newHarness(t, func(c *Config) { c.RunID = "0198" })
	a, b := h.mustEncode(t, event(capture.Insert, table, nil, person(1, "a"))), h.mustEncode(t, event(capture.Insert, table, nil, person(2, "b")))
	if &a.Records[0].Headers[0] != &b.Records[0].Headers[0] {
		t.Error("the records have headers of their own")
	}
	for key, want := range map[string]string{"connectorLogicalName": "pg", "taskId": "0", "connectorName": "postgresql", "runId": "0198"} {
		if got := header(&a.Records[0], "__debezium.context."+key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	h = newHarness(t, func(c *Config) { c.Format.ContextHeaders = new(bool) })
	if out := h.mustEncode(t, event(capture.Insert, table, nil, person(1, "a"))); len(out.Records[0].Headers) != 0 {
		t.Errorf("headers: %v", out.Records[0].Headers)
	}
}

func TestPositions_NameEachChangeOfATransaction(t *testing.T) {
	t.Parallel()
	table := people()
	at := func(ev capture.Event, commit string, n uint64) capture.Event {
		ev.Tx, ev.Ordinal = &capture.Tx{ID: "555", Commit: commit}, n
		return ev
	}
	events := []capture.Event{
		at(event(capture.Insert, table, nil, person(1, "a")), "0/16B3748", 1),
		at(event(capture.Update, table, person(1, "a"), person(2, "a")), "0/16B3748", 2),
		at(event(capture.Truncate, table, nil, nil), "0/16B3748", 3),
		at(event(capture.Message, &capture.Table{Origin: testOrigin}, nil, capture.Row{str("p"), capture.BytesValue(nil)}), "", 4),
		at(event(capture.Insert, table, nil, person(3, "no number")), "0/16B3748", 0),
		event(capture.Read, table, nil, person(4, "of a snapshot")),
	}
	want := []string{"0/16B3748/1", "0/16B3748/2", "0/16B3748/2", "0/16B3748/2", "0/16B3748/3", "555/4", "", ""}
	for _, on := range []bool{true, false} {
		h := newHarness(t, func(c *Config) { c.Format.Positions, c.Format.Skipped = &on, "none" })
		var records []publish.Record
		for _, ev := range events {
			records = append(records, h.mustEncode(t, ev).Records...)
		}
		if len(records) != len(want) {
			t.Fatalf("%d records, want %d", len(records), len(want))
		}
		for i := range records {
			if got := header(&records[i], headerPosition); on && got != want[i] || !on && got != "" {
				t.Errorf("record %d (asked for: %t): got %q, want %q", i, on, got, want[i])
			}
		}
	}
	// Of many, each has its own.
	h := newHarness(t, func(c *Config) { c.Format.Positions = new(true) })
	var records []publish.Record
	for n := range uint64(5000) {
		records = append(records, h.mustEncode(t, at(events[0], "mysql-bin.000003:4", n+1)).Records...)
	}
	for i := range records {
		if got, want := header(&records[i], headerPosition), fmt.Sprintf("mysql-bin.000003:4/%d", i+1); got != want {
			t.Fatalf("record %d: got %q, want %q", i, got, want)
		}
	}
}

func TestMessage_HasAnEnvelopeOfItsOwn(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	table := &capture.Table{Origin: testOrigin}
	out := h.mustEncode(t, event(capture.Message, table, nil, capture.Row{str("audit"), capture.BytesValue([]byte("hi"))}))
	r := &out.Records[0]
	if r.Topic != "pg.message" || len(r.Headers) != 0 {
		t.Errorf("topic %s, headers %v", r.Topic, r.Headers)
	}
	if key := h.decode(t, r.Key); key["prefix"] != "audit" {
		t.Errorf("key: %v", key)
	}
	v := h.decode(t, r.Value)
	message, source := v["message"].(map[string]any), v["source"].(map[string]any)
	if v["op"] != "m" || v["ts_ms"] != int64(1767225600123) || message["prefix"] != "audit" || message["content"] != "0x6869" ||
		source["schema"] != "" || source["table"] != "" || len(v) != 5 {
		t.Errorf("got %v", v)
	}
}

func TestViews_StayValidWhileTheBufferGrows(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	table := people()
	b := new(capture.Batch)
	for i := range int64(2000) {
		b.Events = append(b.Events, event(capture.Insert, table, nil, person(i, strings.Repeat("x", int(i%50)))))
	}
	out := new(publish.Encoded)
	if err := h.Encode(context.Background(), b, out); err != nil {
		t.Fatal(err)
	}
	for i := range out.Records {
		r := &out.Records[i]
		if h.decode(t, r.Key)["id"] != int64(i) || h.decode(t, r.Value)["after"].(map[string]any)["id"] != int64(i) {
			t.Fatalf("record %d is damaged", i)
		}
	}
}

func TestFieldCollision_RefusesThatTableAlone(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	bad := makeTable("bad", []int{0}, required("a-b", kind(capture.TypeInt32)), required("a_b", kind(capture.TypeInt32)))
	if err := h.Check(bad); !errors.Is(err, schema.ErrTableRefused) || !strings.Contains(err.Error(), `"a-b"`) || !strings.Contains(err.Error(), "remedy") {
		t.Errorf("check: %v", err)
	}
	for range 2 {
		if out := h.mustEncode(t, event(capture.Insert, bad, nil, capture.Row{num(1), num(2)})); len(out.Records) != 0 {
			t.Errorf("got %d records", len(out.Records))
		}
	}
	if out := h.mustEncode(t, event(capture.Insert, people(), nil, person(1, "Ada"))); len(out.Records) != 1 {
		t.Error("the other table does not go on")
	}
	if len(h.notices) != 2 || h.notices[0].Kind != schema.NoticeRefused || !h.notices[0].First || h.notices[1].First {
		t.Errorf("notices: %+v", h.notices)
	}
}

func TestSharedNames_AreReported(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		names [2]string
		want  []schema.NoticeKind
	}{
		{[2]string{"a b", "a$b"}, []schema.NoticeKind{schema.NoticeTopicShared, schema.NoticeNameShared}},
		{[2]string{"a-b", "a_b"}, []schema.NoticeKind{schema.NoticeNameShared}},
		{[2]string{"a", "A"}, nil},
	} {
		h := newHarness(t, nil)
		for _, name := range c.names {
			h.mustEncode(t, event(capture.Insert, makeTable(name, []int{0}, required("id", kind(capture.TypeInt32))), nil, capture.Row{num(1)}))
		}
		var got []schema.NoticeKind
		for _, n := range h.notices {
			got = append(got, n.Kind)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: got %v, want %v", c.names, got, c.want)
		}
	}
}

func TestMarks_NameEveryFieldOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { c.MaxRecordBytes = 1 << 20 })
	text := kind(capture.TypeString)
	table := makeTable("t", []int{0}, required("id", kind(capture.TypeInt32)), nullable("a", text), nullable("ab", text), nullable("n", arrayOf(numeric(5, 2))))
	nans := list(dec("NaN"), dec("Infinity"), dec("NaN"))
	out := h.mustEncode(t, event(capture.Update, table, capture.Row{num(1), capture.UnchangedValue, str("x"), nans}, capture.Row{num(1), capture.UnchangedValue, capture.UnchangedValue, nans}))
	r := &out.Records[0]
	if got := header(r, headerUnavailable); got != "a,ab" {
		t.Errorf("unavailable: %q", got)
	}
	if got := header(r, headerUnrepresentable); got != "n=NaN,n=Infinity" {
		t.Errorf("unrepresentable: %q", got)
	}
	// The next record is clean again.
	out = h.mustEncode(t, event(capture.Insert, table, nil, capture.Row{num(1), str("x"), str("y"), list()}))
	if got := len(out.Records[0].Headers); got != 3 {
		t.Errorf("%d headers are left over", got)
	}
}

func TestSetting_FailStopsThePipeline(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { c.Format.UnknownTypes = "fail" })
	table := makeTable("t", nil, nullable("v", capture.Type{Kind: capture.TypeText, Unmapped: true, Name: "xid8"}))
	if _, err := h.encode(event(capture.Insert, table, nil, capture.Row{str("1")})); !errors.Is(err, capture.ErrMisconfigured) {
		t.Errorf("got %v", err)
	}
}

func TestIllegalNames_AreNeverRegistered(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { c.Format.SchemaNames, c.Format.FieldNames = "none", "none" })
	row := capture.Row{num(1)}
	_, err := h.encode(event(capture.Insert, makeTable("t", []int{0}, required("order-id", kind(capture.TypeInt32))), nil, row))
	if !errors.Is(err, capture.ErrMisconfigured) || len(h.registry.texts) != 0 {
		t.Errorf("got %v, %d record schemas", err, len(h.registry.texts))
	}
	// Java's Avro, and so Debezium, has namespaces with parts that begin with a digit.
	h = newHarness(t, nil)
	h.mustEncode(t, event(capture.Insert, makeTable("2024sales", []int{0}, required("id", kind(capture.TypeInt32))), nil, row))
	if !strings.Contains(h.registry.texts[1], `"namespace":"pg.public.2024sales"`) {
		t.Errorf("got %s", h.registry.texts[1])
	}
}

func TestRegisteredSchemas_PassOurLastCheck(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../testdata/debezium-3.6.1-schemas.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for d := json.NewDecoder(f); d.More(); n++ {
		var g struct{ DB, Table, Role, Text string }
		if err := d.Decode(&g); err != nil {
			t.Fatal(err)
		}
		err := parses(strings.ReplaceAll(g.Text, "@.", "pfx."))
		if nan := strings.Contains(g.Text, `"default":"NaN"`); (err != nil) != nan {
			t.Errorf("%s.%s %s: %v", g.DB, g.Table, g.Role, err)
		}
	}
	if n < 200 {
		t.Errorf("only %d record schemas were read", n)
	}
}

func TestNullability_OnlyWidens(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	id := required("id", kind(capture.TypeInt32))
	loose, strict := nullable("v", kind(capture.TypeInt32)), required("v", kind(capture.TypeInt32))
	first := h.mustEncode(t, event(capture.Insert, makeTable("t", []int{0}, id, loose), nil, capture.Row{num(1), capture.NullValue}))
	second := h.mustEncode(t, event(capture.Insert, makeTable("t", []int{0}, id, strict), nil, capture.Row{num(1), num(2)}))
	if a, b := binary.BigEndian.Uint32(first.Records[0].Value[1:]), binary.BigEndian.Uint32(second.Records[0].Value[1:]); a != b {
		t.Errorf("SET NOT NULL made a new record schema: %d, then %d", a, b)
	}
	if v := h.decode(t, second.Records[0].Value)["after"].(map[string]any)["v"]; v != int64(2) {
		t.Errorf("got %v", v)
	}
	if len(h.notices) != 1 || h.notices[0].Kind != schema.NoticeWidened || h.notices[0].Column != "v" {
		t.Errorf("notices: %+v", h.notices)
	}
}

func TestIncompatible_NamesTableFieldAndRemedy(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	id := required("id", kind(capture.TypeInt32))
	h.mustEncode(t, event(capture.Insert, makeTable("t", []int{0}, id, nullable("v", kind(capture.TypeInt32))), nil, capture.Row{num(1), num(1)}))
	h.registry.refuse = func(subject, _ string) error {
		if strings.HasSuffix(subject, "-value") {
			return &schema.IncompatibleError{Subject: subject, Reason: "READER_FIELD_MISSING_DEFAULT_VALUE"}
		}
		return nil
	}
	_, err := h.encode(event(capture.Insert, makeTable("t", []int{0}, id, nullable("v", kind(capture.TypeString))), nil, capture.Row{num(1), str("x")}))
	var e *schema.IncompatibleError
	if !errors.Is(err, schema.ErrIncompatible) || !errors.As(err, &e) {
		t.Fatalf("got %v", err)
	}
	if e.Table.Name != "t" || e.Subject != "pg.public.t-value" {
		t.Errorf("got %+v", e)
	}
	for _, want := range []string{"field v was int and is now string", "READER_FIELD_MISSING_DEFAULT_VALUE", "remedy"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestLargeRecord_IsRefusedBeforeTheSink(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { c.MaxRecordBytes = 2000 })
	table := people()
	h.mustEncode(t, event(capture.Insert, table, nil, person(1, strings.Repeat("x", 1000))))
	_, err := h.encode(event(capture.Insert, table, nil, person(2, strings.Repeat("x", 2000))))
	if !errors.Is(err, capture.ErrUnreadable) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"pg.public.people", `{"id":2}`, "max.message.bytes"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestFingerprint_ChangesWithWhatIsEmitted(t *testing.T) {
	t.Parallel()
	fingerprint := func(adapt func(*Config)) string {
		c := Config{Naming: schema.Naming{Prefix: "pg"}}
		adapt(&c)
		c.SetDefaults()
		return c.Fingerprint()
	}
	base := fingerprint(func(*Config) {})
	for name, c := range map[string]struct {
		adapt func(*Config)
		same  bool
	}{
		"default written out": {func(c *Config) { c.Format.Decimals = "precise" }, true},
		"size limit":          {func(c *Config) { c.MaxRecordBytes = 5 }, true},
		"format":              {func(c *Config) { c.Format.Decimals = "string" }, false},
		"prefix":              {func(c *Config) { c.Naming.Prefix = "other" }, false},
		"partitioning":        {func(c *Config) { c.PartitionBy = byKeyFields }, false},
		"positions":           {func(c *Config) { c.Format.Positions = new(true) }, false},
		"columns":             {func(c *Config) { c.Columns.Exclude = []string{"a.b.c"} }, false},
		"no columns":          {func(c *Config) { c.Columns.Exclude = []string{} }, true},
		"no positions":        {func(c *Config) { c.Format.Positions = new(bool) }, true},
	} {
		if got := fingerprint(c.adapt) == base; got != c.same {
			t.Errorf("%s: same is %v, want %v", name, got, c.same)
		}
	}
}

func TestConfig_ReportsAllProblems(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Format: schema.Format{Decimals: "x"}, PartitionBy: "y", MaxRecordBytes: -1}, newRegistry(), fakeTopics(1))
	for _, want := range []string{"decimal.handling.mode", "prefix", "partition.by", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
