package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/schema"
)

const (
	narrow = `{"type":"record","name":"Key","fields":[{"name":"id","type":"long"}]}`
	wide   = `{"type":"record","name":"Key","fields":[{"name":"id","type":"long"},{"name":"v","type":["null","string"],"default":null}]}`
)

// password stands in every test's login; nothing may print it.
const password = "pa55-word"

func open(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fake(t *testing.T, opts ...srfake.Option) *srfake.Registry {
	t.Helper()
	r := srfake.New(opts...)
	t.Cleanup(r.Close)
	return r
}

// serve answers every request with a status and a body.
func serve(t *testing.T, status int, body string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestClient_RegistersOnceAndRemembers(t *testing.T) {
	r := fake(t)
	var asked atomic.Int32
	r.Intercept(func(http.ResponseWriter, *http.Request) bool { asked.Add(1); return false })
	c := open(t, Config{URL: r.URL() + "/"})
	ctx := t.Context()

	if _, _, found, err := c.Latest(ctx, "s-key"); found || err != nil {
		t.Fatalf("an unknown subject: found %v, %v", found, err)
	}
	first, err := c.Register(ctx, "s-key", narrow)
	if err != nil {
		t.Fatal(err)
	}
	before := asked.Load()
	again, err := c.Register(ctx, "s-key", narrow)
	if err != nil || again != first || asked.Load() != before {
		t.Errorf("again: id %d after %d, %v, %d requests", again, first, err, asked.Load()-before)
	}
	second, err := c.Register(ctx, "s-key", wide)
	if err != nil || second == first {
		t.Errorf("another version: id %d after %d, %v", second, first, err)
	}
	text, id, found, err := c.Latest(ctx, "s-key")
	if err != nil || !found || id != second || text != wide {
		t.Errorf("newest version: %q, id %d, found %v, %v", text, id, found, err)
	}
	if text, err := c.Schema(ctx, first); err != nil || text != narrow {
		t.Errorf("schema %d: %q, %v", first, text, err)
	}
	other, err := open(t, Config{URL: r.URL()}).Register(ctx, "s-key", narrow)
	if err != nil || other != first {
		t.Errorf("after a restart: id %d, want %d, %v", other, first, err)
	}
}

func TestClient_WaitsWhileTheRegistryIsAwayOrBroken(t *testing.T) {
	for name, fail := range map[string]func(http.ResponseWriter){
		"500": func(w http.ResponseWriter) {
			w.WriteHeader(500)
			fmt.Fprint(w, `{"error_code":50001,"message":"Error in the backend datastore"}`)
		},
		"503 of a proxy": func(w http.ResponseWriter) {
			w.WriteHeader(503)
			fmt.Fprint(w, "<html>\n<body>no upstream</body></html>")
		},
		"429":                    func(w http.ResponseWriter) { w.WriteHeader(429) },
		"connection that breaks": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			r := fake(t)
			c := open(t, Config{URL: r.URL()})
			var left atomic.Int32
			left.Store(3)
			said := make(chan string, 10)
			r.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
				said <- c.Waiting()
				if left.Add(-1) < 0 {
					return false
				}
				fail(w)
				return true
			})
			id, err := c.Register(t.Context(), "s-value", wide)
			if err != nil || id == 0 {
				t.Fatalf("id %d, %v", id, err)
			}
			close(said)
			var all []string
			for s := range said {
				all = append(all, s)
			}
			if len(all) != 4 || all[0] != "" || !strings.Contains(all[1], r.URL()) {
				t.Errorf("Waiting at each request: %q", all)
			}
			if s := c.Waiting(); s != "" {
				t.Errorf("Waiting afterwards: %q", s)
			}
		})
	}
}

func TestClient_WaitingEndsWithTheContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	l.Close() // nobody listens there now
	c := open(t, Config{URL: url, Username: "u", Password: password})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, _, _, err := c.Latest(ctx, "s-value")
		failed <- err
	}()
	for c.Waiting() == "" {
		time.Sleep(time.Millisecond)
	}
	if s := c.Waiting(); !strings.Contains(s, "schema registry at "+url) || !strings.Contains(s, "connection refused") {
		t.Errorf("Waiting: %q", s)
	}
	cancel()
	err = <-failed
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrRefused) || strings.Contains(err.Error(), password) {
		t.Errorf("error: %v", err)
	}
	if s := c.Waiting(); s != "" {
		t.Errorf("Waiting afterwards: %q", s)
	}
}

// A transport that always fails costs no time in a bubble.
type broken struct{ asked atomic.Int32 }

func (b *broken) RoundTrip(*http.Request) (*http.Response, error) {
	b.asked.Add(1)
	return nil, errors.New("broken")
}

