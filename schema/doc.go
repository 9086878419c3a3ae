// Package schema says what a change looks like once it is a record: names of topics,
// subjects and record schemas, the record schema of a table, and the form that each
// column type takes in it. Its output is Debezium's, byte for byte, so that a subject
// which Debezium wrote goes on without a new version.
//
// Nothing in here knows a database. All that differs between databases comes in
// through [capture.Table], [capture.Type] and [capture.Origin], or as a setting.
//
// # Reading order
//
//   - format.go: [Format], the settings; Debezium's option names and values.
//   - naming.go: [Naming], from table to topic, subject and schema name; adjust.go
//     makes names legal.
//   - type.go: [Type], the record schema as a tree (the type model of Kafka Connect,
//     which Debezium writes for), and [Form], how a value of it is written.
//   - column.go: from [capture.Type] to [Type].
//   - builder.go: [Builder], from [capture.Table] to key, row and envelope; source.go
//     and message.go hold the fixed parts.
//   - json.go: a [Type] as Avro schema text, as Confluent's converter prints it.
//   - value.go, decimal.go, text.go, float.go: what a [capture.Value] becomes.
//   - defaults.go: column defaults, and what stands for a value the log left out.
//   - registered.go: what a registered record schema says about nullability.
//   - errors.go, notice.go: what stops a pipeline, and what a person should know of.
//
// The sub-package schema/avro turns changes into bytes, schema/registry talks to the
// Schema Registry.
package schema
