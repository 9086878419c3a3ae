package kafka

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"math/bits"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/headwaterdb/headwater/publish"
)

// A batch is a record batch of one partition, magic 2 (section "Record Batch" of the
// Kafka protocol guide). Records are appended in their final form; seal compresses them
// and writes the head. From then on the batch does not change, so that a second attempt
// sends the same bytes.
type batch struct {
	buf     []byte // the records, until seal
	payload []byte // the records as they are sent
	head    [headBytes]byte
	held    int // bytes of memory that it counts for

	records     int32
	first, last int64 // timestamps, milliseconds
	seq         int32 // of the first record
	numbered    bool  // seq is set

	tries   int // attempts that are over
	early   int // those that met the last transaction's end
	unknown int // those that were answered with an unknown topic
}

// A producer is what brokers know a writer by.
type producer struct {
	id    int64
	epoch int16
}

const (
	headBytes = 61
	// crcFrom is where the checksummed part of the head begins.
	crcFrom = 21
	// smallBuffer holds the records of a quiet partition, largeBuffer a batch of
	// batchBytes and what the codecs want beside it.
	smallBuffer = 16 << 10
	batchBytes  = 512 << 10
	largeBuffer = batchBytes + batchBytes/6 + 1<<10

	transactionalBit = 0x10
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

// buffer returns an empty buffer with room for n bytes.
func buffer(n int) []byte {
	switch {
	case n <= smallBuffer:
		return smallBuffers.Get().(*[smallBuffer]byte)[:0]
	case n <= largeBuffer:
		return largeBuffers.Get().(*[largeBuffer]byte)[:0]
	}
	return make([]byte, 0, n)
}

// recycle takes back what buffer returned.
func recycle(b []byte) {
	switch cap(b) {
	case smallBuffer:
		smallBuffers.Put((*[smallBuffer]byte)(b[:smallBuffer]))
	case largeBuffer:
		largeBuffers.Put((*[largeBuffer]byte)(b[:largeBuffer]))
	}
}

// recordBound is more than a record needs beside its key, value and encoded headers:
// length, attributes, timestamp, offset and the lengths of key and value.
const recordBound = 1 + 4*binary.MaxVarintLen32 + binary.MaxVarintLen64

// reserve makes room for n bytes. A batch that outgrows the small buffer moves into the
// large one, which is as much as it may have, or into memory of its own when the record
// is larger than that.
func (b *batch) reserve(n int) {
	if cap(b.buf)-len(b.buf) >= n {
		return
	}
	want := len(b.buf) + n
	if cap(b.buf) > 0 {
		want = max(want, largeBuffer)
	}
	grown := append(buffer(want), b.buf...)
	recycle(b.buf)
	b.buf = grown
}

// add appends a record with headers as appendHeaders wrote them. There must be room.
func (b *batch) add(r *publish.Record, headers []byte, now int64) {
	if b.records == 0 {
		b.first, b.last = now, now
	}
	b.last = max(b.last, now)
	delta := now - b.first
	n := 1 + varintLen(delta) + varintLen(int64(b.records)) + bytesLen(r.Key) + bytesLen(r.Value) + len(headers)
	buf := binary.AppendVarint(b.buf, int64(n))
	buf = append(buf, 0)
	buf = binary.AppendVarint(buf, delta)
	buf = binary.AppendVarint(buf, int64(b.records))
	buf = appendBytes(buf, r.Key)
	buf = appendBytes(buf, r.Value)
	b.buf = append(buf, headers...)
	b.records++
}

// appendHeaders appends the headers of a record, their number first.
func appendHeaders(buf []byte, headers []publish.Header) []byte {
	buf = binary.AppendVarint(buf, int64(len(headers)))
	for i := range headers {
		buf = binary.AppendVarint(buf, int64(len(headers[i].Key)))
		buf = append(buf, headers[i].Key...)
		buf = appendBytes(buf, headers[i].Value)
	}
	return buf
}

// appendBytes appends b with its length, which is -1 for nil.
func appendBytes(buf, b []byte) []byte {
	if b == nil {
		return append(buf, 1)
	}
	return append(binary.AppendVarint(buf, int64(len(b))), b...)
}

func bytesLen(b []byte) int {
	if b == nil {
		return 1
	}
	return varintLen(int64(len(b))) + len(b)
}

// varintLen is how many bytes the zigzag varint of v has.
func varintLen(v int64) int {
	return (bits.Len64(uint64(v<<1)^uint64(v>>63)|1) + 6) / 7
}

// number gives the batch its place in the partition's sequence, which begins at seq, and
// returns that of the next one. Numbers go on at 0 after the largest.
func (b *batch) number(seq int32) (next int32) {
	b.seq, b.numbered = seq, true
	return int32((int64(seq) + int64(b.records)) & math.MaxInt32)
}

// seal ends the batch. A nil compressor leaves the records as they are.
func (b *batch) seal(c kgo.Compressor, p producer, transactional bool) {
	attributes := int16(0)
	if b.payload = b.buf; c != nil {
		out := bytes.NewBuffer(buffer(len(b.buf) + len(b.buf)/6 + 64))
		scratch := out.Bytes()
		packed, codec := c.Compress(out, b.buf)
		if codec > 0 && len(packed) < len(b.buf) {
			recycle(b.buf)
			b.payload, attributes = packed, int16(codec)
		} else {
			recycle(scratch)
		}
	}
	b.buf = nil
	if transactional {
		attributes |= transactionalBit
	}
	h := b.head[:]
	be := binary.BigEndian
	be.PutUint64(h[0:], 0) // the leader sets the offset
	be.PutUint32(h[8:], uint32(headBytes-12+len(b.payload)))
	be.PutUint32(h[12:], math.MaxUint32) // and its epoch
	h[16] = 2
	be.PutUint16(h[21:], uint16(attributes))
	be.PutUint32(h[23:], uint32(b.records-1))
	be.PutUint64(h[27:], uint64(b.first))
	be.PutUint64(h[35:], uint64(b.last))
	be.PutUint64(h[43:], uint64(p.id))
	be.PutUint16(h[51:], uint16(p.epoch))
	be.PutUint32(h[53:], uint32(b.seq))
	be.PutUint32(h[57:], uint32(b.records))
	be.PutUint32(h[17:], crc32.Update(crc32.Checksum(h[crcFrom:], castagnoli), castagnoli, b.payload))
}

// sealed reports whether the batch can be sent.
func (b *batch) sealed() bool { return b.payload != nil }

// release gives the memory to other batches. Only after an answer: until then the client
// may read it.
func (b *batch) release() {
	recycle(b.payload)
	b.payload = nil
}
