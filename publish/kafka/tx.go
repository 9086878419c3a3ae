package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
)

// A tx is one transaction, or with delivery at-least-once what takes its place.
type tx struct {
	s       *Sink
	cl      *kgo.Client
	opened  time.Time
	started bool

	// id and epoch are those of the producer when the transaction began.
	id    int64
	epoch int16

	// ctx is that of all records. It does not end with a stop, so that what was handed
	// over can still be committed; it ends when a stop interrupts Produce.
	ctx    context.Context
	cancel context.CancelFunc

	promise func(*kgo.Record, error)
	failed  atomic.Pointer[error] // the first record that was not written (rule R11)
}

// settle is every record's promise. The client calls it from one goroutine.
func (t *tx) settle(r *kgo.Record, err error) {
	if err == nil {
		return
	}
	t.fail(fmt.Errorf("record for topic %s, partition %d: %w", r.Topic, r.Partition, err))
}

// fail keeps the first failure. It is not part of settle, whose argument would then be
// allocated for each record.
func (t *tx) fail(err error) { t.failed.CompareAndSwap(nil, &err) }

// failure is why the transaction is doomed, or nil.
func (t *tx) failure() error {
	err := t.failed.Load()
	if err == nil {
		return nil
	}
	if errors.Is(*err, kerr.MessageTooLarge) {
		return refused(*err, "raise the topic's max.message.bytes, or lower max_record_bytes")
	}
	return t.s.classify(*err)
}

