package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/publish/publishtest"
)

// errCrash ends an instance as SIGKILL would: its connections go, and it never comes back.
var errCrash = errors.New("crash")

// A steppedSink calls at before and after each step; an error there ends the step.
type steppedSink struct {
	*Sink
	at func(ctx context.Context, step string) error
}

func (s steppedSink) Fence(ctx context.Context) error {
	if err := s.at(ctx, "fence"); err != nil {
		return err
	}
	if err := s.Sink.Fence(ctx); err != nil {
		return err
	}
	return s.at(ctx, "fenced")
}

func (s steppedSink) Begin(ctx context.Context) (publish.Tx, error) {
	inner, err := s.Sink.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return steppedTx{inner.(*tx), s.at}, s.at(ctx, "begun")
}

type steppedTx struct {
	*tx
	at func(ctx context.Context, step string) error
}

func (t steppedTx) Produce(ctx context.Context, records []publish.Record) error {
	if err := t.tx.Produce(ctx, records); err != nil {
		return err
	}
	return t.at(ctx, "produced")
}

func (t steppedTx) Commit(ctx context.Context, cp checkpoint.Checkpoint) error {
	if err := t.at(ctx, "commit"); err != nil {
		return err
	}
	if err := t.tx.Commit(ctx, cp); err != nil {
		return err
	}
	return t.at(ctx, "committed")
}

// nth fails with err the nth time that step is reached.
func nth(step string, n int, err error) func(context.Context, string) error {
	return func(_ context.Context, s string) error {
		if s == step {
			if n--; n == 0 {
				return err
			}
		}
		return nil
	}
}

// stepped returns an instance whose steps call at.
func (r *rig) stepped(at func(ctx context.Context, step string) error) *publish.Publisher {
	return r.publisherOn(steppedSink{r.sink(), at})
}

