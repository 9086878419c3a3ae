package avro

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/schema"
)

// The vectors stand in the tests of Kafka's own client.
func TestMurmur2_IsThatOfKafka(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got := murmur2([]byte(text)); got != want {
			t.Errorf("%s: got %d, want %d", text, got, want)
		}
	}
}

func TestPartition_HashesTheSerializedKey(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	table := people()
	used := make(map[int32]bool)
	for i := range int64(200) {
		r := h.mustEncode(t, event(capture.Insert, table, nil, person(i, "x"))).Records[0]
		if want := (murmur2(r.Key) & 0x7fffffff) % 12; r.Partition != want {
			t.Fatalf("key %d: got %d, want %d", i, r.Partition, want)
		}
		used[r.Partition] = true
	}
	if len(used) != 12 {
		t.Errorf("%d partitions of 12 are used", len(used))
	}
}

func TestPartition_StaysWhenTheKeySchemaChanges(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	before := people()
	after := people()
	after.Columns[0] = withDefault(after.Columns[0], num(0))
	for i := range int64(100) {
		a := h.mustEncode(t, event(capture.Insert, before, nil, person(i, "x"))).Records[0]
		b := h.mustEncode(t, event(capture.Insert, after, nil, person(i, "x"))).Records[0]
		if binary.BigEndian.Uint32(a.Key[1:]) == binary.BigEndian.Uint32(b.Key[1:]) {
			t.Fatal("the key schema did not change: the test shows nothing")
		}
		if string(a.Key[5:]) != string(b.Key[5:]) || a.Partition != b.Partition {
			t.Fatalf("key %d moved from %d to %d", i, a.Partition, b.Partition)
		}
	}
}

func TestPartition_ByKeyFieldsIgnoresTheSchema(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { c.PartitionBy = byKeyFields })
	other := makeTable("orders", []int{0}, required("person", kind(capture.TypeInt32)))
	table := people()
	for i := range int64(50) {
		a := h.mustEncode(t, event(capture.Insert, table, nil, person(i, "x"))).Records[0]
		b := h.mustEncode(t, event(capture.Insert, other, nil, capture.Row{num(i)})).Records[0]
		if a.Partition != b.Partition {
			t.Fatalf("key %d: %d and %d", i, a.Partition, b.Partition)
		}
	}
}

func TestPin_OutlivesTheProcess(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	out := h.mustEncode(t, event(capture.Insert, people(), nil, person(1, "x")))
	if len(out.Entries) != 1 || out.Entries[0].Key != "t/pg.public.people" {
		t.Fatalf("entries: %v", out.Entries)
	}
	if got, want := string(out.Entries[0].Value), `{"v":1,"partitions":12,"key_schema_id":1}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	entries := map[string][]byte{out.Entries[0].Key: out.Entries[0].Value, "s/public.people": []byte("not ours")}

	// The topic has grown and the key has another schema id.
	next := newHarness(t, nil)
	next.topics = fakeTopics(24)
	if _, err := next.registry.Register(context.Background(), "taken", `"string"`); err != nil {
		t.Fatal(err)
	}
	if err := next.Resume(context.Background(), entries); err != nil {
		t.Fatal(err)
	}
	again := next.mustEncode(t, event(capture.Insert, people(), nil, person(1, "x")))
	if again.Records[0].Partition != out.Records[0].Partition {
		t.Errorf("the key moved from %d to %d", out.Records[0].Partition, again.Records[0].Partition)
	}
	if len(again.Entries) != 0 {
		t.Errorf("the pin is written again: %v", again.Entries)
	}
	if len(next.notices) != 1 || next.notices[0].Kind != schema.NoticePartitions {
		t.Errorf("notices: %+v", next.notices)
	}

	// The topic was made anew with fewer partitions, or is gone.
	for _, topics := range []fakeTopics{3, 0} {
		next.topics = topics
		if err := next.Resume(context.Background(), entries); err != nil {
			t.Fatal(err)
		}
		_, err := next.encode(event(capture.Insert, people(), nil, person(1, "x")))
		if !errors.Is(err, publish.ErrRefused) || !strings.Contains(err.Error(), "topic pg.public.people") {
			t.Errorf("%d partitions: got %v", topics, err)
		}
	}
}

// Rule R15: the pin says which topic held the records.
func TestPin_HoldsTheTopicsID(t *testing.T) {
	t.Parallel()
	const old, full = `{"v":1,"partitions":12,"key_schema_id":1}`, `{"v":1,"partitions":12,"key_schema_id":1,"topic_id":"first"}`
	for _, c := range []struct{ name, pinned, id, asked, want string }{
		{"when it is new", "", "first", "", full},
		{"when it is the same", full, "first", "first", ""},
		{"when an older version wrote the pin", old, "first", "", full},
		{"when another topic was let pass", full, "second", "first", `{"v":1,"partitions":12,"key_schema_id":1,"topic_id":"second"}`},
		{"when the brokers give none", full, "", "first", ""},
	} {
		h := newHarness(t, nil)
		topics := &numberedTopics{fakeTopics: 12, id: c.id}
		h.topics = topics
		if c.pinned != "" {
			if err := h.Resume(context.Background(), map[string][]byte{"t/pg.public.people": []byte(c.pinned)}); err != nil {
				t.Fatal(err)
			}
		}
		out := h.mustEncode(t, event(capture.Insert, people(), nil, person(1, "x")))
		got := ""
		for _, e := range out.Entries {
			got += string(e.Value)
		}
		if got != c.want || len(topics.asked) != 1 || topics.asked[0] != c.asked {
			t.Errorf("%s: the pin is %s after asking for %q, want %s after %q", c.name, got, topics.asked, c.want, c.asked)
		}
	}
}

func TestPin_OfAnotherVersionIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	for _, value := range []string{`{"v":2,"partitions":3}`, `{`, `{"v":1}`} {
		if err := h.Resume(context.Background(), map[string][]byte{"t/x": []byte(value)}); !errors.Is(err, checkpoint.ErrUnusable) {
			t.Errorf("%s: got %v", value, err)
		}
	}
}
