package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A change is one row change as the database's own log tells it, in commit order.
// Every insert and update of the workload stamps its row with a version from one
// sequence, so that op, key and version name a change.
type change struct {
	table, key string
	op         byte // 'c', 'u', 'd'
	ver        int64
}

// A record is what a reader of the topics sees, decoded by a library that is not
// headwater's. Records of one partition stand in offset order.
type record struct {
	table     string
	partition int32
	offset    int64
	key       string
	op        byte // as change, 'r' for a row that a snapshot read, 0 for a tombstone
	ver       int64
}

// state is what the tables hold in the end: version by key, by table.
type state map[string]map[string]int64

// keyless tables have no order per key: a row is known by its version alone.
func isKeyless(table string) bool { return strings.HasSuffix(table, "keyless") }

// check compares the topics with the log and the tables, and returns what is wrong.
//
//   - Each change of the log stands in the topics once, and the changes of one key in
//     the log's order, in one partition.
//   - A key has at most one snapshot row per attempt. attempts says how many a table
//     took: a row that was moved while the log left out one of its large columns may be
//     read anew, after a crash with its whole table (snapshot/DESIGN.md).
//   - The last record of each key says what the table says.
//   - A tombstone stands directly behind each delete.
func check(history []change, records []record, tables state, attempts map[string]int) (problems []string) {
	report := func(format string, args ...any) {
		problems = append(problems, fmt.Sprintf(format, args...))
	}
	type id struct{ table, key string }
	want, got := map[id][]change{}, map[id][]change{}
	for _, c := range history {
		if !isKeyless(c.table) {
			want[id{c.table, c.key}] = append(want[id{c.table, c.key}], c)
		}
	}
	sorted := slices.Clone(records)
	slices.SortStableFunc(sorted, func(a, b record) int {
		return cmpOr(strings.Compare(a.table, b.table), int(a.partition)-int(b.partition), int(a.offset-b.offset))
	})
	partitions := map[id]int32{}
	reads := map[id]int{}
	last := map[id]record{}
	for i, r := range sorted {
		k := id{r.table, r.key}
		if isKeyless(r.table) {
			continue
		}
		if p, ok := partitions[k]; ok && p != r.partition {
			report("%s %s: in partitions %d and %d", r.table, r.key, p, r.partition)
		}
		partitions[k] = r.partition
		switch r.op {
		case 0:
			if i == 0 || sorted[i-1].op != 'd' || sorted[i-1].key != r.key || sorted[i-1].table != r.table || sorted[i-1].partition != r.partition {
				report("%s %s: a tombstone at %d/%d without its delete", r.table, r.key, r.partition, r.offset)
			}
			continue
		case 'd':
			if i+1 == len(sorted) || sorted[i+1].op != 0 || sorted[i+1].key != r.key || sorted[i+1].partition != r.partition {
				report("%s %s: a delete at %d/%d without its tombstone", r.table, r.key, r.partition, r.offset)
			}
			got[k] = append(got[k], change{r.table, r.key, r.op, 0})
		case 'r':
			if reads[k]++; reads[k] > max(1, attempts[r.table]) {
				report("%s %s: read %d times in %d attempts", r.table, r.key, reads[k], max(1, attempts[r.table]))
			}
		default:
			got[k] = append(got[k], change{r.table, r.key, r.op, r.ver})
		}
		last[k] = r
	}
	lost, doubled := 0, 0
	for k, w := range want {
		g := got[k]
		if slices.Equal(w, g) {
			continue
		}
		switch {
		case len(g) < len(w):
			lost += len(w) - len(g)
		case len(g) > len(w):
			doubled += len(g) - len(w)
		}
		report("%s %s: the log says %s, the topic says %s", k.table, k.key, story(w), story(g))
	}
	for k, g := range got {
		if _, ok := want[k]; !ok {
			doubled += len(g)
			report("%s %s: the topic says %s, the log nothing", k.table, k.key, story(g))
		}
	}
	for table, rows := range tables {
		if isKeyless(table) {
			continue
		}
		for key, ver := range rows {
			r, ok := last[id{table, key}]
			if !ok {
				lost++
				report("%s %s: version %d stands in the table, nothing in the topic", table, key, ver)
			} else if r.op == 'd' || r.ver != ver {
				report("%s %s: the table has version %d, the last record is %c of version %d", table, key, ver, r.op, r.ver)
			}
		}
	}
	for k, r := range last {
		if _, ok := tables[k.table][k.key]; !ok && r.op != 'd' {
			report("%s %s: gone from the table, the last record is %c of version %d", k.table, k.key, r.op, r.ver)
		}
	}
	problems = append(problems, checkKeyless(history, sorted, tables)...)
	if lost+doubled > 0 {
		report("%d lost, %d doubled", lost, doubled)
	}
	return problems
}

