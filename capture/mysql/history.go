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
	end       int    // the column of the period's end
	name      string // of that
	// hidden is the number of columns, up to the period's end, that nobody declared.
	hidden int
	// doubt lists columns that ended a period if the table was versioned when its rows were
	// logged, which the catalog does not tell any more.
	doubt []int
}

// readPeriod asks whether a table is system-versioned, and how its period is called; nil if it
// is not. The result lacks what only the log tells, see [history.of].
func readPeriod(ctx context.Context, db *conn, id capture.TableID) (*history, error) {
	// A join of the two would have MariaDB open every table that there is.
	rows, err := db.query(ctx, "SELECT '', '' FROM information_schema.TABLES WHERE TABLE_TYPE = 'SYSTEM VERSIONED' AND "+named(id)+
		" UNION ALL SELECT COLUMN_NAME, GENERATION_EXPRESSION FROM information_schema.COLUMNS WHERE GENERATION_EXPRESSION IN ('ROW START', 'ROW END') AND "+named(id))
	if err != nil {
		return nil, fmt.Errorf("read the catalog about %s: %w", id, err)
	}
	versioned := false
	today := &history{name: "row_end", hidden: 2}
	for _, r := range rows {
		switch r[1] {
		case "":
			versioned = true
		case "ROW END":
			today.name, today.hidden = r[0], 0
		}
	}
	if !versioned {
		return nil, nil
	}
	return today, nil
}

// historyOf says whether a table was system-versioned when the rows were logged: by today's
// catalog, or by what it said of an earlier definition, in so far as the log does not
// contradict. Where versions have a primary key, the period's end is the last of it.
func historyOf(p *plan, tm *tableMap, today *history, earlier *logTable) (history, error) {
	if today != nil {
		if h := *today; h.of(tm) {
			return h, nil
		}
	}
	if earlier != nil && earlier.history.versioned {
		if h := earlier.history; h.of(tm) {
			return h, nil
		}
	}
	return doubtful(p, tm, earlier)
}

// of says whether the log may be of a table with the history h, and takes its columns from
// it.
func (h *history) of(tm *tableMap) bool {
	h.end = slices.IndexFunc(tm.columns, func(c logColumn) bool { return strings.EqualFold(c.name, h.name) })
	h.versioned = h.end >= 0 && tm.columns[h.end].isMoment() && (len(tm.key) == 0 || tm.key[len(tm.key)-1] == h.end) && (h.hidden == 0 || h.end == tm.lastColumn())
	return h.versioned
}

// isMoment says whether a column may be the start or the end of a period.
func (c *logColumn) isMoment() bool {
	return c.typ == typeTimestamp2 && c.meta == 6 || c.typ == typeLongLong && c.unsigned
}

// doubtful looks for columns of another moment than the catalog's that could have ended a
// period. It refuses those that nearly always do; of the others, rows tell.
func doubtful(p *plan, tm *tableMap, earlier *logTable) (history, error) {
	var h history
	keyed := len(tm.key) > 0
	for _, i := range p.drift {
		c := &tm.columns[i]
		if !c.isMoment() || keyed && (len(tm.key) == 1 || tm.key[len(tm.key)-1] != i) || earlier.knows(c, keyed) {
			continue
		}
		start := func(j int) bool {
			return j != i && tm.columns[j].typ == c.typ && tm.columns[j].isMoment() && !slices.Contains(tm.key, j)
		}
		pair := false
		for j := range tm.columns {
			pair = pair || start(j)
		}
		if !pair {
			continue
		}
		if c.typ == typeTimestamp2 && (keyed || strings.EqualFold(c.name, "row_end")) {
			return h, errDoubt(tm.table, c.name)
		}
		h.doubt = append(h.doubt, i)
	}
	return h, nil
}

// knows says that a column was seen before in the same place, when it ended no period.
func (t *logTable) knows(c *logColumn, keyed bool) bool {
	if t == nil || t.plan == nil || t.history.versioned || t.history.doubt != nil {
		return false
	}
	e := t.plan.column(c.name)
	if e == nil || !e.sameForm(c) || keyed != (len(t.tm.key) > 0) {
		return false
	}
	return !keyed || t.tm.columns[t.tm.key[len(t.tm.key)-1]].name == c.name
}

func errDoubt(id capture.TableID, column string) error {
	return fmt.Errorf("%w: %s was changed or dropped since its rows were logged, and whether it was system-versioned then, with column %s as the end of a row's period, neither the log nor the catalog tells; remedy: %s",
		capture.ErrUnreadable, id, column, readAnew)
}

// check stops at a row that looks like one of a system-versioned table, where that is in
// doubt: the present ones end with the last moment.
func (h *history) check(t *capture.Table, before, after capture.Row) error {
	for _, i := range h.doubt {
		for _, row := range []capture.Row{before, after} {
			if row != nil && isLast(&row[i]) {
				return errDoubt(t.ID, t.Columns[i].Name)
			}
		}
	}
	return nil
}

// present says whether the row's period has not ended.
func (h *history) present(row capture.Row) bool {
	switch v := &row[h.end]; v.Kind() {
	case capture.TimestampTZ, capture.Uint:
		return isLast(v)
	}
	return true // a minimal image leaves it out: it is as it was
}

// isLast says whether v is the last moment, or the last transaction, that its type has: a
// period that has not ended ends with that.
func isLast(v *capture.Value) bool {
	switch v.Kind() {
	case capture.TimestampTZ:
		const last32, lastUnsigned32 = 1<<31*1_000_000 - 1, 1<<32*1_000_000 - 1
		return v.Int() == last32 || v.Int() == lastUnsigned32
	case capture.Uint:
		return v.Uint() == 1<<64-1
	}
	return false
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
	return op, before, after, true
}
