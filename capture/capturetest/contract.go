package capturetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/capture"
)

// A DB is an empty database with one table that the contract works on:
//
//	items (id bigint primary key, v varchar(100))
//
// Its methods fail the test when they cannot do what they say.
type DB interface {
	// Source opens a source that captures the table, as a new process would. Its batches
	// are as small as it can make them, and end inside of a transaction of 1000 rows; it
	// reports a log that moves without changes within a second.
	Source(t *testing.T) capture.Source
	// Commit runs the steps in one transaction, Rollback undoes them.
	Commit(t *testing.T, steps ...Step)
	Rollback(t *testing.T, steps ...Step)
	// Elsewhere writes to the log what is not captured.
	Elsewhere(t *testing.T)
}

// A Step is one statement.
type Step struct {
	// Kind is one of "insert", "update", "rekey", "delete", "many" and "add column".
	Kind string
	// ID is the row's, NewID what rekey makes of it. Many inserts rows ID to NewID.
	ID, NewID int64
	// V is the value of v, and of w where the table has it; nil is NULL.
	V *string
}

// Insert inserts a row.
func Insert(id int64, v string) Step { return Step{Kind: "insert", ID: id, V: &v} }

// InsertNull inserts a row whose v is NULL.
func InsertNull(id int64) Step { return Step{Kind: "insert", ID: id} }

// Update changes v.
func Update(id int64, v string) Step { return Step{Kind: "update", ID: id, V: &v} }

// Rekey changes id.
func Rekey(id, newID int64) Step { return Step{Kind: "rekey", ID: id, NewID: newID} }

// Delete deletes a row.
func Delete(id int64) Step { return Step{Kind: "delete", ID: id} }

// Many inserts the rows from to to, in one statement.
func Many(from, to int64) Step { return Step{Kind: "many", ID: from, NewID: to} }

// AddColumn adds the column w, which later steps leave NULL.
func AddColumn() Step { return Step{Kind: "add column"} }

// SQL returns the step in SQL that PostgreSQL and MySQL understand.
func (s Step) SQL() string {
	v := "NULL"
	if s.V != nil {
		v = "'" + strings.ReplaceAll(*s.V, "'", "''") + "'"
	}
	switch s.Kind {
	case "insert":
		return fmt.Sprintf("INSERT INTO items (id, v) VALUES (%d, %s)", s.ID, v)
	case "update":
		return fmt.Sprintf("UPDATE items SET v = %s WHERE id = %d", v, s.ID)
	case "rekey":
		return fmt.Sprintf("UPDATE items SET id = %d WHERE id = %d", s.NewID, s.ID)
	case "delete":
		return fmt.Sprintf("DELETE FROM items WHERE id = %d", s.ID)
	case "add column":
		return "ALTER TABLE items ADD COLUMN w varchar(100)"
	case "many":
		rows := make([]string, 0, s.NewID-s.ID+1)
		for id := s.ID; id <= s.NewID; id++ {
			rows = append(rows, fmt.Sprintf("(%d, '%s')", id, manyValue(id)))
		}
		return "INSERT INTO items (id, v) VALUES " + strings.Join(rows, ", ")
	}
	panic("capturetest: unknown step " + s.Kind)
}

func manyValue(id int64) string { return fmt.Sprintf("row %d of many", id) }

// want is what the step must look like in the log.
func (s Step) want() []string {
	v := "null"
	if s.V != nil {
		v = *s.V
	}
	switch s.Kind {
	case "insert", "update":
		return []string{fmt.Sprintf("%s %d %s", s.Kind, s.ID, v)}
	case "rekey":
		return []string{fmt.Sprintf("rekey %d to %d", s.ID, s.NewID)}
	case "delete":
		return []string{fmt.Sprintf("delete %d", s.ID)}
	case "many":
		var out []string
		for id := s.ID; id <= s.NewID; id++ {
			out = append(out, fmt.Sprintf("insert %d %s", id, manyValue(id)))
		}
		return out
	}
	return nil
}

