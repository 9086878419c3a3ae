package publish_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/publish/publishtest"
)

const name = "shop"

// A rig is a pipeline between a Story and an in-memory log.
type rig struct {
	*testing.T
	story *publishtest.Story
	log   *publishtest.Log
	cfg   publish.Config
	parts publish.Parts
}

func newRig(t *testing.T, story *publishtest.Story) *rig {
	r := &rig{T: t, story: story, log: publishtest.NewLog()}
	r.cfg.SetDefaults()
	r.parts = publish.Parts{Encoder: publishtest.Encoder{Topic: "data", Partitions: 3}, Fingerprint: "sha256:1", Prefix: "shop"}
	return r
}

// instance returns a publisher as a new process would make it, and its sink.
func (r *rig) instance() (*publish.Publisher, *publishtest.Sink) {
	s := r.log.Sink()
	parts := r.parts
	parts.Source, parts.Sink = r.story.Source(), s
	if parts.Checkpoints == nil {
		parts.Checkpoints = r.log
	}
	return publish.New(name, r.cfg, parts), s
}

// verify fails the test unless readers see the story up to transaction last exactly.
func (r *rig) verify(last int) {
	r.Helper()
	if problems := r.story.Check(publishtest.Values(r.log.Records()), last); problems != nil {
		r.Errorf("readers do not see the story up to transaction %d: %v", last, problems)
	}
}

// checkpoints returns the committed checkpoints.
func (r *rig) checkpoints() []checkpoint.Checkpoint {
	var cps []checkpoint.Checkpoint
	for _, c := range r.log.Commits() {
		cps = append(cps, c.Checkpoint)
	}
	return cps
}

func (r *rig) last() checkpoint.Checkpoint {
	r.Helper()
	cp, err := r.log.Load(r.Context(), name)
	if err != nil {
		r.Fatal(err)
	}
	return cp
}

func sizes(tx int) int { return 1 + tx*7919%37 }

