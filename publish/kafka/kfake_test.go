package kafka

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint/topic"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/publish/publishtest"
)

// A rig is a pipeline on an in-memory cluster that speaks Kafka's protocol.
type rig struct {
	*testing.T
	cluster *kfake.Cluster
	story   *publishtest.Story
	cfg     Config
	publish publish.Config
}

const (
	pipeline   = "shop"
	dataTopic  = "data"
	partitions = 3
)

func newRig(t *testing.T, story *publishtest.Story, opts ...kfake.Opt) *rig {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.SeedTopics(partitions, dataTopic)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r := &rig{T: t, cluster: c, story: story}
	r.cfg = Config{Brokers: c.ListenAddrs(), TransactionTimeout: 5 * time.Minute}
	r.cfg.SetDefaults()
	r.cfg.patience = 200 * time.Millisecond
	r.cfg.extra = []kgo.Opt{
		kgo.RetryBackoffFn(func(int) time.Duration { return 5 * time.Millisecond }),
		kgo.RequestRetries(3), kgo.MetadataMinAge(20 * time.Millisecond),
	}
	r.publish = publish.Config{TransactionTimeout: r.cfg.TransactionTimeout, MaxCommitInterval: time.Second}
	r.publish.SetDefaults()
	return r
}

func (r *rig) sink() *Sink {
	r.Helper()
	s, err := New(pipeline, r.cfg, nil, nil)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { s.Close() })
	return s
}

func (r *rig) loader() *topic.Loader {
	r.Helper()
	opts, err := r.cfg.Options(nil)
	if err != nil {
		r.Fatal(err)
	}
	return topic.New(opts, nil)
}

func (r *rig) publisher() *publish.Publisher { return r.publisherOn(r.sink()) }

func (r *rig) publisherOn(s publish.Sink) *publish.Publisher {
	return publish.New(pipeline, r.publish, publish.Parts{
		Source: r.story.Source(), Sink: s, Checkpoints: r.loader(),
		Encoder: publishtest.Encoder{Topic: dataTopic, Partitions: partitions},
	})
}

// committed returns what a read-committed consumer sees in the data topic, by partition.
func (r *rig) committed() map[int32][]string {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	opts, err := r.cfg.Options(nil)
	if err != nil {
		r.Fatal(err)
	}
	cl, err := kgo.NewClient(append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeTopics(dataTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(20*time.Millisecond))...)
	if err != nil {
		r.Fatal(err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, dataTopic)
	if err != nil || ends.Error() != nil {
		r.Fatal(err, ends.Error())
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	values := map[int32][]string{}
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			r.Fatalf("the topic cannot be read to its end, %v are left: %v", left, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			if rec.Offset+1 >= left[rec.Partition] {
				delete(left, rec.Partition)
			}
			if !rec.Attrs.IsControl() {
				values[rec.Partition] = append(values[rec.Partition], string(rec.Value))
			}
		})
	}
	return values
}

// verify fails the test unless readers see the story up to transaction last exactly.
func (r *rig) verify(last int) {
	r.Helper()
	if problems := r.story.Check(r.committed(), last); problems != nil {
		r.Errorf("readers do not see the story up to transaction %d: %v", last, problems)
	}
}

func sizes(tx int) int { return 1 + tx*7919%37 }

func TestSink_CarriesAStory(t *testing.T) {
	t.Parallel()
	r := newRig(t, &publishtest.Story{Transactions: 300, Size: sizes, Entry: func(tx int) []capture.Entry {
		return []capture.Entry{{Key: fmt.Sprintf("s/%d", tx%3), Value: []byte(fmt.Sprint(tx))}}
	}})
	if err := r.publisher().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.verify(300)
	cp, err := r.loader().Load(t.Context(), pipeline)
	if err != nil {
		t.Fatal(err)
	}
	if cp.At != publishtest.Position(300) || cp.InTx != nil || len(cp.Entries) != 3 || string(cp.Entries["s/2"]) != "299" {
		t.Errorf("the checkpoint is %+v", cp)
	}
	if got := r.story.Acked(); got != 300 {
		t.Errorf("acknowledged up to %d", got)
	}
}
