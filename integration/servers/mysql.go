package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"
)

// MySQLConfig says which MySQL or MariaDB to start, and how.
type MySQLConfig struct {
	// Version is "8.0" or "9" of MySQL, "10.11" or "11" of MariaDB. Empty means the
	// one that is installed on the machine, or one that can be fetched.
	Version string
	// Settings are added to ours in my.cnf, or replace them. Write names with
	// underscores; "skip_log_bin": "1" leaves the binlog out.
	Settings map[string]string
	// Durable keeps the server's own defaults for syncing its logs to disk. It does
	// not otherwise, which loses data only when the machine crashes.
	Durable bool
}

// MySQL is a running MySQL or MariaDB server with the superuser "root", who needs
// no password from 127.0.0.1. It writes a binlog of whole rows with their metadata,
// has GTIDs, and a server id and a server_uuid of its own. It takes connections
// with and without TLS. MySQL 8.0 comes in a build so old that its TLS has no cipher
// suite in common with the defaults of crypto/tls, only RSA key exchange, and that
// its certificate names no host.
type MySQL struct {
	Flavor  string // "mysql" or "mariadb", as go-mysql calls them
	Version string // of the server, in full: 9.7.4
	Port    int
	Dir     string // data directory

	CAFile   string // PEM: the authority that signed the certificates of server and client
	CertFile string // PEM: a client certificate
	KeyFile  string // PEM: its key

	external *url.URL // named in the environment; of the above, Dir and the files are not set then
	home     *mysqlHome
	run      *runDir
	log      string

	mu   sync.Mutex // guards proc
	proc *process
}

const (
	mysqlStartLimit = 90 * time.Second // includes recovery after a crash
	mysqlStopGrace  = 20 * time.Second
)

// StartMySQL starts a MySQL server and returns once it answers queries.
func StartMySQL(ctx context.Context, c MySQLConfig) (*MySQL, error) {
	return startMySQL(ctx, mysql.MySQLFlavor, c)
}

// StartMariaDB starts a MariaDB server and returns once it answers queries.
func StartMariaDB(ctx context.Context, c MySQLConfig) (*MySQL, error) {
	return startMySQL(ctx, mysql.MariaDBFlavor, c)
}

func startMySQL(ctx context.Context, flavor string, c MySQLConfig) (*MySQL, error) {
	home, err := findMySQL(ctx, flavor, c.Version)
	if err != nil {
		return nil, err
	}
	run, err := newRunDir(ctx, flavor)
	if err != nil {
		return nil, err
	}
	m := &MySQL{
		Flavor:  flavor,
		Version: home.version,
		Dir:     filepath.Join(run.path, "data"),
		home:    home,
		run:     run,
		log:     filepath.Join(run.path, "server.log"),
	}
	if err := m.create(ctx, c); err != nil {
		return nil, errors.Join(err, run.remove())
	}
	return m, nil
}

func (m *MySQL) create(ctx context.Context, c MySQLConfig) error {
	if err := m.fill(ctx); err != nil {
		return err
	}
	if err := m.certify(); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(m.run.path, "tmp"), 0o700); err != nil {
		return fmt.Errorf("make a folder for temporary files: %w", err)
	}
	for try := 1; ; try++ {
		ports, err := m.run.ports(ctx, 1)
		if err != nil {
			return err
		}
		m.Port = ports[0]
		if err := writeMyCnf(m.config(), m.settings(c)); err != nil {
			return err
		}
		err = m.start(ctx)
		if err == nil || try == startTries || m.proc == nil || !m.proc.portTaken() {
			return err
		}
	}
}

// certify makes certificates, or finds those that the server made for itself.
func (m *MySQL) certify() error {
	if m.home.oldTLS {
		m.CAFile = filepath.Join(m.Dir, "ca.pem")
		m.CertFile = filepath.Join(m.Dir, "client-cert.pem")
		m.KeyFile = filepath.Join(m.Dir, "client-key.pem")
		return nil
	}
	m.CAFile = filepath.Join(m.run.path, caFile)
	m.CertFile = filepath.Join(m.run.path, clientCert)
	m.KeyFile = filepath.Join(m.run.path, clientKey)
	return makeCertificates(m.run.path)
}

// config is the server's my.cnf.
func (m *MySQL) config() string { return filepath.Join(m.run.path, "my.cnf") }

// start starts the server on its port and data.
func (m *MySQL) start(ctx context.Context) error {
	cmd := m.home.command("--defaults-file=" + m.config())
	cmd.dir = m.run.path
	proc, err := start(product(m.Flavor)+" "+m.Version, m.log, cmd)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.proc = proc
	m.mu.Unlock()
	if err := proc.ready(ctx, mysqlStartLimit, m.ping); err != nil {
		_ = m.Kill()
		return err
	}
	return nil
}