// told prints an event the same way. It trusts nothing.
func told(ev *capture.Event) (string, error) {
	if ev.Kind == capture.Commit {
		if ev.Tx == nil {
			return "", nil // a heartbeat
		}
		return "commit", nil
	}
	if ev.Kind != capture.Change {
		return "", fmt.Errorf("an event of kind %d", ev.Kind)
	}
	switch {
	case ev.Table == nil:
		return "", errors.New("a change without table")
	case ev.Tx == nil || ev.Tx.ID == "":
		return "", errors.New("a change without transaction")
	case ev.Ordinal == 0:
		return "", errors.New("a change without number")
	case ev.Time <= 0:
		return "", errors.New("a change without time")
	case ev.Before != nil && len(ev.Before) != len(ev.Table.Columns), ev.After != nil && len(ev.After) != len(ev.Table.Columns):
		return "", errors.New("a row that does not have the columns of its table")
	case ev.Table.Origin == nil:
		return "", errors.New("a table without origin")
	}
	fields := 0
	for _, f := range ev.Table.Origin.Fields {
		if f.From == capture.FromEvent {
			fields++
		}
	}
	if len(ev.Origin) != fields {
		return "", fmt.Errorf("%d values for the %d fields of the source block", len(ev.Origin), fields)
	}
	if k := ev.Table.Key; len(k) != 1 || ev.Table.Columns[k[0]].Name != "id" {
		return "", fmt.Errorf("the key of the table is %v", k)
	}
	id, v := ev.Table.Column("id"), ev.Table.Column("v")
	if id < 0 || v < 0 {
		return "", errors.New("a table without id and v")
	}
	text := func(x capture.Value) string {
		if x.Kind() == capture.String {
			return string(x.Bytes())
		}
		return x.String()
	}
	switch ev.Op {
	case capture.Insert:
		return fmt.Sprintf("insert %d %s", ev.After[id].Int(), text(ev.After[v])), nil
	case capture.Update:
		if ev.Before != nil && ev.Before[id].Kind() == capture.Int && ev.Before[id].Int() != ev.After[id].Int() {
			return fmt.Sprintf("rekey %d to %d", ev.Before[id].Int(), ev.After[id].Int()), nil
		}
		return fmt.Sprintf("update %d %s", ev.After[id].Int(), text(ev.After[v])), nil
	case capture.Delete:
		if ev.Before == nil {
			return "", errors.New("a delete without old row")
		}
		return fmt.Sprintf("delete %d", ev.Before[id].Int()), nil
	}
	return "", fmt.Errorf("an unexpected %s", ev.Op)
}

// Run tests the contract of capture.Source. open makes an empty database for each
// part of it.
func Run(t *testing.T, open func(t *testing.T) DB) {
	for _, c := range []struct {
		name string
		run  func(*contract)
	}{
		{"EveryCommittedChangeInOrder", (*contract).order},
		{"RolledBackWorkIsInvisible", (*contract).rollback},
		{"AKeyChangeIsOneEventWithBothKeys", (*contract).rekey},
		{"ADefinitionIsTheOneOfItsRow", (*contract).definition},
		{"ResumeFromEveryBatchEqualsOneRun", (*contract).resume}, // and changes keep their names
		{"AQuietTableLetsThePositionMove", (*contract).heartbeat},
		{"ABatchIsLeftAloneOnceEmitted", (*contract).release},
		{"FailureOfEmitEndsStream", (*contract).emitFails},
		{"EndOfTheContextEndsStream", (*contract).cancel},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(&contract{t: t, db: open(t)})
		})
	}
}

type contract struct {
	t     *testing.T
	db    DB
	marks int64
}

// limit bounds each wait; it is there for sources that never say anything.
const limit = 60 * time.Second

