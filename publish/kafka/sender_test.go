package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
)

func TestBatch_HasTheFormOfTheProtocol(t *testing.T) {
	t.Parallel()
	headers := []publish.Header{{Key: "a", Value: []byte("1")}, {Key: "nil"}, {Key: "", Value: []byte{}}}
	b := new(batch)
	add := func(r publish.Record, now int64) {
		h := appendHeaders(nil, r.Headers)
		b.reserve(len(r.Key) + len(r.Value) + len(h) + recordBound)
		b.add(&r, h, now)
	}
	const now = 1_700_000_000_000
	add(publish.Record{Key: []byte("k"), Value: []byte("v"), Headers: headers}, now)
	add(publish.Record{Value: []byte{}}, now+5)
	add(publish.Record{Key: bytes.Repeat([]byte("k"), 100)}, now-70_000) // the clock was set back
	if next := b.number(41); next != 44 {
		t.Errorf("the next number is %d", next)
	}
	b.seal(nil, producer{id: 7, epoch: 3}, true)

	wire := slices.Concat(b.head[:], b.payload)
	var got kmsg.RecordBatch
	if err := got.ReadFrom(wire); err != nil {
		t.Fatal(err)
	}
	records := got.Records
	got.Records = nil
	want := kmsg.RecordBatch{
		Length: int32(len(wire) - 12), PartitionLeaderEpoch: -1, Magic: 2, CRC: int32(crc32.Checksum(wire[21:], crc32.MakeTable(crc32.Castagnoli))),
		Attributes: 0x10, LastOffsetDelta: 2, FirstTimestamp: now, MaxTimestamp: now + 5, ProducerID: 7, ProducerEpoch: 3, FirstSequence: 41, NumRecords: 3,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the head is\n%+v, want\n%+v", got, want)
	}
	for i, want := range []struct {
		delta      int64
		key, value []byte
		headers    int
	}{{0, []byte("k"), []byte("v"), 3}, {5, nil, []byte{}, 0}, {-70_000, bytes.Repeat([]byte("k"), 100), nil, 0}} {
		var r kmsg.Record
		if err := r.ReadFrom(records); err != nil {
			t.Fatal(err)
		}
		if r.TimestampDelta64 != want.delta || int(r.OffsetDelta) != i || !bytes.Equal(r.Key, want.key) || (r.Key == nil) != (want.key == nil) ||
			!bytes.Equal(r.Value, want.value) || (r.Value == nil) != (want.value == nil) || len(r.Headers) != want.headers {
			t.Errorf("record %d is %+v", i, r)
		}
		records = records[varintLen(int64(r.Length))+int(r.Length):]
	}
	if len(records) != 0 {
		t.Errorf("%d bytes are left", len(records))
	}
}

func TestBatch_NumbersGoOnAtZero(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ seq, records, next int32 }{
		{0, 3, 3}, {math.MaxInt32 - 3, 3, math.MaxInt32}, {math.MaxInt32 - 2, 3, 0}, {math.MaxInt32, 3, 2},
	} {
		b := &batch{records: c.records}
		if next := b.number(c.seq); next != c.next || b.seq != c.seq {
			t.Errorf("%d records from %d on: the next number is %d, want %d", c.records, c.seq, next, c.next)
		}
	}
}

func TestBatch_VarintsHaveTheirLength(t *testing.T) {
	t.Parallel()
	for _, v := range []int64{0, 1, -1, 63, 64, -64, -65, 1 << 20, math.MaxInt32, math.MaxInt64, math.MinInt64} {
		if got, want := varintLen(v), len(appendVarint(v)); got != want {
			t.Errorf("%d: %d, want %d", v, got, want)
		}
	}
}

func appendVarint(v int64) []byte {
	u := uint64(v<<1) ^ uint64(v>>63)
	var b []byte
	for ; u >= 0x80; u >>= 7 {
		b = append(b, byte(u)|0x80)
	}
	return append(b, byte(u))
}

