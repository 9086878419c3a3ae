package publish

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint"
)

// A writer is the state of the publishing goroutine: the last committed checkpoint and
// what has been taken from the queue since.
//
// Where a transaction ends:
//
//   - It begins with the first batch that has something to say after the last one ended.
//   - At a batch end that is a commit boundary of the source it is committed once it
//     holds MaxRecords or MaxBytes or touches MaxPartitions, is as old as the commit
//     interval, or nothing has come for Silence.
//   - A source transaction which is itself larger than MaxRecords or MaxBytes is cut at
//     any batch end, and so is one that would make the Kafka transaction twice as large or
//     wide, or keep it open beyond a third of its timeout (rule R23). The checkpoint then
//     points inside it.
//   - Positions alone, without records or entries, wait for IdleInterval. After it the
//     checkpoint is committed even when nothing has moved: whoever was superseded while
//     the database was idle finds out, and lets go of the source. Where Fence does not
//     keep earlier writers off, the commit itself would not tell, see lookForSuccessor.
type writer struct {
	p     *Publisher
	queue *queue
	cp    checkpoint.Checkpoint // the last committed one; its Entries are all of them

	tx      Tx
	opened  time.Time
	txctx   context.Context // ends with 2/3 of the transaction's timeout
	cancel  context.CancelFunc
	entries map[string][]byte
	records int
	bytes   int64
	touched partitionSet
	newest  int64 // source time of the newest change, microseconds
	// part is what the transaction holds of the source transaction that is open at its
	// end, in changes and in bytes (at least).
	part      uint64
	partBytes int64

	// Where the last batch ends, and whether that is news.
	at    capture.Position
	inTx  *capture.InTx
	moved bool

	interval   time.Duration // the commit interval, as lengthened
	lastCommit time.Time
}

func newWriter(p *Publisher, cp checkpoint.Checkpoint, queue *queue) *writer {
	cp.Entries = maps.Clone(cp.Entries)
	if cp.Entries == nil {
		cp.Entries = map[string][]byte{}
	}
	p.enter(Waiting)
	p.stats.commitInterval.Set(p.cfg.CommitInterval.Seconds())
	return &writer{
		p: p, queue: queue, cp: cp, at: cp.At, inTx: cp.InTx, entries: map[string][]byte{},
		interval: p.cfg.CommitInterval, lastCommit: time.Now(),
	}
}

// write takes a batch over: it produces its records, and commits when that makes the
// transaction large or old enough.
func (w *writer) write(ctx context.Context, e *Encoded) error {
	if len(e.Records) == 0 && len(e.Entries) == 0 && w.tx == nil {
		w.at, w.inTx, w.moved = e.End, e.InTx, true
		e.release()
		return nil
	}
	if err := w.begin(ctx); err != nil {
		return err
	}
	w.p.enter(Producing)
	// A stop interrupts Produce: what is half handed over is given up.
	stop := context.AfterFunc(ctx, w.cancel)
	err := w.tx.Produce(w.txctx, e.Records)
	if !stop() && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	w.count(e)
	e.release()
	if w.full(time.Now()) {
		return w.commit(ctx)
	}
	return nil
}

// count takes note of a batch that was produced.
func (w *writer) count(e *Encoded) {
	size := int64(0)
	for i := range e.Records {
		r := &e.Records[i]
		size += int64(len(r.Key) + len(r.Value))
		w.touched.add(r.Topic, r.Partition)
	}
	w.records += len(e.Records)
	w.bytes += size
	w.newest = max(w.newest, e.Time)
	switch {
	case e.InTx == nil:
		w.part, w.partBytes = 0, 0
	case w.inTx == nil || w.inTx.ID != e.InTx.ID: // it began in this batch
		w.part, w.partBytes = e.InTx.Done, size
	default:
		w.part, w.partBytes = w.part+e.InTx.Done-w.inTx.Done, w.partBytes+size
	}
	w.at, w.inTx, w.moved = e.End, e.InTx, true
	for _, entry := range e.Entries {
		w.entries[entry.Key] = entry.Value
	}
}

