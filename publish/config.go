package publish

import (
	"errors"
	"fmt"
	"time"
)

// Config says where Kafka transactions end and how much may wait for them.
type Config struct {
	// CommitInterval is how long a Kafka transaction collects changes while they keep
	// coming; when the source falls silent it is committed at once. Shorter shows
	// changes sooner, longer costs the brokers less. It is lengthened by itself, up to
	// MaxCommitInterval, while commits take more than a tenth of the time and the queue
	// is more than half full. 20ms to 5s; default 100ms.
	CommitInterval time.Duration `yaml:"commit_interval"`
	// MaxCommitInterval bounds the lengthening. Default 5s.
	MaxCommitInterval time.Duration `yaml:"max_commit_interval"`
	// MaxRecords and MaxBytes end a Kafka transaction at the next source commit, and
	// cut a source transaction which is larger than that itself: its parts then become
	// visible one after the other. Defaults 250000 and 64 MiB.
	MaxRecords int   `yaml:"max_records"`
	MaxBytes   int64 `yaml:"max_bytes"`
	// MaxPartitions ends a Kafka transaction at the next source commit too, and cuts a
	// source transaction when it has twice as many: at each commit the brokers write a
	// marker into every partition. Default 2000.
	MaxPartitions int `yaml:"max_partitions"`
	// Silence is how long nothing must have come from the source to call it idle.
	// Default 2ms.
	Silence time.Duration `yaml:"silence"`
	// IdleInterval is how often the checkpoint is committed without changes: so the
	// database can drop its log while that moves without changes of ours, and an instance
	// that was superseded learns of it. Default 10s.
	IdleInterval time.Duration `yaml:"idle_interval"`
	// QueueBytes bounds the encoded batches that wait while a transaction commits.
	// Default 16 MiB, a few hundredths of a second at full speed.
	QueueBytes int64 `yaml:"queue_bytes"`
	// TransactionTimeout is the sink's: after it the broker ends an open transaction.
	// We commit after a third of it at the latest (rule R23). Default 60s.
	TransactionTimeout time.Duration `yaml:"-"`
}

// SetDefaults fills in what was left out.
func (c *Config) SetDefaults() {
	setDefault(&c.CommitInterval, 100*time.Millisecond)
	setDefault(&c.MaxCommitInterval, 5*time.Second)
	setDefault(&c.MaxRecords, 250_000)
	setDefault(&c.MaxBytes, 64<<20)
	setDefault(&c.MaxPartitions, 2000)
	setDefault(&c.Silence, 2*time.Millisecond)
	setDefault(&c.IdleInterval, 10*time.Second)
	setDefault(&c.QueueBytes, 16<<20)
	setDefault(&c.TransactionTimeout, time.Minute)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports everything that is wrong, by the names in the file.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.CommitInterval >= 20*time.Millisecond && c.CommitInterval <= 5*time.Second,
		"commit_interval is %v; it must be 20ms to 5s", c.CommitInterval)
	check(c.MaxCommitInterval >= c.CommitInterval,
		"max_commit_interval is %v; it must not be shorter than commit_interval, %v", c.MaxCommitInterval, c.CommitInterval)
	check(c.MaxCommitInterval <= c.TransactionTimeout/3,
		"max_commit_interval is %v; it must be at most a third of the transaction timeout, %v", c.MaxCommitInterval, c.TransactionTimeout)
	check(c.MaxRecords > 0, "max_records is %d; it must be positive", c.MaxRecords)
	check(c.MaxBytes > 0, "max_bytes is %d; it must be positive", c.MaxBytes)
	check(c.MaxPartitions > 0, "max_partitions is %d; it must be positive", c.MaxPartitions)
	check(c.Silence > 0, "silence is %v; it must be positive", c.Silence)
	check(c.IdleInterval > 0, "idle_interval is %v; it must be positive", c.IdleInterval)
	check(c.QueueBytes > 0, "queue_bytes is %d; it must be positive", c.QueueBytes)
	return errors.Join(errs...)
}
