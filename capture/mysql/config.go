package mysql

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/headwaterdb/headwater/capture"
)

// Values of tls in [Config.URL], named as the servers' own clients name them.
const (
	// TLSDisable never encrypts.
	TLSDisable = "disable"
	// TLSRequire encrypts and does not look at the server's certificate.
	TLSRequire = "require"
	// TLSVerifyCA wants a certificate that an authority of tls_ca has signed, whatever
	// name it carries. The certificates that a server makes for itself are of this kind.
	TLSVerifyCA = "verify-ca"
	// TLSVerifyFull wants the certificate to carry the name of the host, too.
	TLSVerifyFull = "verify-full"
)

var tlsModes = []string{TLSDisable, TLSRequire, TLSVerifyCA, TLSVerifyFull}

// Values of [Config.SnapshotLock].
const (
	// LockRefuse never locks a table.
	LockRefuse = "refuse"
	// LockAllow lets a table be locked against writes for the moment in which a view of
	// it is opened, where nothing else can tell what the view holds: MySQL without GTIDs.
	LockAllow = "allow"
)

// Config says which server to capture and how. The zero value of a field means its
// default, see SetDefaults.
type Config struct {
	// URL names the server: mysql://user@host:port/?tls=verify-full. The scheme is mysql
	// for MySQL and MariaDB alike, which of them it is the server tells. The port is 3306
	// when it is left out. tls is disable, require, verify-ca or verify-full; without it
	// connections to this machine are not encrypted and all others are, as verify-full.
	// Required.
	URL string `yaml:"url"`
	// Password of the user. It wins over one in the URL, and is printed nowhere.
	Password capture.Secret `yaml:"password"`
	// TLSCA holds the certificates (PEM) that may sign the server's. Default: the
	// system's.
	TLSCA string `yaml:"tls_ca"`
	// TLSCert and TLSKey (PEM) are ours, for users who need a certificate.
	TLSCert string `yaml:"tls_cert"`
	TLSKey  string `yaml:"tls_key"`

	// ServerID is the number by which the server knows us among its replicas. No other
	// replica and no server of the same topology may have it. Default: made from the
	// pipeline's name, above 2147483648, where nobody else begins to count.
	ServerID uint32 `yaml:"server_id"`
	// Pipeline names us in the server's lists of replicas and locks. The program sets it.
	Pipeline string `yaml:"-"`

	// Tables says which tables are captured, as database.table. The server's own
	// databases are never captured.
	Tables capture.Tables `yaml:"tables"`
	// SnapshotLock is "refuse" or "allow". Default "refuse".
	SnapshotLock string `yaml:"snapshot_lock"`
	// Snapshot says that the tables will be read: Check then asks for what that takes. The
	// program sets it.
	Snapshot bool `yaml:"-"`

	// HeartbeatInterval is how often a position without changes is checkpointed while
	// the captured tables are quiet, so that a restart does not read what others wrote
	// again, and still finds its place when the server purges old logs. Default 10 s.
	HeartbeatInterval time.Duration `yaml:"heartbeat_interval"`
	// ReadTimeout is how long the server may say nothing at all before the connection
	// counts as dead. It sends a heartbeat five times a second. Default 30 s.
	ReadTimeout time.Duration `yaml:"read_timeout"`
	// BatchBytes is the size at which a transaction is handed on in parts; at a commit
	// a quarter of it is enough. Smaller batches cost more hand-overs, larger ones
	// memory and delay. Default 256 KiB.
	BatchBytes int `yaml:"batch_bytes"`
	// PreparedBytes bounds what is kept of XA transactions that are prepared and not yet
	// committed: their rows are known before their outcome. Default 64 MiB.
	PreparedBytes int `yaml:"prepared_bytes"`
	// ConnectTimeout bounds each attempt to connect. Default 15 s.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
}

