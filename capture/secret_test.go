package capture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecret_ShowsNowhere(t *testing.T) {
	type section struct{ Password, None Secret }
	c := section{Password: "hunter2"}
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "section", c, "password", c.Password)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "section", c, "password", c.Password)
	texts := []string{string(encoded), log.String(), fmt.Sprint(c, &c, c.Password), fmt.Sprintf("%+v %#v %T", c, c, c)}
	for _, verb := range "vsqxXdtbcoUeg" {
		texts = append(texts, fmt.Sprintf("%"+string(verb), c), fmt.Sprintf("%"+string(verb), c.Password))
	}
	for _, text := range texts {
		if strings.Contains(text, "hunter2") || strings.Contains(strings.ToLower(text), fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("the secret shows in %s", text)
		}
	}
	var read section
	if err := json.Unmarshal([]byte(`{"Password": "hunter2"}`), &read); err != nil || read != c {
		t.Errorf("it is not read as it is: %v", err)
	}
}
