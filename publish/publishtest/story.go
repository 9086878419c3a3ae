package publishtest

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"sync"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/publish"
)

var (
	_ capture.Source  = (*Source)(nil)
	_ publish.Encoder = Encoder{}
)

// A Story is a database whose log is known beforehand: transaction n, counted from 1,
// has Size(n) changes. It forgets what it was told is published, as a replication slot
// does. All its sources share it.
type Story struct {
	// Transactions is how many there are. With Endless the log does not end after
	// them: Stream then waits until it is told to stop.
	Transactions int
	Endless      bool
	Size         func(tx int) int
	// Remembers: the log is not kept for us, so it does not forget what it was told is
	// published, and cannot tell a stale position (a binary log, not a slot).
	Remembers bool
	// Batch is how many changes a batch has at most; it may be called from several
	// goroutines. Default 16.
	Batch func() int
	// Pause is called before each batch, if set.
	Pause func(ctx context.Context, tx int) error
	// Entry, if set, gives the note that the commit of a transaction carries.
	Entry func(tx int) []capture.Entry

	mu    sync.Mutex
	acked int
}

// Table is the table that all changes belong to.
var Table = &capture.Table{ID: capture.TableID{Schema: "public", Name: "story"}, Columns: []capture.Column{
	{Name: "tx", Type: capture.Type{Kind: capture.TypeInt64}}, {Name: "ordinal", Type: capture.Type{Kind: capture.TypeInt64}},
}, Key: []int{0, 1}, RowKey: []int{0, 1}}

// Position is the place behind transaction tx.
func Position(tx int) capture.Position { return capture.Position(strconv.Itoa(tx)) }

func txOf(p capture.Position) int {
	if p == "" {
		return 0
	}
	n, err := strconv.Atoi(string(p))
	if err != nil {
		panic(fmt.Sprintf("publishtest: position %q", p))
	}
	return n
}

// Acked is the last transaction that the story was told is published.
func (s *Story) Acked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked
}

// Source returns one connection to the database.
func (s *Story) Source() *Source { return &Source{story: s} }

// A Source reads a Story.
type Source struct{ story *Story }

func (*Source) Check(context.Context) error { return nil }

// Verify says whether the story still knows what follows r.
func (s *Source) Verify(_ context.Context, r capture.Resume) error {
	if acked := s.story.Acked(); acked > txOf(r.At) && !s.story.Remembers {
		return fmt.Errorf("%w: transaction %d and earlier are forgotten, the checkpoint says %q", capture.ErrPositionLost, acked, r.At)
	}
	return nil
}

// Acknowledge makes the story forget everything up to p.
func (s *Source) Acknowledge(_ context.Context, p capture.Position) error {
	s.story.mu.Lock()
	defer s.story.mu.Unlock()
	s.story.acked = max(s.story.acked, txOf(p))
	return nil
}

func (*Source) Close() error { return nil }