// What readers get is what was produced, whatever the codec and the size.
func TestSender_ReadersGetWhatWasProduced(t *testing.T) {
	t.Parallel()
	headers := []publish.Header{{Key: "a", Value: []byte("1")}, {Key: "b"}}
	for codec := range codecs {
		t.Run(codec, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.cfg.Compression, r.cfg.MaxRecordBytes = codec, 1_000_000
			s := r.sink()
			tx := begin(t, s)
			var want []publish.Record
			for i := range 3000 {
				rec := publish.Record{Topic: dataTopic, Key: fmt.Appendf(nil, "key %d", i), Value: bytes.Repeat([]byte{byte(i)}, i%700), Headers: headers}
				switch i % 5 {
				case 0:
					rec.Headers = nil
				case 1:
					rec.Headers = []publish.Header{{Key: "own", Value: fmt.Append(nil, i)}}
				case 2:
					rec.Key = nil
				case 3:
					rec.Value = nil
				}
				want = append(want, rec)
			}
			want = append(want, publish.Record{Topic: dataTopic, Value: bytes.Repeat([]byte("large"), 190_000)}, want[1])
			for part := range slices.Chunk(want, 100) {
				// Their memory is ours again when Produce returns.
				lent := slices.Clone(part)
				for i := range lent {
					lent[i].Key, lent[i].Value = bytes.Clone(lent[i].Key), bytes.Clone(lent[i].Value)
				}
				if err := tx.Produce(t.Context(), lent); err != nil {
					t.Fatal(err)
				}
				for i := range lent {
					clear(lent[i].Key)
					clear(lent[i].Value)
				}
			}
			if err := tx.Commit(t.Context(), checkpoint.Checkpoint{Pipeline: pipeline, Seq: 1}); err != nil {
				t.Fatal(err)
			}
			opts, err := r.cfg.Options(nil)
			if err != nil {
				t.Fatal(err)
			}
			cl, err := kgo.NewClient(append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeTopics(dataTopic),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			i := 0
			for i < len(want) && ctx.Err() == nil {
				cl.PollFetches(ctx).EachRecord(func(got *kgo.Record) {
					w := &want[min(i, len(want)-1)]
					same := bytes.Equal(got.Key, w.Key) && (got.Key == nil) == (w.Key == nil) &&
						bytes.Equal(got.Value, w.Value) && (got.Value == nil) == (w.Value == nil) && len(got.Headers) == len(w.Headers)
					for j := range w.Headers {
						same = same && got.Headers[j].Key == w.Headers[j].Key && bytes.Equal(got.Headers[j].Value, w.Headers[j].Value)
					}
					if !same {
						t.Fatalf("record %d differs: %v", i, got)
					}
					i++
				})
			}
			if i != len(want) {
				t.Errorf("%d records, want %d", i, len(want))
			}
		})
	}
}

// numbered returns n records of a partition with values that count.
func numbered(partition int32, n int) []publish.Record {
	records := make([]publish.Record, n)
	for i := range records {
		records[i] = publish.Record{Topic: dataTopic, Partition: partition, Value: fmt.Append(nil, i)}
	}
	return records
}

// wantNumbered fails unless a partition holds those records, each once and in order.
func wantNumbered(t *testing.T, got []string, n int) {
	t.Helper()
	for i := range got {
		if got[i] != fmt.Sprint(i) {
			t.Fatalf("record %d is %q", i, got[i])
		}
	}
	if len(got) != n {
		t.Errorf("%d records, want %d", len(got), n)
	}
}

var deliveries = []string{ExactlyOnce, AtLeastOnce}

func commit(t *testing.T, tx publish.Tx) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	return tx.Commit(ctx, checkpoint.Checkpoint{Pipeline: pipeline, Seq: 1})
}

// These errors heal, so the batch is sent again, with what it was numbered at first.
func TestSender_RepeatsWhatHeals(t *testing.T) {
	t.Parallel()
	for _, e := range []*kerr.Error{
		kerr.ConcurrentTransactions, kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.FencedLeaderEpoch, kerr.UnknownTopicOrPartition,
		kerr.UnknownTopicID, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut, kerr.KafkaStorageError,
	} {
		for _, delivery := range deliveries {
			t.Run(e.Message+", "+delivery, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, nil)
				r.cfg.Delivery, r.cfg.MaxRecordBytes = delivery, 2000 // several batches
				tx := begin(t, r.sink())
				h := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: dataTopic, Err: e, Count: 3})
				if err := tx.Produce(t.Context(), numbered(1, 2000)); err != nil {
					t.Fatal(err)
				}
				if err := commit(t, tx); err != nil {
					t.Fatal(err)
				}
				wantNumbered(t, r.committed()[1], 2000)
				if h.Hits() != 3 {
					t.Errorf("%d faults", h.Hits())
				}
			})
		}
	}
}