// ping succeeds when the server on our port is the one with our data.
func (m *MySQL) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := m.query(ctx, "SELECT @@datadir")
	if err != nil {
		return err
	}
	dir, err := r.GetString(0, 0)
	if err != nil {
		return err
	}
	if filepath.Clean(dir) != m.Dir {
		return fmt.Errorf("port %d belongs to the server in %s", m.Port, dir)
	}
	return nil
}

// Addr returns the server's address, host:port.
func (m *MySQL) Addr() string {
	if m.external != nil {
		return m.external.Host
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(m.Port))
}

// User returns the name and the password of a superuser.
func (m *MySQL) User() (name, password string) {
	if m.external == nil {
		return "root", ""
	}
	password, _ = m.external.User.Password()
	return m.external.User.Username(), password
}

// URL returns the address of a database (empty for none) for that user:
// mysql://root@127.0.0.1:3306/db.
func (m *MySQL) URL(db string) string {
	if m.external != nil {
		u := *m.external
		u.Path = "/" + db
		return u.String()
	}
	return fmt.Sprintf("mysql://root@%s/%s", m.Addr(), db)
}

// Connect opens a connection to a database (empty for none) as that user. The
// context bounds the opening only.
func (m *MySQL) Connect(ctx context.Context, db string) (*client.Conn, error) {
	user, password := m.User()
	conn, err := client.ConnectWithContext(ctx, m.Addr(), user, password, db, mysqlStartLimit)
	if err != nil {
		return nil, fmt.Errorf("connect to %s %s: %w", product(m.Flavor), m.Version, err)
	}
	return conn, nil
}

// query runs statements in one session and returns the last one's result.
func (m *MySQL) query(ctx context.Context, statements ...string) (r *mysql.Result, err error) {
	conn, err := m.Connect(ctx, "")
	if err != nil {
		return nil, err
	}
	defer conn.Quit() // with a goodbye, or the server's log fills with warnings
	// The client takes no context, but ends with its connection.
	defer context.AfterFunc(ctx, func() { conn.Conn.Close() })()
	for _, sql := range statements {
		if r, err = conn.Execute(sql); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, fmt.Errorf("%s: %w", sql, err)
		}
	}
	return r, nil
}

// PID returns the server's process id, 0 for a server that is not ours.
func (m *MySQL) PID() int {
	if proc := m.process(); proc != nil {
		return proc.os.Pid
	}
	return 0
}

func (m *MySQL) process() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proc
}

// LogTail returns the last n lines of the server's log.
func (m *MySQL) LogTail(n int) string {
	if m.external != nil {
		return "no log: " + ErrExternal.Error()
	}
	return logTail(m.log, n)
}

// Stop shuts the server down in order; one that takes longer than 20 seconds is
// killed. The data stays, so that Restart may follow.
func (m *MySQL) Stop(ctx context.Context) error {
	if m.external != nil {
		return ErrExternal
	}
	if proc := m.process(); proc.running() {
		proc.end(ctx, mysqlStopGrace, syscall.SIGTERM)
	}
	return nil
}

// Kill crashes the server by SIGKILL; the next start recovers from its logs. It
// has ended when Kill returns.
func (m *MySQL) Kill() error {
	if m.external != nil {
		return ErrExternal
	}
	if proc := m.process(); proc.running() {
		proc.end(context.Background(), 0)
	}
	return nil
}

// Restart starts the server again on its port and data. One that still runs is
// stopped first.
func (m *MySQL) Restart(ctx context.Context) error {
	if err := m.Stop(ctx); err != nil {
		return err
	}
	return m.start(ctx)
}

// Close ends the server and removes its data.
func (m *MySQL) Close() error {
	if m.external != nil {
		return nil
	}
	_ = m.Kill()
	return m.run.remove()
}

// externalMySQL describes a server that the environment names.
func externalMySQL(ctx context.Context, flavor, addr string) (*MySQL, error) {
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || u.User == nil {
		return nil, errors.New("want a URL such as mysql://user:password@host:port/") // not the URL: it has a password
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "3306")
	}
	m := &MySQL{Flavor: flavor, external: u}
	if m.Port, err = strconv.Atoi(u.Port()); err != nil {
		return nil, fmt.Errorf("read the port: %w", err)
	}
	r, err := m.query(ctx, "SELECT @@version")
	if err != nil {
		return nil, err
	}
	text, err := r.GetString(0, 0)
	if err != nil {
		return nil, err
	}
	if strings.Contains(text, "MariaDB") != (flavor == mysql.MariaDBFlavor) {
		return nil, fmt.Errorf("its version is %s, want a %s", text, product(flavor))
	}
	m.Version, _, _ = strings.Cut(text, "-")
	return m, nil
}
