package capturetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

// scripted is a DB whose log is a script.
type scripted struct {
	src   *Source
	table *capture.Table
	rows  map[int64]string
	next  int
}

func itemsTable(columns ...string) *capture.Table {
	t := &capture.Table{
		ID: capture.TableID{Schema: "public", Name: "items"}, Key: []int{0}, RowKey: []int{0},
		Origin: &capture.Origin{Connector: "script"},
	}
	for _, c := range columns {
		kind := capture.TypeString
		if c == "id" {
			kind = capture.TypeInt64
		}
		t.Columns = append(t.Columns, capture.Column{Name: c, Type: capture.Type{Kind: kind}, Nullable: c != "id"})
	}
	return t
}

func openScript(*testing.T) DB {
	s := &scripted{src: NewSource(), table: itemsTable("id", "v"), rows: map[int64]string{}}
	s.src.CutEvery(7)
	s.Elsewhere(nil)
	return s
}

func (s *scripted) Source(*testing.T) capture.Source { return s.src }
func (s *scripted) Elsewhere(*testing.T)             { s.src.Append(Tx{}) }
func (s *scripted) Rollback(*testing.T, ...Step)     {}

func (s *scripted) Commit(_ *testing.T, steps ...Step) {
	s.next++
	tx := Tx{ID: fmt.Sprint(s.next), Num: uint64(s.next), Time: int64(s.next)}
	row := func(id int64, v *string) capture.Row {
		r := make(capture.Row, len(s.table.Columns))
		r[0] = capture.IntValue(id)
		if v != nil {
			r[1] = capture.TextValue(*v)
		}
		return r
	}
	add := func(op capture.Op, before, after capture.Row) {
		tx.Changes = append(tx.Changes, Change{Op: op, Table: s.table, Before: before, After: after})
	}
	for _, st := range steps {
		switch st.Kind {
		case "insert":
			add(capture.Insert, nil, row(st.ID, st.V))
		case "update":
			add(capture.Update, nil, row(st.ID, st.V))
		case "rekey":
			add(capture.Update, row(st.ID, nil), row(st.NewID, nil))
		case "delete":
			add(capture.Delete, row(st.ID, nil), nil)
		case "many":
			for id := st.ID; id <= st.NewID; id++ {
				v := manyValue(id)
				add(capture.Insert, nil, row(id, &v))
			}
		case "add column":
			s.table = itemsTable("id", "v", "w")
		}
	}
	if len(tx.Changes) == 0 {
		tx.ID = ""
	}
	s.src.Append(tx)
}

func TestSource_KeepsTheContract(t *testing.T) { Run(t, openScript) }

func TestSource_FailsWhereTold(t *testing.T) {
	s := openScript(t).(*scripted)
	s.Commit(t, Insert(1, "a"), Insert(2, "b"), Insert(3, "c"))
	failure := errors.New("told to")
	s.src.FailAt(4, failure) // the heartbeat's commit is the first event
	var got []string
	var at capture.Resume
	emit := func(b *capture.Batch) error {
		defer b.Release()
		h, err := hear(b, at)
		got, at = append(got, h.lines...), h.at
		if err == nil && slices.Contains(got, "commit") {
			return errStop
		}
		return err
	}
	if err := s.src.Stream(t.Context(), at, emit); !errors.Is(err, failure) {
		t.Fatalf("got %v", err)
	}
	if want := []string{"insert 1 a", "insert 2 b"}; !slices.Equal(got, want) || at.InTx == nil {
		t.Errorf("before the failure: %q, stands at %+v", got, at)
	}
	if err := s.src.Stream(t.Context(), at, emit); !errors.Is(err, errStop) {
		t.Fatalf("got %v", err)
	}
	diff(t, got, []string{"insert 1 a", "insert 2 b", "insert 3 c", "commit"})
}

func TestSource_StopsWhereItsLogHasAGap(t *testing.T) {
	s := openScript(t).(*scripted)
	s.Commit(t, Insert(1, "a"))
	s.Commit(t, Insert(2, "b"))
	s.src.Forget(2)
	for _, r := range []capture.Resume{{}, {At: PositionAfter(1)}, {At: PositionAfter(9)}, {At: "?"}} {
		if err := s.src.Verify(t.Context(), r); !errors.Is(err, capture.ErrPositionLost) {
			t.Errorf("%q: got %v", r.At, err)
		}
	}
	if err := s.src.Verify(t.Context(), capture.Resume{At: PositionAfter(2)}); err != nil {
		t.Error(err)
	}
	s.src.Append(Tx{ID: "3", Changes: []Change{{Table: s.table, After: make(capture.Row, 2)}}})
	r := capture.Resume{At: PositionAfter(3), InTx: &capture.InTx{ID: "3", Done: 1, CRC: 1}}
	if err := s.src.Stream(t.Context(), r, func(*capture.Batch) error { return errStop }); !errors.Is(err, capture.ErrPositionLost) {
		t.Errorf("a changed prefix: got %v", err)
	}
}