// full reports whether the transaction has to be committed now, at a batch end.
func (w *writer) full(now time.Time) bool {
	cfg := &w.p.cfg
	age := now.Sub(w.opened)
	if w.inTx != nil {
		return w.part >= uint64(cfg.MaxRecords) || w.partBytes >= cfg.MaxBytes ||
			w.records >= 2*cfg.MaxRecords || w.bytes >= 2*cfg.MaxBytes || w.touched.n >= 2*cfg.MaxPartitions ||
			age >= cfg.TransactionTimeout/3
	}
	return w.records >= cfg.MaxRecords || w.bytes >= cfg.MaxBytes ||
		w.touched.n >= cfg.MaxPartitions || age >= w.interval
}

// due is the moment to commit when no further batch comes before it, or zero.
func (w *writer) due() time.Time {
	cfg := &w.p.cfg
	switch now := time.Now(); {
	case w.tx == nil && w.at == "":
		return time.Time{} // the source has not said where it begins
	case w.tx == nil && w.cp.At == "":
		return now // the first position of all is worth a commit of its own (rule R28)
	case w.tx == nil:
		return w.lastCommit.Add(cfg.IdleInterval)
	case w.inTx != nil:
		return w.opened.Add(cfg.TransactionTimeout / 3)
	default:
		return earlier(now.Add(cfg.Silence), w.opened.Add(w.interval))
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// begin opens a transaction unless one is open.
func (w *writer) begin(ctx context.Context) error {
	if w.tx != nil {
		return nil
	}
	tx, err := w.p.Sink.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	w.tx, w.opened = tx, time.Now()
	w.txctx, w.cancel = context.WithDeadline(context.WithoutCancel(ctx), w.opened.Add(w.p.cfg.TransactionTimeout*2/3))
	return nil
}

// commit makes what was written visible, together with where it ends, and then tells
// the source. A stop does not cancel it, but bounds it, see commitContext.
func (w *writer) commit(ctx context.Context) error {
	if err := w.lookForSuccessor(ctx); err != nil {
		return fmt.Errorf("look for a successor: %w", err)
	}
	if err := w.begin(ctx); err != nil {
		return err
	}
	w.p.enter(Committing)
	began := time.Now()
	next := w.checkpoint(began)
	cctx, cancel := w.p.commitContext(ctx, w.opened)
	defer cancel()
	if err := w.tx.Commit(cctx, next); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	w.settle(next, began)
	if err := w.p.Source.Acknowledge(context.WithoutCancel(ctx), next.At); err != nil {
		return fmt.Errorf("acknowledge %s: %w", next.At, err)
	}
	w.p.enter(Waiting)
	return nil
}

// trust is how long one commit vouches for the next where nothing fences: less than a
// source takes to notice that an instance is gone, and to let a successor in.
const trust = 10 * time.Second

// lookForSuccessor reads whose the checkpoint is, before a commit that nothing else would
// keep from setting back the checkpoint of a successor. Reading costs more than a commit,
// so that those of a busy instance do without.
func (w *writer) lookForSuccessor(ctx context.Context) error {
	if w.p.Sink.Fences() || w.tx != nil && time.Since(w.lastCommit) < trust {
		return nil
	}
	if w.tx != nil { // a stop cancels this as little as the commit
		var cancel context.CancelFunc
		ctx, cancel = w.p.commitContext(ctx, w.opened)
		defer cancel()
	}
	_, err := w.p.load(ctx)
	return err
}

// checkpoint is the one that covers everything written so far. Its Entries are those
// that changed (rule R4).
func (w *writer) checkpoint(now time.Time) checkpoint.Checkpoint {
	next := w.cp
	next.Seq++
	next.Time = now
	next.At, next.InTx = w.at, w.inTx
	next.Totals.Records += uint64(w.records)
	next.Totals.Bytes += uint64(w.bytes)
	next.Entries = nil
	for key, value := range w.entries {
		if old, known := w.cp.Entries[key]; known != (value != nil) || !bytes.Equal(old, value) {
			if next.Entries == nil {
				next.Entries = make(map[string][]byte, len(w.entries))
			}
			next.Entries[key] = value
		}
	}
	return next
}

// settle takes note of a confirmed commit.
func (w *writer) settle(next checkpoint.Checkpoint, began time.Time) {
	all := w.cp.Entries
	for key, value := range next.Entries {
		if value == nil {
			delete(all, key)
		} else {
			all[key] = value
		}
	}
	w.cp = next
	w.cp.Entries = all
	w.p.committed(&w.cp)

	now := time.Now()
	s := w.p.stats
	s.records.Add(float64(w.records))
	s.bytes.Add(float64(w.bytes))
	s.transactionRecords.Observe(float64(w.records))
	s.transactionBytes.Observe(float64(w.bytes))
	s.openSeconds.Observe(began.Sub(w.opened).Seconds())
	s.commitSeconds.Observe(now.Sub(began).Seconds())
	if w.newest > 0 {
		w.p.lagged(now.Sub(time.UnixMicro(w.newest)))
	}
	w.adapt(now.Sub(began))

	clear(w.entries)
	w.touched.reset()
	w.cancel()
	w.tx, w.txctx, w.cancel = nil, nil, nil
	w.records, w.bytes, w.newest, w.part, w.partBytes = 0, 0, 0, 0, 0
	w.moved = false
	w.lastCommit = now
}

// A partitionSet counts the partitions of one transaction. Its zero value is empty.
type partitionSet struct {
	n    int
	seen map[string][]bool // by topic and partition

	// Most records go to the topic of the one before.
	topic string
	last  []bool
}

func (s *partitionSet) add(topic string, partition int32) {
	if topic != s.topic || int(partition) >= len(s.last) {
		s.turn(topic, int(partition))
	}
	if !s.last[partition] {
		s.last[partition] = true
		s.n++
	}
}

// turn makes topic the last one, with room for partition.
func (s *partitionSet) turn(topic string, partition int) {
	if s.seen == nil {
		s.seen = map[string][]bool{}
	}
	s.topic, s.last = topic, s.seen[topic]
	if more := partition + 1 - len(s.last); more > 0 {
		s.last = append(s.last, make([]bool, more)...)
		s.seen[topic] = s.last
	}
}

// reset empties the set. It keeps its memory: there are about as many topics as tables.
func (s *partitionSet) reset() {
	for _, seen := range s.seen {
		clear(seen)
	}
	s.n = 0
}

// adapt sets the commit interval (rule R24): longer while commits that take this long
// cost more than a tenth of the time and changes pile up, else back to the configured one.
func (w *writer) adapt(cost time.Duration) {
	cfg := &w.p.cfg
	switch {
	case cost*10 > w.interval+cost && w.queue.size() > cfg.QueueBytes/2:
		w.interval = min(w.interval*3/2, cfg.MaxCommitInterval)
	case w.interval > cfg.CommitInterval:
		w.interval = max(w.interval*9/10, cfg.CommitInterval)
	default:
		return
	}
	w.p.stats.commitInterval.Set(w.interval.Seconds())
}

// finish ends the writer because of err: io.EOF says that the source has ended and all
// it said was taken; everything else is a stop or the source's failure, for which
// committing at a boundary is a courtesy that saves reading again.
func (w *writer) finish(ctx context.Context, err error) error {
	ended := err == io.EOF
	switch {
	case ended && (w.tx != nil || w.moved), w.tx != nil && w.inTx == nil:
		if cerr := w.commit(ctx); cerr != nil {
			w.giveUp(cerr)
			return cerr
		}
	default:
		w.giveUp(err)
	}
	if ended {
		return nil
	}
	return err
}

// giveUp lets go of the open transaction. Run's Discard ends it.
func (w *writer) giveUp(err error) {
	if w.tx != nil {
		w.p.stats.aborted(err)
		w.cancel()
		w.tx = nil
	}
}

// lagged notes how old the newest change was when it was committed.
func (p *Publisher) lagged(d time.Duration) {
	p.stats.lag.Set(d.Seconds())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress.Lag = d
}