func TestClient_AsksLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, Config{URL: "http://127.0.0.1:1"})
		var said bytes.Buffer
		c.log = slog.New(slog.NewTextHandler(&said, nil))
		way := &broken{}
		api, err := sr.NewClient(sr.URLs("http://127.0.0.1:1"), sr.HTTPClient(&http.Client{Transport: way}))
		if err != nil {
			t.Fatal(err)
		}
		c.api = api
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if _, err := c.Register(ctx, "s", narrow); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error: %v", err)
		}
		if n := way.asked.Load(); n < 80 || n > 250 {
			t.Errorf("%d requests in 10 minutes", n)
		}
		// At once, and about 30, 90, 210 and 450 s later.
		if n := strings.Count(said.String(), "waiting for it"); n != 5 {
			t.Errorf("%d warnings in 10 minutes:\n%s", n, said.String())
		}
	})
}

func TestClient_RefusalsAreAnswers(t *testing.T) {
	for _, c := range []struct {
		name         string
		status       int
		body         string
		cfg          Config
		incompatible bool
		want         []string
	}{
		{
			name: "Incompatible", status: 409, incompatible: true,
			body: `{"error_code":409,"message":"Schema being registered is incompatible with an earlier schema for subject \"s-value\", details: [{errorType:'READER_FIELD_MISSING_DEFAULT_VALUE'}]"}`,
			want: []string{"subject s-value", "READER_FIELD_MISSING_DEFAULT_VALUE"},
		},
		{
			name: "IncompatibleAtApicurio", status: 409, incompatible: true,
			body: `{"message":"Incompatible artifact: s-value [AVRO], num of incompatible diffs: {1}","error_code":409,"name":"RuleViolationException"}`,
			want: []string{"subject s-value", "incompatible diffs: {1}"},
		},
		{
			name: "NoLogin", status: 401, body: `{"error_code":401,"message":"Unauthorized"}`,
			want: []string{"401", "set registry.username"},
		},
		{
			name: "WrongPassword", status: 401, cfg: Config{Username: "u", Password: password},
			want: []string{"401", "correct registry.username"},
		},
		{
			name: "NoRight", status: 403, body: `{"error_code":40301,"message":"User is denied operation Write on Subject: s-value"}`,
			want: []string{"is denied operation Write", "grant our user", "s-value"},
		},
		{
			name: "IllegalSchema", status: 422, body: `{"error_code":42201,"message":"Input schema is an invalid Avro schema"}`,
			want: []string{"422", "invalid Avro schema", "exclude the table"},
		},
		{
			name: "ReadOnly", status: 422, body: `{"error_code":42205,"message":"Subject s-value is in read-only mode"}`,
			want: []string{"read-only", "READWRITE", "/mode"},
		},
		{
			name: "NoRegistryThere", status: 404, body: "<html>\n  404 page not found " + strings.Repeat("x", 5000) + "</html>",
			want: []string{"404 page not found", "base address of the registry's API"},
		},
		{
			name: "SomethingElseThere", status: 200, body: "<html>welcome</html>",
			want: []string{"base address of the registry's API"},
		},
		{
			name: "AnswerWithoutID", status: 200, body: "{}",
			want: []string{"without a schema id"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.URL = serve(t, c.status, c.body).URL
			_, err := open(t, c.cfg).Register(t.Context(), "s-value", narrow)
			want := ErrRefused
			var detail *schema.IncompatibleError
			if c.incompatible {
				want = schema.ErrIncompatible
				if !errors.As(err, &detail) || detail.Subject != "s-value" || detail.Reason == "" {
					t.Errorf("no detail: %#v", detail)
				}
			}
			if !errors.Is(err, want) {
				t.Fatalf("error: %v, want %v", err, want)
			}
			for _, s := range c.want {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
			if s := err.Error(); strings.Contains(s, password) || strings.Contains(s, "\n") || len(s) > 1000 {
				t.Errorf("not one clear sentence: %q", s)
			}
		})
	}
}

func TestClient_RedirectsInCirclesAreRefused(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(s.Close)
	_, err := open(t, Config{URL: s.URL}).Register(t.Context(), "s-value", narrow)
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "redirects again and again") {
		t.Errorf("error: %v", err)
	}
}

func TestClient_IncompatibleNamesEveryField(t *testing.T) {
	var fields []string
	for i := range 6 {
		fields = append(fields, fmt.Sprintf("{errorType:'READER_FIELD_MISSING_DEFAULT_VALUE', description:'The field 'f%d' at path '/fields/0/type/1/fields/%[1]d' in the new schema has no default value and is missing in the old schema', additionalInfo:'f%[1]d'}", i))
	}
	body := fmt.Sprintf(`{"error_code":409,"message":%q}`, "Schema being registered is incompatible with an earlier schema, details: ["+strings.Join(fields, ", ")+"]")
	_, err := open(t, Config{URL: serve(t, 409, body).URL}).Register(t.Context(), "s-value", narrow)
	if !errors.Is(err, schema.ErrIncompatible) || !strings.Contains(err.Error(), "additionalInfo:'f5'") {
		t.Errorf("error: %v", err)
	}
}

