package kafka

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/integration/servers"
	"github.com/headwaterdb/headwater/publish/publishtest"
)

// Each broker of a cluster dies by SIGKILL and comes back, the next one when all replicas
// are in sync again. So each leader dies, the coordinator of the transactions and the
// controller. What goes on is one process, which is not started again.
func TestCluster_EachBrokerMayDie(t *testing.T) {
	t.Parallel()
	k := servers.Own(t).KafkaWith(servers.KafkaConfig{
		Nodes: 3, Heap: "256m", Settings: map[string]string{"broker.session.timeout.ms": "3000"},
	})
	a := admin(t, k)
	story := &publishtest.Story{Transactions: 1 << 30, Size: sizes, Batch: func() int { return 11 }, Pause: every(2 * time.Millisecond)}
	r := newRealRig(t, k.Bootstrap, story).small()
	r.cfg.patience = 2 * time.Minute
	watched := []string{dataTopic, checkpoint.TopicName(pipeline), "__transaction_state"}
	if resp, err := a.CreateTopic(t.Context(), partitions, 3, map[string]*string{"min.insync.replicas": new("2")}, dataTopic); err != nil || resp.Err != nil {
		t.Fatal(err, resp.Err)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		p := r.publisher()
		for {
			err := p.Run(ctx)
			if ctx.Err() != nil || !accident(err) {
				ended <- err
				return
			}
			t.Logf("Run returned %v", err)
			time.Sleep(time.Millisecond)
		}
	}()
	// goOn waits until so many more transactions are published.
	goOn := func(what string, n int) {
		t.Helper()
		from := story.Acked()
		r.until(func() bool {
			select {
			case err := <-ended:
				t.Fatalf("%s: it ended: %v", what, err)
			default:
			}
			return story.Acked() >= from+n
		})
	}
	inSync := func() bool {
		meta, err := a.Metadata(t.Context(), watched...)
		if err != nil {
			return false
		}
		for _, topic := range watched {
			d := meta.Topics[topic]
			if d.Err != nil || len(d.Partitions) == 0 || slices.ContainsFunc(d.Partitions.Sorted(), func(p kadm.PartitionDetail) bool { return len(p.ISR) < 3 }) {
				return false
			}
		}
		return true
	}
	topics := r.topics()
	goOn("at first", 100)
	for node := 1; node <= 3; node++ {
		r.until(inSync)
		if err := k.Kill(node); err != nil {
			t.Fatal(err)
		}
		goOn("without node "+strconv.Itoa(node), 100)
		// A topic that is made meanwhile has as many replicas as ever.
		made := "made-without-" + strconv.Itoa(node)
		if _, _, err := topics.Ensure(t.Context(), made, false, ""); err != nil {
			t.Error(err)
		}
		if meta, err := a.Metadata(t.Context(), made); err != nil || meta.Topics[made].Partitions.NumReplicas() != 3 {
			t.Errorf("%s has %d replicas, %v", made, meta.Topics[made].Partitions.NumReplicas(), err)
		}
		if err := k.Restart(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		goOn("with it again", 100)
	}
	stop()
	err := <-ended
	if accident(err) {
		t.Errorf("told to stop, Run returned %v", err)
	}
	cp, err := r.loader().Load(t.Context(), pipeline)
	if err != nil {
		t.Fatal(err)
	}
	last, err := strconv.Atoi(string(cp.At))
	if err != nil {
		t.Fatal(err)
	}
	r.verify(last)
	t.Logf("%d transactions", last)
}
