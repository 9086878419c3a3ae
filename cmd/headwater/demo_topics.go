package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

// demoTopics reads the shop's topics as any consumer would: committed records, and their
// schemas out of the registry. One goroutine uses it.
type demoTopics struct {
	brokers []string
	prefix  string // of topic names
	decoder *recordDecoder
}

// A demoRecord is one record of a topic, decoded.
type demoRecord struct {
	table     string
	partition int32
	offset    int64
	key       string
	op        byte // 'c', 'u', 'd', 'r', or 0 for a tombstone
	revision  int64
	row       string // for people: the row after the change, or the key that is gone
}

func newDemoTopics(brokers []string, prefix, registry string) (*demoTopics, error) {
	cl, err := sr.NewClient(sr.URLs(registry))
	if err != nil {
		return nil, fmt.Errorf("reach the registry: %w", err)
	}
	decoder := newRecordDecoder(func(ctx context.Context, id int) (string, error) {
		s, err := cl.SchemaByID(ctx, id)
		return s.Schema, err
	})
	return &demoTopics{brokers: brokers, prefix: prefix, decoder: decoder}, nil
}

// follow hands every committed record to f as it comes, until ctx ends. f gets the moment
// at which the record came.
func (t *demoTopics) follow(ctx context.Context, f func(*demoRecord, time.Time)) error {
	names := make([]string, 0, len(demoShape))
	for table := range demoShape {
		names = append(names, t.prefix+table)
	}
	cl, err := t.client(kgo.ConsumeTopics(names...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// The topics are not there yet when we begin.
		kgo.MetadataMinAge(50*time.Millisecond), kgo.MetadataMaxAge(250*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	for ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		now := time.Now()
		for it := fetches.RecordIter(); !it.Done(); {
			r, err := t.decode(ctx, it.Next())
			if err != nil {
				return err
			}
			f(r, now)
		}
	}
	return ctx.Err()
}

// read returns every record that is committed now, in the order of each partition, and
// counts those that were written and aborted.
func (t *demoTopics) read(ctx context.Context) (records []*demoRecord, aborted int, err error) {
	err = t.each(ctx, kgo.ReadCommitted(), func(rec *kgo.Record) error {
		r, err := t.decode(ctx, rec)
		records = append(records, r)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read the topics: %w", err)
	}
	all := 0
	if err := t.each(ctx, kgo.ReadUncommitted(), func(*kgo.Record) error { all++; return nil }); err != nil {
		return nil, 0, fmt.Errorf("read the topics with what was aborted: %w", err)
	}
	return records, all - len(records), nil
}

// each calls f with every record below the end of now.
func (t *demoTopics) each(ctx context.Context, level kgo.IsolationLevel, f func(*kgo.Record) error) error {
	admin, err := t.client()
	if err != nil {
		return err
	}
	defer admin.Close()
	all, err := kadm.NewClient(admin).ListTopics(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, name := range all.Names() {
		if strings.HasPrefix(name, t.prefix) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil // without a name the next request would ask for every topic
	}
	ends, err := kadm.NewClient(admin).ListCommittedOffsets(ctx, names...)
	if err != nil {
		return err
	}
	from, left := map[string]map[int32]kgo.Offset{}, map[string]map[int32]int64{}
	partitions := 0
	ends.Each(func(o kadm.ListedOffset) {
		err = errors.Join(err, o.Err)
		if o.Offset == 0 {
			return
		}
		if from[o.Topic] == nil {
			from[o.Topic], left[o.Topic] = map[int32]kgo.Offset{}, map[int32]int64{}
		}
		from[o.Topic][o.Partition], left[o.Topic][o.Partition] = kgo.NewOffset().AtStart(), o.Offset
		partitions++
	})
	if err != nil || partitions == 0 {
		return err
	}
	cl, err := t.client(kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(level), kgo.KeepControlRecords())
	if err != nil {
		return err
	}
	defer cl.Close()
	for partitions > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		for it := fetches.RecordIter(); !it.Done(); {
			rec := it.Next()
			end := left[rec.Topic][rec.Partition]
			if rec.Offset < end && !rec.Attrs.IsControl() {
				if err := f(rec); err != nil {
					return err
				}
			}
			// The last offset below the end is a record or the marker behind aborted ones,
			// so that we always come to see it.
			if end > 0 && rec.Offset >= end-1 {
				left[rec.Topic][rec.Partition] = 0
				partitions--
			}
		}
	}
	return nil
}

func (t *demoTopics) client(opts ...kgo.Opt) (*kgo.Client, error) {
	opts = append([]kgo.Opt{
		kgo.SeedBrokers(t.brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(50 * time.Millisecond), kgo.DisableClientMetrics(),
	}, opts...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("reach Kafka: %w", err)
	}
	return cl, nil
}

// decode reads key and envelope with the schemas that the registry has for them.
func (t *demoTopics) decode(ctx context.Context, rec *kgo.Record) (*demoRecord, error) {
	d, err := t.decoder.record(ctx, rec)
	if err != nil {
		return nil, fmt.Errorf("decode %s, partition %d, offset %d: %w", rec.Topic, rec.Partition, rec.Offset, err)
	}
	r := &demoRecord{table: strings.TrimPrefix(rec.Topic, t.prefix), partition: rec.Partition, offset: rec.Offset}
	table, ok := demoShape[r.table]
	if !ok {
		return nil, fmt.Errorf("%s is a topic of none of the shop's tables", rec.Topic)
	}
	var parts []any
	for _, name := range table.key {
		parts = append(parts, d.Key[name])
	}
	r.key, r.row = demoKey(parts...), demoText(d.Key, table.key)
	if d.Value == nil {
		return r, nil
	}
	op, _ := d.Value["op"].(string)
	if len(op) != 1 {
		return nil, fmt.Errorf("%s, partition %d, offset %d: the op is %q", rec.Topic, rec.Partition, rec.Offset, op)
	}
	r.op = op[0]
	if after, ok := d.Value["after"].(map[string]any); ok {
		r.revision, _ = after["revision"].(int64)
		r.row = demoText(after, table.columns)
	}
	return r, nil
}

// demoText is a row for people.
func demoText(row map[string]any, columns []string) string {
	var b strings.Builder
	for i, name := range columns {
		if i > 0 {
			b.WriteByte(' ')
		}
		v := row[name]
		if name == "price" || name == "total" { // a decimal's scale is in its schema
			if f, err := strconv.ParseFloat(fmt.Sprint(v), 64); err == nil {
				v = strconv.FormatFloat(f, 'f', 2, 64)
			}
		}
		fmt.Fprintf(&b, "%s=%v", name, v)
	}
	return b.String()
}
