package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/headwaterdb/headwater/capture"
)

// Config says where the registry is and how to log in.
type Config struct {
	// URL is the base address of the registry's API; several, separated by commas, are
	// tried in turn. Apicurio's ends with /apis/ccompat/v7. Required.
	URL string `yaml:"url"`
	// Username and Password log in by HTTP's basic authentication. Default: no login.
	Username string         `yaml:"username"`
	Password capture.Secret `yaml:"password"`
	// Token is a bearer token, in place of a user.
	Token capture.Secret `yaml:"token"`
	// CAFile holds the certificates (PEM) that may sign the registry's. Default: the
	// system's.
	CAFile string `yaml:"ca_file"`
	// CertFile and KeyFile (PEM) are ours, for a registry that asks for a certificate.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// Timeout bounds each request. Default 10s.
	Timeout time.Duration `yaml:"timeout"`
}

// SetDefaults fills in what was left out.
func (c *Config) SetDefaults() {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
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
	if c.URL == "" {
		check(false, `url: missing; give the registry's address, such as "http://127.0.0.1:8081"`)
	}
	secure := false
	for i, address := range c.addresses() {
		// An address may hold a password, so none is quoted.
		u, err := url.Parse(address)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			check(false, `url: address %d is not one of HTTP; it looks like "http://127.0.0.1:8081"`, i+1)
		case u.User != nil:
			check(false, "url: address %d holds a login; set username and password instead", i+1)
		case u.RawQuery != "" || u.Fragment != "":
			check(false, "url: address %d goes on behind the path; remove ? and # and what follows", i+1)
		default:
			secure = secure || u.Scheme == "https"
		}
	}
	check(c.Username != "" || c.Password == "", "username: missing; a password is given")
	check(!strings.Contains(c.Username, ":"), "username: it holds a colon, which basic authentication cannot carry")
	check(strings.IndexFunc(string(c.Token), unicode.IsControl) < 0, "token: it holds a control character; remove the line break at its end, if there is one")
	check(c.Token == "" || c.Username == "", "token: it is given beside username; give one of the two")
	check((c.CertFile == "") == (c.KeyFile == ""), "cert_file: it belongs together with key_file; give both or none")
	check(secure || len(errs) > 0 || c.CAFile+c.CertFile+c.KeyFile == "", "url: certificates are given and no address begins with https://")
	check(c.Timeout >= 100*time.Millisecond && c.Timeout <= 5*time.Minute, "timeout: %v is out of bounds; it must be 100ms to 5m", c.Timeout)
	return errors.Join(errs...)
}

// addresses are the URLs, without the slash at their end.
func (c *Config) addresses() []string {
	var all []string
	for address := range strings.SplitSeq(c.URL, ",") {
		if address = strings.TrimRight(strings.TrimSpace(address), "/"); address != "" {
			all = append(all, address)
		}
	}
	return all
}

// String names the registry and leaves every secret out.
func (c Config) String() string {
	var names []string
	for _, address := range c.addresses() {
		name := "an address that cannot be read"
		if u, err := url.Parse(address); err == nil {
			name = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
		}
		names = append(names, name)
	}
	return "schema registry at " + strings.Join(names, ", ")
}

// Format is String, whatever the verb: an address may hold a password.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalText is String, for encoders.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// LogValue is String, for slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// tls reads the certificates.
func (c *Config) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s holds no PEM certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}
