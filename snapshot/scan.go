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

// readKeyed reads a table chunk by chunk, one ahead of the chunk that waits for its
// mark, until its entry says that it is done.
func (m *merge) readKeyed(ctx context.Context, t *table) error {
	m.mu.Lock()
	m.rewound = true // begin at the entry
	m.mu.Unlock()
	var after []string
	end := false
	for {
		m.mu.Lock()
		if m.rewound {
			after, end, m.rewound = t.entry.Last, false, false
		}
		if t.entry.State == stateDone {
			m.mu.Unlock()
			return nil
		}
		if end || len(m.windows) == 2 {
			m.mu.Unlock()
			if err := wait(ctx, m.wake); err != nil {
				return err
			}
			continue
		}
		t.entry.State = stateReading
		wctx, cancel := context.WithCancel(ctx)
		w := &window{t: t, mark: m.lastID.Add(1), cancel: cancel, loaded: make(chan struct{})}
		if m.breach != opensLate {
			m.windows = append(m.windows, w)
		}
		m.mu.Unlock()

		last, err := m.readChunk(wctx, w, after)
		cancel()
		switch {
		case err == nil:
			after, end = last, last == nil
		case errors.Is(err, errGone):
			// The loop goes on from the entry.
		default:
			return err
		}
	}
}

// errGone says that a window was given up while its chunk was being read.
var errGone = errors.New("snapshot: the window was given up")

// readChunk reads one chunk into w and sets its mark. It returns the last key.
func (m *merge) readChunk(ctx context.Context, w *window, after []string) (last []string, err error) {
	view, err := m.open(ctx, w)
	if err != nil {
		return nil, m.failure(w, err)
	}
	defer func() {
		if cerr := view.Close(); cerr != nil && err == nil {
			err = m.failure(w, fmt.Errorf("close the view: %w", cerr))
		}
	}()
	chunk, err := view.Scan(ctx, w.t.Target, after, m.cfg.ChunkBytes)
	if err != nil {
		return nil, m.failure(w, fmt.Errorf("read after key %q: %w", after, err))
	}
	last = chunk.Last // the chunk is the log's goroutine's once the mark is set
	if err := m.load(w, chunk); err != nil {
		return nil, err
	}
	if err := view.Mark(ctx, w.mark); err != nil {
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
func (m *merge) open(ctx context.Context, w *window) (View, error) {
	for {
		view, err := m.scanner.View(ctx, w.t.Target)
		if err != nil {
			return nil, fmt.Errorf("open a view: %w", err)
		}
		m.mu.Lock()
		if m.breach == opensLate && !slices.Contains(m.windows, w) {
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
			return view, nil
		}
		if err := view.Close(); err != nil {
			return nil, fmt.Errorf("close the view: %w", err)
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
	if key := w.t.entry.Key; key[0].Type != "" && !slices.Equal(key, keyOf(chunk.Table)) {
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