// finish runs p, again after each error that a retry may heal, until the story is told.
// A supervisor does the same.
func (r *rig) finish(p *publish.Publisher) {
	r.Helper()
	if err := r.supervise(r.Context(), p); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) supervise(ctx context.Context, p *publish.Publisher) error {
	for run := 1; ; run++ {
		err := p.Run(ctx)
		if run == 500 {
			r.Errorf("run %d returned %v", run, err)
			return err
		}
		if !accident(err) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// accident reports whether err is one after which a supervisor calls Run again.
func accident(err error) bool {
	for _, final := range []error{
		errCrash, context.Canceled, publish.ErrSuperseded, publish.ErrRefused, publish.ErrConfigChanged,
		checkpoint.ErrUnusable, capture.ErrPositionLost,
	} {
		if errors.Is(err, final) {
			return false
		}
	}
	return err != nil
}

// small makes many small transactions of a story.
func (r *rig) small() *rig {
	r.publish.MaxRecords = 60
	return r
}

func lossyRig(t *testing.T, story *publishtest.Story) (*rig, *network) {
	n := new(network)
	return newRig(t, story, kfake.ListenFn(n.listen)), n
}

// The rows of the fault table in publish/DESIGN.md.
func TestFaults(t *testing.T) {
	t.Parallel()
	story := func(n int) *publishtest.Story {
		return &publishtest.Story{Transactions: n, Size: sizes, Batch: func() int { return 11 }}
	}

	for _, step := range []string{"fence", "fenced", "begun", "commit", "committed"} {
		t.Run("01 killed while starting: "+step, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, story(20)).small()
			if err := r.stepped(nth(step, 1, errCrash)).Run(t.Context()); !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			r.finish(r.publisher())
			r.verify(20)
		})
	}

	t.Run("02 killed with records in flight", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, story(60)).small()
		for n := 2; n < 12; n += 3 {
			if err := r.supervise(t.Context(), r.stepped(nth("produced", n, errCrash))); !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
		}
		r.finish(r.publisher())
		r.verify(60)
	})

	// The crash comes with the first lost request, so the client does not send it again.
	killed := func(t *testing.T, f fate) {
		r, n := lossyRig(t, story(300))
		r.small()
		for kill := range 4 {
			ctx, cancel := context.WithCancelCause(t.Context())
			ends := 0
			n.setRule(func(k kmsg.Key) fate {
				if k == kmsg.EndTxn {
					if ends++; ends > 1+kill {
						cancel(errCrash)
						return f
					}
				}
				return delivered
			})
			s := steppedSink{r.sink(), func(context.Context, string) error { return context.Cause(ctx) }}
			done := make(chan error, 1)
			go func() { done <- r.supervise(ctx, r.publisherOn(s)) }()
			select {
			case <-ctx.Done():
			case err := <-done:
				t.Fatalf("it ended before it was killed: %v", err)
			}
			n.setRule(nil)
			// The client may still be trying again: the successor does not wait for it.
			if err := r.supervise(t.Context(), r.stepped(nth("committed", 3, errCrash))); !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			<-done
		}
		r.finish(r.publisher())
		r.verify(300)
	}
	t.Run("03 killed before EndTxn", func(t *testing.T) { t.Parallel(); killed(t, requestLost) })
	t.Run("04 killed after EndTxn was applied", func(t *testing.T) { t.Parallel(); killed(t, answerLost) })

	t.Run("05 killed before the source was told", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, story(60)).small()
		for n := 2; n < 6; n++ {
			if err := r.supervise(t.Context(), r.stepped(nth("committed", n, errCrash))); !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
		}
		r.finish(r.publisher())
		r.verify(60)
	})

	t.Run("06 killed in the middle of a huge transaction", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, &publishtest.Story{Transactions: 3, Size: func(tx int) int { return []int{0, 7, 20_000, 7}[tx] }})
		r.publish.MaxRecords = 1000
		for kill := range 5 {
			if err := r.supervise(t.Context(), r.stepped(nth("produced", 150+kill*31, errCrash))); !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
		}
		cp, err := r.loader().Load(t.Context(), pipeline)
		if err != nil || cp.InTx == nil || cp.InTx.Done == 0 {
			t.Errorf("the checkpoint is %+v, %v, want one inside transaction 2", cp, err)
		}
		r.finish(r.publisher())
		r.verify(3)
	})

	for _, c := range []struct {
		name string
		key  kmsg.Key
		f    fate
		n    int
	}{
		{"07 the answer of EndTxn lost once", kmsg.EndTxn, answerLost, 1},
		{"08 the answer of EndTxn lost always", kmsg.EndTxn, answerLost, 30},
		{"09 the request EndTxn lost always", kmsg.EndTxn, requestLost, 30},
		{"10 the answer of Produce lost", kmsg.Produce, answerLost, 5},
		{"10 the request Produce lost", kmsg.Produce, requestLost, 5},
		{"10 the answer of InitProducerID lost", kmsg.InitProducerID, answerLost, 2},
		{"10 the answer of Fetch lost", kmsg.Fetch, answerLost, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, n := lossyRig(t, story(60))
			r.small()
			n.setRule(first(c.n, c.key, c.f))
			r.finish(r.publisher())
			r.verify(60)
			if n.losses() != c.n {
				t.Errorf("%d were lost, want %d", n.losses(), c.n)
			}
		})
	}

	for _, e := range []*kerr.Error{kerr.MessageTooLarge, kerr.InvalidRecord, kerr.TopicAuthorizationFailed} {
		t.Run("11 a record is refused for good: "+e.Message, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, story(60)).small()
			r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: dataTopic, Err: e, Count: -1})
			err := r.publisher().Run(t.Context())
			if want := e != kerr.InvalidRecord; errors.Is(err, publish.ErrRefused) != want || !errors.Is(err, e) {
				t.Errorf("Run returned %v", err)
			}
			if got := r.committed(); len(got) != 0 {
				t.Errorf("visible: %v", got)
			}
		})
	}

	t.Run("12 too few replicas after the append", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, story(60)).small()
		h := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend, Count: 8})
		r.finish(r.publisher())
		r.verify(60)
		if h.Hits() != 8 {
			t.Errorf("%d faults", h.Hits())
		}
	})

	t.Run("13 leaders move", func(t *testing.T) {
		t.Parallel()
		r, n := lossyRig(t, story(200))
		moves := n.onEvery(4, kmsg.Produce, r.cluster.ShufflePartitionLeaders)
		r.finish(r.small().publisher())
		r.verify(200)
		if moves() == 0 {
			t.Error("they did not move")
		}
	})

	t.Run("14 the coordinator moves during commits", func(t *testing.T) {
		t.Parallel()
		r, n := lossyRig(t, story(100))
		moves := n.onEvery(3, kmsg.EndTxn, r.cluster.RehashCoordinators)
		r.finish(r.small().publisher())
		r.verify(100)
		if moves() == 0 {
			t.Error("it did not move")
		}
	})

	t.Run("15 the broker ends a paused transaction", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, story(60)).small()
		r.cfg.TransactionTimeout = 5 * time.Second
		p := r.pausing()
		if err := p.Run(t.Context()); err == nil || errors.Is(err, publish.ErrSuperseded) {
			t.Errorf("the first run returned %v", err)
		}
		r.finish(p)
		r.verify(60)
	})

	t.Run("16 a paused instance wakes up beside its successor", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, story(60)).small()
		r.story.Endless = true
		asleep, awake := make(chan struct{}), make(chan struct{})
		old := r.stepped(func() func(context.Context, string) error {
			n := 0
			return func(_ context.Context, step string) error {
				if step == "produced" {
					if n++; n == 9 {
						close(asleep)
						<-awake
					}
				}
				return nil
			}
		}())
		ended := make(chan error)
		go func() { ended <- r.supervise(t.Context(), old) }()
		<-asleep
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		successor := r.publisher()
		stayed := make(chan error)
		go func() { stayed <- r.supervise(ctx, successor) }()
		r.until(func() bool { return r.story.Acked() == 60 })
		close(awake)
		if err := <-ended; !errors.Is(err, publish.ErrSuperseded) {
			t.Errorf("the old instance ended with %v", err)
		}
		cancel()
		if err := <-stayed; errors.Is(err, publish.ErrSuperseded) {
			t.Errorf("the new instance ended with %v", err)
		}
		r.verify(60)
	})

	t.Run("17 two instances start together", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, &publishtest.Story{Transactions: 1 << 30, Size: func(int) int { return 1 }, Pause: every(time.Millisecond)})
		for round := 1; round <= 50; round++ {
			ctx, cancel := context.WithCancel(t.Context())
			ends := make(chan error)
			for range 2 {
				p := r.publisher()
				go func() { ends <- r.supervise(ctx, p) }()
			}
			if err := <-ends; !errors.Is(err, publish.ErrSuperseded) {
				t.Errorf("the first to end: %v", err)
			}
			if round == 50 {
				r.until(func() bool { return r.story.Acked() > 0 })
			}
			cancel()
			if err := <-ends; errors.Is(err, publish.ErrSuperseded) {
				t.Errorf("the other: %v", err)
			}
		}
		cp, err := r.loader().Load(t.Context(), pipeline)
		if err != nil {
			t.Fatal(err)
		}
		last, err := strconv.Atoi(string(cp.At))
		if err != nil || cp.InTx != nil || last == 0 {
			t.Fatalf("the checkpoint is %+v, %v", cp, err)
		}
		r.verify(last)
	})

	t.Run("18 a zombie's transaction is open on the data", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, story(60)).small()
		r.cfg.TransactionTimeout, r.publish.TransactionTimeout = 10*time.Minute, 10*time.Minute
		zombie := r.sink()
		if err := zombie.Fence(t.Context()); err != nil {
			t.Fatal(err)
		}
		tx, err := zombie.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.Produce(t.Context(), []publish.Record{{Topic: dataTopic, Value: []byte("zombie")}}); err != nil {
			t.Fatal(err)
		}
		if err := zombie.send.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.finish(r.publisher())
		r.verify(60) // fails when the topic cannot be read to its end at once
		if err := tx.Commit(t.Context(), checkpoint.Checkpoint{Pipeline: pipeline}); !errors.Is(err, publish.ErrFenced) {
			t.Errorf("the zombie's commit: %v", err)
		}
		r.verify(60)
	})

	t.Run("20 told to stop while the brokers are away", func(t *testing.T) {
		t.Parallel()
		r, n := lossyRig(t, story(60))
		r.small().cfg.extra = nil // it tries as long as the program does
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		leave := nth("commit", 5, errCrash)
		p := r.stepped(func(ctx context.Context, step string) error {
			if leave(ctx, step) != nil {
				n.setRule(func(kmsg.Key) fate { return requestLost })
				stop()
			}
			return nil
		})
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		select {
		case err := <-ended:
			if !accident(err) && !errors.Is(err, context.Canceled) {
				t.Errorf("Run returned %v", err)
			}
		case <-time.After(2 * time.Minute): // the transaction would live for 5
			t.Error("it does not stop")
		}
		n.setRule(nil)
		r.finish(r.publisher())
		r.verify(60)
	})

	t.Run("20 the brokers are away for longer than a transaction lives", func(t *testing.T) {
		t.Parallel()
		r, n := lossyRig(t, story(600))
		r.small()
		r.cfg.TransactionTimeout, r.publish.TransactionTimeout = 5*time.Second, 5*time.Second
		r.publish.QueueBytes = 32 << 10
		var told atomic.Int64
		r.story.Pause = func(_ context.Context, tx int) error { told.Store(int64(tx)); return nil }
		away := make(chan struct{})
		leave := nth("begun", 6, errCrash)
		p := r.stepped(func(ctx context.Context, step string) error {
			if leave(ctx, step) != nil {
				n.setRule(func(kmsg.Key) fate { return requestLost })
				close(away)
			}
			return nil
		})
		var failed atomic.Int64
		ended := make(chan error, 1)
		go func() {
			for {
				if err := p.Run(t.Context()); !accident(err) {
					ended <- err
					return
				}
				failed.Add(1)
				time.Sleep(10 * time.Millisecond)
			}
		}()
		<-away
		since, acked := time.Now(), r.story.Acked()
		r.until(func() bool {
			if queued := p.Progress().QueueBytes; queued > r.publish.QueueBytes {
				t.Errorf("%d bytes are queued", queued)
			}
			// A queued batch takes 1 KiB at least, and a transaction has 120 records at most.
			if now := told.Load(); now > int64(acked)+100 {
				t.Errorf("the source was asked for transaction %d, and %d is committed", now, acked)
			}
			if now := r.story.Acked(); now != acked {
				t.Errorf("acknowledged up to %d, and %d is committed", now, acked)
			}
			return t.Failed() || failed.Load() >= 10 && time.Since(since) > 2*r.cfg.TransactionTimeout
		})
		n.setRule(nil)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		r.verify(600)
	})

	t.Run("22 the checkpoint topic is compacted all the time", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, story(200)).small()
		// Between transactions: a broker's cleaner stops at the last stable offset, the
		// in-memory one takes an open transaction's record for the newest of its key.
		compacting := func(then func(context.Context, string) error) *publish.Publisher {
			return r.stepped(func(ctx context.Context, step string) error {
				if step == "committed" {
					r.cluster.Compact()
				}
				return then(ctx, step)
			})
		}
		for n := 3; n < 8; n++ {
			if err := r.supervise(t.Context(), compacting(nth("committed", n, errCrash))); !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
		}
		r.finish(compacting(func(context.Context, string) error { return nil }))
		r.verify(200)
	})

	t.Run("23 the checkpoint topic is deleted", func(t *testing.T) {
		topic := checkpoint.TopicName(pipeline)
		stopped := func(t *testing.T, err error) {
			t.Helper()
			if !errors.Is(err, checkpoint.ErrUnusable) || !strings.Contains(err.Error(), topic) {
				t.Errorf("Run returned %v", err)
			}
		}
		t.Run("while stopped", func(t *testing.T) {
			t.Parallel()
			r := newRig(t, story(20)).small()
			r.finish(r.publisher())
			if err := r.cluster.DeleteTopic(topic); err != nil {
				t.Fatal(err)
			}
			stopped(t, r.supervise(t.Context(), r.publisher()))
			r.verify(20)
		})
		t.Run("while running", func(t *testing.T) {
			t.Parallel()
			r := newRig(t, story(60)).small()
			stopped(t, r.supervise(t.Context(), r.stepped(func() func(context.Context, string) error {
				n := 0
				return func(_ context.Context, step string) error {
					if step == "committed" {
						if n++; n == 4 {
							return r.cluster.DeleteTopic(topic)
						}
					}
					return nil
				}
			}())))
		})
		t.Run("and made again", func(t *testing.T) {
			t.Parallel()
			r := newRig(t, story(60)).small()
			stopped(t, r.supervise(t.Context(), r.stepped(func() func(context.Context, string) error {
				n := 0
				return func(_ context.Context, step string) error {
					if step == "committed" {
						if n++; n == 4 {
							if err := r.cluster.DeleteTopic(topic); err != nil {
								return err
							}
							return r.cluster.CreateTopic(topic, 1, nil)
						}
					}
					return nil
				}
			}())))
		})
		t.Run("or truncated", func(t *testing.T) {
			t.Parallel()
			r := newRig(t, story(20)).small()
			r.finish(r.publisher())
			info := r.cluster.PartitionInfo(topic, 0)
			if err := r.cluster.DeleteRecords(topic, 0, info.HighWatermark); err != nil {
				t.Fatal(err)
			}
			stopped(t, r.supervise(t.Context(), r.publisher()))
		})
		t.Run("but the operator may start anew", func(t *testing.T) {
			t.Parallel()
			r := newRig(t, story(20)).small()
			r.finish(r.publisher())
			if err := r.cluster.DeleteTopic(topic); err != nil {
				t.Fatal(err)
			}
			r.cfg.New, r.story = true, story(20)
			r.finish(r.publisher())
		})
	})

	t.Run("24 the checkpoint is not ours to read", func(t *testing.T) {
		for name, value := range map[string]string{
			"unknown version": `{"v":2,"pipeline":"shop"}`,
			"other pipeline":  `{"v":1,"pipeline":"other","seq":1,"ts_ms":1}`,
			"not JSON":        "x",
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, story(20))
				if err := r.cluster.CreateTopic(checkpoint.TopicName(pipeline), 1, nil); err != nil {
					t.Fatal(err)
				}
				r.produce(checkpoint.TopicName(pipeline), checkpoint.Key, value)
				if err := r.supervise(t.Context(), r.publisher()); !errors.Is(err, checkpoint.ErrUnusable) {
					t.Errorf("Run returned %v", err)
				}
				if got := r.committed(); len(got) != 0 {
					t.Errorf("visible: %v", got)
				}
			})
		}
	})
}

