package avro

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/schema"
)

// A Registry keeps record schemas by subject.
type Registry interface {
	// Register makes the record schema a version of the subject unless it is one
	// already, and returns its id. A refusal matches [schema.ErrIncompatible].
	Register(ctx context.Context, subject, schema string) (id int, err error)
	// Latest returns the newest version of a subject, if there is one.
	Latest(ctx context.Context, subject string) (schema string, id int, found bool, err error)
}

// Topics makes sure that topics exist.
type Topics interface {
	// Ensure creates the topic if it is missing, and returns its number of partitions and
	// its present id, "" when it has none. known says that it has existed before, with the
	// given id unless that is "": if it is missing then, or its id is another, it was
	// deleted, and Ensure returns an error that matches [publish.ErrRefused].
	Ensure(ctx context.Context, topic string, known bool, id string) (partitions int32, now string, err error)
}

// Values of Config.PartitionBy.
const (
	bySerializedKey = "serialized-key"
	byKeyFields     = "key-fields"
)

// Config holds what an [Encoder] needs to know.
type Config struct {
	Format schema.Format
	Naming schema.Naming
	// Columns says which columns records carry. Those of the key cannot be left out.
	Columns capture.Columns
	// PartitionBy chooses what is hashed for the partition: serialized-key (the whole
	// key with its schema id, as Debezium's producer does) or key-fields (without the
	// id, so that tables with equal keys are partitioned alike). Default serialized-key.
	PartitionBy string
	// MaxRecordBytes is the size of key, value and headers beyond which a record is
	// refused before it reaches the sink (rule R16 of publish/DESIGN.md). 0 is no limit.
	MaxRecordBytes int
	// Version is what source.version says: our own version.
	Version string
	// RunID, if set, is sent as the context header "runId".
	RunID string
	// Notify is told what a person should know of. It is called from Encode and must
	// not wait. May be nil.
	Notify func(schema.Notice)
	// Now is the clock of the envelope's ts_ms, ts_us and ts_ns; it is read once per
	// batch. Default time.Now.
	Now func() time.Time
}

// SetDefaults fills in what was not set.
func (c *Config) SetDefaults() {
	c.Format.SetDefaults()
	c.Naming.SetDefaults()
	if c.PartitionBy == "" {
		c.PartitionBy = bySerializedKey
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Notify == nil {
		c.Notify = func(schema.Notice) {}
	}
}

// Validate reports every setting that cannot be carried out.
func (c *Config) Validate() error {
	errs := []error{c.Format.Validate(), c.Naming.Validate(), c.Columns.Validate()}
	if c.PartitionBy != bySerializedKey && c.PartitionBy != byKeyFields {
		errs = append(errs, fmt.Errorf("partition.by: %q is not one of %s, %s", c.PartitionBy, bySerializedKey, byKeyFields))
	}
	if c.MaxRecordBytes < 0 {
		errs = append(errs, fmt.Errorf("max record bytes: %d is negative", c.MaxRecordBytes))
	}
	return errors.Join(errs...)
}

// Fingerprint is a hash of the settings that change what is emitted (rule R8).
func (c *Config) Fingerprint() string {
	s := fmt.Sprintf("%s\n%s\n%s\n%s", c.Format.Fingerprint(), c.Naming.Prefix, c.Naming.Delimiter, c.PartitionBy)
	if !c.Columns.All() {
		s += fmt.Sprintf("\ncolumns %q %q", c.Columns.Include, c.Columns.Exclude)
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s)))
}
