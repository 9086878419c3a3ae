package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/headwaterdb/headwater/capture"
)

// Check reports what keeps the registry from taking our record schemas, and as warnings
// what makes it less safe: joined findings ([capture.Finding]), or nil. It asks once and
// writes nothing.
func (c *Client) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*c.cfg.Timeout)
	defer cancel()
	global := c.api.Compatibility(ctx)[0]
	if global.Err != nil && !absent(global.Err) {
		return errors.Join(c.finding(global.Err))
	}
	var findings []error
	wrong := func(warning bool, remedy, format string, args ...any) {
		findings = append(findings, &capture.Finding{What: fmt.Sprintf(format, args...), Remedy: remedy, Warning: warning})
	}
	set := func(path, body string) string {
		return fmt.Sprintf("curl -X PUT -H 'Content-Type: application/json' -d '%s' %s/%s", body, c.addresses[0], path)
	}
	backward := set("config", `{"compatibility": "BACKWARD"}`)
	switch global.Level {
	case sr.CompatNone:
		wrong(true, backward, "the registry's compatibility is NONE: it takes every new version of a record schema, also one that readers of the older ones cannot work with")
	case sr.CompatForward, sr.CompatForwardTransitive, sr.CompatFull, sr.CompatFullTransitive:
		wrong(true, backward+", or set it for our subjects alone",
			"the registry's compatibility is %v: it will refuse the new version after a NOT NULL column without a default was dropped, and the pipeline then stops", global.Level)
	}
	switch mode := c.api.Mode(ctx)[0]; {
	case mode.Err != nil: // not every registry has modes
	case mode.Mode == sr.ModeReadOnly, mode.Mode == sr.ModeImport:
		wrong(false, set("mode", `{"mode": "READWRITE"}`), "the registry's mode is %v: it takes no new record schemas", mode.Mode)
	}
	return errors.Join(findings...)
}

// absent reports whether the registry answered, and only that it has no such setting.
func absent(err error) bool {
	var answer *sr.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound && answer.ErrorCode != 0 && answer.ErrorCode != http.StatusNotFound
}

// finding turns the error of a request into what is wrong and what mends it.
func (c *Client) finding(err error) *capture.Finding {
	err = c.classify(err, "")
	text := strings.TrimPrefix(err.Error(), ErrRefused.Error()+": ")
	what, remedy, _ := strings.Cut(text, "; remedy: ")
	if remedy == "" {
		remedy = "start it, or correct registry.url"
	}
	return &capture.Finding{What: fmt.Sprintf("%s cannot be used: %s", c.cfg, what), Remedy: remedy}
}
