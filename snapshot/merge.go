package snapshot

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/headwaterdb/headwater/capture"
)

// A breach switches off one rule. Tests set it to show that the rule is needed.
type breach uint8

const (
	keepsAll      breach = iota + 1 // no row of a chunk is dropped
	opensLate                       // the window is opened after the view
	forgetsValues                   // a change leaves its Unchanged columns unfilled
	dropsPartial                    // a row is dropped although a change left a column out
	neverHolds                      // the stream is not held while a chunk is read
	oweNothing                      // rows that moved behind the reading are not read again
	skipsNothing                    // transactions of a keyless table's view are published
	skipsKeys                       // only the new key of a change is compared
	forgetsOwed                     // what the checkpoint says is owed is not taken up
	waitsInVain                     // owed keys that an attempt has not met are looked for again
)

// A merge is one Stream: the log's batches on their way through, and the tables being
// read. take runs on the log's goroutine, scan on the one that Stream starts.
type merge struct {
	*Source
	ctx    context.Context
	cancel context.CancelCauseFunc
	emit   capture.EmitFunc

	planned chan struct{} // closed once the tables are known
	settled chan struct{} // closed once the transaction that the checkpoint cut has passed
	wake    chan struct{} // holds a token for scan when windows or entries changed

	// The log's goroutine alone.
	over     bool // nothing is left to read: batches pass as they are
	inTx     bool // settled is open
	old, new []byte
	marks    []uint64

	mu      sync.Mutex // guards all below, and what windows and tables say it guards
	whole   wholeEntry
	notes   notes // of the checkpoint
	tables  map[capture.TableID]*table
	order   []*table // ascending; those to read
	left    int      // of order, those not done
	windows []*window
	rewound bool            // scan goes on from the current table's entry
	pending []capture.Entry // for the next commit
	nextLog time.Time

	// The last definition looked up, and its table. Changes come in runs of one table.
	lastDef   *capture.Table
	lastTable *table
	lastCut   bool // the definition's key is the one that the table is cut by
}

// A table is one captured table. merge.mu guards what changes.
type table struct {
	Target
	key   string // of the entry
	entry tableEntry
	owed  owed
	only  bool // entry.Only

	// Of a keyless table that is being read. Until view is set none of its changes is
	// published, then none of those that the view holds.
	view View

	progress
}

func (t *table) keyless() bool { return len(t.Key) == 0 }

func newMerge(ctx context.Context, cancel context.CancelCauseFunc, s *Source, n notes, inTx bool, emit capture.EmitFunc) *merge {
	m := &merge{
		Source: s, ctx: ctx, cancel: cancel, emit: emit, notes: n, inTx: inTx,
		planned: make(chan struct{}), settled: make(chan struct{}), wake: make(chan struct{}, 1),
		tables: map[capture.TableID]*table{},
	}
	if !inTx {
		close(m.settled)
	}
	return m
}

// read reports whether all tables are.
func (m *merge) read() bool {
	select {
	case <-m.planned:
	default:
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left == 0
}

// plan decides what is read: every table whose entry does not say that this very table
// is done. Entries of tables that are not captured any more are removed: such a table
// misses changes, and must be read again when it returns.
func (m *merge) plan(targets []Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.notes.tables
	for i := range targets {
		t := &table{Target: targets[i], key: entryKey(targets[i].ID)}
		if e, ok := known[t.key]; ok {
			t.entry = e.resume(&t.Target)
			t.only = t.entry.Only
			for _, k := range t.entry.OwedKeys {
				if m.breach != forgetsOwed {
					t.owed.add(k, m.cfg.KeyBytes)
				}
			}
		} else {
			t.entry = newEntry(&t.Target)
		}
		m.tables[t.ID] = t
		if t.entry.State != stateDone {
			m.order = append(m.order, t)
		}
		delete(known, t.key)
	}
	for key := range known {
		m.pending = append(m.pending, capture.Entry{Key: key})
	}
	m.left = len(m.order)

	before := m.notes.whole
	m.whole = wholeEntry{V: entryVersion, Mode: m.cfg.Mode, State: stateReading, Attempt: 1}
	if before != nil {
		m.whole.Attempt, m.whole.Emitted = before.Attempt, before.Emitted
		if before.State == stateDone && m.left > 0 {
			m.whole.Attempt, m.whole.Emitted = before.Attempt+1, 0
		}
	}
	if m.left == 0 {
		m.whole.State = stateDone
		if before == nil || *before != m.whole {
			m.pending = append(m.pending, entry(wholeKey, &m.whole))
		}
	}
	m.stats.left.Set(float64(m.left))
	close(m.planned)
}

// take is the emit of the log's Stream.
func (m *merge) take(b *capture.Batch) error {
	if m.over {
		return m.emit(b)
	}
	select {
	case <-m.planned:
	case <-m.ctx.Done():
		return context.Cause(m.ctx)
	}
	if err := m.cut(b); err != nil {
		return err
	}
	if err := m.pass(b); err != nil {
		return err
	}
	at, boundary := b.End, b.InTx == nil
	if len(b.Events) > 0 || len(m.marks) == 0 {
		if err := m.emit(b); err != nil {
			return err
		}
	} else {
		b.Release()
	}
	if m.inTx && boundary {
		m.inTx = false
		close(m.settled)
	}
	for _, id := range m.marks {
		if err := m.passed(id, at); err != nil {
			return err
		}
	}
	return m.finish()
}

// cut takes the watermarks off the end of a batch.
func (m *merge) cut(b *capture.Batch) error {
	m.marks = m.marks[:0]
	n := len(b.Events)
	for n > 0 && b.Events[n-1].Kind == capture.Watermark {
		n--
	}
	for i := n; i < len(b.Events); i++ {
		m.marks = append(m.marks, b.Events[i].Mark)
	}
	clear(b.Events[n:])
	b.Events = b.Events[:n]
	if len(m.marks) > 0 && b.InTx != nil {
		return fmt.Errorf("watermark %d stands inside of source transaction %s, not at a commit boundary", m.marks[0], b.InTx.ID)
	}
	return nil
}

// finish lets the log alone go on when nothing is left to read or to note, and nobody
// waits for the cut transaction to pass.
func (m *merge) finish() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left > 0 || len(m.pending) > 0 || m.inTx {
		return nil
	}
	m.over = true
	if m.cfg.ThenStop {
		m.cancel(errRead)
		return errRead
	}
	return nil
}

// pass looks at the events of a batch: changes of tables that are being read settle
// the fate of rows, those of keyless tables may not pass, and the first commit takes
// the pending notes along.
func (m *merge) pass(b *capture.Batch) error {
	n := 0
	for i := range b.Events {
		ev := &b.Events[i]
		keep := true
		switch ev.Kind {
		case capture.Change:
			var err error
			if keep, err = m.change(b, ev); err != nil {
				return err
			}
		case capture.Commit:
			m.mu.Lock()
			ev.Entries = append(ev.Entries, m.pending...)
			m.pending = nil
			m.mu.Unlock()
		case capture.Watermark:
			return fmt.Errorf("watermark %d is not at the end of its batch", ev.Mark)
		}
		if keep {
			if n < i {
				b.Events[n] = *ev
			}
			n++
		}
	}
	clear(b.Events[n:])
	b.Events = b.Events[:n]
	return nil
}

