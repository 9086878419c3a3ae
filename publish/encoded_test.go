package publish

import (
	"context"
	"testing"
	"time"
)

// A quiet source makes a batch for each small transaction. What such batches hold, not
// what they use, is what the bounds must count.
func TestEncoded_SizeIsWhatItHolds(t *testing.T) {
	small := newEncoded()
	small.Reserve(4 << 10)
	small.Buf = append(small.Buf, "a small record"...)
	if n := small.size(); n < firstChunk || n > 2*firstChunk {
		t.Errorf("a small batch holds %d bytes, want one first piece of %d", n, firstChunk)
	}
	before := small.Buf
	for range 100 {
		small.Reserve(4 << 10)
		small.Buf = append(small.Buf, make([]byte, 4<<10)...)
	}
	if string(before) != "a small record" {
		t.Error("what was appended before has moved")
	}
	if n := small.size(); n < 400<<10 || n > 400<<10+2*bufferChunk {
		t.Errorf("400 KiB in pieces hold %d bytes", n)
	}
	small.release()

	q := newQueue(1 << 20)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	queued := 0
	for ; queued < 1000; queued++ {
		e := newEncoded()
		e.Reserve(4 << 10)
		e.Buf = append(e.Buf, 1)
		if q.put(ctx, e) != nil {
			break
		}
	}
	if want := (1 << 20) / firstChunk; queued > want {
		t.Errorf("%d small batches went into a queue that has room for %d", queued, want)
	}
}
