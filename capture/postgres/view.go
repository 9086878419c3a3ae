package postgres

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/snapshot"
)

// Keys of our notes in the checkpoint.
const (
	// startKey holds startNote, written at the first start.
	startKey = "pg/start"
	// unseenKey holds the xids that were emitted and that no view has been seen to hold
	// yet: a JSON list, or null when they are too many.
	unseenKey = "pg/unseen"
)

const (
	// maxUnseen bounds the list in the checkpoint, maxEmitted the one in memory.
	maxUnseen  = 1000
	maxEmitted = 1 << 18
)

// markPoll is how often a mark that waits asks for a keepalive.
const markPoll = 20 * time.Millisecond

// startNote is what a view must know of the first start.
type startNote struct {
	// LSN is where the slot began: the source position of every row that is read.
	LSN string `json:"lsn"`
	// Snapshot holds exactly the transactions before that place, as the server prints
	// it. It is empty once a view held all of them, and when it is not known.
	Snapshot string `json:"snapshot,omitempty"`
}

// A pgSnapshot is a snapshot as pg_current_snapshot prints it: xmin:xmax:xip. The
// numbers are 64 bits wide and count wrap-arounds.
// https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
type pgSnapshot struct {
	xmin, xmax uint64
	xip        []uint64 // ascending
}

func parseSnapshot(text string) (pgSnapshot, error) {
	var s pgSnapshot
	f := strings.Split(text, ":")
	if len(f) != 3 {
		return s, fmt.Errorf("read the snapshot %q: want xmin:xmax:xip", text)
	}
	var err error
	if s.xmin, err = strconv.ParseUint(f[0], 10, 64); err != nil {
		return s, fmt.Errorf("read the snapshot %q: %w", text, err)
	}
	if s.xmax, err = strconv.ParseUint(f[1], 10, 64); err != nil {
		return s, fmt.Errorf("read the snapshot %q: %w", text, err)
	}
	for x := range strings.SplitSeq(f[2], ",") {
		if x == "" {
			continue
		}
		xid, err := strconv.ParseUint(x, 10, 64)
		if err != nil {
			return s, fmt.Errorf("read the snapshot %q: %w", text, err)
		}
		s.xip = append(s.xip, xid)
	}
	slices.Sort(s.xip)
	return s, nil
}

// full widens a 32-bit xid of about now.
func (s *pgSnapshot) full(xid uint32) uint64 {
	return s.xmax - uint64(int64(int32(uint32(s.xmax)-xid)))
}

// holds says whether the effects of a committed transaction are visible.
func (s *pgSnapshot) holds(xid uint64) bool {
	if xid < s.xmin {
		return true
	}
	if xid >= s.xmax {
		return false
	}
	_, running := slices.BinarySearch(s.xip, xid)
	return !running
}

// missing returns a transaction that o holds and s does not.
func (s *pgSnapshot) missing(o *pgSnapshot) (uint64, bool) {
	for _, xid := range s.xip {
		if o.holds(xid) {
			return xid, true
		}
	}
	for xid := s.xmax; xid < o.xmax; xid++ {
		if o.holds(xid) {
			return xid, true
		}
	}
	return 0, false
}

// scanState is what Stream and Scanner know together. A nil one belongs to a source
// without a Scanner: it keeps nothing.
type scanState struct {
	// waiting is the number of marks, read by Stream at every commit.
	waiting atomic.Int32

	gate *snapshot.Gate

	mu      sync.Mutex // guards what follows
	srv     *server
	wake    func()
	startAt LSN // startNote.LSN
	// begun, when set, must be held by the first view.
	begun *pgSnapshot
	// horizon says that the first view must have an xmin at or beyond the next xid at
	// the start of the stream, because nobody noted what was emitted before.
	horizon bool
	nextXID uint64 // that xid, 0 until it was asked for
	// pending holds the xids that were emitted and are not proven visible, oldest first.
	// When they are too many, only the newest is kept, and tooMany set: a view must then
	// have an xmin beyond it.
	pending []uint32
	tooMany bool
	// tracking is true from the start of a Stream to Finish. A Finish before the start
	// holds for that Stream.
	tracking, running, finished bool
	marks                       []mark
	// counted is the number of keepalives that the server sent after since, by its clock
	// in microseconds since the Unix epoch.
	since   int64
	counted int
	// noteStart and noteUnseen say that an entry has to be written.
	noteStart, noteUnseen bool
}

type mark struct {
	id  uint64
	lsn LSN
	set time.Time
	// settled, when it is not 0, is a moment of the server's clock: the mark is passed
	// with the first keepalive from after it.
	settled int64
}

