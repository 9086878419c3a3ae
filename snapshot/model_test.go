package snapshot

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/headwaterdb/headwater/capture"
)

// The model is a database whose transactions stand in the log before they can be seen,
// a log reader, a scanner and a publisher that crashes. One driver decides in which
// order everything happens: whatever could be slow asks it first. It is the only one to
// touch the model's state, while all other goroutines are blocked, so a seed is a story
// that can be told again.
type model struct {
	rng    *rand.Rand
	faults faults
	breach breach

	mu      sync.Mutex
	pending []*request

	// The database.
	tables []*modelTable
	begin  map[*modelTable]map[int64]modelRow // the rows before the first change
	log    []*modelTx                         // in log order
	active []*modelTx                         // not committed yet
	hidden []*modelTx                         // in the log, not visible yet
	seen   map[string]bool
	ops    int // changes made so far
	budget int // transactions still to begin

	// The log's reader, of the present Stream.
	pos   int // transactions emitted whole
	part  int // changes of the next one emitted
	marks []modelMark
	views int
	// opening says that View is being called.
	opening atomic.Bool
	// finished says that no view will be opened any more.
	finished bool

	// The publisher.
	batches []modelBatch // since the first start; what a crash loses is removed
	safe    int          // batches whose commit was confirmed
	story   []string
	wrong   error
}

// faults are what the scanner may do wrong.
type faults struct {
	blind   bool // View does not look for emitted transactions (R25 off)
	lowMark bool // the mark is a position from before the view
	// lastEmitted stores the last key emitted, and not the last key read.
	lastEmitted bool
}

type request struct {
	kind string
	can  func() bool
	do   func()
	done chan struct{}
}

// ask blocks until the driver has run do, which it does when can says that it can.
func (m *model) ask(ctx context.Context, kind string, can func() bool, do func()) error {
	r := &request{kind: kind, can: can, do: do, done: make(chan struct{})}
	m.mu.Lock()
	m.pending = append(m.pending, r)
	m.mu.Unlock()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		m.mu.Lock()
		defer m.mu.Unlock()
		m.pending = slices.DeleteFunc(m.pending, func(p *request) bool { return p == r })
		return context.Cause(ctx)
	}
}

type modelTable struct {
	id      capture.TableID
	def     *capture.Table // in force
	defs    [3]*capture.Table
	keyless bool
	rows    map[int64]modelRow // visible; a keyless table's by an id nobody sees
	locks   map[int64]*modelTx // rows touched by transactions that are not visible
	truncs  *modelTx           // holds the whole table
	mu      sync.Mutex
	open    int // views
	// wanted: somebody waits to have the whole table, and keeps views from being opened.
	wanted bool
}

type modelRow struct{ k, a, big int64 }

type modelTx struct {
	id  string
	num uint64
	ops []modelOp
}

type modelOp struct {
	seq           int // of all changes ever, stands in Event.Time
	t             *modelTable
	def           *capture.Table
	op            capture.Op
	id            int64 // keyless: the row
	before, after modelRow
	partial       bool // big is Unchanged
}

type modelMark struct {
	id uint64
	at int // transactions in the log
}

type modelBatch struct {
	events []capture.Event // rows copied
	end    capture.Position
	inTx   *capture.InTx
}

func newModelTable(name string, key bool) *modelTable {
	t := &modelTable{
		id: capture.TableID{Schema: "s", Name: name}, keyless: !key,
		rows: map[int64]modelRow{}, locks: map[int64]*modelTx{},
	}
	// The definitions name the same columns in another order; the last one has a key of
	// another type.
	col := func(name string, kind capture.TypeKind) capture.Column {
		return capture.Column{Name: name, Type: capture.Type{Kind: kind, Name: name}}
	}
	k, a, big := col("k", capture.TypeInt64), col("a", capture.TypeInt64), col("big", capture.TypeString)
	t.defs[0] = &capture.Table{ID: t.id, Columns: []capture.Column{k, a, big}}
	t.defs[1] = &capture.Table{ID: t.id, Columns: []capture.Column{big, k, a}}
	k.Type = capture.Type{Kind: capture.TypeString, Name: "text"}
	t.defs[2] = &capture.Table{ID: t.id, Columns: []capture.Column{k, a, big}}
	if key {
		t.defs[0].Key, t.defs[0].RowKey = []int{0}, []int{0}
		t.defs[1].Key, t.defs[1].RowKey = []int{1}, []int{1}
		t.defs[2].Key, t.defs[2].RowKey = []int{0}, []int{0}
	}
	t.def = t.defs[0]
	return t
}

