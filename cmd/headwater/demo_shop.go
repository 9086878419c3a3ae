package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// demoSchema makes the shop's tables, in every database's dialect. Every insert and update
// gives its row a new revision, so that table, key and revision name a change. Keys and
// revisions are the shop's to give: not every database returns those that it has made.
var demoSchema = []string{
	`CREATE TABLE customers (
	  id bigint PRIMARY KEY, name varchar(40) NOT NULL, city varchar(40) NOT NULL, revision bigint NOT NULL)`,
	`CREATE TABLE orders (
	  id bigint PRIMARY KEY, customer_id bigint NOT NULL, status varchar(10) NOT NULL, total decimal(10,2) NOT NULL,
	  revision bigint NOT NULL, FOREIGN KEY (customer_id) REFERENCES customers (id))`,
	`CREATE TABLE order_lines (
	  order_id bigint NOT NULL, line int NOT NULL, item varchar(40) NOT NULL, qty int NOT NULL, price decimal(8,2) NOT NULL,
	  revision bigint NOT NULL, PRIMARY KEY (order_id, line), FOREIGN KEY (order_id) REFERENCES orders (id))`,
}

// A demoTable is a table's key and what of it is shown.
type demoTable struct{ key, columns []string }

var demoShape = map[string]demoTable{
	"customers":   {[]string{"id"}, []string{"id", "name", "city"}},
	"orders":      {[]string{"id"}, []string{"id", "customer_id", "status", "total"}},
	"order_lines": {[]string{"order_id", "line"}, []string{"order_id", "line", "item", "qty", "price"}},
}

var (
	demoNames  = []string{"Ada", "Björn", "Chiara", "Dmitri", "Esra", "Femke", "Goran", "Hélène", "Ivo", "Jun", "Kofi"}
	demoCities = []string{"Utrecht", "Malmö", "Torino", "Izmir", "Gent", "Kyoto", "Accra"}
	demoItems  = []string{"teapot", "lantern", "notebook", "scarf", "compass", "kettle", "umbrella"}
	demoStates = []string{"new", "paid", "packed", "shipped"}
)

// A demoChange is one row change as the shop's own record has it. A change of a row's
// key is two: the delete of the old key and the insert of the new one.
type demoChange struct {
	table, key string
	op         byte  // 'c', 'u' or 'd', as the envelope has them
	revision   int64 // 0 for a delete
}

// A demoShop is the workload: a few clerks, each with a connection and orders and
// customers of its own, so that the record of each has the changes of a row in order.
type demoShop struct {
	db     *demoDatabase
	clerks []*demoClerk

	customers, orders atomic.Int64 // the last ids
	revisions         atomic.Int64

	mu      sync.Mutex
	commits map[demoChange]time.Time
}

// openDemoShop makes the tables and fills them: customers with eight orders of three lines
// each.
func openDemoShop(ctx context.Context, db *demoDatabase, customers, clerks int) (*demoShop, error) {
	conn, err := db.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the shop: %w", err)
	}
	defer conn.close()
	for _, statement := range append(slices.Clone(db.prepare), demoSchema...) {
		if _, err := conn.exec(ctx, statement); err != nil {
			return nil, fmt.Errorf("make the shop's tables: %w", err)
		}
	}
	s := &demoShop{db: db, commits: map[demoChange]time.Time{}}
	var people, orders, lines []string
	for range customers {
		id := s.customers.Add(1)
		people = append(people, demoValues(id, demoNames[id%int64(len(demoNames))], demoCities[id/7%int64(len(demoCities))], s.revisions.Add(1)))
	}
	for range 8 * customers {
		id := s.orders.Add(1)
		price := 125 + 100*(id%40)
		orders = append(orders, demoValues(id, 1+id%int64(customers), "shipped", demoMoney(3*price), s.revisions.Add(1)))
		for line := range int64(3) {
			lines = append(lines, demoValues(id, 1+line, demoItems[(id+line)%int64(len(demoItems))], 1, demoMoney(price), s.revisions.Add(1)))
		}
	}
	load := append([]string{
		"INSERT INTO customers VALUES " + strings.Join(people, ", "),
		"INSERT INTO orders VALUES " + strings.Join(orders, ", "),
		"INSERT INTO order_lines VALUES " + strings.Join(lines, ", "),
	}, db.analyze...)
	for _, statement := range load {
		if _, err := conn.exec(ctx, statement); err != nil {
			return nil, fmt.Errorf("fill the shop's tables: %w", err)
		}
	}
	for i := range clerks {
		c := &demoClerk{shop: s, rnd: rand.New(rand.NewPCG(rand.Uint64(), uint64(i)))}
		for id := int64(i + 1); id <= int64(customers); id += int64(clerks) {
			c.customers = append(c.customers, id)
		}
		for id := int64(i + 1); id <= int64(8*customers); id += int64(clerks) {
			c.orders = append(c.orders, &demoOrder{id: id, status: len(demoStates) - 1, lines: []int{1, 2, 3}, next: 4})
		}
		s.clerks = append(s.clerks, c)
	}
	return s, nil
}

