package schema

import "github.com/headwaterdb/headwater/capture"

// snapshotMarks are the values of the source block's "snapshot".
const snapshotMarks = "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"

// sourceType returns the source block of an origin: nine fields that every block
// begins with, and the origin's own.
func sourceType(o *capture.Origin) *Type {
	text := func() *Type { return &Type{Kind: String} }
	long := func() *Type { return &Type{Kind: Int64} }
	no := capture.TextValue("false")
	snapshot := semantic(String, FormString, nameEnum)
	snapshot.Params = []Param{{"allowed", snapshotMarks}}
	snapshot.Optional, snapshot.Default = true, &no

	t := &Type{
		Kind: Struct, Name: connectorName(o, "Source"), Version: 1,
		Fields: []Field{
			plain("version", text()), plain("connector", text()), plain("name", text()), plain("ts_ms", long()),
			plain("snapshot", snapshot), plain("db", text()), plain("sequence", optional(text())),
			plain("ts_us", optional(long())), plain("ts_ns", optional(long())),
		},
	}
	for _, f := range o.Fields {
		ft := text()
		switch f.Type {
		case capture.TypeInt32:
			ft.Kind = Int32
		case capture.TypeInt64:
			ft.Kind = Int64
		}
		ft.Optional = f.Optional
		t.Fields = append(t.Fields, plain(f.Name, ft))
	}
	return t
}

// connectorName is the full name of a record that belongs to a connector.
func connectorName(o *capture.Origin, name string) string {
	return "io.debezium.connector." + o.Connector + "." + name
}

// transactionType is the block that ties a change to its source transaction.
func transactionType() *Type {
	return &Type{
		Kind: Struct, Name: "event.block", Version: 1, Optional: true,
		Fields: []Field{
			plain("id", &Type{Kind: String}), plain("total_order", &Type{Kind: Int64}),
			plain("data_collection_order", &Type{Kind: Int64}),
		},
	}
}
