package servers

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresConfig says which PostgreSQL to start, and how.
type PostgresConfig struct {
	// Version is "13" to "18". Empty means the newest that is installed on the
	// machine, or 18 where none is.
	Version string
	// Settings are added to ours, or replace them. ALTER SYSTEM overrides both.
	Settings map[string]string
	// DataDir holds the data and is kept; a missing or empty folder is filled with
	// a new cluster. By default the data lies in a run folder that Close removes.
	DataDir string
	// NewIdentity gives the cluster a system identifier of its own, which takes a
	// second. Other clusters of one version are copies and share theirs, unless
	// DataDir is set.
	NewIdentity bool
	// Durable keeps PostgreSQL's own defaults for fsync and full_page_writes. They
	// are off otherwise, which loses data only when the machine crashes.
	Durable bool
	// Standby makes the server a streaming standby of this one. It must have the
	// same version, and be ours; the standby has a physical slot there. It cannot
	// have a DataDir.
	Standby *Postgres
}

// Postgres is a running PostgreSQL server with the superuser "postgres", who needs
// no password.
type Postgres struct {
	Port   int
	Dir    string // data directory
	BinDir string // where postgres and initdb are

	external *url.URL // named in the environment; nothing below is set then
	version  string
	run      *runDir
	log      string

	mu   sync.Mutex // guards proc
	proc *process
}

const (
	postgresStartLimit = 60 * time.Second // includes recovery after a crash
	postgresStopGrace  = 10 * time.Second
	// On SIGQUIT the server gives its children 5 s before it kills them.
	postgresQuitGrace = 7 * time.Second
)

// StartPostgres starts a server and returns once it answers queries.
func StartPostgres(ctx context.Context, c PostgresConfig) (*Postgres, error) {
	bin, version, err := postgresHome(ctx, c.Version)
	if err != nil {
		return nil, err
	}
	run, err := newRunDir(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	p := &Postgres{
		BinDir:  bin,
		Dir:     filepath.Join(run.path, "data"),
		version: version,
		run:     run,
		log:     filepath.Join(run.path, "server.log"),
	}
	if err := p.create(ctx, c); err != nil {
		return nil, errors.Join(err, run.remove())
	}
	return p, nil
}

func (p *Postgres) create(ctx context.Context, c PostgresConfig) error {
	settings := postgresSettings(c)
	switch {
	case c.Standby != nil && c.DataDir != "":
		return errors.New("start a standby: its data cannot be kept in DataDir")
	case c.Standby != nil:
		if err := p.cloneFrom(ctx, c.Standby); err != nil {
			return err
		}
		maps.Copy(settings, p.standbySettings(c.Standby))
		maps.Copy(settings, c.Settings)
	case c.DataDir != "":
		dir, err := filepath.Abs(c.DataDir)
		if err != nil {
			return fmt.Errorf("find the data directory: %w", err)
		}
		p.Dir = dir
		if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); err == nil {
			break // made by an earlier start
		}
		if err := p.initdb(ctx, dir); err != nil {
			return err
		}
	default:
		if err := p.fill(ctx, c.NewIdentity); err != nil {
			return err
		}
	}
	if err := writeSettings(p.Dir, settings); err != nil {
		return err
	}
	for try := 1; ; try++ {
		ports, err := p.run.ports(ctx, 1)
		if err != nil {
			return err
		}
		p.Port = ports[0]
		err = p.start(ctx)
		if err == nil || try == startTries || p.proc == nil || !p.proc.portTaken() {
			return err
		}
	}
}

// start starts the server on its port and data.
func (p *Postgres) start(ctx context.Context) error {
	proc, err := start("PostgreSQL "+p.version, p.log, command{
		path: filepath.Join(p.BinDir, "postgres"),
		args: []string{"-D", p.Dir, "-p", strconv.Itoa(p.Port)},
		dir:  p.Dir,
		// The server takes its children along on SIGQUIT, unlike on SIGKILL.
		orphan:  syscall.SIGQUIT,
		notRoot: true,
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.proc = proc
	p.mu.Unlock()
	if err := proc.ready(ctx, postgresStartLimit, p.ping); err != nil {
		p.Kill()
		return err
	}
	return nil
}

// ping succeeds when the server on our port is the one with our data.
func (p *Postgres) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var dir string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&dir); err != nil {
		return err
	}
	if dir != p.Dir {
		return fmt.Errorf("port %d belongs to the server in %s", p.Port, dir)
	}
	return nil
}

// URL returns the address of a database for the user postgres.
func (p *Postgres) URL(db string) string {
	if p.external != nil {
		u := *p.external
		u.Path = "/" + db
		return u.String()
	}
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", p.Port, db)
}

// PID returns the process id of the postmaster, 0 for a server that is not ours.
func (p *Postgres) PID() int {
	if proc := p.process(); proc != nil {
		return proc.os.Pid
	}
	return 0
}

func (p *Postgres) process() *process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proc
}

// LogTail returns the last n lines of the server's log.
func (p *Postgres) LogTail(n int) string {
	if p.external != nil {
		return "no log: " + ErrExternal.Error()
	}
	return logTail(p.log, n)
}

// Stop shuts the server down as a fast shutdown does: clients are thrown out,
// and the next start needs no recovery. The data stays, so that Restart may follow.
func (p *Postgres) Stop(ctx context.Context) error {
	if p.external != nil {
		return ErrExternal
	}
	if proc := p.process(); proc.running() {
		proc.end(ctx, postgresStopGrace, syscall.SIGINT, syscall.SIGQUIT)
	}
	return nil
}

