package snapshot

import (
	"context"

	"github.com/headwaterdb/headwater/capture"
)

// A Scanner reads the rows that tables already hold, next to the log. One is used by
// one [Source], while the log's Stream runs.
type Scanner interface {
	// Tables lists the captured tables in ascending order of their id.
	Tables(ctx context.Context) ([]Target, error)
	// View opens a consistent read that holds every transaction Stream has emitted so
	// far (rule R25); it reads again until it does.
	View(ctx context.Context) (View, error)
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

// A View is one consistent read.
type View interface {
	// Scan reads rows of the table whose key sorts after the given one, in key order,
	// and returns about maxBytes of them. For a keyless table after is nil, and emit is
	// called with each part; the other tables come back as one Chunk. A nil Chunk.Last
	// says that the table is done.
	Scan(ctx context.Context, t Target, after []string, maxBytes int) (*Chunk, error)
	// Holds reports whether the view contains the source transaction.
	Holds(tx *capture.Tx) bool
	// Mark makes Stream emit a Watermark event with this id once it has passed
	// everything that the view can hold (R26). Nothing is written to the database.
	Mark(ctx context.Context, id uint64) error
	Close() error
}

// A Chunk is a piece of a table, as one batch of Read events in key order under one
// table definition.
type Chunk struct {
	*capture.Batch
	Table *capture.Table
	// Last is the last key that was read, as the server prints it, or nil when the
	// table has no further row.
	Last []string
	Rows int
}
