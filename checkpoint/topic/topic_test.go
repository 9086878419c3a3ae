package topic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint"
)

const pipeline = "shop"

type rig struct {
	*testing.T
	cluster *kfake.Cluster
	loader  *Loader
	log     *syncBuffer
	name    string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r := &rig{T: t, cluster: c, log: new(syncBuffer), name: checkpoint.TopicName(pipeline)}
	r.loader = New([]kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...), kgo.MetadataMinAge(10 * time.Millisecond)}, slog.New(slog.NewTextHandler(r.log, nil)))
	if err := c.CreateTopic(r.name, 1, map[string]string{"cleanup.policy": "compact"}); err != nil {
		t.Fatal(err)
	}
	return r
}

// writer returns a client with the transactional id.
func (r *rig) writer(id string) *kgo.Client {
	r.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.cluster.ListenAddrs()...), kgo.TransactionalID(id), kgo.TransactionTimeout(time.Minute))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(cl.Close)
	return cl
}

// write writes records, key and value in turn, in one transaction of cl, and leaves it open.
func (r *rig) write(cl *kgo.Client, pairs ...string) {
	r.Helper()
	if err := cl.BeginTransaction(); err != nil {
		r.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		rec := &kgo.Record{Topic: r.name, Key: []byte(pairs[i])}
		if pairs[i+1] != "" {
			rec.Value = []byte(pairs[i+1])
		}
		if err := cl.ProduceSync(r.Context(), rec).FirstErr(); err != nil {
			r.Fatal(err)
		}
	}
}

func (r *rig) end(cl *kgo.Client, how kgo.TransactionEndTry) {
	r.Helper()
	if err := cl.EndTransaction(r.Context(), how); err != nil {
		r.Fatal(err)
	}
}

// p is the position record with the number seq.
func (r *rig) p(seq uint64) string {
	r.Helper()
	cp := checkpoint.Checkpoint{Pipeline: pipeline, Seq: seq, At: capture.Position(fmt.Sprintf(`{"n":%d}`, seq))}
	b, err := cp.Marshal()
	if err != nil {
		r.Fatal(err)
	}
	return string(b)
}

func (r *rig) load() (checkpoint.Checkpoint, error) { return r.loader.Load(r.Context(), pipeline) }

func (r *rig) wantSeq(seq uint64) checkpoint.Checkpoint {
	r.Helper()
	cp, err := r.load()
	if err != nil {
		r.Fatal(err)
	}
	if cp.Seq != seq {
		r.Errorf("read checkpoint %d, want %d", cp.Seq, seq)
	}
	return cp
}