// change looks at one change and reports whether it passes.
func (m *merge) change(b *capture.Batch, ev *capture.Event) (bool, error) {
	if ev.Op == capture.Message {
		return true, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if ev.Table != m.lastDef {
		m.lastDef, m.lastTable = ev.Table, m.tables[ev.Table.ID]
		m.lastCut = m.lastTable != nil && slices.Equal(m.lastTable.Key, names(keyOf(ev.Table)))
	}
	t := m.lastTable
	switch {
	case t == nil:
		return true, nil
	case t.keyless() && t.entry.State != stateDone && (t.view == nil || t.view.Holds(ev.Tx) && m.breach != skipsNothing):
		return false, nil
	case ev.Op == capture.Truncate:
		m.truncate(t, ev)
		return true, nil
	case t.keyless() || t.entry.State != stateReading:
		return true, nil
	case !m.lastCut:
		// Its keys cannot be compared with those of the chunks. The change is in the
		// view of every chunk that is read from now on.
		m.giveUp(t, "the key of the table is another one in the log")
		return true, nil
	}
	return true, m.apply(b, ev, t)
}

func names(key []keyColumn) []string {
	s := make([]string, len(key))
	for i := range key {
		s[i] = key[i].Name
	}
	return s
}

// truncate drops what is in memory of t. A row that the view shows nevertheless was
// inserted after the truncate, in the window: its insert has passed or will.
func (m *merge) truncate(t *table, ev *capture.Event) {
	t.entry.Truncated++
	for _, w := range m.windows {
		if w.t == t {
			w.none = true
		}
	}
	t.owed = owed{}
	t.entry.note(&t.owed, t.only)
	ev.Entries = append(ev.Entries, entry(t.key, &t.entry))
}

// apply applies one row change to the windows of its table.
func (m *merge) apply(b *capture.Batch, ev *capture.Event, t *table) error {
	if err := m.keys(ev); err != nil {
		return err
	}
	partial := isPartial(ev)
	if partial {
		if err := m.hold(ev, t); err != nil {
			return err
		}
	}
	moved := !bytes.Equal(m.old, m.new)
	for _, w := range m.windows {
		if w.t != t {
			continue
		}
		if w.chunk == nil {
			w.seen(ev.Table)
			if moved && m.breach != skipsKeys {
				w.remember(m.old, ev.Tx, false)
			}
			w.remember(m.new, ev.Tx, partial)
			if partial && w.view == nil {
				w.mustHold = append(w.mustHold, keep(ev.Tx))
			}
			if w.size() > m.cfg.KeyBytes {
				m.giveUp(t, "too many rows were changed while it was read")
				break
			}
			continue
		}
		if ev.Table != w.chunk.Table && !sameKey(ev.Table, w.chunk.Table) {
			m.giveUp(t, "the type of its key is another one in the log")
			break
		}
		held := w.view.Holds(ev.Tx)
		if partial && !held && m.breach != forgetsValues {
			if row := w.row(m.old); row != nil { // else Kafka has the value, or it is owed
				fill(b, ev, w.chunk.Table, row)
				partial = isPartial(ev)
			}
		}
		if moved && m.breach != skipsKeys {
			w.touch(m.old, held, false)
		}
		w.touch(m.new, held, partial)
	}
	if m.owe(t, partial, moved) {
		t.entry.note(&t.owed, t.only)
		ev.Entries = append(ev.Entries, entry(t.key, &t.entry))
	}
	return nil
}

// keys sets old and new to the canonical keys of the row before and after the change.
// They are the same unless the change moves the row.
func (m *merge) keys(ev *capture.Event) (err error) {
	before, after := ev.Before, ev.After
	if before == nil {
		before = after
	}
	if after == nil {
		after = before
	}
	if m.old, err = appendKey(m.old[:0], ev.Table, before, after); err != nil {
		return err
	}
	m.new, err = appendKey(m.new[:0], ev.Table, after, before)
	return err
}

// hold waits while the value that ev leaves out is about to be read: a change that is
// not in the view drops the row, so it must take the value along. Until the view is
// open nobody knows whether it holds the change; then the first time the change passes
// and the view is opened again, because View may itself wait for the log to go on. It
// is called and returns with mu locked.
func (m *merge) hold(ev *capture.Event, t *table) error {
	for i := 0; i < len(m.windows); i++ {
		w := m.windows[i]
		if w.t != t || w.chunk != nil || m.breach == neverHolds {
			continue
		}
		if w.view == nil && !w.strict || w.view != nil && w.view.Holds(ev.Tx) {
			continue
		}
		m.mu.Unlock()
		began := time.Now()
		select {
		case <-w.loaded:
		case <-m.ctx.Done():
		}
		m.stats.held.Add(time.Since(began).Seconds())
		m.mu.Lock()
		if m.ctx.Err() != nil {
			return context.Cause(m.ctx)
		}
		i = -1 // windows have changed
	}
	return nil
}

// owe keeps t.owed right about the keys of a change, and reports whether it is another
// set now.
func (m *merge) owe(t *table, partial, moved bool) (changed bool) {
	if !partial {
		before, after := t.owed.settle(m.old), t.owed.settle(m.new)
		return before || after
	}
	if !moved {
		return false // what is owed stays owed
	}
	was := t.owed.settle(m.old)
	if known := t.only && !was; known || m.breach == oweNothing { // the attempt before published it
		return was
	}
	t.owed.add(m.new, m.cfg.KeyBytes)
	return true
}

// sameKey reports whether rows of both definitions are identified by the same columns
// of the same types, so that their canonical keys can be compared.
func sameKey(a, b *capture.Table) bool {
	if len(a.RowKey) != len(b.RowKey) {
		return false
	}
	for i := range a.RowKey {
		x, y := &a.Columns[a.RowKey[i]], &b.Columns[b.RowKey[i]]
		if x.Name != y.Name || !x.Type.Equal(&y.Type) {
			return false
		}
	}
	return true
}

// giveUp drops the windows of t: scan reads again from t's entry.
func (m *merge) giveUp(t *table, why string) {
	if len(m.windows) == 0 || m.windows[0].t != t {
		return
	}
	m.logger.Info("a part of the table is read again", "table", t.ID.String(), "because", why)
	m.stats.givenUp.Inc()
	m.rewind()
}

// rewind drops all windows.
func (m *merge) rewind() {
	for _, w := range m.windows {
		w.gone = true
		if w.chunk != nil {
			w.chunk.Release()
			w.chunk = nil
		} else {
			close(w.loaded)
		}
		w.cancel()
	}
	m.windows = nil
	m.rewound = true
	signal(m.wake)
}

// passed is what follows the mark id, at the commit boundary at.
func (m *merge) passed(id uint64, at capture.Position) error {
	m.mu.Lock()
	if len(m.windows) == 0 || id < m.windows[0].mark {
		m.mu.Unlock() // the window was given up
		return nil
	}
	w := m.windows[0]
	if id > w.mark {
		m.mu.Unlock()
		return fmt.Errorf("watermark %d came before watermark %d", id, w.mark)
	}
	m.windows = m.windows[1:]
	if w.t.keyless() {
		m.mu.Unlock()
		return m.passedKeyless(w, at)
	}
	b := m.chunkDone(w, at)
	signal(m.wake)
	m.mu.Unlock()
	return m.emit(b)
}

// chunkDone makes the batch to emit of a chunk whose mark has passed, and moves the
// table's entry on.
func (m *merge) chunkDone(w *window, at capture.Position) *capture.Batch {
	t, b := w.t, w.chunk.Batch
	n := 0
	for i := range b.Events {
		if !m.published(w, i) {
			continue
		}
		if n < i {
			b.Events[n] = b.Events[i]
		}
		n++
	}
	clear(b.Events[n:])
	b.Events = b.Events[:n]

	t.entry.Key = keyOf(w.chunk.Table)
	t.entry.Last = w.chunk.Last
	end := w.chunk.Last == nil
	final := (end || t.only) && t.owed.count() == 0
	m.count(t, b, w.chunk.Rows, final)
	switch {
	case final:
		m.tableDone(t)
		m.rewind() // a chunk that is not needed any more
	case end:
		m.repeat(t)
	}
	t.entry.note(&t.owed, t.only)
	m.commit(t, b, at)
	return b
}

// published reports whether row i of the chunk is emitted, and settles what is owed.
func (m *merge) published(w *window, i int) bool {
	f := w.fates[i]
	if dropped := w.none || !f.published(); dropped && m.breach != keepsAll || f != 0 && m.breach == dropsPartial {
		return false
	}
	t := w.t
	if !t.only && len(t.owed.keys) == 0 {
		return true
	}
	key := appendRowKey(m.new[:0], w.chunk, i)
	m.new = key
	owed := t.owed.has(key)
	t.owed.settle(key)
	return owed || !t.only
}

// repeat begins a further attempt at t, for the rows that this one owes. An attempt that
// was for owed rows alone and met none would be followed by others like it: the keys have
// got another type, or their rows went while the log could not be compared with them.
// Then all rows are read again.
func (m *merge) repeat(t *table) {
	m.logger.Info("the table is read once more: rows got new keys while it was read, and the log left their values out",
		"table", t.ID.String(), "rows", t.owed.count())
	inVain := t.only && !t.owed.settled && m.breach != waitsInVain
	t.only = !t.owed.many && !inVain
	if !t.only {
		t.owed = owed{}
	}
	t.owed.settled = false
	t.restart()
	m.rewound = true
}

// restart makes the entry that of a new attempt.
func (t *table) restart() {
	t.entry.State = stateReading
	t.entry.Attempt++
	t.entry.Last, t.entry.Chunk, t.entry.Rows, t.entry.Emitted = nil, 0, 0, 0
}

// count takes rows into t's entry and gives them their snapshot marks. final says that
// they are the last ones of the table.
func (m *merge) count(t *table, b *capture.Batch, read int, final bool) {
	t.entry.Chunk++
	t.entry.Rows += int64(read)
	n := len(b.Events)
	if n == 0 {
		return
	}
	for i := range b.Events {
		b.Events[i].Snapshot = capture.SnapshotRow
	}
	// One row may be several of these; the last assignment wins.
	first, last := &b.Events[0], &b.Events[n-1]
	if t.entry.Emitted == 0 {
		first.Snapshot = capture.SnapshotFirstInTable
	}
	if final {
		last.Snapshot = capture.SnapshotLastInTable
	}
	if m.whole.Emitted == 0 {
		first.Snapshot = capture.SnapshotFirst
	}
	if final && m.left == 1 {
		last.Snapshot = capture.SnapshotLast
	}
	t.entry.Emitted += int64(n)
	m.whole.Emitted += int64(n)
	m.stats.rows.Add(float64(n))
}

// tableDone notes that t is read.
func (m *merge) tableDone(t *table) {
	t.entry.State, t.entry.Last, t.only = stateDone, nil, false
	m.left--
	if m.left == 0 {
		m.whole.State = stateDone
	}
	m.stats.left.Set(float64(m.left))
}

// commit ends a batch of rows, or of none, with the entries that say what is done. It
// stands at the commit boundary at.
func (m *merge) commit(t *table, b *capture.Batch, at capture.Position) {
	b.End, b.InTx = at, nil
	ev := b.Add()
	ev.Kind = capture.Commit
	ev.Entries = append([]capture.Entry{entry(t.key, &t.entry), entry(wholeKey, &m.whole)}, m.pending...)
	m.pending = nil
	m.report(t)
}

// passedKeyless is what follows the marks of a keyless table. At the first one the log
// is paused: the table is read and its rows are emitted here, so that no change lies
// between its view and its rows. At the second one every transaction of the view has
// passed, and was not published.
func (m *merge) passedKeyless(w *window, at capture.Position) error {
	if w.parts == nil {
		m.mu.Lock()
		b := capture.NewBatch()
		m.tableDone(w.t)
		m.commit(w.t, b, at)
		w.t.view = nil
		signal(m.wake)
		m.mu.Unlock()
		return m.emit(b)
	}
	close(w.paused)
	for {
		select {
		case part, ok := <-w.parts:
			if !ok {
				return nil
			}
			m.mu.Lock()
			t, b := w.t, part.Batch
			t.entry.State = stateReading
			m.count(t, b, part.Rows, part.Last == nil)
			m.commit(t, b, at)
			m.mu.Unlock()
			if err := m.emit(b); err != nil {
				return err
			}
		case <-m.ctx.Done():
			return context.Cause(m.ctx)
		}
	}
}

// signal leaves a token in c unless there is one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
