package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/headwaterdb/headwater/schema"
)

// ErrRefused says that the registry, as it and we are configured, does not take what we
// ask. Retrying does not help, the pipeline stops.
var ErrRefused = errors.New("the schema registry refuses what headwater asks")

// errRedirects says that the answers lead in circles: to a login page, mostly.
var errRedirects = errors.New("it redirects again and again")

func refused(err error, remedy string) error {
	return fmt.Errorf("%w: %w; remedy: %s", ErrRefused, brief{err}, remedy)
}

// transient reports whether waiting may heal err.
func transient(err error) bool {
	var answer *sr.ResponseError
	if !errors.As(err, &answer) {
		return !errors.Is(err, ErrRefused) && !errors.Is(err, schema.ErrIncompatible)
	}
	switch answer.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	}
	return answer.StatusCode >= 500
}

// classify adds to an error of one request what the caller decides on. subject may be "".
func (c *Client) classify(err error, subject string) error {
	var answer *sr.ResponseError
	if errors.As(err, &answer) {
		return c.classifyAnswer(err, answer, subject)
	}
	var way *url.Error
	if errors.As(err, &way) { // what it wraps says it; the rest repeats the address
		err = fmt.Errorf("it cannot be reached: %w", way.Err)
	}
	var (
		unknownCA x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		remote    *net.OpError
		syntax    *json.SyntaxError
		form      *json.UnmarshalTypeError
	)
	switch {
	case errors.As(err, &unknownCA), errors.As(err, &hostname), errors.As(err, &invalid):
		return refused(err, "set registry.ca_file to the certificate that signs the registry's, and let registry.url name the host that is in it")
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return refused(err, "let registry.url begin with http://, or name the registry's HTTPS port")
	case errors.As(err, &remote) && remote.Op == "remote error": // a TLS alert
		return refused(err, "set registry.cert_file and registry.key_file to a certificate that the registry trusts")
	case errors.As(err, &syntax), errors.As(err, &form), errors.Is(err, errRedirects):
		return refused(err, remedyAddress)
	}
	return brief{err}
}

const remedyAddress = "let registry.url name the base address of the registry's API (Apicurio: …/apis/ccompat/v7)"

func (c *Client) classifyAnswer(err error, answer *sr.ResponseError, subject string) error {
	about := ""
	if subject != "" {
		about = " on the subject " + subject
	}
	err = fmt.Errorf("it answers %d to %s: %w", answer.StatusCode, answer.Method, brief{err})
	switch code := answer.ErrorCode; {
	case transient(answer):
		return err
	case answer.StatusCode == http.StatusConflict:
		return &schema.IncompatibleError{Subject: subject, Reason: "the registry says: " + oneLine(answer, longestReason)}
	case answer.StatusCode == http.StatusUnauthorized && c.cfg.Username == "" && c.cfg.Token == "":
		return refused(err, "it wants a login: set registry.username and registry.password, or registry.token")
	case answer.StatusCode == http.StatusUnauthorized:
		return refused(err, "correct registry.username and registry.password, or registry.token")
	case answer.StatusCode == http.StatusForbidden:
		return refused(err, "grant our user the rights to read and to write"+about)
	case code == sr.ErrOperationNotPermitted.Code:
		return refused(err, fmt.Sprintf(`let it take registrations: curl -X PUT -H 'Content-Type: application/json' -d '{"mode": "READWRITE"}' %s/mode`, c.addresses[0]))
	case answer.StatusCode == http.StatusUnprocessableEntity:
		return refused(err, "exclude the table, or choose settings of the format section that make a record schema which the registry reads")
	case answer.StatusCode == http.StatusNotFound, answer.StatusCode == http.StatusMethodNotAllowed:
		return refused(err, remedyAddress)
	}
	return refused(err, "ask the registry's log why, and correct the registry section")
}

// notFound reports whether the answer is that there is no such subject or version.
func notFound(err error) bool {
	var answer *sr.ResponseError
	if !errors.As(err, &answer) || answer.StatusCode != http.StatusNotFound {
		return false
	}
	switch answer.ErrorCode {
	case sr.ErrSubjectNotFound.Code, sr.ErrVersionNotFound.Code, sr.ErrSubjectSoftDeleted.Code, sr.ErrSchemaVersionSoftDeleted.Code:
		return true
	}
	return false
}

// brief is an error on one line of a bearable length: registries and what stands before
// them answer with whole pages.
type brief struct{ error }

func (e brief) Unwrap() error { return e.error }

func (e brief) Error() string { return oneLine(e.error, 300) }

// longestReason bounds, in runes, why a version is incompatible. It is longer than other
// texts: Confluent's registry names each field in a sentence.
const longestReason = 2000

// oneLine is the text of err without line breaks, cut after that many runes.
func oneLine(err error, most int) string {
	s := []rune(strings.Join(strings.Fields(err.Error()), " "))
	if len(s) > most {
		s = append(s[:most], '…')
	}
	return string(s)
}

// stopped reports whether err comes from the end of ctx and not from the request's own
// time limit.
func stopped(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}