// demoValues is a row of VALUES. All text is ours, and free of quotes.
func demoValues(values ...any) string {
	text := make([]string, len(values))
	for i, v := range values {
		text[i] = demoLiteral(v)
	}
	return "(" + strings.Join(text, ", ") + ")"
}

func demoLiteral(v any) string {
	if s, ok := v.(string); ok {
		return "'" + s + "'"
	}
	return fmt.Sprint(v)
}

// demoMoney is a decimal of so many cents.
func demoMoney(cents int64) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }

// work lets the clerks work until ctx ends.
func (s *demoShop) work(ctx context.Context) error {
	errs := make([]error, len(s.clerks))
	var wg sync.WaitGroup
	for i, c := range s.clerks {
		wg.Go(func() { errs[i] = c.work(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// last makes one more change, when nobody works any more: once it is visible, everything
// is. Before it is committed, expect is told what to look for.
func (s *demoShop) last(ctx context.Context, expect func(demoChange)) error {
	c := s.clerks[0]
	return c.open(ctx, func() error {
		return c.transact(ctx, func() (func(), error) {
			remember, err := c.welcome(ctx)
			expect(c.pending[0])
			return remember, err
		})
	})
}

// made is every change that was committed, those of one row in order. Nobody may be
// working.
func (s *demoShop) made() (all []demoChange) {
	for _, c := range s.clerks {
		all = append(all, c.made...)
	}
	return all
}

// committed is when the commit of a change began, by the clock of this process: not every
// log has the moment in fractions of a second.
func (s *demoShop) committed(c demoChange) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits[c]
}

func (s *demoShop) commit(changes []demoChange) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		s.commits[c] = now
	}
}

// A demoOrder is an order as its clerk remembers it.
type demoOrder struct {
	id     int64
	status int
	lines  []int
	next   int // line number
}

// A demoClerk works on one connection.
type demoClerk struct {
	shop      *demoShop
	rnd       *rand.Rand
	customers []int64
	orders    []*demoOrder

	conn    demoConn
	pending []demoChange // of the open transaction
	made    []demoChange
}

// open calls f with a connection.
func (c *demoClerk) open(ctx context.Context, f func() error) (err error) {
	if c.conn, err = c.shop.db.connect(ctx); err != nil {
		return fmt.Errorf("the shop connects: %w", err)
	}
	defer c.conn.close()
	if err := f(); err != nil {
		return fmt.Errorf("the shop works: %w", err)
	}
	return nil
}

func (c *demoClerk) work(ctx context.Context) error {
	// The last transaction is not cut short: whether it was committed must be known.
	whole := context.WithoutCancel(ctx)
	return c.open(whole, func() error {
		for ctx.Err() == nil {
			if err := c.transact(whole, func() (func(), error) { return c.business(whole) }); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(5+c.rnd.IntN(20)) * time.Millisecond):
			}
		}
		return nil
	})
}

// errDemoRegret rolls a transaction back.
var errDemoRegret = errors.New("regret")

