package snapshot

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/headwaterdb/headwater/capture"
)

// A consumer holds what somebody who reads the topics knows. It shares no code with the
// merge.
type consumer struct {
	m     *model
	known map[*modelTable]map[int64]consumed
	bag   map[string]int // rows of keyless tables
	truth map[*modelTable]map[int64]modelRow
	next  int // the log's next change, of all of them in order
	reads map[string]map[int64]bool
	rows  int // read
	// attempt is the keyless table's; the model has at most one such table.
	attempt int
}

// consumed is a row as the topic shows it.
type consumed struct {
	a, big int64
	hasBig bool
}

// check judges everything that was published: each change of the log once and in order,
// each row read as it is at its place in the log and once an attempt, and, when the
// story is at its end, the last record of each key equal to the table.
func (m *model) check(end bool) error {
	c := &consumer{
		m: m, known: map[*modelTable]map[int64]consumed{}, bag: map[string]int{},
		truth: map[*modelTable]map[int64]modelRow{}, reads: map[string]map[int64]bool{},
	}
	for _, t := range m.tables {
		c.known[t], c.truth[t] = map[int64]consumed{}, maps.Clone(m.begin[t])
	}
	var ops []*modelOp
	for _, tx := range m.log {
		for i := range tx.ops {
			ops = append(ops, &tx.ops[i])
		}
	}
	for n, b := range m.batches {
		if err := c.batch(b, ops); err != nil {
			return fmt.Errorf("batch %d: %w", n, err)
		}
	}
	if !end {
		return nil
	}
	for ; c.next < len(ops); c.next++ {
		if !ops[c.next].t.keyless {
			return fmt.Errorf("change %d was not published", ops[c.next].seq)
		}
	}
	return c.final()
}

func (c *consumer) batch(b modelBatch, ops []*modelOp) error {
	// The attempt that the batch's rows belong to.
	var e tableEntry
	for i := range b.events {
		for _, entry := range b.events[i].Entries {
			if b.events[i].Kind == capture.Commit && entry.Key != wholeKey {
				e = tableEntry{}
				if err := json.Unmarshal(entry.Value, &e); err != nil {
					return err
				}
			}
		}
	}
	if e.Attempt > 1 && e.Chunk == 0 { // the commit begins another one
		e.Attempt--
	}
	// Another attempt at a keyless table makes the rows of the one before void.
	if keyless := len(e.Key) == 0; keyless && e.Attempt > c.attempt {
		c.attempt = e.Attempt
		clear(c.bag)
	}
	for i := range b.events {
		ev := &b.events[i]
		if ev.Kind != capture.Change {
			continue
		}
		t := c.m.table(ev.Table.ID)
		if ev.Op == capture.Read {
			if err := c.read(t, ev, e.Attempt); err != nil {
				return err
			}
			continue
		}
		for c.next < len(ops) && ops[c.next].seq != int(ev.Time) && ops[c.next].t.keyless {
			ops[c.next].applyTo(c.truth[ops[c.next].t])
			c.next++
		}
		if c.next == len(ops) || ops[c.next].seq != int(ev.Time) {
			return fmt.Errorf("change %d is out of order or was published before", ev.Time)
		}
		op := ops[c.next]
		c.next++
		op.applyTo(c.truth[t])
		if err := c.change(t, op, ev); err != nil {
			return err
		}
	}
	return nil
}

// cell is a value of the new image.
func cell(ev *capture.Event, column string) *capture.Value {
	return &ev.After[ev.Table.Column(column)]
}

func bagKey(t *modelTable, r modelRow) string { return fmt.Sprint(t.id, r) }

func (c *consumer) read(t *modelTable, ev *capture.Event, attempt int) error {
	row := modelRow{k: keyIn(ev), a: cell(ev, "a").Int()}
	var err error
	if row.big, err = strconv.ParseInt(string(cell(ev, "big").Bytes()), 10, 64); err != nil {
		return fmt.Errorf("read row of %s: %w", t.id, err)
	}
	// A snapshot of one row calls it the last.
	if isFirst := ev.Snapshot == capture.SnapshotFirst; isFirst == (c.rows > 0) && ev.Snapshot != capture.SnapshotLast {
		return fmt.Errorf("row %d of the snapshot is marked %d", c.rows, ev.Snapshot)
	}
	c.rows++
	at := fmt.Sprint(t.id, attempt)
	if c.reads[at] == nil {
		c.reads[at] = map[int64]bool{}
	}
	if t.keyless {
		c.bag[bagKey(t, row)]++
		return nil
	}
	if c.reads[at][row.k] {
		return fmt.Errorf("row %d of %s was read twice by attempt %d", row.k, t.id, attempt)
	}
	c.reads[at][row.k] = true
	if is, ok := c.truth[t][row.k]; !ok || is != row {
		return fmt.Errorf("row %v of %s was read where the log says %v, %v", row, t.id, is, ok)
	}
	c.known[t][row.k] = consumed{row.a, row.big, true}
	return nil
}

func (c *consumer) change(t *modelTable, op *modelOp, ev *capture.Event) error {
	if t.keyless {
		switch op.op {
		case capture.Truncate:
			clear(c.bag)
		case capture.Delete, capture.Update:
			c.bag[bagKey(t, op.before)]--
		}
		if op.op == capture.Insert || op.op == capture.Update {
			c.bag[bagKey(t, op.after)]++
		}
		return nil
	}
	known := c.known[t]
	switch op.op {
	case capture.Truncate:
		clear(known)
	case capture.Delete:
		delete(known, op.before.k)
	default:
		row := consumed{a: cell(ev, "a").Int()}
		switch {
		case cell(ev, "big").Kind() == capture.String:
			big, err := strconv.ParseInt(string(cell(ev, "big").Bytes()), 10, 64)
			if err != nil || big != op.after.big {
				return fmt.Errorf("change %d of %s has big = %d, and made it %d", op.seq, t.id, big, op.after.big)
			}
			row.big, row.hasBig = big, true
		default: // as the key's last record says, if it does
			row.big, row.hasBig = known[op.before.k].big, known[op.before.k].hasBig
		}
		if op.op == capture.Update {
			delete(known, op.before.k)
		}
		known[op.after.k] = row
	}
	return nil
}

// final compares with the tables.
func (c *consumer) final() error {
	bag := map[string]int{}
	for _, t := range c.m.tables {
		for _, row := range t.rows {
			bag[bagKey(t, row)]++
		}
		if t.keyless {
			continue
		}
		for _, k := range slices.Sorted(maps.Keys(t.rows)) {
			row, got := t.rows[k], c.known[t][k]
			delete(bag, bagKey(t, row))
			if got != (consumed{row.a, row.big, true}) {
				return fmt.Errorf("row %d of %s is %v, and its topic says %+v", k, t.id, row, got)
			}
			delete(c.known[t], k)
		}
		if len(c.known[t]) > 0 {
			return fmt.Errorf("topic of %s has rows that the table has not: %v", t.id, c.known[t])
		}
	}
	maps.DeleteFunc(c.bag, func(_ string, n int) bool { return n == 0 })
	if !maps.Equal(c.bag, bag) {
		return fmt.Errorf("keyless rows are %v, and the topic says %v", bag, c.bag)
	}
	return nil
}
