package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/twmb/franz-go/plugin/kslog"

	"github.com/headwaterdb/headwater/capture"
)

// Values of [Config.Delivery].
const (
	ExactlyOnce = "exactly-once"
	AtLeastOnce = "at-least-once"
)

// Config is how to reach Kafka and how to write to it.
type Config struct {
	// Brokers are the addresses to begin with, host:port. Required.
	Brokers []string `yaml:"brokers"`
	// ClientID is what brokers' logs and quotas know us by. Default "headwater".
	ClientID string `yaml:"client_id"`
	// Delivery is exactly-once, or at-least-once for brokers without transactions and
	// for the lowest latency: after a crash the last transaction's records come again,
	// and two running instances are not kept apart. Default exactly-once. The program
	// sets it from its own key, as it does Topics.
	Delivery string `yaml:"-"`
	// TransactionTimeout is after how long the broker ends an open transaction. Longer
	// survives longer broker troubles without reading again, and holds up consumers for
	// as long when a host dies for good. At most the broker's transaction.max.timeout.ms.
	// Default 60s.
	TransactionTimeout time.Duration `yaml:"transaction_timeout"`
	// Compression is snappy, lz4, zstd, gzip or none. zstd makes the smallest batches
	// for three to four times the CPU of snappy. Default snappy.
	Compression string `yaml:"compression"`
	// Linger is how long a partition's batch may wait for more records; a commit waits
	// for none. 0 sends at once, which makes small batches under load. Default 5ms.
	Linger *time.Duration `yaml:"linger"`
	// MaxRecordBytes is the largest record, key and value before compression, that may
	// be written. It must not be above the topics' max.message.bytes, which counts after
	// compression. Default 1000012, Kafka's own default less the batch's head.
	MaxRecordBytes int `yaml:"max_record_bytes"`
	// BufferRecords and BufferBytes bound what is held on its way to the brokers, the
	// bytes 4 MiB or more. Defaults 50000 and 64 MiB.
	BufferRecords int `yaml:"buffer_records"`
	BufferBytes   int `yaml:"buffer_bytes"`
	// Topics is how data topics are made.
	Topics TopicConfig `yaml:"-"`
	// CheckpointReplication is the replication factor of the checkpoint topic. Default
	// 3, or the number of brokers when there are fewer.
	CheckpointReplication int16 `yaml:"checkpoint_replication"`
	TLS                   TLS   `yaml:"tls"`
	SASL                  SASL  `yaml:"sasl"`
	// New says that the operator knows that topics of the pipeline were deleted (a flag of
	// the command line, not of the file). Without its checkpoint topic it then starts anew,
	// and a data topic that was made again is taken in place of the one before.
	New bool `yaml:"-"`

	// patience is for how long a topic must be missing before that is believed: a broker
	// that has just started may for a while not know topics that exist.
	patience time.Duration
	extra    []kgo.Opt // of tests: shorter waits
}

// TopicConfig is how data topics are made. Topics that exist are left as they are.
type TopicConfig struct {
	// Create says whether missing topics are made; otherwise they must be there.
	// Default true.
	Create *bool `yaml:"create"`
	// Partitions of a new topic. A row's key decides its partition, so the number cannot
	// grow later without moving rows. Default 6.
	Partitions int32 `yaml:"partitions"`
	// Replication factor of a new topic. Default 3, or the number of brokers when there
	// are fewer.
	Replication int16 `yaml:"replication"`
	// Settings of a new topic, such as retention.ms. min.insync.replicas is 2 for three
	// or more replicas unless it is given here.
	Settings map[string]string `yaml:"settings"`
}

// TLS encrypts connections, and proves who we are when a certificate is given.
type TLS struct {
	// Enabled turns it on. Default false.
	Enabled bool `yaml:"enabled"`
	// CAFile holds the certificates (PEM) that may sign the brokers'. Default: the
	// system's.
	CAFile string `yaml:"ca_file"`
	// CertFile and KeyFile (PEM) are ours, for brokers that ask for a certificate.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// ServerName is the name that the brokers' certificates carry, where it is not the
	// host of their address.
	ServerName string `yaml:"server_name"`
}

// SASL is how we log in.
type SASL struct {
	// Mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. Default: no login.
	Mechanism string `yaml:"mechanism"`
	Username  string `yaml:"username"`
	// Password, or PasswordFile to read it from; the file is read again for each
	// connection, so a changed password is taken up without a restart.
	Password     capture.Secret `yaml:"password"`
	PasswordFile string         `yaml:"password_file"`
}

