package mysql

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
)

// findings runs Check and prints what it finds, faults with an exclamation mark.
func findings(t *testing.T, s *Source) string {
	t.Helper()
	err := s.Check(t.Context())
	if err == nil {
		return ""
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("Check itself failed: %v", err)
	}
	var b strings.Builder
	for _, e := range joined.Unwrap() {
		var f *capture.Finding
		if !errors.As(e, &f) {
			t.Fatalf("Check found %v, which is no finding", e)
		}
		if !f.Warning {
			b.WriteString("! ")
		}
		b.WriteString(f.Error() + "\n")
	}
	return b.String()
}

func wantFindings(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%q is not found; found is:\n%s", w, got)
		}
	}
}

func TestCheck_FindsWhatIsMissing(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		maria := strings.HasPrefix(kind, "MariaDB")
		passesOn := "log_slave_updates"
		if kind == "MySQL 9" {
			passesOn = "log_replica_updates"
		}
		l := privateLab(t, kind, passesOn+"=OFF") // which matters on a replica alone
		l.exec("CREATE TABLE t (id int PRIMARY KEY)")
		if got := findings(t, l.source()); strings.Contains(got, "!") {
			t.Errorf("nothing is wrong, and found is:\n%s", got)
		}

		// Settings.
		l.exec("SET GLOBAL binlog_row_metadata = 'MINIMAL'", "SET GLOBAL binlog_row_image = 'MINIMAL'", "SET GLOBAL binlog_format = 'STATEMENT'")
		want := []string{
			"\nbinlog_row_metadata is", "SET GLOBAL binlog_row_metadata = 'FULL'", "! binlog_row_image is MINIMAL", "SET GLOBAL binlog_row_image = 'FULL'",
			"! binlog_format is STATEMENT", "SET GLOBAL binlog_format = 'ROW'",
		}
		wantFindings(t, findings(t, l.source()), want...)
		if err := l.follow(l.source(), capture.Resume{}, func(piece) error { return errEnough }); !errors.Is(err, capture.ErrMisconfigured) {
			t.Errorf("Stream with these settings: got %v", err)
		}
		l.exec("SET GLOBAL binlog_row_metadata = 'FULL'", "SET GLOBAL binlog_row_image = 'NOBLOB'", "SET GLOBAL binlog_format = 'ROW'", "SET GLOBAL binlog_expire_logs_seconds = 3600")
		want = []string{"binlog_row_image is NOBLOB", "1.0 hours", "SET GLOBAL binlog_expire_logs_seconds = 259200"}
		if maria {
			l.exec("SET GLOBAL gtid_strict_mode = OFF")
			want = append(want, "SET GLOBAL gtid_strict_mode = ON")
		} else {
			l.exec("SET GLOBAL binlog_row_value_options = 'PARTIAL_JSON'")
			want = append(want, "binlog_row_value_options is PARTIAL_JSON")
		}
		wantFindings(t, findings(t, l.source()), want...)

		// Tables.
		l.exec("CREATE TABLE keyless (id int)", "CREATE TABLE old (id int PRIMARY KEY) ENGINE = MyISAM",
			"CREATE TABLE child (id int PRIMARY KEY, p int, CONSTRAINT of_parent FOREIGN KEY (p) REFERENCES t (id) ON DELETE CASCADE)")
		tables, err := l.source(func(c *Config) { c.Tables.Include = []string{"*.child"} }).Definitions(t.Context())
		if err != nil || len(tables) != 1 || tables[0].ID.Name != "child" || tables[0].Column("p") != 1 || len(tables[0].Key) != 1 {
			t.Errorf("definitions: %+v, %v", tables, err)
		}
		got := findings(t, l.source(func(c *Config) { c.Tables.Include = append(c.Tables.Include, "nowhere.*") }))
		wantFindings(t, got, `"nowhere.*" matches no table, and those that the user can see are `, "without primary key or unique index: "+l.name+".keyless;", l.name+".old (MyISAM)")
		if !strings.HasPrefix(kind, "MySQL 9") {
			wantFindings(t, got, l.name+".child (of_parent)")
		}

		// Rights, one after the other.
		l.exec("CREATE USER cdc@'127.0.0.1' IDENTIFIED BY 'secret-word'")
		user := func(c *Config) {
			c.URL, c.Password = strings.Replace(c.URL, "root@", "cdc@", 1), "secret-word"
		}
		for _, step := range []struct{ grant, want string }{
			{"", "! the user must not ask where the log ends; remedy: GRANT REPLICATION CLIENT ON *.* TO 'cdc'@'127.0.0.1'"},
			{"GRANT REPLICATION CLIENT ON *.* TO cdc@'127.0.0.1'", "! the user must not read the log; remedy: GRANT REPLICATION SLAVE ON *.* TO 'cdc'@'127.0.0.1'"},
			{"GRANT REPLICATION SLAVE ON *.* TO cdc@'127.0.0.1'", "! the user must not read " + l.name + ".*, which is to be captured, and does not even see whether it is there; remedy: GRANT SELECT ON `" + l.name + "`.* TO 'cdc'@'127.0.0.1'"},
			{"GRANT INSERT ON " + l.name + ".t TO cdc@'127.0.0.1'", "! the user must not read " + l.name + ".t"},
			{"GRANT SELECT ON " + l.name + ".* TO cdc@'127.0.0.1'", ""},
		} {
			if step.grant != "" {
				l.exec(step.grant)
			}
			got := findings(t, l.source(user))
			wantFindings(t, got, step.want)
			if step.want == "" && strings.Contains(got, "!") {
				t.Errorf("all rights are there, and found is:\n%s", got)
			}
			if step.want == "" && !maria {
				wantFindings(t, got, "GRANT XA_RECOVER_ADMIN ON *.* TO 'cdc'@'127.0.0.1'")
			}
			if strings.Contains(got, "secret-word") {
				t.Errorf("the password is in:\n%s", got)
			}
		}
		// With these rights alone everything works.
		l.exec("DELETE FROM t")
		s := l.source(user)
		scanner := s.Scanner()
		l.stream(s, capture.Resume{})
		l.rowsOf(scanner, "keyless", 1)

		// A replica, which need not run.
		if kind == "MySQL 9" {
			l.exec("CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = 1")
		} else {
			l.exec("CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = 1")
		}
		wantFindings(t, findings(t, l.source()), "! the server is a replica and does not log what it gets from its source (log_replica_updates is OFF); remedy: set log_replica_updates = ON")

		// Wrong passwords, users and addresses.
		wantFindings(t, findings(t, l.source(user, func(c *Config) { c.Password = "wrong-word" })), `! the server at `, `refuses the password of user "cdc"`)
		got = findings(t, l.source(func(c *Config) { c.URL = "mysql://root@127.0.0.1:1/" }))
		wantFindings(t, got, "! connect to the server at 127.0.0.1:1")
	})
}

