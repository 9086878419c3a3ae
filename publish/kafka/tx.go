package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
)

// A tx is one transaction, or with delivery at-least-once what takes its place.
type tx struct {
	s       *Sink
	send    *sender
	opened  time.Time
	started bool
	bytes   int // of keys and values
}

// failure is err as the publisher understands it.
func (t *tx) failure(err error) error {
	switch {
	case err == nil, errors.Is(err, publish.ErrRefused):
		return err
	case errors.Is(err, kerr.MessageTooLarge):
		return refused(err, fmt.Sprintf("raise the topic's max.message.bytes (that of a checkpoint topic is %d), or lower max_record_bytes", checkpointBytes))
	case errors.Is(err, kerr.UnsupportedCompressionType):
		return refused(err, "set kafka.compression to snappy or lz4: these brokers are older than zstd")
	}
	return t.s.classify(err)
}

// Produce copies records into the batches of their partitions. It blocks while the
// buffer is full.
func (t *tx) Produce(ctx context.Context, records []publish.Record) error {
	if err := t.start(ctx); err != nil {
		return err
	}
	for i := range records {
		t.bytes += len(records[i].Key) + len(records[i].Value)
	}
	return t.failure(t.send.produce(ctx, records))
}

// Commit writes the checkpoint behind the records, waits until all is acknowledged and
// ends the transaction. With delivery at-least-once the checkpoint waits for the records.
func (t *tx) Commit(ctx context.Context, cp checkpoint.Checkpoint) error {
	if err := t.start(ctx); err != nil {
		return err
	}
	began := time.Now()
	flushing, cancel := context.WithDeadline(ctx, t.opened.Add(t.s.cfg.TransactionTimeout*2/3))
	defer cancel()
	if !t.s.transactional() {
		if err := t.failure(t.send.flush(flushing)); err != nil {
			return err
		}
	}
	if err := t.checkpoint(flushing, cp); err != nil {
		return err
	}
	if err := t.failure(t.send.flush(flushing)); err != nil {
		return err
	}
	flushed := time.Now()
	t.s.metrics.flush.Observe(flushed.Sub(began).Seconds())
	if t.s.transactional() {
		if err := t.end(ctx); err != nil {
			return err
		}
		if t.bytes < largeTx {
			t.s.adaptGap(began.Sub(t.opened), flushed.Sub(began))
		}
	}
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

// checkpoint hands the checkpoint's records over: the entries, then the position.
func (t *tx) checkpoint(ctx context.Context, cp checkpoint.Checkpoint) error {
	value, err := cp.Marshal()
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	topic := checkpoint.TopicName(t.s.name)
	var records []publish.Record
	for _, key := range slices.Sorted(maps.Keys(cp.Entries)) {
		records = append(records, publish.Record{Topic: topic, Key: []byte(key), Value: cp.Entries[key]})
	}
	records = append(records, publish.Record{Topic: topic, Key: []byte(checkpoint.Key), Value: value})
	return t.failure(t.send.take(ctx, records, math.MaxInt, batchBytes))
}

// end is state COMMIT. Nil means decided and durable; anything else, and the outcome is
// unknown, whatever a second attempt might say (rule R10).
func (t *tx) end(ctx context.Context) error {
	sent, began := t.s.endTxns.Load(), time.Now()
	err := t.s.endTransaction(ctx)
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

// endTransaction asks the coordinator to commit. The client repeats a request whose answer
// was lost, or for which the coordinator was not the right one.
func (s *Sink) endTransaction(ctx context.Context) error {
	return untilAlone(ctx, func() error {
		req := kmsg.NewPtrEndTxnRequest()
		req.TransactionalID, req.ProducerID, req.ProducerEpoch = s.id, s.producer.id, s.producer.epoch
		req.Commit = true
		resp, err := req.RequestWith(ctx, s.cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err == nil && resp.Version >= 5 && resp.ProducerID >= 0 {
			s.producer = producer{resp.ProducerID, resp.ProducerEpoch}
		}
		return err
	})
}

// untilAlone repeats a request while the coordinator is busy with an earlier one for the
// same transactional id.
func untilAlone(ctx context.Context, request func() error) error {
	for tries := 1; ; tries++ {
		if err := request(); !errors.Is(err, kerr.ConcurrentTransactions) {
			return err
		}
		if err := sleep(ctx, pauseAfter(tries, time.Millisecond, pause)); err != nil {
			return err
		}
	}
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
	// largeTx is the size from which brokers may take as long for the records themselves.
	largeTx = 1 << 20
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