func newModel(seed uint64) *model {
	m := &model{rng: rand.New(rand.NewPCG(seed, 1)), seen: map[string]bool{}}
	m.tables = []*modelTable{newModelTable("a", true), newModelTable("b", true)}
	if m.rng.IntN(2) == 0 {
		m.tables = append(m.tables, newModelTable("c", false))
	}
	if m.rng.IntN(4) == 0 {
		m.tables = append(m.tables, newModelTable("d", true))
	}
	for _, t := range m.tables {
		for range m.rng.IntN(9) {
			k := m.freshKey(t)
			t.rows[k] = modelRow{k, m.rng.Int64N(1000), m.rng.Int64N(1000)}
		}
	}
	m.begin = map[*modelTable]map[int64]modelRow{}
	for _, t := range m.tables {
		m.begin[t] = maps.Clone(t.rows)
	}
	m.budget = 10 + m.rng.IntN(30)
	return m
}

func (m *model) freshKey(t *modelTable) int64 {
	if t.keyless {
		m.ops++
		return int64(1000 + m.ops)
	}
	return m.rng.Int64N(12)
}

func (m *model) say(format string, args ...any) {
	m.story = append(m.story, fmt.Sprintf(format, args...))
}

// write lets one transaction do one thing: begin, change a row, commit, or become
// visible. It reports whether anything could be done.
func (m *model) write() bool {
	switch n := m.rng.IntN(10); {
	case n < 3 && len(m.hidden) > 0:
		i := m.rng.IntN(len(m.hidden))
		tx := m.hidden[i]
		m.hidden = slices.Delete(m.hidden, i, i+1)
		m.show(tx)
		return true
	case n < 5 && len(m.active) > 0:
		i := m.rng.IntN(len(m.active))
		tx := m.active[i]
		m.active = slices.Delete(m.active, i, i+1)
		m.log, m.hidden = append(m.log, tx), append(m.hidden, tx)
		m.say("commit %s: %d changes", tx.id, len(tx.ops))
		return true
	case n < 6 && len(m.active) < 3 && m.budget > 0:
		m.budget--
		num := uint64(len(m.log) + len(m.active) + 1)
		m.active = append(m.active, &modelTx{id: strconv.Itoa(m.ops) + "." + strconv.FormatUint(num, 10), num: num})
		return true
	case n >= 6 && len(m.active) > 0 && m.budget > 0:
		m.changeRow(m.active[m.rng.IntN(len(m.active))])
		return true
	}
	return len(m.hidden)+len(m.active) > 0 || m.budget > 0
}

// show makes a transaction visible.
func (m *model) show(tx *modelTx) {
	m.seen[tx.id] = true
	for i := range tx.ops {
		tx.ops[i].applyTo(tx.ops[i].t.rows)
	}
	for _, t := range m.tables {
		maps.DeleteFunc(t.locks, func(_ int64, by *modelTx) bool { return by == tx })
		if t.truncs == tx {
			t.truncs = nil
		}
	}
	m.say("visible %s", tx.id)
}

func (op *modelOp) rowID(r modelRow) int64 {
	if op.t.keyless {
		return op.id
	}
	return r.k
}

func (op *modelOp) applyTo(rows map[int64]modelRow) {
	switch op.op {
	case capture.Truncate:
		clear(rows)
	case capture.Delete:
		delete(rows, op.rowID(op.before))
	case capture.Update:
		delete(rows, op.rowID(op.before))
		rows[op.rowID(op.after)] = op.after
	case capture.Insert:
		rows[op.rowID(op.after)] = op.after
	}
}

