package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"golang.org/x/sync/errgroup"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/publish/publishtest"
)

func TestSink_AtLeastOnceLosesNothing(t *testing.T) {
	t.Parallel()
	r, n := lossyRig(t, &publishtest.Story{Transactions: 100, Size: sizes, Batch: func() int { return 11 }})
	r.small()
	r.cfg.Delivery = AtLeastOnce
	n.setRule(first(6, kmsg.Produce, answerLost))
	for kill := 3; kill < 12; kill += 4 {
		if err := r.supervise(t.Context(), r.stepped(nth("produced", kill, errCrash))); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
	}
	r.finish(r.publisher())
	for _, p := range r.story.Check(r.committed(), 100) {
		if strings.Contains(p, "missing") || strings.Contains(p, "unknown") {
			t.Errorf("readers see %s", p)
		}
	}
	if got := r.story.Acked(); got != 100 {
		t.Errorf("acknowledged up to %d", got)
	}
}

// The checkpoint must not be ahead of the records, whatever is lost (section 16 of the
// protocol: flush first).
func TestSink_AtLeastOnceWritesTheCheckpointLast(t *testing.T) {
	t.Parallel()
	r := newRig(t, &publishtest.Story{Transactions: 30, Size: sizes})
	r.cfg.Delivery = AtLeastOnce
	r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: dataTopic, Err: kerr.InvalidRecord, Count: -1})
	if err := r.publisher().Run(t.Context()); !errors.Is(err, kerr.InvalidRecord) {
		t.Fatal(err)
	}
	if cp, err := r.loader().Load(t.Context(), pipeline); err != nil || cp.At != "" {
		t.Errorf("the checkpoint is %+v, %v, want the claim", cp, err)
	}
}

func TestSink_AtLeastOnceFencesAnExactlyOnceOwner(t *testing.T) {
	t.Parallel()
	r := newRig(t, &publishtest.Story{Transactions: 10, Size: sizes})
	old := r.sink()
	if err := old.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx, err := old.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.cfg.Delivery = AtLeastOnce
	r.finish(r.publisher())
	if err := tx.Commit(t.Context(), checkpoint.Checkpoint{Pipeline: pipeline, Seq: 99}); !errors.Is(err, publish.ErrFenced) {
		t.Errorf("the old owner's commit: %v", err)
	}
	r.verify(10)
}

// Brokers without KIP-890 part 2: a commit that was sent more than once is followed by a
// new fence, so that its late copy cannot hit the next transaction.
func TestSink_OldBrokers(t *testing.T) {
	t.Parallel()
	old := kversion.V3_6_0()
	t.Run("CarryAStory", func(t *testing.T) {
		r := newRig(t, &publishtest.Story{Transactions: 100, Size: sizes}, kfake.MaxVersions(old)).small()
		r.finish(r.publisher())
		r.verify(100)
	})
	t.Run("WithoutDescribeTransactions", func(t *testing.T) {
		r := newRig(t, &publishtest.Story{Transactions: 20, Size: sizes}, kfake.MaxVersions(kversion.V2_8_0())).small()
		r.finish(r.publisher())
		r.verify(20)
	})
	t.Run("FenceAgainAfterASecondAttempt", func(t *testing.T) {
		n := new(network)
		r := newRig(t, &publishtest.Story{Transactions: 100, Size: sizes}, kfake.MaxVersions(old), kfake.ListenFn(n.listen)).small()
		n.setRule(first(1, kmsg.EndTxn, answerLost))
		p := r.publisher()
		if err := p.Run(t.Context()); !errors.Is(err, errMustFence) {
			t.Fatalf("Run returned %v", err)
		}
		r.finish(p)
		r.verify(100)
	})
	t.Run("NewOnesNeedNot", func(t *testing.T) {
		r, n := lossyRig(t, &publishtest.Story{Transactions: 100, Size: sizes})
		n.setRule(first(1, kmsg.EndTxn, answerLost))
		if err := r.small().publisher().Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.verify(100)
	})
}

