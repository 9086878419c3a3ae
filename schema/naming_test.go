package schema

import (
	"slices"
	"strings"
	"testing"

	"github.com/headwaterdb/headwater/capture"
)

func TestTopic_IsSanitizedAsDebeziumDoes(t *testing.T) {
	t.Parallel()
	n := Naming{Prefix: "pg"}
	n.SetDefaults()
	for _, c := range []struct{ schema, table, want string }{
		{"own", "orders", "pg.own.orders"},
		{"own", "Odd Name-1$", "pg.own.Odd_Name-1_"},
		{"own", "naïve", "pg.own.na_ve"},
		{"own", "a.b", "pg.own.a.b"},
		{"", "t", "pg.t"},
		{"own", "😀", "pg.own.__"},
		{"own", strings.Repeat("x", 300), "pg.own." + strings.Repeat("x", 242)},
	} {
		if got := n.Topic(capture.TableID{Schema: c.schema, Name: c.table}); got != c.want {
			t.Errorf("%s.%s: got %s, want %s", c.schema, c.table, got, c.want)
		}
	}
	if sanitizeTopic(".") != "_" || sanitizeTopic("..") != "__" {
		t.Error("Kafka's forbidden names are let through")
	}
	n.Delimiter = "-"
	if got := n.Topic(capture.TableID{Schema: "a", Name: "b"}); got != "pg-a-b" {
		t.Errorf("delimiter: got %s", got)
	}
	if n.MessageTopic() != "pg.message" {
		t.Errorf("message topic: got %s", n.MessageTopic())
	}
}

func TestCollisions_NamesTablesThatMeet(t *testing.T) {
	t.Parallel()
	n := Naming{Prefix: "pg"}
	n.SetDefaults()
	id := func(s string) capture.TableID { return capture.TableID{Schema: "s", Name: s} }
	got := n.Collisions([]capture.TableID{id("b c"), id("a"), id("b$c"), id("d")})
	if len(got) != 1 || !slices.Equal(got[0], []capture.TableID{id("b c"), id("b$c")}) {
		t.Errorf("got %v", got)
	}
}

func TestAdjuster_FollowsTheModes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ mode, name, field, schema string }{
		{"none", "1-ü.b", "1-ü.b", "1-ü.b"},
		{"avro", "a.b", "a_b", "a.b"},
		{"avro", "1st", "_1st", "_1st"},
		{"avro", "order-id", "order_id", "order_id"},
		{"avro", "ünï", "_n_", "_n_"},
		{"avro", "_x", "_x", "_x"},
		{"avro", "srv.db.2024sales.Value", "srv_db_2024sales_Value", "srv.db.2024sales.Value"},
		{"avro", "😀", "__", "__"},
		{"avro_unicode", "a_b", "a_u005fb", "a_u005fb"},
		{"avro_unicode", "a-b.c", "a_u002db_u002ec", "a_u002db.c"},
		{"avro_unicode", "1a", "_u0031a", "_u0031a"},
	} {
		if got := (adjuster{mode: c.mode}).adjust(c.name); got != c.field {
			t.Errorf("%s field %s: got %s, want %s", c.mode, c.name, got, c.field)
		}
		if got := (adjuster{mode: c.mode, dots: true}).adjust(c.name); got != c.schema {
			t.Errorf("%s schema %s: got %s, want %s", c.mode, c.name, got, c.schema)
		}
	}
}