// Kill crashes the server with all its backends at once: no checkpoint, no
// goodbye to clients; the next start recovers from the log. The whole server has
// ended when Kill returns.
func (p *Postgres) Kill() error {
	if p.external != nil {
		return ErrExternal
	}
	if proc := p.process(); proc.running() {
		// SIGKILL would leave backends behind, which keep a new server from starting.
		proc.end(context.Background(), postgresQuitGrace, syscall.SIGQUIT)
	}
	return nil
}

// Restart starts the server again on its port and data. One that still runs is
// stopped first.
func (p *Postgres) Restart(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	return p.start(ctx)
}

// Close ends the server and removes its data, unless DataDir named their place:
// then it is shut down as by Stop.
func (p *Postgres) Close() error {
	if p.external != nil {
		return nil
	}
	if filepath.Dir(p.Dir) == p.run.path {
		_ = p.Kill()
	} else if err := p.Stop(context.Background()); err != nil {
		return err
	}
	return p.run.remove()
}

// postgresSettings returns the settings of a server that is not a standby.
func postgresSettings(c PostgresConfig) map[string]string {
	s := map[string]string{
		"listen_addresses":          "127.0.0.1",
		"unix_socket_directories":   "",
		"wal_level":                 "logical",
		"max_wal_senders":           "50",
		"max_replication_slots":     "50",
		"max_connections":           "100",
		"max_prepared_transactions": "20",
		"shared_buffers":            "32MB",
		"timezone":                  "UTC",
		"log_timezone":              "UTC",
	}
	if !c.Durable {
		// Not synchronous_commit: it would delay what logical decoding sees.
		s["fsync"] = "off"
		s["full_page_writes"] = "off"
	}
	maps.Copy(s, c.Settings)
	return s
}

// settingsFile is read at the end of postgresql.conf and before what ALTER SYSTEM
// writes.
const settingsFile = "servers.conf"

func writeSettings(dir string, settings map[string]string) error {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", k, strings.ReplaceAll(settings[k], "'", "''"))
	}
	if err := os.WriteFile(filepath.Join(dir, settingsFile), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write the settings of PostgreSQL: %w", err)
	}
	return nil
}

// postgresHome returns the folder of the server's programs, and its version.
func postgresHome(ctx context.Context, version string) (bin, full string, err error) {
	if version == "" {
		if bin, full = installedPostgres(ctx); bin != "" {
			return bin, full, nil
		}
		version = newestPostgres
	}
	full, known := postgresVersions[version]
	if !known {
		return "", "", fmt.Errorf("no PostgreSQL %q is known here, want one of %q", version, slices.Sorted(maps.Keys(postgresVersions)))
	}
	home, err := cached(ctx, "postgres-"+full, func(dir string) error {
		return fetchPostgres(ctx, dir, full)
	})
	if err != nil {
		return "", "", err
	}
	return filepath.Join(home, "bin"), full, nil
}

var postgresVersionLine = regexp.MustCompile(`PostgreSQL\) (\d+)\.?(\d*)`)

// installedPostgres returns the newest server on the machine, or nothing.
func installedPostgres(ctx context.Context) (bin, version string) {
	var dirs []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"} {
		found, _ := filepath.Glob(pattern) // fails only on a bad pattern
		dirs = append(dirs, found...)
	}
	if out, err := (command{path: "pg_config", args: []string{"--bindir"}}).run(ctx); err == nil {
		dirs = append(dirs, strings.TrimSpace(out))
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	newest := [2]int{13, -1} // the oldest version we support
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
			continue
		}
		out, err := command{path: filepath.Join(dir, "postgres"), args: []string{"--version"}}.run(ctx)
		if err != nil {
			continue
		}
		m := postgresVersionLine.FindStringSubmatch(out)
		if m == nil {
			continue
		}
		major, _ := strconv.Atoi(m[1])
		minor, _ := strconv.Atoi(m[2])
		if v := [2]int{major, minor}; slices.Compare(v[:], newest[:]) > 0 {
			newest, bin, version = v, dir, fmt.Sprintf("%d.%d", major, minor)
		}
	}
	return bin, version
}

// fill makes a cluster in our data directory: a new one, or a copy of one that
// was made before, which takes a fraction of the time.
func (p *Postgres) fill(ctx context.Context, newIdentity bool) error {
	if newIdentity {
		return p.initdb(ctx, p.Dir)
	}
	sum := sha256.Sum256([]byte(p.BinDir))
	name := fmt.Sprintf("postgres-data-%s-%x", p.version, sum[:4])
	template, err := cached(ctx, name, func(dir string) error { return p.initdb(ctx, dir) })
	if err != nil {
		return err
	}
	return copyData(p.Dir, template)
}

// initdb makes a new cluster that reads our settings file.
func (p *Postgres) initdb(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	_, err := command{
		path:    filepath.Join(p.BinDir, "initdb"),
		args:    []string{"-D", dir, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"},
		notRoot: true,
	}.run(ctx)
	if err != nil {
		return fmt.Errorf("create a PostgreSQL %s cluster: %w", p.version, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("configure the new cluster: %w", err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "\ninclude_if_exists = '%s'\n", settingsFile); err != nil {
		return fmt.Errorf("configure the new cluster: %w", err)
	}
	return nil
}

// copyData copies a data directory and gives it to our user alone, as PostgreSQL
// insists.
func copyData(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("copy the data directory: %w", err)
	}
	if err := os.Chmod(to, 0o700); err != nil {
		return fmt.Errorf("copy the data directory: %w", err)
	}
	return nil
}