func TestSender_GivesUpWhatDoesNotHeal(t *testing.T) {
	t.Parallel()
	for _, e := range []*kerr.Error{
		kerr.InvalidRecord, kerr.CorruptMessage, kerr.InvalidProducerEpoch, kerr.OutOfOrderSequenceNumber, kerr.TransactionAbortable,
		kerr.TopicAuthorizationFailed, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID,
	} {
		t.Run(e.Message, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			tx := begin(t, r.sink())
			r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: dataTopic, Err: e, Count: -1})
			if err := tx.Produce(t.Context(), numbered(0, 10)); err != nil {
				t.Fatal(err)
			}
			err := commit(t, tx)
			if !errors.Is(err, e) || !strings.Contains(err.Error(), "topic "+dataTopic+", partition 0") {
				t.Errorf("Commit returned %v", err)
			}
			if got := tx.Produce(t.Context(), numbered(1, 1)); !errors.Is(got, e) {
				t.Errorf("Produce returned %v", got)
			}
		})
	}
	t.Run("ATopicThatIsNotThere", func(t *testing.T) {
		t.Parallel()
		tx := begin(t, newRig(t, nil).sink())
		if err := tx.Produce(t.Context(), []publish.Record{{Topic: "nowhere"}}); err != nil {
			t.Fatal(err)
		}
		if err := commit(t, tx); !errors.Is(err, kerr.UnknownTopicOrPartition) || !strings.Contains(err.Error(), "topic nowhere") {
			t.Errorf("Commit returned %v", err)
		}
	})
	t.Run("APartitionThatIsNotThere", func(t *testing.T) {
		t.Parallel()
		tx := begin(t, newRig(t, nil).sink())
		if err := tx.Produce(t.Context(), numbered(partitions, 1)); err != nil {
			t.Fatal(err)
		}
		if err := commit(t, tx); !errors.Is(err, kerr.UnknownTopicOrPartition) {
			t.Errorf("Commit returned %v", err)
		}
	})
}

// A trouble that is met for the first time is over in a moment, whatever was met before.
func TestSender_EachTroubleBeginsWithAShortPause(t *testing.T) {
	t.Parallel()
	troubles := []*kerr.Error{kerr.ConcurrentTransactions, kerr.UnknownTopicOrPartition, kerr.NotLeaderForPartition}
	for _, before := range troubles {
		for _, then := range troubles {
			if before == then {
				continue
			}
			s := &sender{}
			p, b := &partitionState{topic: &topicState{name: dataTopic}}, new(batch)
			for range 12 {
				s.settle(p, b, before)
			}
			s.settle(p, b, then)
			if pause := time.Until(p.retryAt); pause > firstPause {
				t.Errorf("%v after %v: the first pause is %v", then, before, pause)
			}
		}
	}
}

func TestPauseAfter_DoublesUpToABound(t *testing.T) {
	t.Parallel()
	for tries, longest := range []time.Duration{5, 5, 10, 20, 40, 80, 100, 100} {
		longest *= time.Millisecond
		for range 100 {
			if d := pauseAfter(tries, 5*time.Millisecond, 100*time.Millisecond); d > longest || d < longest*3/4 {
				t.Fatalf("after %d attempts %v, want %v less a quarter at most", tries, d, longest)
			}
		}
	}
	if d := pauseAfter(1000, 5*time.Millisecond, 100*time.Millisecond); d > 100*time.Millisecond || d <= 0 {
		t.Errorf("after 1000 attempts %v", d)
	}
}

// What the client repeats by itself: requests to a coordinator that has moved, and those
// whose connection is gone.
func TestConfig_TheClientBeginsWithShortPauses(t *testing.T) {
	t.Parallel()
	cfg := Config{Brokers: []string{"127.0.0.1:1"}}
	cfg.SetDefaults()
	opts, err := cfg.Options(nil)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	pause := cl.OptValue(kgo.RetryBackoffFn).(func(int) time.Duration)
	for tries := 1; tries <= 4; tries++ {
		if d, most := pause(tries), firstPause<<(tries-1); d > most {
			t.Errorf("after %d attempts it pauses for %v, want %v at most", tries, d, most)
		}
	}
}