// SetDefaults fills in what was left out.
func (c *Config) SetDefaults() {
	setDefault(&c.ClientID, "headwater")
	setDefault(&c.Delivery, ExactlyOnce)
	setDefault(&c.TransactionTimeout, time.Minute)
	setDefault(&c.Compression, "snappy")
	if c.Linger == nil {
		c.Linger = new(5 * time.Millisecond)
	}
	setDefault(&c.MaxRecordBytes, 1_000_012)
	setDefault(&c.BufferRecords, 50_000)
	setDefault(&c.BufferBytes, 64<<20)
	setDefault(&c.Topics.Partitions, 6)
	setDefault(&c.patience, 30*time.Second)
	if c.Topics.Create == nil {
		c.Topics.Create = new(true)
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

var codecs = map[string]kgo.CompressionCodec{
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression().WithLevel(1),
	"gzip":   kgo.GzipCompression(),
	"none":   kgo.NoCompression(),
}

// Validate reports everything that is wrong, by the names in the file.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(len(c.Brokers) > 0, "brokers is missing; give at least one host:port")
	for _, b := range c.Brokers {
		_, port, err := net.SplitHostPort(b)
		check(err == nil && port != "", "brokers: %q is not host:port", b)
	}
	check(c.Delivery == ExactlyOnce || c.Delivery == AtLeastOnce, "delivery is %q; it must be %s or %s", c.Delivery, ExactlyOnce, AtLeastOnce)
	check(c.TransactionTimeout >= time.Second && c.TransactionTimeout <= 15*time.Minute,
		"transaction_timeout is %v; it must be 1s to 15m", c.TransactionTimeout)
	_, known := codecs[c.Compression]
	check(known, "compression is %q; it must be snappy, lz4, zstd, gzip or none", c.Compression)
	check(c.Linger == nil || *c.Linger >= 0 && *c.Linger <= time.Second, "linger must be 0 to 1s")
	// The client writes requests of 100 MiB at most, the brokers' own limit by default.
	check(c.MaxRecordBytes >= 1024 && c.MaxRecordBytes <= 96<<20, "max_record_bytes is %d; it must be 1024 to %d", c.MaxRecordBytes, 96<<20)
	check(c.BufferRecords > 0, "buffer_records is %d; it must be positive", c.BufferRecords)
	check(c.BufferBytes >= c.MaxRecordBytes, "buffer_bytes is %d; it must hold a record of max_record_bytes, %d", c.BufferBytes, c.MaxRecordBytes)
	check(c.BufferBytes >= checkpointBytes, "buffer_bytes is %d; it must hold a checkpoint, which may have %d", c.BufferBytes, checkpointBytes)
	check(c.Topics.Partitions > 0, "topics.partitions is %d; it must be positive", c.Topics.Partitions)
	check(c.Topics.Replication >= 0, "topics.replication is %d; it must be positive", c.Topics.Replication)
	check(c.CheckpointReplication >= 0, "checkpoint_replication is %d; it must be positive", c.CheckpointReplication)
	check((c.TLS.CertFile == "") == (c.TLS.KeyFile == ""), "tls.cert_file and tls.key_file belong together")
	check(c.TLS.Enabled || c.TLS.CAFile+c.TLS.CertFile+c.TLS.ServerName == "", "tls has settings but is not enabled; set tls.enabled to true")
	switch c.SASL.Mechanism {
	case "":
		check(c.SASL.Username == "", "sasl.username is given without sasl.mechanism")
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		check(c.SASL.Username != "", "sasl.username is missing")
		check((c.SASL.Password == "") != (c.SASL.PasswordFile == ""), "sasl needs either password or password_file")
	default:
		check(false, "sasl.mechanism is %q; it must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", c.SASL.Mechanism)
	}
	return errors.Join(errs...)
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// ValidateName says whether a pipeline may have this name. It becomes part of the
// transactional id and of the checkpoint topic.
func ValidateName(name string) error {
	if len(name) > 200 || !nameForm.MatchString(name) {
		return fmt.Errorf("name is %q; it must be lower-case letters, digits and hyphens, at most 200, and not begin with a hyphen", name)
	}
	return nil
}

// Options are the settings that every Kafka client of the program shares. The files of
// the TLS section are read now, the password file at each login.
func (c *Config) Options(log *slog.Logger) ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.SoftwareNameAndVersion("headwater", "1"),
		// What the client looks up has often changed a moment ago: a topic was made, a
		// leader has moved.
		kgo.MetadataMinAge(100 * time.Millisecond),
		// A coordinator that moves, or a connection that was closed, is there again a moment
		// later: the client's own first pause of 250 ms would be what consumers notice. How
		// long it goes on is bounded by its time, 30 s, and not by a number.
		kgo.RetryBackoffFn(func(tries int) time.Duration { return pauseAfter(tries, firstPause, maxPause) }),
		kgo.RequestRetries(math.MaxInt32),
		kgo.DisableClientMetrics(),
	}
	if log != nil {
		opts = append(opts, kgo.WithLogger(warnings{kslog.New(log)}))
	}
	if c.TLS.Enabled {
		t, err := c.TLS.config()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	switch user := c.SASL.Username; c.SASL.Mechanism {
	case "PLAIN":
		opts = append(opts, kgo.SASL(plain.Plain(func(context.Context) (plain.Auth, error) {
			pass, err := c.SASL.password()
			return plain.Auth{User: user, Pass: pass}, err
		})))
	case "SCRAM-SHA-256", "SCRAM-SHA-512":
		auth := func(context.Context) (scram.Auth, error) {
			pass, err := c.SASL.password()
			return scram.Auth{User: user, Pass: pass}, err
		}
		mechanism := scram.Sha256
		if c.SASL.Mechanism == "SCRAM-SHA-512" {
			mechanism = scram.Sha512
		}
		opts = append(opts, kgo.SASL(mechanism(auth)))
	}
	return append(opts, c.extra...), nil
}

// password returns the password, from its file when there is one.
func (s *SASL) password() (string, error) {
	if s.PasswordFile == "" {
		return string(s.Password), nil
	}
	b, err := os.ReadFile(s.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("sasl.password_file: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

func (t *TLS) config() (*tls.Config, error) {
	cfg := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls.ca_file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca_file: %s holds no PEM certificate", t.CAFile)
		}
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls.cert_file and tls.key_file: %w", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}

// clone returns a copy that shares nothing that callers might change.
func (c Config) clone() Config {
	c.Brokers = slices.Clone(c.Brokers)
	return c
}

// warnings passes only what is worth a line: the client logs several at level info for
// each transaction.
type warnings struct{ kgo.Logger }

func (w warnings) Level() kgo.LogLevel { return min(w.Logger.Level(), kgo.LogLevelWarn) }