// changeRow makes a change of tx that needs no lock of another transaction.
func (m *model) changeRow(tx *modelTx) {
	t := m.tables[m.rng.IntN(len(m.tables))]
	if t.truncs != nil && t.truncs != tx {
		return
	}
	rows := maps.Clone(t.rows)
	for i := range tx.ops {
		if tx.ops[i].t == t {
			tx.ops[i].applyTo(rows)
		}
	}
	free := func(k int64) bool { by, ok := t.locks[k]; return !ok || by == tx }
	t.wanted = t.wanted || m.rng.IntN(10) == 0
	truncate := t.wanted && m.rng.IntN(3) == 0 && t.unlocked(tx)
	if t.wanted && !truncate && t.unlocked(nil) {
		t.wanted = false
		t.def = t.defs[m.rng.IntN(2)]
		if m.rng.IntN(4) == 0 {
			t.def = t.defs[2]
		}
	}
	op := modelOp{t: t, def: t.def}
	if truncate {
		t.wanted, t.truncs = false, tx
		op.op = capture.Truncate
	} else {
		k := m.freshKey(t)
		ids := slices.Sorted(maps.Keys(rows))
		if len(ids) > 0 && (t.keyless && m.rng.IntN(3) > 0 || !t.keyless && m.rng.IntN(2) == 0) {
			k = ids[m.rng.IntN(len(ids))]
		}
		if !free(k) {
			return
		}
		row, exists := rows[k]
		op.id, op.before = k, row
		switch {
		case !exists:
			op.op, op.after = capture.Insert, modelRow{k, m.rng.Int64N(1000), m.rng.Int64N(1000)}
		case m.rng.IntN(4) == 0:
			op.op = capture.Delete
		default:
			op.op, op.after = capture.Update, row
			op.after.a = m.rng.Int64N(1000)
			op.partial = !t.keyless && m.rng.IntN(2) == 0
			if !op.partial {
				op.after.big = m.rng.Int64N(1000)
			}
			if !t.keyless && m.rng.IntN(3) == 0 { // move the row
				to := m.rng.Int64N(12)
				if _, taken := rows[to]; !taken && free(to) {
					op.after.k = to
					t.locks[to] = tx
				}
			}
		}
		t.locks[k] = tx
	}
	m.ops++
	op.seq = m.ops
	tx.ops = append(tx.ops, op)
}

// unlocked reports whether tx could lock the whole table.
func (t *modelTable) unlocked(tx *modelTx) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, by := range t.locks {
		if by != tx {
			return false
		}
	}
	return t.open == 0
}

// values make a row of the batch under a definition.
func (r modelRow) values(b *capture.Batch, def *capture.Table, keyOnly, partial bool) capture.Row {
	a, big := capture.IntValue(r.a), capture.StringValue(b.Copy(strconv.AppendInt(nil, r.big, 10)))
	if keyOnly {
		a, big = capture.AbsentValue, capture.AbsentValue
	}
	if partial {
		big = capture.UnchangedValue
	}
	k := capture.IntValue(r.k)
	if def.Columns[def.Column("k")].Type.Kind == capture.TypeString {
		k = capture.StringValue(b.Copy(strconv.AppendInt(nil, r.k, 10)))
	}
	v := b.Row(3)
	v[def.Column("k")], v[def.Column("a")], v[def.Column("big")] = k, a, big
	return v
}

// keyIn is the key in the event's new image.
func keyIn(ev *capture.Event) int64 {
	v := &ev.After[ev.Table.Column("k")]
	if v.Kind() == capture.Int {
		return v.Int()
	}
	k, err := strconv.ParseInt(string(v.Bytes()), 10, 64)
	if err != nil {
		panic(err)
	}
	return k
}

// Check, Verify, Acknowledge and Close say nothing.
func (m *model) Check(context.Context) error                         { return nil }
func (m *model) Verify(context.Context, capture.Resume) error        { return nil }
func (m *model) Acknowledge(context.Context, capture.Position) error { return nil }
func (m *model) Close() error                                        { return nil }

func position(n int) capture.Position { return capture.Position(strconv.Itoa(n)) }

// Stream is the log.
func (m *model) Stream(ctx context.Context, r capture.Resume, emit capture.EmitFunc) error {
	for {
		var b *capture.Batch
		if err := m.ask(ctx, "log", m.canStream, func() { b = m.next() }); err != nil {
			return err
		}
		if err := emit(b); err != nil {
			return err
		}
	}
}

func (m *model) due() bool {
	return m.part == 0 && len(m.marks) > 0 && m.marks[0].at <= m.pos
}

func (m *model) canStream() bool { return m.pos < len(m.log) || m.due() }