func TestPublisher_Run(t *testing.T) {
	t.Run("CarriesEverythingOnceAndInOrder", func(t *testing.T) {
		r := newRig(t, &publishtest.Story{Transactions: 500, Size: sizes})
		p, _ := r.instance()
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.verify(500)
		if got := r.story.Acked(); got != 500 {
			t.Errorf("acknowledged up to %d, want 500", got)
		}
		cps := r.checkpoints()
		for i, cp := range cps {
			if cp.Seq != uint64(i+1) {
				t.Errorf("checkpoint %d has number %d", i, cp.Seq)
			}
			if cp.Pipeline != name || cp.Owner != cps[0].Owner || cp.Config != "sha256:1" {
				t.Errorf("checkpoint %d: %+v", i, cp)
			}
		}
		n := uint64(len(r.log.Records()))
		if got := r.last().Totals; got.Records != n || got.Bytes == 0 {
			t.Errorf("totals %+v, want %d records", got, n)
		}
		if got := p.Progress(); got.Stage != publish.Stopped || got.Position != publishtest.Position(500) || got.Records != n || got.QueueBytes != 0 {
			t.Errorf("progress %+v", got)
		}
	})

	t.Run("ClaimsBeforeItAsksTheSource", func(t *testing.T) {
		r := newRig(t, &publishtest.Story{Transactions: 3, Size: sizes})
		p, s := r.instance()
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		claim := r.log.Commits()[0]
		if len(claim.Records) != 0 || claim.Checkpoint.At != "" || string(claim.Checkpoint.Entries["c/prefix"]) != "shop" {
			t.Errorf("the first commit is %+v, want a claim", claim)
		}
		if s.Reached(publishtest.Fence) != 1 {
			t.Errorf("fenced %d times", s.Reached(publishtest.Fence))
		}
	})

	t.Run("CommitsOnlyAtSourceCommits", func(t *testing.T) {
		r := newRig(t, &publishtest.Story{Transactions: 200, Size: sizes, Batch: func() int { return 1 }})
		r.cfg.MaxRecords = 50 // above every transaction of the story
		p, _ := r.instance()
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.verify(200)
		if n := len(r.checkpoints()); n < 20 {
			t.Errorf("%d commits, want one about every 50 records", n)
		}
		for _, cp := range r.checkpoints() {
			if cp.InTx != nil {
				t.Errorf("checkpoint %d lies inside source transaction %s", cp.Seq, cp.InTx.ID)
			}
		}
	})

	t.Run("CutsATransactionThatIsTooLarge", func(t *testing.T) {
		r := newRig(t, &publishtest.Story{Transactions: 3, Size: func(tx int) int { return []int{0, 30, 1000, 30}[tx] }})
		r.cfg.MaxRecords = 100
		p, _ := r.instance()
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.verify(3)
		cuts := 0
		for _, c := range r.log.Commits() {
			if in := c.Checkpoint.InTx; in != nil {
				cuts++
				if in.ID != "2" || c.Checkpoint.At != publishtest.Position(1) {
					t.Errorf("cut at %+v in %v", c.Checkpoint.At, in)
				}
			}
			if n := len(c.Records); n > 2*r.cfg.MaxRecords {
				t.Errorf("a transaction has %d records", n)
			}
		}
		if cuts < 8 {
			t.Errorf("%d cuts of a transaction of 1000 records", cuts)
		}
	})

	t.Run("CutsByBytesToo", func(t *testing.T) {
		r := newRig(t, &publishtest.Story{Transactions: 1, Size: func(int) int { return 1000 }})
		r.cfg.MaxBytes = 1000
		p, _ := r.instance()
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.verify(1)
		if n := len(r.checkpoints()); n < 8 {
			t.Errorf("%d commits", n)
		}
	})

	t.Run("EndsATransactionThatTouchesTooManyPartitions", func(t *testing.T) {
		const small, large = 4, 60 // changes; each has the next partition of 64
		for size, want := range map[int]int{small: 12, large: 22} {
			r := newRig(t, &publishtest.Story{Transactions: 40, Size: func(int) int { return size }, Batch: func() int { return 2 }})
			r.cfg.MaxPartitions = 10
			r.parts.Encoder = publishtest.Encoder{Topic: "data", Partitions: 64}
			p, _ := r.instance()
			if err := p.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.verify(40)
			most := 0
			for _, c := range r.log.Commits() {
				touched := map[int32]bool{}
				for _, rec := range c.Records {
					touched[rec.Partition] = true
				}
				most = max(most, len(touched))
				if size == small && c.Checkpoint.InTx != nil {
					t.Errorf("a small transaction was cut: %+v", c.Checkpoint.InTx)
				}
			}
			if most > want || most < want/2 {
				t.Errorf("transactions of %d changes: a commit touches %d partitions, want up to %d", size, most, want)
			}
		}
	})

	t.Run("CommitsAtOnceWhenTheSourceFallsSilent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &publishtest.Story{Transactions: 20, Size: func(int) int { return 1 }, Pause: every(time.Second)})
			p, _ := r.instance()
			began := time.Now()
			if err := p.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, cp := range r.checkpoints()[1:] {
				if late := cp.Time.Sub(began) - time.Duration(i+1)*time.Second; late > r.cfg.Silence {
					t.Errorf("change %d was committed %v after it came", i, late)
				}
			}
		})
	})

	t.Run("CommitsEachIntervalWhileChangesKeepComing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &publishtest.Story{Transactions: 1000, Size: func(int) int { return 1 }, Pause: every(time.Millisecond)})
			p, _ := r.instance()
			if err := p.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.verify(1000)
			if n := len(r.checkpoints()); n < 10 || n > 12 {
				t.Errorf("%d commits in a second, want one each 100 ms and the claim", n)
			}
		})
	})

	t.Run("CommitsLessOftenWhileCommitsAreSlowAndChangesPileUp", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &publishtest.Story{Transactions: 20_000, Size: func(int) int { return 1 }, Pause: every(time.Millisecond)})
			r.cfg.QueueBytes = 20_000
			p, s := r.instance()
			s.PauseAt(publishtest.Flush, func(context.Context) { time.Sleep(150 * time.Millisecond) })
			if err := p.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.verify(20_000)
			cps := r.checkpoints()
			var longest time.Duration
			for i := range cps[3:] {
				longest = max(longest, cps[i+3].Time.Sub(cps[i+2].Time))
			}
			if first := cps[2].Time.Sub(cps[1].Time); first > 400*time.Millisecond || longest < 3*first {
				t.Errorf("commits are %v apart in the beginning and %v later", first, longest)
			}
		})
	})

	t.Run("CutsATransactionBeforeTheBrokerWouldEndIt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &publishtest.Story{Transactions: 1, Size: func(int) int { return 100 }, Batch: func() int { return 1 }, Pause: every(time.Second)})
			p, _ := r.instance()
			began := time.Now()
			if err := p.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.verify(1)
			before := began
			for _, cp := range r.checkpoints() {
				if d := cp.Time.Sub(before); d > r.cfg.TransactionTimeout/3+time.Second {
					t.Errorf("checkpoint %d comes %v after the one before", cp.Seq, d)
				}
				before = cp.Time
			}
			if n := len(r.checkpoints()); n > 8 {
				t.Errorf("%d commits of a transaction that took 100 s", n)
			}
		})
	})

	t.Run("CommitsWithoutChangesNowAndThen", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &publishtest.Story{Transactions: 100, Endless: true, Size: func(int) int { return 0 }, Pause: every(time.Second)})
			p, _ := r.instance()
			ctx, cancel := context.WithTimeout(t.Context(), 130*time.Second)
			defer cancel()
			if err := p.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cps := r.checkpoints()
			if cps[1].At != publishtest.Position(1) {
				t.Errorf("the first position of all was not committed at once: %+v", cps[1])
			}
			if n := len(cps); n < 13 || n > 15 {
				t.Errorf("%d commits in 130 s, want one each 10 s", n)
			}
			if got := r.story.Acked(); got != 100 {
				t.Errorf("acknowledged up to %d", got)
			}
		})
	})

	t.Run("WaitsForASlowSinkWithinBounds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &publishtest.Story{Transactions: 5000, Size: func(int) int { return 10 }})
			r.cfg.QueueBytes = 50_000
			p, s := r.instance()
			var most int64
			s.PauseAt(publishtest.Produce, func(context.Context) {
				most = max(most, p.Progress().QueueBytes)
				time.Sleep(10 * time.Microsecond)
			})
			if err := p.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.verify(5000)
			if most > r.cfg.QueueBytes || most == 0 {
				t.Errorf("%d bytes were queued, the bound is %d", most, r.cfg.QueueBytes)
			}
		})
	})
}