func TestLoader_Load(t *testing.T) {
	t.Run("FindsTheLastCommittedOne", func(t *testing.T) {
		r := newRig(t)
		cl := r.writer("headwater.shop")
		for seq := uint64(1); seq <= 50; seq++ {
			r.write(cl, checkpoint.Key, r.p(seq))
			r.end(cl, kgo.TryCommit)
		}
		r.write(cl, checkpoint.Key, r.p(51), "s/a", "aborted")
		r.end(cl, kgo.TryAbort)
		if cp := r.wantSeq(50); cp.At != `{"n":50}` || cp.Pipeline != pipeline || len(cp.Entries) != 0 {
			t.Errorf("read %+v", cp)
		}
		r.cluster.Compact()
		r.wantSeq(50)
	})

	t.Run("CollectsTheEntries", func(t *testing.T) {
		r := newRig(t)
		cl := r.writer("headwater.shop")
		r.write(cl, "s/a", "1", "s/b", "1", "s/c", "1", checkpoint.Key, r.p(1))
		r.end(cl, kgo.TryCommit)
		r.write(cl, "s/a", "2", "s/b", "", checkpoint.Key, r.p(2))
		r.end(cl, kgo.TryCommit)
		cp := r.wantSeq(2)
		if len(cp.Entries) != 2 || string(cp.Entries["s/a"]) != "2" || string(cp.Entries["s/c"]) != "1" {
			t.Errorf("entries %q", cp.Entries)
		}
	})

	t.Run("SaysThatThereIsNone", func(t *testing.T) {
		r := newRig(t)
		if _, err := r.load(); !errors.Is(err, checkpoint.ErrNotFound) {
			t.Errorf("an empty topic: %v", err)
		}
		cl := r.writer("headwater.shop")
		r.write(cl, checkpoint.Key, r.p(1))
		r.end(cl, kgo.TryAbort)
		if _, err := r.load(); !errors.Is(err, checkpoint.ErrNotFound) {
			t.Errorf("an aborted claim: %v", err)
		}
		if _, err := r.loader.Load(t.Context(), "missing"); !errors.Is(err, checkpoint.ErrNoTopic) {
			t.Errorf("no topic: %v", err)
		}
		if info := r.cluster.TopicInfo(checkpoint.TopicName("missing")); info != nil {
			t.Error("looking for a checkpoint has made its topic")
		}
	})

	t.Run("StopsWhenRecordsWereDeleted", func(t *testing.T) {
		r := newRig(t)
		cl := r.writer("headwater.shop")
		r.write(cl, checkpoint.Key, r.p(1))
		r.end(cl, kgo.TryCommit)
		if err := r.cluster.DeleteRecords(r.name, 0, r.cluster.PartitionInfo(r.name, 0).HighWatermark); err != nil {
			t.Fatal(err)
		}
		if _, err := r.load(); !errors.Is(err, checkpoint.ErrUnusable) {
			t.Errorf("Load returned %v", err)
		}
	})

	t.Run("StopsWithoutTheRightToRead", func(t *testing.T) {
		r := newRig(t)
		r.cluster.ControlKey(kmsg.Fetch.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
			r.cluster.KeepControl()
			asked := request.(*kmsg.FetchRequest).Topics[0]
			topic := kmsg.NewFetchResponseTopic()
			topic.Topic, topic.TopicID = asked.Topic, asked.TopicID
			partition := kmsg.NewFetchResponseTopicPartition()
			partition.ErrorCode = kerr.TopicAuthorizationFailed.Code
			topic.Partitions = append(topic.Partitions, partition)
			resp := request.ResponseKind().(*kmsg.FetchResponse)
			resp.Topics = append(resp.Topics, topic)
			return resp, nil, true
		})
		wantRemedy := func(what string) {
			t.Helper()
			if _, err := r.load(); !errors.Is(err, checkpoint.ErrUnusable) || !strings.Contains(err.Error(), "--topic "+r.name+" --operation Describe --operation Read") {
				t.Errorf("%s: Load returned %v", what, err)
			}
		}
		wantRemedy("an empty topic") // before anything is written that cannot be read back
		cl := r.writer("headwater.shop")
		r.write(cl, checkpoint.Key, r.p(1))
		r.end(cl, kgo.TryCommit)
		wantRemedy("a checkpoint")
	})

	t.Run("StopsAtWhatItDoesNotUnderstand", func(t *testing.T) {
		for _, value := range []string{`{"v":2}`, `{"v":1,"pipeline":"other","seq":1,"ts_ms":0}`, `[]`, `{"v":1,"pipeline":"shop","seq":-1}`} {
			r := newRig(t)
			cl := r.writer("headwater.shop")
			r.write(cl, checkpoint.Key, value)
			r.end(cl, kgo.TryCommit)
			if _, err := r.load(); !errors.Is(err, checkpoint.ErrUnusable) || !strings.Contains(err.Error(), r.name) {
				t.Errorf("%s: Load returned %v", value, err)
			}
		}
	})

	t.Run("SaysThatTheNumberStepsBack", func(t *testing.T) { // rule R7
		r := newRig(t)
		cl := r.writer("headwater.shop")
		for _, seq := range []uint64{5, 6, 3} {
			r.write(cl, checkpoint.Key, r.p(seq))
			r.end(cl, kgo.TryCommit)
		}
		r.wantSeq(3)
		if !strings.Contains(r.log.String(), "steps back") {
			t.Errorf("the log says %q", r.log)
		}
	})

	t.Run("FollowsTheLeader", func(t *testing.T) {
		r := newRig(t)
		cl := r.writer("headwater.shop")
		for seq := uint64(1); seq <= 20; seq++ {
			r.write(cl, checkpoint.Key, r.p(seq))
			r.end(cl, kgo.TryCommit)
		}
		h := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition, Count: 3})
		r.wantSeq(20)
		if h.Hits() != 3 {
			t.Errorf("%d faults", h.Hits())
		}
	})

	t.Run("EndsWithItsContext", func(t *testing.T) {
		r := newRig(t)
		stranger := r.writer("stranger")
		r.write(stranger, "x", "y")
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := r.loader.Load(ctx, pipeline); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Load returned %v", err)
		}
		r.end(stranger, kgo.TryAbort)
	})

	t.Run("ReadsManyQuickly", func(t *testing.T) {
		r := newRig(t)
		cl := r.writer("headwater.shop")
		r.write(cl)
		var wg sync.WaitGroup
		for seq := uint64(1); seq <= 20_000; seq++ {
			wg.Add(1)
			cl.Produce(t.Context(), &kgo.Record{Topic: r.name, Key: []byte(checkpoint.Key), Value: []byte(r.p(seq))}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
				wg.Done()
			})
		}
		wg.Wait()
		r.end(cl, kgo.TryCommit)
		r.wantSeq(20_000)
	})
}

