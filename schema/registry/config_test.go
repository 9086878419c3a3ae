package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestConfig_ValidateReportsEverything(t *testing.T) {
	c := Config{
		URL: "127.0.0.1:8081, http://u:" + password + "@r:8081, http://r?x=1", Password: password, Token: password,
		CertFile: "c.pem", Timeout: 1,
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"url: address 1", "url: address 2 holds a login", "url: address 3", "username: missing", "cert_file", "timeout: 1ns"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), password) {
		t.Errorf("it prints a secret:\n%v", err)
	}
}

func TestConfig_ValidateRefusesWhatNoHeaderCarries(t *testing.T) {
	for want, c := range map[string]Config{
		"token: it holds a control character": {Token: password + "\n"},
		"username: it holds a colon":          {Username: "u:v", Password: password},
	} {
		c.URL = "http://127.0.0.1:8081"
		c.SetDefaults()
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), password) {
			t.Errorf("error: %v, want %q", err, want)
		}
	}
}

func TestConfig_DefaultsAreValid(t *testing.T) {
	c := Config{URL: "http://127.0.0.1:8081"}
	c.SetDefaults()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c = Config{}
	c.SetDefaults()
	if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), "url: missing") {
		t.Errorf("without an address: %v", err)
	}
}

func TestConfig_PrintsNoSecret(t *testing.T) {
	c := Config{URL: "http://u:" + password + "@r:8081/x", Username: "u", Password: password, Token: password}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "registry", c)
	outer := struct{ Registry Config }{c}
	encoded, err := json.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{fmt.Sprint(c), string(encoded), log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		texts = append(texts, fmt.Sprintf(verb, c), fmt.Sprintf(verb, outer), fmt.Sprintf(verb, &outer))
	}
	for _, s := range texts {
		if strings.Contains(s, password) || !strings.Contains(s, "http://r:8081/x") {
			t.Errorf("printed: %s", s)
		}
	}
}
