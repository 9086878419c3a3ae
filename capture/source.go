package capture

import (
	"context"
	"errors"
)

// A Source reads one database's change log.
type Source interface {
	// Check reports everything that would keep Stream from working: missing grants,
	// log settings, a lost slot. All findings, joined ([errors.Join] of [Finding]),
	// not just the first.
	Check(ctx context.Context) error

	// Verify says whether the log still holds what r needs and belongs to the same
	// database (state CHECK of publish/DESIGN.md, after the claim). An answer that
	// retrying cannot change matches ErrPositionLost or ErrMisconfigured.
	Verify(ctx context.Context, r Resume) error

	// Stream hands every event after r to emit, in log order, until ctx ends, emit
	// fails, or the source has nothing more to say. It starts no goroutine that
	// outlives it.
	Stream(ctx context.Context, r Resume, emit EmitFunc) error

	// Acknowledge tells the database that everything up to p is published, so it may
	// drop that part of its log. Sources whose log is not kept for us do nothing. It
	// never waits for the network, and may be called while Stream runs.
	Acknowledge(ctx context.Context, p Position) error

	Close() error
}

// An EmitFunc takes a batch over. It may block: that is the backpressure.
type EmitFunc func(*Batch) error

// Errors that a person has to act on: retrying does not help, the pipeline stops.
var (
	// ErrPositionLost: the log no longer holds what the checkpoint needs, or is not
	// the log that the checkpoint belongs to.
	ErrPositionLost = errors.New("the change log cannot continue from the checkpoint")
	// ErrMisconfigured: the database, or what we were told of it, cannot work as it is.
	ErrMisconfigured = errors.New("the source cannot be captured as configured")
	// ErrUnreadable: the log holds something that headwater cannot carry on exactly.
	ErrUnreadable = errors.New("the change log cannot be read exactly")
)

// A Finding is one thing that is wrong, and what mends it.
type Finding struct {
	// What is one sentence that says what is wrong.
	What string
	// Remedy is the SQL, command or setting that mends it.
	Remedy string
	// Warning marks what does not keep the pipeline from working.
	Warning bool
}

func (f *Finding) Error() string {
	if f.Remedy == "" {
		return f.What
	}
	return f.What + "; remedy: " + f.Remedy
}
