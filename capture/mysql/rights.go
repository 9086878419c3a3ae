package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/headwaterdb/headwater/capture"
)

// A server hides what a user may not use: information_schema has neither the tables nor their
// databases. So what the user may read is tried, which also counts roles and what is granted by
// patterns, and which a server refuses before it looks whether there is such a table.

// mayRead says whether the user may read all columns of a table, if there is one.
func mayRead(ctx context.Context, c *conn, id capture.TableID) (bool, error) {
	err := c.exec(ctx, "SELECT * FROM "+quoteTable(id)+" LIMIT 0")
	var my *mysql.MyError
	if err == nil || !errors.As(err, &my) {
		return err == nil, err
	}
	switch my.Code {
	case mysql.ER_TABLEACCESS_DENIED_ERROR, mysql.ER_COLUMNACCESS_DENIED_ERROR, mysql.ER_DBACCESS_DENIED_ERROR:
		return false, nil
	}
	return true, nil // what else is wrong, whoever reads the table will say
}

// nobody is a name that no table has.
const nobody = "headwater: may all be read here?"

// mayReadAll says whether the user may read all tables of a database, also those to come.
func mayReadAll(ctx context.Context, c *conn, database string) (bool, error) {
	return mayRead(ctx, c, capture.TableID{Schema: database, Name: nobody})
}

// mayReadAny says whether the user may read anything.
func mayReadAny(ctx context.Context, c *conn) (bool, error) {
	rows, err := c.query(ctx, "SHOW GRANTS")
	if err != nil {
		return false, fmt.Errorf("list the user's rights: %w", err)
	}
	for _, r := range rows {
		rights, _, on := strings.Cut(r[0], " ON ")
		if on && strings.HasPrefix(rights, "GRANT ") && (strings.Contains(rights, "SELECT") || strings.Contains(rights, "ALL PRIVILEGES")) {
			return true, nil
		}
	}
	return false, nil
}

// grantee is the user as GRANT wants it.
func grantee(ctx context.Context, c *conn) (string, error) {
	row, err := c.queryRow(ctx, "SELECT CURRENT_USER()")
	if err != nil {
		return "", fmt.Errorf("ask for the user's name: %w", err)
	}
	at := max(strings.LastIndex(row[0], "@"), 0)
	return "'" + row[0][:at] + "'@'" + strings.TrimPrefix(row[0][at:], "@") + "'", nil
}

// mustRead is what to say of a table that the user may not read.
func mustRead(ctx context.Context, c *conn, id capture.TableID) error {
	user, err := grantee(ctx, c)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: the user must not read %s, whose definition is needed; remedy: GRANT SELECT ON %s TO %s", capture.ErrMisconfigured, id, quoteTable(id), user)
}

// A survey is what the configuration selects, as far as the user can see it.
type survey struct {
	tables []tableInfo // that are captured and may be read, ascending
	// faults are tables that are captured and may not be read; warnings are what may have been
	// meant otherwise.
	faults, warnings []*capture.Finding
}

// survey compares what is configured with what there is and what the user may read.
func (s *Source) survey(ctx context.Context, c *conn) (*survey, error) {
	all, err := listTables(ctx, c)
	if err != nil {
		return nil, err
	}
	user, err := grantee(ctx, c)
	if err != nil {
		return nil, err
	}
	out := &survey{}
	whole := make(map[string]bool)
	readsAll := func(database string) (bool, error) {
		may, known := whole[database]
		if known {
			return may, nil
		}
		may, err := mayReadAll(ctx, c, database)
		if err == nil {
			whole[database] = may
		}
		return may, err
	}
	ids := make([]capture.TableID, len(all))
	names := make([]string, len(all))
	var denied, grants []string
	for i, t := range all {
		ids[i], names[i] = t.ID, t.ID.String()
		if !s.captures(t.ID) {
			continue
		}
		may, err := readsAll(t.ID.Schema)
		if err == nil && !may {
			may, err = mayRead(ctx, c, t.ID)
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("try to read %s: %w", t.ID, err)
		case may:
			out.tables = append(out.tables, t)
		default:
			denied = append(denied, names[i])
			grants = append(grants, "GRANT SELECT ON "+quoteTable(t.ID)+" TO "+user)
		}
	}
	if len(denied) > 0 {
		out.fault(strings.Join(grants, "; "), "the user must not read %s, whose definitions and rows are needed", some(denied))
	}

	there := "and the user can see none at all"
	if len(names) > 0 {
		there = "and those that the user can see are " + some(names)
	}
	globs, hits := s.cfg.Tables.Include, s.filter.Included(ids)
	if len(globs) == 0 {
		globs, hits = []string{"*.*"}, []bool{len(all) > 0}
	}
	for i, glob := range globs {
		if err := out.look(ctx, c, glob, hits[i], user, there, readsAll); err != nil {
			return nil, err
		}
	}
	if len(out.tables)+len(out.faults) == 0 {
		out.warn("", "no table is captured")
	}
	return out, nil
}

// look says what the user may not read of what a glob selects, and where that cannot be told.
func (o *survey) look(ctx context.Context, c *conn, glob string, hit bool, user, there string, readsAll func(database string) (bool, error)) (err error) {
	const wild = "*?"
	database, table, _ := strings.Cut(glob, ".")
	may, on, instead := true, quoteIdent(database)+".*", ""
	switch {
	case ownDatabase(database):
	case strings.ContainsAny(database, wild):
		if on, instead = "database.*", ", for each database that is meant"; !hit {
			may, err = mayReadAny(ctx, c)
		}
	case strings.ContainsAny(table, wild):
		may, err = readsAll(database)
	case !hit:
		id := capture.TableID{Schema: database, Name: table}
		on, instead = quoteTable(id), ", or take it out of tables.include as long as there is no such table"
		may, err = mayRead(ctx, c, id)
	}
	grant := "GRANT SELECT ON " + on + " TO " + user + instead
	switch {
	case err != nil:
		return fmt.Errorf("try to read %s: %w", glob, err)
	case !may && !hit:
		o.fault(grant, "the user must not read %s, which is to be captured, and does not even see whether it is there", glob)
	case !may:
		o.warn(grant, "the user may read some tables of %s, and does not see whether there are others: should one of them be captured, its rows are not read from the table, and the pipeline stops when the log has some", glob)
	case !hit:
		o.warn("", "tables.include: %q matches no table, %s", glob, there)
	}
	return nil
}

func (o *survey) fault(remedy, format string, args ...any) {
	o.faults = append(o.faults, &capture.Finding{What: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (o *survey) warn(remedy, format string, args ...any) {
	o.warnings = append(o.warnings, &capture.Finding{What: fmt.Sprintf(format, args...), Remedy: remedy, Warning: true})
}
