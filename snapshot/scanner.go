package snapshot

import (
	"context"

	"github.com/headwaterdb/headwater/capture"
)

// A Scanner reads the rows that tables already hold, next to the log. One is used by
// one [Source], one call at a time, while another goroutine may use the View before. That
// begins together with the log's Stream: a method that needs Stream to be connected waits
// for that.
type Scanner interface {
	// Tables lists the captured tables in ascending order of their id. Stream's first
	// batch is not taken before it has answered, so it waits for no event of Stream.
	Tables(ctx context.Context) ([]Target, error)
	// View opens a consistent read of t that holds every transaction Stream has emitted
	// before the call (rule R25 of publish/DESIGN.md); it reads again until it does.
	// Emitted is what was handed to emit, also while emit has not returned. The caller
	// opens its window (R26) before. Stream must be running meanwhile: the first View
	// waits until it has passed what the checkpoint says was emitted before. Later ones
	// do not wait for Stream, which may be held in emit until they return.
	View(ctx context.Context, t Target) (View, error)
	// Begin says that the next Stream reads tables again, whatever an earlier Finish said:
	// the scanner keeps what R25 needs from that Stream's start on.
	Begin()
	// Finish says that no View will be opened any more: the scanner may forget what it
	// keeps for R25.
	Finish()
}

// A Target is a table to read.
type Target struct {
	ID capture.TableID
	// Incarnation identifies the table beyond its name (PostgreSQL: its OID): a table
	// that was dropped and made again is another one, and is read anew.
	Incarnation string
	// Rows is the database's own estimate, -1 when it has none.
	Rows int64
	// Key names the columns that order and identify rows; empty for a keyless table,
	// which is read as one piece.
	Key []string
}

// A View is one consistent read of one table. One goroutine at a time uses it; only Holds
// is called by another one too, the one that Stream calls emit on. While one is read the
// next one may be opened; no more than two are open.
type View interface {
	// Scan reads rows of the table whose key sorts after the given one, in key order,
	// and returns about maxBytes of them; a nil after is the table's beginning. Of a
	// keyless table each call returns the next part, after is nil, and Chunk.Last is
	// empty but not nil while rows remain. A nil Chunk.Last says that the table is
	// done. A table that is no longer t.Incarnation is an error. Scan does not wait for
	// Stream, which may be held in emit until Scan returns.
	Scan(ctx context.Context, t Target, after []string, maxBytes int) (*Chunk, error)
	// Holds reports whether the view contains the source transaction. It is cheap, is
	// called from two goroutines, and answers after Close too.
	Holds(tx *capture.Tx) bool
	// Mark makes Stream emit a Watermark event with this id once it has passed
	// everything that the view can hold (R26). Nothing is written to the database.
	//
	// A Watermark stands at a commit boundary: Watermarks are the last events of their
	// batch, whose End is the position there and whose InTx is nil. They come in the
	// order of their marks. Mark does not wait for Stream, which may be blocked in emit;
	// a mark outlives its view, and dies with Stream.
	Mark(ctx context.Context, id uint64) error
	Close() error
}

// A Chunk is a piece of a table, as one batch of Read events in key order under one
// table definition.
type Chunk struct {
	*capture.Batch
	Table *capture.Table
	// Last is the last key that was read, as the server prints it (UTF-8), or nil when
	// the table has no further row.
	Last []string
	Rows int
}
