package mysql

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headwaterdb/headwater/capture"
)

// user makes a user who may read the log, and returns it as GRANT wants it, and what has a source
// use it.
func (l *lab) user(name string) (account string, as func(*Config)) {
	l.t.Helper()
	account = "'" + name + "'@'127.0.0.1'"
	l.exec("CREATE USER "+account+" IDENTIFIED BY 'secret-word'", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO "+account)
	l.t.Cleanup(func() { l.exec("DROP USER " + account) })
	return account, func(c *Config) {
		c.URL, c.Password = strings.Replace(c.URL, "root@", name+"@", 1), "secret-word"
	}
}

// TestRights_WhatIsCapturedMustBeReadable: a server hides tables from those who may not use them, so
// that they look as if they were not there.
func TestRights_WhatIsCapturedMustBeReadable(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v int)", "CREATE TABLE u (id int PRIMARY KEY)", "CREATE TABLE hidden (id int PRIMARY KEY)")
		db := "`" + l.name + "`"
		for i, c := range []struct {
			grant          string // DB is the database
			include        []string
			fault, warning string // "" if there is none
		}{
			{include: []string{"DB.*"}, fault: "GRANT SELECT ON " + db + ".* TO "},
			{include: []string{"DB.t"}, fault: "GRANT SELECT ON " + db + ".`t` TO "},
			{include: []string{"DB.none"}, fault: ", or take it out of tables.include as long as there is no such table"},
			{fault: "GRANT SELECT ON database.* TO "},
			{include: []string{"*.t"}, fault: "GRANT SELECT ON database.* TO "},
			{grant: "INSERT ON DB.t", include: []string{"DB.?"}, fault: "GRANT SELECT ON " + db + ".`t` TO "},
			{grant: "INSERT ON DB.*", include: []string{"*.*"}, fault: "GRANT SELECT ON " + db + ".`u` TO "},
			{grant: "SELECT (id) ON DB.t", include: []string{"DB.t"}, fault: "GRANT SELECT ON " + db + ".`t` TO "},
			{grant: "SELECT ON DB.t", include: []string{"DB.t", "DB.u"}, fault: "GRANT SELECT ON " + db + ".`u` TO "},
			{grant: "SELECT ON DB.t", include: []string{"DB.t"}},
			{grant: "SELECT ON DB.t", include: []string{"DB.*"}, warning: "the user may read some tables of " + l.name + ".*, and does not see whether there are others"},
			{grant: "SELECT ON DB.t", include: []string{"*.x"}, warning: `"*.x" matches no table, and those that the user can see are ` + l.name + ".t"},
			{grant: "SELECT ON DB.*", include: []string{"DB.t", "DB.none"}, warning: `"` + l.name + `.none" matches no table, and those that the user can see are ` + l.name + ".hidden, " + l.name + ".t, "},
			{grant: "SELECT ON DB.*", include: []string{"DB.hidden"}, warning: "no table is captured"},
		} {
			of := strings.NewReplacer("DB", l.name)
			account, as := l.user("u" + string(rune('a'+i)) + strings.TrimPrefix(l.name, "test"))
			if c.grant != "" {
				l.exec("GRANT " + of.Replace(c.grant) + " TO " + account)
			}
			var said strings.Builder
			cfg := l.config(as, func(cfg *Config) {
				cfg.Tables.Include = nil
				for _, glob := range c.include {
					cfg.Tables.Include = append(cfg.Tables.Include, of.Replace(glob))
				}
			})
			s := New(cfg, slog.New(slog.NewTextHandler(&said, nil)), prometheus.NewRegistry())
			found := findings(t, s)
			var came int
			err := l.follow(s, capture.Resume{}, func(piece) error {
				came++
				return errEnough
			})
			if c.fault != "" {
				if !errors.Is(err, capture.ErrMisconfigured) || came > 0 || !strings.Contains(err.Error(), "the user must not read ") || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("%q with the right %q: Stream gives %d batches and %v, want %q", c.include, c.grant, came, err, c.fault)
				}
				if !strings.Contains(found, "! the user must not read ") || !strings.Contains(found, c.fault) {
					t.Errorf("%q with the right %q: Check does not say %q:\n%s", c.include, c.grant, c.fault, found)
				}
				continue
			}
			if !errors.Is(err, errEnough) || strings.Contains(found, "!") {
				t.Errorf("%q with the right %q: Stream gives %v, and Check finds\n%s", c.include, c.grant, err, found)
			}
			if log := strings.ReplaceAll(said.String(), `\"`, `"`); !strings.Contains(found, c.warning) || !strings.Contains(log, c.warning) {
				t.Errorf("%q with the right %q: nobody is warned of %q; Check says\n%s\nand Stream\n%s", c.include, c.grant, c.warning, found, log)
			}
		}
	})
}

