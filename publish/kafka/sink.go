package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
)

var (
	_ publish.Sink = (*Sink)(nil)
	_ publish.Tx   = (*tx)(nil)
)

// A Sink writes one pipeline's records and checkpoints. Its methods are called by one
// goroutine at a time; only Check may be called beside them.
type Sink struct {
	name string
	id   string // the transactional id
	cfg  Config
	opts []kgo.Opt
	log  *slog.Logger

	conn      *kgo.Client // for administration
	admin     *kadm.Client
	connected bool // at least once
	metrics   metrics

	// What Discard drops.
	cl   *kgo.Client
	slab slab // records of the open transaction

	// partialProtocol: the brokers do not give each transaction an epoch of its own
	// (KIP-890 part 2, transaction.version 2), so a request that is delivered late could
	// hit the next transaction. mustFence is set when that might happen.
	partialProtocol, mustFence bool
	endTxns                    atomic.Int64 // EndTxn requests written

	// Time between EndTxn's answer and the next transaction's first record.
	ended time.Time
	gap   time.Duration
}

type metrics struct{ flush, end prometheus.Histogram }

// New returns the sink of the named pipeline. It reads the files of the TLS section, and
// connects at the first Fence or Check. The metrics go to r, which may be nil.
func New(name string, cfg Config, log *slog.Logger, r prometheus.Registerer) (*Sink, error) {
	if err := ValidateName(name); err != nil {
		return nil, fmt.Errorf("%w: %w", publish.ErrRefused, err)
	}
	cl, log, err := newAdmin(&cfg, log)
	if err != nil {
		return nil, err
	}
	opts, err := cfg.Options(log)
	if err != nil {
		cl.Close()
		return nil, fmt.Errorf("%w: %w", publish.ErrRefused, err)
	}
	histogram := func(name, help string) prometheus.Histogram {
		return promauto.With(r).NewHistogram(prometheus.HistogramOpts{
			Name: "headwater_kafka_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0005, 2, 17),
		})
	}
	s := &Sink{
		name: name, id: "headwater." + name, cfg: cfg.clone(), log: log, conn: cl, admin: kadm.NewClient(cl), gap: startGap,
		metrics: metrics{
			flush: histogram("flush_seconds", "Time that a commit waits for its last records to be acknowledged."),
			end:   histogram("end_transaction_seconds", "Time that the brokers take to end a transaction."),
		},
	}
	s.opts = append(opts,
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[cfg.Compression], kgo.NoCompression()),
		kgo.ProducerLinger(*cfg.Linger),
		// Checked on the uncompressed size, so it must hold the largest record and its
		// batch's head; Produce keeps to MaxRecordBytes itself (rule R16).
		kgo.ProducerBatchMaxBytes(int32(cfg.MaxRecordBytes+batchHead)),
		kgo.MaxBufferedRecords(cfg.BufferRecords),
		kgo.MaxBufferedBytes(cfg.BufferBytes),
		kgo.WithHooks(endTxnCounter{&s.endTxns}),
	)
	if s.transactional() {
		s.opts = append(s.opts, kgo.TransactionalID(s.id), kgo.TransactionTimeout(cfg.TransactionTimeout))
	}
	return s, nil
}

// batchHead is more than a batch of one record needs beside the record.
const batchHead = 256

func (s *Sink) transactional() bool { return s.cfg.Delivery == ExactlyOnce }

// Fence is state FENCE: with a new producer id for our transactional id Kafka has
// finished every older transaction of it, markers included, and takes nothing more from
// its owners. With delivery at-least-once it does that once for an owner that ran in
// exactly-once mode, as far as the brokers know transactions.
func (s *Sink) Fence(ctx context.Context) error {
	s.Discard()
	proto, err := s.protocol(ctx)
	if err != nil {
		return s.classify(err)
	}
	s.connected = true
	if err := s.ensureCheckpointTopic(ctx, proto); err != nil {
		return s.classify(err)
	}
	cl, err := kgo.NewClient(s.opts...)
	if err != nil {
		return fmt.Errorf("%w: %w", publish.ErrRefused, err)
	}
	s.cl = cl
	if !s.transactional() {
		return s.classify(s.fenceOnce(ctx))
	}
	id, _, err := cl.ProducerID(ctx)
	if err != nil {
		return s.classify(err)
	}
	if id < 0 {
		return refused(kerr.UnsupportedVersion, "the brokers have no transactions; use Kafka 2.5 or later, or delivery: at-least-once")
	}
	s.partialProtocol, s.mustFence = proto.transactions < 2, false
	return nil
}

// Fences reports whether Fence keeps older owners off, whatever they run.
func (s *Sink) Fences() bool { return s.transactional() }

// fenceOnce takes our transactional id once, without using it.
func (s *Sink) fenceOnce(ctx context.Context) error {
	for {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID = &s.id
		req.TransactionTimeoutMillis = int32(s.cfg.TransactionTimeout.Milliseconds())
		resp, err := req.RequestWith(ctx, s.cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, kerr.ConcurrentTransactions):
			if err := sleep(ctx, pause); err != nil {
				return err
			}
		case is(err, kerr.UnsupportedVersion, kerr.TransactionalIDAuthorizationFailed):
			s.log.Warn("an owner in exactly-once mode cannot be fenced; make sure that none is running", "err", err)
			return nil
		default:
			return err
		}
	}
}

