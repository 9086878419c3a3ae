package snapshot

import (
	"context"
	"slices"

	"github.com/headwaterdb/headwater/capture"
)

// A window is one read of a table and what the log said about the table meanwhile. It
// is open from before the view is until the Watermark of its mark (rule R26).
//
// Until the chunk is read the window remembers the keys of all changes that pass. Then
// it knows which rows of the chunk they touch, forgets them, and applies further
// changes at once. The rows are found by an index of their keys, which is made for the
// first change.
//
// merge.mu guards the fields that change.
type window struct {
	t      *table
	mark   uint64
	ctx    context.Context // of what is done for it until its mark is set
	cancel context.CancelFunc
	// opened is closed once view is open, or failed says why it is not.
	opened chan struct{}
	failed error

	gone   bool          // given up
	loaded chan struct{} // closed once the chunk is there or the window is gone

	// While the chunk is being read.
	keys    []byte
	touches []touch
	txs     []capture.Tx
	defs    []*capture.Table // the definitions of the changes
	// mustHold are transactions that left a column Unchanged while the view was being
	// opened. A view without one of them is opened again, and then the stream is held
	// (strict) instead.
	mustHold []capture.Tx
	strict   bool
	view     View // nil until it is open

	// Once the chunk is there.
	chunk *Chunk
	rows  map[string]int32 // by canonical key; nil until a change asks
	fates []fate
	none  bool // a truncate drops all rows

	// Of a keyless table's first mark: the log's goroutine closes paused there and takes
	// parts until they are closed.
	paused chan struct{}
	parts  chan *Chunk
}

// A touch is one change that passed while the chunk was being read: one key, one
// transaction.
type touch struct {
	off, len int32 // in keys
	tx       int32 // in txs
	// partial: the change left a column of this key's row Unchanged.
	partial bool
}

// A fate collects what the log said about one row of a chunk.
type fate uint8

const (
	// stale: a change that is not in the view touched the row.
	stale fate = 1 << iota
	// repeated: a change that is in the view touched it, and carried all of it.
	repeated
	// partial: a change that is in the view touched it and left a column Unchanged.
	partial
)

// published reports whether the row is emitted at the mark. A stale row would take its
// key back in time. One that a change in the view repeats is as new as that change,
// and needless, unless the change left a column Unchanged: then the row is the only
// place where that column's value stands.
func (f fate) published() bool { return f&stale == 0 && f&(repeated|partial) != repeated }

// size is what the window remembers for changes that passed while it reads.
func (w *window) size() int { return len(w.keys) + 12*len(w.touches) + 64*len(w.txs) }

// remember notes that a change of tx touches key.
func (w *window) remember(key []byte, tx *capture.Tx, isPartial bool) {
	if n := len(w.txs); n == 0 || w.txs[n-1] != *tx {
		w.txs = append(w.txs, keep(tx))
	}
	w.touches = append(w.touches, touch{off: int32(len(w.keys)), len: int32(len(key)), tx: int32(len(w.txs) - 1), partial: isPartial})
	w.keys = append(w.keys, key...)
}

// keep returns a transaction that outlives its batch.
func keep(tx *capture.Tx) capture.Tx {
	return capture.Tx{ID: string(append([]byte(nil), tx.ID...)), Num: tx.Num}
}

// seen notes a definition that a change came with.
func (w *window) seen(def *capture.Table) {
	if !slices.Contains(w.defs, def) {
		w.defs = append(w.defs, def)
	}
}

// load takes the chunk over, and settles what passed while it was read.
func (w *window) load(chunk *Chunk) {
	w.chunk, w.fates = chunk, make([]fate, len(chunk.Events))
	held := make([]bool, len(w.txs))
	for i := range w.txs {
		held[i] = w.view.Holds(&w.txs[i])
	}
	for _, t := range w.touches {
		w.touch(w.keys[t.off:t.off+t.len], held[t.tx], t.partial)
	}
	w.keys, w.touches, w.txs, w.mustHold = nil, nil, nil, nil
	close(w.loaded)
}

func fateOf(held, isPartial bool) fate {
	switch {
	case !held:
		return stale
	case isPartial:
		return partial
	default:
		return repeated
	}
}

// touch applies a change to the row of key, once the chunk is there.
func (w *window) touch(key []byte, held, isPartial bool) {
	if row, ok := w.find(key); ok {
		w.fates[row] |= fateOf(held, isPartial)
	}
}

// row returns the chunk's row of key unless the log has shown a newer one.
func (w *window) row(key []byte) capture.Row {
	if row, ok := w.find(key); ok && !w.none && w.fates[row]&stale == 0 {
		return w.chunk.Events[row].After
	}
	return nil
}

// find finds the chunk's row of key.
func (w *window) find(key []byte) (row int32, ok bool) {
	if w.rows == nil {
		w.rows = index(w.chunk)
	}
	row, ok = w.rows[string(key)]
	return row, ok
}

// index maps the canonical key of each row to its place in the chunk. The keys share
// one string.
func index(chunk *Chunk) map[string]int32 {
	rows := make(map[string]int32, len(chunk.Events))
	var buf []byte
	ends := make([]int, len(chunk.Events))
	for i := range chunk.Events {
		buf = appendRowKey(buf, chunk, i)
		ends[i] = len(buf)
	}
	keys, begin := string(buf), 0
	for i, end := range ends {
		rows[keys[begin:end]] = int32(i)
		begin = end
	}
	return rows
}

// appendRowKey appends the canonical key of the chunk's row i.
func appendRowKey(b []byte, chunk *Chunk, i int) []byte {
	b, err := appendKey(b, chunk.Table, chunk.Events[i].After, nil)
	if err != nil {
		panic("snapshot: a row that was read has no key: " + err.Error())
	}
	return b
}