// Fault 19: a stranger's open transaction hides everything behind it. Taking the last
// visible checkpoint for the last one would publish changes twice.
func TestLoader_WaitsBehindAStrangersTransaction(t *testing.T) {
	r := newRig(t)
	r.loader.patience = 50 * time.Millisecond
	cl, stranger := r.writer("headwater.shop"), r.writer("stranger")
	r.write(cl, checkpoint.Key, r.p(1))
	r.end(cl, kgo.TryCommit)
	r.write(stranger, "x", "y")
	r.write(cl, checkpoint.Key, r.p(2))
	r.end(cl, kgo.TryCommit)

	id, epoch, err := stranger.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		cp  checkpoint.Checkpoint
		err error
	}
	loaded := make(chan result, 1)
	go func() {
		cp, err := r.load()
		loaded <- result{cp, err}
	}()
	want := fmt.Sprintf("producer id %d epoch %d", id, epoch)
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(r.log.String(), want); {
		select {
		case got := <-loaded:
			t.Fatalf("Load did not wait: %+v", got)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log does not name %q: %s", want, r.log)
		}
	}
	r.end(stranger, kgo.TryAbort)
	got := <-loaded
	if got.err != nil || got.cp.Seq != 2 {
		t.Errorf("Load returned %+v", got)
	}
}

// The end of a log may be gone before it is read. Each of these once made Load wait for
// ever, or for an answer that was not the reason.
func TestLoader_EndsWhenRecordsAreLostWhileItReads(t *testing.T) {
	for want, lose := range map[string]func(r *rig) error{
		"were deleted while": func(r *rig) error {
			return r.cluster.DeleteRecords(r.name, 0, r.cluster.PartitionInfo(r.name, 0).HighWatermark)
		},
		"deleted and made again": func(r *rig) error {
			return errors.Join(r.cluster.DeleteTopic(r.name), r.cluster.CreateTopic(r.name, 1, map[string]string{"cleanup.policy": "compact"}))
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.loader.patience = 10 * time.Millisecond
			stranger := r.writer("stranger")
			r.write(stranger, "x", "y") // holds Load up at offset 0
			loaded := make(chan error, 1)
			go func() {
				_, err := r.load()
				loaded <- err
			}()
			r.waitFor("a transaction is open")
			if err := lose(r); err != nil {
				t.Fatal(err)
			}
			r.wantLost(loaded, want)
		})
	}

	// A leader that does not have what was acknowledged: it answers without records and
	// with an end that lies before the one that Load has seen.
	t.Run("unclean election", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.loader.patience = 10 * time.Millisecond
		cl := r.writer("headwater.shop")
		r.write(cl, checkpoint.Key, r.p(1))
		r.end(cl, kgo.TryCommit)
		r.endsAt(100)
		loaded := make(chan error, 1)
		go func() {
			_, err := r.load()
			loaded <- err
		}()
		r.wantLost(loaded, "up to offset 100 and ends at 2")
	})
}

// The last offsets of a log may be empty: compaction takes records that were aborted, and
// the markers of transactions.
func TestLoader_DoesNotWaitForWhatCompactionTook(t *testing.T) {
	r := newRig(t)
	cl := r.writer("headwater.shop")
	r.write(cl, checkpoint.Key, r.p(1))
	r.end(cl, kgo.TryCommit)
	const end = 9
	last := r.cluster.PartitionInfo(r.name, 0).HighWatermark
	r.endsAt(end)
	r.cluster.ControlKey(kmsg.Fetch.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		r.cluster.KeepControl()
		asked := request.(*kmsg.FetchRequest).Topics[0]
		if asked.Partitions[0].FetchOffset < last {
			return nil, nil, false
		}
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.TopicID = asked.Topic, asked.TopicID
		partition := kmsg.NewFetchResponseTopicPartition()
		partition.HighWatermark, partition.LastStableOffset = end, end
		topic.Partitions = append(topic.Partitions, partition)
		resp := request.ResponseKind().(*kmsg.FetchResponse)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cp, err := r.loader.Load(ctx, pipeline)
	if err != nil || cp.Seq != 1 {
		t.Errorf("Load returned %+v, %v", cp, err)
	}
}

// endsAt makes the first who asks for the log's end believe that it is there.
func (r *rig) endsAt(end int64) {
	const latest = -1
	told := false
	r.cluster.ControlKey(kmsg.ListOffsets.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		r.cluster.KeepControl()
		topic := request.(*kmsg.ListOffsetsRequest).Topics[0]
		if told || topic.Partitions[0].Timestamp != latest {
			return nil, nil, false
		}
		told = true
		answer := kmsg.NewListOffsetsResponseTopic()
		answer.Topic = topic.Topic
		partition := kmsg.NewListOffsetsResponseTopicPartition()
		partition.Offset = end
		answer.Partitions = append(answer.Partitions, partition)
		resp := request.ResponseKind().(*kmsg.ListOffsetsResponse)
		resp.Topics = append(resp.Topics, answer)
		return resp, nil, true
	})
}

// waitFor waits until the log says text.
func (r *rig) waitFor(text string) {
	r.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(r.log.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("the log does not say %q: %s", text, r.log)
		}
	}
}

// wantLost fails the test unless Load has ended because records are lost.
func (r *rig) wantLost(loaded <-chan error, want string) {
	r.Helper()
	select {
	case err := <-loaded:
		if !errors.Is(err, checkpoint.ErrUnusable) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "restore the topic") {
			r.Errorf("Load returned %v", err)
		}
	case <-time.After(2 * time.Minute):
		r.Errorf("Load does not end; the log says %s", r.log)
	}
}

// A syncBuffer may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
