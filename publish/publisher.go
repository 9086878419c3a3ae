package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint"
)

// Parts are what a Publisher joins.
type Parts struct {
	Source      capture.Source
	Encoder     Encoder
	Sink        Sink
	Checkpoints checkpoint.Loader
	// Fingerprint is the hash of the settings that change what is emitted: filters,
	// transforms, naming (rule R8).
	Fingerprint string
	// Prefix is topics.prefix. Like the pipeline's name it cannot change once a
	// checkpoint exists (rule R29).
	Prefix string
	// Log is told what a person wants to know once. Nil means silence.
	Log *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
}

// A Publisher carries the changes of one pipeline from its source to its sink.
type Publisher struct {
	Parts
	name  string
	cfg   Config
	owner checkpoint.Owner
	stats *stats

	// What is remembered from one Run to the next (rule R13): that this instance has
	// claimed the pipeline, and the last Seq of ours that is known to be committed. Neither
	// decides where to go on; both only tell a superseded owner and a lost checkpoint.
	claimed bool
	seq     uint64

	mu       sync.Mutex // guards the fields below, which Progress reads
	progress Progress
	queue    *queue
}

// New returns the publisher of the named pipeline. It is one instance in the sense of
// the claim: make one per process.
func New(name string, cfg Config, parts Parts) *Publisher {
	if parts.Log == nil {
		parts.Log = slog.New(slog.DiscardHandler)
	}
	host, _ := os.Hostname() // for people; an unknown host is no reason not to run
	p := &Publisher{
		Parts: parts, name: name, cfg: cfg,
		owner: checkpoint.Owner{ID: ulid.Make().String(), Host: host, Since: time.Now().UTC().Truncate(time.Millisecond)},
	}
	p.stats = newStats(parts.Metrics, p)
	return p
}

// Run carries changes from the source to the sink until ctx ends, the source has
// nothing more to say (nil), or a step fails. It is the only way to start and the only
// way to recover: it may be called again after any error.
func (p *Publisher) Run(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			p.stats.failed(err)
			p.Sink.Discard() // the way back to Fence, whatever went wrong (rule R13)
		}
		p.dropQueue() // and what was left in it
		p.enter(Stopped)
	}()

	// Order matters. Once earlier writers are fenced nobody else can move the
	// checkpoint, so the one we load now is final (rule R9); once our claim is
	// committed, what the source says about it is a fact and not a race (rule R14).
	p.enter(Fencing)
	if err := p.Sink.Fence(ctx); err != nil {
		return fmt.Errorf("fence earlier writers: %w", err)
	}
	p.enter(Loading)
	cp, err := p.load(ctx)
	if err != nil {
		return fmt.Errorf("load the checkpoint: %w", err)
	}
	p.enter(Claiming)
	if err := p.claim(ctx, &cp); err != nil {
		return fmt.Errorf("claim the pipeline: %w", err)
	}
	p.enter(Verifying)
	if err := p.Source.Verify(ctx, cp.Resume()); err != nil {
		return fmt.Errorf("verify the checkpoint against the source: %w", err)
	}
	if err := p.Encoder.Resume(ctx, cp.Entries); err != nil {
		return fmt.Errorf("take up the encoder's notes: %w", err)
	}

	// Reading ends when publishing fails, but not the other way round: what was read
	// before the source failed is still published.
	queue := p.newQueue()
	g, reading := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := p.Source.Stream(reading, cp.Resume(), func(b *capture.Batch) error {
			return p.encode(reading, b, queue)
		})
		if err == nil {
			err = reading.Err() // told to stop, the source has not ended
		}
		queue.close(err)
		return err
	})
	g.Go(func() error { return p.publish(ctx, cp, queue) })
	return g.Wait()
}

// load is READ: what the checkpoint says, and whether it is still ours to move.
func (p *Publisher) load(ctx context.Context) (checkpoint.Checkpoint, error) {
	cp, err := p.Checkpoints.Load(ctx, p.name)
	switch {
	case errors.Is(err, checkpoint.ErrNoTopic):
		return cp, err // the sink had found it or made it: its next Fence tells what is true
	case errors.Is(err, checkpoint.ErrNotFound) && p.claimed:
		return cp, fmt.Errorf("%w: it is gone, although this process has committed number %d; restore the topic %s", checkpoint.ErrUnusable, p.seq, checkpoint.TopicName(p.name))
	case errors.Is(err, checkpoint.ErrNotFound):
		p.Log.Info("no checkpoint yet: this is the first start")
		return checkpoint.Checkpoint{}, nil
	case err != nil:
		return cp, err
	case cp.Pipeline != p.name:
		return cp, fmt.Errorf("%w: it belongs to the pipeline %q", checkpoint.ErrUnusable, cp.Pipeline)
	case p.claimed && cp.Owner.ID != p.owner.ID:
		return cp, fmt.Errorf("%w: %s on %s, started %v", ErrSuperseded, cp.Owner.ID, cp.Owner.Host, cp.Owner.Since)
	case cp.Seq < p.seq:
		return cp, fmt.Errorf("%w: its number is %d, although number %d was committed; restore the topic %s", checkpoint.ErrUnusable, cp.Seq, p.seq, checkpoint.TopicName(p.name))
	case p.claimed && cp.Seq > p.seq+1:
		p.Log.Warn("the checkpoint's number has jumped: somebody else has written it", "expected", p.seq+1, "found", cp.Seq)
	}
	if cp.Owner.ID == p.owner.ID { // also when the answer to its commit was lost
		p.claimed, p.seq = true, cp.Seq
	}
	return cp, nil
}

