package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

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

	compressor kgo.Compressor

	conn      *kgo.Client // for administration
	admin     *kadm.Client
	connected bool // at least once
	metrics   metrics

	// What Discard drops.
	cl       *kgo.Client
	send     *sender
	producer producer // of the next transaction

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
	s.opts = append(opts, kgo.WithHooks(endTxnCounter{&s.endTxns}))
	if s.compressor, err = kgo.DefaultCompressor(codecs[cfg.Compression]); err != nil {
		cl.Close()
		return nil, fmt.Errorf("%w: %w", publish.ErrRefused, err)
	}
	return s, nil
}

// batchHead is more than a batch of one record needs beside the record.
const batchHead = 256

// checkpointBytes is the max.message.bytes of the checkpoint topic, whatever the size of
// records: what a source notes there does not depend on it.
const checkpointBytes = 4 << 20

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
	if !proto.numbers {
		return s.classify(kerr.UnsupportedVersion)
	}
	if err := s.ensureCheckpointTopic(ctx, proto); err != nil {
		return s.classify(err)
	}
	s.partialProtocol, s.mustFence = s.transactional() && proto.transactions < 2, false
	opts := s.opts
	if s.partialProtocol {
		opts = append(slices.Clip(opts), kgo.MaxVersions(withoutEpochs()))
	}
	if s.cl, err = kgo.NewClient(opts...); err != nil {
		return fmt.Errorf("%w: %w", publish.ErrRefused, err)
	}
	id := s.id
	if s.transactional() {
		s.producer, err = s.initProducer(ctx, &s.id)
	} else if id, err = "", s.fenceOnce(ctx); err == nil {
		s.producer, err = s.initProducer(ctx, nil)
	}
	if err != nil {
		return s.classify(err)
	}
	s.send = newSender(s.cl, &s.cfg, s.compressor, id, s.partialProtocol, s.producer)
	return nil
}

// withoutEpochs are the client's versions less those that give each transaction an epoch:
// brokers that know them take them before transaction.version allows.
func withoutEpochs() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(kmsg.EndTxn.Int16(), 4)
	return v
}

// Fences reports whether Fence keeps older owners off, whatever they run.
func (s *Sink) Fences() bool { return s.transactional() }

// fenceOnce takes our transactional id once, without using it.
func (s *Sink) fenceOnce(ctx context.Context) error {
	_, err := s.initProducer(ctx, &s.id)
	if is(err, kerr.UnsupportedVersion, kerr.TransactionalIDAuthorizationFailed) {
		s.log.Warn("an owner in exactly-once mode cannot be fenced; make sure that none is running", "err", err)
		return nil
	}
	return err
}

// initProducer asks for a producer id: the next epoch of that of a transactional id, or a
// new one. It waits until the brokers have ended an open transaction.
func (s *Sink) initProducer(ctx context.Context, transactionalID *string) (p producer, err error) {
	err = untilAlone(ctx, func() error {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID = transactionalID
		req.TransactionTimeoutMillis = int32(s.cfg.TransactionTimeout.Milliseconds())
		resp, err := req.RequestWith(ctx, s.cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err == nil {
			p = producer{resp.ProducerID, resp.ProducerEpoch}
		}
		return err
	})
	return p, err
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
	d, err := ensure(ctx, s.conn, newTopic{
		name: topic, create: true, partitions: 1, replication: s.cfg.CheckpointReplication, patience: s.cfg.patience,
		settings: map[string]string{
			"cleanup.policy":                 "compact",
			"segment.ms":                     "3600000",
			"segment.bytes":                  "16777216",
			"min.cleanable.dirty.ratio":      "0.1",
			"max.message.bytes":              strconv.Itoa(checkpointBytes),
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
//
// A new cluster makes the topic of its transactions when it is first asked for one, so it
// is asked again for a while when it has no coordinator.
func (s *Sink) history(ctx context.Context) (used, committed bool, err error) {
	var d kadm.DescribedTransaction
	for tries, began := 1, time.Now(); ; tries++ {
		var described kadm.DescribedTransactions
		described, err = s.admin.DescribeTransactions(ctx, s.id)
		d = described[s.id]
		if err == nil {
			err = d.Err
		}
		if !is(err, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress) || time.Since(began) > s.cfg.patience {
			break
		}
		if stopped := sleep(ctx, pauseAfter(tries, firstPause, maxPause)); stopped != nil {
			return false, false, fmt.Errorf("%w; the last attempt: %w", stopped, err)
		}
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
	// numbers: it knows producers that number their records (Kafka 0.11).
	numbers bool
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
		switch k.ApiKey {
		case kmsg.DescribeTransactions.Int16():
			p.describes = true
		case kmsg.InitProducerID.Int16():
			p.numbers = true
		}
	}
	return p, nil
}

// errMustFence: see partialProtocol. The publisher's way back from any error does it.
var errMustFence = errors.New("the last commit was sent more than once or answered late; fencing again, because these brokers could take a late copy of it for part of the next transaction")

// Begin opens a transaction. The broker's clock for it starts with the first record.
func (s *Sink) Begin(context.Context) (publish.Tx, error) {
	if s.send == nil {
		panic("kafka: Begin without Fence")
	}
	if s.mustFence {
		return nil, errMustFence
	}
	s.send.begin(s.producer)
	return &tx{s: s, send: s.send, opened: time.Now()}, nil
}

// Discard closes the client. The broker ends the open transaction at the next Fence, or
// after its timeout.
func (s *Sink) Discard() {
	if s.cl == nil {
		return
	}
	if s.send != nil {
		s.send.close()
	}
	s.cl.Close()
	s.cl, s.send = nil, nil
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
