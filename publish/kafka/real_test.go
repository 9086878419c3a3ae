package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/integration/servers"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/publish/publishtest"
)

// newRealRig is a pipeline on real brokers. Each test gets a cluster's worth of its own:
// topics are deleted first.
func newRealRig(t *testing.T, brokers []string, story *publishtest.Story) *rig {
	t.Helper()
	r := &rig{T: t, story: story, cfg: Config{Brokers: brokers, TransactionTimeout: 30 * time.Second}}
	r.cfg.SetDefaults()
	r.cfg.patience = time.Second
	r.publish = publish.Config{TransactionTimeout: r.cfg.TransactionTimeout}
	r.publish.SetDefaults()
	return r
}

// admin returns a client that may do everything.
func admin(t *testing.T, k *servers.Kafka) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Bootstrap...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// remake deletes the topics of earlier tests and makes the data topic.
func remake(t *testing.T, a *kadm.Client) {
	t.Helper()
	if _, err := a.DeleteTopics(t.Context(), dataTopic, checkpoint.TopicName(pipeline)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		resp, err := a.CreateTopic(t.Context(), partitions, 1, nil, dataTopic)
		if err == nil {
			err = resp.Err
		}
		if err == nil {
			return
		}
		if !errors.Is(err, kerr.TopicAlreadyExists) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// What the in-memory cluster cannot show: markers that come late, CONCURRENT_TRANSACTIONS,
// the states of the coordinator, and real logins.
func TestRealBrokers(t *testing.T) {
	t.Parallel()
	k := servers.Shared(t).KafkaWith(servers.KafkaConfig{Auth: true})
	a := admin(t, k)
	story := func(n int) *publishtest.Story {
		return &publishtest.Story{Transactions: n, Size: sizes, Batch: func() int { return 11 }}
	}
	// Tests share the cluster, and so the transactional id: --new says that deleting the
	// topic was meant.
	fresh := func(t *testing.T, s *publishtest.Story) *rig {
		t.Helper()
		remake(t, a)
		r := newRealRig(t, k.Bootstrap, s)
		r.cfg.New = true
		if err := r.sink().Release(t.Context()); err != nil { // makes the topic
			t.Fatal(err)
		}
		r.cfg.New = false
		return r
	}

	t.Run("CarryAStory", func(t *testing.T) {
		r := fresh(t, story(500)).small()
		began := time.Now()
		r.finish(r.publisher())
		r.verify(500)
		t.Logf("500 source transactions in %v", time.Since(began))
	})

	t.Run("CheckFindsNothingThatIsWrong", func(t *testing.T) {
		err := newRealRig(t, k.Bootstrap, nil).sink().Check(t.Context())
		t.Log(err)
		if err == nil || strings.Contains(err.Error(), "cannot be") || !strings.Contains(err.Error(), "1 broker") {
			t.Errorf("Check returned %v", err)
		}
	})

	t.Run("SurviveCrashesAndZombies", func(t *testing.T) {
		r := fresh(t, story(400)).small()
		var zombies sync.WaitGroup
		defer zombies.Wait()
		for kill := range 12 {
			p := r.stepped(nth([]string{"produced", "commit", "committed"}[kill%3], 4+kill, errCrash))
			if kill%4 == 3 {
				zombies.Go(func() { r.supervise(t.Context(), p) })
				time.Sleep(50 * time.Millisecond)
			} else if err := r.supervise(t.Context(), p); err == nil {
				break
			}
		}
		zombies.Wait()
		r.finish(r.publisher())
		r.verify(400)
	})

	t.Run("EndAPausedTransaction", func(t *testing.T) { // fault 15
		r := fresh(t, story(60)).small()
		r.cfg.TransactionTimeout = 5 * time.Second // the brokers look every 10 s
		p := r.pausing()
		if err := p.Run(t.Context()); !errors.Is(err, publish.ErrFenced) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run returned %v", err)
		}
		r.finish(p)
		r.verify(60)
	})

	// The in-memory cluster counts otherwise.
	t.Run("TakeNumbersThatRunOver", func(t *testing.T) {
		r := fresh(t, nil)
		r.cfg.Delivery, r.cfg.MaxRecordBytes = AtLeastOnce, 1024
		const records = 1000
		s, all := r.sink(), numbered(0, records)
		for i, part := range [][]publish.Record{all[:1], all[1:]} { // brokers may want an empty partition's first number to be 0
			tx := begin(t, s).(*tx)
			p := tx.send.topic(dataTopic).partition(0)
			if i == 1 {
				p.term, p.seq = tx.send.term, math.MaxInt32-500
			}
			if err := tx.Produce(t.Context(), part); err != nil {
				t.Fatal(err)
			}
			if err := commit(t, tx); err != nil {
				t.Fatal(err)
			}
			if i == 1 && p.seq != 498 {
				t.Errorf("the next number is %d", p.seq)
			}
		}
		wantNumbered(t, r.committed()[0], records)
	})

	t.Run("RememberADeletedCheckpoint", func(t *testing.T) { // fault 23
		r := fresh(t, story(30))
		r.finish(r.publisher())
		topic := checkpoint.TopicName(pipeline)
		deleted := func() {
			t.Helper()
			if _, err := a.DeleteTopics(t.Context(), topic); err != nil {
				t.Fatal(err)
			}
		}
		deleted()
		if err := r.supervise(t.Context(), r.publisher()); !errors.Is(err, checkpoint.ErrUnusable) {
			t.Errorf("deleted: Run returned %v", err)
		}
		// Somebody's tool makes it again, empty. The coordinator still knows of a commit.
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			resp, err := a.CreateTopic(t.Context(), 1, 1, nil, topic)
			if err == nil && resp.Err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err, resp.Err)
			}
		}
		if err := r.supervise(t.Context(), r.publisher()); !errors.Is(err, checkpoint.ErrUnusable) {
			t.Errorf("made again: Run returned %v", err)
		}
		r.verify(30)
	})

	t.Run("Login", func(t *testing.T) {
		remake(t, a)
		grant := func(user string, name string, literal bool, topics ...kadm.ACLOperation) *kadm.ACLBuilder {
			b := kadm.NewACLs().Allow(user).AllowHosts("*").Operations(topics...)
			if literal {
				return b.Topics(name)
			}
			return b.TransactionalIDs(name)
		}
		for _, user := range []string{"User:alice", "User:CN=client"} {
			for _, b := range []*kadm.ACLBuilder{
				grant(user, "headwater.shop", false, kadm.OpWrite, kadm.OpDescribe),
				grant(user, checkpoint.TopicName(pipeline), true, kadm.OpCreate, kadm.OpDescribe, kadm.OpRead, kadm.OpWrite),
				grant(user, dataTopic, true, kadm.OpDescribe, kadm.OpWrite),
			} {
				if _, err := a.CreateACLs(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
		}
		password := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(password, []byte("alice-secret\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		tls := TLS{Enabled: true, CAFile: k.CAFile, CertFile: k.CertFile, KeyFile: k.KeyFile}
		for i, c := range []struct {
			name    string
			brokers []string
			tls     TLS
			sasl    SASL
			want    string // "" for success
			refused bool   // retrying does not help
		}{
			{"SCRAM-SHA-256", k.SASL, TLS{}, SASL{Mechanism: "SCRAM-SHA-256", Username: "alice", Password: "alice-secret"}, "", false},
			{"SCRAM-SHA-512", k.SASL, TLS{}, SASL{Mechanism: "SCRAM-SHA-512", Username: "alice", PasswordFile: password}, "", false},
			{"PLAIN", k.SASL, TLS{}, SASL{Mechanism: "PLAIN", Username: "alice", Password: "alice-secret"}, "", false},
			{"mTLS", k.TLS, tls, SASL{}, "", false},
			{"a wrong password", k.SASL, TLS{}, SASL{Mechanism: "SCRAM-SHA-256", Username: "alice", Password: "alice-wrong"}, "correct sasl.username", true},
			{"no rights", k.SASL, TLS{}, SASL{Mechanism: "PLAIN", Username: "bob", Password: "bob-secret"}, "on TransactionalId headwater.shop", true},
			{"no login", k.SASL, TLS{}, SASL{}, "expects TLS (tls.enabled) or a login", false},
			{"plaintext on the TLS port", k.TLS, TLS{}, SASL{}, "set tls.enabled to true", true},
			{"TLS on the plaintext port", k.Bootstrap, tls, SASL{}, "set tls.enabled to false", false},
			{"an unknown authority", k.TLS, TLS{Enabled: true}, SASL{}, "set tls.ca_file", true},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := newRealRig(t, c.brokers, story(10))
				r.cfg.TLS, r.cfg.SASL, r.cfg.New = c.tls, c.sasl, i == 0
				r.cfg.extra = []kgo.Opt{kgo.RequestRetries(2), kgo.RetryTimeout(5 * time.Second)}
				if c.want == "" {
					r.finish(r.publisher())
					return
				}
				err := r.publisher().Run(t.Context())
				if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, publish.ErrRefused) != c.refused {
					t.Errorf("Run returned %v", err)
				}
				if strings.Contains(fmt.Sprint(err), "-secret") || strings.Contains(fmt.Sprint(err), "-wrong") {
					t.Errorf("the password shows in %v", err)
				}
			})
		}
	})
}
