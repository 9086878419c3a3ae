package main

import (
	"cmp"
	"fmt"
	"slices"
)

// A demoCount is what the topics hold, compared with the tables and with the shop's own
// record of what it did.
type demoCount struct {
	tables []demoTableCount // by name
	// Lost and doubled count rows and changes; wrong counts everything else that is not as
	// it must be. All zero is what headwater promises.
	lost, doubled, wrong int
	// problems says what each of them is.
	problems []string
}

// A demoTableCount is one table's part of it.
type demoTableCount struct {
	name                string
	inTable, inTopic    int // rows that live
	made, found         int // changes that the shop made, and those of them that are in the topic
	snapshot, tombstone int // further records
}

// rows are the sums over all tables.
func (c *demoCount) rows() (inTables, inTopics int) {
	for _, t := range c.tables {
		inTables += t.inTable
		inTopics += t.inTopic
	}
	return inTables, inTopics
}

// ok reports whether nothing is wrong.
func (c *demoCount) ok() bool {
	tables, topics := c.rows()
	return tables == topics && c.lost == 0 && c.doubled == 0 && c.wrong == 0 && len(c.problems) == 0
}

// verdict is the line that everything was for.
func (c *demoCount) verdict() string {
	tables, topics := c.rows()
	is := "="
	if tables != topics {
		is = "≠"
	}
	s := fmt.Sprintf("%d rows in tables %s %d rows in topics, %d lost, %d doubled", tables, is, topics, c.lost, c.doubled)
	if c.wrong > 0 {
		s += fmt.Sprintf(", %d wrong", c.wrong)
	}
	return s
}

type demoRowID struct{ table, key string }

// countDemo compares.
//
//   - A row lives in a topic when the last record of its key is no delete. Each row of a
//     table lives in its topic with the same revision, and no other row does.
//   - Each change that the shop made is in its topic once, those of one row in the order
//     and in one partition.
//   - A snapshot reads a row once at most.
//   - A tombstone stands behind each delete, and nowhere else.
func countDemo(tables map[string]map[string]int64, made []demoChange, records []*demoRecord) *demoCount {
	c := &demoCount{}
	byTable := map[string]*demoTableCount{}
	for name, rows := range tables {
		byTable[name] = &demoTableCount{name: name, inTable: len(rows)}
	}
	want := map[demoRowID][]demoChange{}
	for _, ch := range made {
		byTable[ch.table].made++
		id := demoRowID{ch.table, ch.key}
		want[id] = append(want[id], ch)
	}
	seen := map[demoRowID][]*demoRecord{}
	for _, r := range c.ordered(records) {
		if byTable[r.table] == nil {
			c.bad(&c.wrong, "a topic of %s, which is none of the shop's tables", r.table)
			byTable[r.table] = &demoTableCount{name: r.table}
		}
		id := demoRowID{r.table, r.key}
		seen[id] = append(seen[id], r)
	}
	for id, records := range seen {
		c.row(byTable[id.table], id, records, want[id], tables[id.table])
	}
	for id, changes := range want {
		if seen[id] == nil {
			c.lost += len(changes)
			c.problems = append(c.problems, fmt.Sprintf("%s %s: %d changes made, nothing in the topic", id.table, id.key, len(changes)))
		}
	}
	for table, rows := range tables {
		for key := range rows {
			if id := (demoRowID{table, key}); seen[id] == nil && want[id] == nil {
				c.bad(&c.lost, "%s %s: a row of the table, nothing in the topic", table, key)
			}
		}
	}
	for _, t := range byTable {
		c.tables = append(c.tables, *t)
	}
	slices.SortFunc(c.tables, func(a, b demoTableCount) int { return cmp.Compare(a.name, b.name) })
	slices.Sort(c.problems)
	return c
}

// ordered is the records by partition and offset, and checks the tombstones on the way.
func (c *demoCount) ordered(records []*demoRecord) []*demoRecord {
	sorted := slices.SortedFunc(slices.Values(records), func(a, b *demoRecord) int {
		return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.partition, b.partition), cmp.Compare(a.offset, b.offset))
	})
	together := func(a, b *demoRecord) bool {
		return a.table == b.table && a.partition == b.partition && a.key == b.key
	}
	for i, r := range sorted {
		if r.op == 'd' && (i+1 == len(sorted) || sorted[i+1].op != 0 || !together(r, sorted[i+1])) {
			c.bad(&c.wrong, "%s %s: no tombstone behind its delete", r.table, r.key)
		}
		if r.op == 0 && (i == 0 || sorted[i-1].op != 'd' || !together(r, sorted[i-1])) {
			c.bad(&c.wrong, "%s %s: a tombstone without a delete", r.table, r.key)
		}
	}
	return sorted
}

// row compares what the topic has of one row with the changes made to it and with what
// the table holds.
func (c *demoCount) row(t *demoTableCount, id demoRowID, records []*demoRecord, want []demoChange, held map[string]int64) {
	var got []demoChange
	var last *demoRecord
	reads := 0
	for _, r := range records {
		if r.partition != records[0].partition {
			c.bad(&c.wrong, "%s %s: in partitions %d and %d", id.table, id.key, records[0].partition, r.partition)
		}
		switch r.op {
		case 0:
			t.tombstone++
			continue
		case 'r':
			t.snapshot++
			if reads++; reads > 1 {
				c.bad(&c.doubled, "%s %s: read by the snapshot %d times", id.table, id.key, reads)
			}
		default:
			got = append(got, demoChange{r.table, r.key, r.op, r.revision})
		}
		last = r
	}
	c.changes(t, id, got, want)

	revision, inTable := held[id.key]
	lives := last != nil && last.op != 'd'
	if lives {
		t.inTopic++
	}
	switch {
	case inTable && last == nil:
		c.bad(&c.lost, "%s %s: a row of the table, only a tombstone in the topic", id.table, id.key)
	case inTable && (!lives || last.revision != revision):
		c.bad(&c.wrong, "%s %s: the table has revision %d, the topic's last word is %c of revision %d", id.table, id.key, revision, last.op, last.revision)
	case !inTable && lives:
		c.bad(&c.wrong, "%s %s: gone from the table, lives in the topic", id.table, id.key)
	}
}

// changes compares the changes of one row that were made with those that the topic has.
func (c *demoCount) changes(t *demoTableCount, id demoRowID, got, want []demoChange) {
	if slices.Equal(got, want) {
		t.found += len(want)
		return
	}
	times := map[demoChange]int{}
	for _, ch := range got {
		times[ch]++
	}
	whole := true
	for _, ch := range want {
		if times[ch] == 0 {
			c.bad(&c.lost, "%s %s: %c of revision %d is not in the topic", id.table, id.key, ch.op, ch.revision)
			whole = false
			continue
		}
		times[ch]--
		t.found++
	}
	for ch, n := range times {
		if n > 0 {
			c.doubled += n
			c.problems = append(c.problems, fmt.Sprintf("%s %s: %c of revision %d is in the topic %d times more than it was made", id.table, id.key, ch.op, ch.revision, n))
			whole = false
		}
	}
	if whole {
		c.bad(&c.wrong, "%s %s: its changes are not in the order in which they were made", id.table, id.key)
	}
}

func (c *demoCount) bad(count *int, format string, args ...any) {
	*count++
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}
