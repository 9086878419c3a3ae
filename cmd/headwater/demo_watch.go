package main

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// demoSampling is how often a row is shown.
	demoSampling = 280 * time.Millisecond
	// demoTurns is how many others are shown before the same kind comes again, if any come.
	demoTurns = 4
)

// A demoKind is what rows are shown in turns by.
type demoKind struct {
	table string
	op    byte
}

// A demoWatch looks at the records as they come: it shows some of them and measures how
// long after its commit each change became visible.
type demoWatch struct {
	screen    *demoScreen
	committed func(demoChange) time.Time

	mu      sync.Mutex
	reads   int // rows that the snapshot brought
	changes int
	calm    []time.Duration // of changes that no kill delayed
	across  []time.Duration // of changes that had to wait for a restart
	killed  time.Time       // the last kill; zero before the first
	back    time.Time       // when the first change after it came; zero until then
	shown   time.Time       // when a row was shown last
	turn    int             // of the row that was shown last
	turns   map[demoKind]int
	last    demoChange // that was expected
	arrived bool
}

// took notes a record that came at now.
func (w *demoWatch) took(r *demoRecord, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var delay time.Duration
	switch r.op {
	case 0:
		return
	case 'r':
		w.reads++
	default:
		w.changes++
		ch := demoChange{r.table, r.key, r.op, r.revision}
		w.arrived = w.arrived || ch == w.last
		committed := w.committed(ch)
		delay = now.Sub(committed)
		w.measure(committed, delay, now)
	}
	w.show(r, delay, now)
}

// measure notes a change's delay. One that was committed before the pipeline was back and
// became visible after it was killed has waited for a restart.
func (w *demoWatch) measure(committed time.Time, delay time.Duration, now time.Time) {
	if !w.killed.IsZero() && w.back.IsZero() && committed.After(w.killed) {
		w.back = now
		w.screen.event(demoGreen, fmt.Sprintf("back: the first change since is visible %s after the kill", demoSeconds(now.Sub(w.killed))))
	}
	if !w.killed.IsZero() && (w.back.IsZero() || committed.Before(w.back)) {
		w.across = append(w.across, delay)
	} else {
		w.calm = append(w.calm, delay)
	}
}

// show prints a record now and then: the first row of each table that the snapshot read at
// once, all others in turns, so that one kind of change does not hide the rarer ones.
func (w *demoWatch) show(r *demoRecord, delay time.Duration, now time.Time) {
	kind := demoKind{r.table, r.op}
	last, known := w.turns[kind]
	since := now.Sub(w.shown)
	switch {
	case r.op == 'r' && !known:
	case since < demoSampling, known && w.turn-last < demoTurns && since < 2*demoSampling:
		return
	}
	if w.turns == nil {
		w.turns = map[demoKind]int{}
	}
	w.turn++
	w.turns[kind] = w.turn
	w.shown = now
	w.screen.row(r, delay)
}

// kill notes that the pipeline was killed now, and returns what was visible by then.
func (w *demoWatch) kill() (reads, changes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.killed, w.back = time.Now(), time.Time{}
	return w.reads, w.changes
}

// seen is how many records came so far.
func (w *demoWatch) seen() (reads, changes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reads, w.changes
}

// expect says which change is the last one.
func (w *demoWatch) expect(last demoChange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = last
}

// saw reports whether the last change came.
func (w *demoWatch) saw() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.arrived
}

// delays are the sorted delays of changes that no kill delayed, and of the others.
func (w *demoWatch) delays() (calm, across []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.calm)
	slices.Sort(w.across)
	return w.calm, w.across
}

// demoQuantile is the smallest of the sorted values that the share q of them does not
// exceed.
func demoQuantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