// Produce hands records to the client. It blocks while the client's buffer is full.
func (t *tx) Produce(ctx context.Context, records []publish.Record) error {
	if err := t.start(ctx); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, t.cancel)
	defer stop()
	now := time.Now().Truncate(time.Millisecond)
	for i := range records {
		r := &records[i]
		if size := recordSize(r); size > t.s.cfg.MaxRecordBytes {
			return refused(fmt.Errorf("a record for %s has %d bytes, max_record_bytes is %d", r.Topic, size, t.s.cfg.MaxRecordBytes),
				"raise max_record_bytes and the topic's max.message.bytes, or leave the column out")
		}
		rec := t.s.slab.next()
		*rec = kgo.Record{
			Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: t.s.slab.convert(r.Headers),
			Timestamp: now, Context: t.ctx,
		}
		t.cl.Produce(t.ctx, rec, t.promise)
		if t.failed.Load() != nil {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.failure()
}

// recordSize is the record as the size limit counts it.
func recordSize(r *publish.Record) int {
	n := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// Commit writes the checkpoint behind the records, waits until all is acknowledged and
// ends the transaction. With delivery at-least-once the checkpoint waits for the records.
func (t *tx) Commit(ctx context.Context, cp checkpoint.Checkpoint) error {
	defer t.cancel()
	if err := t.start(ctx); err != nil {
		return err
	}
	began := time.Now()
	flushing, cancel := context.WithDeadline(ctx, t.opened.Add(t.s.cfg.TransactionTimeout*2/3))
	defer cancel()
	if !t.s.transactional() {
		if err := t.flush(flushing); err != nil {
			return err
		}
	}
	if err := t.checkpoint(cp); err != nil {
		return err
	}
	if err := t.flush(flushing); err != nil {
		return err
	}
	flushed := time.Now()
	t.s.metrics.flush.Observe(flushed.Sub(began).Seconds())
	if t.s.transactional() {
		if err := t.end(ctx); err != nil {
			return err
		}
		t.s.adaptGap(began.Sub(t.opened), flushed.Sub(began))
	}
	t.s.slab.reset()
	return nil
}

// start waits, before the first record, until the markers of the last transaction are
// likely to be written: an early first record is answered with a retry that takes longer
// (rule R24).
func (t *tx) start(ctx context.Context) error {
	if t.started || !t.s.transactional() {
		return nil
	}
	t.started = true
	if wait := time.Until(t.s.ended.Add(t.s.gap)); wait > 0 {
		return sleep(ctx, wait)
	}
	return nil
}

// checkpoint hands the checkpoint's records to the client: the entries, then the position.
func (t *tx) checkpoint(cp checkpoint.Checkpoint) error {
	value, err := cp.Marshal()
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	produce := func(key string, value []byte) {
		rec := t.s.slab.next()
		*rec = kgo.Record{Topic: checkpoint.TopicName(t.s.name), Key: []byte(key), Value: value, Context: t.ctx}
		t.cl.Produce(t.ctx, rec, t.promise)
	}
	for _, key := range slices.Sorted(maps.Keys(cp.Entries)) {
		produce(key, cp.Entries[key])
	}
	produce(checkpoint.Key, value)
	return nil
}

// flush waits until every record is acknowledged or has failed.
func (t *tx) flush(ctx context.Context) error {
	if err := t.cl.Flush(ctx); err != nil {
		if failure := t.failure(); failure != nil {
			return failure
		}
		return fmt.Errorf("wait for the brokers to acknowledge: %w", err)
	}
	return t.failure()
}

// end is state COMMIT. Nil means decided and durable; anything else, and the outcome is
// unknown, whatever a second attempt might say (rule R10).
func (t *tx) end(ctx context.Context) error {
	// A new topic's records may be acknowledged before the client has taken the topic into
	// its list, under a lock (franz-go 1.22.2, storePartitionsUpdate). EndTransaction goes
	// by that list: it would find nothing written, abort, and return nil. Nothing is
	// buffered any more, so that aborting it only waits for the lock.
	if err := t.cl.AbortBufferedRecords(ctx); err != nil {
		return fmt.Errorf("wait for the client: %w", err)
	}
	// The client may have renewed its producer id on the way. The records that were
	// acknowledged before that belong to a transaction which is aborted.
	id, epoch, err := t.cl.ProducerID(ctx)
	if err != nil {
		return t.s.classify(err)
	}
	if id != t.id || epoch != t.epoch {
		return fmt.Errorf("%w: the producer id has changed in the middle", publish.ErrFenced)
	}
	sent, began := t.s.endTxns.Load(), time.Now()
	err = t.cl.EndTransaction(ctx, kgo.TryCommit)
	t.s.ended = time.Now()
	took := t.s.ended.Sub(began)
	t.s.metrics.end.Observe(took.Seconds())
	if err != nil {
		if err = t.s.classify(err); errors.Is(err, publish.ErrFenced) || errors.Is(err, publish.ErrRefused) {
			return err
		}
		return fmt.Errorf("%w: %w", publish.ErrUnknownOutcome, err)
	}
	t.s.mustFence = t.s.partialProtocol && (t.s.endTxns.Load()-sent > 1 || took > lateAnswer)
	return nil
}

// lateAnswer is half of the brokers' default request.timeout.ms: an answer that took
// longer may belong to a request that was sent again below the client.
const lateAnswer = 15 * time.Second

// Bounds of the time between two transactions. Brokers at their default answer a first
// record that comes too early with a retry of 20 ms.
const (
	startGap = 4 * time.Millisecond
	minGap   = 2 * time.Millisecond
	maxGap   = 10 * time.Millisecond
	refusal  = 20 * time.Millisecond
)

// adaptGap widens the gap when a short transaction took so long to be acknowledged that
// its first record was probably refused for being early, and else narrows it slowly.
func (s *Sink) adaptGap(open, flush time.Duration) {
	switch {
	case open < refusal && flush >= refusal:
		s.gap = min(s.gap+time.Millisecond, maxGap)
	case open < refusal:
		s.gap = max(s.gap-50*time.Microsecond, minGap)
	}
}

// A slab hands out the client's records of one transaction. Reusing them from one
// transaction to the next keeps the hot path free of allocation.
type slab struct {
	chunks [][]kgo.Record
	n      int // records handed out

	headers []kgo.RecordHeader // free part of the chunk in use
}

const (
	slabChunk = 512
	slabKeep  = 128 // chunks: more than the default MaxRecords
)

func (s *slab) next() *kgo.Record {
	c := s.n / slabChunk
	if c == len(s.chunks) {
		s.chunks = append(s.chunks, make([]kgo.Record, slabChunk))
	}
	r := &s.chunks[c][s.n%slabChunk]
	s.n++
	return r
}

// convert returns headers in the client's form. They are not reused: few records have any.
func (s *slab) convert(headers []publish.Header) []kgo.RecordHeader {
	n := len(headers)
	if n == 0 {
		return nil
	}
	if n > len(s.headers) {
		s.headers = make([]kgo.RecordHeader, max(n, slabChunk))
	}
	out := s.headers[:n:n]
	s.headers = s.headers[n:]
	for i, h := range headers {
		out[i] = kgo.RecordHeader{Key: h.Key, Value: h.Value}
	}
	return out
}

// reset takes the records back, and lets go of what they point to. Only after a
// confirmed commit.
func (s *slab) reset() {
	for i := 0; i*slabChunk < s.n; i++ {
		clear(s.chunks[i])
	}
	if len(s.chunks) > slabKeep {
		clear(s.chunks[slabKeep:])
		s.chunks = s.chunks[:slabKeep]
	}
	s.n = 0
}
