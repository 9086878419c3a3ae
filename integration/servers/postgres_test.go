package servers_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headwaterdb/headwater/integration/servers"
)

// connect opens a connection that lives as long as the test.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func run(t *testing.T, url, sql string) {
	t.Helper()
	if _, err := connect(t, url).Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// query returns the one text that sql yields.
func query(t *testing.T, url, sql string) (text string) {
	t.Helper()
	if err := connect(t, url).QueryRow(t.Context(), sql).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

func expect(t *testing.T, url, sql, want string) {
	t.Helper()
	if got := query(t, url, sql); got != want {
		t.Errorf("%s: got %q, want %q", sql, got, want)
	}
}

func TestPostgres(t *testing.T) {
	for _, version := range []string{"15", "18"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			pg := servers.Own(t).PostgresWith(servers.PostgresConfig{
				Version:  version,
				Settings: map[string]string{"wal_sender_timeout": "7s", "application_name": "it's"},
			})
			url := pg.URL("postgres")
			expect(t, url, "SELECT split_part(current_setting('server_version'), '.', 1)", version)
			t.Logf("postgres %s", query(t, url, "SHOW server_version"))
			expect(t, url, "SHOW wal_level", "logical")
			expect(t, url, "SHOW application_name", "it's")
			expect(t, url, "SHOW wal_sender_timeout", "7s")
			expect(t, url, "SHOW fsync", "off")
			run(t, url, "CREATE TABLE kept AS SELECT 1")

			pid := pg.PID()
			if err := pg.Kill(); err != nil {
				t.Fatal(err)
			}
			if alive(pid) {
				t.Errorf("the server's process %d runs after Kill", pid)
			}
			if err := pg.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			expect(t, url, "SELECT count(*)::text FROM kept", "1")
			if err := pg.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			expect(t, url, "SELECT count(*)::text FROM kept", "1")
		})
	}
}

func TestPostgresStandby(t *testing.T) {
	for _, version := range []string{"15", "18"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			primary := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: version})
			run(t, primary.URL("postgres"), "CREATE TABLE followed AS SELECT 1")
			standby := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: version, Standby: primary})
			url := standby.URL("postgres")
			expect(t, url, "SELECT pg_is_in_recovery()::text", "true")

			run(t, primary.URL("postgres"), "INSERT INTO followed VALUES (2)")
			for deadline := time.Now().Add(2 * time.Minute); query(t, url, "SELECT count(*)::text FROM followed") != "2"; {
				if time.Now().After(deadline) {
					t.Fatalf("the standby does not follow its primary; its log:\n%s", standby.LogTail(20))
				}
			}
			if err := primary.Kill(); err != nil {
				t.Fatal(err)
			}
			expect(t, url, "SELECT pg_promote()::text", "true")
			run(t, url, "INSERT INTO followed VALUES (3)")
		})
	}
}

func TestPostgresDataDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	identity := "SELECT system_identifier::text FROM pg_control_system()"
	first := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15", DataDir: dir})
	run(t, first.URL("postgres"), "CREATE TABLE kept AS SELECT 1")
	kept := query(t, first.URL("postgres"), identity)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15", DataDir: dir, Durable: true})
	expect(t, second.URL("postgres"), "SELECT count(*)::text FROM kept", "1")
	expect(t, second.URL("postgres"), "SHOW fsync", "on")

	other := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15", NewIdentity: true})
	if got := query(t, other.URL("postgres"), identity); got == kept {
		t.Errorf("two clusters have the system identifier %s", got)
	}
}

func TestPostgresOfTheMachine(t *testing.T) {
	t.Parallel()
	pg := servers.Own(t).PostgresWith(servers.PostgresConfig{})
	expect(t, pg.URL("postgres"), "SHOW wal_level", "logical")
}

func TestPostgresStartFails(t *testing.T) {
	t.Parallel()
	_, err := servers.StartPostgres(t.Context(), servers.PostgresConfig{
		Version: "15", Settings: map[string]string{"wal_level": "nonsense"},
	})
	if err == nil || !strings.Contains(err.Error(), "wal_level") {
		t.Errorf("started with a wrong setting: got error %v, want one with the server's log", err)
	}
	_, err = servers.StartPostgres(t.Context(), servers.PostgresConfig{Version: "9"})
	if err == nil || !strings.Contains(err.Error(), `"9"`) {
		t.Errorf("started an unknown version: got error %v, want one that names it", err)
	}
}

func TestShared(t *testing.T) {
	var first, second string
	var pid int
	t.Run("first", func(t *testing.T) {
		pg := servers.Shared(t).PostgresWith(servers.PostgresConfig{Version: "15"})
		first, pid = pg.Database(t), pg.PID()
		run(t, first, "SELECT pg_create_logical_replication_slot('left', 'pgoutput')")
	})
	t.Run("second", func(t *testing.T) {
		pg := servers.Shared(t).PostgresWith(servers.PostgresConfig{Version: "15"})
		if second = pg.Database(t); second == first {
			t.Errorf("two tests share the database %s", second)
		}
		if pg.PID() != pid {
			t.Errorf("the second test got the server %d, want %d", pg.PID(), pid)
		}
		expect(t, second, "SELECT count(*)::text FROM pg_replication_slots", "0")
		expect(t, second, "SELECT count(*)::text FROM pg_database WHERE datname LIKE 'test_%'", "1")
	})
}

func TestEnvironment(t *testing.T) {
	pg := servers.Own(t).PostgresWith(servers.PostgresConfig{Version: "15"})
	t.Setenv("HEADWATER_TEST_POSTGRES_17", pg.URL("postgres"))
	t.Setenv("HEADWATER_TEST_KAFKA", "127.0.0.1:1,127.0.0.1:2")
	t.Setenv("HEADWATER_TEST_REGISTRY", "http://127.0.0.1:3/")

	named := servers.Own(t).Postgres("17")
	expect(t, named.Database(t), "SELECT split_part(current_setting('server_version'), '.', 1)", "15")
	if err := named.Kill(); !errors.Is(err, servers.ErrExternal) {
		t.Errorf("Kill: got %v, want %v", err, servers.ErrExternal)
	}
	if k := servers.Own(t).Kafka(); !slices.Equal(k.Bootstrap, []string{"127.0.0.1:1", "127.0.0.1:2"}) {
		t.Errorf("got Kafka at %q", k.Bootstrap)
	}
	if r := servers.Own(t).Registry(); r.URL != "http://127.0.0.1:3" {
		t.Errorf("got the registry at %s", r.URL)
	}
}
