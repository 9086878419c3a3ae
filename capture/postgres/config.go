package postgres

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headwaterdb/headwater/capture"
)

// A PublicationMode says who makes the publication.
type PublicationMode string

const (
	// PublicationFiltered publishes the captured tables: the publication is created
	// when it is missing, and captured tables that it lacks are added at start.
	PublicationFiltered PublicationMode = "filtered"
	// PublicationAll creates a missing publication FOR ALL TABLES, for which the user
	// must be a superuser.
	PublicationAll PublicationMode = "all"
	// PublicationExisting changes nothing: the publication must be there.
	PublicationExisting PublicationMode = "existing"
)

// A SlotMode says who makes the replication slot.
type SlotMode string

const (
	// SlotCreate creates a missing slot at the first start of a pipeline, and never
	// again: a slot that is lost later is a gap.
	SlotCreate SlotMode = "create"
	// SlotExisting wants the slot to be there at the first start too.
	SlotExisting SlotMode = "existing"
)

// Config says which database to capture and how. The zero value of a field means its
// default, see SetDefaults.
type Config struct {
	// URL names the database: postgres://user@host:port/database, with the options of
	// libpq such as sslmode, sslrootcert and target_session_attrs. Required.
	URL string `yaml:"url"`
	// Password of the user. It wins over one in the URL, and is printed nowhere.
	Password capture.Secret `yaml:"password"`

	// Slot is the replication slot. The server keeps its log for it from the last
	// acknowledged position on, whether we run or not. Lower case letters, digits and
	// underscores, at most 63. Default "headwater".
	Slot string `yaml:"slot"`
	// SlotMode is "create" or "existing". Default "create".
	SlotMode SlotMode `yaml:"slot_mode"`
	// SlotFailover makes a slot that we create one which standbys keep in step
	// (PostgreSQL 17 and up). They need sync_replication_slots, and the primary their
	// names in synchronized_standby_slots. Default false.
	SlotFailover bool `yaml:"slot_failover"`

	// Publication is what the server sends. Default "headwater".
	Publication string `yaml:"publication"`
	// PublicationMode is "filtered", "all" or "existing". Default "filtered".
	PublicationMode PublicationMode `yaml:"publication_mode"`

	// Tables says which of the published tables are captured.
	Tables capture.Tables `yaml:"tables"`

	// HeartbeatInterval is how often a position without changes is checkpointed while
	// the captured tables are quiet, so that the server may drop the log that others
	// write. Default 10 s.
	HeartbeatInterval time.Duration `yaml:"heartbeat_interval"`
	// StatusInterval is how often the server hears of us. It is lowered to a third of
	// the server's wal_sender_timeout where that is shorter. Default 10 s.
	StatusInterval time.Duration `yaml:"status_interval"`
	// BatchBytes is the size at which a transaction is handed on in parts; at a commit
	// a quarter of it is enough. Smaller batches cost more hand-overs, larger ones
	// memory and delay. Default 256 KiB.
	BatchBytes int `yaml:"batch_bytes"`
	// ConnectTimeout bounds each attempt to connect. Default 15 s.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
}

// SetDefaults fills in what is not set.
func (c *Config) SetDefaults() {
	setDefault(&c.Slot, "headwater")
	setDefault(&c.SlotMode, SlotCreate)
	setDefault(&c.Publication, "headwater")
	setDefault(&c.PublicationMode, PublicationFiltered)
	setDefault(&c.HeartbeatInterval, 10*time.Second)
	setDefault(&c.StatusInterval, 10*time.Second)
	setDefault(&c.BatchBytes, 256<<10)
	setDefault(&c.ConnectTimeout, 15*time.Second)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// Validate reports every setting that cannot work, in one error.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.URL == "" {
		bad("url: missing; want postgres://user@host:port/database")
	} else if p, err := pgconn.ParseConfig(c.URL); err != nil {
		// The library's error may quote the URL with a password in an unexpected place.
		bad("url: it cannot be read as a PostgreSQL address; want postgres://user@host:port/database")
	} else if p.Database == "" {
		bad("url: it names no database")
	}
	if !slotName.MatchString(c.Slot) {
		bad("slot: %q is no slot name; use lower case letters, digits and underscores, at most 63", c.Slot)
	}
	if c.SlotMode != SlotCreate && c.SlotMode != SlotExisting {
		bad("slot_mode: %q is unknown; want %q or %q", c.SlotMode, SlotCreate, SlotExisting)
	}
	if n := len(c.Publication); n == 0 || n > 63 || strings.ContainsRune(c.Publication, 0) {
		bad("publication: %q is no name; it has 1 to 63 bytes", c.Publication)
	}
	switch c.PublicationMode {
	case PublicationFiltered, PublicationAll, PublicationExisting:
	default:
		bad("publication_mode: %q is unknown; want %q, %q or %q", c.PublicationMode, PublicationFiltered, PublicationAll, PublicationExisting)
	}
	if err := c.Tables.Validate(); err != nil {
		errs = append(errs, err)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"heartbeat_interval", c.HeartbeatInterval}, {"status_interval", c.StatusInterval}, {"connect_timeout", c.ConnectTimeout}} {
		if d.value < 100*time.Millisecond {
			bad("%s: %s is too short; at least 100ms", d.name, d.value)
		}
	}
	if c.BatchBytes < 4<<10 || c.BatchBytes > 16<<20 {
		bad("batch_bytes: %d is out of bounds; 4 KiB to 16 MiB", c.BatchBytes)
	}
	return errors.Join(errs...)
}

// user is the user of the URL, quoted for a statement.
func (c *Config) user() string {
	p, err := pgconn.ParseConfig(c.URL)
	if err != nil {
		return "the user"
	}
	return quoteIdent(p.User)
}

// String names the database and leaves every secret out.
func (c Config) String() string {
	p, err := pgconn.ParseConfig(c.URL)
	if err != nil {
		return "PostgreSQL at an address that cannot be read"
	}
	return fmt.Sprintf("PostgreSQL database %q at %s:%d as %q, slot %q, publication %q", p.Database, p.Host, p.Port, p.User, c.Slot, c.Publication)
}

// Format is String, whatever the verb: the URL may hold a password.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalText is String, for encoders.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// LogValue is String, for slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }
