package topic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headwaterdb/headwater/checkpoint"
)

var _ checkpoint.Loader = (*Loader)(nil)

// A Loader reads checkpoints back.
type Loader struct {
	opts []kgo.Opt
	log  *slog.Logger
	// patience is how long the partition may be held up before the log says by whom, and
	// its leader may be away before that is an error.
	patience time.Duration
}

// New returns a Loader that connects with opts (publish/kafka: Config.Options). Each Load
// makes a client of its own.
func New(opts []kgo.Opt, log *slog.Logger) *Loader {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Loader{opts: opts, log: log, patience: 30 * time.Second}
}

// Load returns the pipeline's last committed checkpoint with all its entries.
//
// It returns checkpoint.ErrNotFound when nothing was ever committed to the topic, and
// checkpoint.ErrNoTopic when it is missing. Whether the topic was deleted it cannot know;
// the sink does, see publish/kafka. It returns checkpoint.ErrUnusable when we may not read
// the topic, when what is there was written by another pipeline or a newer version, when
// records were deleted and no checkpoint is left, and when records are lost while it reads:
// they are deleted, the topic is made again, or a leader does not have them.
//
// While somebody else's transaction is open on the partition Load waits for its end, and
// says in the log whose it is.
func (l *Loader) Load(ctx context.Context, pipeline string) (checkpoint.Checkpoint, error) {
	cl, err := kgo.NewClient(l.opts...)
	if err != nil {
		return checkpoint.Checkpoint{}, err
	}
	defer cl.Close()
	r := &reader{Loader: l, cl: cl, admin: kadm.NewClient(cl), topic: checkpoint.TopicName(pipeline), pipeline: pipeline, entries: map[string][]byte{}}
	cp, err := r.read(ctx)
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		err = fmt.Errorf("%w: %w; remedy: kafka-acls --add --allow-principal User:… --topic %s --operation Describe --operation Read",
			checkpoint.ErrUnusable, err, r.topic)
	}
	if err != nil {
		return checkpoint.Checkpoint{}, fmt.Errorf("topic %s: %w", r.topic, err)
	}
	return cp, nil
}

// A reader is one Load.
type reader struct {
	*Loader
	cl       *kgo.Client
	admin    *kadm.Client
	topic    string
	pipeline string

	id       kadm.TopicID
	leader   int32
	answered time.Time // when a leader did last

	cp      checkpoint.Checkpoint
	found   bool
	entries map[string][]byte
}

// pause is between two attempts to read on.
const pause = 20 * time.Millisecond

func (r *reader) read(ctx context.Context) (checkpoint.Checkpoint, error) {
	if err := r.locate(ctx); err != nil {
		return r.cp, err
	}
	start, err := r.offset(r.admin.ListStartOffsets(ctx, r.topic))
	if err != nil {
		return r.cp, fmt.Errorf("ask for its start: %w", err)
	}
	// The end as one sees it who reads uncommitted records: everything that the fenced
	// owners wrote, decided or not.
	end, err := r.offset(r.admin.ListEndOffsets(ctx, r.topic))
	if err != nil {
		return r.cp, fmt.Errorf("ask for its end: %w", err)
	}
	r.answered = time.Now()
	warn := r.answered.Add(r.patience)
	if start == end {
		// A right to read that is missing must show at the first start, not at the second.
		if _, err := r.fetch(ctx, start, 0); err != nil {
			return r.cp, err
		}
	}
	for at := start; at < end; {
		next, err := r.fetch(ctx, at, 100*time.Millisecond)
		if err != nil {
			return r.cp, err
		}
		if next > at {
			at, warn = next, time.Now().Add(r.patience)
			continue
		}
		if time.Now().After(warn) {
			if err := r.locate(ctx); err != nil { // it may be another topic by now
				return r.cp, err
			}
			if now, err := r.offset(r.admin.ListEndOffsets(ctx, r.topic)); err == nil && now < end {
				return r.cp, lost("it went up to offset %d and ends at %d now, because a leader did not have the rest (unclean.leader.election.enable)", end, now)
			}
			r.log.Warn("the checkpoint cannot be read yet, because a transaction is open on its partition", "topic", r.topic, "at", at, "end", end, "producers", r.holders(ctx))
			warn = time.Now().Add(r.patience)
		}
		if err := sleep(ctx, pause); err != nil {
			return r.cp, fmt.Errorf("wait at %d of %d for a transaction to end: %w", at, end, err)
		}
	}
	switch {
	case r.found:
		r.cp.Entries = r.entries
		return r.cp, nil
	case start > 0:
		return r.cp, lost("records before offset %d were deleted and no checkpoint is left", start)
	default:
		return r.cp, checkpoint.ErrNotFound
	}
}

// lost is the error of records that are not there any more.
func lost(format string, args ...any) error {
	return fmt.Errorf("%w: %s; restore the topic and keep its cleanup.policy at compact, or delete it and start anew with --new: everything from the tables on is then published again",
		checkpoint.ErrUnusable, fmt.Sprintf(format, args...))
}

