// Package kafka is the sink on Kafka transactions.
//
// A [Sink] owns one transactional id, headwater.<pipeline>: getting a producer id for it
// makes every older owner unable to commit. A transaction holds data records and, last,
// the checkpoint, which goes to a compacted topic with one partition that belongs to the
// pipeline alone; so data and position become visible together or not at all. With
// delivery at-least-once the same checkpoint is written after the data was acknowledged.
//
// [Topics] makes data topics before their first record. [Config] is the whole kafka
// section of the configuration file; its [Config.Options] are what every Kafka client of
// the program is made with, so that addresses, TLS and SASL are given once.
//
// Records are written by a sender of our own, see section "Batches" of publish/DESIGN.md.
//
// Rules that always hold here (their numbers are those of publish/DESIGN.md): a failed
// record dooms its transaction (R11); a commit that returned an error has an unknown
// outcome (R10); after any error the client is thrown away (R13); topics exist before
// their first record (R15); a record that is too large is refused before it is taken
// into a batch (R16).
package kafka