// next is the log's next batch.
func (m *model) next() *capture.Batch {
	b := capture.NewBatch()
	for first := true; first || m.rng.IntN(3) == 0 && !m.due(); first = false {
		if m.pos == len(m.log) || m.due() {
			break
		}
		tx := m.log[m.pos]
		n := len(tx.ops)
		if m.rng.IntN(3) == 0 {
			n = min(n, m.part+m.rng.IntN(3))
		}
		shared := b.Tx(tx.id, tx.num)
		for ; m.part < n; m.part++ {
			op := &tx.ops[m.part]
			ev := capture.Event{Op: op.op, Table: op.def, Time: int64(op.seq), Tx: shared}
			if op.op == capture.Insert || op.op == capture.Update {
				ev.After = op.after.values(b, op.def, false, op.partial)
			}
			if op.op == capture.Delete || op.op == capture.Update && (op.t.keyless || op.before.k != op.after.k) {
				ev.Before = op.before.values(b, op.def, !op.t.keyless, false)
			}
			*b.Add() = ev
		}
		if m.part < len(tx.ops) {
			b.InTx = &capture.InTx{ID: tx.id, Done: uint64(m.part)}
			break
		}
		*b.Add() = capture.Event{Kind: capture.Commit, Tx: shared}
		m.pos, m.part = m.pos+1, 0
	}
	b.End = position(m.pos)
	for b.InTx == nil && m.due() {
		*b.Add() = capture.Event{Kind: capture.Watermark, Mark: m.marks[0].id}
		m.marks = m.marks[1:]
	}
	m.say("log: %d events to %s, %d in tx", len(b.Events), b.End, m.part)
	return b
}

func (m *model) Tables(ctx context.Context) (targets []Target, err error) {
	err = m.ask(ctx, "tables", nil, func() {
		for _, t := range m.tables {
			target := Target{ID: t.id, Incarnation: "1", Rows: int64(len(t.rows))}
			if !t.keyless {
				target.Key = []string{"k"}
			}
			targets = append(targets, target)
		}
	})
	return targets, err
}

func (m *model) Begin() { m.finished = false }

func (m *model) Finish() { m.finished = true }

func (m *model) table(id capture.TableID) *modelTable {
	return m.tables[slices.IndexFunc(m.tables, func(t *modelTable) bool { return t.id == id })]
}

func (m *model) View(ctx context.Context, target Target) (View, error) {
	if m.opening.Swap(true) {
		return nil, errors.New("View is called while it opens another one")
	}
	defer m.opening.Store(false)
	v := &modelView{m: m, t: m.table(target.ID)}
	var must []*modelTx
	progress := 0
	err := m.ask(ctx, "call view", nil, func() {
		n := m.pos
		if m.part > 0 {
			n++
		}
		must = m.log[:n:n]
		v.low = len(m.log)
		if m.views == 0 { // the first one may wait for the log to go on
			progress = min(m.pos+m.rng.IntN(3), len(m.log))
		}
		m.views++
	})
	if err != nil {
		return nil, err
	}
	can := func() bool {
		if v.t.truncs != nil || v.t.wanted && m.budget > 0 && len(m.active) > 0 || m.pos < progress {
			return false
		}
		return m.faults.blind || !slices.ContainsFunc(must, func(tx *modelTx) bool { return !m.seen[tx.id] })
	}
	err = m.ask(ctx, "view", can, func() {
		v.holds, v.rows, v.def = maps.Clone(m.seen), maps.Clone(v.t.rows), v.t.def
		m.say("view of %s", v.t.id)
		v.t.mu.Lock()
		if v.t.open++; v.t.open > 2 {
			m.wrong = errors.New("three views are open")
		}
		v.t.mu.Unlock()
	})
	if err != nil {
		return nil, err
	}
	m.answer(ctx)
	return v, nil
}

// answer is the way of an answer, which arrives even if ctx ends meanwhile.
func (m *model) answer(ctx context.Context) { _ = m.ask(ctx, "answer", nil, func() {}) }

type modelView struct {
	m     *model
	t     *modelTable
	def   *capture.Table
	holds map[string]bool
	rows  map[int64]modelRow
	low   int
	past  int // rows of a keyless table that were returned
}

func (v *modelView) Holds(tx *capture.Tx) bool { return v.holds[tx.ID] }

func (v *modelView) Scan(ctx context.Context, _ Target, after []string, _ int) (*Chunk, error) {
	c := &Chunk{Table: v.def}
	err := v.m.ask(ctx, "scan", nil, func() {
		c.Batch = capture.NewBatch()
		keys := slices.Sorted(maps.Keys(v.rows))
		if v.t.keyless {
			keys = keys[v.past:]
		} else if len(after) > 0 {
			last, _ := strconv.ParseInt(after[0], 10, 64)
			keys = slices.DeleteFunc(keys, func(k int64) bool { return k <= last })
		}
		n := min(1+v.m.rng.IntN(4), len(keys))
		for _, k := range keys[:n] {
			*c.Add() = capture.Event{Op: capture.Read, Table: v.def, After: v.rows[k].values(c.Batch, v.def, false, false)}
			c.Last = []string{strconv.FormatInt(k, 10)}
		}
		c.Rows, v.past = n, v.past+n
		if n == len(keys) && (n == 0 || v.m.rng.IntN(2) == 0) {
			c.Last = nil
		} else if v.t.keyless {
			c.Last = []string{}
		}
		v.m.say("scan of %s after %q: %d rows, last %q", v.t.id, after, n, c.Last)
	})
	if err == nil {
		v.m.answer(ctx)
	}
	return c, err
}

