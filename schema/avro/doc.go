// Package avro turns changes into Kafka records: Avro in the Confluent wire format,
// one envelope per change, laid out as package schema says.
//
// # One plan per table definition
//
// The first change of a table definition compiles a plan (plan.go): its record
// schemas are registered, its topic is made sure of, and everything that is the same
// for all its records becomes bytes. Each further change is appended to the batch's
// buffer column by column (row.go) without allocating. A new [capture.Table] pointer
// is a new definition and gets a plan of its own.
//
// # Reading order
//
//   - config.go: [Config], and the interfaces [Registry] and [Topics].
//   - encoder.go: [Encoder]; which records an event becomes.
//   - plan.go: the plan of a table; register.go: its record schemas at the registry.
//   - row.go, nested.go, append.go: row images, structs and arrays, Avro's primitives.
//   - source.go, message.go: the source block; messages out of the log.
//   - headers.go, keytext.go: record headers.
//   - partition.go: which partition a key belongs to, for ever.
//   - errors.go: what is said when a value cannot be carried exactly.
//
// # Rules that hold
//
//   - Nothing is dropped or nulled in silence. What a record cannot hold stops the
//     pipeline with the remedy, or leaves a record header and a [schema.Notice].
//   - Records of one key go to one partition, also after its record schema changed.
//   - Keys and values are views into [publish.Encoded.Buf], or into what it was before
//     [publish.Encoded.Reserve] moved on; both stay as they are until the batch is reused.
package avro
