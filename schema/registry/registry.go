package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/headwaterdb/headwater/schema"
)

// A Client registers and looks up record schemas. It may be used by several goroutines.
type Client struct {
	cfg       Config
	addresses []string
	api       *sr.Client
	log       *slog.Logger

	mu      sync.Mutex // guards the fields below
	ids     map[version]int
	waiters int    // calls that wait for the registry
	waiting string // why, when waiters > 0
}

// A version is a record schema under a subject.
type version struct{ subject, text string }

// New returns a client. It connects to nothing yet, but reads the files of certificates.
// A nil log means silence.
func New(cfg Config, log *slog.Logger) (*Client, error) {
	cfg.SetDefaults()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure the schema registry: %w", err)
	}
	certs, err := cfg.tls()
	if err != nil {
		return nil, fmt.Errorf("configure the schema registry: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = certs
	c := &Client{cfg: cfg, addresses: cfg.addresses(), log: log, ids: make(map[version]int)}
	opts := []sr.ClientOpt{
		sr.URLs(cfg.addresses()...), sr.UserAgent("headwater"),
		sr.HTTPClient(&http.Client{Transport: transport, Timeout: cfg.Timeout, CheckRedirect: checkRedirect}),
	}
	switch {
	case cfg.Token != "":
		opts = append(opts, sr.BearerToken(string(cfg.Token)))
	case cfg.Username != "":
		opts = append(opts, sr.BasicAuth(cfg.Username, string(cfg.Password)))
	}
	if c.api, err = sr.NewClient(opts...); err != nil {
		return nil, fmt.Errorf("configure the schema registry: %w", err)
	}
	return c, nil
}

// checkRedirect follows a few redirects, as of a registry that moved to https.
func checkRedirect(_ *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errRedirects
	}
	return nil
}

// Register makes the record schema a version of the subject unless it is one already, and
// returns its id. It waits while the registry is away. A version that the subject's
// compatibility refuses gives a *schema.IncompatibleError, other refusals ErrRefused.
func (c *Client) Register(ctx context.Context, subject, text string) (int, error) {
	v := version{subject, spelled(text)}
	c.mu.Lock()
	id, known := c.ids[v]
	c.mu.Unlock()
	if known {
		return id, nil
	}
	err := c.retry(ctx, subject, func() (err error) {
		id, err = c.api.RegisterSchema(ctx, subject, sr.Schema{Schema: v.text, Type: sr.TypeAvro}, -1, -1)
		if err == nil && id <= 0 {
			err = refused(fmt.Errorf("it answers without a schema id to the registration under %s", subject), remedyAddress)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	c.ids[v] = id
	c.mu.Unlock()
	return id, nil
}

// spelled is text in a spelling that every registry reads. The text default "{}", as
// jsonb columns often have, is an empty object to Apicurio, which then refuses the record
// schema; to every reader of JSON the two spellings are the same text.
func spelled(text string) string { return strings.ReplaceAll(text, `:"{}"`, `:"\u007b}"`) }

// Latest returns the newest version of a subject, if there is one. It waits while the
// registry is away.
func (c *Client) Latest(ctx context.Context, subject string) (text string, id int, found bool, err error) {
	var latest sr.SubjectSchema
	err = c.retry(ctx, subject, func() (err error) {
		latest, err = c.api.SchemaByVersion(ctx, subject, -1)
		found = err == nil
		if notFound(err) {
			return nil
		}
		return err
	})
	switch {
	case err != nil || !found:
		return "", 0, false, err
	case latest.Type != sr.TypeAvro:
		return "", 0, false, &schema.IncompatibleError{
			Subject: subject,
			Reason:  fmt.Sprintf("its newest version is %v and not Avro; remedy: delete the subject if nobody reads it, or choose another topics.prefix", latest.Type),
		}
	}
	return latest.Schema.Schema, latest.ID, true, nil
}

// Schema returns the record schema with that id. It waits while the registry is away.
func (c *Client) Schema(ctx context.Context, id int) (text string, err error) {
	err = c.retry(ctx, "", func() error {
		s, err := c.api.SchemaByID(ctx, id)
		var answer *sr.ResponseError
		if errors.As(err, &answer) && answer.ErrorCode == sr.ErrSchemaNotFound.Code {
			return refused(fmt.Errorf("it has no schema %d", id), "let registry.url name the registry that the records were written with")
		}
		text = s.Schema
		return err
	})
	return text, err
}

// Waiting names what calls are waiting for at present, as in "waiting for …"; "" when
// none is.
func (c *Client) Waiting() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting
}

// Pauses between attempts: each is half of a step that doubles, plus a random part of it.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// The log says at once that we wait, and then less and less often.
	firstReminder   = 30 * time.Second
	longestReminder = 5 * time.Minute
)

// retry asks until there is an answer that waiting cannot change, or ctx ends. Only here
// the classes of errors are told apart.
func (c *Client) retry(ctx context.Context, subject string, ask func() error) error {
	var began, logged time.Time
	var reminder time.Duration
	for step := firstPause; ; step = min(2*step, longestPause) {
		err := ask()
		if err == nil {
			c.arrived(began)
			return nil
		}
		if stopped(ctx, err) {
			c.gone(began)
			return fmt.Errorf("%s: %w", c.cfg, ctx.Err())
		}
		err = c.classify(err, subject)
		if !transient(err) {
			c.gone(began)
			return fmt.Errorf("%s: %w", c.cfg, err)
		}
		now := time.Now()
		if began.IsZero() {
			began = now
		}
		c.wait(err, began == now)
		if now.Sub(logged) >= reminder {
			logged, reminder = now, min(max(2*reminder, firstReminder), longestReminder)
			c.log.Warn("the schema registry cannot be used at present: waiting for it", "registry", c.cfg, "error", err)
		}
		select {
		case <-time.After(step/2 + rand.N(step)):
		case <-ctx.Done():
			c.gone(began)
			return fmt.Errorf("%s: %w while waiting, because %w", c.cfg, ctx.Err(), err)
		}
	}
}

// wait notes that a call waits because of err.
func (c *Client) wait(err error, begins bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if begins {
		c.waiters++
	}
	c.waiting = fmt.Sprintf("the %s: %v", c.cfg, err)
}

// gone notes that a call which waited since began, if it did, does so no more.
func (c *Client) gone(began time.Time) {
	if began.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiters--; c.waiters == 0 {
		c.waiting = ""
	}
}

// arrived is gone after an answer.
func (c *Client) arrived(began time.Time) {
	if !began.IsZero() {
		c.gone(began)
		c.log.Info("the schema registry answers again", "after", time.Since(began).Round(time.Millisecond))
	}
}
