package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Why headwater differs.
const (
	keyNotLogged  = "the log does not repeat the key's columns of an old row; headwater check names the remedy"
	snapshotMarks = "first and last are the pipeline's own tables; the recording read others before and after"
	generated     = "the log does not carry a stored generated column, so no path does"
	noRunID       = "the header that names the run of the connector is optional"
	nullIsNull    = "a NULL is null; Debezium's converter puts the column's default in its place"
	absentIsNull  = "a nullable column that the log did not carry is null; Debezium shows its default"
	unmapped      = "a type without a mapping is the text that the server prints; Debezium has no field"
	nested        = "an array of several dimensions has its elements in row-major order"
	dims          = "a header names the dimensions of an array of several"
	nanElement    = "a NaN in an array of numerics is a null element; Debezium's whole array is null"
	nanHeader     = "a header names NaN that became null"
	bitArray      = "an array of bit strings is an array; Debezium's field is one bit string, always null"
	nullElement   = "an array may hold null; Debezium's whole array is null"
	nameStreamed  = "the type name is text in the log as in the snapshot; Debezium's decoder does not know it"
	quotedDefault = "a text default is not cut at its first quote"
	functionCall  = "current_user is a function, whose default is the zero of the type"
	noNaNDefault  = "Avro has no NaN default, and only Java's library reads one"
	endOfDay      = "the default 24:00:00 is not 23:59:59.999999"
	elementDigits = "elements of time arrays have all their digits, and 24:00:00 is not 0"
	gregorian     = "dates are proleptic Gregorian, with astronomical years, everywhere"
	infiniteDate  = "an infinite date or timestamp has one form, that of a streamed column"
	saturates     = "timestamps after 294247-01-10 saturate; Debezium's turn negative"
)

// optionalText is the field of a column whose type has no mapping.
func optionalText(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, `,{"name":%q,"type":["null","string"],"default":null}`, n)
	}
	return b.String()
}

func optionalBits(length int) string {
	return fmt.Sprintf(`["null",{"type":"bytes","connect.version":1,"connect.parameters":{"length":"%d"},"connect.name":"io.debezium.data.Bits"}]`, length)
}

// A schemaDecision is a place at which our record schemas are meant to differ from
// Debezium's: the text there, and ours.
type schemaDecision struct{ topic, debezium, ours, why string }

var decidedSchemas = []schemaDecision{
	{"dflt", `"it"`, `"it's"`, quotedDefault},
	{"dflt", `"CURRENT_USER"`, `""`, functionCall},
	{"dflt", `[{"type":"double","connect.default":"NaN"},"null"],"default":"NaN"`, `["null","double"],"default":null`, noNaNDefault},
	{"gen", `,{"name":"b","type":["null","int"],"default":null}`, ``, generated},
	{"t_bit8", `{"name":"a","type":` + optionalBits(8), `{"name":"a","type":["null",{"type":"array","items":` + optionalBits(8) + `}]`, bitArray},
	{"t_bit64", `{"name":"a","type":` + optionalBits(64), `{"name":"a","type":["null",{"type":"array","items":` + optionalBits(64) + `}]`, bitArray},
	{"t_isbn", `"items":"string"`, `"items":["null","string"]`, nullElement},
	{"t_time1", `86399999`, `86400000`, endOfDay},
	{"t_time3", `86399999`, `86400000`, endOfDay},
	{"t_time5", `86399999999`, `86400000000`, endOfDay},
	// The columns come behind the last one that Debezium has.
	{"t_cidtype", endOfRow("t_cidtype"), optionalText("v", "vn", "vd", "a") + endOfRow("t_cidtype"), unmapped},
	{"t_line", endOfRow("t_line"), optionalText("v", "vn", "vd", "a") + endOfRow("t_line"), unmapped},
	{"t_nummultirange", endOfRow("t_nummultirange"), optionalText("v", "vn", "vd", "a") + endOfRow("t_nummultirange"), unmapped},
	{"t_pg_lsn", endOfRow("t_pg_lsn"), optionalText("v", "vn", "vd", "a") + endOfRow("t_pg_lsn"), unmapped},
	{"t_regclass", endOfRow("t_regclass"), optionalText("v", "vn", "vd", "a") + endOfRow("t_regclass"), unmapped},
	{"t_tsquery", endOfRow("t_tsquery"), optionalText("v", "vn", "vd", "a") + endOfRow("t_tsquery"), unmapped},
	{"t_xid8", endOfRow("t_xid8"), optionalText("v", "vn", "vd", "a") + endOfRow("t_xid8"), unmapped},
	{"t_domain_int", endOfRow("t_domain_int"), optionalText("a") + endOfRow("t_domain_int"), unmapped},
	{"t_domain_vc", endOfRow("t_domain_vc"), optionalText("a") + endOfRow("t_domain_vc"), unmapped},
	{"t_interval_d3", endOfRow("t_interval_d3"), optionalText("a") + endOfRow("t_interval_d3"), unmapped},
	{"t_name", endOfRow("t_name"), optionalText("a") + endOfRow("t_name"), unmapped},
	{"t_point", endOfRow("t_point"), optionalText("a") + endOfRow("t_point"), unmapped},
	{"t_varbit16", endOfRow("t_varbit16"), optionalText("a") + endOfRow("t_varbit16"), unmapped},
}

