package kafka

import (
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// An item is a batch in a request.
type item struct {
	p    *partitionState
	b    *batch
	join bool // the coordinator is to be told
	err  error

	topicID [16]byte
}

// A request is one Produce request. The client chooses its version, 13 at most, and asks
// for its bytes; it may do so more than once.
type request struct {
	broker   int32
	id       string
	producer producer
	size     int
	items    []item // sorted by topic once it is complete
	version  int16
	max      int16
}

func newRequest(s *sender, broker int32) *request {
	r := &request{broker: broker, id: s.id, producer: s.producer, max: 13}
	if s.joins {
		r.max = 11 // from 12 on the leader tells the coordinator
	}
	return r
}

// take moves the partition's next batch into the request, unless that is full.
func (r *request) take(s *sender, p *partitionState) bool {
	b := p.open
	if len(p.full) > 0 {
		b = p.full[0]
	}
	if len(r.items) > 0 && r.size+b.held > requestBytes {
		return false
	}
	if len(p.full) > 0 {
		p.full = p.full[1:]
	} else {
		p.large = len(b.buf) > smallBuffer
		p.open = nil
	}
	p.sending = b
	r.size += b.held
	if !b.numbered {
		if p.term != s.term {
			p.term, p.seq = s.term, 0
		}
		p.seq = b.number(p.seq)
	}
	if p.topic.id == [16]byte{} {
		r.max = min(r.max, 12) // the last that goes by names
	}
	r.items = append(r.items, item{p: p, b: b, join: s.joins && p.txn != s.txn, err: errUnanswered, topicID: p.topic.id})
	return true
}

var errUnanswered = errors.New("the broker's answer leaves the partition out")

// read takes each batch's outcome from the answer.
func (r *request) read(resp *kmsg.ProduceResponse) {
	for i := range resp.Topics {
		t := &resp.Topics[i]
		at := slices.IndexFunc(r.items, func(it item) bool {
			if r.version >= 13 {
				return it.topicID == t.TopicID
			}
			return it.p.topic.name == t.Topic
		})
		if at < 0 {
			continue
		}
		for j := range t.Partitions {
			p := &t.Partitions[j]
			for k := at; k < len(r.items) && r.items[k].p.topic == r.items[at].p.topic; k++ {
				if r.items[k].p.n != p.Partition {
					continue
				}
				err := kerr.ErrorForCode(p.ErrorCode)
				if err != nil && p.ErrorMessage != nil && *p.ErrorMessage != "" {
					err = fmt.Errorf("%w (%s)", err, *p.ErrorMessage)
				}
				r.items[k].err = err
			}
		}
	}
}

// AppendTo appends the request's body (schema "Produce Request" of the protocol guide,
// versions 3 to 13).
func (r *request) AppendTo(dst []byte) []byte {
	flexible := r.IsFlexible()
	length := func(n int) {
		if flexible {
			dst = kbin.AppendCompactArrayLen(dst, n)
		} else {
			dst = kbin.AppendArrayLen(dst, n)
		}
	}
	tags := func() {
		if flexible {
			dst = append(dst, 0)
		}
	}
	var id *string
	if r.id != "" {
		id = &r.id
	}
	if flexible {
		dst = kbin.AppendCompactNullableString(dst, id)
	} else {
		dst = kbin.AppendNullableString(dst, id)
	}
	dst = kbin.AppendInt16(dst, -1) // acks: all
	dst = kbin.AppendInt32(dst, r.Timeout())
	topics := 0
	for i := range r.items {
		if i == 0 || r.items[i].p.topic != r.items[i-1].p.topic {
			topics++
		}
	}
	length(topics)
	for i := 0; i < len(r.items); {
		t := r.items[i].p.topic
		end := i + 1
		for end < len(r.items) && r.items[end].p.topic == t {
			end++
		}
		switch {
		case r.version >= 13:
			dst = append(dst, r.items[i].topicID[:]...)
		case flexible:
			dst = kbin.AppendCompactString(dst, t.name)
		default:
			dst = kbin.AppendString(dst, t.name)
		}
		length(end - i)
		for ; i < end; i++ {
			b := r.items[i].b
			dst = kbin.AppendInt32(dst, r.items[i].p.n)
			if n := headBytes + len(b.payload); flexible {
				dst = kbin.AppendUvarint(dst, uint32(n+1))
			} else {
				dst = kbin.AppendInt32(dst, int32(n))
			}
			dst = append(append(dst, b.head[:]...), b.payload...)
			tags()
		}
		tags()
	}
	tags()
	return dst
}

// The other methods of kmsg.Request.

func (r *request) Key() int16            { return kmsg.Produce.Int16() }
func (r *request) MaxVersion() int16     { return r.max }
func (r *request) SetVersion(v int16)    { r.version = v }
func (r *request) GetVersion() int16     { return r.version }
func (r *request) IsFlexible() bool      { return r.version >= 9 }
func (r *request) Timeout() int32        { return int32(produceTimeout.Milliseconds()) }
func (r *request) ReadFrom([]byte) error { return errors.ErrUnsupported }
func (r *request) ResponseKind() kmsg.Response {
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = r.version
	return resp
}
