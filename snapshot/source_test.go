package snapshot

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/capture/capturetest"
)

// A shelf is a Scanner of tables that do not change, over a scripted log. Each chunk
// has two rows.
type shelf struct {
	log             *capturetest.Source
	tables          []*shelfTable
	begun, finished int
	fail            error // of Tables
}

type shelfTable struct {
	Target
	def  *capture.Table
	rows []int64
	// views that were opened; the one numbered lateFrom and later show def2.
	views    int
	lateFrom int
	def2     *capture.Table
	// blockedFrom, unless it is 0, is the number of the first view that does not open.
	blockedFrom int
}

func shelved(name string, rows ...int64) *shelfTable {
	def := intTable(name, "id", "bigint")
	return &shelfTable{Target: Target{ID: def.ID, Incarnation: "1", Rows: int64(len(rows)), Key: []string{"id"}}, def: def, rows: rows}
}

func intTable(name, key, typ string) *capture.Table {
	return &capture.Table{
		ID:      capture.TableID{Schema: "public", Name: name},
		Columns: []capture.Column{{Name: key, Type: capture.Type{Kind: capture.TypeInt64, Name: typ}}},
		Key:     []int{0}, RowKey: []int{0},
	}
}

func (s *shelf) Tables(context.Context) ([]Target, error) {
	var targets []Target
	for _, t := range s.tables {
		targets = append(targets, t.Target)
	}
	return targets, s.fail
}

func (s *shelf) View(ctx context.Context, target Target) (View, error) {
	i := slices.IndexFunc(s.tables, func(t *shelfTable) bool { return t.ID == target.ID })
	t := s.tables[i]
	t.views++
	if t.blockedFrom > 0 && t.views >= t.blockedFrom {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	v := &shelfView{s: s, t: t, def: t.def}
	if t.def2 != nil && t.views >= t.lateFrom {
		v.def = t.def2
	}
	return v, nil
}

func (s *shelf) Begin() { s.begun++ }

func (s *shelf) Finish() { s.finished++ }

type shelfView struct {
	s    *shelf
	t    *shelfTable
	def  *capture.Table
	past int
}

func (v *shelfView) Scan(_ context.Context, t Target, after []string, _ int) (*Chunk, error) {
	c := &Chunk{Batch: capture.NewBatch(), Table: v.def}
	for _, id := range v.t.rows[v.past:] {
		if len(after) > 0 && strconv.FormatInt(id, 10) <= after[0] {
			continue
		}
		if c.Rows == 2 {
			return c, nil
		}
		row := c.Row(1)
		row[0] = capture.IntValue(id)
		*c.Add() = capture.Event{Op: capture.Read, Table: v.def, After: row}
		c.Last = []string{}
		if len(t.Key) > 0 {
			c.Last = []string{strconv.FormatInt(id, 10)}
		} else {
			v.past++
		}
		c.Rows++
	}
	c.Last = nil
	return c, nil
}

func (v *shelfView) Holds(*capture.Tx) bool { return true }

func (v *shelfView) Mark(_ context.Context, id uint64) error {
	v.s.log.Mark(id)
	return nil
}

func (v *shelfView) Close() error { return nil }

// stream runs a Source over s and tells what it emitted, and the entries that are left.
func stream(t *testing.T, s *shelf, cfg Config, r capture.Resume) (story []string, entries map[string]string, err error) {
	t.Helper()
	src := New(s.log, s, cfg, nil, prometheus.NewRegistry())
	entries = map[string]string{}
	for k, v := range r.Entries {
		entries[k] = string(v)
	}
	synctest.Test(t, func(*testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			ended <- src.Stream(ctx, r, func(b *capture.Batch) error {
				defer b.Release()
				if len(story) > 1000 {
					return errors.New("no end in sight")
				}
				for i := range b.Events {
					ev := &b.Events[i]
					switch ev.Kind {
					case capture.Commit:
						story = append(story, "commit")
					case capture.Change:
						story = append(story, fmt.Sprint(ev.Op, " ", ev.Table.ID.Name, ev.After, snapshotMark(ev.Snapshot)))
					case capture.Watermark:
						t.Error("a watermark was emitted")
					}
					for _, e := range ev.Entries {
						entries[e.Key] = string(e.Value)
						if e.Value == nil {
							delete(entries, e.Key)
						}
					}
				}
				return nil
			})
		}()
		synctest.Wait() // everything that can happen has happened
		cancel()
		err = <-ended
	})
	return story, entries, err
}

