// Package topic reads checkpoints back from the compacted topic that package
// publish/kafka writes them to.
//
// [Loader.Load] is state READ of publish/DESIGN.md. It is called after the pipeline's
// older owners were fenced: Kafka has then finished all their transactions, so the end of
// the partition that it asks for is final, and it reads, committed records only, until it
// has passed that end. Reading less is not enough: a read-committed reader sees nothing
// behind an open transaction, whoever owns it, and would take an old checkpoint for the
// last one. For the same reason no two pipelines may share a checkpoint partition (rule
// R2).
package topic
