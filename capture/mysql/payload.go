package mysql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/klauspost/compress/zstd"

	"github.com/headwaterdb/headwater/capture"
)

// A payloadReader yields the events inside of a TRANSACTION_PAYLOAD_EVENT, that is a
// transaction which was compressed as a whole (binlog_transaction_compression):
//
//	{ field length value }… 0 events
//
// Fields, lengths and values are length-encoded integers. Events are inflated one by one,
// so that memory is bounded by the largest of them, whatever the transaction's size. It
// keeps memory between payloads; one goroutine uses it. The zero value is ready; Close
// ends it.
// https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Transaction__payload__event.html
type payloadReader struct {
	zstd  *zstd.Decoder
	in    io.Reader
	event []byte
}

const (
	payloadCompression = 2 // field
	compressionZSTD    = 0
	compressionNone    = 255

	// maxEvent is what the largest of the server's packets can hold.
	maxEvent = 1<<30 + replication.EventHeaderSize
	// maxWindow is the largest window that zstd's levels have.
	maxWindow = 128 << 20
)

// reset makes the reader read the payload with this body, without header and checksum.
// body must not change until the last call of next.
func (r *payloadReader) reset(body []byte) error {
	c := cursor{rest: body}
	compression := uint64(compressionNone)
	for {
		field := c.packed()
		if field == 0 {
			break
		}
		value := cursor{rest: c.sized()}
		if field == payloadCompression {
			compression = value.packed()
			c.failed = c.failed || value.failed
		}
	}
	if c.failed {
		return errPayload(errors.New("its header is of an unknown form"))
	}
	switch compression {
	case compressionNone:
		r.in = bytes.NewReader(c.rest)
	case compressionZSTD:
		if r.zstd == nil {
			var err error
			r.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(1<<62))
			if err != nil {
				return errPayload(err)
			}
		}
		if err := r.zstd.Reset(bytes.NewReader(c.rest)); err != nil {
			return errPayload(err)
		}
		r.in = r.zstd
	default:
		return errPayload(fmt.Errorf("its compression %d is unknown", compression))
	}
	return nil
}

// next returns the next event with its header, which has no checksum behind it. It is
// valid until the next call. At the end the error is io.EOF.
func (r *payloadReader) next() ([]byte, error) {
	const header = replication.EventHeaderSize
	if cap(r.event) < header || cap(r.event) > keepEvent {
		r.event = make([]byte, header, 4<<10)
	}
	r.event = r.event[:header]
	if _, err := io.ReadFull(r.in, r.event); err == io.EOF {
		return nil, io.EOF
	} else if err != nil {
		return nil, errPayload(err)
	}
	size := int64(binary.LittleEndian.Uint32(r.event[9:]))
	if size < header || size > maxEvent {
		return nil, errPayload(fmt.Errorf("an event in it has the size %d", size))
	}
	// The memory grows with what there is, not with what the size claims.
	for int64(len(r.event)) < size {
		if len(r.event) == cap(r.event) {
			r.event = append(r.event, 0)[:len(r.event)]
		}
		n, err := io.ReadFull(r.in, r.event[len(r.event):min(int64(cap(r.event)), size)])
		r.event = r.event[:len(r.event)+n]
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, errPayload(err)
		}
	}
	return r.event, nil
}

// keepEvent bounds the memory that is kept from one event to the next.
const keepEvent = 4 << 20

// Close ends the decompressor.
func (r *payloadReader) Close() {
	if r.zstd != nil {
		r.zstd.Close()
	}
	*r = payloadReader{}
}

func errPayload(err error) error {
	return fmt.Errorf("%w: inflate a compressed transaction: %w; remedy: check the server's binary log, for example by mysqlbinlog --verify-binlog-checksum",
		capture.ErrUnreadable, err)
}
