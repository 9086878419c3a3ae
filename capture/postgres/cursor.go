package postgres

import (
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// Rows of one FETCH, and how many of them are under way: while we decode the rows of
// one, the server reads those of the next.
const (
	fetchFirst = 16
	fetchMax   = 2048
	fetchAhead = 2
)

// A cursor is one that a view has opened, and what was asked of it. It goes through a
// pipeline: an answer is awaited when it is needed, and may be left half read.
type cursor struct {
	pipe *pgconn.Pipeline
	open bool
	// asked are the rows that each FETCH under way may still bring; unread are the
	// answers to what came before them.
	asked  []int
	unread int
	// answer is that to the first FETCH, nil while nothing of it was read; ahead says that
	// its present row was not passed.
	answer *pgconn.ResultReader
	ahead  bool
	// done says that there are no further rows.
	done bool
}

// declare opens it anew.
func (c *cursor) declare(sql string, args [][]byte, types []uint32) error {
	for len(c.asked) > 0 {
		if _, ok, err := c.row(); err != nil {
			return err
		} else if ok {
			c.pass()
		}
	}
	if c.open {
		c.pipe.SendQueryParams("CLOSE chunk", nil, nil, nil, nil)
		c.unread++
	}
	c.pipe.SendQueryParams("DECLARE chunk NO SCROLL CURSOR FOR "+sql, args, types, nil, nil)
	c.unread++
	c.open, c.done = true, false
	return nil
}

// fetch asks for the next rows.
func (c *cursor) fetch(rows int, formats []int16) {
	c.pipe.SendQueryParams("FETCH "+strconv.Itoa(rows)+" FROM chunk", nil, nil, nil, formats)
	c.pipe.SendFlushRequest()
	c.asked = append(c.asked, rows)
}

// rows are those under way.
func (c *cursor) rows() (n int) {
	for _, a := range c.asked {
		n += a
	}
	return n
}

// row returns the next row of the first FETCH under way, which stays the next one until
// pass is called, and is valid as long. ok is false where that FETCH is over.
func (c *cursor) row() (cells [][]byte, ok bool, err error) {
	if c.answer == nil {
		if err := c.next(); err != nil {
			return nil, false, err
		}
	}
	if c.ahead = c.ahead || c.answer.NextRow(); c.ahead {
		return c.answer.Values(), true, nil
	}
	_, err = c.answer.Close()
	c.done = c.done || c.asked[0] > 0
	c.answer, c.asked = nil, c.asked[1:]
	return nil, false, err
}

// pass goes on behind the row that row returned.
func (c *cursor) pass() {
	c.ahead = false
	c.asked[0]--
}

// next begins to read the answer to the first FETCH.
func (c *cursor) next() (err error) {
	if err := c.pipe.Flush(); err != nil {
		return err
	}
	for ; c.unread > 0; c.unread-- {
		rr, err := c.result()
		if err == nil {
			_, err = rr.Close()
		}
		if err != nil {
			return err
		}
	}
	c.answer, err = c.result()
	return err
}

func (c *cursor) result() (*pgconn.ResultReader, error) {
	r, err := c.pipe.GetResults()
	if err != nil {
		return nil, err
	}
	rr, ok := r.(*pgconn.ResultReader)
	if !ok {
		return nil, fmt.Errorf("the server answers a query with %T", r)
	}
	return rr, nil
}
