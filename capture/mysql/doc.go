// Package mysql reads the binary log of a MySQL (8.0 and newer) or MariaDB (10.6 and
// newer) server as a replica does, and reads the rows that its tables already hold.
// DESIGN.md beside this file tells how, and why so.
//
// [Source] is the [capture.Source]; [Source.Scanner] gives the snapshot.Scanner that goes
// with it; [Config] says which server and tables.
//
//	src := mysql.New(cfg, logger, registry)
//	scanner := src.Scanner() // before Stream; leave it out to read no tables
//
// Start reading at [Source.Stream] in stream.go: it finds the place to start at, and then
// takes one event after the other:
//
//	socket ─ run ─ event ─ dispatch ┬ mysqlBegin, mariaBegin: GTIDs  ┐
//	                                ├ tableMap  catalog.go: tables   │
//	                                ├ rowsEvent decode.go: rows      ├─ *capture.Batch ─ flush ─ emit
//	                                ├ query     statement.go, xa.go  │
//	                                └ commit                         ┘
//
// # Rules that always hold
//
//   - A position is the end of a commit: the set of GTIDs that are behind us, or a place
//     in a file where the server has none. It is never the middle of a transaction.
//   - A transaction that was cut is read again from its start, and the part that was
//     emitted is counted in rows and compared by checksum before it is skipped (rules R5,
//     R6 and R19 of publish/DESIGN.md).
//   - A connection that broke is never mended: Stream ends, and begins again at the
//     position (R20).
//   - What decides how values print is pinned on every session (R27).
//   - A row is decoded by what the log itself says about its table. What the log holds and
//     we do not know ends the stream.
//   - Nothing is written to the server, and no table is locked unless snapshot_lock says so.
package mysql
