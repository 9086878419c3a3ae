package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/headwaterdb/headwater/capture"
)

// Version is the version of the stored form that this program writes.
const Version = 1

// Key is the record key of the checkpoint itself; entries have keys of their own.
const Key = "p"

// TopicName is the topic that holds a pipeline's checkpoint: one partition that belongs
// to this pipeline alone (rule R2).
func TopicName(pipeline string) string { return "headwater." + pipeline + ".checkpoint" }

var (
	// ErrNotFound: the pipeline has never committed a checkpoint.
	ErrNotFound = errors.New("no checkpoint yet")
	// ErrNoTopic is the ErrNotFound of a pipeline without a checkpoint topic, as far as
	// the broker that was asked knows. One that has just started may not know it yet.
	ErrNoTopic = fmt.Errorf("%w: its topic is missing", ErrNotFound)
	// ErrUnusable: a checkpoint is there, or must have been, and cannot be used.
	// Retrying does not help.
	ErrUnusable = errors.New("the checkpoint cannot be used")
)

// A Checkpoint is where a pipeline stands.
type Checkpoint struct {
	Pipeline string
	// Seq grows by one with every committed checkpoint (rule R7).
	Seq   uint64
	Owner Owner
	Time  time.Time
	At    capture.Position
	InTx  *capture.InTx // nil at a commit boundary
	// Totals count what was published since the first start.
	Totals Totals
	// Config is the hash of the settings that change what is emitted (rule R8).
	Config string
	// Entries are the keyed notes: all of them when loaded, the changed ones when
	// committed. A nil value removes the entry.
	Entries map[string][]byte
}

// An Owner is the process that wrote a checkpoint.
type Owner struct {
	ID    string    `json:"id"` // made anew at each process start
	Host  string    `json:"host"`
	Since time.Time `json:"since"`
}

// Totals count records and their bytes (keys and values, before compression).
type Totals struct {
	Records uint64 `json:"records"`
	Bytes   uint64 `json:"bytes"`
}

// Resume returns the checkpoint as a source wants it.
func (c *Checkpoint) Resume() capture.Resume {
	return capture.Resume{At: c.At, InTx: c.InTx, Entries: c.Entries}
}

// A Loader finds where a pipeline stopped. It returns ErrNotFound on first start.
type Loader interface {
	Load(ctx context.Context, pipeline string) (Checkpoint, error)
}

// stored is the JSON form. The version comes first.
type stored struct {
	V        int             `json:"v"`
	Pipeline string          `json:"pipeline"`
	Seq      uint64          `json:"seq"`
	Owner    Owner           `json:"owner"`
	TimeMS   int64           `json:"ts_ms"`
	Pos      json.RawMessage `json:"pos,omitempty"`
	InTx     *storedInTx     `json:"intx,omitempty"`
	N        Totals          `json:"n"`
	Config   string          `json:"cfg,omitempty"`
}

type storedInTx struct {
	ID   string `json:"id"`
	Done uint64 `json:"done"`
	CRC  string `json:"crc"`
}

// Marshal returns the stored form of all but the entries.
func (c *Checkpoint) Marshal() ([]byte, error) {
	s := stored{
		V: Version, Pipeline: c.Pipeline, Seq: c.Seq, Owner: c.Owner, TimeMS: c.Time.UnixMilli(),
		N: c.Totals, Config: c.Config,
	}
	if c.At != "" {
		s.Pos = json.RawMessage(c.At)
	}
	if c.InTx != nil {
		s.InTx = &storedInTx{ID: c.InTx.ID, Done: c.InTx.Done, CRC: fmt.Sprintf("%08x", c.InTx.CRC)}
	}
	return json.Marshal(s)
}

// Unmarshal reads what Marshal wrote. Entries are not part of it. A version that this
// program does not know gives ErrUnusable.
func (c *Checkpoint) Unmarshal(b []byte) error {
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return fmt.Errorf("%w: it is not JSON: %w", ErrUnusable, err)
	}
	if head.V != Version {
		return fmt.Errorf("%w: its version is %d and this headwater reads %d; run the version that wrote it, or a newer one", ErrUnusable, head.V, Version)
	}
	var s stored
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	*c = Checkpoint{
		Pipeline: s.Pipeline, Seq: s.Seq, Owner: s.Owner, Time: time.UnixMilli(s.TimeMS).UTC(),
		At: capture.Position(s.Pos), Totals: s.N, Config: s.Config,
	}
	if s.InTx != nil {
		crc, err := strconv.ParseUint(s.InTx.CRC, 16, 32)
		if err != nil {
			return fmt.Errorf("%w: crc: %w", ErrUnusable, err)
		}
		c.InTx = &capture.InTx{ID: s.InTx.ID, Done: s.InTx.Done, CRC: uint32(crc)}
	}
	return nil
}
