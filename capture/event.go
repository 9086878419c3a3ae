package capture

// An EventKind says what an [Event] is.
type EventKind uint8

const (
	// Change is one row changed or read, a truncate, or a message.
	Change EventKind = iota
	// Commit ends a source transaction. One with no change before it is a heartbeat:
	// the log moved, our tables did not.
	Commit
	// Watermark says that Stream has passed a mark which a snapshot set. Package
	// snapshot consumes it; nobody further down sees one.
	Watermark
)

// An Op is what happened to a row.
type Op uint8

const (
	Insert Op = iota
	Update
	Delete
	Truncate
	// Read is a row that a snapshot read.
	Read
	// Message is text that an application put into the log: After holds its prefix
	// (String, or Null) and content (Bytes).
	Message
)

func (o Op) String() string {
	return [...]string{"insert", "update", "delete", "truncate", "read", "message"}[o]
}

// A SnapshotMark says which row of a snapshot a Read is.
type SnapshotMark uint8

const (
	NotSnapshot SnapshotMark = iota
	SnapshotRow
	SnapshotFirst
	SnapshotFirstInTable
	SnapshotLastInTable
	SnapshotLast
)

// An Event is a Change, a Commit or a Watermark; Kind says which. It is a struct and
// not an interface, so that a slice of events is one allocation.
type Event struct {
	Kind     EventKind
	Op       Op
	Snapshot SnapshotMark
	// Table is the definition in force when the row was written. A Message has one
	// without columns.
	Table *Table
	// Before is nil unless the log carries it; After is nil for Delete and Truncate.
	// Each has one value per column of Table.
	Before, After Row
	// Origin holds the source block's values, see [OriginField].
	Origin Row
	// Sequence is the source block's "sequence" text (a String), or Null.
	Sequence Value
	// Time is when the database made the change: microseconds since the Unix epoch.
	Time int64
	// Tx is the source transaction, nil for a Read and for what stands outside one.
	Tx *Tx
	// Ordinal is the change's number within Tx, from 1, counted as [InTx] counts: it is
	// the same whenever the log is read again. What one log message says, such as a
	// truncate of several tables, shares one. 0 where Tx is nil.
	Ordinal uint64
	// Mark is the id of a Watermark.
	Mark uint64
	// Entries are the keyed notes that the event adds to the checkpoint, such as which
	// chunk of which table is done. Commits carry them, and the few changes after which
	// a note must not wait for the commit: a transaction may be cut before it. Nobody
	// but their writer reads them. They own their memory.
	Entries []Entry
}

// A Tx is one source transaction, shared by its events. It lives as long as the batch.
type Tx struct {
	// ID is the transaction as the database prints it.
	ID string
	// Num is the transaction as a number, where the database has one.
	Num uint64
	// Commit is the place of its commit in the log, as the database prints it: it is the
	// same whenever the log is read again. "" where ID is such a name.
	Commit string
}

// An Entry is one keyed note in the checkpoint. A nil Value removes it.
type Entry struct {
	Key   string
	Value []byte
}

// A Position is a commit boundary in a source's change log from which Stream can
// resume: canonical JSON that a person can read and that only the source which made
// it interprets. The rest of headwater stores it and prints it; it never parses or
// compares one. The zero Position means "nothing read yet".
type Position string

// InTx is progress inside a source transaction that was cut (rules R5 and R6 of
// publish/DESIGN.md): the row changes consumed since its start, counted before any
// filter, and the CRC-32C over their bytes as received.
type InTx struct {
	ID   string `json:"id"`
	Done uint64 `json:"done"`
	CRC  uint32 `json:"crc"`
}

// Resume is where to go on: a commit boundary, progress inside the next transaction
// if it was cut, and the checkpoint's keyed entries.
type Resume struct {
	At      Position
	InTx    *InTx
	Entries map[string][]byte
}
