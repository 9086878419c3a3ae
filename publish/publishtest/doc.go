// Package publishtest is an in-memory log for tests: a [Log] is what a cluster is to
// Kafka, a [Sink] one client of it that can fail at any named step, and the Log is a
// checkpoint.Loader too. It keeps the promises of publish.Sink: a transaction's records
// and checkpoint become visible together or not at all, and a fenced client can commit
// nothing. Records are copied when they are produced and compared when the transaction
// commits, so that a caller which reuses their memory too early is found out.
package publishtest
