package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestCheckpointRelease_EndsTheTransactionThatWasLeftOpen(t *testing.T) {
	t.Parallel()
	const topic = "shop.t"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic, "headwater.shop.checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	brokers := kgo.SeedBrokers(cluster.ListenAddrs()...)
	left, err := kgo.NewClient(brokers, kgo.TransactionalID("headwater.shop"))
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	if err := left.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := left.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("open")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	plain, err := kgo.NewClient(brokers)
	if err != nil {
		t.Fatal(err)
	}
	admin := kadm.NewClient(plain)
	defer admin.Close()
	committed := func() int64 {
		offsets, err := admin.ListCommittedOffsets(context.Background(), topic)
		if err != nil {
			t.Fatal(err)
		}
		o, _ := offsets.Lookup(topic, 0)
		return o.Offset
	}
	if at := committed(); at != 0 {
		t.Fatalf("readers get to %d: the test proves nothing", at)
	}

	path := filepath.Join(t.TempDir(), "shop.yml")
	text := strings.Replace(small, "127.0.0.1:9092", cluster.ListenAddrs()[0], 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetArgs([]string{"checkpoint", "release", "--config", path})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if at := committed(); at == 0 || !strings.Contains(out.String(), "shop has no transaction open") {
		t.Errorf("readers get to %d; it says %q", at, out.String())
	}
}