func snapshotMark(m capture.SnapshotMark) string {
	return [...]string{"", " true", " first", " first in table", " last in table", " last"}[m]
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got  %s\n want %s", what, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
	}
}

func TestSource_Stream(t *testing.T) {
	t.Run("ReadsTablesInOrderAndMarksTheirRows", func(t *testing.T) {
		s := &shelf{log: capturetest.NewSource(), tables: []*shelfTable{shelved("a", 1, 2, 3), shelved("b"), shelved("c", 4), shelved("d", 5, 6)}}
		story, entries, err := stream(t, s, Config{}, capture.Resume{})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		equal(t, "events", story, []string{
			"read a[int:1] first", "read a[int:2] true", "commit", "read a[int:3] last in table", "commit",
			"commit", "read c[int:4] last in table", "commit", "read d[int:5] first in table", "read d[int:6] last", "commit",
		})
		if s.begun != 1 || s.finished != 1 {
			t.Errorf("the scanner was begun %d and finished %d times", s.begun, s.finished)
		}
		if want := `{"v":1,"mode":"initial","state":"done","attempt":1,"emitted":6}`; entries["snap"] != want {
			t.Errorf("snap is %s, want %s", entries["snap"], want)
		}
	})
	t.Run("EndsWhenOnlyTheTablesAreWanted", func(t *testing.T) {
		keyless := shelved("b", 7, 8, 9)
		keyless.Key, keyless.def.Key, keyless.def.RowKey = nil, nil, nil
		s := &shelf{log: capturetest.NewSource(), tables: []*shelfTable{shelved("a", 1), keyless}}
		story, entries, err := stream(t, s, Config{ThenStop: true}, capture.Resume{})
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
		equal(t, "events", story, []string{
			"read a[int:1] first", "commit",
			"read b[int:7] first in table", "read b[int:8] true", "commit", "read b[int:9] last", "commit", "commit",
		})
		r := capture.Resume{Entries: map[string][]byte{}}
		for k, v := range entries {
			r.Entries[k] = []byte(v)
		}
		if story, _, err = stream(t, s, Config{ThenStop: true}, r); err != nil || len(story) > 0 {
			t.Errorf("asked again it emitted %q and ended with %v", story, err)
		}
	})
	t.Run("ReadsNothingInModeNever", func(t *testing.T) {
		s := &shelf{log: capturetest.NewSource(capturetest.Tx{ID: "1"}), tables: []*shelfTable{shelved("a", 1)}}
		story, _, _ := stream(t, s, Config{Mode: Never}, capture.Resume{})
		equal(t, "events", story, []string{"commit"})
		if s.finished != 1 {
			t.Errorf("the scanner was finished %d times", s.finished)
		}
	})
	t.Run("ForgetsTablesThatAreNotCapturedAnyMore", func(t *testing.T) {
		s := &shelf{log: capturetest.NewSource(capturetest.Tx{ID: "1"})}
		r := capture.Resume{Entries: map[string][]byte{`s/"public"."old"`: []byte(`{"v":1,"state":"done"}`)}}
		_, entries, _ := stream(t, s, Config{}, r)
		if got := slices.Sorted(maps.Keys(entries)); !slices.Equal(got, []string{"snap"}) {
			t.Errorf("entries are %q", got)
		}
	})
	t.Run("ReadsATableAnewThatWasMadeAnew", func(t *testing.T) {
		s := &shelf{log: capturetest.NewSource(), tables: []*shelfTable{shelved("a", 1)}}
		r := capture.Resume{Entries: map[string][]byte{
			`s/"public"."a"`: []byte(`{"v":1,"incarnation":"0","state":"done","attempt":3,"key":[{"name":"id","type":"bigint"}]}`),
			"snap":           []byte(`{"v":1,"mode":"initial","state":"done","attempt":1,"emitted":5}`),
		}}
		story, entries, _ := stream(t, s, Config{}, r)
		equal(t, "events", story, []string{"read a[int:1] last", "commit"})
		for key, want := range map[string]string{`s/"public"."a"`: `"attempt":4`, "snap": `"attempt":2`} {
			if !strings.Contains(entries[key], want) {
				t.Errorf("%s is %s, want %s", key, entries[key], want)
			}
		}
	})
	t.Run("DoesNotWaitForAViewThatIsNotNeeded", func(t *testing.T) {
		a := shelved("a", 1, 2, 3)
		a.blockedFrom = 3
		s := &shelf{log: capturetest.NewSource(), tables: []*shelfTable{a, shelved("b", 4)}}
		story, _, _ := stream(t, s, Config{}, capture.Resume{})
		equal(t, "events", story, []string{
			"read a[int:1] first", "read a[int:2] true", "commit", "read a[int:3] last in table", "commit", "read b[int:4] last", "commit",
		})
		if a.views != a.blockedFrom {
			t.Errorf("%d views were asked for, want %d", a.views, a.blockedFrom)
		}
	})
	t.Run("ReadsATableAgainThatWasAskedFor", func(t *testing.T) {
		log := capturetest.NewSource()
		s := &shelf{log: log, tables: []*shelfTable{shelved("a", 1), shelved("b", 7, 8)}}
		_, entries, _ := stream(t, s, Config{}, capture.Resume{})
		r := capture.Resume{Entries: map[string][]byte{}}
		for k, v := range entries {
			r.Entries[k] = []byte(v)
		}
		changed, tables, err := Again(r.Entries, []string{"public.b"})
		if err != nil || !slices.Equal(tables, []string{"public.b"}) {
			t.Fatalf("%q, %v", tables, err)
		}
		maps.Copy(r.Entries, changed)
		story, entries, _ := stream(t, s, Config{}, r)
		equal(t, "events", story, []string{"read b[int:7] first", "read b[int:8] last", "commit"})
		for key, want := range map[string]string{
			`s/"public"."a"`: `"state":"done","attempt":1`, `s/"public"."b"`: `"state":"done","attempt":2`, "snap": `"attempt":2`,
		} {
			if !strings.Contains(entries[key], want) {
				t.Errorf("%s is %s, want %s", key, entries[key], want)
			}
		}
	})
	t.Run("ReadsATableAnewWhoseKeyHasAnotherType", func(t *testing.T) {
		for _, from := range []int{2, 3} {
			a := shelved("a", 1, 2, 3, 4, 5)
			a.lateFrom, a.def2 = from, intTable("a", "id", "integer")
			s := &shelf{log: capturetest.NewSource(), tables: []*shelfTable{a}}
			story, entries, _ := stream(t, s, Config{}, capture.Resume{})
			if n := len(story); n < 8 || story[n-2] != "read a[int:5] last" {
				t.Errorf("events: %q", story)
			}
			if e := entries[`s/"public"."a"`]; !strings.Contains(e, `"state":"done","attempt":2`) || !strings.Contains(e, `"rows":5,"emitted":5`) {
				t.Errorf("from view %d on: the entry is %s", from, e)
			}
		}
	})
	t.Run("ReadsAllRowsWhenOwedOnesCannotBeMet", func(t *testing.T) {
		key := func(v capture.Value) []byte {
			b, err := appendKey(nil, shelved("a").def, capture.Row{v}, nil)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		for name, owes := range map[string]capture.Value{
			// The first chunk was not done, so the entry does not know the type.
			"the key has another type": capture.TextValue("2"),
			"the row is gone":          capture.IntValue(7),
		} {
			s := &shelf{log: capturetest.NewSource(), tables: []*shelfTable{shelved("a", 1, 2, 3)}}
			e := newEntry(&s.tables[0].Target)
			e.State = stateReading
			var o owed
			o.add(key(capture.IntValue(1)), 1000) // which the first attempt meets
			o.add(key(owes), 1000)
			e.note(&o, false)
			r := capture.Resume{Entries: map[string][]byte{`s/"public"."a"`: entry("", &e).Value}}
			story, entries, _ := stream(t, s, Config{}, r)
			all := func(first, last string) []string {
				return []string{"read a[int:1] " + first, "read a[int:2] true", "commit", "read a[int:3] " + last, "commit"}
			}
			equal(t, name, story, slices.Concat(all("first", "true"), []string{"commit", "commit"}, all("first in table", "last")))
			if e := entries[`s/"public"."a"`]; !strings.Contains(e, `"state":"done","attempt":3`) || strings.Contains(e, "owed") {
				t.Errorf("%s: the entry is %s", name, e)
			}
		}
	})
	t.Run("FailsWhenTheKeyHasOtherColumns", func(t *testing.T) {
		a := shelved("a", 1)
		a.lateFrom, a.def2 = 1, intTable("a", "other", "bigint")
		s := &shelf{log: capturetest.NewSource(), tables: []*shelfTable{a}}
		_, _, err := stream(t, s, Config{}, capture.Resume{})
		if want := `read the tables: table public.a: its key is ["other"] now, and was ["id"]: it is read anew`; err == nil || err.Error() != want {
			t.Errorf("the error is %v, want %s", err, want)
		}
	})
	t.Run("FailsWhenTheLogLeavesTheKeyOut", func(t *testing.T) {
		a := shelved("a", 1, 2, 3)
		log := capturetest.NewSource()
		s := &shelf{log: log, tables: []*shelfTable{a}}
		log.Append(capturetest.Tx{ID: "1", Changes: []capturetest.Change{{Op: capture.Delete, Table: a.def, Before: capture.Row{capture.AbsentValue}}}})
		blockOnce := &waitForView{shelf: s, opened: make(chan struct{})}
		src := New(&heldLog{Source: log, until: blockOnce.opened}, blockOnce, Config{}, nil, nil)
		err := src.Stream(t.Context(), capture.Resume{}, func(b *capture.Batch) error { return nil })
		if !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), "REPLICA IDENTITY") {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("ReportsWhyTheScannerFailed", func(t *testing.T) {
		cause := errors.New("no such host")
		s := &shelf{log: capturetest.NewSource(), fail: cause}
		if _, _, err := stream(t, s, Config{}, capture.Resume{}); !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "read the tables: list the tables: ") {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("ReportsWhyTheLogFailed", func(t *testing.T) {
		cause := errors.New("connection lost")
		s := &shelf{log: capturetest.NewSource(capturetest.Tx{ID: "1"}), tables: []*shelfTable{shelved("a", 1)}}
		s.log.FailAt(1, cause)
		if _, _, err := stream(t, s, Config{}, capture.Resume{}); err != cause {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("IsDoneWithTheScannerAfterTheTransactionThatWasCut", func(t *testing.T) {
		rest, whole := capture.NewBatch(), capture.NewBatch()
		rest.InTx = &capture.InTx{ID: "1", Done: 2}
		whole.Add().Kind = capture.Commit
		s := &shelf{tables: []*shelfTable{shelved("a", 1)}}
		r := capture.Resume{InTx: &capture.InTx{ID: "1", Done: 1}, Entries: map[string][]byte{
			`s/"public"."a"`: []byte(`{"v":1,"incarnation":"1","state":"done","attempt":1,"key":[{"name":"id","type":"bigint"}]}`),
			"snap":           []byte(`{"v":1,"mode":"initial","state":"done","attempt":1,"emitted":1}`),
		}}
		src := New(batchLog{Source: capturetest.NewSource(), batches: []*capture.Batch{rest, whole}}, s, Config{}, nil, nil)
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- src.Stream(ctx, r, func(*capture.Batch) error { return nil }) }()
			synctest.Wait()
			if s.finished != 1 {
				t.Errorf("the scanner was finished %d times", s.finished)
			}
			cancel()
			<-ended
		})
	})
	t.Run("RefusesWatermarksElsewhere", func(t *testing.T) {
		for name, batch := range map[string]func(*capture.Batch){
			"inside of a batch": func(b *capture.Batch) {
				b.Add().Kind = capture.Watermark
				b.Add().Kind = capture.Commit
			},
			"inside of a transaction": func(b *capture.Batch) {
				b.Add().Kind = capture.Watermark
				b.InTx = &capture.InTx{ID: "1", Done: 1}
			},
		} {
			b := capture.NewBatch()
			batch(b)
			src := New(batchLog{Source: capturetest.NewSource(), batches: []*capture.Batch{b}}, &shelf{tables: []*shelfTable{shelved("a")}, log: capturetest.NewSource()}, Config{}, nil, nil)
			err := src.Stream(t.Context(), capture.Resume{}, func(*capture.Batch) error { return nil })
			if err == nil || !strings.HasPrefix(err.Error(), "watermark 0 ") {
				t.Errorf("%s: the error is %v", name, err)
			}
		}
	})
}

// A batchLog is a log of few batches.
type batchLog struct {
	*capturetest.Source
	batches []*capture.Batch
}

func (l batchLog) Stream(ctx context.Context, _ capture.Resume, emit capture.EmitFunc) error {
	for _, b := range l.batches {
		if err := emit(b); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// A heldLog begins once a channel is closed.
type heldLog struct {
	*capturetest.Source
	until <-chan struct{}
}

func (l *heldLog) Stream(ctx context.Context, r capture.Resume, emit capture.EmitFunc) error {
	select {
	case <-l.until:
	case <-ctx.Done():
		return ctx.Err()
	}
	return l.Source.Stream(ctx, r, emit)
}

// waitForView closes opened when the first view is asked for, and never answers.
type waitForView struct {
	*shelf
	opened chan struct{}
}

func (s *waitForView) View(ctx context.Context, _ Target) (View, error) {
	close(s.opened)
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestSource_PassesThrough(t *testing.T) {
	cause := errors.New("said so")
	log := capturetest.NewSource()
	src := New(log, &shelf{log: log}, Config{}, nil, nil)
	log.FailCheck(cause)
	if err := src.Check(t.Context()); err != cause {
		t.Errorf("Check: %v", err)
	}
	log.FailVerify(cause)
	if err := src.Verify(t.Context(), capture.Resume{}); err != cause {
		t.Errorf("Verify: %v", err)
	}
	if err := src.Acknowledge(t.Context(), capturetest.PositionAfter(0)); err != nil || len(log.Acknowledged()) != 1 {
		t.Errorf("Acknowledge: %v, %v", err, log.Acknowledged())
	}
	if err := src.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestSource_Progress(t *testing.T) {
	s := &shelf{log: capturetest.NewSource(), tables: []*shelfTable{shelved("a", 1, 2, 3)}}
	src := New(s.log, s, Config{ThenStop: true}, nil, nil)
	if p := src.Progress(); p.Known {
		t.Errorf("before Stream: %+v", p)
	}
	var during []TableProgress
	err := src.Stream(t.Context(), capture.Resume{}, func(b *capture.Batch) error {
		during = append(during, src.Progress().Tables[0])
		b.Release()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(during) != 2 || during[0].State != "reading" || during[0].Rows != 2 || during[0].Estimate != 3 || during[1].Rows != 3 || during[1].Left != 0 {
		t.Errorf("during: %+v", during)
	}
	if p := src.Progress(); !p.Known || p.Left != 0 || p.Done != 1 || p.Emitted != 3 || p.Attempt != 1 {
		t.Errorf("after: %+v", p)
	}
}

var update = flag.Bool("update", false, "write the entries of this version to testdata")

// Every version of the entries that was ever written can be read.
func TestEntries_StoredForm(t *testing.T) {
	full := tableEntry{
		V: 1, Incarnation: "16402", Table: quoted(capture.TableID{Schema: "public", Name: `odd"name`}), State: stateReading, Attempt: 2,
		Key:  []keyColumn{{"region", "text"}, {"id", "bigint"}},
		Last: []string{"Zürich", "42"}, Chunk: 7, Rows: 1200, Emitted: 1100, Owed: 3, Truncated: 1,
	}
	// Owed keys are stored in their canonical form, which therefore is one, too.
	owes := full
	def := &capture.Table{RowKey: []int{0, 1}}
	var few owed
	for _, row := range []capture.Row{{capture.TextValue("Zürich"), capture.IntValue(-1)}, {capture.BytesValue([]byte{0, 255}), capture.TimestampValue(1)}} {
		key, err := appendKey(nil, def, row, nil)
		if err != nil {
			t.Fatal(err)
		}
		few.add(key, 1000)
	}
	owes.note(&few, true)
	files := map[string]any{
		"table-v1.json":   &full,
		"owed-v1.json":    &owes,
		"waiting-v1.json": new(newEntry(&Target{ID: capture.TableID{Schema: "public", Name: "log"}, Incarnation: "16410"})),
		"whole-v1.json":   &wholeEntry{V: 1, Mode: Initial, State: stateReading, Attempt: 1, Emitted: 1100},
	}
	for name, v := range files {
		path := filepath.Join("testdata", name)
		got := entry("", v).Value
		if *update {
			if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got)+"\n" != string(want) {
			t.Errorf("%s is written as\n%s\nwant\n%s", name, got, want)
		}
	}
	paths, err := filepath.Glob("testdata/*.json")
	if err != nil || len(paths) < len(files) {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		key := wholeKey
		if !strings.HasPrefix(filepath.Base(path), "whole-") {
			key = `s/"public"."t"`
		}
		n, err := parseNotes(map[string][]byte{key: b, "p": []byte("not ours")})
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if n.whole == nil && len(n.tables) == 0 {
			t.Errorf("%s was not read", path)
		}
	}
}

func TestAgain(t *testing.T) {
	odd := capture.TableID{Schema: `a"."b`, Name: `"c".""`}
	entries := map[string][]byte{"p": []byte("not ours")}
	for id, state := range map[capture.TableID]string{
		{Schema: "public", Name: "done"}: stateDone, {Schema: "public", Name: "begun"}: stateReading, {Schema: "other", Name: "waits"}: stateWaiting, odd: stateDone,
	} {
		e := newEntry(&Target{ID: id, Incarnation: "1", Key: []string{"id"}})
		e.State, e.Attempt, e.Last, e.Owed, e.Truncated = state, 4, []string{"7"}, 3, 1
		entries[entryKey(id)] = entry("", &e).Value
	}
	for _, c := range []struct {
		globs  []string
		want   map[string]int // the attempts
		failed string
	}{
		{[]string{"public.done"}, map[string]int{`s/"public"."done"`: 5}, ""},
		{[]string{"public.*", "other.waits"}, map[string]int{`s/"public"."done"`: 5, `s/"public"."begun"`: 5, `s/"other"."waits"`: 4}, ""},
		{[]string{odd.String()}, map[string]int{`s/"a"".""b"."""c""."""""`: 5}, ""},
		{[]string{"public.done", "public.dome"}, nil, `no table that was read is called public.dome; there are a"."b."c"."", other.waits, public.begun, public.done`},
		{[]string{"done"}, nil, "no table that was read is called done; "},
	} {
		changed, tables, err := Again(entries, c.globs)
		if (err == nil) != (c.failed == "") || err != nil && !strings.Contains(err.Error(), c.failed) {
			t.Errorf("%q: %v, want %q", c.globs, err, c.failed)
			continue
		}
		n, err := parseNotes(changed)
		if err != nil || len(n.tables) != len(c.want) || len(tables) != len(c.want) {
			t.Errorf("%q: %q, %s (%v)", c.globs, tables, changed, err)
		}
		for key, attempt := range c.want {
			e := n.tables[key]
			if e.State != stateWaiting || e.Attempt != attempt || e.Last != nil || e.Owed != 0 || e.Truncated != 1 || e.Incarnation != "1" {
				t.Errorf("%q: %s is %s", c.globs, key, changed[key])
			}
		}
	}
	if _, _, err := Again(map[string][]byte{`s/public.t`: []byte(`{"v":1}`)}, []string{"public.t"}); !errors.Is(err, capture.ErrPositionLost) {
		t.Errorf("an entry without a table's name: %v", err)
	}
}

func TestEntries_RefusesWhatItCannotRead(t *testing.T) {
	for _, value := range []string{`{"v":2}`, `{}`, `no JSON`, `{"v":1,"attempt":"x"}`} {
		src := New(capturetest.NewSource(), &shelf{}, Config{}, nil, nil)
		r := capture.Resume{Entries: map[string][]byte{`s/"a"."b"`: []byte(value)}}
		if err := src.Verify(t.Context(), r); !errors.Is(err, capture.ErrPositionLost) {
			t.Errorf("Verify of %s: %v", value, err)
		}
		if err := src.Stream(t.Context(), r, nil); !errors.Is(err, capture.ErrPositionLost) {
			t.Errorf("Stream of %s: %v", value, err)
		}
	}
}

func TestEntry_Resume(t *testing.T) {
	target := &Target{ID: capture.TableID{Schema: "public", Name: "t"}, Incarnation: "1", Key: []string{"id"}}
	base := newEntry(target)
	base.State, base.Attempt, base.Last, base.Chunk, base.Truncated = stateReading, 2, []string{"7"}, 3, 1
	for _, c := range []struct {
		name    string
		change  func(e *tableEntry, t *Target)
		attempt int
		last    []string
	}{
		{"goes on after the last key", func(*tableEntry, *Target) {}, 2, []string{"7"}},
		{"another incarnation", func(_ *tableEntry, t *Target) { t.Incarnation = "2" }, 3, nil},
		{"cut by another key", func(_ *tableEntry, t *Target) { t.Key = []string{"other"} }, 3, nil},
		{"owes rows", func(e *tableEntry, _ *Target) { e.Owed = -1 }, 3, nil},
		{"owes more rows than it notes", func(e *tableEntry, _ *Target) { e.Owed = 1000 }, 3, nil},
		{"owes few rows", func(e *tableEntry, _ *Target) { e.Owed, e.OwedKeys = 1, [][]byte{{1}} }, 2, []string{"7"}},
		{"keyless", func(e *tableEntry, t *Target) { e.Key, t.Key = nil, nil }, 3, nil},
		{"done stays done, whatever its key", func(e *tableEntry, t *Target) { e.State, e.Last, t.Key = stateDone, nil, nil }, 2, nil},
		{"nothing was read", func(e *tableEntry, _ *Target) { e.State, e.Last = stateWaiting, nil }, 2, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, target := base, *target
			c.change(&e, &target)
			got := e.resume(&target)
			if got.Attempt != c.attempt || !slices.Equal(got.Last, c.last) {
				t.Errorf("attempt %d after %q, want attempt %d after %q", got.Attempt, got.Last, c.attempt, c.last)
			}
		})
	}
}

func TestConfig_Validate(t *testing.T) {
	var c Config
	c.SetDefaults()
	if err := c.Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	bad := Config{Mode: "always", ChunkBytes: 1, KeyBytes: 1}
	err := bad.Validate()
	for _, name := range []string{"mode", "chunk_bytes", "key_bytes"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not in %v", name, err)
		}
	}
}
