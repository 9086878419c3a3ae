package avro

import (
	"errors"
	"fmt"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/publish"
)

// unreadable is the error of a value that a record cannot hold exactly: it stops the
// pipeline and names the place and the remedy.
func unreadable(p *plan, c *column, ev *capture.Event, err error) error {
	key := "none"
	if row := ev.After; p.keyed() {
		if row == nil {
			row = ev.Before
		}
		key = string(appendKeyText(nil, p.key, row, ev.Before))
	}
	return fmt.Errorf("%w: table %s, column %q, key %s: %w", capture.ErrUnreadable, p.table.ID, p.table.Columns[c.index].Name, key, err)
}

// malformed is the error of an event that breaks the reader's contract.
func malformed(p *plan, ev *capture.Event, err error) error {
	return fmt.Errorf("%w: table %s, %s: %w", capture.ErrUnreadable, p.table.ID, ev.Op, err)
}

var (
	errNoImage  = errors.New("the reader gave no row image; this is a defect of the reader, report it")
	errNoKey    = errors.New("the log does not carry the key column; remedy: let the database log whole old rows, or choose a record key that the log repeats (message.key.columns)")
	errRowWidth = errors.New("the row image has not as many values as the table has columns; this is a defect of the reader, report it")
)

// tooLarge is the error of a record beyond the limit (rule R16).
func tooLarge(r *publish.Record, size, limit int, p *plan, ev *capture.Event) error {
	key := "none"
	row := ev.After
	if row == nil {
		row = ev.Before
	}
	if p != nil && p.keyed() && row != nil {
		key = string(appendKeyText(nil, p.key, row, ev.Before))
	}
	enough := (size>>20 + 1) << 20 // a round number, with room for the head of a batch
	if enough-size < 4096 {
		enough += 1 << 20
	}
	return fmt.Errorf("%w: the record for topic %s, key %s, has %d bytes and the limit is %d; remedy: raise max.message.bytes of the topic "+
		"(kafka-configs --alter --entity-type topics --entity-name %[2]s --add-config max.message.bytes=%[6]d), then set kafka.max_record_bytes: %[6]d",
		capture.ErrUnreadable, r.Topic, key, size, limit, enough)
}