// Rule R16.
func TestSink_RefusesARecordThatIsTooLarge(t *testing.T) {
	r := newRig(t, nil)
	r.cfg.MaxRecordBytes = 2000
	s := r.sink()
	tx := begin(t, s)
	err := tx.Produce(t.Context(), []publish.Record{{Topic: dataTopic, Value: make([]byte, 2001)}})
	if !errors.Is(err, publish.ErrRefused) || !strings.Contains(err.Error(), "max_record_bytes") {
		t.Errorf("Produce returned %v", err)
	}
	s.Discard()
	tx = begin(t, s)
	fits := []publish.Record{{Topic: dataTopic, Key: make([]byte, 1000), Value: make([]byte, 900), Headers: []publish.Header{{Key: "k", Value: make([]byte, 99)}}}}
	if err := tx.Produce(t.Context(), fits); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(t.Context(), checkpoint.Checkpoint{Pipeline: pipeline, Seq: 1}); err != nil {
		t.Error(err)
	}
}

// What a source notes does not depend on the size of its rows.
func TestSink_ACheckpointMayBeLargerThanARecord(t *testing.T) {
	t.Parallel()
	for _, delivery := range []string{ExactlyOnce, AtLeastOnce} {
		r := newRig(t, nil)
		r.cfg.Delivery, r.cfg.MaxRecordBytes = delivery, 1024
		note := bytes.Repeat([]byte("x"), 3<<20)
		cp := checkpoint.Checkpoint{Pipeline: pipeline, Seq: 1, Entries: map[string][]byte{"s/a": note}}
		if err := begin(t, r.sink()).Commit(t.Context(), cp); err != nil {
			t.Fatalf("%s: %v", delivery, err)
		}
		got, err := r.loader().Load(t.Context(), pipeline)
		if err != nil || !bytes.Equal(got.Entries["s/a"], note) {
			t.Errorf("%s: the checkpoint has a note of %d bytes, %v", delivery, len(got.Entries["s/a"]), err)
		}
	}
}

