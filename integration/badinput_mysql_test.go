package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/headwaterdb/headwater/integration/servers"
)

// statements runs them on a connection of their own, also in the test's cleanup.
func statements(t *testing.T, db *servers.MySQL, all ...string) {
	t.Helper()
	conn, err := db.Connect(context.WithoutCancel(t.Context()), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Quit()
	for _, sql := range all {
		if _, err := conn.Execute(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// oneRow makes a database with a table of one row.
func oneRow(t *testing.T, db *servers.MySQL, name string) {
	t.Helper()
	statements(t, db, "CREATE DATABASE "+name,
		"CREATE TABLE "+name+".orders (id int PRIMARY KEY, item text)", "INSERT INTO "+name+".orders VALUES (1, 'tea')")
}

// purge removes all of the log but the last file. A server keeps files that it sends to
// somebody, even to one who has gone, until it notices.
func purge(t *testing.T, db *servers.MySQL) {
	t.Helper()
	conn, err := db.Connect(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Quit()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if _, err := conn.Execute("FLUSH BINARY LOGS"); err != nil {
			t.Fatal(err)
		}
		logs, err := conn.Execute("SHOW BINARY LOGS")
		if err != nil {
			t.Fatal(err)
		}
		first, errFirst := logs.GetString(0, 0)
		last, errLast := logs.GetString(logs.RowNumber()-1, 0)
		if err := errors.Join(errFirst, errLast); err != nil {
			t.Fatal(err)
		}
		if first != "binlog.000001" {
			return
		}
		if time.Since(began) > 2*time.Minute {
			t.Fatal("the server keeps its first log")
		}
		if _, err := conn.Execute("PURGE BINARY LOGS TO '" + last + "'"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBadInput_OfMySQLIsSaidInOneSentenceWithTheRemedy(t *testing.T) {
	t.Parallel()
	for product, start := range map[string]func(servers.For, servers.MySQLConfig) *servers.MySQL{
		"MySQL": servers.For.MySQLWith, "MariaDB": servers.For.MariaDBWith,
	} {
		t.Run(product, func(t *testing.T) {
			t.Parallel()
			l := &lab{kafka: servers.Shared(t).KafkaWith(servers.KafkaConfig{Auth: true}), registry: servers.Shared(t).Registry()}
			l.refuseMySQL(t, product == "MariaDB", func(f servers.For, settings map[string]string) *servers.MySQL {
				t.Helper()
				return start(f, servers.MySQLConfig{Settings: settings})
			})
		})
	}
}

// mysqlSource is the content of the section source.
func mysqlSource(db *servers.MySQL, user, password, more string) string {
	return fmt.Sprintf("mysql: {url: %q, password: %q, heartbeat_interval: 1s%s}", "mysql://"+user+"@"+db.Addr(), password, more)
}

func (l *lab) refuseMySQL(t *testing.T, maria bool, start func(servers.For, map[string]string) *servers.MySQL) {
	db := start(servers.Shared(t), nil) // is as it should be
	none := start(servers.Own(t), map[string]string{"skip_log_bin": "1"})
	half := map[string]string{"binlog_format": "MIXED", "binlog_row_image": "MINIMAL", "binlog_row_metadata": "MINIMAL"}
	reset := "RESET BINARY LOGS AND GTIDS"
	if maria {
		half["gtid_strict_mode"], reset = "OFF", "RESET MASTER"
	}
	halfway := start(servers.Own(t), half)
	lost := start(servers.Own(t), nil)

	// named makes a name that no other case on these servers and topics has, and its table.
	named := func(name string, on *servers.MySQL) (string, string) {
		if name += "_my"; maria {
			name += "maria"
		}
		name = strings.ReplaceAll(strings.ToLower(name), "_", "")
		oneRow(t, on, name)
		return name, fmt.Sprintf("include: [%q]", name+".*")
	}
	grants := func(user, database string, rights ...string) {
		t.Helper()
		all := []string{"CREATE USER " + user + "@'127.0.0.1' IDENTIFIED BY '" + badPassword + "'"}
		for _, r := range rights {
			all = append(all, "GRANT "+strings.ReplaceAll(r, "DB", database)+" TO "+user+"@'127.0.0.1'")
		}
		statements(t, db, all...)
		t.Cleanup(func() { statements(t, db, "DROP USER "+user+"@'127.0.0.1'", "DROP DATABASE "+database) })
	}
	const log, ask = "REPLICATION SLAVE ON *.*", "REPLICATION CLIENT ON *.*"
	var each []badInput
	add := func(name string, on *servers.MySQL, source string, c badInput) string {
		c.name, c.tables = named(name, on)
		c.source, c.exits = source, true
		each = append(each, c)
		return c.name
	}

	database := add("WrongPassword", db, mysqlSource(db, "wrongpassword", badPassword+"x", ""), badInput{
		says: []string{`refuses the password of user "wrongpassword"`, "remedy: correct password, or ALTER USER"}, check: "remedy: correct password, or ALTER USER 'wrongpassword'",
	})
	grants("wrongpassword", database)
	database = add("NoRightToAsk", db, mysqlSource(db, "mustnotask", badPassword, ""), badInput{
		says: []string{"ask for the end of the log", "Access denied", "remedy: headwater check lists"}, check: "remedy: GRANT REPLICATION CLIENT ON *.* TO 'mustnotask'@'127.0.0.1'",
	})
	grants("mustnotask", database, log, "SELECT ON DB.*")
	database = add("NoRightToTheLog", db, mysqlSource(db, "mustnotlog", badPassword, ""), badInput{
		says: []string{"Access denied", "remedy: headwater check lists"}, check: "remedy: GRANT REPLICATION SLAVE ON *.* TO 'mustnotlog'@'127.0.0.1'",
	})
	grants("mustnotlog", database, ask, "SELECT ON DB.*")
	database = add("NoRightToRead", db, mysqlSource(db, "mustnotread", badPassword, ""), badInput{
		says: []string{"the user must not read norighttoreadmy", "remedy: GRANT SELECT ON `norighttoreadmy"}, check: "remedy: GRANT SELECT ON `norighttoreadmy",
	})
	grants("mustnotread", database, ask, log, "INSERT ON DB.*")
	database = add("NoRightToSee", db, mysqlSource(db, "mustnotsee", badPassword, ""), badInput{
		says: []string{"the user must not read norighttoseemy", "remedy: GRANT SELECT ON `norighttoseemy"}, check: "database: problem: the user must not read norighttoseemy",
	})
	grants("mustnotsee", database, ask, log)
	name, tables := named("Cascades", db)
	statements(t, db, "CREATE TABLE "+name+".parts (id int PRIMARY KEY, part_of int, CONSTRAINT parts_of FOREIGN KEY (part_of) REFERENCES "+name+".orders (id) ON DELETE CASCADE)")
	grants("mayread", name, ask, log, "SELECT ON DB.*")
	if maria || db.Version < "9.7" {
		// Whoever may only read is told of them, too.
		each = append(each, badInput{
			name: name, tables: tables, source: mysqlSource(db, "mayread", badPassword, ""), says: []string{"the table is read"},
			check: "the engine changes rows by foreign keys without logging them: " + name + ".parts (parts_of)",
		})
	}
	add("ServerIDOfTheServer", db, mysqlSource(db, "root", "", fmt.Sprintf(", server_id: %d", db.Port)), badInput{
		says: []string{fmt.Sprintf("server_id %d is the server's own", db.Port), "remedy: choose another number for server_id"}, check: "remedy: choose another number for server_id",
	})
	// Other pipelines that read the same log could stop there, too.
	database = add("StatementInTheLog", lost, mysqlSource(lost, "root", "", ""), badInput{
		says: []string{"the change log cannot be read exactly", "statement", "remedy: "},
	})
	each[len(each)-1].then = func() {
		statements(t, lost, "SET SESSION binlog_format = STATEMENT", "UPDATE "+database+".orders SET item = concat(item, 's')")
	}
	add("NoLog", none, mysqlSource(none, "root", "", ""), badInput{
		says: []string{"writes no binary log (log_bin is OFF)", "remedy: set log_bin"}, check: "database: problem: the server writes no binary log",
	})
	says := []string{"binlog_format is MIXED", "SET GLOBAL binlog_format = 'ROW'", "binlog_row_image is MINIMAL", "SET GLOBAL binlog_row_image = 'FULL'"}
	for i, what := range []string{"binlog_format", "binlog_row_metadata", "binlog_row_image"} {
		add(fmt.Sprintf("HalfPrepared%d", i), halfway, mysqlSource(halfway, "root", "", ""), badInput{says: says, check: "remedy: SET GLOBAL " + what + " = "})
	}
	if !maria {
		bound := start(servers.Own(t), map[string]string{"gtid_mode": "OFF", "enforce_gtid_consistency": "OFF"})
		add("NoGTIDs", bound, mysqlSource(bound, "root", "", ""), badInput{
			says: []string{"without GTIDs (gtid_mode is OFF)", "remedy: SET GLOBAL gtid_mode = ON, or snapshot_lock: allow"}, check: "database: problem: gtid_mode is OFF: nothing tells which transactions",
		})
	}
	each = append(each, badInput{
		name: strings.TrimSuffix(name, "my") + "away", source: fmt.Sprintf("mysql: {url: %q}", "mysql://pw:"+badPassword+"@127.0.0.1:1"),
		says: []string{"the pipeline starts again, until it works", "connection refused"}, check: "database: problem: connect to the server at 127.0.0.1:1",
	})
	t.Run("Each", func(t *testing.T) {
		for _, c := range each {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				l.meet(t, &c)
			})
		}
	})
	t.Run("TheLogIsGone", func(t *testing.T) {
		name, tables := named("Gone", lost)
		config := fmt.Sprintf(`
name: %[1]s
source:
  %[2]s
tables: {%[3]s}
topics: {prefix: %[1]s, partitions: 1, replication: 1}
registry: {url: %[4]q}
kafka: {brokers: [%[5]q]}
`, name, mysqlSource(lost, "root", "", ""), tables, l.registry.URL, l.kafka.Bootstrap[0])
		p := newPipeline(t, config)
		headwater(t, 0, "snapshot", "--config", p.config)
		statements(t, lost, "INSERT INTO "+name+".orders VALUES (2, 'cup')")
		purge(t, lost)
		p.start("run")
		p.wantEnd(4, "the change log cannot continue from the checkpoint", "purged", "remedy: run headwater checkpoint reset")
		statements(t, lost, reset)
		p.start("run")
		p.wantEnd(4, "the change log cannot continue from the checkpoint", "reset", "remedy: run headwater checkpoint reset")
	})
	t.Run("TwoOfOneName", func(t *testing.T) {
		name, tables := named("Twice", db)
		config := fmt.Sprintf(`
name: %[1]s
source:
  %[2]s
tables: {%[3]s}
topics: {prefix: %[1]s, partitions: 1, replication: 1}
registry: {url: %[4]q}
kafka: {brokers: [%[5]q]}
publish: {idle_interval: 1s}
`, name, mysqlSource(db, "root", "", ""), tables, l.registry.URL, l.kafka.Bootstrap[0])
		first, second := newPipeline(t, config), newPipeline(t, config)
		first.start("run")
		waitForRecords(t, first, l, name, 1)
		second.start("run")
		first.wantEnd(75)
		statements(t, db, "INSERT INTO "+name+".orders VALUES (2, 'cup')")
		waitForRecords(t, second, l, name, 2)
		second.stop()
	})
}