// transact does business in a transaction, notes what it changed, and calls what business
// returns, once it is committed.
func (c *demoClerk) transact(ctx context.Context, business func() (func(), error)) error {
	if _, err := c.conn.exec(ctx, "BEGIN"); err != nil {
		return err
	}
	c.pending = c.pending[:0]
	remember, err := business()
	if errors.Is(err, errDemoRegret) {
		_, err = c.conn.exec(ctx, "ROLLBACK")
		return err
	}
	if err != nil {
		return err // the connection is given up, and the transaction with it
	}
	c.shop.commit(c.pending)
	if _, err := c.conn.exec(ctx, "COMMIT"); err != nil {
		return err
	}
	remember()
	c.made = append(c.made, c.pending...)
	return nil
}

// business is one piece of it.
func (c *demoClerk) business(ctx context.Context) (remember func(), err error) {
	regret := c.rnd.IntN(25) == 0
	switch n := c.rnd.IntN(100); {
	case n < 35:
		remember, err = c.place(ctx)
	case n < 62:
		remember, err = c.advance(ctx)
	case n < 76:
		remember, err = func() {}, c.adjust(ctx)
	case n < 84:
		remember, err = c.renumber(ctx)
	case n < 94:
		remember, err = c.cancel(ctx)
	case n < 98:
		remember, err = func() {}, c.move(ctx)
	default:
		remember, err = c.welcome(ctx)
	}
	if err == nil && regret {
		err = errDemoRegret
	}
	return remember, err
}

// note notes a change that the transaction makes, and returns its revision.
func (c *demoClerk) note(table string, op byte, key ...any) int64 {
	ch := demoChange{table: table, op: op, key: demoKey(key...)}
	if op != 'd' {
		ch.revision = c.shop.revisions.Add(1)
	}
	c.pending = append(c.pending, ch)
	return ch.revision
}

// demoKey is the columns of a key as one text.
func demoKey(columns ...any) string {
	return strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintln(columns...), " ", "/"), "\n")
}

// do runs a statement, which must change that many rows. %s stands for a value: databases
// differ in how they write a parameter.
func (c *demoClerk) do(ctx context.Context, rows int64, statement string, values ...any) error {
	text := make([]any, len(values))
	for i, v := range values {
		text[i] = demoLiteral(v)
	}
	statement = fmt.Sprintf(statement, text...)
	n, err := c.conn.exec(ctx, statement)
	if err == nil && n != rows {
		err = fmt.Errorf("%s: it changed %d rows, want %d", statement, n, rows)
	}
	return err
}

// place is a new order: one row and its lines.
func (c *demoClerk) place(ctx context.Context) (func(), error) {
	o := &demoOrder{id: c.shop.orders.Add(1), next: 1}
	n := 1 + c.rnd.IntN(4)
	price := 100 + c.rnd.Int64N(5000)
	err := c.do(ctx, 1, "INSERT INTO orders VALUES (%s, %s, %s, %s, %s)",
		o.id, c.customers[c.rnd.IntN(len(c.customers))], demoStates[0], demoMoney(int64(n)*price), c.note("orders", 'c', o.id))
	for range n {
		err = errors.Join(err, c.do(ctx, 1, "INSERT INTO order_lines VALUES (%s, %s, %s, 1, %s, %s)",
			o.id, o.next, demoItems[c.rnd.IntN(len(demoItems))], demoMoney(price), c.note("order_lines", 'c', o.id, o.next)))
		o.lines = append(o.lines, o.next)
		o.next++
	}
	return func() { c.orders = append(c.orders, o) }, err
}

// advance is an order's next status.
func (c *demoClerk) advance(ctx context.Context) (func(), error) {
	o := c.order()
	next := (o.status + 1) % len(demoStates)
	err := c.do(ctx, 1, "UPDATE orders SET status = %s, revision = %s WHERE id = %s", demoStates[next], c.note("orders", 'u', o.id), o.id)
	return func() { o.status = next }, err
}

