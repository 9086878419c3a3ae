package snapshot

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/headwaterdb/headwater/capture"
)

// entryVersion is the version of the stored form that this program writes.
const entryVersion = 1

// wholeKey is the key of the note about the snapshot as a whole; tablePrefix begins
// those about one table.
const (
	wholeKey    = "snap"
	tablePrefix = "s/"
)

// States of a table and of the snapshot.
const (
	stateWaiting = "waiting" // nothing of it was read yet
	stateReading = "reading"
	stateDone    = "done"
)

// A tableEntry is the checkpoint's note of how far one table is read: s/<table>.
type tableEntry struct {
	V           int    `json:"v"`
	Incarnation string `json:"incarnation"`
	Table       string `json:"table"` // quoted, for people
	State       string `json:"state"`
	Attempt     int    `json:"attempt"`
	// Key are the columns that the table is cut by, with their types once a chunk has
	// shown them.
	Key []keyColumn `json:"key"`
	// Last is the last key that was read, not the last that was emitted: the rows at the
	// end of a chunk may all have been dropped.
	Last    []string `json:"last,omitempty"`
	Chunk   int      `json:"chunk"`   // chunks done in this attempt
	Rows    int64    `json:"rows"`    // rows read in this attempt
	Emitted int64    `json:"emitted"` // rows published in this attempt
	// Owed counts the keys that this attempt owes a row (see owed); -1 when there are
	// too many to count.
	Owed int `json:"owed,omitempty"`
	// OwedKeys are these keys in canonical form, sorted, as long as they are few: then the
	// attempt goes on after a crash.
	OwedKeys [][]byte `json:"owed_keys,omitempty"`
	// Only says that this attempt publishes the rows of owed keys alone.
	Only bool `json:"only,omitempty"`
	// Truncated counts the truncates of the table that the log showed while tables were
	// read. They are not published by default, so its topic may show rows that are gone.
	Truncated int `json:"truncated,omitempty"`
}

// A keyColumn is one column of the key that a table is cut by.
type keyColumn struct {
	Name string `json:"name"`
	Type string `json:"type,omitempty"`
}

// A wholeEntry is the checkpoint's note about the snapshot as a whole: snap.
type wholeEntry struct {
	V       int    `json:"v"`
	Mode    Mode   `json:"mode"`
	State   string `json:"state"` // reading or done
	Attempt int    `json:"attempt"`
	Emitted int64  `json:"emitted"` // rows published in this attempt
}

// note takes down what the attempt owes.
func (e *tableEntry) note(o *owed, only bool) {
	e.Owed, e.OwedKeys, e.Only = o.count(), o.few(), only
}

// entryKey is the key of a table's entry. The name is quoted, so that a dot in a name
// cannot make two tables one.
func entryKey(id capture.TableID) string { return tablePrefix + quoted(id) }

func quoted(id capture.TableID) string {
	quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	return quote(id.Schema) + "." + quote(id.Name)
}

// unquoted is what quoted was given.
func unquoted(s string) (id capture.TableID, ok bool) {
	name := func() (string, bool) {
		if !strings.HasPrefix(s, `"`) {
			return "", false
		}
		for i := 1; i < len(s); i++ {
			switch {
			case s[i] != '"':
			case strings.HasPrefix(s[i+1:], `"`):
				i++
			default:
				text := strings.ReplaceAll(s[1:i], `""`, `"`)
				s = s[i+1:]
				return text, true
			}
		}
		return "", false
	}
	var first, dot, second bool
	id.Schema, first = name()
	s, dot = strings.CutPrefix(s, ".")
	id.Name, second = name()
	return id, first && dot && second && s == ""
}

// entry returns the stored form under key.
func entry(key string, v any) capture.Entry {
	b, err := json.Marshal(v)
	if err != nil {
		panic("snapshot: an entry is not JSON: " + err.Error()) // strings and numbers always are
	}
	return capture.Entry{Key: key, Value: b}
}

// notes are the entries of this package in a checkpoint.
type notes struct {
	whole  *wholeEntry
	tables map[string]tableEntry // by entry key
}

// Done reports whether the entries of a checkpoint say that every table is read.
func Done(entries map[string][]byte) bool {
	n, err := parseNotes(entries)
	return err == nil && n.whole != nil && n.whole.State == stateDone
}

