package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headwaterdb/headwater/checkpoint"
)

// Amend commits a change of a pipeline's checkpoint that its owner has not made, such as
// a table that shall be read again. change gets the last checkpoint with all entries and
// leaves those in Entries that are to be written, nil to remove one; it may be called
// again, and commits nothing when it returns an error.
//
// It takes the sink's fence, so no owner can commit between what change sees and what it
// leaves. The owner stays the same: a process that runs the pipeline finds its transaction
// ended, reads the checkpoint as after any accident (rule R13), and goes on from the
// changed one. Without a fence (Sink.Fences) no process may run the pipeline meanwhile.
//
// A pipeline that has never run gives an error that matches checkpoint.ErrNotFound.
func Amend(ctx context.Context, name string, sink Sink, checkpoints checkpoint.Loader, change func(*checkpoint.Checkpoint) error) error {
	for {
		err := amend(ctx, name, sink, checkpoints, change)
		sink.Discard()
		if !errors.Is(err, ErrFenced) && !errors.Is(err, ErrUnknownOutcome) {
			return err
		}
		select { // the owner was quicker, or the answer was lost: read what is true now
		case <-time.After(amendPause):
		case <-ctx.Done():
			return err
		}
	}
}

// amendPause is between two attempts. An owner that was fenced needs less to find out.
const amendPause = 100 * time.Millisecond

func amend(ctx context.Context, name string, sink Sink, checkpoints checkpoint.Loader, change func(*checkpoint.Checkpoint) error) error {
	if err := sink.Fence(ctx); err != nil {
		return fmt.Errorf("fence the pipeline: %w", err)
	}
	cp, err := checkpoints.Load(ctx, name)
	if err != nil {
		return fmt.Errorf("load the checkpoint: %w", err)
	}
	if err := change(&cp); err != nil {
		return err
	}
	cp.Seq++
	cp.Time = time.Now()
	tx, err := sink.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	if err := tx.Commit(ctx, cp); err != nil {
		return fmt.Errorf("commit the checkpoint: %w", err)
	}
	return nil
}
