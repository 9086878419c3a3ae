package mysql

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

// Without gtid_strict_mode, MariaDB's default, the numbers of a domain fall when another
// server of a ring writes.
func TestStream_NumbersOfADomainMayFall(t *testing.T) {
	someKinds(t, func(t *testing.T, kind string) {
		l := privateLab(t, kind, "gtid_strict_mode=OFF")
		other := privateServer(t, kind, "gtid_strict_mode=OFF")
		if err := other.Follow(t.Context(), l.server); err != nil {
			t.Fatal(err)
		}
		l.exec("CREATE TABLE t (id int PRIMARY KEY)")
		for i := range 10 {
			l.exec(fmt.Sprintf("INSERT INTO t VALUES (%d)", i))
		}
		elsewhere := func(number int, sql string) {
			l.exec(fmt.Sprintf("SET SESSION server_id = 77, SESSION gtid_seq_no = %d", number), sql, "SET SESSION server_id = @@global.server_id")
		}
		xa := l.connect()
		start := l.start()
		at := []capture.Resume{start}
		var said [][]string
		for _, step := range []func(){
			func() { l.exec("INSERT INTO t VALUES (100)"); elsewhere(2, "INSERT INTO t VALUES (101)") },
			func() { l.exec("INSERT INTO t VALUES (102)") },
			func() {
				for _, sql := range []string{"XA START 'a'", "INSERT INTO t VALUES (103)", "XA END 'a'", "XA PREPARE 'a'"} {
					if _, err := xa.Execute(sql); err != nil {
						t.Fatal(err)
					}
				}
			},
			func() { elsewhere(3, "INSERT INTO t VALUES (104)"); l.exec("INSERT INTO t VALUES (105)") },
			func() { elsewhere(5, "INSERT INTO t VALUES (106)") },
			func() {
				if _, err := xa.Execute("XA COMMIT 'a'"); err != nil {
					t.Fatal(err)
				}
			},
			func() { elsewhere(7, "INSERT INTO t VALUES (107)") },
		} {
			step()
			tp := l.record(l.source(), at[len(at)-1])
			at, said = append(at, tp.last()), append(said, tp.lines())
		}
		want := []string{
			"insert t id=int:100", "insert t id=int:101", "insert t id=int:102", "insert t id=int:104", "insert t id=int:105",
			"insert t id=int:106", "insert t id=int:103", "insert t id=int:107",
		}
		if got := slices.Concat(said...); !slices.Equal(got, want) {
			t.Errorf("one after the other came\n\t%s", strings.Join(got, "\n\t"))
		}
		expect(t, l.record(l.source(small), start), want...)
		for i := range at {
			expect(t, l.record(l.source(), at[i]), slices.Concat(said[i:]...)...)
		}

		// What a new primary sends goes by the same order.
		if err := other.CatchUp(t.Context(), l.server); err != nil {
			t.Fatal(err)
		}
		if err := l.server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := other.Promote(t.Context()); err != nil {
			t.Fatal(err)
		}
		after := &lab{t: t, server: other, name: l.name}
		after.db = after.connect()
		for i := range at {
			expect(t, after.record(after.source(), at[i]), slices.Concat(said[i:]...)...)
		}

		// A name that comes twice could not be found again.
		begun := false
		err := after.follow(after.source(), capture.Resume{}, func(p piece) error {
			if !begun {
				begun = true
				after.exec("INSERT INTO t VALUES (199)")
			}
			if slices.Contains(p.lines, "insert t id=int:199") { // the server sends what comes
				after.exec("SET SESSION gtid_seq_no = 3", "INSERT INTO t VALUES (200)")
			}
			if slices.Contains(p.lines, "insert t id=int:200") {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, capture.ErrUnreadable) || !strings.Contains(err.Error(), "gtid_strict_mode") {
			t.Errorf("a number that one server gives twice: got %v", err)
		}
	}, "MariaDB 10.11", "MariaDB 11")
}

func TestPrepared_IsKnownByItsGTIDAndNotByAPlaceOfAnotherServer(t *testing.T) {
	set, err := parseGTIDs(mariaDB, "0-1-9")
	if err != nil {
		t.Fatal(err)
	}
	before, err := parseGTIDs(mariaDB, "0-1-2")
	if err != nil {
		t.Fatal(err)
	}
	p := place{File: "binlog.000001", Pos: 700}
	st := &stream{
		srv: &server{flavour: mariaDB}, at: position{GTIDs: set, Prepared: []prepared{{XID: "X'61',X'',1", GTID: "0-1-3", Before: "0-1-2", place: p}}},
	}
	st.passOver(before)
	for _, c := range []struct {
		number uint64
		at     place
		skip   bool
	}{
		{3, place{p.File, 300}, false}, {5, p, true}, {9, place{p.File, 900}, true}, {10, place{p.File, 950}, false},
	} {
		st.tx, st.start = txState{}, c.at
		if err := st.beginTx(txState{gtid: gtid{maria: true, server: 1, number: c.number}}); err != nil {
			t.Fatal(err)
		}
		if st.tx.skip != c.skip {
			t.Errorf("0-1-%d at %s: passed over is %t, want %t", c.number, c.at, st.tx.skip, c.skip)
		}
	}
}