// A heard is what one batch said.
type heard struct {
	at    capture.Resume
	lines []string
	txs   []string // the transaction of each line
	names []string // what names the change of each line for good, "" of a commit
	table []*capture.Table
}

// listen streams from r until stop says so.
func (c *contract) listen(r capture.Resume, stop func(heard) bool) []heard {
	c.t.Helper()
	src := c.db.Source(c.t)
	if err := src.Verify(c.t.Context(), r); err != nil {
		c.t.Fatalf("Verify of a position that it emitted: %v", err)
	}
	var out []heard
	err := c.stream(src, r, func(b *capture.Batch) error {
		h, err := hear(b, r)
		b.Release()
		if err != nil {
			return err
		}
		r = h.at
		out = append(out, h)
		if stop(h) {
			return errStop
		}
		return nil
	})
	if !errors.Is(err, errStop) {
		c.t.Fatalf("Stream ended with %v", err)
	}
	return out
}

var errStop = errors.New("heard enough")

func (c *contract) stream(src capture.Source, r capture.Resume, emit capture.EmitFunc) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	return src.Stream(ctx, r, emit)
}

// hear reads a batch and checks what holds for every one. from is where it goes on.
func hear(b *capture.Batch, from capture.Resume) (heard, error) {
	h := heard{at: capture.Resume{At: b.End, InTx: b.InTx, Entries: map[string][]byte{}}}
	for k, v := range from.Entries {
		h.at.Entries[k] = v
	}
	if b.End == "" {
		return h, errors.New("a batch without position")
	}
	if len(b.Events) == 0 {
		return h, errors.New("a batch without events")
	}
	for i := range b.Events {
		ev := &b.Events[i]
		for _, e := range ev.Entries {
			if h.at.Entries[e.Key] = e.Value; e.Value == nil {
				delete(h.at.Entries, e.Key)
			}
		}
		line, err := told(ev)
		if err != nil {
			return h, err
		}
		if line == "" {
			continue
		}
		h.lines = append(h.lines, line)
		h.txs = append(h.txs, strings.Clone(ev.Tx.ID))
		name := ""
		if ev.Kind == capture.Change {
			name = fmt.Sprintf("%s/%d", cmp.Or(ev.Tx.Commit, ev.Tx.ID), ev.Ordinal)
		}
		h.names = append(h.names, name)
		h.table = append(h.table, ev.Table)
	}
	last := &b.Events[len(b.Events)-1]
	if (b.InTx == nil) != (last.Kind == capture.Commit) {
		return h, fmt.Errorf("a batch that ends with %v and InTx %v", last.Op, b.InTx)
	}
	if b.InTx != nil && b.InTx.Done == 0 {
		return h, errors.New("a batch that ends inside of a transaction of which nothing was done")
	}
	return h, nil
}

func lines(hs []heard) (out []string) {
	for _, h := range hs {
		out = append(out, h.lines...)
	}
	return out
}

func names(hs []heard) (out []string) {
	for _, h := range hs {
		out = append(out, h.names...)
	}
	return out
}

// begin starts the log: it returns where a source stands before anything was written.
func (c *contract) begin() capture.Resume {
	c.t.Helper()
	hs := c.mark(capture.Resume{})
	return hs[len(hs)-1].at
}

// mark writes a row and listens from r until it has come.
func (c *contract) mark(r capture.Resume) []heard {
	c.t.Helper()
	c.marks++
	id := -c.marks
	written := false
	if r.At != "" {
		c.db.Commit(c.t, Insert(id, "mark"))
		written = true
	}
	line := fmt.Sprintf("insert %d mark", id)
	seen := false
	return c.listen(r, func(h heard) bool {
		if !written {
			// A first start begins wherever the log is: the row comes after that.
			c.db.Commit(c.t, Insert(id, "mark"))
			written = true
		}
		seen = seen || slices.Contains(h.lines, line)
		return seen && h.at.InTx == nil
	})
}