func TestServer_OfAVersionOrFileSystemThatCannotWorkIsRefused(t *testing.T) {
	for version, refused := range map[string]bool{
		"5.7.44-log": true, "8.0.11": false, "9.7.4-2": false, "10.5.29-MariaDB-log": true, "10.6.1-MariaDB": false, "11.8.6-MariaDB-ubu2404": false, "12.0.2-MariaDB": false,
	} {
		srv := &server{flavour: flavourOf(version), vars: map[string]string{"version": version}}
		if _, err := fmt.Sscanf(version, "%d.%d", &srv.major, &srv.minor); err != nil {
			t.Fatal(err)
		}
		f := srv.tooOld()
		if (f != nil) != refused || refused && (!strings.Contains(f.Error(), version) || !strings.Contains(f.Error(), "; remedy: upgrade the server, or capture a replica")) {
			t.Errorf("%s: got %v", version, f)
		}
	}
	srv := &server{vars: map[string]string{"lower_case_table_names": "2"}}
	if err := refusal(srv.settingFaults()); !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), "lower_case_table_names is 2") {
		t.Errorf("names without case on disk: got %v", err)
	}
}

func TestServerID_IsCheckedForOthers(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		own := l.ask("SELECT @@server_id")
		s := l.source(func(c *Config) {
			n, err := parseUint(own)
			if err != nil {
				t.Fatal(err)
			}
			c.ServerID = uint32(n)
		})
		wantFindings(t, findings(t, s), "server_id "+own+" is the server's own")
		if err := l.follow(s, capture.Resume{}, func(piece) error { return errEnough }); !errors.Is(err, capture.ErrMisconfigured) {
			t.Errorf("the server's own id: got %v", err)
		}
		first := l.source()
		l.stream(first, capture.Resume{})
		other := func() *Source {
			return l.source(func(c *Config) { c.Pipeline, c.ServerID = "another", first.cfg.ServerID })
		}
		for began := time.Now(); !strings.Contains(l.replicas(), first.replicaName()); {
			if time.Since(began) > 2*time.Minute {
				t.Fatalf("the pipeline is not among the replicas: %s", l.replicas())
			}
		}
		wantFindings(t, findings(t, other()), `belongs to the replica "headwater:`+l.name+`"`)
		// The same pipeline once more.
		err := l.follow(l.source(), capture.Resume{}, func(piece) error { return errEnough })
		if err == nil || !strings.Contains(err.Error(), `the pipeline "`+l.name+`" is running already: session `) || errors.Is(err, capture.ErrMisconfigured) {
			t.Errorf("a second one: got %v", err)
		}
	}, "MySQL 9", "MariaDB 11")
}

