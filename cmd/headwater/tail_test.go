package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/headwaterdb/headwater/checkpoint"
)

// An envelope as the encoder writes it, with each kind of field, with names that look like
// types, and with a row type that is used twice.
const tailSchema = `{"type":"record","name":"Envelope","namespace":"shop.public.t","fields":[
 {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
  {"name":"string","type":["null","string"],"default":null},
  {"name":"amount","type":["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}],"default":null},
  {"name":"exact","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":3}},
  {"name":"raw","type":["null","bytes"],"default":null},
  {"name":"ratio","type":["null","double"],"default":null},
  {"name":"tags","type":["null",{"type":"array","items":["null","string"]}],"default":null},
  {"name":"map","type":["null",{"type":"map","values":["null","string"]}],"default":null},
  {"name":"point","type":["null",{"type":"record","name":"Point","namespace":"io.debezium.data.geometry","fields":[{"name":"x","type":"double"}]}],"default":null}
 ]}],"default":null},
 {"name":"after","type":["null","Value"],"default":null},
 {"name":"op","type":"string"},
 {"name":"source","type":{"type":"record","name":"Source","namespace":"io","fields":[{"name":"ts_us","type":["null","long"],"default":null}]}}
]}`

func TestTail_ShowsValuesAsTheyAre(t *testing.T) {
	s, err := avro.ParseWithCache(tailSchema, "", &avro.SchemaCache{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	row := func(text string, cents int64) map[string]any {
		return map[string]any{"shop.public.t.Value": map[string]any{
			"string": text, "amount": big.NewRat(cents, 100), "exact": big.NewRat(1, 2), "raw": []byte{0, 255}, "ratio": math.NaN(),
			"tags":  map[string]any{"array": []any{"a", nil}},
			"map":   map[string]any{"map": map[string]any{"string": "b", "c": nil}},
			"point": map[string]any{"io.debezium.data.geometry.Point": map[string]any{"x": 1.5}},
		}}
	}
	value, err := avro.Marshal(s, map[string]any{
		"before": row("old", 150), "after": row("new", 150), "op": "u",
		"source": map[string]any{"ts_us": began.Add(-20 * time.Millisecond).UnixMicro()},
	})
	if err != nil {
		t.Fatal(err)
	}
	framed := append([]byte{0, 0, 0, 0, 7}, value...)
	d := newRecordDecoder(func(_ context.Context, id int) (string, error) {
		if id != 7 {
			return "", errors.New("unknown")
		}
		return tailSchema, nil
	})
	v, err := d.record(t.Context(), &kgo.Record{Topic: "shop.public.t", Value: framed})
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v.Value["after"])
	want := `{"amount":"1.50","exact":"0.500","map":{"c":null,"string":"b"},"point":{"x":1.5},"ratio":"NaN","raw":"0x00ff","string":"new","tags":["a",null]}`
	if err != nil || string(out) != want {
		t.Errorf("decoded %s, %v\nwant    %s", out, err, want)
	}
	v.Key = map[string]any{"id": 1}
	if line := v.line(began, true); !strings.HasSuffix(line, "shop.public.t            u  id=1  string=new  20 ms") {
		t.Errorf("line %q", line)
	}
	if line := v.line(began, false); !strings.HasSuffix(line, "string=new") {
		t.Errorf("line of an old record %q", line)
	}

	for _, b := range [][]byte{{}, {1, 0, 0, 0, 7}, {0, 0, 0, 0, 8}, framed[:20]} {
		if _, err := d.record(t.Context(), &kgo.Record{Topic: "t", Value: b}); err == nil {
			t.Errorf("%x was decoded", b)
		}
	}
	var text, object bytes.Buffer
	broken := &kgo.Record{Topic: "t", Partition: 1, Offset: 2, Value: []byte("plain text")}
	for _, view := range []tailing{{out: &text}, {out: &object, json: true}} {
		if err := view.print(t.Context(), d, broken, began); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(text.String(), "partition 1, offset 2 cannot be decoded: value: it does not begin with a schema id") {
		t.Errorf("an alien record: %s", &text)
	}
	if !json.Valid(object.Bytes()) || !strings.Contains(object.String(), `"error":`) {
		t.Errorf("an alien record: %s", &object)
	}
}

func TestTail_TopicsAreNamedWithAndWithoutPrefix(t *testing.T) {
	for _, c := range []struct {
		name, topic string
		want        bool
	}{
		{"public.orders", "shop.public.orders", true},
		{"shop.public.orders", "shop.public.orders", true},
		{"public.*", "shop.public.orders", true},
		{"*", "shop.public.orders", true},
		{"public.orders", "shop.public.orders2", false},
		{"public.order.", "shop.public.orders", false},
		{"*", "other.public.orders", false},
	} {
		p := topicPatterns("shop", ".", []string{c.name})[0]
		if got := regexp.MustCompile(p).MatchString(c.topic); got != c.want {
			t.Errorf("%s (%s) and %s: %v", c.name, p, c.topic, got)
		}
	}
}

func TestCheckpointShow_IsForAPerson(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var cp checkpoint.Checkpoint
	stored := `{"v":1,"pipeline":"shop","seq":7,"owner":{"id":"01X","host":"h","since":"2026-01-02T03:00:00Z"},"ts_ms":1767323042000,` +
		`"pos":{"end_lsn":"0/1"},"intx":{"id":"9","done":12,"crc":"00000001"},"n":{"records":3,"bytes":4}}`
	if err := cp.Unmarshal([]byte(stored)); err != nil {
		t.Fatal(err)
	}
	cp.Entries = map[string][]byte{"s/b": []byte("{}"), "c/prefix": []byte("shop")}
	var out bytes.Buffer
	showCheckpoint(&out, &cp, now)
	want := `pipeline   shop
checkpoint number 7, 3s ago (2026-01-02T03:04:02Z)
owner      01X on h, since 2026-01-02T03:00:00Z
published  3 records, 4 bytes
position   {
             "end_lsn": "0/1"
           }
inside     source transaction 9, 12 of its log messages are published
note       c/prefix = shop
note       s/b = {}
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
	out.Reset()
	cp.At = ""
	showCheckpoint(&out, &cp, now)
	if !strings.Contains(out.String(), "position   none: nothing was read yet") {
		t.Errorf("got\n%s", &out)
	}
}
