package capturetest

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/headwaterdb/headwater/capture"
)

// A Tx is one transaction of a scripted log. One without changes is a heartbeat.
type Tx struct {
	ID      string
	Num     uint64
	Time    int64 // microseconds since the Unix epoch
	Changes []Change
	// Entries are put on the transaction's Commit.
	Entries []capture.Entry
}

// A Change is one row change of a scripted transaction.
type Change struct {
	Op            capture.Op
	Table         *capture.Table
	Before, After capture.Row
	Origin        capture.Row
	Sequence      capture.Value
}

// A Source is a log made of a script: the same transactions in the same order at each
// Stream, cut into batches at the same places. It is safe for use by several
// goroutines.
//
// Positions read {"tx":n}: n transactions were emitted whole.
type Source struct {
	mu      sync.Mutex
	more    *sync.Cond // txs, marks, ended or a context changed
	txs     []Tx
	marks   []uint64
	ended   bool
	part    int
	forget  int // transactions that the log no longer holds
	failAt  int // changes and commits until failure, when failErr is set
	failErr error
	acked   []capture.Position
	resumes []capture.Resume
	verify  error
	check   error
}

var _ capture.Source = (*Source)(nil)

// NewSource returns a source whose log holds txs and then waits for more.
func NewSource(txs ...Tx) *Source {
	s := &Source{txs: txs}
	s.more = sync.NewCond(&s.mu)
	return s
}

// Append adds transactions to the log. A Stream that waits goes on with them.
func (s *Source) Append(txs ...Tx) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.txs = append(s.txs, txs...)
	s.more.Broadcast()
}

// End makes Stream return nil after the last transaction, now and later.
func (s *Source) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.more.Broadcast()
}

// CutEvery makes batches of at most n changes, which then end inside of transactions.
// With 0, the default, each transaction is one batch.
func (s *Source) CutEvery(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.part = n
}

// FailAt makes Stream fail once with err, in place of its n-th event from now on (1
// is the next one), changes and commits counted. What comes before is emitted.
func (s *Source) FailAt(n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failAt, s.failErr = n, err
}

// Forget makes the log begin after its first n transactions: Verify and Stream answer
// with capture.ErrPositionLost to whom needs them.
func (s *Source) Forget(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget = n
}

// FailVerify makes Verify return err.
func (s *Source) FailVerify(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verify = err
}

// FailCheck makes Check return err.
func (s *Source) FailCheck(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.check = err
}

// Mark makes Stream emit a Watermark with this id once it has emitted all that the log
// holds, in a batch of its own.
func (s *Source) Mark(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = append(s.marks, id)
	s.more.Broadcast()
}

// Acknowledged returns the positions that were acknowledged, oldest first.
func (s *Source) Acknowledged() []capture.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]capture.Position(nil), s.acked...)
}

// Resumes returns where each Stream began, oldest first.
func (s *Source) Resumes() []capture.Resume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]capture.Resume(nil), s.resumes...)
}

// PositionAfter returns the position after n whole transactions.
func PositionAfter(n int) capture.Position {
	return capture.Position(fmt.Sprintf(`{"tx":%d}`, n))
}

func parse(p capture.Position) (int, error) {
	if p == "" {
		return 0, nil
	}
	var at struct {
		Tx *int `json:"tx"`
	}
	if err := json.Unmarshal([]byte(p), &at); err != nil || at.Tx == nil {
		return 0, fmt.Errorf("%w: %q is no position of a scripted log", capture.ErrPositionLost, p)
	}
	return *at.Tx, nil
}

// Check returns what FailCheck has set.
func (s *Source) Check(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.check
}

// Verify compares r with what the log holds.
func (s *Source) Verify(_ context.Context, r capture.Resume) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.verify != nil {
		return s.verify
	}
	_, err := s.find(r)
	return err
}

// find returns the transaction to go on with.
func (s *Source) find(r capture.Resume) (int, error) {
	n, err := parse(r.At)
	if err != nil {
		return 0, err
	}
	if n < s.forget || n > len(s.txs) {
		return 0, fmt.Errorf("%w: the log holds transactions %d to %d, and the position is %d", capture.ErrPositionLost, s.forget, len(s.txs), n)
	}
	return n, nil
}

// Stream emits the script from r on, then waits for more until ctx ends or End is
// called.
func (s *Source) Stream(ctx context.Context, r capture.Resume, emit capture.EmitFunc) error {
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.more.Broadcast()
	})()
	s.mu.Lock()
	s.resumes = append(s.resumes, r)
	n, err := s.find(r)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	for inTx := r.InTx; ; inTx = nil {
		tx, marks, err := s.next(ctx, n)
		if err != nil {
			return err
		}
		if tx == nil && len(marks) == 0 {
			return nil
		}
		if tx != nil {
			if err := s.emitTx(*tx, n, inTx, emit); err != nil {
				return err
			}
			n++
			continue
		}
		b := capture.NewBatch()
		b.End = PositionAfter(n)
		for _, id := range marks {
			*b.Add() = capture.Event{Kind: capture.Watermark, Mark: id}
		}
		if err := emit(b); err != nil {
			return err
		}
	}
}