// A topic that was dropped with its table fails nobody who does not write to it.
func TestSender_ATopicThatNobodyWritesToMayGo(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	if err := r.cluster.CreateTopic("dropped", 1, nil); err != nil {
		t.Fatal(err)
	}
	s := r.sink()
	if err := s.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	write := func(records []publish.Record) {
		t.Helper()
		tx, err := s.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.until(func() bool { // Begin may have begun to look at the topics
			s.send.mu.Lock()
			defer s.send.mu.Unlock()
			return !s.send.looking
		})
		if err := errors.Join(tx.Produce(t.Context(), records), commit(t, tx)); err != nil {
			t.Fatal(err)
		}
	}
	write([]publish.Record{{Topic: "dropped"}})
	if err := r.cluster.DeleteTopic("dropped"); err != nil {
		t.Fatal(err)
	}
	for range unknownTries + 3 {
		s.send.mu.Lock()
		s.send.fresh = time.Now().Add(-refresh - time.Second) // a minute passes
		s.send.mu.Unlock()
		write(numbered(0, 1))
	}
}

// A duplicate was written by an earlier attempt, if there was one.
func TestSender_ADuplicateIsWritten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []*kerr.Error
		written bool
	}{
		"second attempt": {[]*kerr.Error{kerr.NotEnoughReplicasAfterAppend, kerr.DuplicateSequenceNumber}, true},
		"first attempt":  {[]*kerr.Error{kerr.DuplicateSequenceNumber}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			tx := begin(t, r.sink())
			sent := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: dataTopic, Observe: true, Count: -1})
			for _, err := range c.answers {
				r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: dataTopic, Err: err})
			}
			if err := tx.Produce(t.Context(), numbered(0, 10)); err != nil {
				t.Fatal(err)
			}
			err := commit(t, tx)
			if c.written != (err == nil) || err != nil && !errors.Is(err, kerr.DuplicateSequenceNumber) {
				t.Errorf("Commit returned %v", err)
			}
			if n := sent.Hits(); int(n) != len(c.answers) {
				t.Errorf("it was sent %d times", n)
			}
		})
	}
}

// Before Kafka 4.1 a request goes by the topic's name, so that it would be written into
// whatever has that name now.
func TestSender_NoticesThatATopicWasMadeAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, kfake.NumBrokers(1), kfake.MaxVersions(kversion.V4_0_0()))
	s := r.sink()
	records := func() error {
		tx, err := s.Begin(t.Context())
		if err != nil {
			return err
		}
		if err := tx.Produce(t.Context(), numbered(0, 10)); err != nil {
			return err
		}
		return commit(t, tx)
	}
	if err := s.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := records(); err != nil {
		t.Fatal(err)
	}
	if err := r.cluster.DeleteTopic(dataTopic); err != nil {
		t.Fatal(err)
	}
	if err := r.cluster.CreateTopic(dataTopic, partitions, nil); err != nil {
		t.Fatal(err)
	}
	s.send.mu.Lock()
	s.send.fresh = time.Now().Add(-refresh - time.Second)
	s.send.mu.Unlock()
	for began := time.Now(); ; {
		err := records()
		if errors.Is(err, kerr.UnknownTopicID) {
			return
		}
		if err != nil || time.Since(began) > 2*time.Minute {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
	}
}

