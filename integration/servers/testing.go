package servers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/jackc/pgx/v5"
)

// For starts servers for one test; see [Own] and [Shared]. Its methods fail the
// test when a server does not start, and never skip it.
type For struct {
	tb     testing.TB
	shared bool
}

// Own starts servers that belong to this test alone and end with it.
func Own(tb testing.TB) For { return For{tb: tb} }

// Shared returns servers that all tests of the process share. The first test to
// ask for one starts it. It ends with the process, or by [StopShared].
func Shared(tb testing.TB) For { return For{tb: tb, shared: true} }

// Postgres returns a server of that version ("13" to "18", empty for any) with
// our settings, or the one that the environment names for it.
func (f For) Postgres(version string) *Postgres {
	f.tb.Helper()
	name := "HEADWATER_TEST_POSTGRES"
	if version != "" {
		name += "_" + version
	}
	addr := os.Getenv(name)
	if addr == "" {
		return f.PostgresWith(PostgresConfig{Version: version})
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" {
		f.tb.Fatalf("%s is %q, want a URL such as postgres://user@host:port/", name, addr)
	}
	return &Postgres{external: u}
}

// PostgresWith returns a server with that configuration, whatever the environment
// names.
func (f For) PostgresWith(c PostgresConfig) *Postgres {
	f.tb.Helper()
	return get(f, "PostgreSQL", c, StartPostgres)
}

// MySQL returns a server of that version ("8.0" or "9", empty for any) with our
// settings, or the one that the environment names for it.
func (f For) MySQL(version string) *MySQL {
	f.tb.Helper()
	if m := f.externalMySQL(mysql.MySQLFlavor, version); m != nil {
		return m
	}
	return f.MySQLWith(MySQLConfig{Version: version})
}

// MySQLWith returns a MySQL server with that configuration, whatever the
// environment names.
func (f For) MySQLWith(c MySQLConfig) *MySQL {
	f.tb.Helper()
	return get(f, "MySQL", c, StartMySQL)
}

// MariaDB returns a server of that version ("10.11" or "11", empty for any) with
// our settings, or the one that the environment names for it.
func (f For) MariaDB(version string) *MySQL {
	f.tb.Helper()
	if m := f.externalMySQL(mysql.MariaDBFlavor, version); m != nil {
		return m
	}
	return f.MariaDBWith(MySQLConfig{Version: version})
}

// MariaDBWith returns a MariaDB server with that configuration, whatever the
// environment names.
func (f For) MariaDBWith(c MySQLConfig) *MySQL {
	f.tb.Helper()
	return get(f, "MariaDB", c, StartMariaDB)
}

// externalMySQL returns the server that the environment names, or nil.
func (f For) externalMySQL(flavor, version string) *MySQL {
	f.tb.Helper()
	name := "HEADWATER_TEST_" + strings.ToUpper(flavor)
	if version != "" {
		name += "_" + strings.ReplaceAll(version, ".", "_")
	}
	addr := os.Getenv(name)
	if addr == "" {
		return nil
	}
	m, err := externalMySQL(f.tb.Context(), flavor, addr)
	if err != nil {
		f.tb.Fatalf("use the server of %s: %v", name, err)
	}
	return m
}

// Kafka returns a cluster of one node, or the one that the environment names.
func (f For) Kafka() *Kafka {
	f.tb.Helper()
	if addr := os.Getenv("HEADWATER_TEST_KAFKA"); addr != "" {
		return &Kafka{external: true, Bootstrap: addresses(addr)}
	}
	return f.KafkaWith(KafkaConfig{})
}

// KafkaWith returns a cluster with that configuration, whatever the environment
// names.
func (f For) KafkaWith(c KafkaConfig) *Kafka {
	f.tb.Helper()
	return get(f, "Kafka", c, StartKafka)
}

// Registry returns a schema registry, or the one that the environment names.
func (f For) Registry() *Registry {
	f.tb.Helper()
	if addr := os.Getenv("HEADWATER_TEST_REGISTRY"); addr != "" {
		return &Registry{external: true, URL: strings.TrimSuffix(addr, "/")}
	}
	return f.RegistryWith(RegistryConfig{})
}

