// Package publish carries one source to one sink, exactly once.
//
// A [Publisher] joins a capture.Source, an [Encoder], a [Sink] and a checkpoint.Loader.
// [Publisher.Run] is the whole path of a change and the only way to start or to recover:
//
//	Fence → Load → claim → Verify → ┬ Stream → Encode ─┐ goroutine of the source
//	                                │                  ▼
//	                                │     queue, bounded in bytes
//	                                │                  ▼
//	                                └ Produce → Commit → Acknowledge, goroutine of the sink
//
// Records and the checkpoint that covers them are committed in one [Tx], so after any
// accident the last visible checkpoint says exactly what is visible. Any error ends Run
// with Sink.Discard; the caller waits a moment and calls Run again. A few errors are
// answers and not accidents, and stop the pipeline: [ErrSuperseded], [ErrRefused],
// [ErrConfigChanged], checkpoint.ErrUnusable, and those of package capture.
//
// # Where a transaction ends
//
// It begins with the first batch after the last one ended. The batch is the unit: at the
// end of a batch that is a commit boundary of the source, the transaction is committed
// once it is large enough, old enough, or the source has fallen silent. A source
// transaction that outgrows the limits is cut; the checkpoint then points inside it, and
// a resume skips the part that is published. A stop commits at a boundary and gives up
// elsewhere. The commit itself is never cancelled by a stop. Sources help by ending a
// batch at a commit when one is near.
//
// DESIGN.md holds the rules, the states and the fault table. Package publish/kafka is the
// sink on Kafka; publish/publishtest has one in memory that fails when told to.
package publish