// scanStart is what Stream knows when it starts.
type scanStart struct {
	resume capture.Resume
	lsn    LSN // where the stream begins
	// snapshot is that of a slot which we have just made.
	snapshot string
}

func newScanState() *scanState {
	return &scanState{gate: snapshot.NewGate()}
}

// start begins tracking for a new Stream.
func (s *scanState) start(a scanStart, srv *server, wake func()) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv, s.wake = srv, wake
	s.begun, s.horizon, s.nextXID = nil, false, 0
	s.pending, s.tooMany = nil, false
	s.tracking, s.running, s.finished = !s.finished, true, false
	s.marks, s.noteStart, s.noteUnseen = nil, false, s.tracking || a.resume.Entries[unseenKey] != nil
	s.waiting.Store(0)
	note := startNote{LSN: a.lsn.String(), Snapshot: a.snapshot}
	if a.resume.At == "" {
		s.horizon = a.snapshot == ""
		s.noteStart = true
	} else if err := s.load(a.resume.Entries, &note); err != nil {
		return err
	}
	var err error
	if s.startAt, err = pglogrepl.ParseLSN(note.LSN); err != nil {
		return fmt.Errorf("%w: the checkpoint's %s: %w", capture.ErrPositionLost, startKey, err)
	}
	if note.Snapshot != "" && s.tracking {
		begun, err := parseSnapshot(note.Snapshot)
		if err != nil {
			return fmt.Errorf("%w: the checkpoint's %s: %w", capture.ErrPositionLost, startKey, err)
		}
		s.begun = &begun
	}
	return nil
}

// load takes up the entries of a checkpoint.
func (s *scanState) load(entries map[string][]byte, note *startNote) error {
	if e := entries[startKey]; e != nil {
		if err := json.Unmarshal(e, note); err != nil {
			return fmt.Errorf("%w: the checkpoint's %s: %w", capture.ErrPositionLost, startKey, err)
		}
	} else {
		s.noteStart = true
	}
	var unseen []uint32
	if e := entries[unseenKey]; e != nil {
		if err := json.Unmarshal(e, &unseen); err != nil {
			return fmt.Errorf("%w: the checkpoint's %s: %w", capture.ErrPositionLost, unseenKey, err)
		}
	}
	if unseen == nil { // no entry, or null
		s.horizon = true
	}
	s.pending = unseen
	return nil
}

// connect says that replication has begun.
func (s *scanState) connect() {
	if s != nil {
		s.gate.Connect()
	}
}

// open lets views be opened.
func (s *scanState) open() {
	if s != nil {
		s.gate.Open()
	}
}

// stop makes everybody wait for the next Stream.
func (s *scanState) stop() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate.Reset()
	s.marks, s.running = nil, false
	s.waiting.Store(0)
}

// server is what Stream reads from.
func (s *scanState) server() *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv
}

// startLSN is the source position of every row that is read.
func (s *scanState) startLSN() LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.startAt
}

// setNextXID remembers the horizon of the first view.
func (s *scanState) setNextXID(xid uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextXID = xid
}

// emitted notes transactions before their rows are handed on.
func (s *scanState) emitted(xids []uint32) {
	if s == nil || len(xids) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tracking {
		return
	}
	s.pending = append(s.pending, xids...)
	s.noteUnseen = true
	if s.tooMany || len(s.pending) > maxEmitted {
		newest := s.pending[0]
		for _, x := range s.pending {
			if int32(x-newest) > 0 {
				newest = x
			}
		}
		s.pending, s.tooMany = append(s.pending[:0], newest), true
	}
}

// entries returns the notes that changed since the last call, for a Commit.
func (s *scanState) entries() []capture.Entry {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []capture.Entry
	if s.noteStart {
		s.noteStart = false
		b := append([]byte(`{"lsn":"`), s.startAt.String()...)
		b = append(b, '"')
		if s.begun != nil {
			b = fmt.Appendf(b, `,"snapshot":%q`, s.begun.String())
		}
		out = append(out, capture.Entry{Key: startKey, Value: append(b, '}')})
	}
	if !s.noteUnseen {
		return out
	}
	s.noteUnseen = false
	switch {
	case !s.tracking:
		out = append(out, capture.Entry{Key: unseenKey})
	case s.tooMany || s.horizon || len(s.pending) > maxUnseen:
		out = append(out, capture.Entry{Key: unseenKey, Value: []byte("null")})
	default:
		b := []byte{'['}
		for i, x := range s.pending {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendUint(b, uint64(x), 10)
		}
		out = append(out, capture.Entry{Key: unseenKey, Value: append(b, ']')})
	}
	return out
}

