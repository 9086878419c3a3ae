package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/integration/servers"
	"github.com/headwaterdb/headwater/schema"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := servers.StopShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// A real registry that is not Confluent's: the answers by which it differs.
func TestReal_LivesWithApicurio(t *testing.T) {
	ctx := t.Context()
	url := servers.Own(t).RegistryWith(servers.RegistryConfig{}).URL
	c := open(t, Config{URL: url})
	if err := c.Check(ctx); err != nil {
		t.Errorf("a registry in order: %v", err)
	}
	if _, _, found, err := c.Latest(ctx, "real/ü-value"); found || err != nil {
		t.Fatalf("an unknown subject: found %v, %v", found, err)
	}
	id, err := c.Register(ctx, "real/ü-value", narrow)
	if err != nil {
		t.Fatal(err)
	}
	text, latest, found, err := c.Latest(ctx, "real/ü-value")
	if err != nil || !found || latest != id || text != narrow {
		t.Errorf("newest version: %q, id %d, found %v, %v", text, latest, found, err)
	}
	same, err := open(t, Config{URL: url}).Register(ctx, "real/ü-value", narrow)
	if err != nil || same != id {
		t.Errorf("after a restart: id %d, want %d, %v", same, id, err)
	}
	other, err := c.Register(ctx, "other-value", narrow)
	if err != nil || other != id {
		t.Errorf("the same record schema under another subject: id %d, want %d, %v", other, id, err)
	}

	const braces = `{"type":"record","name":"Key","fields":[{"name":"doc","type":"string","default":"{}"}]}`
	id, err = c.Register(ctx, "braces-value", braces)
	if err != nil {
		t.Errorf("the text default {}: %v", err)
	}
	if text, latest, _, err := c.Latest(ctx, "braces-value"); err != nil || latest != id || !sameJSON(t, text, braces) {
		t.Errorf("the text default {}: newest version %s, id %d, want %d, %v", text, latest, id, err)
	}

	const incompatible = `{"type":"record","name":"Key","fields":[{"name":"id","type":"string"}]}`
	_, err = c.Register(ctx, "real/ü-value", incompatible)
	var detail *schema.IncompatibleError
	if !errors.Is(err, schema.ErrIncompatible) || !errors.As(err, &detail) || detail.Subject != "real/ü-value" {
		t.Errorf("an incompatible version: %v", err)
	}
	_, err = c.Register(ctx, "broken-value", `{"type":"record"}`)
	if !errors.Is(err, ErrRefused) {
		t.Errorf("no record schema: %v", err)
	}
	if _, err := c.Schema(ctx, 1<<30); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "has no schema 1073741824") {
		t.Errorf("an unknown id: %v", err)
	}
	base, _, _ := strings.Cut(url, "/apis/")
	_, err = open(t, Config{URL: base}).Register(ctx, "s", narrow)
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "/apis/ccompat/v7") {
		t.Errorf("without the path of the API: %v", err)
	}
	if err := open(t, Config{URL: base}).Check(ctx); err == nil || !strings.Contains(err.Error(), "/apis/ccompat/v7") {
		t.Errorf("check without the path of the API: %v", err)
	}

	if set := c.api.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatNone})[0]; set.Err != nil {
		t.Fatal(set.Err)
	}
	var f *capture.Finding
	if err := c.Check(ctx); !errors.As(err, &f) || !f.Warning || !strings.Contains(f.What, "NONE") {
		t.Errorf("compatibility NONE: %v", err)
	}
	if _, err := c.Register(ctx, "real/ü-value", incompatible); err != nil {
		t.Errorf("with compatibility NONE: %v", err)
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Error(err)
	}
	return reflect.DeepEqual(x, y)
}