// replicas is the server's list of them.
func (l *lab) replicas() string {
	l.t.Helper()
	sql := "SHOW SLAVE HOSTS"
	if strings.HasPrefix(l.server.Version, "9") {
		sql = "SHOW REPLICAS"
	}
	r, err := l.db.Execute(sql)
	if err != nil {
		l.t.Fatal(err)
	}
	out := ""
	for i := range r.RowNumber() {
		host, _ := r.GetString(i, 1)
		out += host + "\n"
	}
	return out
}

func TestConfig_PrintsNoSecret(t *testing.T) {
	cfg := Config{URL: "mysql://u:url-secret@db.example:3307/?tls=verify-ca", Password: "own-secret"}
	cfg.SetDefaults()
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("start", "config", cfg)
	for _, text := range []string{cfg.String(), b.String()} {
		if strings.Contains(text, "secret") || !strings.Contains(text, "db.example:3307") {
			t.Errorf("printed %q", text)
		}
	}
	bad := Config{URL: "mysql://u:url-secret@:x/y?a=b"}
	if err := bad.Validate(); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestConfig_NamesWhatCannotWork(t *testing.T) {
	for url, want := range map[string]string{
		"":                              "url: missing",
		"postgres://u@h/":               "cannot be read as the address",
		"mysql://h/":                    "names no user",
		"mysql://u@h/shop":              "names a database",
		"mysql://u@h/?sslmode=disable":  `option "sslmode" is unknown`,
		"mysql://u@h/?tls=maybe":        `tls is "maybe"`,
		"mysql://u@h:3306/?tls=require": "",
		"mysql://u@localhost":           "",
		"mysql://u:p%40ss@[::1]:3306/?tls=disable": "",
	} {
		cfg := Config{URL: url}
		cfg.SetDefaults()
		err := cfg.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", url, err, want)
		}
	}
	cfg := Config{URL: "mysql://u@h/", BatchBytes: 1, ReadTimeout: time.Second, PreparedBytes: 1, SnapshotLock: "yes", Tables: capture.Tables{Include: []string{"t"}}, TLSCA: "/nonexistent"}
	cfg.SetDefaults()
	err := cfg.Validate()
	for _, want := range []string{"batch_bytes", "read_timeout", "prepared_bytes", "snapshot_lock", "tables.include", "tls_ca"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in %v", want, err)
		}
	}
	a, b := Config{Pipeline: "a"}, Config{Pipeline: "b"}
	a.SetDefaults()
	b.SetDefaults()
	if a.ServerID == b.ServerID || a.ServerID < 1<<31 {
		t.Errorf("server ids are %d and %d", a.ServerID, b.ServerID)
	}
}

