// Package snapshot merges the rows that tables hold already into the change log, so
// that whoever reads a topic from its beginning ends with the table.
//
// [New] wraps a log in a [Source] that is a capture.Source itself: nothing further down
// learns that a snapshot happened. A [Scanner], which the database's reader implements,
// reads the tables; its [View] is one consistent read.
//
//	log      ──▶ batches ──────────▶ ┌───────┐
//	                                 │ merge │ ──▶ emit: log batches, and at marks
//	Scanner  ──▶ chunks, one ahead ▶ └───────┘       the rows of a chunk with a Commit
//
// Rows are read in chunks while the log goes on. No signal table is written and no table
// is locked against writers. Rules that hold (DESIGN.md has the reasons and the proof):
//
//   - Every change of the log passes once, in order. Only changes of a table without a
//     key are left out until its rows are read, because those rows hold them.
//   - A row that is emitted is the row as the log has it at that very place. So the last
//     record of a key always says what the table says.
//   - A key has at most one Read in an attempt. The checkpoint's entries s/<table> say
//     how far an attempt is; after a crash it goes on there.
//   - Memory is bounded: three chunks, and the keys that change while two are read.
//
// Once all tables are read, batches pass untouched.
package snapshot