func (v *modelView) Mark(ctx context.Context, id uint64) error {
	return v.m.ask(ctx, "mark", nil, func() {
		at := len(v.m.log)
		if v.m.faults.lowMark {
			at = v.low
		}
		v.m.marks = append(v.m.marks, modelMark{id, at})
	})
}

func (v *modelView) Close() error {
	v.t.mu.Lock()
	defer v.t.mu.Unlock()
	v.t.open--
	return nil
}

// publish is the emit of the Stream under test.
func (m *model) publish(ctx context.Context, b *capture.Batch) error {
	return m.ask(ctx, "publish", nil, func() {
		out := modelBatch{end: b.End, inTx: b.InTx}
		keep := new(capture.Batch)
		for i := range b.Events {
			ev := b.Events[i]
			ev.Before, ev.After = cloneRow(keep, ev.Before), cloneRow(keep, ev.After)
			if ev.Tx != nil {
				tx := *ev.Tx
				ev.Tx = &tx
			}
			out.events = append(out.events, ev)
		}
		b.Release()
		if m.faults.lastEmitted {
			out.storeLastEmitted()
		}
		m.batches = append(m.batches, out)
		m.say("published %s", out)
	})
}

// storeLastEmitted changes the entry of a chunk's batch.
func (b modelBatch) storeLastEmitted() {
	var last []string
	for i := range b.events {
		ev := &b.events[i]
		if ev.Op == capture.Read && ev.Kind == capture.Change {
			last = []string{strconv.FormatInt(keyIn(ev), 10)}
		}
		for j := range ev.Entries {
			var e tableEntry
			if json.Unmarshal(ev.Entries[j].Value, &e) == nil && len(e.Last) > 0 {
				e.Last = last
				ev.Entries[j] = entry(ev.Entries[j].Key, &e)
			}
		}
	}
}

func cloneRow(b *capture.Batch, row capture.Row) capture.Row {
	if row == nil {
		return nil
	}
	c := b.Row(len(row))
	for i := range row {
		c[i] = row[i].Clone(b)
	}
	return c
}

func (b modelBatch) String() string {
	var s strings.Builder
	for i := range b.events {
		ev := &b.events[i]
		switch ev.Kind {
		case capture.Commit:
			s.WriteString("commit")
			for _, e := range ev.Entries {
				fmt.Fprintf(&s, " %s=%s", e.Key, e.Value)
			}
		case capture.Change:
			fmt.Fprintf(&s, "%d:%v %s %v->%v", ev.Time, ev.Op, ev.Table.ID.Name, ev.Before, ev.After)
		}
		s.WriteString("; ")
	}
	return s.String() + "end " + string(b.end)
}

// resume is what a publisher would load.
func (m *model) resume() capture.Resume {
	r := capture.Resume{Entries: map[string][]byte{}}
	for _, b := range m.batches {
		r.At, r.InTx = b.end, b.inTx
		for i := range b.events {
			for _, e := range b.events[i].Entries {
				r.Entries[e.Key] = e.Value
				if e.Value == nil {
					delete(r.Entries, e.Key)
				}
			}
		}
	}
	return r
}

// run tells the story of one seed and returns what is wrong with it.
func (m *model) run() error {
	crashes := m.rng.IntN(4)
	for {
		r := m.resume()
		m.pos, m.part, m.marks, m.views = 0, 0, nil, 0
		if r.At != "" {
			m.pos, _ = strconv.Atoi(string(r.At))
		}
		if r.InTx != nil {
			m.part = int(r.InTx.Done)
		}
		m.say("start at %q, %d in tx, %s", r.At, m.part, r.Entries)
		ctx, cancel := context.WithCancel(context.Background())
		src := New(m, m, Config{KeyBytes: []int{100, 400, 100_000}[m.rng.IntN(3)]}, nil, nil)
		src.breach = m.breach
		ended := make(chan error, 1)
		go func() {
			ended <- src.Stream(ctx, r, func(b *capture.Batch) error { return m.publish(ctx, b) })
		}()
		err := m.drive(src, ended, crashes > 0)
		cancel()
		if err == nil || !errors.Is(err, errCrash) {
			synctest.Wait()
			if err == nil {
				err = cmp.Or(m.closed(), m.check(true))
			}
			return err
		}
		<-ended
		if err := m.closed(); err != nil {
			return err
		}
		crashes--
		m.safe += m.rng.IntN(len(m.batches) - m.safe + 1)
		m.batches = m.batches[:m.safe]
		m.say("crash: %d batches are kept", m.safe)
		if err := m.check(false); err != nil {
			return err
		}
	}
}

