package publish

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
	"unsafe"

	"github.com/headwaterdb/headwater/capture"
)

// errDue says that nothing came before the moment that next was told to wait for.
var errDue = errors.New("publish: nothing came")

// A queue is the one hand-off of a pipeline: encoded batches on their way from the
// reading goroutine to the publishing one, bounded in bytes (rule R24). One goroutine
// puts and closes, another takes.
type queue struct {
	max   int64
	ready chan struct{} // holds a token when there may be something to take
	space chan struct{} // holds a token when there may be room
	timer *time.Timer   // the taker's

	mu    sync.Mutex
	items []*Encoded
	bytes int64
	// closed is nil while the queue is open, then io.EOF or what ended the source.
	closed error
}

func newQueue(max int64) *queue {
	q := &queue{max: max, ready: make(chan struct{}, 1), space: make(chan struct{}, 1), timer: time.NewTimer(0)}
	q.timer.Stop()
	return q
}

// put hands a batch over and waits for room. A batch larger than the whole queue goes
// through an empty one.
func (q *queue) put(ctx context.Context, e *Encoded) error {
	for {
		q.mu.Lock()
		if q.bytes == 0 || q.bytes+e.size() <= q.max {
			q.items = append(q.items, e)
			q.bytes += e.size()
			q.mu.Unlock()
			signal(q.ready)
			return nil
		}
		q.mu.Unlock()
		select {
		case <-q.space:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// close says that nothing more comes, because of err or, when that is nil, because the
// source has nothing more to say.
func (q *queue) close(err error) {
	if err == nil {
		err = io.EOF
	}
	q.mu.Lock()
	q.closed = err
	q.mu.Unlock()
	signal(q.ready)
}

// next takes the next batch. It returns errDue when none came until due (never, when
// due is zero), ctx's error as soon as that has ended, and once everything was taken from
// a closed queue what close was told, io.EOF for nil.
func (q *queue) next(ctx context.Context, due time.Time) (*Encoded, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q.mu.Lock()
		switch {
		case len(q.items) > 0:
			e := q.items[0]
			q.items[0] = nil
			if q.items = q.items[1:]; len(q.items) == 0 {
				q.items = nil
			}
			q.bytes -= e.size()
			q.mu.Unlock()
			signal(q.space)
			return e, nil
		case q.closed != nil:
			err := q.closed
			q.mu.Unlock()
			return nil, err
		}
		q.mu.Unlock()

		var expired <-chan time.Time
		if !due.IsZero() {
			q.timer.Reset(time.Until(due))
			expired = q.timer.C
		}
		select {
		case <-q.ready:
			q.timer.Stop()
		case <-expired:
			return nil, errDue
		case <-ctx.Done():
			q.timer.Stop()
		}
	}
}

func (q *queue) size() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// signal leaves a token in c unless there is one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// size is what the batch holds in memory, used or not: it is what the bounds of queue
// and transaction are about.
func (e *Encoded) size() int64 {
	return e.left + int64(cap(e.Buf)) + int64(len(e.Records))*int64(unsafe.Sizeof(Record{})) + int64(len(e.Entries))*int64(unsafe.Sizeof(capture.Entry{}))
}

const (
	// firstChunk and bufferChunk are the sizes of the pieces of a batch's memory: the
	// first one, and those that a larger batch moves on to.
	firstChunk  = 8 << 10
	bufferChunk = 128 << 10
	// keepRecords bounds the records for which a released batch keeps room.
	keepRecords = 16 << 10
)

var (
	encodeds = sync.Pool{New: func() any { return new(Encoded) }}
	firsts   = sync.Pool{New: func() any { return new([firstChunk]byte) }}
	buffers  = sync.Pool{New: func() any { return new([bufferChunk]byte) }}
)

func newEncoded() *Encoded { return encodeds.Get().(*Encoded) }

// release gives the batch's memory to the next ones.
func (e *Encoded) release() {
	if e.first != nil {
		firsts.Put(e.first)
	}
	for i, c := range e.chunks {
		buffers.Put(c)
		e.chunks[i] = nil
	}
	clear(e.Records)
	clear(e.Entries)
	*e = Encoded{Records: e.Records[:0], Entries: e.Entries[:0], chunks: e.chunks[:0]}
	if cap(e.Records) > keepRecords {
		e.Records = nil
	}
	encodeds.Put(e)
}