// Stream tells the story from r on. It counts and checks the part that r leaves out, as
// rules R5 and R6 ask.
func (s *Source) Stream(ctx context.Context, r capture.Resume, emit capture.EmitFunc) error {
	b := capture.NewBatch()
	for tx := txOf(r.At) + 1; tx <= s.story.Transactions; tx++ {
		progress := capture.InTx{ID: strconv.Itoa(tx)}
		skip := uint64(0)
		if r.InTx != nil && tx == txOf(r.At)+1 {
			if r.InTx.ID != progress.ID {
				return fmt.Errorf("%w: transaction %s follows, the checkpoint is in %s", capture.ErrPositionLost, progress.ID, r.InTx.ID)
			}
			skip = r.InTx.Done
		}
		size := s.story.Size(tx)
		for ordinal := range size {
			progress.Done++
			progress.CRC = crc32.Update(progress.CRC, castagnoli, binary.BigEndian.AppendUint64(nil, uint64(tx)<<32|uint64(ordinal)))
			if progress.Done == skip && progress.CRC != r.InTx.CRC {
				return fmt.Errorf("%w: the prefix of transaction %d has changed", capture.ErrPositionLost, tx)
			}
			if progress.Done <= skip {
				continue
			}
			ev := b.Add()
			ev.Kind, ev.Op, ev.Table, ev.Time = capture.Change, capture.Insert, Table, int64(tx)
			ev.After = b.Row(2)
			ev.After[0], ev.After[1] = capture.IntValue(int64(tx)), capture.IntValue(int64(ordinal))
			if ordinal < size-1 && len(b.Events) >= s.story.batch() {
				in := progress
				b.End, b.InTx = Position(tx-1), &in
				if err := s.pass(ctx, tx, b, emit); err != nil {
					return err
				}
				b = capture.NewBatch()
			}
		}
		ev := b.Add()
		ev.Kind = capture.Commit
		if s.story.Entry != nil {
			ev.Entries = s.story.Entry(tx)
		}
		if len(b.Events) >= s.story.batch() || tx == s.story.Transactions || s.story.Pause != nil {
			b.End = Position(tx)
			if err := s.pass(ctx, tx, b, emit); err != nil {
				return err
			}
			b = capture.NewBatch()
		}
	}
	if s.story.Endless {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *Source) pass(ctx context.Context, tx int, b *capture.Batch, emit capture.EmitFunc) error {
	if s.story.Pause != nil {
		if err := s.story.Pause(ctx, tx); err != nil {
			return err
		}
	}
	return emit(b)
}

func (s *Story) batch() int {
	if s.Batch == nil {
		return 16
	}
	return s.Batch()
}

// Encoder encodes a Story's changes as "tx/ordinal" into Partitions of Topic.
type Encoder struct {
	Topic      string
	Partitions int32
}

func (Encoder) Resume(context.Context, map[string][]byte) error { return nil }

func (e Encoder) Encode(_ context.Context, b *capture.Batch, out *publish.Encoded) error {
	for i := range b.Events {
		ev := &b.Events[i]
		if ev.Kind != capture.Change {
			continue
		}
		tx, ordinal := ev.After[0].Int(), ev.After[1].Int()
		from := len(out.Buf)
		out.Buf = strconv.AppendInt(out.Buf, tx, 10)
		out.Buf = append(out.Buf, '/')
		out.Buf = strconv.AppendInt(out.Buf, ordinal, 10)
		text := out.Buf[from:len(out.Buf):len(out.Buf)]
		out.Records = append(out.Records, publish.Record{Topic: e.Topic, Partition: int32((tx + ordinal) % int64(max(e.Partitions, 1))), Key: text, Value: text})
	}
	return nil
}

// Check compares what readers see, the values of each partition in order, with the story
// up to transaction last, and returns what is wrong: every change must be there once, and
// in order within its partition.
func (s *Story) Check(partitions map[int32][]string, last int) (problems []string) {
	type change struct{ tx, ordinal int }
	seen := map[change]int{}
	missing, doubled, disordered, unknown := 0, 0, 0, 0
	for _, values := range partitions {
		var before change
		for _, v := range values {
			var c change
			if n, _ := fmt.Sscanf(v, "%d/%d", &c.tx, &c.ordinal); n != 2 || c.tx < 1 || c.tx > last || c.ordinal >= s.Size(c.tx) {
				unknown++
				continue
			}
			if seen[c]++; seen[c] > 1 {
				doubled++
			}
			if c.tx < before.tx || c.tx == before.tx && c.ordinal <= before.ordinal {
				disordered++
			}
			before = c
		}
	}
	for tx := 1; tx <= last; tx++ {
		for ordinal := range s.Size(tx) {
			if seen[change{tx, ordinal}] == 0 {
				missing++
			}
		}
	}
	for _, p := range []struct {
		what string
		n    int
	}{{"missing", missing}, {"doubled", doubled}, {"out of order", disordered}, {"unknown", unknown}} {
		if p.n > 0 {
			problems = append(problems, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	slices.Sort(problems)
	return problems
}

// Values are the records' values by partition, as Check takes them.
func Values(records []publish.Record) map[int32][]string {
	m := map[int32][]string{}
	for _, r := range records {
		m[r.Partition] = append(m[r.Partition], string(r.Value))
	}
	return m
}
