package mysql

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/snapshot"
)

// startKey is the key of our note in the checkpoint, which holds the place at which the
// pipeline began: the source position of every row that is read.
const startKey = "mysql/start"

// scanState is what Stream and Scanner know together. A nil one belongs to a source
// without a Scanner: it keeps nothing.
type scanState struct {
	// waiting is the number of marks, read by Stream at every commit.
	waiting atomic.Int32

	gate *snapshot.Gate

	mu      sync.Mutex // guards what follows
	srv     *server
	startAt place
	need    demand
	marks   []mark
	// wake makes Stream look for marks while the log is quiet.
	wake func()
	// noteStart says that the entry has to be written.
	noteStart bool
}

// demand is what a view must hold (rule R25 of publish/DESIGN.md): all that was emitted.
type demand struct {
	// byGTID says that sets are compared, and not places.
	byGTID bool
	// upTo is the last position that was emitted, or the one that Stream was resumed from. Where
	// there is none Stream began at a place, and with a set.
	upTo    capture.Position
	begunAt place
	begun   string
	// partial is the transaction that was emitted in part, "" for none, and the number of
	// the place where it begins.
	partial      string
	partialBegin uint64
	// at is the number of the place up to which everything was emitted; a view must not be
	// older than the log's end at the start either, before which lies what the checkpoint
	// knows.
	at uint64
}

type mark struct {
	id uint64
	at place
}

// scanStart is what Stream knows when it starts.
type scanStart struct {
	resume capture.Resume
	at     place
	end    place // of the log
	gtids  mysql.GTIDSet
}

func newScanState() *scanState {
	return &scanState{gate: snapshot.NewGate()}
}

// start prepares for a new Stream.
func (s *scanState) start(a scanStart, srv *server) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv, s.marks = srv, nil
	s.waiting.Store(0)
	s.need = demand{byGTID: a.gtids != nil && srv.flavour == mySQL, at: a.end.number(), upTo: a.resume.At, begunAt: a.at}
	if a.gtids != nil {
		s.need.begun = a.gtids.String()
	}
	s.startAt, s.noteStart = a.at, true
	if e := a.resume.Entries[startKey]; e != nil {
		s.noteStart = false
		if err := json.Unmarshal(e, &s.startAt); err != nil {
			return fmt.Errorf("%w: the checkpoint's %s: %w", capture.ErrPositionLost, startKey, err)
		}
	}
	return nil
}

// connect says that Stream has found its place, and how to wake it.
func (s *scanState) connect(wake func()) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake = wake
	s.gate.Connect()
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
	s.marks, s.wake = nil, nil
	s.waiting.Store(0)
}

// present is the server that Stream reads from, and what the next view of it must hold.
func (s *scanState) present() (*server, demand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv, s.need
}

// start place of the pipeline: the source position of every row that is read.
func (s *scanState) origin() place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.startAt
}

// emitted notes what is handed on: everything up to a position, and the beginning of a
// transaction that goes on, if it has an id.
func (s *scanState) emitted(upTo capture.Position, at place, partial string, begin place) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if upTo != "" {
		s.need.upTo, s.need.at = upTo, max(s.need.at, at.number())
	}
	s.need.partial, s.need.partialBegin = partial, begin.number()
}

// entries returns the notes that changed since the last call, for a Commit.
func (s *scanState) entries() []capture.Entry {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.noteStart {
		return nil
	}
	s.noteStart = false
	text, err := json.Marshal(s.startAt)
	if err != nil {
		panic("mysql: a place has no JSON: " + err.Error()) // a string and a number
	}
	return []capture.Entry{{Key: startKey, Value: text}}
}

// set is what must be contained in the transactions of a view.
func (d *demand) set() (mysql.GTIDSet, error) {
	set, err := parseGTIDs(mySQL, d.begun)
	if d.upTo != "" {
		var at position
		if at, err = parsePosition(d.upTo); err == nil {
			set = at.GTIDs
		}
	}
	if err != nil || set == nil {
		return nil, fmt.Errorf("read what was emitted: %w", err)
	}
	if g, ok := parseGTID([]byte(d.partial)); ok {
		if err := addGTID(set, &g); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// xa is what is known of XA transactions at the place up to which everything was emitted to
// views of srv. It is nil as long as no place is known, after a move to another server.
func (s *scanState) xa(srv *server) (*xaState, error) {
	now, need := s.present()
	switch {
	case now != srv:
		return nil, nil
	case need.upTo == "": // a first start waits until none is prepared
		return &xaState{at: need.begunAt, prepared: make(map[string]bool)}, nil
	}
	p, err := parsePosition(need.upTo)
	if err != nil {
		return nil, fmt.Errorf("read what was emitted: %w", err)
	}
	if p.Source != srv.identity() || p.Began == 0 {
		return nil, nil
	}
	x := &xaState{at: p.At, prepared: make(map[string]bool)}
	for _, t := range p.Prepared {
		x.prepared[t.XID] = true
	}
	return x, nil
}

// addMark makes Stream emit a Watermark at a place of srv's log.
func (s *scanState) addMark(id uint64, srv *server, at place) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if got, want := s.srv.identity(), srv.identity(); got != want {
		return fmt.Errorf("the log comes from the server %s by now, and the rows came from %s", got.Server, want.Server)
	}
	s.marks = append(s.marks, mark{id: id, at: at})
	s.waiting.Store(int32(len(s.marks)))
	if s.wake != nil {
		s.wake()
	}
	return nil
}

// marksWait says whether any mark waits.
func (s *scanState) marksWait() bool { return s != nil && s.waiting.Load() > 0 }

// passed takes out the marks at or before a place, in the order in which they were set.
func (s *scanState) passed(at place) (ids []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.marks) > 0 && s.marks[0].at.number() <= at.number() {
		ids = append(ids, s.marks[0].id)
		s.marks = s.marks[1:]
	}
	s.waiting.Store(int32(len(s.marks)))
	return ids
}
