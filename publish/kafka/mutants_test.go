package kafka

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/publish/publishtest"
)

// A mutant is a Sink that breaks one rule.
type mutant struct {
	*Sink
	fence  func(ctx context.Context) error                                        // instead of Fence
	commit func(ctx context.Context, t *mutantTx, cp checkpoint.Checkpoint) error // instead of Commit
}

func (m *mutant) Fence(ctx context.Context) error {
	if m.fence == nil {
		return m.Sink.Fence(ctx)
	}
	return m.fence(ctx)
}

func (m *mutant) Begin(ctx context.Context) (publish.Tx, error) {
	inner, err := m.Sink.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return &mutantTx{tx: inner.(*tx), m: m}, nil
}

type mutantTx struct {
	*tx
	m        *mutant
	produced [][]publish.Record
}

func (t *mutantTx) Produce(ctx context.Context, records []publish.Record) error {
	var kept []publish.Record // their memory is ours only until Produce returns
	for _, r := range records {
		r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
		kept = append(kept, r)
	}
	t.produced = append(t.produced, kept)
	return t.tx.Produce(ctx, records)
}

func (t *mutantTx) Commit(ctx context.Context, cp checkpoint.Checkpoint) error {
	if t.m.commit == nil {
		return t.tx.Commit(ctx, cp)
	}
	return t.m.commit(ctx, t, cp)
}

// stale is a Loader that answers with what it read before.
type stale struct{ cp *checkpoint.Checkpoint }

func (s stale) Load(context.Context, string) (checkpoint.Checkpoint, error) { return *s.cp, nil }

// Each of the rules is needed: without it, one accident makes readers see something
// wrong; with it, the same accident does no harm. This also proves that the verifier sees.
func TestRules_AreNeeded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule string
		// run brings the accident about, with the rule broken or not.
		run func(t *testing.T, broken bool) *rig
		// last is how much of the story must be there.
		last int
	}{
		{"R9 fence before reading", readBeforeFence, 300},
		{"R10 an error of the commit says nothing about its outcome", trustMemory, 60},
		{"R11 a failed record dooms its transaction", commitTheRest, 60},
		{"R12 a cut needs its ordinal", forgetOrdinal, 2},
	} {
		for name, broken := range map[string]bool{"kept": false, "broken": true} {
			t.Run(c.rule+", "+name, func(t *testing.T) {
				t.Parallel()
				// The accident is a matter of timing: on a busy machine it may pass by a few
				// times. Once is enough to show the harm; without the break it must never come.
				for try := 1; ; try++ {
					r := c.run(t, broken)
					problems := r.story.Check(r.committed(), c.last)
					switch {
					case !broken && problems != nil:
						t.Errorf("readers see %v", problems)
					case broken && problems == nil && try < 8:
						continue
					case broken && problems == nil:
						t.Errorf("breaking the rule did no harm in %d tries", try)
					}
					return
				}
			})
		}
	}
}

func mutantStory(n int) *publishtest.Story {
	return &publishtest.Story{Transactions: n, Size: sizes, Batch: func() int { return 11 }, Remembers: true}
}

// A new instance starts while the old one commits on.
func readBeforeFence(t *testing.T, broken bool) *rig {
	r := newRig(t, mutantStory(300)).small()
	var upTo atomic.Int64 // the old one gets so far, however slow the new one is
	upTo.Store(10)
	r.story.Pause = func(ctx context.Context, tx int) error {
		for int64(tx) > upTo.Load() {
			if err := sleep(ctx, time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
	old := r.publisher()
	ended := make(chan error, 1)
	go func() { ended <- r.supervise(t.Context(), old) }()
	r.until(func() bool { return r.story.Acked() == 10 })

	m := &mutant{Sink: r.sink()}
	var read checkpoint.Checkpoint
	m.fence = func(ctx context.Context) error {
		var err error
		if read, err = r.loader().Load(ctx, pipeline); err != nil {
			return err
		}
		// The old one commits in between; later it may have found out that it is old.
		if upTo.CompareAndSwap(10, 20) {
			r.until(func() bool { return r.story.Acked() == 20 })
		}
		if err := m.Sink.Fence(ctx); err != nil {
			return err
		}
		upTo.Store(300)
		return nil
	}
	parts := publish.Parts{
		Source: r.story.Source(), Sink: m, Checkpoints: r.loader(),
		Encoder: publishtest.Encoder{Topic: dataTopic, Partitions: partitions},
	}
	if broken {
		parts.Checkpoints = stale{&read}
	}
	r.finish(publish.New(pipeline, r.publish, parts))
	if err := <-ended; !errors.Is(err, publish.ErrSuperseded) {
		t.Errorf("the old instance ended with %v", err)
	}
	return r
}

// The answers to a commit are lost until the client gives up; the broker has applied it.
func trustMemory(t *testing.T, broken bool) *rig {
	r, n := lossyRig(t, mutantStory(60))
	r.small()
	m := &mutant{Sink: r.sink()}
	if broken {
		m.commit = func(ctx context.Context, t *mutantTx, cp checkpoint.Checkpoint) error {
			for t.tx.Commit(ctx, cp) != nil { // "it failed, so do it again"
				n.setRule(nil)
				m.Discard()
				if err := m.Sink.Fence(ctx); err != nil {
					return err
				}
				again, err := m.Sink.Begin(ctx)
				if err != nil {
					return err
				}
				t.tx = again.(*tx)
				for _, records := range t.produced {
					if err := t.tx.Produce(ctx, records); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	ends := 0
	n.setRule(func(k kmsg.Key) fate {
		if k == kmsg.EndTxn {
			if ends++; ends > 4 && ends < 30 {
				return answerLost
			}
		}
		return delivered
	})
	r.finish(r.publisherOn(m))
	return r
}

// One record of many is refused for good.
func commitTheRest(t *testing.T, broken bool) *rig {
	r := newRig(t, mutantStory(60)).small()
	m := &mutant{Sink: r.sink()}
	if broken {
		m.commit = func(ctx context.Context, t *mutantTx, cp checkpoint.Checkpoint) error {
			for t.send.flush(ctx) != nil {
				if err := ctx.Err(); err != nil {
					return err
				}
				t.send.mu.Lock()
				t.send.failed = nil // "the others are good"
				t.send.mu.Unlock()
			}
			return t.tx.Commit(ctx, cp)
		}
	}
	r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: dataTopic, Partitions: []int32{1}, Err: kerr.InvalidRecord})
	r.finish(r.publisherOn(m))
	return r
}

// The process dies in the middle of a source transaction that was cut.
func forgetOrdinal(t *testing.T, broken bool) *rig {
	r := newRig(t, &publishtest.Story{Transactions: 2, Size: func(int) int { return 1000 }, Remembers: true})
	r.publish.MaxRecords = 100
	m := &mutant{Sink: r.sink()}
	commits := 0
	m.commit = func(ctx context.Context, t *mutantTx, cp checkpoint.Checkpoint) error {
		if broken {
			cp.InTx = nil
		}
		if err := t.tx.Commit(ctx, cp); err != nil {
			return err
		}
		if commits++; commits == 5 {
			return errCrash
		}
		return nil
	}
	if err := r.supervise(t.Context(), r.publisherOn(m)); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	r.finish(r.publisher())
	return r
}