func TestConnect_ByEveryMethodAndMode(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		users := map[string]string{"sha2": "IDENTIFIED WITH caching_sha2_password BY 'secret'"}
		if strings.HasPrefix(kind, "MariaDB") {
			if _, err := l.db.Execute("INSTALL SONAME 'auth_ed25519'"); err != nil && !strings.Contains(err.Error(), "already") {
				t.Fatal(err)
			}
			users = map[string]string{"native": "IDENTIFIED BY 'secret'", "ed": "IDENTIFIED VIA ed25519 USING PASSWORD('secret')"}
		}
		for user, how := range users {
			name := user + "_" + l.name
			l.exec("CREATE USER "+name+"@'127.0.0.1' "+how, "CREATE USER x"+name+"@'127.0.0.1' "+how+" REQUIRE X509")
			t.Cleanup(func() { l.exec("DROP USER " + name + "@'127.0.0.1', x" + name + "@'127.0.0.1'") })
			try := func(name, mode string, change func(*Config)) (string, error) {
				l.exec("FLUSH PRIVILEGES") // else the server knows the password from the time before, and asks for less
				cfg := Config{URL: "mysql://" + name + "@" + l.server.Addr() + "/?tls=" + mode, Password: "secret"}
				change(&cfg)
				cfg.SetDefaults()
				c, err := New(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry()).connect(t.Context())
				if err != nil {
					return "", err
				}
				defer c.close()
				row, err := c.queryRow(t.Context(), "SHOW STATUS LIKE 'Ssl_cipher'")
				if err != nil {
					return "", err
				}
				return row[1], nil
			}
			ca := func(c *Config) { c.TLSCA = l.server.CAFile }
			for mode, change := range map[string]func(*Config){
				TLSDisable: func(*Config) {}, TLSRequire: func(*Config) {}, TLSVerifyCA: ca, TLSVerifyFull: ca,
			} {
				cipher, err := try(name, mode, change)
				if err != nil || (cipher != "") != (mode != TLSDisable) {
					t.Errorf("%s with tls=%s: cipher %q, %v", user, mode, cipher, err)
				}
			}
			for _, mode := range []string{TLSVerifyCA, TLSVerifyFull} {
				if _, err := try(name, mode, func(*Config) {}); !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), "certificate") {
					t.Errorf("%s with tls=%s and without the authority: got %v", user, mode, err)
				}
			}
			// Its certificate does not carry this name.
			elsewhere := newProxyAt(t, "127.0.0.2", l.server.Addr())
			for _, mode := range []string{TLSVerifyCA, TLSVerifyFull} {
				_, err := try(name, mode, func(c *Config) {
					ca(c)
					c.URL = strings.Replace(c.URL, l.server.Addr(), elsewhere.Addr().String(), 1)
				})
				if refused := errors.Is(err, capture.ErrMisconfigured) && strings.Contains(err.Error(), "certificate"); refused != (mode == TLSVerifyFull) || !refused && err != nil {
					t.Errorf("%s with tls=%s under another name: got %v", user, mode, err)
				}
			}
			_, err := try("x"+name, TLSVerifyCA, func(c *Config) { ca(c); c.TLSCert, c.TLSKey = l.server.CertFile, l.server.KeyFile })
			if err != nil {
				t.Errorf("%s with a certificate of ours: %v", user, err)
			}
			if _, err := try("x"+name, TLSVerifyCA, ca); !errors.Is(err, capture.ErrMisconfigured) {
				t.Errorf("%s without a certificate of ours: got %v", user, err)
			}
		}
	}, "MySQL 9", "MariaDB 10.11", "MariaDB 11")
}

// TestConnect_WithoutTLSThePasswordTravelsUnderTheServersKey: this build of MySQL has no TLS that
// is still in use.
func TestConnect_WithoutTLSThePasswordTravelsUnderTheServersKey(t *testing.T) {
	t.Parallel()
	l := newLab(t, "MySQL 8.0")
	l.exec("CREATE USER cdc@'127.0.0.1' IDENTIFIED WITH caching_sha2_password BY 'secret'", "FLUSH PRIVILEGES")
	t.Cleanup(func() { l.exec("DROP USER cdc@'127.0.0.1'") })
	for password, refused := range map[string]bool{"secret": false, "secrets": true} {
		s := l.source(func(c *Config) {
			c.URL, c.Password = "mysql://cdc@"+l.server.Addr()+"/?tls=disable", capture.Secret(password)
		})
		c, err := s.connect(t.Context())
		if err == nil {
			c.close()
		}
		if refused != errors.Is(err, capture.ErrMisconfigured) || !refused && err != nil {
			t.Errorf("with the password %q: got %v", password, err)
		}
	}
}
