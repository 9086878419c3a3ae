// Package checkpoint is the stored fact "everything up to this position is
// published". A [Checkpoint] is committed in the same Kafka transaction as the
// records that it covers, so the two cannot disagree; a [Loader] finds the last one.
//
// Its stored form (rules R3, R4 of publish/DESIGN.md) is JSON under the key "p" of
// the pipeline's compacted checkpoint topic, with its version first, and one record
// per [capture.Entry] under the entry's key. It can be read while the schema registry
// is away. Sub-package topic reads it back.
package checkpoint