// closed reports a view that Stream has left open.
func (m *model) closed() error {
	for _, t := range m.tables {
		if t.open > 0 {
			return fmt.Errorf("%d views of %s are open after Stream has ended", t.open, t.id)
		}
	}
	return nil
}

var errCrash = errors.New("crash")

// mostChunks are in memory at a time.
const mostChunks = 3

// drive lets things happen until nothing is left to happen, or it crashes.
func (m *model) drive(src *Source, ended <-chan error, mayCrash bool) error {
	for range 20_000 {
		synctest.Wait()
		if m.wrong != nil {
			return m.wrong
		}
		src.current.mu.Lock()
		windows := len(src.current.windows)
		src.current.mu.Unlock()
		if windows > mostChunks {
			return fmt.Errorf("%d windows are open", windows)
		}
		select {
		case err := <-ended:
			return fmt.Errorf("Stream ended: %w", err)
		default:
		}
		if mayCrash && m.rng.IntN(60) == 0 {
			return errCrash
		}
		writable := len(m.hidden)+len(m.active) > 0 || m.budget > 0
		if writable && m.rng.IntN(3) > 0 {
			m.write()
			continue
		}
		m.mu.Lock()
		var ready []*request
		for _, r := range m.pending {
			if r.can == nil || r.can() {
				ready = append(ready, r)
			}
		}
		slices.SortFunc(ready, func(a, b *request) int { return cmp.Compare(a.kind, b.kind) })
		var r *request
		if len(ready) > 0 {
			r = ready[m.rng.IntN(len(ready))]
			m.pending = slices.DeleteFunc(m.pending, func(p *request) bool { return p == r })
		}
		m.mu.Unlock()
		switch {
		case r != nil:
			r.do()
			close(r.done)
		case !writable:
			p := src.Progress()
			switch {
			case !p.Known || p.Left > 0:
				return errors.New("stuck")
			case !m.finished:
				return errors.New("the scanner was not told that all tables are read")
			}
			return nil
		}
	}
	return errors.New("no end in sight")
}

// tell runs one seed and returns its model.
func tell(t *testing.T, seed uint64, prepare func(*model)) (m *model, err error) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		m = newModel(seed)
		if prepare != nil {
			prepare(m)
		}
		err = m.run()
	})
	return m, err
}

func TestMerge_AnyInterleaving(t *testing.T) {
	for seed := range uint64(3000) {
		if m, err := tell(t, seed, nil); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, strings.Join(m.story, "\n"))
		}
	}
}

// Each rule is needed: without it some story goes wrong.
func TestMerge_EveryRuleIsNeeded(t *testing.T) {
	mutants := map[string]func(*model){
		"R25 off":                          func(m *model) { m.faults.blind = true },
		"low mark":                         func(m *model) { m.faults.lowMark = true },
		"no row dropped":                   func(m *model) { m.breach = keepsAll },
		"window opened after the view":     func(m *model) { m.breach = opensLate },
		"last key emitted, not read":       func(m *model) { m.faults.lastEmitted = true },
		"values not filled":                func(m *model) { m.breach = forgetsValues },
		"row dropped despite Unchanged":    func(m *model) { m.breach = dropsPartial },
		"stream not held":                  func(m *model) { m.breach = neverHolds },
		"moved rows not owed":              func(m *model) { m.breach = oweNothing },
		"keyless view's changes published": func(m *model) { m.breach = skipsNothing },
		"old key not compared":             func(m *model) { m.breach = skipsKeys },
		"owed keys forgotten in a crash":   func(m *model) { m.breach, m.budget = forgetsOwed, 60 },
		"owed keys looked for in vain":     func(m *model) { m.breach = waitsInVain },
	}
	for name, prepare := range mutants {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20_000) {
				if _, err := tell(t, seed, prepare); err != nil {
					t.Logf("caught at seed %d: %v", seed, err)
					return
				}
			}
			t.Error("the model does not notice")
		})
	}
}