// RegistryWith returns a schema registry with that configuration, whatever the
// environment names.
func (f For) RegistryWith(c RegistryConfig) *Registry {
	f.tb.Helper()
	return get(f, "the schema registry", c, StartRegistry)
}

// Database creates a database for the test and returns its URL. When the test
// ends it is dropped with the replication slots in it.
func (p *Postgres) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test_%08x", rand.Uint32())
	if err := p.exec(tb.Context(), "CREATE DATABASE "+name); err != nil {
		tb.Fatalf("create a database for the test: %v\n%s", err, p.LogTail(20))
	}
	tb.Cleanup(func() {
		if p.external == nil && !p.process().running() {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := p.dropDatabase(ctx, name); err != nil {
			tb.Logf("drop the database %s: %v", name, err)
		}
	})
	return p.URL(name)
}

func (p *Postgres) dropDatabase(ctx context.Context, name string) error {
	err := p.exec(ctx, fmt.Sprintf(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = '%s'`, name))
	if err != nil {
		return err
	}
	for {
		// A walsender lets go of its slot a moment after it was told to end.
		err := p.exec(ctx, fmt.Sprintf(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '%s'`, name))
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
	return p.exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
}

// Database creates a database for the test and returns its name, which is dropped
// when the test ends. The server's one binlog tells of all databases.
func (m *MySQL) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test_%08x", rand.Uint32())
	if _, err := m.query(tb.Context(), "CREATE DATABASE "+name); err != nil {
		tb.Fatalf("create a database for the test: %v\n%s", err, m.LogTail(20))
	}
	tb.Cleanup(func() {
		if m.external == nil && !m.process().running() {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if _, err := m.query(ctx, "DROP DATABASE "+name); err != nil {
			tb.Logf("drop the database %s: %v", name, err)
		}
	})
	return name
}

func (p *Postgres) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// server is what the helpers need of each kind of server.
type server interface {
	comparable
	LogTail(n int) string
	Close() error
}

// get starts a server for the test, or takes the shared one with the same
// configuration.
func get[S server, C any](f For, kind string, c C, start func(context.Context, C) (S, error)) S {
	f.tb.Helper()
	if f.shared {
		s, err := sharedServer(kind, c, start)
		if err != nil {
			f.tb.Fatalf("start the shared %s: %v", kind, err)
		}
		return s
	}
	s, err := start(f.tb.Context(), c)
	if err != nil {
		f.tb.Fatalf("start %s: %v", kind, err)
	}
	f.tb.Cleanup(func() {
		if f.tb.Failed() {
			f.tb.Logf("the log of %s ends with:\n%s", kind, s.LogTail(30))
		}
		if err := s.Close(); err != nil {
			f.tb.Errorf("close %s: %v", kind, err)
		}
	})
	return s
}

// sharedServers holds the shared servers by kind and configuration.
var sharedServers struct {
	sync.Mutex
	starts map[string]any // func() (S, error), which starts at its first call
	closes []func() error
}

func sharedServer[S server, C any](kind string, c C, start func(context.Context, C) (S, error)) (S, error) {
	s := &sharedServers
	s.Lock()
	key := fmt.Sprintf("%s %+v", kind, c)
	once, _ := s.starts[key].(func() (S, error))
	if once == nil {
		once = sync.OnceValues(func() (S, error) {
			// Not the context of the test that happens to come first.
			srv, err := start(context.Background(), c)
			if err == nil {
				s.Lock()
				s.closes = append(s.closes, srv.Close)
				s.Unlock()
			}
			return srv, err
		})
		if s.starts == nil {
			s.starts = make(map[string]any)
		}
		s.starts[key] = once
	}
	s.Unlock()
	return once()
}

// StopShared ends the shared servers and removes their data. A TestMain may call
// it after m.Run; without it they end with the process all the same, and their
// data goes at the next start of a server.
func StopShared() error {
	s := &sharedServers
	s.Lock()
	closes := s.closes
	s.closes, s.starts = nil, nil
	s.Unlock()
	var errs []error
	for _, close := range closes {
		errs = append(errs, close())
	}
	return errors.Join(errs...)
}

// addresses splits the value of an environment variable.
func addresses(v string) []string {
	return strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' })
}