// adjust is another quantity in a line, or in two.
func (c *demoClerk) adjust(ctx context.Context) error {
	o := c.order()
	if len(o.lines) > 1 && c.rnd.IntN(4) == 0 {
		a, b := o.lines[0], o.lines[1]
		return c.do(ctx, 2, "UPDATE order_lines SET qty = qty + 1, revision = CASE line WHEN %s THEN %s ELSE %s END WHERE order_id = %s AND line IN (%s, %s)",
			a, c.note("order_lines", 'u', o.id, a), c.note("order_lines", 'u', o.id, b), o.id, a, b)
	}
	line := o.lines[c.rnd.IntN(len(o.lines))]
	return c.do(ctx, 1, "UPDATE order_lines SET qty = %s, revision = %s WHERE order_id = %s AND line = %s",
		1+c.rnd.IntN(9), c.note("order_lines", 'u', o.id, line), o.id, line)
}

// renumber gives a line another number, which is a part of its key.
func (c *demoClerk) renumber(ctx context.Context) (func(), error) {
	o := c.order()
	i := c.rnd.IntN(len(o.lines))
	c.note("order_lines", 'd', o.id, o.lines[i])
	err := c.do(ctx, 1, "UPDATE order_lines SET line = %s, revision = %s WHERE order_id = %s AND line = %s",
		o.next, c.note("order_lines", 'c', o.id, o.next), o.id, o.lines[i])
	return func() { o.lines[i] = o.next; o.next++ }, err
}

// cancel takes an order back, and its lines.
func (c *demoClerk) cancel(ctx context.Context) (func(), error) {
	i := c.rnd.IntN(len(c.orders))
	o := c.orders[i]
	for _, line := range o.lines {
		c.note("order_lines", 'd', o.id, line)
	}
	c.note("orders", 'd', o.id)
	err := errors.Join(
		c.do(ctx, int64(len(o.lines)), "DELETE FROM order_lines WHERE order_id = %s", o.id),
		c.do(ctx, 1, "DELETE FROM orders WHERE id = %s", o.id),
	)
	return func() {
		last := len(c.orders) - 1
		c.orders[i] = c.orders[last]
		c.orders = c.orders[:last]
	}, err
}

// move is a customer's new address.
func (c *demoClerk) move(ctx context.Context) error {
	id := c.customers[c.rnd.IntN(len(c.customers))]
	return c.do(ctx, 1, "UPDATE customers SET city = %s, revision = %s WHERE id = %s",
		demoCities[c.rnd.IntN(len(demoCities))], c.note("customers", 'u', id), id)
}

// welcome is a new customer.
func (c *demoClerk) welcome(ctx context.Context) (func(), error) {
	id := c.shop.customers.Add(1)
	err := c.do(ctx, 1, "INSERT INTO customers VALUES (%s, %s, %s, %s)",
		id, demoNames[c.rnd.IntN(len(demoNames))], demoCities[c.rnd.IntN(len(demoCities))], c.note("customers", 'c', id))
	return func() { c.customers = append(c.customers, id) }, err
}

// order is a recent order more often than an old one.
func (c *demoClerk) order() *demoOrder {
	n := len(c.orders)
	if c.rnd.IntN(3) > 0 {
		return c.orders[n-1-c.rnd.IntN(min(n, 50))]
	}
	return c.orders[c.rnd.IntN(n)]
}

// readDemoTables takes what the tables hold: revision by key, by table.
func readDemoTables(ctx context.Context, db *demoDatabase) (map[string]map[string]int64, error) {
	conn, err := db.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the tables: %w", err)
	}
	defer conn.close()
	tables := map[string]map[string]int64{}
	for table, shape := range demoShape {
		held := map[string]int64{}
		query := fmt.Sprintf("SELECT concat_ws('/', %s), revision FROM %s", strings.Join(shape.key, ", "), table)
		if err := conn.query(ctx, query, func(key string, revision int64) { held[key] = revision }); err != nil {
			return nil, fmt.Errorf("read the table %s: %w", table, err)
		}
		tables[table] = held
	}
	return tables, nil
}