// every makes a story's batches come d apart.
func every(d time.Duration) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestPublisher_StopsAsACourtesy(t *testing.T) {
	run := func(t *testing.T, size int) *rig {
		r := newRig(t, &publishtest.Story{Transactions: 10, Size: func(int) int { return size }, Batch: func() int { return 1 }})
		// The second batch of transaction 3 comes never.
		r.story.Pause = func(ctx context.Context, tx int) error {
			if tx < 4 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		r.cfg.Silence, r.cfg.CommitInterval, r.cfg.MaxCommitInterval = time.Hour, time.Hour, time.Hour
		p, s := r.instance()
		ctx, cancel := context.WithCancel(t.Context())
		s.PauseAt(publishtest.Flush, func(c context.Context) {
			if ctx.Err() != nil && c.Err() != nil {
				t.Error("the stop cancelled a commit")
			}
		})
		go func() {
			time.Sleep(time.Second)
			cancel()
		}()
		if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		return r
	}
	t.Run("CommitsAtABoundary", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := run(t, 1)
			r.verify(3)
			if r.story.Acked() != 3 {
				t.Errorf("acknowledged up to %d", r.story.Acked())
			}
		})
	})
	t.Run("GivesUpInsideATransaction", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &publishtest.Story{Transactions: 1, Size: func(int) int { return 10 }, Batch: func() int { return 1 }, Pause: every(time.Second)})
			p, _ := r.instance()
			ctx, cancel := context.WithTimeout(t.Context(), 5500*time.Millisecond)
			defer cancel()
			if err := p.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Run returned %v", err)
			}
			if n := len(r.log.Records()); n != 0 {
				t.Errorf("%d records of half a transaction are visible", n)
			}
			r.again(p)
			r.verify(1)
		})
	})
}

