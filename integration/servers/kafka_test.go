package servers_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/headwaterdb/headwater/integration/servers"
)

func client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// roundTrip creates a topic, writes a record in a transaction and reads it back.
func roundTrip(t *testing.T, topic string, replicas int16, opts ...kgo.Opt) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	writer := client(t, append(opts, kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic))...)
	if _, err := kadm.NewClient(writer).CreateTopic(ctx, 1, replicas, nil, topic); err != nil {
		t.Fatal(err)
	}
	if err := writer.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := writer.ProduceSync(ctx, kgo.StringRecord("hello")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := writer.EndTransaction(ctx, kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	expectRecord(t, topic, "hello", opts...)
}

func expectRecord(t *testing.T, topic, want string, opts ...kgo.Opt) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	reader := client(t, append(opts, kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	fetches := reader.PollRecords(ctx, 1)
	if err := fetches.Err(); err != nil {
		t.Fatal(err)
	}
	if got := string(fetches.Records()[0].Value); got != want {
		t.Errorf("read %q from %s, want %q", got, topic, want)
	}
}

func TestKafka(t *testing.T) {
	t.Parallel()
	k := servers.Own(t).KafkaWith(servers.KafkaConfig{})
	seeds := kgo.SeedBrokers(k.Bootstrap...)
	roundTrip(t, "kept", 1, seeds)

	pid := k.PID(1)
	if err := k.Kill(); err != nil {
		t.Fatal(err)
	}
	if alive(pid) {
		t.Errorf("the broker's process %d runs after Kill", pid)
	}
	if err := k.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectRecord(t, "kept", "hello", seeds)
}

func TestKafkaAuth(t *testing.T) {
	t.Parallel()
	k := servers.Own(t).KafkaWith(servers.KafkaConfig{Auth: true})
	for name, mechanism := range map[string]sasl.Mechanism{
		"plain":         plain.Auth{User: "admin", Pass: "admin-secret"}.AsMechanism(),
		"scram-sha-256": scram.Auth{User: "admin", Pass: "admin-secret"}.AsSha256Mechanism(),
		"scram-sha-512": scram.Auth{User: "admin", Pass: "admin-secret"}.AsSha512Mechanism(),
	} {
		roundTrip(t, name, 1, kgo.SeedBrokers(k.SASL...), kgo.SASL(mechanism))
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	alice := kadm.NewClient(client(t, kgo.SeedBrokers(k.SASL...), kgo.SASL(plain.Auth{User: "alice", Pass: "alice-secret"}.AsMechanism())))
	if _, err := alice.CreateTopic(ctx, 1, 1, nil, "forbidden"); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("alice creates a topic without an ACL: got %v, want %v", err, kerr.TopicAuthorizationFailed)
	}

	pem, err := os.ReadFile(k.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	cert, err := tls.LoadX509KeyPair(k.CertFile, k.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	admin := kadm.NewClient(client(t, kgo.SeedBrokers(k.Bootstrap...)))
	acl := kadm.NewACLs().Topics("tls").Operations(kadm.OpAll).ResourcePatternType(kadm.ACLPatternLiteral).
		TransactionalIDs("tls").Allow("User:CN=client").AllowHosts()
	if _, err := admin.CreateACLs(ctx, acl); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, "tls", 1, kgo.SeedBrokers(k.TLS...),
		kgo.DialTLSConfig(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}))
}

func TestKafkaNodes(t *testing.T) {
	t.Parallel()
	k := servers.Own(t).KafkaWith(servers.KafkaConfig{
		Nodes:    3,
		Heap:     "256m",
		Settings: map[string]string{"broker.session.timeout.ms": "3000"}, // Restart waits for it
	})
	seeds := kgo.SeedBrokers(k.Bootstrap...)
	roundTrip(t, "before", 3, seeds)
	if err := k.Stop(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	expectRecord(t, "before", "hello", seeds)
	if err := k.Restart(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, "after", 3, seeds)
	pids := []int{k.PID(1), k.PID(2), k.PID(3)}
	if err := k.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("the broker's process %d runs after Stop", pid)
		}
	}
}