// locate finds the topic and the leader of its partition.
func (r *reader) locate(ctx context.Context) error {
	for began := time.Now(); ; {
		meta, err := r.admin.Metadata(ctx, r.topic)
		if err != nil {
			return fmt.Errorf("locate: %w", err)
		}
		d := meta.Topics[r.topic]
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			return checkpoint.ErrNoTopic
		case d.Err != nil && !kerr.IsRetriable(d.Err):
			return fmt.Errorf("locate: %w", d.Err)
		case len(d.Partitions) > 1:
			return fmt.Errorf("%w: it has %d partitions; a checkpoint topic has one", checkpoint.ErrUnusable, len(d.Partitions))
		}
		if p, ok := d.Partitions[0]; ok && p.Err == nil && p.Leader >= 0 {
			if none := (kadm.TopicID{}); r.id != none && d.ID != none && d.ID != r.id {
				return lost("it was deleted and made again while it was read")
			}
			r.id, r.leader = d.ID, p.Leader
			return nil
		}
		if time.Since(began) > r.patience {
			return fmt.Errorf("its partition has had no leader for %v", r.patience)
		}
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("wait for a leader: %w", err)
		}
	}
}

func (r *reader) offset(listed kadm.ListedOffsets, err error) (int64, error) {
	if err == nil {
		err = listed.Error()
	}
	o, _ := listed.Lookup(r.topic, 0)
	return o.Offset, err
}

// fetch reads committed records from the offset at and returns the offset to go on from,
// which is at again when there is nothing to read at present, or within wait, or the
// leader is away. Offsets of aborted and of compacted records are passed over.
func (r *reader) fetch(ctx context.Context, at int64, wait time.Duration) (int64, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(wait.Milliseconds()), 1, 8<<20
	req.IsolationLevel = 1 // committed records only
	req.SessionEpoch = -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = r.topic, r.id
	p := kmsg.NewFetchRequestTopicPartition()
	p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = at, 8<<20, -1
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	raw, err := r.cl.Broker(int(r.leader)).Request(ctx, req)
	switch {
	case err != nil && (ctx.Err() != nil || time.Since(r.answered) > r.patience):
		return at, fmt.Errorf("fetch from offset %d: %w", at, err)
	case err != nil:
		return at, r.locate(ctx) // another broker becomes the leader
	}
	r.answered = time.Now()
	resp := raw.(*kmsg.FetchResponse)
	err = kerr.ErrorForCode(resp.ErrorCode)
	if err == nil && (len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1) {
		return at, nil // nothing new
	}
	var fetched kgo.FetchPartition
	next := at
	if err == nil {
		answer := &resp.Topics[0].Partitions[0]
		empty, stable := len(answer.RecordBatches) == 0, answer.LastStableOffset
		fetched, next = kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
			Offset: at, IsolationLevel: kgo.ReadCommitted(), Topic: r.topic,
		}, answer, kgo.DefaultDecompressor(), nil)
		if err = fetched.Err; err == nil && empty {
			// Compaction can take the last offsets that transactions have decided.
			next = max(next, stable)
		}
	}
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange):
		return at, lost("records from offset %d on were deleted while it was read", at)
	case err != nil && kerr.IsRetriable(err):
		return at, r.locate(ctx) // the leader has moved
	case err != nil:
		return at, fmt.Errorf("fetch from offset %d: %w", at, err)
	}
	for _, rec := range fetched.Records {
		if err := r.take(rec); err != nil {
			return at, fmt.Errorf("offset %d: %w", rec.Offset, err)
		}
	}
	return next, nil
}

// take applies one committed record: the last one of each key counts.
func (r *reader) take(rec *kgo.Record) error {
	switch key := string(rec.Key); {
	case key == checkpoint.Key:
		var cp checkpoint.Checkpoint
		if err := cp.Unmarshal(rec.Value); err != nil {
			return err
		}
		if cp.Pipeline != r.pipeline {
			return fmt.Errorf("%w: it was written by the pipeline %q; a checkpoint topic belongs to one pipeline", checkpoint.ErrUnusable, cp.Pipeline)
		}
		if r.found && cp.Seq <= r.cp.Seq {
			r.log.Warn("the checkpoint's number steps back: somebody has written it by hand", "topic", r.topic, "offset", rec.Offset, "number", cp.Seq, "before", r.cp.Seq)
		}
		r.cp, r.found = cp, true
	case rec.Value == nil:
		delete(r.entries, key)
	default:
		r.entries[key] = bytes.Clone(rec.Value)
	}
	return nil
}

// holders names the producers whose transactions are open on the partition.
func (r *reader) holders(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var set kadm.TopicsSet
	set.Add(r.topic, 0)
	topics, err := r.admin.DescribeProducers(ctx, set)
	if err != nil {
		return "unknown: " + err.Error()
	}
	var names []string
	topics.EachProducer(func(p kadm.DescribedProducer) {
		if p.CurrentTxnStartOffset >= 0 {
			names = append(names, fmt.Sprintf("producer id %d epoch %d since offset %d", p.ProducerID, p.ProducerEpoch, p.CurrentTxnStartOffset))
		}
	})
	if len(names) == 0 {
		return "unknown"
	}
	return strings.Join(names, ", ")
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
