package avro

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/schema"
)

// pinPrefix begins the checkpoint entries that pin how a topic is partitioned.
const pinPrefix = "t/"

// pinVersion is the version of the entry's form.
const pinVersion = 1

// A pin is what the partition of a key depends on besides the key's fields. It is
// kept in the checkpoint, so that a key stays where it is when its record schema gets
// a new version or the topic more partitions.
type pin struct {
	V          int   `json:"v"`
	Partitions int32 `json:"partitions"`
	// KeySchemaID is the id of the first key schema, 0 for a topic without keys.
	KeySchemaID int `json:"key_schema_id,omitempty"`
	// TopicID tells the topic from one that was made again under its name. "" where the
	// brokers give none, and in entries that were written before it was kept.
	TopicID string `json:"topic_id,omitempty"`
}

// readPins takes up the entries of a checkpoint.
func readPins(entries map[string][]byte) (map[string]*pin, error) {
	pins := make(map[string]*pin)
	for key, value := range entries {
		topic, ok := strings.CutPrefix(key, pinPrefix)
		if !ok {
			continue
		}
		p := new(pin)
		if err := json.Unmarshal(value, p); err != nil {
			return nil, fmt.Errorf("%w: entry %s: %w", checkpoint.ErrUnusable, key, err)
		}
		if p.V != pinVersion || p.Partitions < 1 {
			return nil, fmt.Errorf("%w: entry %s: its version is %d and this headwater reads %d; run the version that wrote it, or a newer one",
				checkpoint.ErrUnusable, key, p.V, pinVersion)
		}
		pins[topic] = p
	}
	return pins, nil
}

// pin returns how a topic is partitioned, and makes sure that the topic exists. One that
// is pinned has held records and is never made again (rule R15). keyID is the id of the
// table's key schema, 0 without a key.
func (e *Encoder) pin(ctx context.Context, topic string, keyID int) (*pin, error) {
	p := e.pins[topic]
	known := p != nil
	if !known {
		p = &pin{V: pinVersion}
	}
	n, id, err := e.topics.Ensure(ctx, topic, known, p.TopicID)
	if err != nil {
		return nil, fmt.Errorf("make sure of topic %s: %w", topic, err)
	}
	before := *p
	switch {
	case !known:
		p.Partitions = n
		e.pins[topic] = p
	case n < p.Partitions:
		return nil, fmt.Errorf("%w: topic %s has %d partitions and had %d, so it was made anew and its records are gone; remedy: restore it; or, if its records are not missed, make it with %d partitions and start once with --new, after which headwater checkpoint reread brings the rows of its table; or run headwater checkpoint reset, after which the next start publishes all tables again",
			publish.ErrRefused, topic, n, p.Partitions, p.Partitions)
	case n > p.Partitions:
		e.notice(schema.NoticePartitions, "", fmt.Sprintf("topic %s has %d partitions; %d are used, as when it was first written, so that keys stay where they are", topic, n, p.Partitions))
	}
	if p.KeySchemaID == 0 {
		p.KeySchemaID = keyID
	}
	if id != "" {
		p.TopicID = id
	}
	if *p == before {
		return p, nil
	}
	value, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write the entry of topic %s: %w", topic, err)
	}
	e.entries = append(e.entries, capture.Entry{Key: pinPrefix + topic, Value: value})
	return p, nil
}

// partitioner is a plan's part of the partitioning.
type partitioner struct {
	partitions int32
	keyless    int32 // the partition of all records without a key
	fields     bool  // hash the fields alone
	// id is the schema id that is hashed with the key, in place of its own.
	id    [4]byte
	moved bool // the key's own id is another
}

func newPartitioner(p *pin, topic string, keyID int, by string) partitioner {
	r := partitioner{partitions: p.Partitions, fields: by == byKeyFields, moved: p.KeySchemaID != keyID}
	binary.BigEndian.PutUint32(r.id[:], uint32(p.KeySchemaID))
	r.keyless = r.of(murmur2([]byte(topic)))
	return r
}

func (r *partitioner) of(hash int32) int32 { return (hash & 0x7fffffff) % r.partitions }

// partition returns where a serialized key belongs. It changes the key and changes it
// back.
func (r *partitioner) partition(key []byte) int32 {
	switch {
	case r.fields:
		return r.of(murmur2(key[5:]))
	case !r.moved:
		return r.of(murmur2(key))
	}
	own := [4]byte(key[1:5])
	copy(key[1:5], r.id[:])
	p := r.of(murmur2(key))
	copy(key[1:5], own[:])
	return p
}

// murmur2 is the hash of Kafka's Java client: 32 bits, little-endian, its own seed.
func murmur2(b []byte) int32 {
	const m = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b) * m
		k ^= k >> 24
		h = h*m ^ k*m
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h ^= h >> 13
	h *= m
	return int32(h ^ h>>15)
}
