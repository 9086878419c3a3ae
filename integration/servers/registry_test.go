package servers_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/headwaterdb/headwater/integration/servers"
)

func TestRegistry(t *testing.T) {
	t.Parallel()
	r := servers.Own(t).RegistryWith(servers.RegistryConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cl, err := sr.NewClient(sr.URLs(r.URL))
	if err != nil {
		t.Fatal(err)
	}
	const one = `{"type":"record","name":"r","fields":[{"name":"a","type":"int"}]}`
	made, err := cl.CreateSchema(ctx, "s", sr.Schema{Schema: one})
	if err != nil {
		t.Fatal(err)
	}
	read, err := cl.SchemaByID(ctx, made.ID)
	if err != nil {
		t.Fatal(err)
	}
	if read.Schema != one {
		t.Errorf("read schema %s, want %s", read.Schema, one)
	}
	// Refused under BACKWARD: a reader of the new one finds no b in old records.
	const incompatible = `{"type":"record","name":"r","fields":[{"name":"b","type":"int"}]}`
	if _, err := cl.CreateSchema(ctx, "s", sr.Schema{Schema: incompatible}); err == nil {
		t.Error("an incompatible schema was registered; want compatibility BACKWARD")
	}
}