// endOfRow is how the record of a table's row ends in the schema of its topic.
func endOfRow(table string) string {
	return `],"connect.name":"` + goldenPrefix + `.own.` + table + `.Value"`
}

// decideSchemas puts the decided places into Debezium's record schemas. Versions of one
// subject that then are the same count as one.
func decideSchemas(t *testing.T, golden map[string]*goldenTopic, schema string, decided []schemaDecision) {
	t.Helper()
	for _, d := range decided {
		topic := golden[goldenPrefix+"."+schema+"."+d.topic]
		if topic == nil {
			t.Fatalf("a difference in the schema of %s was decided (%s), and Debezium wrote no such topic", d.topic, d.why)
		}
		hits := 0
		for i, text := range topic.schemas["value"] {
			hits += strings.Count(text, d.debezium)
			topic.schemas["value"][i] = strings.ReplaceAll(text, d.debezium, d.ours)
		}
		topic.schemas["value"] = slices.Compact(topic.schemas["value"])
		if hits == 0 {
			t.Errorf("%s: Debezium's record schema has no %s (%s)", d.topic, d.debezium, d.why)
		}
	}
}

// decided are the records and values that are meant to differ.
var decided = []decision{
	{"ri_index", "", "topic", "there", absent, keyNotLogged},
	{"ri_nothing", "", "topic", "there", absent, keyNotLogged},

	{"dflt", "r 1", "source.snapshot", `"first_in_data_collection"`, `"first"`, snapshotMarks},
	{"trunc_b", "r 1", "source.snapshot", `"last_in_data_collection"`, `"last"`, snapshotMarks},

	{"*", "*", "headers.__debezium.context.runId", `"there"`, absent, noRunID},

	{"gen", "r 1", "after.b", "42", absent, generated},
	{"gen", "c 2, u 2, d 2", "value-schema", "1", "0", generated},

	{"dflt", "r 2, c 4", "after.c2", `"it"`, "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c5", "1577836800000000", "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c7", "true", "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c8", `"0x04e2"`, "null", nullIsNull},
	{"t_bit64", "r 3, c 1003", "after.vd", `"0xaaaaaaaaaaaaaaaa"`, "null", nullIsNull},
	{"t_bit8", "r 4, c 1004", "after.vd", `"0xaa"`, "null", nullIsNull},
	{"t_bool", "r 4, c 1004", "after.vd", "true", "null", nullIsNull},
	{"t_char10", "r 5, c 1005", "after.vd", `"abc"`, "null", nullIsNull},
	{"t_date", "r 12, c 1012", "after.vd", "19782", "null", nullIsNull},
	{"t_float4", "r 11, c 1011", "after.vd", "0.0", "null", nullIsNull},
	{"t_int4", "r 6, c 1006", "after.vd", "0", "null", nullIsNull},
	{"t_interval_d3", "r 3, c 1003", "after.vd", "273906789000", "null", nullIsNull},
	{"t_jsonb", "r 6, c 1006", "after.vd", `"{\"a\": [1, 2.50, null, true], \"b\": 1, \"u\": \"é\"}"`, "null", nullIsNull},
	{"t_num_1000", "r 5, c 1005", "after.vd", `"0x00"`, "null", nullIsNull},
	{"t_num_3_5", "r 5, c 1005", "after.vd", `"0x00"`, "null", nullIsNull},
	{"t_num_5_2", "r 5, r 7, c 1005, c 1007", "after.vd", `"0x00"`, "null", nullIsNull},
	{"t_time", "r 6, c 1006", "after.vd", "0", "null", nullIsNull},
	{"t_time1", "r 5, c 1005", "after.vd", "45296789", "null", nullIsNull},
	{"t_time3", "r 5, c 1005", "after.vd", "45296789", "null", nullIsNull},
	{"t_time5", "r 5, c 1005", "after.vd", "45296789012", "null", nullIsNull},
	{"t_ts", "r 13, c 1013", "after.vd", "1709210096789012", "null", nullIsNull},
	{"t_ts1", "r 10, c 1010", "after.vd", "1709210096789", "null", nullIsNull},
	{"t_ts3", "r 10, c 1010", "after.vd", "1709210096789", "null", nullIsNull},
	{"t_ts5", "r 10, c 1010", "after.vd", "1709210096789012", "null", nullIsNull},
	{"t_tstz", "r 15, c 1015", "after.vd", `"2024-02-29T12:34:56.789012Z"`, "null", nullIsNull},
	{"t_tstz3", "r 4, c 1004", "after.vd", `"2024-02-29T12:34:56.789Z"`, "null", nullIsNull},
	{"t_uuid", "r 4, c 1004", "after.vd", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`, "null", nullIsNull},
	{"t_varbit16", "r 4, c 1004", "after.vd", `"0x01"`, "null", nullIsNull},
	{"t_varchar5", "r 4, c 1004", "after.vd", `"abcde"`, "null", nullIsNull},

	{"dflt", "d 1", "before.c2", `"it"`, "null", absentIsNull},
	{"dflt", "d 1", "before.c3", `""`, "null", absentIsNull},
	{"dflt", "d 1", "before.c4", `"2021-01-01T00:00:00.000000Z"`, "null", absentIsNull},
	{"dflt", "d 1", "before.c5", "1577836800000000", "null", absentIsNull},
	{"dflt", "d 1", "before.c6", "18628", "null", absentIsNull},
	{"dflt", "d 1", "before.c7", "true", "null", absentIsNull},
	{"dflt", "d 1", "before.c8", `"0x04e2"`, "null", absentIsNull},
	{"dflt", "d 1", "before.c9", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`, "null", absentIsNull},
	{"dflt", "d 1", "before.c10", `"{}"`, "null", absentIsNull},
	{"dflt", "d 1", "before.c13", `"NaN"`, "null", absentIsNull},
	{"dflt", "d 1", "before.c14", "86400000000", "null", absentIsNull},
	{"dflt", "d 1", "before.c15", `"ok"`, "null", absentIsNull},
	{"dflt", "d 1", "before.c19", `"0x05"`, "null", absentIsNull},
	{"dflt", "d 1", "before.c20", "3723000000", "null", absentIsNull},
	{"dflt", "d 1", "before.c21", `"2019-12-31T22:00:00.000000Z"`, "null", absentIsNull},
	{"dflt", "d 1", "before.c24", "1.5", "null", absentIsNull},
	{"dflt", "d 1", "before.c25", `"a"`, "null", absentIsNull},
	{"dflt", "d 1", "before.c26", `"CURRENT_USER"`, "null", absentIsNull},
	{"t_bool", "d 1001, d 1", "before.vd", "true", "null", absentIsNull},
	{"t_char10", "d 1001, d 1", "before.vd", `"abc"`, "null", absentIsNull},
	{"t_int4", "d 1001, d 1", "before.vd", "0", "null", absentIsNull},
	{"t_jsonb", "d 1001, d 1", "before.vd", `"{\"a\": [1, 2.50, null, true], \"b\": 1, \"u\": \"é\"}"`, "null", absentIsNull},
	{"t_num_3_5", "d 1001, d 1", "before.vd", `"0x00"`, "null", absentIsNull},
	{"t_num_5_2", "d 1001, d 1", "before.vd", `"0x00"`, "null", absentIsNull},
	{"t_time", "d 1001, d 1", "before.vd", "0", "null", absentIsNull},
	{"t_time1", "d 1001, d 1", "before.vd", "45296789", "null", absentIsNull},
	{"t_time3", "d 1001, d 1", "before.vd", "45296789", "null", absentIsNull},
	{"t_time5", "d 1001, d 1", "before.vd", "45296789012", "null", absentIsNull},
	{"t_ts", "d 1001, d 1", "before.vd", "1709210096789012", "null", absentIsNull},
	{"t_ts1", "d 1001, d 1", "before.vd", "1709210096789", "null", absentIsNull},
	{"t_ts3", "d 1001, d 1", "before.vd", "1709210096789", "null", absentIsNull},
	{"t_ts5", "d 1001, d 1", "before.vd", "1709210096789012", "null", absentIsNull},
	{"t_tstz", "d 1001, d 1", "before.vd", `"2024-02-29T12:34:56.789012Z"`, "null", absentIsNull},
	{"t_tstz3", "d 1001, d 1", "before.vd", `"2024-02-29T12:34:56.789Z"`, "null", absentIsNull},
	{"t_uuid", "d 1001, d 1", "before.vd", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`, "null", absentIsNull},
	{"t_varbit16", "d 1001, d 1", "before.vd", `"0x01"`, "null", absentIsNull},
	{"t_varchar5", "d 1001, d 1", "before.vd", `"abcde"`, "null", absentIsNull},

	// ValuesAreThoseOfTheServer and BeforeIsTheRowBefore compare these texts.
	{"t_cidtype", "r *, c *, u *", "after.v after.vn after.vd after.a", absent, "…", unmapped},
	{"t_cidtype", "u *, d *", "before.v before.vn before.vd before.a", absent, "…", unmapped},
	{"t_line", "r *, c *, u *", "after.v after.vn after.vd after.a", absent, "…", unmapped},
	{"t_line", "u *, d *", "before.v before.vn before.vd before.a", absent, "…", unmapped},
	{"t_nummultirange", "r *, c *, u *", "after.v after.vn after.vd after.a", absent, "…", unmapped},
	{"t_nummultirange", "d *", "before.v before.vn before.vd before.a", absent, "null", unmapped},
	{"t_pg_lsn", "r *, c *, u *", "after.v after.vn after.vd after.a", absent, "…", unmapped},
	{"t_pg_lsn", "u *, d *", "before.v before.vn before.vd before.a", absent, "…", unmapped},
	{"t_regclass", "r *, c *, u *", "after.v after.vn after.vd after.a", absent, "…", unmapped},
	{"t_regclass", "u *, d *", "before.v before.vn before.vd before.a", absent, "…", unmapped},
	{"t_tsquery", "r *, c *, u *", "after.v after.vn after.vd after.a", absent, "…", unmapped},
	{"t_tsquery", "d *", "before.v before.vn before.vd before.a", absent, "null", unmapped},
	{"t_xid8", "r *, c *, u *", "after.v after.vn after.vd after.a", absent, "…", unmapped},
	{"t_xid8", "d *", "before.v before.vn before.vd before.a", absent, "null", unmapped},
	{"t_domain_int", "r 1, c 1001, u 1001", "after.a", absent, `"{1,NULL,1}"`, unmapped},
	{"t_domain_int", "r 2, c 1002", "after.a", absent, `"{2147483647,NULL,2147483647}"`, unmapped},
	{"t_domain_int", "r 3, r 4, c 1003, c 1004", "after.a", absent, "null", unmapped},
	{"t_domain_int", "r 5, c 1005", "after.a", absent, `"{}"`, unmapped},
	{"t_domain_int", "r 6, c 1006", "after.a", absent, `"{{1,1},{1,2147483647}}"`, unmapped},
	{"t_domain_int", "d 1001, d 1", "before.a", absent, "null", unmapped},
	{"t_domain_vc", "r 1, c 1001, u 1001", "after.a", absent, `"{12345,NULL,12345}"`, unmapped},
	{"t_domain_vc", "r 2, r 3, c 1002, c 1003", "after.a", absent, "null", unmapped},
	{"t_domain_vc", "r 4, c 1004", "after.a", absent, `"{}"`, unmapped},
	{"t_domain_vc", "r 5, c 1005", "after.a", absent, `"{{12345,12345},{12345,12345}}"`, unmapped},
	{"t_domain_vc", "u 1001, d 1001, d 1", "before.a", absent, `"{12345,NULL,12345}"`, unmapped},
	{"t_interval_d3", "r 1, c 1001, u 1001", "after.a", absent, `"{\"3 days 04:05:06.789\",NULL,\"3 days 04:05:06.789\"}"`, unmapped},
	{"t_interval_d3", "r 2, r 3, c 1002, c 1003", "after.a", absent, "null", unmapped},
	{"t_interval_d3", "r 4, c 1004", "after.a", absent, `"{}"`, unmapped},
	{"t_interval_d3", "r 5, c 1005", "after.a", absent, `"{{\"3 days 04:05:06.789\",\"3 days 04:05:06.789\"},{\"3 days 04:05:06.789\",\"3 days 04:05:06.789\"}}"`, unmapped},
	{"t_interval_d3", "u 1001, d 1001, d 1", "before.a", absent, `"{\"3 days 04:05:06.789\",NULL,\"3 days 04:05:06.789\"}"`, unmapped},
	{"t_name", "r 1, c 1001, u 1001", "after.a", absent, `"{pg_class,NULL,pg_class}"`, unmapped},
	{"t_name", "r 2, c 1002", "after.a", absent, `"{\"\",NULL,\"\"}"`, unmapped},
	{"t_name", "r 3, r 4, c 1003, c 1004", "after.a", absent, "null", unmapped},
	{"t_name", "r 5, c 1005", "after.a", absent, `"{}"`, unmapped},
	{"t_name", "r 6, c 1006", "after.a", absent, `"{{pg_class,pg_class},{pg_class,\"\"}}"`, unmapped},
	{"t_name", "d 1001, d 1", "before.a", absent, "null", unmapped},
	{"t_point", "r 1, c 1001, u 1001", "after.a", absent, `"{\"(1.5,-2.5)\",NULL,\"(1.5,-2.5)\"}"`, unmapped},
	{"t_point", "r 2, c 1002", "after.a", absent, `"{\"(0,0)\",NULL,\"(0,0)\"}"`, unmapped},
	{"t_point", "r 3, c 1003", "after.a", absent, `"{\"(Infinity,NaN)\",NULL,\"(Infinity,NaN)\"}"`, unmapped},
	{"t_point", "r 4, r 5, c 1004, c 1005", "after.a", absent, "null", unmapped},
	{"t_point", "r 6, c 1006", "after.a", absent, `"{}"`, unmapped},
	{"t_point", "r 7, c 1007", "after.a", absent, `"{{\"(1.5,-2.5)\",\"(1.5,-2.5)\"},{\"(1.5,-2.5)\",\"(0,0)\"}}"`, unmapped},
	{"t_point", "d 1001, d 1", "before.a", absent, "null", unmapped},
	{"t_varbit16", "r 1, c 1001, u 1001", "after.a", absent, `"{1,NULL,1}"`, unmapped},
	{"t_varbit16", "r 2, c 1002", "after.a", absent, `"{1010101010101010,NULL,1010101010101010}"`, unmapped},
	{"t_varbit16", "r 3, r 4, c 1003, c 1004", "after.a", absent, "null", unmapped},
	{"t_varbit16", "r 5, c 1005", "after.a", absent, `"{}"`, unmapped},
	{"t_varbit16", "r 6, c 1006", "after.a", absent, `"{{1,1},{1,1010101010101010}}"`, unmapped},
	{"t_varbit16", "d 1001, d 1", "before.a", absent, "null", unmapped},

	{"t_bchar", "r 6, c 1006", "after.a", `["!java-array","!java-array"]`, `["a","a","a","z"]`, nested},
	{"t_bool", "r 6, c 1006", "after.a", "[null,null]", "[true,true,true,false]", nested},
	{"t_char10", "r 7, c 1007", "after.a", `["!java-array","!java-array"]`, `["abc       ","abc       ","abc       ","          "]`, nested},
	{"t_citext", "r 6, c 1006", "after.a", "[null,null]", `["MiXed","MiXed","MiXed",""]`, nested},
	{"t_date", "r 14, c 1014", "after.a", "[null,null]", "[19782,19782,19782,0]", nested},
	{"t_float4", "r 13, c 1013", "after.a", "[null,null]", "[0.0,0.0,0.0,0.0]", nested},
	{"t_inet", "r 8, c 1008", "after.a", `["!java-array","!java-array"]`, `["10.0.0.1","10.0.0.1","10.0.0.1","10.0.0.1/8"]`, nested},
	{"t_int4", "r 8, c 1008", "after.a", "[null,null]", "[0,0,0,42]", nested},
	{"t_int4range", "r 7, c 1007", "after.a", `["!java-array","!java-array"]`, `["[1,5)","[1,5)","[1,5)","empty"]`, nested},
	{"t_int8range", "r 5, c 1005", "after.a", `["!java-array","!java-array"]`, `["[1,6)","[1,6)","[1,6)","[1,6)"]`, nested},
	{"t_isbn", "r 5, c 1005", "after.a", "null", `["0-393-04002-X","0-393-04002-X","0-393-04002-X","0-393-04002-X"]`, nested},
	{"t_jsonb", "r 8, c 1008", "after.a", `["!java-array","!java-array"]`, `["{\"a\": [1, 2.50, null, true], \"b\": 1, \"u\": \"é\"}","{\"a\": [1, 2.50, null, true], \"b\": 1, \"u\": \"é\"}","{\"a\": [1, 2.50, null, true], \"b\": 1, \"u\": \"é\"}","null"]`, nested},
	{"t_ltree", "r 5, c 1005", "after.a", `["!java-array","!java-array"]`, `["Top.Science.Astronomy","Top.Science.Astronomy","Top.Science.Astronomy","Top.Science.Astronomy"]`, nested},
	{"t_macaddr8", "r 5, c 1005", "after.a", `["!java-array","!java-array"]`, `["08:00:2b:01:02:03:04:05","08:00:2b:01:02:03:04:05","08:00:2b:01:02:03:04:05","08:00:2b:01:02:03:04:05"]`, nested},
	{"t_num_1000", "r 7, c 1007", "after.a", "[null,null]", `["0x00","0x00","0x00","0x2ed18fe2dd293c18654f09f8ab0cb55f7c33178d992d46f79c73bd40e59a98ddfbc1f6e924b9eeb16a76115831208a89e81802acd9073991054f0031433a8ac443e1c12d6986e486d79f132cd7edd71f86e78b5ca85c46e59691b767294d50236adcbadffea162f5c6fddeb327df34c5b08d1ce5c1d4e686443c5a20e61be52c483a1d1814a8c173be142a730bed813920980000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"]`, nested},
	{"t_num_3_5", "r 7, c 1007", "after.a", "[null,null]", `["0x00","0x00","0x00","0x7b"]`, nested},
	{"t_num_5_2", "r 9, c 1009", "after.a", "[null,null]", `["0x00","0x00","0x00","0x6e"]`, nested},
	{"t_oid", "r 6, c 1006", "after.a", "[null,null]", "[0,0,0,4294967295]", nested},
	{"t_time", "r 8, c 1008", "after.a", "[null,null]", "[0,0,0,86399999999]", nested},
	{"t_time1", "r 7, c 1007", "after.a", "[null,null]", "[45296800,45296800,45296800,86400000]", nested},
	{"t_time3", "r 7, c 1007", "after.a", "[null,null]", "[45296789,45296789,45296789,86400000]", nested},
	{"t_time5", "r 7, c 1007", "after.a", "[null,null]", "[45296789010,45296789010,45296789010,86400000000]", nested},
	{"t_timetz", "r 8, c 1008", "after.a", "[null,null]", `["00:00:00Z","00:00:00Z","00:00:00Z","11:59:59.999999Z"]`, nested},
	{"t_ts", "r 15, c 1015", "after.a", "[null,null]", "[1709210096789012,1709210096789012,1709210096789012,0]", nested},
	{"t_ts1", "r 12, c 1012", "after.a", "[null,null]", "[1709210096800,1709210096800,1709210096800,0]", nested},
	{"t_ts3", "r 12, c 1012", "after.a", "[null,null]", "[1709210096789,1709210096789,1709210096789,0]", nested},
	{"t_ts5", "r 12, c 1012", "after.a", "[null,null]", "[1709210096789010,1709210096789010,1709210096789010,0]", nested},
	{"t_tstz", "r 17, c 1017", "after.a", "[null,null]", `["2024-02-29T12:34:56.789012Z","2024-02-29T12:34:56.789012Z","2024-02-29T12:34:56.789012Z","1970-01-01T00:00:00.000000Z"]`, nested},
	{"t_tstz3", "r 6, c 1006", "after.a", "[null,null]", `["2024-02-29T12:34:56.789Z","2024-02-29T12:34:56.789Z","2024-02-29T12:34:56.789Z","1970-01-01T00:00:00.000Z"]`, nested},
	{"t_tstzrange", "r 5, c 1005", "after.a", `["!java-array","!java-array"]`, `["[\"2023-12-31 22:00:00+00\",)","[\"2023-12-31 22:00:00+00\",)","[\"2023-12-31 22:00:00+00\",)","[\"2023-12-31 22:00:00+00\",)"]`, nested},
	{"t_uuid", "r 6, c 1006", "after.a", `["!java-array","!java-array"]`, `["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","00000000-0000-0000-0000-000000000000"]`, nested},
	{"t_varchar5", "r 6, c 1006", "after.a", `["!java-array","!java-array"]`, `["abcde","abcde","abcde","😀😀😀😀😀"]`, nested},

	{"t_bchar", "r 6, c 1006", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_bit64", "r 5, c 1005", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_bit8", "r 6, c 1006", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_bool", "r 6, c 1006", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_char10", "r 7, c 1007", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_citext", "r 6, c 1006", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_date", "r 14, c 1014", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_float4", "r 13, c 1013", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_inet", "r 8, c 1008", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_int4", "r 8, c 1008", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_int4range", "r 7, c 1007", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_int8range", "r 5, c 1005", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_isbn", "r 5, c 1005", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_jsonb", "r 8, c 1008", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_ltree", "r 5, c 1005", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_macaddr8", "r 5, c 1005", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_num_1000", "r 7, c 1007", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_num_3_5", "r 7, c 1007", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_num_5_2", "r 9, c 1009", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_oid", "r 6, c 1006", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_time", "r 8, c 1008", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_time1", "r 7, c 1007", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_time3", "r 7, c 1007", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_time5", "r 7, c 1007", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_timetz", "r 8, c 1008", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_ts", "r 15, c 1015", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_ts1", "r 12, c 1012", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_ts3", "r 12, c 1012", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_ts5", "r 12, c 1012", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_tstz", "r 17, c 1017", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_tstz3", "r 6, c 1006", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_tstzrange", "r 5, c 1005", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_uuid", "r 6, c 1006", "headers.headwater.array.dims", absent, `"there"`, dims},
	{"t_varchar5", "r 6, c 1006", "headers.headwater.array.dims", absent, `"there"`, dims},

	{"t_num_5_2", "r 5, c 1005", "after.a", "null", "[null,null,null]", nanElement},

	{"t_num_5_2", "r 5, r 8, c 1005, c 1008", "headers.headwater.unrepresentable", absent, `"there"`, nanHeader},

	{"t_bit64", "r 1, c 1001, u 1001", "after.a", "null", `["0xaaaaaaaaaaaaaaaa",null,"0xaaaaaaaaaaaaaaaa"]`, bitArray},
	{"t_bit64", "r 4, c 1004", "after.a", "null", "[]", bitArray},
	{"t_bit64", "r 5, c 1005", "after.a", "null", `["0xaaaaaaaaaaaaaaaa","0xaaaaaaaaaaaaaaaa","0xaaaaaaaaaaaaaaaa","0xaaaaaaaaaaaaaaaa"]`, bitArray},
	{"t_bit64", "u 1001, d 1001, d 1", "before.a", "null", `["0xaaaaaaaaaaaaaaaa",null,"0xaaaaaaaaaaaaaaaa"]`, bitArray},
	{"t_bit8", "r 1, c 1001, u 1001", "after.a", "null", `["0xaa",null,"0xaa"]`, bitArray},
	{"t_bit8", "r 2, c 1002", "after.a", "null", `["0x01",null,"0x01"]`, bitArray},
	{"t_bit8", "r 5, c 1005", "after.a", "null", "[]", bitArray},
	{"t_bit8", "r 6, c 1006", "after.a", "null", `["0xaa","0xaa","0xaa","0x01"]`, bitArray},
	{"t_bit8", "u 1001, d 1001, d 1", "before.a", "null", `["0xaa",null,"0xaa"]`, bitArray},

	{"t_isbn", "r 1, c 1001, u 1001", "after.a", "null", `["0-393-04002-X",null,"0-393-04002-X"]`, nullElement},
	{"t_isbn", "u 1001, d 1001, d 1", "before.a", "null", `["0-393-04002-X",null,"0-393-04002-X"]`, nullElement},
	{"t_ltree", "r 1, c 1001, u 1001", "after.a", "null", `["Top.Science.Astronomy",null,"Top.Science.Astronomy"]`, nullElement},

	{"t_name", "c 1001", "after.v", "null", `"pg_class"`, nameStreamed},
	{"t_name", "c 1001, u 1001", "after.vn", `""`, `"pg_class"`, nameStreamed},
	{"t_name", "c 1001, c 1003, c 1005, c 1006, u 1001", "after.vd", "null", `"pg_class"`, nameStreamed},
	{"t_name", "c 1002, c 1005, u 1001", "after.v", "null", `""`, nameStreamed},
	{"t_name", "c 1002", "after.vd", "null", `""`, nameStreamed},

	{"t_time1", "d 1001, d 1", "before.vn", "86399999", "86400000", endOfDay},
	{"t_time3", "d 1001, d 1", "before.vn", "86399999", "86400000", endOfDay},
	{"t_time5", "d 1001, d 1", "before.vn", "86399999999", "86400000000", endOfDay},

	{"t_time", "r 2, c 1002", "after.a", "[86399999000,null,86399999000]", "[86399999999,null,86399999999]", elementDigits},
	{"t_time", "r 3, c 1003", "after.a", "[0,null,0]", "[86400000000,null,86400000000]", elementDigits},
	{"t_time", "r 4, c 1004", "after.a", "[45296000000,null,45296000000]", "[45296000001,null,45296000001]", elementDigits},
	{"t_time1", "r 2, r 3, c 1002, c 1003", "after.a", "[0,null,0]", "[86400000,null,86400000]", elementDigits},
	{"t_time3", "r 2, r 3, c 1002, c 1003", "after.a", "[0,null,0]", "[86400000,null,86400000]", elementDigits},
	{"t_time5", "r 1, c 1001, u 1001", "after.a", "[45296789000,null,45296789000]", "[45296789010,null,45296789010]", elementDigits},
	{"t_time5", "r 2, r 3, c 1002, c 1003", "after.a", "[0,null,0]", "[86400000000,null,86400000000]", elementDigits},
	{"t_timetz", "r 2, c 1002", "after.a", `["11:59:59Z",null,"11:59:59Z"]`, `["11:59:59.999999Z",null,"11:59:59.999999Z"]`, elementDigits},
	{"t_timetz", "r 4, c 1004", "after.a", `["20:35:56Z",null,"20:35:56Z"]`, `["20:35:56.5Z",null,"20:35:56.5Z"]`, elementDigits},

	{"t_date", "r 5", "after.v after.vn after.vd", "-703383", "-735160", gregorian},
	{"t_date", "r 5, c 1005", "after.a", "[-703383,null,-703383]", "[-735160,null,-735160]", gregorian},
	{"t_date", "r 6", "after.v after.vn after.vd", "1001860", "-2440550", gregorian},
	{"t_date", "r 6, c 1006", "after.a", "[1001860,null,1001860]", "[-2440550,null,-2440550]", gregorian},
	{"t_date", "r 10, r 13", "after.v", "-141422", "-141432", gregorian},
	{"t_date", "r 10", "after.vn after.vd", "-141422", "-141432", gregorian},
	{"t_date", "r 10, c 1010", "after.a", "[-141422,null,-141422]", "[-141432,null,-141432]", gregorian},
	{"t_ts", "r 4, c 1004", "after.a", "[-62135769600000000,null,-62135769600000000]", "[-62135596800000000,null,-62135596800000000]", gregorian},
	{"t_ts", "r 5, c 1005", "after.a", "[-63517953600000000,null,-63517953600000000]", "[-63517780800000000,null,-63517780800000000]", gregorian},
	{"t_ts", "r 7, c 1007", "after.a", "[-12218860800000000,null,-12218860800000000]", "[-12219724800000000,null,-12219724800000000]", gregorian},
	{"t_ts", "r 8, c 1008", "after.a", "[-210866803200000000,null,-210866803200000000]", "[-210863520000000000,null,-210863520000000000]", gregorian},
	{"t_ts1", "r 4, c 1004", "after.a", "[-62135769600000,null,-62135769600000]", "[-62135596800000,null,-62135596800000]", gregorian},
	{"t_ts1", "r 5, c 1005", "after.a", "[-63517953600000,null,-63517953600000]", "[-63517780800000,null,-63517780800000]", gregorian},
	{"t_ts1", "r 7, c 1007", "after.a", "[-12218860800000,null,-12218860800000]", "[-12219724800000,null,-12219724800000]", gregorian},
	{"t_ts3", "r 4, c 1004", "after.a", "[-62135769600000,null,-62135769600000]", "[-62135596800000,null,-62135596800000]", gregorian},
	{"t_ts3", "r 5, c 1005", "after.a", "[-63517953600000,null,-63517953600000]", "[-63517780800000,null,-63517780800000]", gregorian},
	{"t_ts3", "r 7, c 1007", "after.a", "[-12218860800000,null,-12218860800000]", "[-12219724800000,null,-12219724800000]", gregorian},
	{"t_ts5", "r 4, c 1004", "after.a", "[-62135769600000000,null,-62135769600000000]", "[-62135596800000000,null,-62135596800000000]", gregorian},
	{"t_ts5", "r 5, c 1005", "after.a", "[-63517953600000000,null,-63517953600000000]", "[-63517780800000000,null,-63517780800000000]", gregorian},
	{"t_ts5", "r 7, c 1007", "after.a", "[-12218860800000000,null,-12218860800000000]", "[-12219724800000000,null,-12219724800000000]", gregorian},
	{"t_tstz", "r 5, c 1005", "after.a", `["0044-03-15T12:00:00.000000Z",null,"0044-03-15T12:00:00.000000Z"]`, `["-0043-03-15T12:00:00.000000Z",null,"-0043-03-15T12:00:00.000000Z"]`, gregorian},
	{"t_tstz", "r 7, c 1007", "after.a", `["1582-10-20T00:00:00.000000Z",null,"1582-10-20T00:00:00.000000Z"]`, `["1582-10-10T00:00:00.000000Z",null,"1582-10-10T00:00:00.000000Z"]`, gregorian},
	{"t_tstz", "r 13, c 1013", "after.a", `["4713-01-01T00:00:00.000000Z",null,"4713-01-01T00:00:00.000000Z"]`, `["-4712-01-01T00:00:00.000000Z",null,"-4712-01-01T00:00:00.000000Z"]`, gregorian},

	{"t_date", "r 8", "after.v after.vn after.vd", "-622191234", "-2147472692", infiniteDate},
	{"t_date", "r 8, c 1008", "after.a", "[-622191234,null,-622191234]", "[-2147472692,null,-2147472692]", infiniteDate},
	{"t_date", "r 9", "after.v after.vn after.vd", "-625821272", "-2147472691", infiniteDate},
	{"t_date", "r 9, c 1009", "after.a", "[-625821272,null,-625821272]", "[-2147472691,null,-2147472691]", infiniteDate},
	{"t_tstz", "r 11, c 1011", "after.a", `["+292269055-12-02T23:00:00.000000Z",null,"+292269055-12-02T23:00:00.000000Z"]`, `["-infinity",null,"-infinity"]`, infiniteDate},

	{"t_ts", "r 9, c 1009", "after.v after.vn after.vd", "-9223372036853775810", "9223372036854775806", saturates},
	{"t_ts", "r 9, c 1009", "after.a", "[-9223372036853775810,null,-9223372036853775810]", "[9223372036854775806,null,9223372036854775806]", saturates},
}
