package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headwaterdb/headwater/capture"
)

// A publication is what pg_publication says about ours.
type publication struct {
	AllTables bool
	// ViaRoot: rows of partitions are published as rows of their root.
	ViaRoot bool
	// Operations that are published.
	Insert, Update, Delete, Truncate bool
	// Generated says that stored generated columns are published (PostgreSQL 18).
	Generated bool
}

// readPublication returns nil when there is none.
func (s *Source) readPublication(ctx context.Context, conn *pgconn.PgConn, srv *server) (*publication, error) {
	generated := "false"
	if srv.major() >= 18 {
		generated = "pubgencols = 's'"
	}
	rows, err := query(ctx, conn, `SELECT puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate, `+generated+
		` FROM pg_publication WHERE pubname = `+quoteLiteral(s.cfg.Publication))
	if err != nil {
		return nil, fmt.Errorf("read publication %q: %w", s.cfg.Publication, err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	r := rows[0]
	is := func(i int) bool { return r[i] == "t" }
	return &publication{is(0), is(1), is(2), is(3), is(4), is(5), is(6)}, nil
}

// A tableInfo is a table of the database as the catalog shows it.
type tableInfo struct {
	ID        capture.TableID
	OID       string
	Kind      string // "r" or "p", a partitioned table
	Identity  string // replica identity: d, n, f, i
	Rows      int64  // the planner's estimate, -1 when it has none
	Ancestors []capture.TableID
	// Published says that the server sends rows under this name, Member that the table
	// itself was added: a partitioned table can be one without the other.
	Published, Member bool
	// Readable says that the user may read it.
	Readable, Owned bool
	Columns         []string // published columns, nil where the server does not list them
	Filter          string   // row filter, "" when there is none
}

// readTables lists the database's permanent tables, ordered by their ids.
func (s *Source) readTables(ctx context.Context, conn *pgconn.PgConn, srv *server) ([]tableInfo, error) {
	lists := "NULL, NULL"
	if srv.major() >= 15 {
		// A JSON list: names may hold any character.
		lists = "array_to_json(p.attnames)::text, p.rowfilter"
	}
	rows, err := query(ctx, conn, `SELECT n.nspname, c.relname, c.oid, c.relkind, c.relreplident, c.reltuples::bigint,
			(SELECT coalesce(json_agg(json_build_array(an.nspname, ac.relname)), '[]')::text FROM pg_partition_ancestors(c.oid) a
				JOIN pg_class ac ON ac.oid = a.relid JOIN pg_namespace an ON an.oid = ac.relnamespace WHERE a.relid <> c.oid AND c.relispartition),
			p.tablename IS NOT NULL, has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'),
			pg_has_role(c.relowner, 'USAGE'), `+lists+`,
			EXISTS (SELECT FROM pg_publication_rel m JOIN pg_publication mp ON mp.oid = m.prpubid
				WHERE m.prrelid = c.oid AND mp.pubname = `+quoteLiteral(s.cfg.Publication)+`)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN pg_publication_tables p ON p.pubname = `+quoteLiteral(s.cfg.Publication)+` AND p.schemaname = n.nspname AND p.tablename = c.relname
		WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`)
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	out := make([]tableInfo, 0, len(rows))
	for _, r := range rows {
		t := tableInfo{
			ID: capture.TableID{Schema: r[0], Name: r[1]}, OID: r[2], Kind: r[3], Identity: r[4],
			Published: r[7] == "t", Readable: r[8] == "t", Owned: r[9] == "t", Filter: r[11], Member: r[12] == "t",
		}
		if t.Rows, err = strconv.ParseInt(r[5], 10, 64); err != nil {
			return nil, fmt.Errorf("list the tables: %w", err)
		}
		var ancestors [][2]string
		if err := parseJSON(r[6], &ancestors); err != nil {
			return nil, fmt.Errorf("list the tables: %w", err)
		}
		for _, a := range ancestors {
			t.Ancestors = append(t.Ancestors, capture.TableID{Schema: a[0], Name: a[1]})
		}
		if err := parseJSON(r[10], &t.Columns); err != nil {
			return nil, fmt.Errorf("list the tables: %w", err)
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b tableInfo) int { return a.ID.Compare(b.ID) })
	return out, nil
}

// captured picks the tables whose rows are captured: those under whose name the server
// sends rows, which are the leaves of partitioned tables unless the publication
// publishes by way of the root.
func (s *Source) captured(tables []tableInfo) []tableInfo {
	var out []tableInfo
	for _, t := range tables {
		if t.Published && s.filter.Selects(t.ID, t.Ancestors...) {
			out = append(out, t)
		}
	}
	return out
}

// unpublished picks the tables that have to be added to the publication: those that
// the configuration selects and that it lacks. A partitioned table brings its
// partitions, also those that are attached later.
func (s *Source) unpublished(tables []tableInfo) []tableInfo {
	// Partitioned tables that are published in part or whole, and those to be added.
	present := make(map[capture.TableID]bool)
	for i := range tables {
		t := &tables[i]
		if t.Member || t.Published {
			present[t.ID] = true
			for _, a := range t.Ancestors {
				present[a] = true
			}
		}
	}
	whole := make(map[capture.TableID]bool)
	for i := range tables {
		t := &tables[i]
		whole[t.ID] = t.Kind == "p" && (t.Member || t.Published || !present[t.ID] && s.filter.Selects(t.ID, t.Ancestors...))
	}
	var out []tableInfo
	for _, t := range tables {
		inWhole := slices.ContainsFunc(t.Ancestors, func(a capture.TableID) bool { return whole[a] })
		if s.filter.Selects(t.ID, t.Ancestors...) && !present[t.ID] && !inWhole {
			out = append(out, t)
		}
	}
	return out
}

// ensurePublication creates the publication, or adds to it, as the configuration
// allows. A publication must be older than the slot: what the slot sends is decided by
// the publication as it was when the row was written.
func (s *Source) ensurePublication(ctx context.Context, conn *pgconn.PgConn, srv *server) error {
	pub, err := s.readPublication(ctx, conn, srv)
	if err != nil {
		return err
	}
	sql, err := s.publicationSQL(ctx, conn, srv, pub)
	if err != nil || sql == "" {
		return err
	}
	if s.cfg.PublicationMode == PublicationExisting || srv.InRecovery {
		if pub != nil {
			s.log.Warn("the publication lacks tables that are to be captured, and nothing comes of them", "publication", s.cfg.Publication, "remedy", sql)
			return nil
		}
		// PostgreSQL 18 would stream nothing, silently.
		return fmt.Errorf("%w: there is no publication %q; remedy: %s", capture.ErrMisconfigured, s.cfg.Publication, sql)
	}
	err = s.blockable(ctx, conn, "changing the publication", func(ctx context.Context) error {
		_, err := query(ctx, conn, sql)
		return err
	})
	var pg *pgconn.PgError
	switch {
	case err == nil:
	case errors.As(err, &pg) && pg.Code == "42501": // insufficient_privilege
		return fmt.Errorf("%w: the user may not publish the tables (%w); remedy: let a superuser run: %s", capture.ErrMisconfigured, err, sql)
	default:
		return fmt.Errorf("change publication %q: %w", s.cfg.Publication, err)
	}
	s.log.Info("changed the publication", "publication", s.cfg.Publication, "sql", sql)
	return nil
}

// publicationSQL is what makes the publication fit the configuration, "" when it does.
func (s *Source) publicationSQL(ctx context.Context, conn *pgconn.PgConn, srv *server, pub *publication) (string, error) {
	name := quoteIdent(s.cfg.Publication)
	if pub == nil && s.cfg.PublicationMode == PublicationAll {
		return "CREATE PUBLICATION " + name + " FOR ALL TABLES", nil
	}
	if pub != nil && pub.AllTables {
		return "", nil
	}
	tables, err := s.readTables(ctx, conn, srv)
	if err != nil {
		return "", err
	}
	var names []string
	for _, t := range s.unpublished(tables) {
		only := "ONLY "
		if t.Kind == "p" {
			only = ""
		}
		names = append(names, only+quoteTable(t.ID))
	}
	list := strings.Join(names, ", ")
	switch {
	case pub == nil && len(names) == 0:
		return "CREATE PUBLICATION " + name, nil
	case pub == nil:
		return "CREATE PUBLICATION " + name + " FOR TABLE " + list, nil
	case len(names) == 0:
		return "", nil
	}
	return "ALTER PUBLICATION " + name + " ADD TABLE " + list, nil
}
