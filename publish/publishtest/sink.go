package publishtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
)

var (
	_ publish.Sink      = (*Sink)(nil)
	_ publish.Tx        = (*tx)(nil)
	_ checkpoint.Loader = (*Log)(nil)
)

// A Log holds what was committed. It is safe for concurrent use.
type Log struct {
	// Unfenced: earlier clients can still commit, as with delivery at-least-once. It is
	// set before the first client is made.
	Unfenced bool

	mu      sync.Mutex
	epoch   int
	commits []Commit
	entries map[string][]byte
}

// A Commit is one visible transaction.
type Commit struct {
	Records []publish.Record
	// Checkpoint is as it was handed to Commit: Entries are the changed ones.
	Checkpoint checkpoint.Checkpoint
}

// NewLog returns an empty log.
func NewLog() *Log { return &Log{entries: map[string][]byte{}} }

// Sink returns a new client.
func (l *Log) Sink() *Sink { return &Sink{log: l, epoch: -1, reached: map[Step]int{}} }

// Commits returns what was committed, in order.
func (l *Log) Commits() []Commit {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.commits)
}

// Records returns the committed records, in order.
func (l *Log) Records() []publish.Record {
	var all []publish.Record
	for _, c := range l.Commits() {
		all = append(all, c.Records...)
	}
	return all
}

// Load returns the last committed checkpoint with all entries.
func (l *Log) Load(_ context.Context, pipeline string) (checkpoint.Checkpoint, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.commits) == 0 {
		return checkpoint.Checkpoint{}, checkpoint.ErrNotFound
	}
	cp := l.commits[len(l.commits)-1].Checkpoint
	if cp.Pipeline != pipeline {
		return cp, fmt.Errorf("%w: it belongs to %q", checkpoint.ErrUnusable, cp.Pipeline)
	}
	cp.Entries = maps.Clone(l.entries)
	return cp, nil
}

// Put commits a checkpoint by hand, as a tool or another program would.
func (l *Log) Put(cp checkpoint.Checkpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.apply(Commit{Checkpoint: cp})
}

// Forget drops everything, as deleting the topics would.
func (l *Log) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commits, l.entries = nil, map[string][]byte{}
}

func (l *Log) apply(c Commit) {
	l.commits = append(l.commits, c)
	for k, v := range c.Checkpoint.Entries {
		if v == nil {
			delete(l.entries, k)
		} else {
			l.entries[k] = bytes.Clone(v)
		}
	}
}

// A Step is a place where a Sink can fail.
type Step string

const (
	Fence   Step = "fence"
	Begin   Step = "begin"
	Produce Step = "produce" // once per record
	Flush   Step = "flush"   // in Commit, before anything is decided
	// RequestLost fails a Commit that the log never saw, AnswerLost one that it has
	// applied. Both match publish.ErrUnknownOutcome.
	RequestLost Step = "commit request lost"
	AnswerLost  Step = "commit answer lost"
)

// ErrInjected is the error of a failure that FailAt gave none for.
var ErrInjected = errors.New("injected failure")

// A Sink is one client of a Log. FailAt may be called at any time; the rest follows
// publish.Sink.
type Sink struct {
	log   *Log
	epoch int

	mu       sync.Mutex
	reached  map[Step]int
	failures []failure
	pause    map[Step]func(context.Context)
}

type failure struct {
	step Step
	nth  int
	err  error
}

// FailAt makes the nth time from now that step is reached fail, counted from 1. A nil
// err means ErrInjected.
func (s *Sink) FailAt(step Step, nth int, err error) {
	if err == nil {
		err = ErrInjected
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, failure{step, s.reached[step] + nth, err})
}

// PauseAt makes every arrival at step call f first.
func (s *Sink) PauseAt(step Step, f func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pause == nil {
		s.pause = map[Step]func(context.Context){}
	}
	s.pause[step] = f
}

// Reached says how often step was reached.
func (s *Sink) Reached(step Step) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reached[step]
}

func (s *Sink) reach(ctx context.Context, step Step) error {
	s.mu.Lock()
	s.reached[step]++
	n, pause := s.reached[step], s.pause[step]
	i := slices.IndexFunc(s.failures, func(f failure) bool { return f.step == step && f.nth == n })
	s.mu.Unlock()
	if pause != nil {
		pause(ctx)
	}
	if i < 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", step, s.failures[i].err)
}

// Fence makes earlier clients unable to commit.
func (s *Sink) Fence(ctx context.Context) error {
	if err := s.reach(ctx, Fence); err != nil {
		return err
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.epoch++
	s.epoch = s.log.epoch
	return ctx.Err()
}

// Fences reports whether the log keeps earlier clients off.
func (s *Sink) Fences() bool { return !s.log.Unfenced }

// Begin opens a transaction.
func (s *Sink) Begin(ctx context.Context) (publish.Tx, error) {
	if err := s.reach(ctx, Begin); err != nil {
		return nil, err
	}
	if s.epoch < 0 {
		panic("publishtest: Begin without Fence")
	}
	return &tx{s: s, epoch: s.epoch}, ctx.Err()
}

// Discard gives the open transaction up.
func (s *Sink) Discard() { s.epoch = -1 }

// Close does what Discard does.
func (s *Sink) Close() error { s.Discard(); return nil }

type tx struct {
	s      *Sink
	epoch  int
	copies []publish.Record
	ended  bool
}

func (t *tx) Produce(ctx context.Context, records []publish.Record) error {
	if t.ended {
		panic("publishtest: Produce after Commit")
	}
	for _, r := range records {
		if err := t.s.reach(ctx, Produce); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		c := r
		c.Key, c.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
		t.copies = append(t.copies, c)
	}
	return nil
}

func (t *tx) Commit(ctx context.Context, cp checkpoint.Checkpoint) error {
	if t.ended {
		panic("publishtest: a second Commit")
	}
	t.ended = true
	if err := t.s.reach(ctx, Flush); err != nil {
		return err
	}
	if err := t.s.reach(ctx, RequestLost); err != nil {
		return fmt.Errorf("%w: %w", publish.ErrUnknownOutcome, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", publish.ErrUnknownOutcome, err)
	}
	l := t.s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.epoch != l.epoch && !l.Unfenced || t.epoch != t.s.epoch {
		return publish.ErrFenced
	}
	l.apply(Commit{t.copies, cp})
	if err := t.s.reach(ctx, AnswerLost); err != nil {
		return fmt.Errorf("%w: %w", publish.ErrUnknownOutcome, err)
	}
	return nil
}
