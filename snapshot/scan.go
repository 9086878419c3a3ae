package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/headwaterdb/headwater/capture"
)

// scan is the goroutine that reads tables. It opens windows and views, reads chunks and
// sets marks; what becomes of a chunk at its mark is the log's goroutine's.
func (m *merge) scan(ctx context.Context) error {
	targets, err := m.scanner.Tables(ctx)
	if err != nil {
		return fmt.Errorf("list the tables: %w", err)
	}
	m.plan(targets)
	if err := wait(ctx, m.settled); err != nil {
		return err
	}
	for _, t := range m.order {
		m.begin(t)
		read := m.readKeyed
		if t.keyless() {
			read = m.readKeyless
		}
		if err := read(ctx, t); err != nil {
			return fmt.Errorf("table %s: %w", t.ID, err)
		}
	}
	m.scanner.Finish()
	if len(m.order) == 0 && m.cfg.ThenStop {
		m.cancel(errRead)
	}
	return nil
}

func wait(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// readKeyed reads a table chunk by chunk until its entry says that it is done. While a
// chunk is read the view of the next one is opened, and one before it may wait for its mark.
func (m *merge) readKeyed(ctx context.Context, t *table) error {
	m.mu.Lock()
	m.rewound = true // begin at the entry
	m.mu.Unlock()
	var (
		after []string
		end   bool
		next  *window
	)
	defer func() { m.leave(next) }()
	for {
		m.mu.Lock()
		if m.rewound {
			after, end, m.rewound = t.entry.Last, false, false
		}
		if t.entry.State == stateDone {
			m.mu.Unlock()
			return nil
		}
		w := next
		// A window that is open is read whatever waits: the log may wait for its chunk.
		if w == nil {
			if end || len(m.windows) >= 2 {
				m.mu.Unlock()
				if err := wait(ctx, m.wake); err != nil {
					return err
				}
				continue
			}
			w = m.window(ctx, t)
		}
		next = nil
		m.mu.Unlock()

		<-w.opened
		if after != nil { // else the table may fit into one chunk
			m.mu.Lock()
			if w.failed == nil && !w.gone && len(m.windows) <= 2 {
				next = m.window(ctx, t)
			}
			m.mu.Unlock()
		}
		last, err := m.readChunk(w, after)
		switch {
		case err == nil:
			if after, end = last, last == nil; end {
				m.leave(next)
				next = nil
			}
		case errors.Is(err, errGone): // and so is the next one: the loop goes on from the entry
			m.leave(next)
			next = nil
		default:
			return err
		}
	}
}

// errGone says that a window was given up while its chunk was being read.
var errGone = errors.New("snapshot: the window was given up")

// window opens a window and begins to open its view. It is called with mu locked.
func (m *merge) window(ctx context.Context, t *table) *window {
	t.entry.State = stateReading
	w := &window{t: t, mark: m.lastID.Add(1), loaded: make(chan struct{}), opened: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancel(ctx)
	if m.breach != opensLate {
		m.windows = append(m.windows, w)
	}
	go func() {
		defer close(w.opened)
		w.failed = m.open(w)
	}()
	return w
}

// leave gives up a window whose chunk is not read.
func (m *merge) leave(w *window) {
	if w == nil {
		return
	}
	m.mu.Lock()
	if !w.gone {
		w.gone = true
		close(w.loaded)
		m.windows = slices.DeleteFunc(m.windows, func(o *window) bool { return o == w })
	}
	m.mu.Unlock()
	w.cancel()
	<-w.opened
	if w.view != nil {
		_ = w.view.Close() // which closes its connection when that fails, and nothing was read
	}
}

// readChunk reads one chunk into w, whose view is open, and sets its mark. It returns the
// last key.
func (m *merge) readChunk(w *window, after []string) (last []string, err error) {
	defer w.cancel()
	if w.failed != nil {
		return nil, m.failure(w, w.failed)
	}
	defer func() {
		if cerr := w.view.Close(); cerr != nil && err == nil {
			err = m.failure(w, fmt.Errorf("close the view: %w", cerr))
		}
	}()
	chunk, err := w.view.Scan(w.ctx, w.t.Target, after, m.cfg.ChunkBytes)
	if err != nil {
		return nil, m.failure(w, fmt.Errorf("read after key %q: %w", after, err))
	}
	last = chunk.Last // the chunk is the log's goroutine's once the mark is set
	if err := m.load(w, chunk); err != nil {
		return nil, err
	}
	if err := w.view.Mark(w.ctx, w.mark); err != nil {
		return nil, m.failure(w, fmt.Errorf("set a mark: %w", err))
	}
	return last, nil
}

// failure is err, or errGone when the window was given up meanwhile.
func (m *merge) failure(w *window, err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.gone {
		return errGone
	}
	return err
}

// open opens the window's view. One that does not hold a transaction which has passed
// meanwhile and left a column Unchanged is opened again: then it does.
func (m *merge) open(w *window) error {
	for {
		view, err := m.scanner.View(w.ctx, w.t.Target)
		if err != nil {
			return fmt.Errorf("open a view: %w", err)
		}
		m.mu.Lock()
		if m.breach == opensLate && !w.gone && !slices.Contains(m.windows, w) {
			m.windows = append(m.windows, w)
		}
		again := slices.ContainsFunc(w.mustHold, func(tx capture.Tx) bool { return !view.Holds(&tx) })
		if again && m.breach != neverHolds {
			w.mustHold, w.strict = nil, true
		} else {
			w.view = view
		}
		opened := w.view != nil
		m.mu.Unlock()
		if opened {
			return nil
		}
		if err := view.Close(); err != nil {
			return fmt.Errorf("close the view: %w", err)
		}
	}
}

// load gives the window its chunk.
func (m *merge) load(w *window, chunk *Chunk) error {
	if now := names(keyOf(chunk.Table)); !slices.Equal(now, w.t.Key) {
		return fmt.Errorf("its key is %q now, and was %q: it is read anew", now, w.t.Key)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.gone {
		chunk.Release()
		return errGone
	}
	if key := m.lastKey(w); key[0].Type != "" && !slices.Equal(key, keyOf(chunk.Table)) {
		m.logger.Info("the table is read anew: the type of its key has changed", "table", w.t.ID.String())
		w.t.restart()
		w.t.entry.Key, w.t.owed, w.t.only = keyOf(chunk.Table), owed{}, false
		w.t.entry.note(&w.t.owed, false)
		chunk.Release()
		m.rewind()
		return errGone
	}
	if slices.ContainsFunc(w.defs, func(def *capture.Table) bool { return !sameKey(def, chunk.Table) }) {
		chunk.Release()
		m.giveUp(w.t, "the type of its key is another one in the log")
		return errGone
	}
	w.load(chunk)
	m.readAhead(w.t, chunk.Rows)
	return nil
}

// lastKey is the key of the chunk before that of w. Its columns have no types if there is
// none in this attempt.
func (m *merge) lastKey(w *window) []keyColumn {
	key := w.t.entry.Key
	for _, o := range m.windows {
		if o.chunk != nil {
			key = keyOf(o.chunk.Table)
		}
	}
	return key
}

// readKeyless reads a table without a key as one piece. A change of such a table cannot
// be compared with its rows, so the log is paused between the view and the last row.
func (m *merge) readKeyless(ctx context.Context, t *table) error {
	// A mark of a view that nothing is read from brings the log to a commit boundary.
	pause := &window{t: t, parts: make(chan *Chunk), paused: make(chan struct{})}
	view, err := m.scanner.View(ctx, t.Target)
	if err != nil {
		return fmt.Errorf("open a view: %w", err)
	}
	m.expect(pause)
	err = view.Mark(ctx, pause.mark)
	if err := errors.Join(err, view.Close()); err != nil {
		return fmt.Errorf("set a mark: %w", err)
	}
	if err := wait(ctx, pause.paused); err != nil {
		return err
	}
	m.logger.Info("the log is paused while a table without a key is read", "table", t.ID.String())
	began := time.Now()
	if view, err = m.scanner.View(ctx, t.Target); err != nil {
		return fmt.Errorf("open a view: %w", err)
	}
	err = m.readParts(ctx, view, pause)
	if err == nil {
		m.stats.held.Add(time.Since(began).Seconds())
		rest := &window{t: t}
		m.expect(rest)
		m.mu.Lock()
		t.view = view
		m.mu.Unlock()
		close(pause.parts)
		if err = view.Mark(ctx, rest.mark); err != nil {
			err = fmt.Errorf("set a mark: %w", err)
		}
	}
	if err := errors.Join(err, view.Close()); err != nil {
		return err
	}
	for {
		m.mu.Lock()
		done := t.entry.State == stateDone
		m.mu.Unlock()
		if done {
			return nil
		}
		if err := wait(ctx, m.wake); err != nil {
			return err
		}
	}
}

// readParts hands the rows of a keyless table to the log's goroutine, part by part.
func (m *merge) readParts(ctx context.Context, view View, pause *window) error {
	for more := true; more; {
		part, err := view.Scan(ctx, pause.t.Target, nil, m.cfg.ChunkBytes)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		more = part.Last != nil
		m.mu.Lock()
		m.readAhead(pause.t, part.Rows)
		m.mu.Unlock()
		select {
		case pause.parts <- part:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// expect gives a keyless table's window its mark.
func (m *merge) expect(w *window) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.mark = m.lastID.Add(1)
	m.windows = append(m.windows, w)
}
