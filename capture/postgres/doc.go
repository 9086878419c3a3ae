// Package postgres reads the change log of a PostgreSQL database (13 to 18) through a
// logical replication slot and the output plugin pgoutput, and reads the rows that its
// tables already hold. DESIGN.md beside this file tells how, and why so.
//
// [Source] is the [capture.Source]; [Source.Scanner] gives the snapshot.Scanner that
// goes with it; [Config] says which database, slot, publication and tables.
//
//	src := postgres.New(cfg, logger, registry)
//	scanner := src.Scanner() // before Stream; leave it out to read no tables
//
// Start reading at [Source.Stream] in stream.go: it finds the place to start at, and
// then takes one message after the other:
//
//	socket ─ run ─ copyData ─ message ┬ beginTx ┐
//	                                  ├ relation│ catalog.go: table definitions
//	                                  ├ change  ├─ *capture.Batch ─ flush ─ emit
//	                                  └ commitTx┘ decode.go, values.go: rows
//
// # Rules that always hold
//
//   - A position is the end of a commit, or a place before which the server has nothing
//     left to send. What lies before it is skipped by comparing positions of commits,
//     never of changes: many rows share one (rule R17 of publish/DESIGN.md).
//   - A transaction that was cut is read again from its start, and the part that was
//     emitted is compared by checksum before it is skipped (R5, R6).
//   - The server is told of no other position than those of committed checkpoints, and
//     never 0 (R18). Stream does not wait for that, and it does not wait for Stream.
//   - What decides how values print is pinned on every connection (R27).
//   - No row of a table is decoded by anything but the definition that the log gave
//     for it. What the log holds and we do not know ends the stream.
//   - Nothing is written to the database but the publication and the slot, and those
//     only as the configuration allows.
package postgres