// again runs p to the end of the story.
func (r *rig) again(p *publish.Publisher) {
	r.Helper()
	if err := p.Run(r.Context()); err != nil {
		r.Errorf("the second run: %v", err)
	}
}

// Brokers that are away hold up a stop for a bounded time, and nothing is lost by it.
func TestPublisher_AStopDoesNotWaitLongForBrokers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &publishtest.Story{Transactions: 20, Endless: true, Size: func(int) int { return 7 }})
		p, s := r.instance()
		s.PauseAt(publishtest.Flush, func(ctx context.Context) {
			if s.Reached(publishtest.Flush) > 1 { // the claim is committed
				<-ctx.Done()
			}
		})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		time.Sleep(time.Second)
		told := time.Now()
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		if waited := time.Since(told); waited != 10*time.Second { // of the bubble's clock
			t.Errorf("it took %v to stop", waited)
		}
		r.story.Endless = false
		next, _ := r.instance()
		if err := next.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.verify(20)
	})
}

// Whatever step fails, and however often it was passed before, a second Run of the same
// instance, or a first one of another, ends with every change there once.
func TestPublisher_AnyStepMayFail(t *testing.T) {
	for _, step := range []publishtest.Step{
		publishtest.Fence, publishtest.Begin, publishtest.Produce, publishtest.Flush, publishtest.RequestLost, publishtest.AnswerLost,
	} {
		for _, successor := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, new process %v", step, successor), func(t *testing.T) {
				for nth := 1; ; nth++ {
					r := newRig(t, &publishtest.Story{Transactions: 30, Size: sizes, Batch: func() int { return 7 }})
					r.cfg.MaxRecords = 20
					p, s := r.instance()
					s.FailAt(step, nth, nil)
					err := p.Run(t.Context())
					if err == nil { // the step is not reached nth times
						if nth == 1 {
							t.Error("never reached")
						}
						return
					}
					if !errors.Is(err, publishtest.ErrInjected) {
						t.Fatal(err)
					}
					if acked, at := r.story.Acked(), string(publishtest.Position(r.story.Acked())); acked > 0 && !r.holds(at) {
						t.Errorf("transaction %d is acknowledged, but no checkpoint says so", acked)
					}
					if successor {
						p, _ = r.instance()
					}
					r.again(p)
					r.verify(30)
					if step == publishtest.Produce {
						nth += 40 // there are hundreds
					}
				}
			})
		}
	}
}

// holds reports whether some checkpoint stands at the position.
func (r *rig) holds(at string) bool {
	return slices.ContainsFunc(r.checkpoints(), func(cp checkpoint.Checkpoint) bool { return string(cp.At) == at })
}

func TestPublisher_SourceMayFail(t *testing.T) {
	broken := errors.New("connection reset")
	r := newRig(t, &publishtest.Story{Transactions: 100, Size: sizes, Batch: func() int { return 5 }})
	r.cfg.MaxRecords = 30
	n := 0
	r.story.Pause = func(context.Context, int) error {
		if n++; n%40 == 0 {
			return broken
		}
		return nil
	}
	p, _ := r.instance()
	for tries := 1; ; tries++ {
		err := p.Run(t.Context())
		if err == nil {
			break
		}
		if !errors.Is(err, broken) || tries > 100 {
			t.Fatal(err)
		}
	}
	r.verify(100)
}

