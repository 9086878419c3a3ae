package snapshot

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/headwaterdb/headwater/capture"
)

// appendKey appends the canonical bytes of a row's key. A key column that the image
// does not carry is taken from the other image of the change.
func appendKey(b []byte, def *capture.Table, image, other capture.Row) ([]byte, error) {
	for _, c := range def.RowKey {
		v := &image[c]
		if !carried(v) {
			if other == nil || !carried(&other[c]) {
				return nil, fmt.Errorf("%w: the log of table %s does not carry its key column %s; let the log carry the old row's key (PostgreSQL: ALTER TABLE %s REPLICA IDENTITY DEFAULT, or FULL)",
					capture.ErrMisconfigured, def.ID, def.Columns[c].Name, quoted(def.ID))
			}
			v = &other[c]
		}
		b = v.AppendKey(b)
	}
	return b, nil
}

// carried reports whether the log carries the value. What it does not carry of an
// update's new image did not change.
func carried(v *capture.Value) bool {
	return v.Kind() != capture.Unchanged && v.Kind() != capture.Absent
}

// isPartial reports whether the event is an update that leaves out values of the new row.
func isPartial(ev *capture.Event) bool {
	if ev.Op != capture.Update {
		return false
	}
	for i := range ev.After {
		if !carried(&ev.After[i]) {
			return true
		}
	}
	return false
}

// fill completes the new image of ev from the row as it was before, whose definition
// is def. The values are copied into b.
func fill(b *capture.Batch, ev *capture.Event, def *capture.Table, row capture.Row) {
	for i := range ev.After {
		if carried(&ev.After[i]) {
			continue
		}
		c := i
		if ev.Table != def {
			col := &ev.Table.Columns[i]
			if c = def.Column(col.Name); c < 0 || !def.Columns[c].Type.Equal(&col.Type) {
				continue
			}
		}
		ev.After[i] = row[c].Clone(b)
	}
}

// An owed set names the keys that an attempt owes a row: an update gave a row a new key
// and left a column Unchanged, and the row may have moved from the part of the table
// that is yet to be read into the part that was read. Unless it is met again, the
// column's value has never reached Kafka; the attempt is then followed by another one
// that publishes the rows of these keys alone.
type owed struct {
	keys  map[string]struct{}
	bytes int
	many  bool // too many to remember: all rows are read again
	// settled says that a key was, since the attempt began.
	settled bool
}

// add owes key, and remembers at most max bytes.
func (o *owed) add(key []byte, max int) {
	if o.has(key) || o.many {
		return
	}
	if o.bytes += len(key) + 32; o.bytes > max {
		*o = owed{many: true}
		return
	}
	if o.keys == nil {
		o.keys = map[string]struct{}{}
	}
	o.keys[string(key)] = struct{}{}
}

func (o *owed) has(key []byte) bool {
	_, ok := o.keys[string(key)]
	return ok
}

// settle says that the key's row has reached Kafka whole, or is gone. It reports whether
// it was owed.
func (o *owed) settle(key []byte) bool {
	if !o.has(key) {
		return false
	}
	delete(o.keys, string(key))
	o.bytes -= len(key) + 32
	o.settled = true
	return true
}

// An entry holds so many owed keys, and their bytes, at most: it is written for each
// change that owes one.
const (
	fewKeys  = 64
	fewBytes = 4 << 10
)

// few returns the keys, sorted, or nil when there are too many for an entry.
func (o *owed) few() [][]byte {
	if len(o.keys) == 0 || len(o.keys) > fewKeys || o.bytes > fewBytes {
		return nil
	}
	keys := make([][]byte, 0, len(o.keys))
	for k := range o.keys {
		keys = append(keys, []byte(k))
	}
	slices.SortFunc(keys, bytes.Compare)
	return keys
}

// count is the number of keys, -1 when there are too many.
func (o *owed) count() int {
	if o.many {
		return -1
	}
	return len(o.keys)
}