// next waits for transaction n, or for marks once the log is emitted. It returns
// neither when the log has ended.
func (s *Source) next(ctx context.Context, n int) (*Tx, []uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := context.Cause(ctx); err != nil {
			return nil, nil, err
		}
		if n < len(s.txs) {
			tx := s.txs[n]
			return &tx, nil, nil
		}
		if len(s.marks) > 0 {
			marks := s.marks
			s.marks = nil
			return nil, marks, nil
		}
		if s.ended {
			return nil, nil, nil
		}
		s.more.Wait()
	}
}

// emitTx emits transaction n, in parts where the source cuts, without the part that
// skip says was emitted before.
func (s *Source) emitTx(tx Tx, n int, skip *capture.InTx, emit capture.EmitFunc) error {
	s.mu.Lock()
	part := s.part
	s.mu.Unlock()
	var done uint64
	var crc uint32
	if skip != nil && skip.ID != tx.ID {
		return fmt.Errorf("%w: the checkpoint stands inside of transaction %q, and the log goes on with %q", capture.ErrPositionLost, skip.ID, tx.ID)
	}
	b := capture.NewBatch()
	shared := b.Tx(tx.ID, tx.Num)
	for i := range tx.Changes {
		c := &tx.Changes[i]
		before := crc
		done, crc = done+1, checksum(crc, c)
		if skip != nil && done <= skip.Done {
			if done == skip.Done && crc != skip.CRC {
				return fmt.Errorf("%w: the first %d changes of transaction %q are not those that were emitted", capture.ErrPositionLost, done, tx.ID)
			}
			continue
		}
		if part > 0 && len(b.Events) == part {
			b.End, b.InTx = PositionAfter(n), &capture.InTx{ID: tx.ID, Done: uint64(i), CRC: before}
			if err := emit(b); err != nil {
				return err
			}
			b = capture.NewBatch()
			shared = b.Tx(tx.ID, tx.Num)
		}
		if err := s.fail(); err != nil {
			return s.emitRest(b, n, tx.ID, tx.Changes[:i], err, emit)
		}
		*b.Add() = capture.Event{
			Op: c.Op, Table: c.Table, Before: clone(b, c.Before), After: clone(b, c.After),
			Origin: clone(b, c.Origin), Sequence: c.Sequence.Clone(b), Time: tx.Time, Tx: shared, Ordinal: done,
		}
		b.LogBytes += 100
	}
	if skip != nil && skip.Done > done {
		return fmt.Errorf("%w: transaction %q has %d changes, and %d were emitted", capture.ErrPositionLost, tx.ID, done, skip.Done)
	}
	if err := s.fail(); err != nil {
		return s.emitRest(b, n, tx.ID, tx.Changes, err, emit)
	}
	if len(tx.Changes) == 0 {
		shared = nil // a heartbeat
	}
	*b.Add() = capture.Event{Kind: capture.Commit, Time: tx.Time, Tx: shared, Entries: tx.Entries}
	b.End = PositionAfter(n + 1)
	return emit(b)
}

// emitRest emits what came before a failure, and returns the failure.
func (s *Source) emitRest(b *capture.Batch, n int, id string, done []Change, failure error, emit capture.EmitFunc) error {
	if len(b.Events) == 0 {
		b.Release()
		return failure
	}
	b.End, b.InTx = PositionAfter(n), &capture.InTx{ID: id, Done: uint64(len(done)), CRC: checksumOf(done)}
	if err := emit(b); err != nil {
		return err
	}
	return failure
}

// fail counts an event and says whether it is the one that fails.
func (s *Source) fail() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failErr == nil {
		return nil
	}
	if s.failAt--; s.failAt > 0 {
		return nil
	}
	err := s.failErr
	s.failErr = nil
	return err
}

// Acknowledge remembers p.
func (s *Source) Acknowledge(_ context.Context, p capture.Position) error {
	if _, err := parse(p); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked = append(s.acked, p)
	return nil
}

// Close does nothing: the log stays.
func (s *Source) Close() error { return nil }

func clone(b *capture.Batch, r capture.Row) capture.Row {
	if r == nil {
		return nil
	}
	out := b.Row(len(r))
	for i := range r {
		out[i] = r[i].Clone(b)
	}
	return out
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(crc uint32, c *Change) uint32 {
	buf := append([]byte(c.Table.ID.String()), byte(c.Op))
	for _, row := range []capture.Row{c.Before, c.After} {
		buf = append(buf, byte(len(row)))
		for i := range row {
			buf = row[i].AppendKey(buf)
		}
	}
	return crc32.Update(crc, castagnoli, buf)
}

func checksumOf(changes []Change) uint32 {
	var crc uint32
	for i := range changes {
		crc = checksum(crc, &changes[i])
	}
	return crc
}