// TestRights_OfRolesCount: a role's rights are the user's.
func TestRights_OfRolesCount(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)")
		account, as := l.user("r" + strings.TrimPrefix(l.name, "test"))
		role := "role" + strings.TrimPrefix(l.name, "test")
		use := "SET DEFAULT ROLE " + role + " TO " + account
		if strings.HasPrefix(kind, "MariaDB") {
			use = "SET DEFAULT ROLE " + role + " FOR " + account
		}
		l.exec("CREATE ROLE "+role, "GRANT SELECT ON "+l.name+".* TO "+role, "GRANT "+role+" TO "+account, use)
		t.Cleanup(func() { l.exec("DROP ROLE " + role) })
		if found := findings(t, l.source(as)); strings.Contains(found, "!") {
			t.Errorf("nothing is missing, and found is\n%s", found)
		}
		r := l.start()
		l.exec("INSERT INTO t VALUES (1)")
		expect(t, l.record(l.source(as), r), "insert t id=int:1")
	})
}

// TestRights_RowsOfATableThatIsHiddenAreNotTakenForThoseOfOneThatIsGone: of one that is gone the log
// tells all that there is to know.
func TestRights_RowsOfATableThatIsHiddenAreNotTakenForThoseOfOneThatIsGone(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY, v int DEFAULT 3)", "CREATE TABLE other (id int PRIMARY KEY)")
		account, as := l.user("h" + strings.TrimPrefix(l.name, "test"))
		for _, table := range []string{"t", "other"} {
			l.exec("GRANT SELECT ON " + l.name + "." + table + " TO " + account)
		}
		refused := func(r capture.Resume, table string, during func()) {
			t.Helper()
			var lines []string
			err := l.follow(l.source(as), r, func(p piece) error {
				during()
				during = func() {}
				if lines = append(lines, p.lines...); strings.Contains(strings.Join(lines, " "), " "+table) {
					return errEnough
				}
				return nil
			})
			if !errors.Is(err, capture.ErrMisconfigured) || !strings.Contains(err.Error(), "remedy: GRANT SELECT ON `"+l.name+"`.`"+table+"` TO "+account) {
				t.Errorf("rows of %s: got %v after %q", table, err, lines)
			}
		}
		r := l.start()
		l.exec("INSERT INTO t VALUES (1, 1)", "DROP TABLE t", "CREATE TABLE later (id int PRIMARY KEY)", "INSERT INTO later VALUES (7)", "TRUNCATE TABLE later")
		refused(r, "later", func() {})
		second := l.start()
		l.exec("INSERT INTO other VALUES (1)")
		refused(second, "seen", func() {
			// With any right at all it can be seen.
			l.exec("CREATE TABLE seen (id int PRIMARY KEY)", "GRANT INSERT ON "+l.name+".seen TO "+account, "INSERT INTO seen VALUES (8)")
		})
		l.exec("REVOKE INSERT ON " + l.name + ".seen FROM " + account)
		third := l.start()
		l.exec("CREATE TABLE cut (id int PRIMARY KEY)", "TRUNCATE TABLE cut", "INSERT INTO cut VALUES (9)")
		refused(third, "cut", func() {})
		l.exec("GRANT SELECT ON " + l.name + ".* TO " + account)
		expect(t, l.record(l.source(as), r), "insert t id=int:1 v=int:1", "insert later id=int:7", "truncate later", "insert other id=int:1", "insert seen id=int:8", "truncate cut", "insert cut id=int:9")
	})
}
