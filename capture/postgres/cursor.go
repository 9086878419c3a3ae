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
// pipeline: an answer is awaited when it is needed.
type cursor struct {
	pipe *pgconn.Pipeline
	open bool
	// asked are the rows of each FETCH whose answer was not read yet; unread are the
	// answers to what came before them.
	asked  []int
	unread int
}

// declare opens it anew.
func (c *cursor) declare(sql string, args [][]byte, types []uint32) {
	if c.open {
		c.pipe.SendQueryParams("CLOSE chunk", nil, nil, nil, nil)
		c.unread++
	}
	c.pipe.SendQueryParams("DECLARE chunk NO SCROLL CURSOR FOR "+sql, args, types, nil, nil)
	c.unread++
	c.open = true
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

// next returns the answer to the oldest FETCH, which asked for n rows.
func (c *cursor) next() (n int, rr *pgconn.ResultReader, err error) {
	if err := c.pipe.Flush(); err != nil {
		return 0, nil, err
	}
	for ; c.unread > 0; c.unread-- {
		if rr, err = c.result(); err == nil {
			_, err = rr.Close()
		}
		if err != nil {
			return 0, nil, err
		}
	}
	n, c.asked = c.asked[0], c.asked[1:]
	rr, err = c.result()
	return n, rr, err
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
