package mysql

import (
	"testing"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/capture/capturetest"
)

// contractDB is a database as the contract of sources wants it.
type contractDB struct{ *lab }

func (d contractDB) Source(t *testing.T) capture.Source { return d.source(small) }

func (d contractDB) Commit(t *testing.T, steps ...capturetest.Step) {
	d.exec("BEGIN")
	for _, s := range steps {
		d.exec(s.SQL())
	}
	d.exec("COMMIT")
}

func (d contractDB) Rollback(t *testing.T, steps ...capturetest.Step) {
	d.exec("BEGIN")
	for _, s := range steps {
		d.exec(s.SQL())
	}
	d.exec("ROLLBACK")
}

func (d contractDB) Elsewhere(t *testing.T) { d.exec("INSERT INTO hidden VALUES ()") }

func TestSource_KeepsTheContract(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		capturetest.Run(t, func(t *testing.T) capturetest.DB {
			l := newLab(t, kind)
			l.exec("CREATE TABLE items (id bigint PRIMARY KEY, v varchar(100))", "CREATE TABLE hidden (id int PRIMARY KEY AUTO_INCREMENT)")
			return contractDB{l}
		})
	})
}