// String is the server's form.
func (s *pgSnapshot) String() string {
	b := strconv.AppendUint(nil, s.xmin, 10)
	b = append(b, ':')
	b = strconv.AppendUint(b, s.xmax, 10)
	for i, x := range s.xip {
		sep := byte(',')
		if i == 0 {
			sep = ':'
		}
		b = strconv.AppendUint(append(b, sep), x, 10)
	}
	if len(s.xip) == 0 {
		b = append(b, ':')
	}
	return string(b)
}

// demand is what a view must hold.
type demand struct {
	pending []uint32
	tooMany bool
	begun   *pgSnapshot
	horizon bool
	nextXID uint64
}

func (s *scanState) demand() demand {
	s.mu.Lock()
	defer s.mu.Unlock()
	return demand{slices.Clone(s.pending), s.tooMany, s.begun, s.horizon, s.nextXID}
}

// unmet returns a transaction that the snapshot lacks (rule R25 of publish/DESIGN.md).
func (d *demand) unmet(v *pgSnapshot) (xid uint64, missing bool) {
	if d.horizon && v.xmin < d.nextXID {
		return v.xmin, true
	}
	if d.begun != nil {
		if xid, ok := v.missing(d.begun); ok {
			return xid, true
		}
	}
	if d.tooMany && v.xmin <= v.full(d.pending[0]) {
		return v.xmin, true
	}
	for _, x := range d.pending {
		if full := v.full(x); !v.holds(full) {
			return full, true
		}
	}
	return 0, false
}

// proven notes that a view held everything demanded: later views do too.
func (s *scanState) proven(v *pgSnapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun != nil {
		s.begun, s.noteStart = nil, true
	}
	before := len(s.pending)
	s.horizon = false
	if !s.tooMany || v.full(s.pending[0]) < v.xmin {
		s.tooMany = false
		s.pending = slices.DeleteFunc(s.pending, func(x uint32) bool { return v.full(x) < v.xmin })
	}
	if len(s.pending) != before {
		s.noteUnseen = true
	}
}

// begin takes an earlier finish back: the next Stream tracks from its start.
func (s *scanState) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = false
}

// finish ends tracking until the next Stream, or for it.
func (s *scanState) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		s.finished = true
		return
	}
	s.noteStart = s.noteStart || s.begun != nil
	s.noteUnseen = s.noteUnseen || s.tracking
	s.tracking, s.pending, s.tooMany, s.begun, s.horizon = false, nil, false, nil, false
}

// addMark makes Stream emit a Watermark at lsn.
func (s *scanState) addMark(id uint64, lsn LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = append(s.marks, mark{id: id, lsn: lsn, set: time.Now()})
	s.waiting.Store(int32(len(s.marks)))
	s.wake()
}

// stuckMark returns the newest mark that was set before a moment and still waits, if
// there is one.
func (s *scanState) stuckMark(before time.Time) (m mark, ok bool) {
	if !s.marksWait() {
		return mark{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.marks {
		if w.set.Before(before) {
			m, ok = w, true
		}
	}
	return m, ok
}

// settleMarks makes the marks up to the given one pass with the first keepalive that
// the server sends after a moment of its clock.
func (s *scanState) settleMarks(upTo mark, micros int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.marks {
		s.marks[i].settled = micros
		if s.marks[i].id == upTo.id {
			break
		}
	}
}

// countKeepalives begins to count those that the server sends after a moment of its
// clock.
func (s *scanState) countKeepalives(since int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since, s.counted = since, 0
}

func (s *scanState) keepalives() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counted
}

// keepalive notes one that arrived at a commit boundary: when the server sent it.
func (s *scanState) keepalive(sent int64) {
	if !s.marksWait() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sent > s.since {
		s.counted++
	}
	for i := range s.marks {
		if m := &s.marks[i]; m.settled != 0 && sent > m.settled {
			m.lsn = 0
		}
	}
}

// marksWait says whether any mark waits.
func (s *scanState) marksWait() bool { return s != nil && s.waiting.Load() > 0 }

// passed takes out the marks at or before lsn, in the order in which they were set.
func (s *scanState) passed(lsn LSN) (ids []uint64) {
	if !s.marksWait() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.marks) > 0 && s.marks[0].lsn <= lsn {
		ids = append(ids, s.marks[0].id)
		s.marks = s.marks[1:]
	}
	s.waiting.Store(int32(len(s.marks)))
	return ids
}
