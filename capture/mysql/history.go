package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/headwaterdb/headwater/capture"
)

// MariaDB keeps the old rows of a system-versioned table in the table: an update gives
// the row a new period and inserts the old one, and a delete ends the period. The log has
// all of that as rows. We show the table as a SELECT does: rows whose period has not
// ended. Where the period's columns were not declared they are hidden, and stay so.

// A history is how the present rows of a system-versioned table are told from old ones.
// The zero value is a table without history.
type history struct {
	versioned bool
	end       int // the column of the period's end
	// hidden is the number of columns at the end that nobody declared.
	hidden int
}

// readHistory asks whether a table is system-versioned.
func readHistory(ctx context.Context, db *conn, id capture.TableID, columns []logColumn) (history, error) {
	var h history
	rows, err := db.query(ctx, `SELECT c.COLUMN_NAME, c.GENERATION_EXPRESSION FROM information_schema.TABLES t LEFT JOIN information_schema.COLUMNS c
		ON c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME AND c.GENERATION_EXPRESSION IN ('ROW START', 'ROW END')
		WHERE t.TABLE_TYPE = 'SYSTEM VERSIONED' AND `+strings.ReplaceAll(named(id), "TABLE_", "t.TABLE_"))
	if err != nil {
		return h, fmt.Errorf("read the catalog about %s: %w", id, err)
	}
	if len(rows) == 0 {
		return h, nil
	}
	index := func(name string) int {
		return slices.IndexFunc(columns, func(c logColumn) bool { return strings.EqualFold(c.name, name) })
	}
	end := "row_end"
	for _, r := range rows {
		if r[1] == "ROW END" {
			end = r[0]
		}
	}
	if h.end = index(end); h.end < 0 {
		return h, nil // rows of a time before it was versioned
	}
	h.versioned = true
	if rows[0][0] == "" {
		h.hidden = 2
	}
	return h, nil
}

// table returns the definition that is shown.
func (h *history) table(t *capture.Table) *capture.Table {
	if !h.versioned {
		return t
	}
	out := *t
	out.Columns = t.Columns[:len(t.Columns)-h.hidden]
	// The server adds the period's end to keys.
	less := func(key []int) []int {
		return slices.DeleteFunc(slices.Clone(key), func(i int) bool { return i == h.end })
	}
	out.Key, out.RowKey = less(t.Key), less(t.RowKey)
	return &out
}

// present says whether the row's period has not ended: it ends with the last moment, or
// the last transaction, that the type has.
func (h *history) present(row capture.Row) bool {
	v := &row[h.end]
	switch v.Kind() {
	case capture.TimestampTZ:
		const last32, lastUnsigned32 = 1<<31*1_000_000 - 1, 1<<32*1_000_000 - 1
		return v.Int() == last32 || v.Int() == lastUnsigned32
	case capture.Uint:
		return v.Uint() == 1<<64-1
	}
	return true
}

// view says what a change of the stored rows is to whoever looks at the present ones.
func (h *history) view(op capture.Op, before, after capture.Row) (_ capture.Op, _, _ capture.Row, shown bool) {
	if !h.versioned {
		return op, before, after, true
	}
	if before != nil && !h.present(before) || before == nil && !h.present(after) {
		return op, nil, nil, false
	}
	if op == capture.Update && !h.present(after) {
		op, after = capture.Delete, nil
	}
	less := func(r capture.Row) capture.Row {
		if r == nil {
			return nil
		}
		return r[:len(r)-h.hidden]
	}
	return op, less(before), less(after), true
}
