package servers

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"
)

// settings returns what goes to my.cnf.
func (m *MySQL) settings(c MySQLConfig) map[string]string {
	s := m.home.settings()
	maps.Copy(s, map[string]string{
		"datadir":           m.Dir,
		"tmpdir":            filepath.Join(m.run.path, "tmp"),
		"pid_file":          filepath.Join(m.run.path, "server.pid"),
		"bind_address":      "127.0.0.1",
		"port":              strconv.Itoa(m.Port),
		"socket":            "", // its path could be too long
		"skip_name_resolve": "ON",
		"secure_file_priv":  "",

		"character_set_server": "utf8mb4",
		"server_id":            strconv.Itoa(m.Port), // no other server of the machine has it
		"log_bin":              "binlog",
		"binlog_format":        "ROW",
		"binlog_row_image":     "FULL",
		"binlog_row_metadata":  "FULL",
		"relay_log":            "relay",
		"relay_log_recovery":   "ON",

		"max_connections":         "100",
		"table_open_cache":        "400",
		"innodb_buffer_pool_size": "32M",
		"innodb_log_buffer_size":  "2M",
		"innodb_use_native_aio":   "OFF", // the machine allows a limited number of requests
	})
	maps.Copy(s, redoLog(m.home))
	if !m.home.oldTLS {
		s["ssl_ca"] = m.CAFile
		s["ssl_cert"] = filepath.Join(m.run.path, serverFile)
		s["ssl_key"] = s["ssl_cert"]
	}
	if m.Flavor == mysql.MariaDBFlavor {
		maps.Copy(s, map[string]string{
			"gtid_strict_mode":           "ON",
			"log_slave_updates":          "ON", // MySQL's default
			"key_buffer_size":            "1M",
			"aria_pagecache_buffer_size": "1M",
		})
	} else {
		maps.Copy(s, map[string]string{
			"gtid_mode":                "ON",
			"enforce_gtid_consistency": "ON",
			"mysqlx":                   "OFF",
			"performance_schema":       "ON",
			// Its tables stay, but take 80 MB less.
			"performance_schema_instrument":                            "'%=OFF'",
			"performance_schema_digests_size":                          "50",
			"performance_schema_error_size":                            "1",
			"performance_schema_events_stages_history_long_size":       "1",
			"performance_schema_events_statements_history_long_size":   "1",
			"performance_schema_events_statements_history_size":        "1",
			"performance_schema_events_transactions_history_long_size": "1",
			"performance_schema_events_waits_history_long_size":        "1",
			"performance_schema_max_digest_length":                     "64",
			"performance_schema_max_sql_text_length":                   "64",
			"performance_schema_max_table_handles":                     "200",
			"performance_schema_max_table_instances":                   "200",
		})
	}
	if !c.Durable {
		maps.Copy(s, notDurable)
	}
	maps.Copy(s, c.Settings)
	return s
}

// notDurable hands every commit to the system, so that it outlives the process,
// but does not wait for the disk.
var notDurable = map[string]string{
	"sync_binlog":                    "0",
	"innodb_flush_log_at_trx_commit": "2",
	"innodb_flush_method":            "nosync",
	"innodb_doublewrite":             "OFF",
}

// redoLog returns the setting for a small redo log.
func redoLog(h *mysqlHome) map[string]string {
	if h.flavor == mysql.MySQLFlavor && h.atLeast(8, 0, 30) {
		return map[string]string{"innodb_redo_log_capacity": "16M"}
	}
	return map[string]string{"innodb_log_file_size": "8M"}
}

// writeMyCnf writes the settings as the server reads them.
func writeMyCnf(file string, settings map[string]string) error {
	var b strings.Builder
	b.WriteString("[mysqld]\n")
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s=%s\n", k, settings[k])
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write my.cnf: %w", err)
	}
	return nil
}

// fill makes our data directory: a copy of one that was made before, which takes a
// fraction of the time.
func (m *MySQL) fill(ctx context.Context) error {
	sum := sha256.Sum256([]byte(m.home.program))
	name := fmt.Sprintf("%s-data-%s-%x", m.Flavor, m.Version, sum[:4])
	template, err := cached(ctx, name, func(dir string) error { return m.home.initialize(ctx, dir) })
	if err != nil {
		return err
	}
	return copyData(m.Dir, filepath.Join(template, "data"))
}

// initialize makes a data directory in dir, named data.
func (h *mysqlHome) initialize(ctx context.Context, dir string) error {
	data, config := filepath.Join(dir, "data"), filepath.Join(dir, "my.cnf")
	s := h.settings()
	maps.Copy(s, redoLog(h))
	maps.Copy(s, notDurable)
	s["datadir"], s["innodb_use_native_aio"] = data, "OFF"
	initialize := h.initializeMySQL
	if h.flavor == mysql.MariaDBFlavor {
		initialize = h.initializeMariaDB
	}
	if err := writeMyCnf(config, s); err != nil {
		return err
	}
	if err := initialize(ctx, config, data); err != nil {
		return fmt.Errorf("create a data directory of %s %s: %w", product(h.flavor), h.version, err)
	}
	return nil
}

// initializeMySQL leaves the RSA keys for logging in without TLS in the data
// directory, whose making takes most of a second.
func (h *mysqlHome) initializeMySQL(ctx context.Context, config, data string) error {
	// The superuser that --initialize makes cannot log in by TCP.
	users := filepath.Join(filepath.Dir(config), "users.sql")
	sql := "CREATE USER root@'127.0.0.1';\nGRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\nGRANT PROXY ON ''@'' TO root@'127.0.0.1' WITH GRANT OPTION;\n"
	if err := os.WriteFile(users, []byte(sql), 0o644); err != nil {
		return err
	}
	if _, err := h.command("--defaults-file="+config, "--initialize-insecure", "--init-file="+users).run(ctx); err != nil {
		return err
	}
	// It holds the server_uuid: every copy makes one of its own.
	return os.Remove(filepath.Join(data, "auto.cnf"))
}

// initializeMariaDB does what the script mariadb-install-db does, which cannot run
// from another place than it was made for.
func (h *mysqlHome) initializeMariaDB(ctx context.Context, config, data string) error {
	share := h.share
	if share == "" {
		for _, dir := range []string{"/usr/share/mariadb", "/usr/share/mysql"} {
			if _, err := os.Stat(filepath.Join(dir, "fill_help_tables.sql")); err == nil {
				share = dir
				break
			}
		}
	}
	if err := os.MkdirAll(filepath.Join(data, "mysql"), 0o700); err != nil {
		return err
	}
	// Without a socket of the system's user; without anonymous users.
	script := []io.Reader{strings.NewReader("USE mysql;\nSET @auth_root_socket=NULL;\nSET @skip_auth_anonymous=1;\n")}
	for _, name := range []string{
		"system_tables", "performance_tables", "system_tables_data", "fill_help_tables", "maria_add_gis_sp_bootstrap", "sys_schema",
	} {
		for _, file := range []string{"mariadb_" + name, "mysql_" + name, name} {
			text, err := os.ReadFile(filepath.Join(share, file+".sql"))
			if err == nil {
				script = append(script, strings.NewReader(string(text)))
				break
			}
		}
	}
	c := h.command("--defaults-file="+config, "--bootstrap", "--skip-log-bin", "--max_allowed_packet=8M", "--net_buffer_length=16K")
	c.stdin = io.MultiReader(script...)
	_, err := c.run(ctx)
	return err
}
