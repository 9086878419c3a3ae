package publish_test

import (
	"context"
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
	"github.com/headwaterdb/headwater/publish/publishtest"
)

// amendNote writes one note, and no other.
func amendNote(cp *checkpoint.Checkpoint) error {
	cp.Entries = map[string][]byte{"note": []byte("amended")}
	return nil
}

func TestAmend_ARunningPipelineGoesOnFromIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &publishtest.Story{Transactions: 30, Size: sizes, Endless: true})
		p, _ := r.instance()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			err := p.Run(ctx)
			for errors.Is(err, publish.ErrFenced) {
				err = p.Run(ctx)
			}
			ended <- err
		}()
		time.Sleep(time.Minute)
		before := r.last()
		if err := publish.Amend(t.Context(), name, r.log.Sink(), r.log, amendNote); err != nil {
			t.Error(err)
		}
		after := r.last()
		if after.Owner != before.Owner || after.Seq != before.Seq+1 || after.At != before.At || after.Totals != before.Totals {
			t.Errorf("it wrote %+v after %+v", after, before)
		}
		want := maps.Clone(before.Entries)
		want["note"] = []byte("amended")
		if !maps.EqualFunc(after.Entries, want, func(a, b []byte) bool { return string(a) == string(b) }) {
			t.Errorf("the notes are %q, want %q", after.Entries, want)
		}
		time.Sleep(2 * r.cfg.IdleInterval)
		if now := r.last(); now.Seq <= after.Seq || now.Owner != before.Owner {
			t.Errorf("the pipeline has not gone on: %+v", now)
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the pipeline ended with %v", err)
		}
		r.verify(30)
	})
}

func TestAmend_AnswersThatAreLostRepeatIt(t *testing.T) {
	t.Parallel()
	for step, commits := range map[publishtest.Step]int{publishtest.RequestLost: 1, publishtest.AnswerLost: 2} {
		r := newRig(t, nil)
		r.log.Put(checkpoint.Checkpoint{Pipeline: name, Seq: 7})
		s := r.log.Sink()
		s.FailAt(step, 1, nil)
		if err := publish.Amend(t.Context(), name, s, r.log, amendNote); err != nil {
			t.Errorf("%s: %v", step, err)
		}
		if cp := r.last(); string(cp.Entries["note"]) != "amended" || cp.Seq != uint64(7+commits) {
			t.Errorf("%s: %+v", step, cp)
		}
	}
}

func TestAmend_WritesNothingWhenTheChangeIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	if err := publish.Amend(t.Context(), name, r.log.Sink(), r.log, amendNote); !errors.Is(err, checkpoint.ErrNotFound) {
		t.Errorf("without a checkpoint: %v", err)
	}
	r.log.Put(checkpoint.Checkpoint{Pipeline: name, Seq: 7})
	refused := errors.New("no")
	err := publish.Amend(t.Context(), name, r.log.Sink(), r.log, func(*checkpoint.Checkpoint) error { return refused })
	if !errors.Is(err, refused) || r.last().Seq != 7 {
		t.Errorf("%v, and %+v", err, r.last())
	}
}
