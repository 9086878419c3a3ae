package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/jackc/pgx/v5"

	"github.com/headwaterdb/headwater/integration/servers"
)

// A demoDatabase is the running server that the shop writes to.
type demoDatabase struct {
	version string
	addr    string
	schema  string   // of the shop's tables, as topics name it
	source  string   // what the configuration has in its section source
	prepare []string // statements before the tables are made
	analyze []string // statements once they are filled
	connect func(context.Context) (demoConn, error)
	close   func() error // ends the server and removes its data
}

// A demoConn is a connection to it. One goroutine uses it.
type demoConn interface {
	// exec returns how many rows the statement changed.
	exec(ctx context.Context, statement string) (rows int64, err error)
	// query calls row with each row, which is a text and a number.
	query(ctx context.Context, statement string, row func(string, int64)) error
	close()
}

// A demoProduct is a kind of database that the demo can start.
type demoProduct struct {
	name   string
	source string // the value of --source
	// start returns a database that wants to be closed even with an error, unless it is nil.
	start func(context.Context) (*demoDatabase, error)
}

var demoProducts = []demoProduct{
	{"PostgreSQL", "postgres", startDemoPostgres},
	{"MySQL", "mysql", func(ctx context.Context) (*demoDatabase, error) {
		return startDemoMySQL(ctx, servers.StartMySQL)
	}},
	{"MariaDB", "mariadb", func(ctx context.Context) (*demoDatabase, error) {
		return startDemoMySQL(ctx, servers.StartMariaDB)
	}},
}

func startDemoPostgres(ctx context.Context) (*demoDatabase, error) {
	server, err := servers.StartPostgres(ctx, servers.PostgresConfig{})
	if err != nil {
		return nil, err
	}
	url := server.URL("postgres")
	d := &demoDatabase{
		addr: fmt.Sprintf("127.0.0.1:%d", server.Port), schema: "public", analyze: []string{"ANALYZE"}, close: server.Close,
		source: fmt.Sprintf("postgres: {url: %q, heartbeat_interval: 500ms}", url),
		connect: func(ctx context.Context) (demoConn, error) {
			conn, err := pgx.Connect(ctx, url)
			return demoPostgres{conn}, err
		},
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return d, fmt.Errorf("ask PostgreSQL for its version: %w", err)
	}
	d.version, _, _ = strings.Cut(conn.PgConn().ParameterStatus("server_version"), " ")
	return d, conn.Close(ctx)
}

func startDemoMySQL(ctx context.Context, start func(context.Context, servers.MySQLConfig) (*servers.MySQL, error)) (*demoDatabase, error) {
	// With this isolation clerks do not wait for the gaps between each other's orders.
	server, err := start(ctx, servers.MySQLConfig{Settings: map[string]string{"transaction_isolation": "READ-COMMITTED"}})
	if err != nil {
		return nil, err
	}
	return &demoDatabase{
		version: server.Version, addr: server.Addr(), schema: "shop", close: server.Close,
		source:  fmt.Sprintf("mysql: {url: %q, heartbeat_interval: 500ms}", server.URL("")),
		prepare: []string{"CREATE DATABASE shop", "USE shop"},
		analyze: []string{"ANALYZE TABLE customers, orders, order_lines"},
		connect: func(ctx context.Context) (demoConn, error) {
			conn, err := server.Connect(ctx, "")
			if err != nil {
				return nil, err
			}
			_ = conn.UseDB("shop") // fails before it is made
			return demoMySQL{conn}, nil
		},
	}, nil
}

type demoPostgres struct{ *pgx.Conn }

func (c demoPostgres) exec(ctx context.Context, statement string) (int64, error) {
	tag, err := c.Exec(ctx, statement)
	return tag.RowsAffected(), err
}

func (c demoPostgres) query(ctx context.Context, statement string, row func(string, int64)) error {
	rows, err := c.Query(ctx, statement)
	if err != nil {
		return err
	}
	var text string
	var number int64
	_, err = pgx.ForEachRow(rows, []any{&text, &number}, func() error { row(text, number); return nil })
	return err
}

func (c demoPostgres) close() { _ = c.Close(context.Background()) } // what was asked of it is done

type demoMySQL struct{ *client.Conn }

func (c demoMySQL) exec(ctx context.Context, statement string) (int64, error) {
	if err := ctx.Err(); err != nil { // the client takes no context
		return 0, err
	}
	r, err := c.Execute(statement)
	if err != nil {
		return 0, err
	}
	return int64(r.AffectedRows), nil
}

func (c demoMySQL) query(ctx context.Context, statement string, row func(string, int64)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := c.Execute(statement)
	if err != nil {
		return err
	}
	for i := range r.RowNumber() {
		text, err := r.GetString(i, 0)
		if err != nil {
			return err
		}
		number, err := r.GetInt(i, 1)
		if err != nil {
			return err
		}
		row(text, number)
	}
	return nil
}

func (c demoMySQL) close() { _ = c.Quit() }