// prefixEntry is the checkpoint's note of topics.prefix.
const prefixEntry = "c/prefix"

// claim is CLAIM: it commits the same checkpoint under our name. When that succeeds,
// nobody has fenced us since Fence.
func (p *Publisher) claim(ctx context.Context, cp *checkpoint.Checkpoint) error {
	prefix, known := cp.Entries[prefixEntry]
	switch {
	case known && string(prefix) != p.Prefix:
		return fmt.Errorf("%w: topics.prefix was %q and is %q now; set it back, or start a new pipeline under another name", ErrConfigChanged, prefix, p.Prefix)
	case cp.InTx != nil && cp.Config != p.Fingerprint:
		return fmt.Errorf("%w: settings that change what is emitted were changed in the middle of source transaction %s; run with the old settings until it has passed, then change them", ErrConfigChanged, cp.InTx.ID)
	}
	next := *cp
	next.Pipeline, next.Owner, next.Config = p.name, p.owner, p.Fingerprint
	next.Seq++
	next.Time = time.Now()
	next.Entries = nil
	if !known && p.Prefix != "" {
		next.Entries = map[string][]byte{prefixEntry: []byte(p.Prefix)}
	}
	tx, err := p.Sink.Begin(ctx)
	if err != nil {
		return err
	}
	cctx, cancel := p.commitContext(ctx, time.Now())
	defer cancel()
	if err := tx.Commit(cctx, next); err != nil {
		return err
	}
	added := next.Entries
	next.Entries = maps.Clone(cp.Entries)
	for k, v := range added {
		if next.Entries == nil {
			next.Entries = map[string][]byte{}
		}
		next.Entries[k] = v
	}
	*cp = next
	p.claimed = true
	p.committed(cp)
	return nil
}

// committed notes a confirmed checkpoint.
func (p *Publisher) committed(cp *checkpoint.Checkpoint) {
	p.seq = cp.Seq
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress.Position, p.progress.InTx, p.progress.Seq = cp.At, cp.InTx, cp.Seq
	p.progress.Records, p.progress.Bytes = cp.Totals.Records, cp.Totals.Bytes
	p.progress.Commits++
	p.progress.LastCommit = time.Now()
	p.stats.commits.Inc()
	p.stats.lastCommit.SetToCurrentTime()
}

// drain is for how long a stop waits for a commit. Brokers that are away must not hold it
// up for as long as a transaction may live. What is given up then is read again by the next
// start, unless the brokers have committed it after all, which it finds (rule R10).
const drain = 10 * time.Second

// commitContext is a context for the commit of a transaction that was opened then. It
// outlives a stop by drain, because a cancelled commit has an unknown outcome, but not the
// transaction.
func (p *Publisher) commitContext(ctx context.Context, opened time.Time) (context.Context, context.CancelFunc) {
	cctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), opened.Add(p.cfg.TransactionTimeout))
	limit := time.AfterFunc(drain, func() {
		if cctx.Err() == nil {
			p.Log.Warn("the last transaction is given up, because the brokers do not take it; the next start publishes it", "after", drain)
			cancel()
		}
	})
	limit.Stop() // until there is a stop
	stop := context.AfterFunc(ctx, func() { limit.Reset(drain) })
	return cctx, func() {
		stop()
		limit.Stop()
		cancel()
	}
}

func (p *Publisher) newQueue() *queue {
	q := newQueue(p.cfg.QueueBytes)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = q
	return q
}

func (p *Publisher) dropQueue() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = nil
}

// encode turns a batch into records and queues them. The source's goroutine calls it.
func (p *Publisher) encode(ctx context.Context, b *capture.Batch, queue *queue) error {
	e := newEncoded()
	if err := p.Encoder.Encode(ctx, b, e); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	e.End = b.End
	if b.InTx != nil {
		in := *b.InTx
		e.InTx = &in
	}
	for i := range b.Events {
		ev := &b.Events[i]
		if ev.Kind == capture.Change {
			e.Changes++
			e.Time = max(e.Time, ev.Time)
		}
		e.Entries = append(e.Entries, ev.Entries...)
	}
	b.Release()
	return queue.put(ctx, e)
}

// publish is the second goroutine of a Run: it carries encoded batches into
// transactions and decides where those end.
func (p *Publisher) publish(ctx context.Context, cp checkpoint.Checkpoint, queue *queue) error {
	w := newWriter(p, cp, queue)
	for {
		e, err := queue.next(ctx, w.due())
		switch {
		case err == nil:
			err = w.write(ctx, e)
		case errors.Is(err, errDue):
			err = w.commit(ctx)
		default: // the source has ended or failed, or we are told to stop
			return w.finish(ctx, err)
		}
		if err != nil {
			w.giveUp(err)
			return err
		}
	}
}