// tell commits transactions after begin, and returns what the log says of them and
// where it started.
func (c *contract) tell(work func()) (from capture.Resume, hs []heard) {
	c.t.Helper()
	from = c.begin()
	work()
	return from, c.mark(from)
}

func (c *contract) expect(got []heard, txs ...[]Step) {
	c.t.Helper()
	var want []string
	for _, steps := range append(txs, []Step{Insert(-c.marks, "mark")}) {
		n := len(want)
		for _, s := range steps {
			want = append(want, s.want()...)
		}
		if len(want) > n {
			want = append(want, "commit")
		}
	}
	diff(c.t, lines(got), want)
}

func diff(t *testing.T, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		g, w := "nothing more", "nothing more"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Fatalf("event %d is %q, want %q", i, g, w)
		}
	}
}

func (c *contract) order() {
	txs := [][]Step{
		{Insert(1, "a"), InsertNull(2), Update(1, "b"), Update(1, "it's c")},
		{Delete(2)},
		{Insert(2, "again"), Delete(1), Insert(1, "again")},
		{Many(100, 1099)},
	}
	_, got := c.tell(func() {
		for _, steps := range txs {
			c.db.Commit(c.t, steps...)
		}
	})
	c.expect(got, txs...)
	// One transaction has one id, and another one another.
	id, seen := "", map[string]bool{}
	for _, h := range got {
		for i, line := range h.lines {
			if id == "" {
				if id = h.txs[i]; seen[id] {
					c.t.Errorf("two transactions are called %q", id)
				}
				seen[id] = true
			}
			if h.txs[i] != id {
				c.t.Errorf("%q is of transaction %q, and the one before of %q", line, h.txs[i], id)
			}
			if line == "commit" {
				id = ""
			}
		}
	}
}

func (c *contract) rollback() {
	_, got := c.tell(func() {
		c.db.Rollback(c.t, Insert(1, "never"), Many(100, 600))
		c.db.Commit(c.t, Insert(1, "a"))
		c.db.Rollback(c.t, Delete(1))
	})
	c.expect(got, []Step{Insert(1, "a")})
}

func (c *contract) rekey() {
	txs := [][]Step{{Insert(1, "a")}, {Rekey(1, 2), Rekey(2, 3)}, {Delete(3)}}
	_, got := c.tell(func() {
		for _, steps := range txs {
			c.db.Commit(c.t, steps...)
		}
	})
	c.expect(got, txs...)
}

func (c *contract) definition() {
	txs := [][]Step{{Insert(1, "old")}, {Insert(2, "old")}, {AddColumn()}, {Insert(3, "new")}, {Update(1, "new")}}
	from, got := c.tell(func() {
		for _, steps := range txs {
			c.db.Commit(c.t, steps...)
		}
	})
	c.expect(got, txs...)
	for _, hs := range [][]heard{got, c.replay(from, got)} {
		var old, renewed *capture.Table
		for _, h := range hs {
			for i, line := range h.lines {
				table := &old
				switch {
				case line == "commit" || strings.HasSuffix(line, "mark"):
					continue
				case strings.HasSuffix(line, "new"):
					table = &renewed
				}
				if *table == nil {
					*table = h.table[i]
				}
				if *table != h.table[i] {
					c.t.Errorf("%q has another definition than the row before", line)
				}
			}
		}
		if old == renewed {
			c.t.Fatal("the new column makes no new definition")
		}
		if old.Column("w") >= 0 || renewed.Column("w") < 0 {
			c.t.Errorf("the columns are %v and then %v", old.Columns, renewed.Columns)
		}
	}
}

// replay listens again from r, as far as hs went.
func (c *contract) replay(r capture.Resume, hs []heard) []heard {
	c.t.Helper()
	missing := len(lines(hs))
	return c.listen(r, func(h heard) bool {
		missing -= len(h.lines)
		return missing <= 0
	})
}