func begin(t testing.TB, s *Sink) publish.Tx {
	t.Helper()
	if err := s.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func TestSink_WritesTheCheckpointLast(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	s := r.sink()
	tx := begin(t, s)
	err := tx.Commit(t.Context(), checkpoint.Checkpoint{Pipeline: pipeline, Seq: 1, Entries: map[string][]byte{"s/a": []byte("1"), "t/b": []byte("2"), "s/c": nil}})
	if err != nil {
		t.Fatal(err)
	}
	opts, err := r.cfg.Options(nil)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(opts, kgo.ConsumeTopics(checkpoint.TopicName(pipeline)), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var keys []string
	for len(keys) < 4 {
		cl.PollFetches(t.Context()).EachRecord(func(rec *kgo.Record) { keys = append(keys, string(rec.Key)) })
	}
	if want := []string{"s/a", "s/c", "t/b", "p"}; !slices.Equal(keys, want) {
		t.Errorf("written in the order %q, want %q", keys, want)
	}
	configs, err := kadm.NewClient(cl).DescribeTopicConfigs(t.Context(), checkpoint.TopicName(pipeline))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs[0].Configs {
		if c.Key == "cleanup.policy" && *c.Value != "compact" {
			t.Errorf("cleanup.policy is %s", *c.Value)
		}
	}
}

// A stop interrupts a Produce that waits for the brokers, and ends it soon.
func TestSink_StopInterruptsProduce(t *testing.T) {
	t.Parallel()
	r, n := lossyRig(t, nil)
	r.cfg.BufferRecords = 10
	s := r.sink()
	tx := begin(t, s)
	n.setRule(func(k kmsg.Key) fate {
		if k == kmsg.Produce {
			return requestLost
		}
		return delivered
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	records := make([]publish.Record, 100)
	for i := range records {
		records[i] = publish.Record{Topic: dataTopic, Value: []byte("x")}
	}
	if err := tx.Produce(ctx, records); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Produce returned %v", err)
	}
	s.Discard()
}

// Brokers that are away end a Commit with its deadline, not never.
func TestSink_CommitEndsWithItsDeadline(t *testing.T) {
	t.Parallel()
	r, n := lossyRig(t, nil)
	r.cfg.TransactionTimeout = 1500 * time.Millisecond
	tx := begin(t, r.sink())
	if err := tx.Produce(t.Context(), []publish.Record{{Topic: dataTopic, Value: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	n.setRule(func(kmsg.Key) fate { return requestLost })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := tx.Commit(ctx, checkpoint.Checkpoint{Pipeline: pipeline, Seq: 1})
	if err == nil || ctx.Err() != nil {
		t.Errorf("Commit returned %v", err)
	}
}

// Fault 37: the producer's epoch has 16 bits and grows by one with each transaction; the
// brokers then give a new producer id.
func TestFaults_37_TheEpochRunsOver(t *testing.T) {
	t.Parallel()
	const before, n = math.MaxInt16 - 100, 300
	r := newRig(t, nil)
	*r.cfg.Linger = 0
	s := r.sink()
	if err := s.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Each fence is worth a transaction here, and cheaper.
	var fences errgroup.Group
	fences.SetLimit(32)
	for range before {
		fences.Go(func() error { return s.fenceOnce(t.Context()) })
	}
	if err := fences.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := s.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	id, epoch := s.producer.id, s.producer.epoch
	if epoch < before || epoch > math.MaxInt16-50 {
		t.Fatalf("the epoch to begin with is %d", epoch)
	}
	for seq := range uint64(n) {
		s.ended = time.Time{} // the in-memory cluster needs no time between transactions
		tx, err := s.Begin(t.Context())
		if err != nil {
			t.Fatalf("transaction %d: %v", seq, err)
		}
		if seq%10 == 0 {
			if err := tx.Produce(t.Context(), []publish.Record{{Topic: dataTopic, Value: fmt.Appendf(nil, "%d", seq)}}); err != nil {
				t.Fatalf("transaction %d: %v", seq, err)
			}
		}
		if err := tx.Commit(t.Context(), checkpoint.Checkpoint{Pipeline: pipeline, Seq: seq + 1}); err != nil {
			t.Fatalf("transaction %d: %v", seq, err)
		}
	}
	if after := s.producer.id; after == id {
		t.Errorf("the producer id is %d still", after)
	}
	if cp, err := r.loader().Load(t.Context(), pipeline); err != nil || cp.Seq != n {
		t.Errorf("the checkpoint is %+v, %v", cp, err)
	}
	if got := len(r.committed()[0]); got != n/10 {
		t.Errorf("%d records are visible, want %d", got, n/10)
	}
}

func TestTopics_EnsureMakesTheTopicOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.cfg.Topics = TopicConfig{Create: new(true), Partitions: 5, Settings: map[string]string{"retention.ms": "1234567"}}
	topics := r.topics()
	made := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Observe: true, Count: -1})
	for range 3 {
		if n, _, err := topics.Ensure(t.Context(), "shop.public.orders", false, ""); n != 5 || err != nil {
			t.Errorf("Ensure returned %d, %v", n, err)
		}
	}
	if n, _, err := topics.Ensure(t.Context(), dataTopic, true, ""); n != partitions || err != nil {
		t.Errorf("a topic that exists: %d, %v", n, err)
	}
	if made.Hits() != 1 {
		t.Errorf("%d requests to make a topic", made.Hits())
	}
	info := r.cluster.TopicInfo("shop.public.orders")
	if got := info.Configs["retention.ms"]; got == nil || *got != "1234567" {
		t.Errorf("retention.ms is %v", got)
	}

	r.cfg.Topics.Create = new(false)
	if _, _, err := r.topics().Ensure(t.Context(), "missing", false, ""); !errors.Is(err, publish.ErrRefused) || !strings.Contains(err.Error(), "topics.create") {
		t.Errorf("Ensure returned %v", err)
	}
}

// An ensuringEncoder pins its topic as the encoder of Avro does.
type ensuringEncoder struct {
	publishtest.Encoder
	topics       *Topics
	pinned, sure bool
	id           string
}

const dataPin = "t/" + dataTopic

func (e *ensuringEncoder) Resume(_ context.Context, entries map[string][]byte) error {
	id, pinned := entries[dataPin]
	e.id, e.pinned, e.sure = string(id), pinned, false
	return nil
}

func (e *ensuringEncoder) Encode(ctx context.Context, b *capture.Batch, out *publish.Encoded) error {
	if !e.sure {
		_, id, err := e.topics.Ensure(ctx, e.Topic, e.pinned, e.id)
		if err != nil {
			return err
		}
		e.sure = true
		out.Entries = append(out.Entries, capture.Entry{Key: dataPin, Value: []byte(id)})
	}
	return e.Encoder.Encode(ctx, b, out)
}

// topics returns the maker of topics of one instance.
func (r *rig) topics() *Topics {
	r.Helper()
	topics, err := NewTopics(r.cfg, nil)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(topics.Close)
	return topics
}

// ensuring returns an instance that makes sure of its topic.
func (r *rig) ensuring(s publish.Sink) *publish.Publisher {
	r.Helper()
	return publish.New(pipeline, r.publish, publish.Parts{
		Source: r.story.Source(), Sink: s, Checkpoints: r.loader(),
		Encoder: &ensuringEncoder{Encoder: publishtest.Encoder{Topic: dataTopic, Partitions: partitions}, topics: r.topics()},
	})
}

// Rule R15: records that were committed are gone, and going on would hide that.
func TestTopics_ADeletedOneStopsThePipeline(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) *rig {
		return newRig(t, &publishtest.Story{Transactions: 60, Size: sizes, Batch: func() int { return 11 }}).small()
	}
	wantRefused := func(t *testing.T, err error) {
		t.Helper()
		if !errors.Is(err, publish.ErrRefused) || !strings.Contains(err.Error(), "topic "+dataTopic) || !strings.Contains(err.Error(), "restore it") {
			t.Errorf("Run returned %v", err)
		}
	}
	// then deletes the topic after the fourth commit, and calls f.
	then := func(r *rig, f func() error) func(context.Context, string) error {
		deleted := nth("committed", 4, errCrash)
		return func(ctx context.Context, step string) error {
			if deleted(ctx, step) == nil {
				return nil
			}
			if err := r.cluster.DeleteTopic(dataTopic); err != nil {
				return err
			}
			return f()
		}
	}
	nothing := func() error { return nil }
	t.Run("InTheSameLife", func(t *testing.T) {
		t.Parallel()
		r := begin(t)
		wantRefused(t, r.supervise(t.Context(), r.ensuring(steppedSink{r.sink(), then(r, nothing)})))
		wantRefused(t, r.supervise(t.Context(), r.ensuring(r.sink())))
	})
	t.Run("AfterARestart", func(t *testing.T) {
		t.Parallel()
		r := begin(t)
		crash := func() error { return errCrash }
		if err := r.supervise(t.Context(), r.ensuring(steppedSink{r.sink(), then(r, crash)})); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		wantRefused(t, r.supervise(t.Context(), r.ensuring(r.sink())))
	})
	// What stops the pipeline outlives the process: that it was started again is not yet a
	// word of the operator.
	stays := func(t *testing.T, r *rig) {
		t.Helper()
		for range 2 {
			wantRefused(t, r.supervise(t.Context(), r.ensuring(r.sink())))
		}
		seq := r.seq()
		r.cfg.New = true
		r.finish(r.ensuring(r.sink()))
		r.cfg.New = false
		if after := r.seq(); after <= seq+1 {
			t.Errorf("the checkpoint went from %d to %d: nothing was published", seq, after)
		}
		r.story.Transactions += 20
		r.finish(r.ensuring(r.sink()))
	}
	t.Run("AndMadeAgainUnderUs", func(t *testing.T) {
		t.Parallel()
		r := begin(t)
		again := func() error { return r.cluster.CreateTopic(dataTopic, partitions, nil) }
		wantRefused(t, r.supervise(t.Context(), r.ensuring(steppedSink{r.sink(), then(r, again)})))
		stays(t, r)
	})
	t.Run("WithNewTheFirstOneIsTaken", func(t *testing.T) {
		t.Parallel()
		r := begin(t)
		r.cfg.New = true
		topics := r.topics()
		again := func() error {
			_, _, err := topics.Ensure(t.Context(), dataTopic, true, "the one before")
			return err
		}
		for range 2 { // the pin with its id was not committed
			if err := again(); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(r.cluster.DeleteTopic(dataTopic), r.cluster.CreateTopic(dataTopic, partitions, nil)); err != nil {
			t.Fatal(err)
		}
		var err error
		r.until(func() bool { err = again(); return err != nil }) // metadata are cached for a moment
		wantRefused(t, err)
	})
	t.Run("AndMadeAgainWhileWeWereStopped", func(t *testing.T) {
		t.Parallel()
		r := begin(t)
		again := func() error { return errors.Join(r.cluster.CreateTopic(dataTopic, 2*partitions, nil), errCrash) }
		if err := r.supervise(t.Context(), r.ensuring(steppedSink{r.sink(), then(r, again)})); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		stays(t, r)
	})
}

// seq is the number of the last checkpoint.
func (r *rig) seq() uint64 {
	r.Helper()
	cp, err := r.loader().Load(r.Context(), pipeline)
	if err != nil {
		r.Fatal(err)
	}
	return cp.Seq
}

// A broker that has just started does not know topics that exist, and one that has just
// become a leader does not know a topic's id. Both heal, so neither stops a pipeline.
func TestTopics_BrokersThatLagStopNothing(t *testing.T) {
	t.Parallel()
	// answering lets the cluster say this of each topic, for the next n requests that name any.
	answering := func(r *rig, n int, say func(*kmsg.MetadataResponseTopic)) (denied func() int) {
		var left atomic.Int64
		left.Store(int64(n))
		r.cluster.ControlKey(int16(kmsg.Metadata), func(request kmsg.Request) (kmsg.Response, error, bool) {
			r.cluster.KeepControl()
			asked := request.(*kmsg.MetadataRequest)
			if len(asked.Topics) == 0 || left.Add(-1) < 0 {
				return nil, nil, false
			}
			resp := asked.ResponseKind().(*kmsg.MetadataResponse)
			for _, t := range asked.Topics {
				said := kmsg.NewMetadataResponseTopic()
				said.Topic = t.Topic
				say(&said)
				resp.Topics = append(resp.Topics, said)
			}
			return resp, nil, true
		})
		return func() int { return n - int(max(left.Load(), 0)) }
	}
	// lagging lets the cluster deny that topics exist.
	lagging := func(r *rig, n int) (denied func() int) {
		return answering(r, n, func(t *kmsg.MetadataResponseTopic) { t.ErrorCode = kerr.UnknownTopicOrPartition.Code })
	}
	begin := func(t *testing.T) *rig {
		r := newRig(t, &publishtest.Story{Transactions: 60, Size: sizes, Batch: func() int { return 11 }}).small()
		r.cfg.patience = 2 * time.Minute
		return r
	}
	t.Run("ATopicIsLookedForAgain", func(t *testing.T) {
		t.Parallel()
		r := begin(t)
		for name, c := range map[string]struct{ create, known bool }{"pinned": {true, true}, "made by hand": {false, false}} {
			r.cfg.Topics.Create = &c.create
			topics := r.topics()
			denied := lagging(r, 8)
			if n, _, err := topics.Ensure(t.Context(), dataTopic, c.known, ""); n != partitions || err != nil || denied() != 8 {
				t.Errorf("%s: Ensure returned %d, %v after %d answers", name, n, err, denied())
			}
		}
	})
	t.Run("TheOneBeforeIsShown", func(t *testing.T) {
		t.Parallel()
		r := begin(t)
		topics := r.topics()
		_, id, err := topics.Ensure(t.Context(), dataTopic, false, "")
		if err != nil {
			t.Fatal(err)
		}
		denied := answering(r, 8, func(t *kmsg.MetadataResponseTopic) { t.TopicID = [16]byte{1} })
		if n, now, err := r.topics().Ensure(t.Context(), dataTopic, true, id); n != partitions || now != id || err != nil || denied() != 8 {
			t.Errorf("Ensure returned %d, %s (was %s), %v after %d answers", n, now, id, err, denied())
		}
	})
	t.Run("WhenAPipelineStarts", func(t *testing.T) {
		t.Parallel()
		r := begin(t)
		if err := r.supervise(t.Context(), r.ensuring(steppedSink{r.sink(), nth("committed", 4, errCrash)})); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		denied := lagging(r, 8)
		r.finish(r.ensuring(r.sink()))
		r.verify(60)
		if denied() != 8 {
			t.Errorf("%d answers", denied())
		}
	})
	t.Run("BetweenFenceAndRead", func(t *testing.T) {
		t.Parallel()
		r := begin(t)
		if err := r.supervise(t.Context(), r.ensuring(steppedSink{r.sink(), nth("committed", 4, errCrash)})); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		fenced := 0
		var denied func() int
		r.finish(r.ensuring(steppedSink{r.sink(), func(_ context.Context, step string) error {
			if step == "fenced" {
				if fenced++; fenced == 1 {
					denied = lagging(r, 1)
				}
			}
			return nil
		}}))
		r.verify(60)
		if denied() != 1 || fenced < 2 {
			t.Errorf("%d answers, fenced %d times", denied(), fenced)
		}
	})
	for _, e := range []*kerr.Error{kerr.UnknownTopicID, kerr.UnknownTopicOrPartition} {
		t.Run("WithRecordsUnderWay: "+e.Message, func(t *testing.T) {
			t.Parallel()
			r := begin(t)
			h := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: dataTopic, Err: e, Count: 12})
			r.finish(r.ensuring(r.sink()))
			r.verify(60)
			if h.Hits() != 12 {
				t.Errorf("%d faults", h.Hits())
			}
		})
	}
}

// While a broker restarts, the others make no topic with as many replicas as it takes all
// of them to hold, and metadata count one less.
func TestTopics_ABrokerThatRestartsIsWaitedFor(t *testing.T) {
	t.Parallel()
	t.Run("ForItsReplicas", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil)
		r.cfg.patience = 2 * time.Minute
		h := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.InvalidReplicationFactor, Count: 3})
		if n, _, err := r.topics().Ensure(t.Context(), "new", false, ""); n != 6 || err != nil || h.Hits() != 3 {
			t.Errorf("Ensure returned %d, %v after %d refusals", n, err, h.Hits())
		}
	})
	t.Run("NotForEver", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil)
		h := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.InvalidReplicationFactor, Count: -1})
		if _, _, err := r.topics().Ensure(t.Context(), "new", false, ""); !errors.Is(err, publish.ErrRefused) || !strings.Contains(err.Error(), "topics.replication") || h.Hits() < 2 {
			t.Errorf("Ensure returned %v after %d refusals", err, h.Hits())
		}
	})
	t.Run("ItCounts", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil, kfake.NumBrokers(2))
		r.cluster.ControlKey(kmsg.DescribeCluster.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
			resp := request.ResponseKind().(*kmsg.DescribeClusterResponse)
			for node := range int32(3) {
				b := kmsg.NewDescribeClusterResponseBroker()
				b.NodeID, b.IsFenced = node, node == 2
				if request.(*kmsg.DescribeClusterRequest).IncludeFencedBrokers || !b.IsFenced {
					resp.Brokers = append(resp.Brokers, b)
				}
			}
			return resp, nil, true
		})
		var asked atomic.Int64
		r.cluster.ControlKey(kmsg.CreateTopics.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
			topic := &request.(*kmsg.CreateTopicsRequest).Topics[0]
			asked.Store(int64(topic.ReplicationFactor))
			topic.ReplicationFactor = 2 // the in-memory cluster has no third
			return nil, nil, false
		})
		if _, _, err := r.topics().Ensure(t.Context(), "new", false, ""); err != nil {
			t.Fatal(err)
		}
		if asked.Load() != 3 {
			t.Errorf("it is made with %d replicas, want 3", asked.Load())
		}
	})
}

