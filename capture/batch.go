package capture

import (
	"slices"
	"sync"
)

// Sizes of the first chunks of a batch's memory. A batch of the usual size fits into
// one of each.
const (
	byteChunk  = 256 << 10
	valueChunk = 8 << 10
	txChunk    = 64
	// keepBytes bounds what a released batch may hold for reuse, so that one huge row
	// does not stay resident for ever.
	keepBytes = 4 << 20
)

// A Batch is what a Source emits: events in log order, and the memory that they
// point to. The receiver owns both until it calls Release.
//
// A batch ends anywhere but inside one log message: a key change and a truncate of
// several tables are whole. End and InTx are the place to resume from once all of it
// is published: InTx is nil exactly when the batch ends at a commit boundary.
type Batch struct {
	Events []Event
	End    Position
	InTx   *InTx
	// LogBytes is how much of the log the batch stands for, for flow control.
	LogBytes int

	bytes  chunks[byte]
	values chunks[Value]
	txs    chunks[Tx]
}

var batches = sync.Pool{New: func() any { return new(Batch) }}

// NewBatch returns an empty batch.
func NewBatch() *Batch { return batches.Get().(*Batch) }

// Release gives the batch's memory back. Nothing in it may be used afterwards.
func (b *Batch) Release() {
	clear(b.Events)
	b.Events = b.Events[:0]
	b.End, b.InTx, b.LogBytes = "", nil, 0
	if b.bytes.reset(byteChunk, keepBytes) {
		// Values point at bytes: kept ones must not keep the dropped bytes alive.
		for _, c := range b.values.all {
			clear(c)
		}
	}
	b.values.reset(valueChunk, keepBytes/24)
	b.txs.reset(txChunk, 1024)
	if cap(b.Events) > 1<<14 {
		b.Events = nil
	}
	batches.Put(b)
}

// Size is the number of bytes that the batch holds for its events.
func (b *Batch) Size() int { return b.bytes.used + 24*b.values.used }

// Add appends an event and returns it for filling in. The pointer is valid until the
// next Add.
func (b *Batch) Add() *Event {
	b.Events = append(b.Events, Event{})
	return &b.Events[len(b.Events)-1]
}

// Alloc returns n bytes that live as long as the batch. Their content is undefined.
func (b *Batch) Alloc(n int) []byte { return b.bytes.alloc(n, byteChunk) }

// Copy returns a copy of p that lives as long as the batch.
func (b *Batch) Copy(p []byte) []byte {
	c := b.Alloc(len(p))
	copy(c, p)
	return c
}

// Row returns n values that live as long as the batch. They are not cleared.
func (b *Batch) Row(n int) Row { return b.values.alloc(n, valueChunk) }

// Tx returns a transaction that lives as long as the batch.
func (b *Batch) Tx(id string, num uint64) *Tx {
	t := &b.txs.alloc(1, txChunk)[0]
	*t = Tx{ID: id, Num: num}
	return t
}

// chunks is memory that is handed out piece by piece and taken back all at once. It
// never moves what it handed out.
type chunks[T any] struct {
	cur  []T   // free part of the chunk in use
	all  [][]T // every chunk; those from next on are free
	next int
	used int
}

func (c *chunks[T]) alloc(n, chunk int) []T {
	if n > len(c.cur) {
		c.advance(n, chunk)
	}
	p := c.cur[:n:n]
	c.cur = c.cur[n:]
	c.used += n
	return p
}

// advance moves on to a chunk with room for n. The rest of the chunk in use is given
// up: at most one row's worth.
func (c *chunks[T]) advance(n, chunk int) {
	if c.next == len(c.all) || len(c.all[c.next]) < n {
		c.all = slices.Insert(c.all, c.next, make([]T, max(n, chunk)))
	}
	c.cur = c.all[c.next]
	c.next++
}

// reset takes everything back, and keeps chunks of the usual size up to keep
// elements. It reports whether it let one go.
func (c *chunks[T]) reset(chunk, keep int) (dropped bool) {
	n := len(c.all)
	c.all = slices.DeleteFunc(c.all, func(p []T) bool {
		keep -= len(p)
		return len(p) > chunk || keep < 0
	})
	c.cur, c.next, c.used = nil, 0, 0
	return len(c.all) < n
}
