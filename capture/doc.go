// Package capture holds the words that every other package speaks: what a change
// log says ([Event], [Batch]), about which table ([Table], [Column], [Type]), with
// which values ([Row], [Value]), and from where to go on ([Position], [Resume]).
// It does no I/O, starts no goroutine and imports the standard library only.
//
// A [Source] reads one database's log. The readers live in the sub-packages:
// capture/postgres, capture/mysql, and later capture/oracle.
//
// # One batch, one owner
//
// Events travel in batches, so that a hand-over costs per batch and not per row.
// A [Batch] owns the memory of everything that its events point to: rows, values
// and bytes. Whoever receives a batch owns it until it calls [Batch.Release]; after
// that nothing in it may be read. Values that must live longer are copied.
//
// # The value table
//
// A [Type] is what the database calls the column, in words that no database owns; a
// [Value] is one cell. Readers map into this table, encoders map out of it, and
// nothing is rounded, re-zoned or turned to text on the way because it was easier.
//
//	Type                        Value kind     payload
//	TypeBool                    Bool           0 or 1
//	TypeInt8 … TypeInt64, Year  Int            the number
//	TypeUint64                  Uint           the number
//	TypeFloat32, TypeFloat64    Float          IEEE 754, also NaN and ±Inf
//	TypeDecimal, TypeVarDecimal,
//	TypeMoney                   Decimal        exact text: -?digits[.digits], or NaN, Infinity, -Infinity
//	TypeString, TypeXML, TypeUUID, TypeEnum,
//	TypeSet, TypeLtree, TypeTsvector,
//	TypeText (unmapped)         String         text in UTF-8, as the server prints it
//	TypeJSON                    String         JSON text
//	TypeBytes                   Bytes          the bytes
//	TypeBits                    Bytes          little-endian: bit 0 in byte 0
//	TypeDate                    Date           days since 1970-01-01, proleptic Gregorian
//	TypeTime                    Time           microseconds since midnight, may exceed a day or be negative
//	TypeTimeTZ                  TimeTZ         as Time, and the offset east of UTC in seconds
//	TypeTimestamp               Timestamp      microseconds since 1970-01-01, local time read as UTC
//	TypeTimestampTZ             TimestampTZ    microseconds since 1970-01-01 UTC, and seconds beyond their range
//	TypeInterval                Interval       months, days, microseconds
//	TypePoint                   Point          x and y
//	TypeGeometry, TypeGeography Geometry       (E)WKB bytes, SRID if the value has one
//	TypeMap                     Map            alternating key and value
//	TypeVector, TypeHalfVector  Array          Float elements
//	TypeSparseVector            Map            Int index (from 1) and Float value; Num is the dimension
//	TypeArray                   Array          elements; an inner dimension is an Array again
//
// Infinite dates and timestamps carry [PosInfinity] or [NegInfinity] as payload.
// Three kinds stand beside every type: Null (SQL NULL), Absent (the log does not
// carry the column in this image) and Unchanged (the log did not repeat it, because
// the update did not touch it).
package capture