// every makes a story's batches come d apart.
func every(d time.Duration) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error { return sleep(ctx, d) }
}

// pausing returns an instance that once waits, with records in flight, until the brokers
// have ended its transaction of their own accord.
func (r *rig) pausing() *publish.Publisher {
	r.Helper()
	s, produced := r.sink(), 0
	return r.publisherOn(steppedSink{s, func(ctx context.Context, step string) error {
		if step != "produced" {
			return nil
		}
		if produced++; produced != 9 {
			return nil
		}
		if err := s.send.flush(ctx); err != nil { // now the brokers know of it
			return err
		}
		for {
			described, err := s.admin.DescribeTransactions(ctx, s.id)
			if err == nil {
				err = described[s.id].Err
			}
			if err != nil || described[s.id].State != "Ongoing" {
				return err
			}
			if err := sleep(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
	}})
}

func (r *rig) until(ok func() bool) {
	r.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatal("it does not happen")
		}
	}
}

// produce writes a record as somebody else.
func (r *rig) produce(topic, key, value string) {
	r.Helper()
	opts, err := r.cfg.Options(nil)
	if err != nil {
		r.Fatal(err)
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		r.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(r.Context(), &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(value)}).FirstErr(); err != nil {
		r.Fatal(err)
	}
}

// Random faults of all kinds at once, in network, brokers and instances. The seeds are
// fixed; what the timing makes of them is not.
func TestChaos(t *testing.T) {
	t.Parallel()
	for seed := int64(1); seed <= 4; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(&lockedSource{src: rand.NewSource(seed).(rand.Source64)})
			r, n := lossyRig(t, &publishtest.Story{Transactions: 250, Size: sizes, Batch: func() int { return 1 + rng.Intn(30) }})
			r.small()
			var faults []*kfake.FaultHandle
			fault := func(key kmsg.Key, err *kerr.Error) {
				faults = append(faults, r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: err, TopLevel: key == kmsg.EndTxn}))
			}
			// Trouble comes with requests and not with time: on a slow machine it would else
			// be more than anyone gets through.
			n.setRule(func(k kmsg.Key) fate {
				lost, trouble := 0.002, 0.0
				switch k {
				case kmsg.EndTxn:
					lost, trouble = 0.1, 0.1
				case kmsg.Produce:
					lost, trouble = 0.03, 0.1
				case kmsg.InitProducerID:
					lost = 0.03
				}
				if rng.Float64() < trouble {
					switch rng.Intn(6) {
					case 0:
						r.cluster.ShufflePartitionLeaders()
					case 1:
						r.cluster.RehashCoordinators()
					case 2:
						fault(kmsg.Produce, kerr.NotEnoughReplicasAfterAppend)
					case 3:
						fault(kmsg.EndTxn, kerr.CoordinatorNotAvailable)
					case 4:
						fault(kmsg.Produce, kerr.KafkaStorageError)
					case 5:
						fault(kmsg.Produce, kerr.InvalidRecord) // dooms the transaction
					}
				}
				if rng.Float64() < lost {
					return fate(1 + rng.Intn(2))
				}
				return delivered
			})

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var zombies sync.WaitGroup
			defer zombies.Wait()
			var told atomic.Bool
			instances := 0
			for instances < 150 && ctx.Err() == nil && !told.Load() { // then calm, whatever is left of the story
				instances++
				steps := 1 + rng.Intn(40)
				p := r.stepped(func(context.Context, string) error {
					if steps--; steps == 0 {
						return errCrash
					}
					return nil
				})
				run := func() {
					if err := r.supervise(ctx, p); err == nil {
						told.Store(true)
					} else if errors.Is(err, publish.ErrRefused) || errors.Is(err, checkpoint.ErrUnusable) || errors.Is(err, capture.ErrPositionLost) {
						t.Error(err)
						cancel()
					}
				}
				if rng.Intn(4) == 0 { // a successor starts while this one is alive
					zombies.Go(run)
					time.Sleep(time.Duration(rng.Intn(40)) * time.Millisecond)
				} else {
					run()
				}
			}
			zombies.Wait()
			n.setRule(nil)
			for _, f := range faults {
				f.Remove()
			}
			t.Logf("%d instances to transaction %d, %d requests or answers lost", instances, r.story.Acked(), n.losses())
			r.finish(r.publisher()) // tells the rest, and settles what a zombie left
			r.verify(250)
		})
	}
}

// A lockedSource may be used by several goroutines.
type lockedSource struct {
	mu  sync.Mutex
	src rand.Source64
}

func (s *lockedSource) Int63() int64    { s.mu.Lock(); defer s.mu.Unlock(); return s.src.Int63() }
func (s *lockedSource) Uint64() uint64  { s.mu.Lock(); defer s.mu.Unlock(); return s.src.Uint64() }
func (s *lockedSource) Seed(seed int64) { s.mu.Lock(); defer s.mu.Unlock(); s.src.Seed(seed) }
