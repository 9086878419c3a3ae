package publish

import (
	"context"
	"errors"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint"
)

// A Record is what goes to Kafka. Key and Value are views into the [Encoded] that
// holds the record.
type Record struct {
	Topic     string
	Partition int32
	Key       []byte // nil is a null key
	Value     []byte // nil is a tombstone
	Headers   []Header
}

// A Header is one record header.
type Header struct {
	Key   string
	Value []byte
}

// Encoded is a batch in the form in which it goes to Kafka. It owns the memory of its
// records.
type Encoded struct {
	Records []Record
	// Entries are the keyed notes that belong into the checkpoint of the transaction
	// which carries the batch. The last one of a key wins. The encoder appends its own;
	// the publisher adds those of the batch's events.
	Entries []capture.Entry
	// End and InTx are those of the batch. They, Changes and Time are set by the
	// publisher.
	End  capture.Position
	InTx *capture.InTx
	// Changes counts the changes in the batch, Time is the newest source time among
	// them (microseconds since the Unix epoch, 0 without changes).
	Changes int
	Time    int64
	// Buf is the memory that keys and values are appended to, see Reserve.
	Buf []byte

	first  *[firstChunk]byte    // what Buf begins with: most batches of a quiet source fit in
	chunks []*[bufferChunk]byte // what Reserve moved on to
	left   int64                // capacity of the pieces that Buf has left
}

// Reserve makes room for n bytes behind Buf, in fresh memory when the present piece is
// too full: what was appended before stays where it is. An encoder calls it before each
// record, so that a large batch is many pieces and not one that is copied as it grows. A
// record that needs more than it reserved is only slower.
func (e *Encoded) Reserve(n int) {
	if cap(e.Buf)-len(e.Buf) >= n {
		return
	}
	e.left += int64(cap(e.Buf))
	switch {
	case e.first == nil && n <= firstChunk:
		e.first = firsts.Get().(*[firstChunk]byte)
		e.Buf = e.first[:0]
	case n <= bufferChunk:
		c := buffers.Get().(*[bufferChunk]byte)
		e.chunks = append(e.chunks, c)
		e.Buf = c[:0]
	default:
		e.Buf = make([]byte, 0, n)
	}
}

// An Encoder turns batches into records. It may wait for the schema registry on a new
// table definition, and is called from one goroutine at a time.
type Encoder interface {
	// Resume forgets what earlier calls learned and takes up the entries of the
	// loaded checkpoint. Run calls it before the first Encode.
	Resume(ctx context.Context, entries map[string][]byte) error
	// Encode appends the batch's records, in order, to out. Truncates that are not
	// published, watermarks and commits leave none.
	Encode(ctx context.Context, b *capture.Batch, out *Encoded) error
}

// A Sink is a log that takes records in transactions.
type Sink interface {
	// Fence makes sure no earlier writer of this pipeline can commit any more.
	Fence(ctx context.Context) error
	// Fences reports whether Fence does so. With delivery at-least-once it cannot, and
	// two living instances can both write the checkpoint.
	Fences() bool
	Begin(ctx context.Context) (Tx, error)
	// Discard gives up the open transaction and every connection state. After any
	// error it is the way back to Fence (rule R13).
	Discard()
	Close() error
}

// A Tx publishes records and the checkpoint that covers them, or nothing.
type Tx interface {
	// Produce hands records over. It blocks when the sink is behind. The records' memory
	// is the caller's again when it returns; headers must stay as they are, since those of
	// a table may be one slice that the sink remembers.
	Produce(ctx context.Context, records []Record) error
	// Commit makes records and checkpoint visible together. After an error the
	// outcome is unknown (rule R10) and the Tx must not be used again.
	Commit(ctx context.Context, cp checkpoint.Checkpoint) error
}

// Errors that a person has to act on: retrying does not help, the pipeline stops.
var (
	// ErrSuperseded: another instance of this pipeline has taken over.
	ErrSuperseded = errors.New("another instance has taken over this pipeline")
	// ErrRefused: the sink, as it is configured, does not take what we have.
	ErrRefused = errors.New("the sink refuses to take records")
	// ErrConfigChanged: a setting was changed that cannot change here (rules R8, R29).
	ErrConfigChanged = errors.New("the configuration does not fit the checkpoint")
)

// Errors that a retry heals. They tell the reasons for one apart, for the metrics.
var (
	// ErrFenced: the transaction was ended by a successor or by the broker's timeout.
	// The two look the same; the claim in the checkpoint tells (section "Two
	// instances" of DESIGN.md).
	ErrFenced = errors.New("the transaction was ended by the broker or a successor")
	// ErrUnknownOutcome: the commit was asked for and its answer was lost (rule R10).
	ErrUnknownOutcome = errors.New("the outcome of the commit is unknown")
)
