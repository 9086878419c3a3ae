package integration

// Why headwater differs on MySQL, where decided_test.go does not say so.
const (
	doubledQuote = "a quote in a text default is one character"
	cutUnsigned  = "an unsigned default of 2^63 and more wraps as such values do"
	zeroBytes    = "a zero byte in a default is one byte"
	hexText      = "a text default is the text; Debezium has the hexadecimal digits but the last"
	renamed      = "a renamed table goes on under its new name; the recording took no tables made later"
	yearZero     = "the year 0000 is 0"
	yearOne      = "the year 1 is not 2001"
	allDigits    = "a timestamp has the digits of its column in a snapshot, too"
)

var decidedSchemasMySQL = []schemaDecision{
	{"dflt", `"it''s"`, `"it's"`, doubledQuote},
	{"dflt", `9223372036854775807`, `-1`, cutUnsigned},
	{"t_binary4", `"\u0001\\0\\0\\0"`, `"\u0001\u0000\u0000\u0000"`, zeroBytes},
	{"t_vc_utf16", `"65E5672CD83DDE0"`, `"日本😀"`, hexText},
}

var decidedMySQL = []decision{
	{"*", "*", "headers.__debezium.context.runId", `"there"`, absent, noRunID},

	{"ddl", "r 1", "source.snapshot", `"last_in_data_collection"`, `"first"`, snapshotMarks},
	{"uniq_only", "r 1", "source.snapshot", `"last_in_data_collection"`, `"last"`, snapshotMarks},

	{"ddl2", "", "topic", absent, "there", renamed},

	{"dflt", "r 2, c 4", "after.c1", "5", "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c2", `"it''s"`, "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c3", "0", "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c5", "1577836800123", "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c6", "18262", "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c7", "1", "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c8", `"0x04e2"`, "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c9", `"0x05"`, "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c10", `"b"`, "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c11", `"a,b"`, "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c12", "3723000000", "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c13", "2020", "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c14", "1.5", "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c17", "9223372036854775807", "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c18", `"0x616263"`, "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c22", `"2020-01-01T00:00:00Z"`, "null", nullIsNull},
	{"dflt", "r 2, c 4", "after.c24", "-1.5", "null", nullIsNull},
	{"t_bigint", "r 6, c 1006", "after.vd", "0", "null", nullIsNull},
	{"t_binary4", "r 5, c 1005", "after.vd", `"0x015c305c305c30"`, "null", nullIsNull},
	{"t_bit16", "r 3, c 1003", "after.vd", `"0x0180"`, "null", nullIsNull},
	{"t_bit8", "r 3, c 1003", "after.vd", `"0x81"`, "null", nullIsNull},
	{"t_char10", "r 6, c 1006", "after.vd", `"abc"`, "null", nullIsNull},
	{"t_date", "r 6, r 7, r 8, r 12, c 1006, c 1007, c 1008, c 1012", "after.vd", "19782", "null", nullIsNull},
	{"t_dec_4_0", "r 4, c 1004", "after.vd", `"0x00"`, "null", nullIsNull},
	{"t_dec_5_2_u", "r 4, c 1004", "after.vd", `"0x00"`, "null", nullIsNull},
	{"t_dec_zf", "r 3, c 1003", "after.vd", `"0x05dc"`, "null", nullIsNull},
	{"t_double_8_2", "r 3, c 1003", "after.vd", "1.25", "null", nullIsNull},
	{"t_dt0", "r 6, r 7, r 10, c 1006, c 1007, c 1010", "after.vd", "1709210097000", "null", nullIsNull},
	{"t_dt2", "r 6, r 7, r 10, c 1006, c 1007, c 1010", "after.vd", "1709210096790", "null", nullIsNull},
	{"t_dt4", "r 6, r 7, r 10, c 1006, c 1007, c 1010", "after.vd", "1709210096789000", "null", nullIsNull},
	{"t_dt6", "r 6, r 7, r 10, c 1006, c 1007, c 1010", "after.vd", "1709210096789012", "null", nullIsNull},
	{"t_enum_latin1", "r 3, c 1003", "after.vd", `"é"`, "null", nullIsNull},
	{"t_float_24", "r 3, c 1003", "after.vd", "0.10000000149011612", "null", nullIsNull},
	{"t_float_7_3", "r 4, c 1004", "after.vd", "1.5", "null", nullIsNull},
	{"t_int_u", "r 5, c 1005", "after.vd", "0", "null", nullIsNull},
	{"t_mediumint_u", "r 5, c 1005", "after.vd", "0", "null", nullIsNull},
	{"t_nvarchar", "r 3, c 1003", "after.vd", `"né"`, "null", nullIsNull},
	{"t_serial_", "r 3, c 1003", "after.vd", "1", "null", nullIsNull},
	{"t_set64", "r 3, c 1003", "after.vd", `"s0,s63"`, "null", nullIsNull},
	{"t_smallint_u", "r 5, c 1005", "after.vd", "0", "null", nullIsNull},
	{"t_time1", "r 7, c 1007", "after.vd", "45296800000", "null", nullIsNull},
	{"t_time3", "r 7, c 1007", "after.vd", "45296789000", "null", nullIsNull},
	{"t_time5", "r 7, c 1007", "after.vd", "45296789010", "null", nullIsNull},
	{"t_tinyint1", "r 6, c 1006", "after.vd", "0", "null", nullIsNull},
	{"t_tinyint_u", "r 5, c 1005", "after.vd", "0", "null", nullIsNull},
	{"t_ts0", "r 4, r 7, c 1004, c 1007", "after.vd", `"2024-02-29T12:34:57Z"`, "null", nullIsNull},
	{"t_ts2", "r 4, r 7, c 1004, c 1007", "after.vd", `"2024-02-29T12:34:56.79Z"`, "null", nullIsNull},
	{"t_ts4", "r 4, r 7, c 1004, c 1007", "after.vd", `"2024-02-29T12:34:56.7890Z"`, "null", nullIsNull},
	{"t_ts6", "r 4, r 7, c 1004, c 1007", "after.vd", `"2024-02-29T12:34:56.789012Z"`, "null", nullIsNull},
	{"t_varchar", "r 6, c 1006", "after.vd", `"x"`, "null", nullIsNull},
	{"t_vc_bin", "r 3, c 1003", "after.vd", `"aB"`, "null", nullIsNull},
	{"t_vc_gbk", "r 3, c 1003", "after.vd", `"中文"`, "null", nullIsNull},
	{"t_vc_latin1", "r 4, c 1004", "after.vd", `"é€"`, "null", nullIsNull},
	{"t_vc_utf16", "r 3, c 1003", "after.vd", `"65E5672CD83DDE0"`, "null", nullIsNull},
	{"t_vc_utf8bin", "r 3, c 1003", "after.vd", `"aB"`, "null", nullIsNull},
	{"t_year", "r 6, c 1006", "after.vd", "2024", "null", nullIsNull},

	{"t_year", "r 4", "after.v after.vn after.vd", "2000", "0", yearZero},
	{"t_year", "c 1004", "after.v after.vn after.vd", "1900", "0", yearZero},

	{"t_date", "r 9, c 1009", "after.v after.vn after.vd", "11323", "-719162", yearOne},

	{"t_dt0", "r 8", "after.v after.vn after.vd", "-12218860800000", "-12219724800000", gregorian},
	{"t_dt2", "r 8", "after.v after.vn after.vd", "-12218860800000", "-12219724800000", gregorian},
	{"t_dt4", "r 8", "after.v after.vn after.vd", "-12218860800000000", "-12219724800000000", gregorian},
	{"t_dt6", "r 8", "after.v after.vn after.vd", "-12218860800000000", "-12219724800000000", gregorian},

	{"t_ts2", "r 2", "after.v after.vn after.vd", `"1970-01-01T00:00:01Z"`, `"1970-01-01T00:00:01.00Z"`, allDigits},
	{"t_ts2", "r 3", "after.v after.vn after.vd", `"2038-01-19T03:14:07Z"`, `"2038-01-19T03:14:07.00Z"`, allDigits},
	{"t_ts2", "r 5", "after.v after.vn after.vd", `"2024-07-01T02:30:00.5Z"`, `"2024-07-01T02:30:00.50Z"`, allDigits},
	{"t_ts2", "r 6", "after.vn", `"1970-01-01T00:00:01Z"`, `"1970-01-01T00:00:01.00Z"`, allDigits},
	{"t_ts4", "r 1", "after.v after.vn after.vd", `"2024-02-29T12:34:56.789Z"`, `"2024-02-29T12:34:56.7890Z"`, allDigits},
	{"t_ts4", "r 2", "after.v after.vn after.vd", `"1970-01-01T00:00:01Z"`, `"1970-01-01T00:00:01.0000Z"`, allDigits},
	{"t_ts4", "r 3", "after.v after.vn after.vd", `"2038-01-19T03:14:07Z"`, `"2038-01-19T03:14:07.0000Z"`, allDigits},
	{"t_ts4", "r 5", "after.v after.vn after.vd", `"2024-07-01T02:30:00.5Z"`, `"2024-07-01T02:30:00.5000Z"`, allDigits},
	{"t_ts4", "r 6", "after.vn", `"1970-01-01T00:00:01Z"`, `"1970-01-01T00:00:01.0000Z"`, allDigits},
	{"t_ts4", "r 6", "after.vd", `"2024-02-29T12:34:56.789Z"`, `"2024-02-29T12:34:56.7890Z"`, allDigits},
	{"t_ts4", "r 7", "after.vn", `"2024-02-29T12:34:56.789Z"`, `"2024-02-29T12:34:56.7890Z"`, allDigits},
	{"t_ts6", "r 2", "after.v after.vn after.vd", `"1970-01-01T00:00:01Z"`, `"1970-01-01T00:00:01.000000Z"`, allDigits},
	{"t_ts6", "r 3", "after.v after.vn after.vd", `"2038-01-19T03:14:07Z"`, `"2038-01-19T03:14:07.000000Z"`, allDigits},
	{"t_ts6", "r 5", "after.v after.vn after.vd", `"2024-07-01T02:30:00.5Z"`, `"2024-07-01T02:30:00.500000Z"`, allDigits},
	{"t_ts6", "r 6", "after.vn", `"1970-01-01T00:00:01Z"`, `"1970-01-01T00:00:01.000000Z"`, allDigits},
}
