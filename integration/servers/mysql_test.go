package servers_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	mysqlclient "github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/headwaterdb/headwater/integration/servers"
)

// mysqlVersions are all that can be fetched.
var mysqlVersions = []struct {
	flavor, version string
	start           func(servers.For, servers.MySQLConfig) *servers.MySQL
}{
	{"mysql", "8.0", servers.For.MySQLWith},
	{"mysql", "9", servers.For.MySQLWith},
	{"mariadb", "10.11", servers.For.MariaDBWith},
	{"mariadb", "11", servers.For.MariaDBWith},
}

// mysqlRun runs statements in one session and returns the text that the last one
// yields, if any.
func mysqlRun(t *testing.T, m *servers.MySQL, statements ...string) (text string) {
	t.Helper()
	conn, err := m.Connect(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, sql := range statements {
		text = mysqlText(t, conn, sql)
	}
	return text
}

func mysqlText(t *testing.T, conn *mysqlclient.Conn, sql string) string {
	t.Helper()
	r, err := conn.Execute(sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if r.Resultset == nil || r.RowNumber() == 0 {
		return ""
	}
	text, err := r.GetString(0, 0)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

func mysqlExpect(t *testing.T, m *servers.MySQL, sql, want string) {
	t.Helper()
	if got := mysqlRun(t, m, sql); got != want {
		t.Errorf("%s: got %q, want %q", sql, got, want)
	}
}

func TestMySQL(t *testing.T) {
	for _, v := range mysqlVersions {
		t.Run(v.flavor+"-"+v.version, func(t *testing.T) {
			t.Parallel()
			m := v.start(servers.Own(t), servers.MySQLConfig{
				Version: v.version, Settings: map[string]string{"max_binlog_size": "65536"},
			})
			if m.Flavor != v.flavor || !strings.HasPrefix(m.Version, v.version+".") {
				t.Errorf("got %s %s", m.Flavor, m.Version)
			}
			t.Logf("%s %s", m.Flavor, m.Version)
			for name, want := range map[string]string{
				"log_bin": "1", "binlog_format": "ROW", "binlog_row_image": "FULL", "binlog_row_metadata": "FULL",
				"bind_address": "127.0.0.1", "max_binlog_size": "65536", "sync_binlog": "0",
			} {
				mysqlExpect(t, m, "SELECT @@global."+name, want)
			}
			gtid := map[string]string{"mysql": "SELECT @@gtid_mode='ON' AND @@enforce_gtid_consistency='ON'", "mariadb": "SELECT @@gtid_strict_mode"}
			mysqlExpect(t, m, gtid[v.flavor], "1")
			db := m.Database(t)
			mysqlRun(t, m, "CREATE TABLE "+db+".kept (id int PRIMARY KEY)", "INSERT INTO "+db+".kept VALUES (1)")

			pid := m.PID()
			if err := m.Kill(); err != nil {
				t.Fatal(err)
			}
			if alive(pid) {
				t.Errorf("the server's process %d runs after Kill", pid)
			}
			if err := m.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			mysqlExpect(t, m, "SELECT count(*) FROM "+db+".kept", "1")
			checkTLS(t, m)
		})
	}
}

// checkTLS logs in with the password methods of the flavor, by TLS with the
// certificates that the server names, and without.
func checkTLS(t *testing.T, m *servers.MySQL) {
	t.Helper()
	ca, err := os.ReadFile(m.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	cert, err := tls.LoadX509KeyPair(m.CertFile, m.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, ServerName: "127.0.0.1"}
	if strings.HasPrefix(m.Version, "8.0.") {
		config.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		config.InsecureSkipVerify = true // of the host, which it does not name
		config.VerifyConnection = func(s tls.ConnectionState) error {
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots})
			return err
		}
	}
	secured := func(c *mysqlclient.Conn) error {
		c.SetTLSConfig(config)
		return nil
	}
	plain := func(*mysqlclient.Conn) error { return nil }

	users := map[string]string{"sha2": "IDENTIFIED WITH caching_sha2_password BY 'secret'"}
	if m.Flavor == mysql.MariaDBFlavor {
		mysqlRun(t, m, "INSTALL SONAME 'auth_ed25519'")
		users = map[string]string{"native": "IDENTIFIED BY 'secret'", "ed": "IDENTIFIED VIA ed25519 USING PASSWORD('secret')"}
	}
	for user, how := range users {
		mysqlRun(t, m, "CREATE USER "+user+"@'127.0.0.1' "+how)
		for encrypted, option := range map[bool]mysqlclient.Option{false: plain, true: secured} {
			conn, err := mysqlclient.ConnectWithContext(t.Context(), m.Addr(), user, "secret", "", 2*time.Minute, option)
			if err != nil {
				t.Errorf("log in as %s: %v", user, err)
				continue
			}
			r, err := conn.Execute("SHOW STATUS LIKE 'Ssl_cipher'")
			if err != nil {
				t.Fatal(err)
			}
			if cipher, err := r.GetString(0, 1); err != nil || (cipher != "") != encrypted {
				t.Errorf("%s has the cipher %q (%v), want encryption: %t", user, cipher, err, encrypted)
			}
			conn.Close()
		}
		mysqlRun(t, m, "CREATE USER x"+user+"@'127.0.0.1' "+how+" REQUIRE X509")
		conn, err := mysqlclient.ConnectWithContext(t.Context(), m.Addr(), "x"+user, "secret", "", 2*time.Minute, secured)
		if err != nil {
			t.Errorf("log in as %s with a certificate: %v", user, err)
			continue
		}
		conn.Close()
	}
}

func TestMySQLReplica(t *testing.T) {
	for _, v := range mysqlVersions {
		t.Run(v.flavor+"-"+v.version, func(t *testing.T) {
			t.Parallel()
			source := v.start(servers.Own(t), servers.MySQLConfig{Version: v.version, Durable: true})
			replica := v.start(servers.Own(t), servers.MySQLConfig{Version: v.version})
			mysqlRun(t, source, "CREATE DATABASE d", "CREATE TABLE d.followed (id int PRIMARY KEY)", "INSERT INTO d.followed VALUES (1)")
			if err := replica.Follow(t.Context(), source); err != nil {
				t.Fatal(err)
			}
			mysqlRun(t, source, "INSERT INTO d.followed VALUES (2)")
			if err := replica.CatchUp(t.Context(), source); err != nil {
				t.Fatal(err)
			}
			mysqlExpect(t, replica, "SELECT count(*) FROM d.followed", "2")
			mysqlExpect(t, replica, "SELECT @@read_only", "1")

			if err := source.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := replica.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			mysqlExpect(t, replica, "SELECT @@read_only", "0")
			mysqlRun(t, replica, "INSERT INTO d.followed VALUES (3)")

			// The other way round, as after a failover.
			if err := source.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := source.Follow(t.Context(), replica); err != nil {
				t.Fatal(err)
			}
			if err := source.CatchUp(t.Context(), replica); err != nil {
				t.Fatal(err)
			}
			mysqlExpect(t, source, "SELECT count(*) FROM d.followed", "3")
			if err := source.Stop(context.Background()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestMySQLWithoutBinlog(t *testing.T) {
	t.Parallel()
	none := map[string]string{"skip_log_bin": "1"}
	mysqlExpect(t, servers.Own(t).MySQLWith(servers.MySQLConfig{Version: "9", Settings: none}), "SELECT @@log_bin", "0")
	mysqlExpect(t, servers.Own(t).MariaDBWith(servers.MySQLConfig{Version: "11", Settings: none}), "SELECT @@log_bin", "0")
}

func TestMySQLOfTheMachine(t *testing.T) {
	t.Parallel()
	for _, start := range []func(servers.For, string) *servers.MySQL{servers.For.MySQL, servers.For.MariaDB} {
		m := start(servers.Shared(t), "")
		mysqlExpect(t, m, "SELECT @@log_bin", "1")
		mysqlRun(t, m, "CREATE TABLE "+m.Database(t)+".t (id int PRIMARY KEY)")
	}
}

func TestMySQLStartFails(t *testing.T) {
	t.Parallel()
	_, err := servers.StartMariaDB(t.Context(), servers.MySQLConfig{
		Version: "10.11", Settings: map[string]string{"no_such_setting": "1"},
	})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("started with a wrong setting: got error %v, want one with the server's log", err)
	}
	_, err = servers.StartMySQL(t.Context(), servers.MySQLConfig{Version: "5.1"})
	if err == nil || !strings.Contains(err.Error(), `"5.1"`) {
		t.Errorf("started an unknown version: got error %v, want one that names it", err)
	}
}

func TestMySQLOfTheEnvironment(t *testing.T) {
	m := servers.Own(t).MariaDBWith(servers.MySQLConfig{Version: "10.11"})
	mysqlRun(t, m, "CREATE USER other@'127.0.0.1' IDENTIFIED BY 'p@ss'", "GRANT ALL ON *.* TO other@'127.0.0.1'")
	t.Setenv("HEADWATER_TEST_MARIADB_11", "mysql://other:p%40ss@"+m.Addr())

	named := servers.Own(t).MariaDB("11")
	if named.Version != m.Version || named.Port != m.Port {
		t.Errorf("got MariaDB %s on port %d", named.Version, named.Port)
	}
	if user, password := named.User(); user != "other" || password != "p@ss" {
		t.Errorf("got the user %s with the password %s", user, password)
	}
	mysqlExpect(t, named, "SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)", "other")
	if got, want := named.URL(named.Database(t)), "mysql://other:p%40ss@"+m.Addr()+"/test_"; !strings.HasPrefix(got, want) {
		t.Errorf("got the address %s, want %s…", got, want)
	}
	if err := named.Kill(); !errors.Is(err, servers.ErrExternal) {
		t.Errorf("Kill: got %v, want %v", err, servers.ErrExternal)
	}
}