func TestClient_SubjectOfAnotherKindIsRefused(t *testing.T) {
	r := fake(t)
	r.SeedSchema("s-value", 1, 1, sr.Schema{Schema: `{"type":"object"}`, Type: sr.TypeJSON})
	_, _, _, err := open(t, Config{URL: r.URL()}).Latest(t.Context(), "s-value")
	if !errors.Is(err, schema.ErrIncompatible) || !strings.Contains(err.Error(), "not Avro") {
		t.Errorf("error: %v", err)
	}
}

func TestClient_LogsIn(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		cfg    Config
	}{
		"Basic":  {"Basic dTpwYTU1LXdvcmQ=", Config{Username: "u", Password: password}},
		"Bearer": {"Bearer " + password, Config{Token: password}},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.URL = fake(t, srfake.WithAuth(c.header)).URL()
			if _, err := open(t, c.cfg).Register(t.Context(), "s", narrow); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClient_TriesEachAddress(t *testing.T) {
	r := fake(t)
	c := open(t, Config{URL: "http://127.0.0.1:1, " + r.URL()})
	if _, err := c.Register(t.Context(), "s", narrow); err != nil {
		t.Error(err)
	}
}

func TestClient_TLS(t *testing.T) {
	backend := srfake.NewRegistry()
	s := httptest.NewUnstartedServer(backend.Handler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	der, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(cert, block, 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)); err != nil {
		t.Fatal(err)
	}

	if _, err := open(t, Config{URL: s.URL, CAFile: ca, CertFile: cert, KeyFile: key}).Register(t.Context(), "s", narrow); err != nil {
		t.Errorf("both sides known: %v", err)
	}
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"UnknownCA":     {Config{URL: s.URL}, "registry.ca_file"},
		"NoCertificate": {Config{URL: s.URL, CAFile: ca}, "registry.cert_file"},
		"NoTLSThere":    {Config{URL: strings.Replace(serve(t, 200, "{}").URL, "http:", "https:", 1)}, "http://"},
	} {
		_, err := open(t, c.cfg).Register(t.Context(), "s", narrow)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want the remedy %s", name, err, c.want)
		}
	}
	if _, err := New(Config{URL: s.URL, CAFile: key}, nil); err == nil || !strings.Contains(err.Error(), "no PEM certificate") {
		t.Errorf("a file without a certificate: %v", err)
	}
}

func TestClient_Check(t *testing.T) {
	readOnly := fake(t, srfake.WithGlobalCompat(sr.CompatBackward))
	if set := open(t, Config{URL: readOnly.URL()}).api.SetMode(t.Context(), sr.ModeReadOnly)[0]; set.Err != nil {
		t.Fatal(set.Err)
	}
	for _, c := range []struct {
		name    string
		url     string
		warning bool
		want    []string // what and remedy; nil: nothing is found
	}{
		{"Fine", fake(t, srfake.WithGlobalCompat(sr.CompatBackward)).URL(), false, nil},
		{"NoCompatibility", fake(t, srfake.WithGlobalCompat(sr.CompatNone)).URL(), true, []string{"is NONE", `{"compatibility": "BACKWARD"}`}},
		{"Full", fake(t, srfake.WithGlobalCompat(sr.CompatFull)).URL(), true, []string{"is FULL", "BACKWARD"}},
		{"ReadOnly", readOnly.URL(), false, []string{"READONLY", "READWRITE"}},
		{"Away", "http://127.0.0.1:1", false, []string{"connection refused", "start it"}},
		{"Broken", serve(t, 500, "").URL, false, []string{"500", "start it"}},
		{"WrongAddress", serve(t, 404, "404 page not found").URL, false, []string{"404", "base address"}},
		{"NoLogin", fake(t, srfake.WithAuth("Bearer x")).URL(), false, []string{"401", "registry.username"}},
		{"NoSettings", serve(t, 404, `{"error_code":40408,"message":"no compatibility"}`).URL, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := open(t, Config{URL: c.url}).Check(t.Context())
			if c.want == nil {
				if err != nil {
					t.Errorf("found: %v", err)
				}
				return
			}
			var f *capture.Finding
			if !errors.As(err, &f) || f.Warning != c.warning {
				t.Fatalf("found: %v", err)
			}
			if !strings.Contains(f.What, c.want[0]) || !strings.Contains(f.Remedy, c.want[1]) {
				t.Errorf("found: %v, want %q", err, c.want)
			}
		})
	}
}

func TestClient_SpellsBracesForEveryRegistry(t *testing.T) {
	for text, spells := range map[string]bool{
		`{"default":"{}"}`: true, `{"default":["{}"]}`: false, `{"doc":"say \":\"{}\""}`: false, `{"default":{}}`: false, `{"default":" {}"}`: false,
	} {
		got := spelled(text)
		if !sameJSON(t, got, text) || (got != text) != spells || strings.Contains(got, `:"{}"`) {
			t.Errorf("%s is spelled %s", text, got)
		}
	}
}