// checkKeyless checks tables without a key: each row of the table is in the topic, each
// change of the log at most once, and at least once unless a snapshot read the row.
func checkKeyless(history []change, records []record, tables state) (problems []string) {
	type id struct {
		table string
		ver   int64
	}
	inLog, created, read := map[id]bool{}, map[id]int{}, map[id]int{}
	for _, c := range history {
		if isKeyless(c.table) {
			inLog[id{c.table, c.ver}] = true
		}
	}
	for _, r := range records {
		if !isKeyless(r.table) {
			continue
		}
		switch k := (id{r.table, r.ver}); r.op {
		case 'c':
			if created[k]++; created[k] > 1 || !inLog[k] {
				problems = append(problems, fmt.Sprintf("%s version %d: created %d times, in the log: %v", r.table, r.ver, created[k], inLog[k]))
			}
		case 'r':
			read[k]++
		}
	}
	for table, rows := range tables {
		if !isKeyless(table) {
			continue
		}
		for _, ver := range rows {
			k := id{table, ver}
			if created[k]+read[k] == 0 {
				problems = append(problems, fmt.Sprintf("%s version %d: lost", table, ver))
			}
			if created[k] > 0 && read[k] > 0 {
				problems = append(problems, fmt.Sprintf("%s version %d: read by the snapshot and created by the log", table, ver))
			}
		}
	}
	return problems
}

func cmpOr(c ...int) int {
	for _, v := range c {
		if v != 0 {
			return v
		}
	}
	return 0
}

func story(cs []change) string {
	var b strings.Builder
	for i, c := range cs {
		if i == 12 {
			fmt.Fprintf(&b, " … (%d)", len(cs))
			break
		}
		fmt.Fprintf(&b, " %c", c.op)
		if c.op != 'd' {
			fmt.Fprint(&b, c.ver)
		}
	}
	return strings.TrimSpace(b.String())
}

// A checker that finds nothing proves nothing: each kind of damage must be seen.
func TestChecker_SeesEveryDamage(t *testing.T) {
	history := []change{
		{"t", "1", 'u', 11},
		{"t", "2", 'd', 0},
		{"t", "3", 'c', 12},
		{"t", "3", 'u', 13},
		{"keyless", "", 'c', 20},
	}
	tables := state{"t": {"1": 11, "3": 13, "4": 4}, "keyless": {"a": 20, "b": 21}}
	good := []record{
		{"t", 0, 0, "4", 'r', 4},
		{"t", 0, 1, "1", 'u', 11},
		{"t", 0, 2, "2", 'r', 2},
		{"t", 0, 3, "2", 'd', 0},
		{"t", 0, 4, "2", 0, 0},
		{"t", 1, 0, "3", 'c', 12},
		{"t", 1, 1, "3", 'u', 13},
		{"keyless", 0, 0, "", 'c', 20},
		{"keyless", 0, 1, "", 'r', 21},
	}
	if p := check(history, good, tables, nil); len(p) > 0 {
		t.Fatalf("an undamaged topic is refused: %q", p)
	}
	for name, damage := range map[string]func([]record) []record{
		"a change lost":             func(r []record) []record { return slices.Delete(r, 1, 2) },
		"a snapshot row lost":       func(r []record) []record { return slices.Delete(r, 0, 1) },
		"a change doubled":          func(r []record) []record { return append(r, record{"t", 1, 9, "3", 'u', 13}) },
		"a change invented":         func(r []record) []record { return append(r, record{"t", 0, 9, "9", 'c', 99}) },
		"a row read twice":          func(r []record) []record { return append(r, record{"t", 0, 9, "4", 'r', 4}) },
		"an old row after a change": func(r []record) []record { return append(r, record{"t", 0, 9, "1", 'r', 1}) },
		"two changes swapped": func(r []record) []record {
			r[5].offset, r[6].offset = r[6].offset, r[5].offset
			return r
		},
		"a key in two partitions": func(r []record) []record { r[6].partition = 0; r[6].offset = 99; return r },
		"a tombstone lost":        func(r []record) []record { return slices.Delete(r, 4, 5) },
		"a tombstone alone":       func(r []record) []record { return append(r, record{"t", 0, 9, "1", 0, 0}) },
		"a keyless row lost":      func(r []record) []record { return slices.Delete(r, 8, 9) },
		"a keyless row doubled":   func(r []record) []record { return append(r, record{"keyless", 0, 9, "", 'c', 20}) },
		"a keyless row twice":     func(r []record) []record { return append(r, record{"keyless", 0, 9, "", 'r', 20}) },
	} {
		if p := check(history, damage(slices.Clone(good)), tables, nil); len(p) == 0 {
			t.Errorf("%s: not seen", name)
		}
	}
}
