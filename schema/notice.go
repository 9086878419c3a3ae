package schema

import "github.com/headwaterdb/headwater/capture"

// A Notice is something that a person should know of, and that does not stop the
// pipeline.
type Notice struct {
	Kind   NoticeKind
	Table  capture.TableID
	Column string // empty where it is about the table
	Text   string
	// First marks the first notice of its kind about this table and column. Count all
	// of them, log the first.
	First bool
}

// A NoticeKind says what a Notice is about.
type NoticeKind string

const (
	// NoticeUnmapped: a column type without a mapping, and what became of it.
	NoticeUnmapped NoticeKind = "unmapped type"
	// NoticeKeyFallback: the record key is a unique index and no primary key.
	NoticeKeyFallback NoticeKind = "key is a unique index"
	// NoticeDefault: a column default that the record schema cannot show.
	NoticeDefault NoticeKind = "default left out"
	// NoticeRefused: a table that is not captured, the others are.
	NoticeRefused NoticeKind = "table refused"
	// NoticeTopicShared: two tables meet in one topic.
	NoticeTopicShared NoticeKind = "topic shared"
	// NoticeNameShared: record schemas of two tables have the same full name.
	NoticeNameShared NoticeKind = "schema name shared"
	// NoticePartitions: the number of partitions of a topic grew.
	NoticePartitions NoticeKind = "partitions added"
	// NoticeUnrepresentable: a value that the record type cannot hold became null or zero.
	NoticeUnrepresentable NoticeKind = "unrepresentable value"
	// NoticeTruncate: a truncate that was not published.
	NoticeTruncate NoticeKind = "truncate not published"
	// NoticeWidened: a NOT NULL column whose field stays nullable, as registered.
	NoticeWidened NoticeKind = "field stays nullable"
)