// SetDefaults fills in what is not set.
func (c *Config) SetDefaults() {
	setDefault(&c.Pipeline, "headwater")
	// The upper half of the range, where people do not choose numbers by hand.
	setDefault(&c.ServerID, crc32.ChecksumIEEE([]byte(c.Pipeline))|1<<31)
	setDefault(&c.SnapshotLock, LockRefuse)
	setDefault(&c.HeartbeatInterval, 10*time.Second)
	setDefault(&c.ReadTimeout, 30*time.Second)
	setDefault(&c.BatchBytes, 256<<10)
	setDefault(&c.PreparedBytes, 64<<20)
	setDefault(&c.ConnectTimeout, 15*time.Second)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports every setting that cannot work, in one error.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	a, err := c.address()
	if err != nil {
		errs = append(errs, err)
	} else if _, err := c.tlsConfig(a); err != nil {
		errs = append(errs, err)
	}
	if c.SnapshotLock != LockRefuse && c.SnapshotLock != LockAllow {
		bad("snapshot_lock: %q is unknown; want %q or %q", c.SnapshotLock, LockRefuse, LockAllow)
	}
	if err := c.Tables.Validate(); err != nil {
		errs = append(errs, err)
	}
	for _, d := range []struct {
		name         string
		value, least time.Duration
	}{
		{"heartbeat_interval", c.HeartbeatInterval, 100 * time.Millisecond},
		{"read_timeout", c.ReadTimeout, 5 * time.Second},
		{"connect_timeout", c.ConnectTimeout, 100 * time.Millisecond},
	} {
		if d.value < d.least {
			bad("%s: %s is too short; at least %s", d.name, d.value, d.least)
		}
	}
	if c.BatchBytes < 4<<10 || c.BatchBytes > 16<<20 {
		bad("batch_bytes: %d is out of bounds; 4 KiB to 16 MiB", c.BatchBytes)
	}
	if c.PreparedBytes < 1<<20 {
		bad("prepared_bytes: %d is too small; at least 1 MiB", c.PreparedBytes)
	}
	return errors.Join(errs...)
}

// An address is URL in parts.
type address struct {
	host, port string
	user       string
	password   string
	tls        string
}

func (a *address) String() string { return net.JoinHostPort(a.host, a.port) }

const wantURL = "want mysql://user@host:port/?tls=verify-full"

// address reads the URL. Its errors never quote it: a password may stand anywhere in it.
func (c *Config) address() (*address, error) {
	if c.URL == "" {
		return nil, errors.New("url: missing; " + wantURL)
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "mysql" || u.Hostname() == "" || u.Opaque != "" {
		return nil, errors.New("url: it cannot be read as the address of a MySQL or MariaDB server; " + wantURL)
	}
	a := &address{host: u.Hostname(), port: u.Port(), user: u.User.Username(), password: string(c.Password)}
	setDefault(&a.port, "3306")
	if a.user == "" {
		return nil, errors.New("url: it names no user; " + wantURL)
	}
	if strings.Trim(u.Path, "/") != "" {
		return nil, errors.New("url: it names a database, and a log holds those of the whole server; choose by tables, such as tables: {include: [\"shop.*\"]}")
	}
	if a.password == "" {
		a.password, _ = u.User.Password()
	}
	for name, values := range u.Query() {
		if name != "tls" {
			return nil, fmt.Errorf("url: the option %q is unknown; known is tls", name)
		}
		a.tls = values[len(values)-1]
	}
	if a.tls == "" {
		a.tls = TLSVerifyFull
		if ip := net.ParseIP(a.host); a.host == "localhost" || ip != nil && ip.IsLoopback() {
			a.tls = TLSDisable
		}
	}
	if !slices.Contains(tlsModes, a.tls) {
		return nil, fmt.Errorf("url: tls is %q; want one of %s", a.tls, strings.Join(tlsModes, ", "))
	}
	return a, nil
}

// tlsConfig returns nil for connections without TLS. Files are read each time, so that
// renewed certificates are taken up with the next connection.
func (c *Config) tlsConfig(a *address) (*tls.Config, error) {
	if a.tls == TLSDisable {
		if c.TLSCA != "" || c.TLSCert != "" || c.TLSKey != "" {
			return nil, errors.New("tls_ca, tls_cert and tls_key are of no use without TLS; remedy: put ?tls=verify-ca or ?tls=verify-full behind the url")
		}
		return nil, nil
	}
	t := &tls.Config{ServerName: a.host, MinVersion: tls.VersionTLS12}
	if c.TLSCA != "" {
		pem, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca: %s holds no certificate (PEM)", c.TLSCA)
		}
	}
	if c.TLSCert != "" || c.TLSKey != "" {
		cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("tls_cert and tls_key: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	if a.tls == TLSVerifyFull {
		return t, nil
	}
	t.InsecureSkipVerify = true // of the name; verify-ca looks at the rest by itself
	if a.tls == TLSVerifyCA {
		roots := t.RootCAs
		t.VerifyConnection = func(s tls.ConnectionState) error {
			opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
			for _, cert := range s.PeerCertificates[1:] {
				opts.Intermediates.AddCert(cert)
			}
			_, err := s.PeerCertificates[0].Verify(opts)
			return err
		}
	}
	return t, nil
}

// String names the server and leaves every secret out.
func (c Config) String() string {
	a, err := c.address()
	if err != nil {
		return "MySQL at an address that cannot be read"
	}
	return fmt.Sprintf("MySQL or MariaDB at %s as %q, server id %d, tls %s", a, a.user, c.ServerID, a.tls)
}

// GoString is String: no verb prints the password.
func (c Config) GoString() string { return c.String() }

// LogValue is String, for slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }
