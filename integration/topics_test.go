package integration

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

// topics reads what is committed in the topics of one prefix, decoded by generic Avro
// with the schema that the registry holds for the id in the bytes.
type topics struct {
	brokers  []string
	registry *sr.Client
	schemas  map[int]avro.Schema
}

func newTopics(t *testing.T, brokers []string, registry string) *topics {
	t.Helper()
	cl, err := sr.NewClient(sr.URLs(registry))
	if err != nil {
		t.Fatal(err)
	}
	return &topics{brokers: brokers, registry: cl, schemas: map[int]avro.Schema{}}
}

// decode reads a Confluent-framed datum.
func (r *topics) decode(ctx context.Context, b []byte) (map[string]any, error) {
	if b == nil {
		return nil, nil
	}
	if len(b) < 5 || b[0] != 0 {
		return nil, fmt.Errorf("not framed: %s", hex.EncodeToString(b))
	}
	id := int(binary.BigEndian.Uint32(b[1:5]))
	s, ok := r.schemas[id]
	if !ok {
		text, err := r.registry.SchemaByID(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("schema %d: %w", id, err)
		}
		if s, err = avro.ParseWithCache(text.Schema, "", &avro.SchemaCache{}); err != nil {
			return nil, fmt.Errorf("schema %d: %w", id, err)
		}
		r.schemas[id] = s
	}
	var v map[string]any
	// A Config of its own per schema: the default one caches decoders by fingerprint,
	// which does not see every difference between two versions.
	if err := avro.NewDecoderForSchema(s, strings.NewReader(string(b[5:]))).Decode(&v); err != nil {
		return nil, fmt.Errorf("schema %d: %w", id, err)
	}
	return v, nil
}

// read returns every committed record of the topics with the prefix.
func (r *topics) read(ctx context.Context, prefix string) (records []record, err error) {
	err = r.each(ctx, prefix, func(rec *kgo.Record) error {
		d, err := r.describe(ctx, prefix, rec)
		records = append(records, d)
		return err
	})
	return records, err
}

func (r *topics) describe(ctx context.Context, prefix string, rec *kgo.Record) (record, error) {
	d := record{table: rec.Topic[strings.LastIndexByte(rec.Topic, '.')+1:], partition: rec.Partition, offset: rec.Offset}
	key, err := r.decode(ctx, rec.Key)
	if err != nil {
		return d, fmt.Errorf("%s %d/%d key: %w", rec.Topic, rec.Partition, rec.Offset, err)
	}
	var parts []string
	for _, n := range keyNames[d.table] {
		parts = append(parts, fmt.Sprint(key[n]))
	}
	d.key = strings.Join(parts, "/")
	value, err := r.decode(ctx, rec.Value)
	if err != nil {
		return d, fmt.Errorf("%s %d/%d value: %w", rec.Topic, rec.Partition, rec.Offset, err)
	}
	if value == nil {
		return d, nil
	}
	d.op = value["op"].(string)[0]
	if after, ok := unwrap(value["after"]).(map[string]any); ok {
		d.ver = after["ver"].(int64)
	}
	return d, nil
}

// unwrap takes the branch out of the map in which generic Avro returns a union of
// records.
func unwrap(v any) any {
	if m, ok := v.(map[string]any); ok && len(m) == 1 {
		for k, in := range m {
			if strings.Contains(k, ".") {
				return in
			}
		}
	}
	return v
}

// each calls f with every committed record, in the order of each partition.
func (r *topics) each(ctx context.Context, prefix string, f func(*kgo.Record) error) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.brokers...))
	if err != nil {
		return err
	}
	adm := kadm.NewClient(cl)
	defer cl.Close()
	list, err := adm.ListTopics(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, n := range list.Names() {
		if strings.HasPrefix(n, prefix+".") {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return nil
	}
	ends, err := adm.ListCommittedOffsets(ctx, names...)
	if err != nil {
		return err
	}
	from, left := map[string]map[int32]kgo.Offset{}, 0
	target := map[string]map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Err != nil {
			err = errors.Join(err, o.Err)
		}
		if o.Offset == 0 {
			return
		}
		if from[o.Topic] == nil {
			from[o.Topic], target[o.Topic] = map[int32]kgo.Offset{}, map[int32]int64{}
		}
		from[o.Topic][o.Partition] = kgo.NewOffset().AtStart()
		target[o.Topic][o.Partition] = o.Offset
		left++
	})
	if err != nil || left == 0 {
		return err
	}
	in, err := kgo.NewClient(kgo.SeedBrokers(r.brokers...), kgo.ConsumePartitions(from), kgo.KeepControlRecords(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		return err
	}
	defer in.Close()
	for left > 0 {
		fetches := in.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		var failed error
		fetches.EachRecord(func(rec *kgo.Record) {
			end := target[rec.Topic][rec.Partition]
			if end == 0 || failed != nil {
				return
			}
			if rec.Offset < end && !rec.Attrs.IsControl() {
				failed = f(rec)
			}
			// The last offset below the end is always a record or a marker: the end is the
			// last stable offset, and aborted records are followed by their marker.
			if rec.Offset >= end-1 {
				target[rec.Topic][rec.Partition] = 0
				left--
			}
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}