// A new cluster has no coordinator of transactions before it was asked for one.
func TestSink_FenceWaitsForACoordinator(t *testing.T) {
	t.Parallel()
	for _, e := range []*kerr.Error{kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress} {
		for _, key := range []kmsg.Key{kmsg.FindCoordinator, kmsg.InitProducerID} {
			r := newRig(t, nil)
			r.cfg.patience, r.cfg.extra = 2*time.Minute, nil
			h := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: e, Count: 5, TopLevel: key == kmsg.InitProducerID})
			if err := r.sink().Fence(t.Context()); err != nil || h.Hits() != 5 {
				t.Errorf("%v to %v: Fence returned %v after %d answers", e, key.Name(), err, h.Hits())
			}
		}
	}
}

func TestSink_CheckFindsWhatIsWrong(t *testing.T) {
	findings := func(t *testing.T, r *rig) (wrong, warnings string) {
		t.Helper()
		err := r.sink().Check(t.Context())
		if err == nil {
			return "", ""
		}
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			f := new(capture.Finding)
			if !errors.As(e, &f) {
				t.Errorf("%v is not a Finding", e)
			} else if f.Warning {
				warnings += f.Error() + "\n"
			} else {
				wrong += f.Error() + "\n"
			}
		}
		return wrong, warnings
	}
	t.Run("NothingOnAGoodCluster", func(t *testing.T) {
		r := newRig(t, nil)
		if wrong, _ := findings(t, r); wrong != "" {
			t.Error(wrong)
		}
	})
	t.Run("OldBrokersAndFewOfThem", func(t *testing.T) {
		r := newRig(t, nil, kfake.NumBrokers(1), kfake.MaxVersions(kversion.V3_6_0()))
		r.cfg.Topics.Replication = 3
		wrong, warnings := findings(t, r)
		if !strings.Contains(wrong, "topics.replication") || !strings.Contains(warnings, "transaction.version 0") || !strings.Contains(warnings, "1 broker") {
			t.Errorf("wrong: %s\nwarnings: %s", wrong, warnings)
		}
	})
	t.Run("ATimeoutThatTheBrokersDoNotAllow", func(t *testing.T) {
		r := newRig(t, nil, kfake.BrokerConfigs(map[string]string{"transaction.max.timeout.ms": "5000"}))
		if wrong, _ := findings(t, r); !strings.Contains(wrong, "transaction.max.timeout.ms") {
			t.Errorf("found %s", wrong)
		}
		if err := r.sink().Fence(t.Context()); !errors.Is(err, publish.ErrRefused) {
			t.Errorf("Fence returned %v", err)
		}
	})
	t.Run("ACheckpointTopicMadeByHandWrongly", func(t *testing.T) {
		r := newRig(t, nil)
		if err := r.cluster.CreateTopic(checkpoint.TopicName(pipeline), 3, map[string]string{"cleanup.policy": "delete"}); err != nil {
			t.Fatal(err)
		}
		wrong, _ := findings(t, r)
		if !strings.Contains(wrong, "3 partitions") || !strings.Contains(wrong, "cleanup.policy") {
			t.Errorf("found %s", wrong)
		}
		if err := r.sink().Fence(t.Context()); !errors.Is(err, checkpoint.ErrUnusable) {
			t.Errorf("Fence returned %v", err)
		}
	})
	t.Run("NobodyThere", func(t *testing.T) {
		r := newRig(t, nil)
		r.cluster.Close()
		if wrong, _ := findings(t, r); !strings.Contains(wrong, "cannot be reached") {
			t.Errorf("found %s", wrong)
		}
	})
}

func TestSink_ReleaseEndsWhatIsOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.cfg.TransactionTimeout = 10 * time.Minute
	s := r.sink()
	tx := begin(t, s)
	if err := tx.Produce(t.Context(), []publish.Record{{Topic: dataTopic, Value: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	if err := s.send.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.sink().Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.committed(); len(got) != 0 { // fails when a transaction is open still
		t.Errorf("visible: %v", got)
	}
}

// The hot path allocates per batch, never per record.
func TestSender_AllocatesNothingPerRecord(t *testing.T) {
	s := newSender(nil, &Config{Linger: new(time.Second), MaxRecordBytes: 1 << 20, BufferBytes: 1 << 30, BufferRecords: 1 << 30}, nil, "", false, producer{})
	defer s.close()
	s.looking = true // there is nobody to ask
	headers := []publish.Header{{Key: "a", Value: []byte("b")}, {Key: "c"}}
	records := make([]publish.Record, 1000)
	for i := range records {
		records[i] = publish.Record{Topic: dataTopic, Partition: int32(i % 3), Key: []byte("key"), Value: []byte("value"), Headers: headers}
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		if err := s.produce(ctx, records); err != nil {
			t.Fatal(err)
		}
	}); n > 10 {
		t.Errorf("%v allocations per %d records", n, len(records))
	}
}

// BenchmarkSink writes records of 200 bytes in transactions of 10 000 to an in-memory
// cluster, which shares the processor with the client.
func BenchmarkSink(b *testing.B) {
	for _, delivery := range []string{ExactlyOnce, AtLeastOnce} {
		for _, linger := range []time.Duration{0, 5 * time.Millisecond} {
			b.Run(fmt.Sprintf("%s,linger=%v", delivery, linger), func(b *testing.B) {
				c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, dataTopic), kfake.BlackholeProduce())
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				cfg := Config{Brokers: c.ListenAddrs(), Delivery: delivery, Linger: &linger}
				cfg.SetDefaults()
				s, err := New(pipeline, cfg, nil, nil)
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				records := make([]publish.Record, 500)
				value := []byte(strings.Repeat("customer order pending Berlin 12.50 ", 6)[:200])
				for i := range records {
					records[i] = publish.Record{Topic: dataTopic, Partition: int32(i % 4), Key: value[:8], Value: value}
				}
				tx := begin(b, s)
				b.SetBytes(208)
				b.ReportAllocs()
				n, seq := 0, uint64(0)
				for n < b.N {
					if err := tx.Produce(b.Context(), records); err != nil {
						b.Fatal(err)
					}
					if n += len(records); n%10_000 == 0 || n >= b.N {
						seq++
						if err := tx.Commit(b.Context(), checkpoint.Checkpoint{Pipeline: pipeline, Seq: seq}); err != nil {
							b.Fatal(err)
						}
						if tx, err = s.Begin(b.Context()); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

// Rule R24: a refused first record shows as a flush of 20 ms in a transaction that was
// short; then the gap widens, and else narrows slowly, within its bounds.
func TestSink_AdaptsTheGapBetweenTransactions(t *testing.T) {
	s := &Sink{gap: startGap}
	for range 100 {
		s.adaptGap(time.Millisecond, 25*time.Millisecond)
	}
	if s.gap != maxGap {
		t.Errorf("after refusals the gap is %v", s.gap)
	}
	s.adaptGap(time.Second, 25*time.Millisecond) // a long transaction tells nothing
	if s.gap != maxGap {
		t.Errorf("after a long transaction the gap is %v", s.gap)
	}
	for range 1000 {
		s.adaptGap(time.Millisecond, time.Millisecond)
	}
	if s.gap != minGap {
		t.Errorf("without refusals the gap is %v", s.gap)
	}
}
