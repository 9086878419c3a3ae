package mysql

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

func TestXA_OfOnePhaseHoldsNothingAfterwards(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)")
		r := l.start()
		var want []string
		for i := range 60 {
			l.exec("XA START '"+l.name+"'", fmt.Sprintf("INSERT INTO t VALUES (%d)", i), "XA END '"+l.name+"'", "XA COMMIT '"+l.name+"' ONE PHASE")
			want = append(want, fmt.Sprintf("insert t id=int:%d", i))
		}
		s := l.source(func(c *Config) { c.PreparedBytes = 1 << 20 })
		s.cfg.PreparedBytes = 2000 // ten of them
		expect(t, l.record(s, r), want...)
	})
}

func TestXA_RowsThatAreTakenBackStopTheStream(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := newLab(t, kind)
		l.exec("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE plain (id int) ENGINE = MyISAM")
		r := l.start()
		id := "'" + l.name + "'"
		for _, sql := range []string{
			"XA START " + id, "INSERT INTO t VALUES (1)", "SAVEPOINT a", "INSERT INTO t VALUES (2)", "INSERT INTO plain VALUES (1)",
			"ROLLBACK TO a", "XA END " + id, "XA PREPARE " + id, "XA COMMIT " + id,
		} {
			// The rollback warns that it is not a whole one.
			if _, err := l.db.Execute(sql); err != nil && !strings.HasPrefix(sql, "ROLLBACK") {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		if got := l.ask("SELECT GROUP_CONCAT(id) FROM t"); got != "1" {
			t.Fatalf("the table has the rows %s: the test proves nothing", got)
		}
		err := l.follow(l.source(), r, func(p piece) error {
			for _, line := range p.lines {
				if line == "insert t id=int:2" {
					return errEnough
				}
			}
			return nil
		})
		if !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "ROLLBACK TO SAVEPOINT") {
			t.Errorf("got %v", err)
		}
	}, "MariaDB 10.11", "MariaDB 11")
}