// Again returns the entries that make the next Stream read tables from their beginning,
// each as a new attempt, whatever entries, those of the checkpoint, say of them. Globs
// select the tables as capture.Tables.Include does; one that selects none of those that
// were read or begun is an error, which names them. tables are the selected ones.
func Again(entries map[string][]byte, globs []string) (changed map[string][]byte, tables []string, err error) {
	n, err := parseNotes(entries)
	if err != nil {
		return nil, nil, err
	}
	var known []capture.TableID
	changed = map[string][]byte{}
	include := capture.Tables{Include: globs}
	filter := include.Filter()
	for _, key := range slices.Sorted(maps.Keys(n.tables)) {
		id, ok := unquoted(strings.TrimPrefix(key, tablePrefix))
		if !ok {
			return nil, nil, fmt.Errorf("%w: its entry %s names no table", capture.ErrPositionLost, key)
		}
		known = append(known, id)
		if !filter.Selects(id) {
			continue
		}
		old := n.tables[key]
		e := tableEntry{
			V: entryVersion, Incarnation: old.Incarnation, Table: old.Table, State: stateWaiting,
			Attempt: old.Attempt, Key: old.Key, Truncated: old.Truncated,
		}
		if old.State != stateWaiting {
			e.Attempt++
		}
		changed[key] = entry(key, &e).Value
		tables = append(tables, id.String())
	}
	for i, found := range filter.Included(known) {
		if !found {
			return nil, nil, fmt.Errorf("no table that was read is called %s; there are %s", globs[i], list(known))
		}
	}
	return changed, tables, nil
}

// list names tables for people.
func list(ids []capture.TableID) string {
	if len(ids) == 0 {
		return "none"
	}
	const most = 20
	var b strings.Builder
	for i, id := range ids {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(ids)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(id.String())
	}
	return b.String()
}

// parseNotes finds this package's entries among all of a checkpoint. An entry of a
// version that this program does not know is an error that matches ErrPositionLost.
func parseNotes(entries map[string][]byte) (notes, error) {
	n := notes{tables: map[string]tableEntry{}}
	for key, value := range entries {
		switch {
		case key == wholeKey:
			var e wholeEntry
			if err := parse(key, value, &e); err != nil {
				return notes{}, err
			}
			n.whole = &e
		case strings.HasPrefix(key, tablePrefix):
			var e tableEntry
			if err := parse(key, value, &e); err != nil {
				return notes{}, err
			}
			n.tables[key] = e
		}
	}
	return n, nil
}

func parse(key string, value []byte, e any) error {
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return fmt.Errorf("%w: its entry %s is not JSON: %w", capture.ErrPositionLost, key, err)
	}
	if head.V != entryVersion {
		return fmt.Errorf("%w: the version of its entry %s is %d and this headwater reads %d; run the version that wrote it, or a newer one", capture.ErrPositionLost, key, head.V, entryVersion)
	}
	if err := json.Unmarshal(value, e); err != nil {
		return fmt.Errorf("%w: its entry %s: %w", capture.ErrPositionLost, key, err)
	}
	return nil
}

// newEntry is the entry of a table of which nothing was read.
func newEntry(t *Target) tableEntry {
	e := tableEntry{V: entryVersion, Incarnation: t.Incarnation, Table: quoted(t.ID), State: stateWaiting, Attempt: 1, Key: []keyColumn{}}
	for _, name := range t.Key {
		e.Key = append(e.Key, keyColumn{Name: name})
	}
	return e
}

// resume is the entry to go on with, given what the checkpoint says about the table.
// An attempt is gone on with when the table is the same, is cut by the same columns,
// has a key to go on after, and owes no rows that were known in memory only.
func (e tableEntry) resume(t *Target) tableEntry {
	again := newEntry(t)
	again.Attempt, again.Truncated = e.Attempt+1, e.Truncated
	switch {
	case e.Incarnation != t.Incarnation:
		again.Truncated = 0
		return again
	case e.State == stateDone:
		return e
	case e.State == stateWaiting:
		again.Attempt = e.Attempt
		return again
	case len(t.Key) == 0, e.Owed != len(e.OwedKeys), !e.cutBy(t.Key):
		return again
	}
	return e
}

// cutBy reports whether the table is cut by the named columns.
func (e *tableEntry) cutBy(names []string) bool {
	return slices.EqualFunc(e.Key, names, func(c keyColumn, name string) bool { return c.Name == name })
}

// keyOf is the key that t's rows are identified by.
func keyOf(t *capture.Table) []keyColumn {
	key := make([]keyColumn, len(t.RowKey))
	for i, c := range t.RowKey {
		key[i] = keyColumn{Name: t.Columns[c].Name, Type: t.Columns[c].Type.Name}
	}
	return key
}