func (c *contract) resume() {
	from, whole := c.tell(func() {
		c.db.Commit(c.t, Insert(1, "a"), Insert(2, "b"))
		c.db.Commit(c.t, Many(100, 1099), Rekey(1, 3), Delete(2))
		c.db.Rollback(c.t, Many(2000, 2100))
		c.db.Commit(c.t, Update(3, "c"))
		c.db.Elsewhere(c.t)
		c.db.Commit(c.t, AddColumn())
		c.db.Commit(c.t, Many(3000, 3999))
	})
	seen := map[string]string{}
	for i, name := range names(whole) {
		if before, twice := seen[name]; twice && name != "" {
			c.t.Errorf("%q and %q are both called %s", before, lines(whole)[i], name)
		}
		seen[name] = lines(whole)[i]
	}
	again := c.replay(from, whole)
	diff(c.t, lines(again), lines(whole))
	diff(c.t, names(again), names(whole))
	cuts, done := 0, 0
	for _, h := range whole {
		done += len(h.lines)
		if h.at.InTx != nil {
			cuts++
		}
		rest := lines(whole)[done:]
		if len(rest) == 0 {
			break
		}
		got := c.listen(h.at, func() func(heard) bool {
			missing := len(rest)
			return func(h heard) bool {
				missing -= len(h.lines)
				return missing <= 0
			}
		}())
		diff(c.t, lines(got), rest)
		diff(c.t, names(got), names(whole)[done:])
	}
	if cuts == 0 {
		c.t.Error("no batch ends inside of a transaction")
	}
}

func (c *contract) heartbeat() {
	from := c.begin()
	c.db.Elsewhere(c.t)
	got := c.listen(from, func(h heard) bool { return h.at.At != from.At })
	if l := lines(got); len(l) > 0 {
		c.t.Errorf("the quiet table said %q", l)
	}
	after := got[len(got)-1].at
	c.expect(c.mark(after))
}

func (c *contract) release() {
	from := c.begin()
	c.db.Commit(c.t, Insert(1, "a"))
	c.db.Commit(c.t, Many(100, 1099))
	c.db.Commit(c.t, Insert(2, "last"))
	var batches []*capture.Batch
	var first [][]string
	err := c.stream(c.db.Source(c.t), from, func(b *capture.Batch) error {
		h, err := hear(b, from)
		if err != nil {
			return err
		}
		batches, first = append(batches, b), append(first, h.lines)
		if slices.Contains(h.lines, "insert 2 last") {
			return errStop
		}
		return nil
	})
	if !errors.Is(err, errStop) {
		c.t.Fatalf("Stream ended with %v", err)
	}
	for i, b := range batches {
		h, err := hear(b, from)
		if err != nil {
			c.t.Fatalf("batch %d, read again: %v", i, err)
		}
		diff(c.t, h.lines, first[i])
		b.Release()
	}
}

func (c *contract) emitFails() {
	from := c.begin()
	c.db.Commit(c.t, Insert(1, "a"))
	src := c.db.Source(c.t)
	failure := errors.New("no room")
	for range 2 { // it may be called again after any error
		err := c.stream(src, from, func(b *capture.Batch) error {
			b.Release()
			return failure
		})
		if !errors.Is(err, failure) {
			c.t.Errorf("Stream returns %v, want what emit returned", err)
		}
	}
}

func (c *contract) cancel() {
	from := c.begin()
	c.db.Commit(c.t, Insert(1, "a"))
	src := c.db.Source(c.t)
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	err := src.Stream(ctx, from, func(b *capture.Batch) error {
		if err := src.Acknowledge(ctx, b.End); err != nil {
			c.t.Errorf("Acknowledge: %v", err)
		}
		b.Release()
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		c.t.Errorf("Stream returns %v, want the context's error", err)
	}
	if err := src.Close(); err != nil {
		c.t.Errorf("Close: %v", err)
	}
	c.db.Source(c.t)
}