// failingEncoder fails or waits, as a schema registry that is away makes it.
type failingEncoder struct {
	publishtest.Encoder
	encode func(ctx context.Context) error
}

func (e failingEncoder) Encode(ctx context.Context, b *capture.Batch, out *publish.Encoded) error {
	if err := e.encode(ctx); err != nil {
		return err
	}
	return e.Encoder.Encode(ctx, b, out)
}

// Fault 38.
func TestPublisher_RegistryMayBeAwayDuringRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &publishtest.Story{Transactions: 50, Size: sizes, Batch: func() int { return 4 }})
		calls := 0
		r.parts.Encoder = failingEncoder{r.parts.Encoder.(publishtest.Encoder), func(ctx context.Context) error {
			if calls++; calls%20 == 7 { // comes back after a minute: longer than the guard allows a transaction
				return every(time.Minute)(ctx, 0)
			}
			if calls%50 == 0 {
				return errors.New("registry: connection refused")
			}
			return nil
		}}
		for range 20 {
			p, _ := r.instance()
			if p.Run(t.Context()) == nil {
				break
			}
		}
		r.verify(50)
	})
}

func TestPublisher_TwoInstances(t *testing.T) {
	t.Run("TheOneThatClaimedLastStays", func(t *testing.T) { // faults 16 and 17
		r := newRig(t, &publishtest.Story{Transactions: 300, Size: sizes, Batch: func() int { return 5 }})
		var wg sync.WaitGroup
		ends := make([]error, 6)
		for i := range ends {
			p, s := r.instance()
			s.PauseAt(publishtest.Produce, func(context.Context) { time.Sleep(10 * time.Microsecond) })
			wg.Go(func() {
				for {
					err := p.Run(t.Context())
					if err == nil || errors.Is(err, publish.ErrSuperseded) {
						ends[i] = err
						return
					}
					if !errors.Is(err, publish.ErrFenced) {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		r.verify(300)
		stayed := 0
		for _, err := range ends {
			if err == nil {
				stayed++
			}
		}
		if stayed == 0 {
			t.Error("no instance has stayed")
		}
	})

	t.Run("AnIdleOneFindsOut", func(t *testing.T) { // although the log does not move
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &publishtest.Story{Transactions: 10, Size: sizes, Endless: true})
			old, _ := r.instance()
			ended := make(chan error)
			go func() {
				err := old.Run(t.Context())
				for errors.Is(err, publish.ErrFenced) {
					err = old.Run(t.Context())
				}
				ended <- err
			}()
			time.Sleep(time.Minute)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			successor, _ := r.instance()
			stayed := make(chan error)
			go func() {
				err := successor.Run(ctx)
				for errors.Is(err, publish.ErrFenced) {
					err = successor.Run(ctx)
				}
				stayed <- err
			}()
			began := time.Now()
			if err := <-ended; !errors.Is(err, publish.ErrSuperseded) || time.Since(began) > r.cfg.IdleInterval {
				t.Errorf("after %v the old instance ended with %v", time.Since(began), err)
			}
			if err := <-stayed; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the new instance ended with %v", err)
			}
			r.verify(10)
		})
	})

	// Without a fence the commit would not tell, and would set the checkpoint back.
	t.Run("AnIdleOneWithoutAFenceWritesNothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &publishtest.Story{Transactions: 10, Size: sizes, Endless: true})
			r.log.Unfenced = true
			var cut atomic.Bool // the old one loses its slot, and is not told
			r.story.Pause = func(ctx context.Context, tx int) error {
				if tx == 6 && cut.CompareAndSwap(false, true) {
					<-ctx.Done()
				}
				return ctx.Err()
			}
			day, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
			defer cancel()
			old, _ := r.instance()
			ended := make(chan error)
			go func() { ended <- old.Run(day) }()
			time.Sleep(time.Minute)
			if commits := len(r.log.Commits()); commits < 5 {
				t.Errorf("alone it has committed %d times", commits)
			}
			ctx, die := context.WithCancel(t.Context())
			successor, _ := r.instance()
			stayed := make(chan error)
			go func() { stayed <- successor.Run(ctx) }()
			for r.story.Acked() < 10 {
				time.Sleep(time.Millisecond)
			}
			die()
			<-stayed
			if err := <-ended; !errors.Is(err, publish.ErrSuperseded) {
				t.Errorf("the old instance ended with %v", err)
			}
			cp := r.last()
			if err := r.story.Source().Verify(t.Context(), cp.Resume()); err != nil || cp.At != publishtest.Position(10) {
				t.Errorf("the checkpoint is at %s, %v", cp.At, err)
			}
		})
	})

	// Nor do records that it holds still.
	t.Run("APausedOneWithoutAFenceWritesNothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &publishtest.Story{Transactions: 10, Size: sizes})
			r.log.Unfenced = true
			old, s := r.instance()
			wake := make(chan struct{})
			s.PauseAt(publishtest.Produce, func(context.Context) { <-wake })
			ended := make(chan error)
			go func() { ended <- old.Run(t.Context()) }()
			time.Sleep(15 * time.Second) // a transaction of that age is still committed
			if s.Reached(publishtest.Produce) != 1 {
				t.Errorf("the old instance has produced %d times", s.Reached(publishtest.Produce))
			}
			successor, _ := r.instance()
			if err := successor.Run(t.Context()); err != nil {
				t.Error(err)
			}
			want := r.last()
			close(wake)
			if err := <-ended; !errors.Is(err, publish.ErrSuperseded) {
				t.Errorf("the old instance ended with %v", err)
			}
			if got := r.last(); got.Seq != want.Seq || got.At != publishtest.Position(10) {
				t.Errorf("the checkpoint is %d at %s, and was %d", got.Seq, got.At, want.Seq)
			}
		})
	})

	t.Run("ABrokerTimeoutIsNotASuccessor", func(t *testing.T) { // fault 15
		r := newRig(t, &publishtest.Story{Transactions: 100, Size: sizes})
		r.cfg.MaxRecords = 20
		p, s := r.instance()
		s.FailAt(publishtest.Flush, 5, publish.ErrFenced)
		if err := p.Run(t.Context()); !errors.Is(err, publish.ErrFenced) {
			t.Fatal(err)
		}
		r.again(p)
		r.verify(100)
	})
}

