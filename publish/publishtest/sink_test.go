package publishtest

import (
	"errors"
	"testing"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
)

func open(t *testing.T, s *Sink) publish.Tx {
	t.Helper()
	if err := s.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// A double that promises less than the real sink would let mistakes through.
func TestSink_KeepsThePromisesOfASink(t *testing.T) {
	record := func(text string) []publish.Record { return []publish.Record{{Topic: "t", Value: []byte(text)}} }
	cp := checkpoint.Checkpoint{Pipeline: "shop", Seq: 1, Entries: map[string][]byte{"a": []byte("1")}}

	t.Run("RecordsAndCheckpointBecomeVisibleTogether", func(t *testing.T) {
		l := NewLog()
		tx := open(t, l.Sink())
		if err := tx.Produce(t.Context(), record("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Load(t.Context(), "shop"); !errors.Is(err, checkpoint.ErrNotFound) || len(l.Records()) != 0 {
			t.Errorf("visible before the commit: %v, %v", l.Records(), err)
		}
		if err := tx.Commit(t.Context(), cp); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Load(t.Context(), "shop"); err != nil || got.Seq != 1 || string(got.Entries["a"]) != "1" || len(l.Records()) != 1 {
			t.Errorf("after the commit: %+v, %v, %v", got, err, l.Records())
		}
	})
	t.Run("AFencedOneCommitsNothing", func(t *testing.T) {
		l := NewLog()
		old := open(t, l.Sink())
		open(t, l.Sink())
		if err := old.Commit(t.Context(), cp); !errors.Is(err, publish.ErrFenced) || len(l.Commits()) != 0 {
			t.Errorf("Commit returned %v", err)
		}
	})
	t.Run("ALostRequestIsNotApplied,ALostAnswerIs", func(t *testing.T) {
		for step, commits := range map[Step]int{RequestLost: 0, AnswerLost: 1} {
			l := NewLog()
			s := l.Sink()
			s.FailAt(step, 1, nil)
			if err := open(t, s).Commit(t.Context(), cp); !errors.Is(err, publish.ErrUnknownOutcome) || len(l.Commits()) != commits {
				t.Errorf("%s: %v, %d commits", step, err, len(l.Commits()))
			}
		}
	})
	t.Run("MemoryIsTheCallersAgainAfterProduce", func(t *testing.T) {
		l := NewLog()
		tx := open(t, l.Sink())
		r := record("x")
		if err := tx.Produce(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		r[0].Value[0] = 'y'
		if err := tx.Commit(t.Context(), cp); err != nil {
			t.Fatal(err)
		}
		if got := l.Records(); len(got) != 1 || string(got[0].Value) != "x" {
			t.Errorf("the log has %v", got)
		}
	})
}

// A check that finds nothing proves nothing.
func TestStory_CheckSeesEveryDamage(t *testing.T) {
	s := &Story{Size: func(int) int { return 2 }}
	good := func() map[int32][]string { return map[int32][]string{0: {"1/0", "2/0"}, 1: {"1/1", "2/1"}} }
	if p := s.Check(good(), 2); p != nil {
		t.Errorf("an undamaged log: %v", p)
	}
	for name, damage := range map[string]func(map[int32][]string){
		"missing":      func(m map[int32][]string) { m[1] = m[1][:1] },
		"doubled":      func(m map[int32][]string) { m[1] = append(m[1], "2/1") },
		"in two":       func(m map[int32][]string) { m[1] = append(m[1], "2/0") },
		"out of order": func(m map[int32][]string) { m[0] = []string{"2/0", "1/0"} },
		"unknown":      func(m map[int32][]string) { m[0] = append(m[0], "3/0") },
		"not ours":     func(m map[int32][]string) { m[0] = append(m[0], "x") },
	} {
		m := good()
		damage(m)
		if s.Check(m, 2) == nil {
			t.Errorf("%s: not seen", name)
		}
	}
}
