package schema

import "github.com/headwaterdb/headwater/capture"

// Message returns the record types of messages that applications put into the log of
// an origin. The content's type follows binary.handling.mode.
func (b *Builder) Message(o *capture.Origin) (key, value *Type) {
	prefix := func() Field { return plain("prefix", &Type{Kind: String, Form: FormString, Optional: true}) }
	key = &Type{Kind: Struct, Name: connectorName(o, "MessageKey"), Version: 1, Fields: []Field{prefix()}}
	message := &Type{
		Kind: Struct, Name: connectorName(o, "Message"), Version: 1,
		Fields: []Field{prefix(), plain("content", optional(b.binaryType()))},
	}
	value = &Type{
		Kind: Struct, Name: connectorName(o, "MessageValue"), Version: 1,
		Fields: []Field{
			plain("op", &Type{Kind: String}), plain("ts_ms", &Type{Kind: Int64, Optional: true}),
			plain("source", sourceType(o)), plain("transaction", transactionType()), plain("message", message),
		},
	}
	return key, value
}