// An unknowing Loader first gives an error instead of what it should know.
type unknowing struct {
	*publishtest.Log
	err error
}

func (u *unknowing) Load(ctx context.Context, pipeline string) (checkpoint.Checkpoint, error) {
	if err := u.err; err != nil {
		u.err = nil
		return checkpoint.Checkpoint{}, err
	}
	return u.Log.Load(ctx, pipeline)
}

// A broker that has just started does not know the topic that Fence has found. That is
// neither a first start, which would publish everything again, nor a lost checkpoint.
func TestPublisher_AMissingTopicProvesNothing(t *testing.T) {
	r := newRig(t, &publishtest.Story{Transactions: 20, Size: sizes})
	loader := &unknowing{Log: r.log}
	r.parts.Checkpoints = loader
	p, _ := r.instance()
	r.again(p)
	fresh, _ := r.instance()
	for name, p := range map[string]*publish.Publisher{"in the same life": p, "after a restart": fresh} {
		commits := len(r.log.Commits())
		loader.err = checkpoint.ErrNoTopic
		if err := p.Run(t.Context()); !errors.Is(err, checkpoint.ErrNoTopic) || errors.Is(err, checkpoint.ErrUnusable) || len(r.log.Commits()) != commits {
			t.Errorf("%s: Run returned %v after %d commits", name, err, len(r.log.Commits())-commits)
		}
	}
	r.again(fresh)
	r.verify(20)
}

