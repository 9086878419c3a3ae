package postgres

import (
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/capture/capturetest"
)

// contractDB is a database as the contract of sources wants it.
type contractDB struct{ *lab }

// Source cuts transactions into few batches, since the contract resumes after each;
// TestStream_ResumeAfterEachBatchEqualsOneRun has smaller ones.
func (d contractDB) Source(t *testing.T) capture.Source {
	return d.source(func(c *Config) { small(c); c.BatchBytes = 64 << 10 })
}

func (d contractDB) Commit(t *testing.T, steps ...capturetest.Step) {
	var sql []string
	for _, s := range steps {
		sql = append(sql, s.SQL())
	}
	d.tx(sql...)
}

func (d contractDB) Rollback(t *testing.T, steps ...capturetest.Step) {
	var sql []string
	for _, s := range steps {
		sql = append(sql, s.SQL())
	}
	d.exec("BEGIN; " + strings.Join(sql, "; ") + "; ROLLBACK")
}

func (d contractDB) Elsewhere(t *testing.T) {
	d.exec(`INSERT INTO hidden SELECT max(id) + 1 FROM (SELECT id FROM hidden UNION ALL SELECT 0) h (id)`)
}

func TestSource_KeepsTheContract(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		capturetest.Run(t, func(t *testing.T) capturetest.DB {
			l := newLab(t, version)
			l.exec(`CREATE TABLE items (id bigint PRIMARY KEY, v varchar(100)); CREATE TABLE hidden (id int PRIMARY KEY)`)
			return contractDB{l}
		})
	})
}