// Leaders move while records are under way, and requests and answers are lost.
func TestSender_KeepsTheOrderWhileLeadersMove(t *testing.T) {
	t.Parallel()
	for _, delivery := range deliveries {
		t.Run(delivery, func(t *testing.T) {
			t.Parallel()
			n := new(network)
			r := newRig(t, nil, kfake.NumBrokers(2), kfake.ListenFn(n.listen))
			r.cfg.Delivery, r.cfg.MaxRecordBytes = delivery, 1024
			tx := begin(t, r.sink())
			var seen atomic.Int64
			n.setRule(func(k kmsg.Key) fate {
				if k != kmsg.Produce {
					return delivered
				}
				i := seen.Add(1)
				switch i % 8 {
				case 2:
					r.cluster.MoveTopicPartition(dataTopic, int32(i/8%partitions), int32(i/24%2))
				case 5:
					return requestLost
				case 7:
					return answerLost
				}
				return delivered
			})
			const records = 3000
			for part := range slices.Chunk(numbered(0, records), 50) {
				for p := range int32(partitions) {
					for i := range part {
						part[i].Partition = p
					}
					if err := tx.Produce(t.Context(), part); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := commit(t, tx); err != nil {
				t.Fatal(err)
			}
			n.setRule(nil)
			for p, got := range r.committed() {
				t.Logf("partition %d, %d requests", p, seen.Load())
				wantNumbered(t, got, records)
			}
		})
	}
}

// No batch is larger than the largest record allows, so that a topic which takes that
// record takes each batch.
func TestSender_BatchesKeepToTheLargestRecord(t *testing.T) {
	t.Parallel()
	const most = 2000
	r := newRig(t, nil)
	r.cfg.Compression, r.cfg.MaxRecordBytes = "none", most
	tx := begin(t, r.sink())
	var batches, largest atomic.Int64
	r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: dataTopic, Observe: true, Count: -1, When: func(req kmsg.Request) bool {
		for _, topic := range req.(*kmsg.ProduceRequest).Topics {
			for _, p := range topic.Partitions {
				batches.Add(1)
				largest.Store(max(largest.Load(), int64(len(p.Records))))
			}
		}
		return true
	}})
	for i := range 200 {
		if err := tx.Produce(t.Context(), []publish.Record{{Topic: dataTopic, Value: make([]byte, i*10+10)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := commit(t, tx); err != nil {
		t.Fatal(err)
	}
	if largest.Load() > most+batchHead || batches.Load() < 100 {
		t.Errorf("%d batches, the largest of %d bytes", batches.Load(), largest.Load())
	}
}

// The bounds hold while the brokers take nothing, and end with them.
func TestSender_WaitsForRoom(t *testing.T) {
	t.Parallel()
	r, n := lossyRig(t, nil)
	r.cfg.BufferBytes, *r.cfg.Linger = 64<<10, time.Second
	tx := begin(t, r.sink()).(*tx)
	n.setRule(func(k kmsg.Key) fate {
		if k == kmsg.Produce {
			return requestLost
		}
		return delivered
	})
	done := make(chan error, 1)
	go func() {
		for part := range slices.Chunk(numbered(0, 50_000), 500) {
			if err := tx.Produce(t.Context(), part); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	held := func() int {
		tx.send.mu.Lock()
		defer tx.send.mu.Unlock()
		return tx.send.bytes
	}
	r.until(func() bool { return held() >= 64<<10 && n.losses() > 3 })
	if got := held(); got > 64<<10+largeBuffer {
		t.Errorf("%d bytes are held", got)
	}
	select {
	case err := <-done:
		t.Fatalf("Produce did not wait: %v", err)
	default:
	}
	n.setRule(nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := commit(t, tx); err != nil {
		t.Fatal(err)
	}
	wantNumbered(t, r.committed()[0], 50_000)
	if tx.send.bytes != 0 || tx.send.records != 0 || tx.send.batches != 0 {
		t.Errorf("%d bytes, %d records, %d batches are held after all is acknowledged", tx.send.bytes, tx.send.records, tx.send.batches)
	}
}

// Brokers that do not know each transaction's epoch are told of its partitions.
func TestSender_OldBrokersAreToldOfPartitions(t *testing.T) {
	t.Parallel()
	for _, e := range []*kerr.Error{kerr.ConcurrentTransactions, kerr.NotCoordinator, kerr.CoordinatorNotAvailable} {
		t.Run(e.Message, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil, kfake.MaxVersions(kversion.V3_6_0()))
			s := r.sink()
			tx := begin(t, s)
			h := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.AddPartitionsToTxn}, Err: e, Count: 3})
			for seq := range 3 {
				if err := tx.Produce(t.Context(), numbered(2, 100)); err != nil {
					t.Fatal(err)
				}
				if err := commit(t, tx); err != nil {
					t.Fatal(err)
				}
				var err error
				if tx, err = s.Begin(t.Context()); err != nil {
					t.Fatal(seq, err)
				}
			}
			if got := r.committed()[2]; len(got) != 300 {
				t.Errorf("%d records", len(got))
			}
			if h.Hits() != 3 {
				t.Errorf("%d faults", h.Hits())
			}
		})
	}
}

func TestSink_RefusesBrokersThatDoNotNumberRecords(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, kfake.MaxVersions(kversion.V0_10_2()))
	if err := r.sink().Fence(t.Context()); !errors.Is(err, publish.ErrRefused) || !strings.Contains(err.Error(), "2.5") {
		t.Errorf("Fence returned %v", err)
	}
}