// ensureCheckpointTopic makes the checkpoint topic, unless there are signs that it was
// deleted: then a missing checkpoint is not a first start (fault 23).
//
// The signs: the topic is always made before the transactional id is used for the first
// time. So when the brokers know the id, the topic has existed; and when the last thing
// they did for the id was to commit, a checkpoint was written. The brokers forget an id
// that was not used for transactional.id.expiration.ms, 7 days by default, and those
// before Kafka 3.0 do not say.
func (s *Sink) ensureCheckpointTopic(ctx context.Context, proto protocol) error {
	topic := checkpoint.TopicName(s.name)
	gone := missing{topic: topic, patience: s.cfg.patience, log: s.log}
	for s.transactional() && proto.describes && !s.cfg.New {
		used, committed, err := s.history(ctx) // first: the order above makes this one decisive
		if err != nil {
			return fmt.Errorf("describe the transactional id %s: %w", s.id, err)
		}
		exists, written, err := s.topicState(ctx, topic)
		if err != nil {
			return fmt.Errorf("look at topic %s: %w", topic, err)
		}
		lost := used && !exists || committed && !written
		if !lost {
			break
		}
		if gone.certain() {
			return fmt.Errorf("%w: its topic %s was deleted, although the pipeline has run; restore the topic, or start anew with --new: everything from the tables on is then published again", checkpoint.ErrUnusable, topic)
		}
		if err := sleep(ctx, 4*pause); err != nil {
			return err
		}
	}
	d, err := ensure(ctx, s.admin, newTopic{
		name: topic, create: true, partitions: 1, replication: s.cfg.CheckpointReplication,
		settings: map[string]string{
			"cleanup.policy":                 "compact",
			"segment.ms":                     "3600000",
			"segment.bytes":                  "16777216",
			"min.cleanable.dirty.ratio":      "0.1",
			"max.message.bytes":              "4194304",
			"unclean.leader.election.enable": "false",
		},
	}, s.log)
	if err != nil {
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	if n := len(d.Partitions); n != 1 {
		return fmt.Errorf("%w: topic %s has %d partitions; it must have one", checkpoint.ErrUnusable, topic, n)
	}
	return nil
}

// history says what the brokers remember of the transactional id: that it was used, and
// that its last use was to commit.
func (s *Sink) history(ctx context.Context) (used, committed bool, err error) {
	described, err := s.admin.DescribeTransactions(ctx, s.id)
	d := described[s.id]
	if err == nil {
		err = d.Err
	}
	switch {
	case errors.Is(err, kerr.TransactionalIDNotFound):
		return false, false, nil
	case err != nil:
		return false, false, err
	}
	switch d.State {
	case "Dead":
		return false, false, nil
	case "CompleteCommit", "PrepareCommit":
		return true, true, nil
	}
	return true, false, nil
}

// topicState says whether the topic exists and whether anything was ever written to it.
func (s *Sink) topicState(ctx context.Context, topic string) (exists, written bool, err error) {
	meta, err := s.admin.Metadata(ctx, topic)
	if err != nil {
		return false, false, err
	}
	switch err := meta.Topics[topic].Err; {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return false, false, nil
	case err != nil:
		return false, false, err
	}
	ends, err := s.admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return false, false, err
	}
	end, _ := ends.Lookup(topic, 0)
	return true, end.Offset > 0, nil
}

// protocol is what the cluster has agreed on.
type protocol struct {
	// transactions is the level of transaction.version; 2 is KIP-890 part 2.
	transactions int16
	// describes: it can describe transactions (Kafka 3.0).
	describes bool
}

// protocol asks for what the cluster has agreed on.
func (s *Sink) protocol(ctx context.Context) (protocol, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "headwater", "1"
	resp, err := req.RequestWith(ctx, s.conn)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return protocol{}, fmt.Errorf("ask for the cluster's features: %w", err)
	}
	var p protocol
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" {
			p.transactions = f.MaxVersionLevel
		}
	}
	for _, k := range resp.ApiKeys {
		if k.ApiKey == int16(kmsg.DescribeTransactions) {
			p.describes = true
		}
	}
	return p, nil
}

// errMustFence: see partialProtocol. The publisher's way back from any error does it.
var errMustFence = errors.New("the last commit was sent more than once or answered late; fencing again, because these brokers could take a late copy of it for part of the next transaction")

// Begin opens a transaction. The broker's clock for it starts with the first record.
func (s *Sink) Begin(context.Context) (publish.Tx, error) {
	if s.cl == nil {
		panic("kafka: Begin without Fence")
	}
	t := &tx{s: s, cl: s.cl, opened: time.Now()}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.promise = t.settle
	if !s.transactional() {
		return t, nil
	}
	if s.mustFence {
		return nil, errMustFence
	}
	if err := s.cl.BeginTransaction(); err != nil {
		return nil, s.classify(err)
	}
	var err error
	if t.id, t.epoch, err = s.cl.ProducerID(t.ctx); err != nil {
		return nil, s.classify(err)
	}
	return t, nil
}

// Discard closes the client. The broker ends the open transaction at the next Fence, or
// after its timeout.
func (s *Sink) Discard() {
	if s.cl == nil {
		return
	}
	s.cl.Close()
	s.cl = nil
	s.slab = slab{} // the client may still read the old one
}

// Close gives everything up.
func (s *Sink) Close() error {
	s.Discard()
	s.admin.Close()
	return nil
}

// Release fences the pipeline and aborts its open transaction, so that consumers of a
// pipeline that is retired are not held up by it.
func (s *Sink) Release(ctx context.Context) error {
	defer s.Discard()
	return s.Fence(ctx)
}

// endTxnCounter counts the EndTxn requests that were written.
type endTxnCounter struct{ n *atomic.Int64 }

func (c endTxnCounter) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == int16(kmsg.EndTxn) && err == nil {
		c.n.Add(1)
	}
}