// Rule R7. Commits whose answers were lost are our own, however many follow each other.
func TestPublisher_ReportsANumberThatJumps(t *testing.T) {
	r := newRig(t, &publishtest.Story{Transactions: 20, Size: sizes})
	var log bytes.Buffer
	r.parts.Log = slog.New(slog.NewTextHandler(&log, nil))
	p, s := r.instance()
	r.again(p)
	for n := range 3 {
		s.FailAt(publishtest.AnswerLost, n+1, nil) // of claims, for the story is told
	}
	for range 3 {
		if err := p.Run(t.Context()); !errors.Is(err, publish.ErrUnknownOutcome) {
			t.Fatal(err)
		}
	}
	r.again(p)
	if strings.Contains(log.String(), "jumped") {
		t.Errorf("lost answers are taken for another's: %s", &log)
	}
	cp := r.last()
	cp.Seq += 2
	r.log.Put(cp)
	r.again(p)
	if !strings.Contains(log.String(), "jumped") {
		t.Errorf("a number that jumps is not in the log: %s", &log)
	}
}

func TestPublisher_StopsRatherThanGuess(t *testing.T) {
	story := func() *publishtest.Story { return &publishtest.Story{Transactions: 20, Size: sizes} }
	t.Run("TheCheckpointIsGone", func(t *testing.T) { // fault 23
		r := newRig(t, story())
		p, _ := r.instance()
		r.again(p)
		r.log.Forget()
		if err := p.Run(t.Context()); !errors.Is(err, checkpoint.ErrUnusable) {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Run("TheCheckpointWentBack", func(t *testing.T) { // fault 21
		r := newRig(t, story())
		p, _ := r.instance()
		r.again(p)
		first := r.checkpoints()[0]
		r.log.Forget()
		r.log.Put(first)
		if err := p.Run(t.Context()); !errors.Is(err, checkpoint.ErrUnusable) {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Run("TheCheckpointIsAnotherPipelines", func(t *testing.T) { // fault 24
		r := newRig(t, story())
		r.log.Put(checkpoint.Checkpoint{Pipeline: "other", Seq: 1})
		p, _ := r.instance()
		if err := p.Run(t.Context()); !errors.Is(err, checkpoint.ErrUnusable) {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Run("TheSourceHasForgotten", func(t *testing.T) { // fault 25
		r := newRig(t, story())
		if err := r.story.Source().Acknowledge(t.Context(), publishtest.Position(9)); err != nil {
			t.Fatal(err)
		}
		p, _ := r.instance()
		if err := p.Run(t.Context()); !errors.Is(err, capture.ErrPositionLost) {
			t.Errorf("Run returned %v", err)
		}
		if len(r.log.Records()) != 0 {
			t.Error("records were published all the same")
		}
	})
}

// Fault 39, rules R8 and R29.
func TestPublisher_ConfigurationMayChangeAtABoundaryOnly(t *testing.T) {
	story := &publishtest.Story{Transactions: 2, Size: func(int) int { return 50 }, Batch: func() int { return 10 }}
	setup := func(t *testing.T, in *capture.InTx) *rig {
		r := newRig(t, story)
		r.log.Put(checkpoint.Checkpoint{Pipeline: name, Seq: 7, InTx: in, Config: "sha256:old", Entries: map[string][]byte{"c/prefix": []byte("shop")}})
		return r
	}
	t.Run("AtABoundaryItIsTakenOver", func(t *testing.T) {
		r := setup(t, nil)
		p, _ := r.instance()
		r.again(p)
		r.verify(2)
		if cp := r.last(); cp.Config != "sha256:1" {
			t.Errorf("the checkpoint says %q", cp.Config)
		}
	})
	t.Run("InsideATransactionItIsRefused", func(t *testing.T) {
		r := setup(t, &capture.InTx{ID: "1", Done: 10})
		p, _ := r.instance()
		err := p.Run(t.Context())
		if !errors.Is(err, publish.ErrConfigChanged) || !strings.Contains(err.Error(), "old settings") {
			t.Errorf("Run returned %v", err)
		}
		if n := len(r.log.Commits()); n != 1 {
			t.Errorf("%d commits: the checkpoint was touched", n)
		}
	})
	t.Run("ThePrefixNever", func(t *testing.T) {
		r := setup(t, nil)
		r.parts.Prefix = "store"
		p, _ := r.instance()
		if err := p.Run(t.Context()); !errors.Is(err, publish.ErrConfigChanged) {
			t.Errorf("Run returned %v", err)
		}
	})
}

// Rule R4.
func TestPublisher_EntriesAreWrittenWhenTheyChange(t *testing.T) {
	r := newRig(t, &publishtest.Story{Transactions: 40, Size: sizes, Batch: func() int { return 1 }, Entry: func(tx int) []capture.Entry {
		es := []capture.Entry{{Key: "s/a", Value: []byte(fmt.Sprint(tx / 10))}, {Key: "s/b", Value: []byte("done")}}
		if tx == 20 {
			es = append(es, capture.Entry{Key: "s/gone", Value: []byte("x")})
		}
		if tx >= 30 {
			es = append(es, capture.Entry{Key: "s/gone"})
		}
		return es
	}})
	r.cfg.MaxRecords = 1
	p, _ := r.instance()
	r.again(p)
	writes := map[string]int{}
	for _, cp := range r.checkpoints() {
		for k := range cp.Entries {
			writes[k]++
		}
	}
	if writes["s/a"] != 5 || writes["s/b"] != 1 || writes["s/gone"] != 2 || writes["c/prefix"] != 1 {
		t.Errorf("entries were written %v times", writes)
	}
	if got := r.last().Entries; len(got) != 3 || string(got["s/a"]) != "4" {
		t.Errorf("entries are %q", got)
	}

	// A new process knows them, and does not write them again.
	q, _ := r.instance()
	before := len(r.checkpoints())
	r.again(q)
	for _, cp := range r.checkpoints()[before:] {
		if len(cp.Entries) != 0 {
			t.Errorf("written again: %q", cp.Entries)
		}
	}
}

// Fault 36: the wall clock of a checkpoint is for people.
func TestPublisher_ClockMayJump(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, time.Hour} {
		r := newRig(t, &publishtest.Story{Transactions: 30, Size: sizes})
		r.log.Put(checkpoint.Checkpoint{Pipeline: name, Seq: 1, Time: time.Now().Add(jump), Config: "sha256:1"})
		p, _ := r.instance()
		r.again(p)
		r.verify(30)
	}
}

func TestPublisher_CountsWhatHappens(t *testing.T) {
	r := newRig(t, &publishtest.Story{Transactions: 30, Size: sizes})
	reg := prometheus.NewPedanticRegistry()
	r.parts.Metrics = reg
	r.cfg.MaxRecords = 10
	p, s := r.instance()
	s.FailAt(publishtest.AnswerLost, 3, nil)
	if err := p.Run(t.Context()); !errors.Is(err, publish.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	s.FailAt(publishtest.Flush, 3, publish.ErrFenced)
	if err := p.Run(t.Context()); !errors.Is(err, publish.ErrFenced) {
		t.Fatal(err)
	}
	r.again(p)
	r.verify(30)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += "/" + l.GetValue()
			}
			got[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for key, want := range map[string]float64{
		"headwater_unknown_outcomes_total":       1,
		"headwater_fencings_total":               1,
		"headwater_aborts_total/unknown outcome": 1,
		"headwater_aborts_total/fenced":          1,
		"headwater_commits_total":                float64(len(r.log.Commits()) - 1), // one was not confirmed
		"headwater_commit_interval_seconds":      0.1,
		"headwater_queue_bytes":                  0,
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
}

func TestConfig_ValidateNamesEveryMistake(t *testing.T) {
	var c publish.Config
	c.SetDefaults()
	if err := c.Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	c = publish.Config{CommitInterval: time.Millisecond, MaxRecords: -1}
	err := c.Validate()
	for _, key := range []string{"commit_interval", "max_records", "max_bytes", "max_partitions", "silence", "idle_interval", "queue_bytes"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not named in %v", key, err)
		}
	}
}
