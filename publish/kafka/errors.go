package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/headwaterdb/headwater/checkpoint"
	"github.com/headwaterdb/headwater/publish"
)

// classify adds to an error of the client what the publisher decides on (the table in
// publish/DESIGN.md): errors that only a person can mend match publish.ErrRefused and say
// how; the broker's word that our transaction is over matches publish.ErrFenced.
// Everything else is an accident, which a new start heals.
func (s *Sink) classify(err error) error {
	if is(err, kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.InvalidTxnState, kerr.InvalidProducerIDMapping,
		kerr.UnknownProducerID, kerr.OperationNotAttempted) {
		return fmt.Errorf("%w: %w", publish.ErrFenced, err)
	}
	if is(err, kerr.InvalidTransactionTimeout) {
		return refused(err, "lower transaction_timeout to at most the brokers' transaction.max.timeout.ms")
	}
	if is(err, kerr.TransactionalIDAuthorizationFailed, kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed) {
		return refused(err, s.rights())
	}
	return s.cfg.explain(err, s.connected)
}

// rights are the access rights that a pipeline needs, as the remedy of an error.
func (s *Sink) rights() string {
	id := ""
	if s.cfg.Delivery == ExactlyOnce {
		id = fmt.Sprintf("on TransactionalId %s Write and Describe; ", s.id)
	}
	return fmt.Sprintf("grant %son Topic %s Create, Describe, Read and Write; on each data topic Create, Describe and Write (kafka-acls --add --allow-principal …)",
		id, checkpoint.TopicName(s.name))
}

// explain marks the errors of settings that the brokers do not take, and adds the remedy.
// Of connecting and logging in, only those before the first success are for certain the
// settings' fault. Later, a broker or a password is being changed, which heals.
func (c *Config) explain(err error, connected bool) error {
	switch {
	case err == nil:
		return nil
	case is(err, kerr.UnsupportedVersion):
		return refused(err, "the brokers are too old; use Kafka 2.5 or later, or delivery: at-least-once")
	case is(err, kerr.InvalidReplicationFactor):
		return refused(err, "set topics.replication and checkpoint_replication to at most the number of brokers")
	case is(err, kerr.InvalidPartitions, kerr.InvalidTopicException, kerr.InvalidConfig, kerr.PolicyViolation):
		return refused(err, "correct the topics section, or make the topic by hand")
	}
	switch remedy, certain := c.connecting(err); {
	case remedy == "":
		return err
	case certain && !connected:
		return refused(err, remedy)
	default:
		return fmt.Errorf("%w; remedy, if it lasts: %s", err, remedy)
	}
}

// connecting says what to do about an error of connecting or logging in, or "". It is
// certain when nothing but the settings of one side can be the cause.
func (c *Config) connecting(err error) (remedy string, certain bool) {
	var (
		unknownCA x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		op        *net.OpError
	)
	switch {
	case is(err, kerr.SaslAuthenticationFailed):
		return "correct sasl.username and sasl.password", true
	case is(err, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState):
		return "set sasl.mechanism to one that the brokers offer on this port", true
	case errors.As(err, &unknownCA), errors.As(err, &hostname), errors.As(err, &invalid):
		return "set tls.ca_file to the certificate that signs the brokers', and tls.server_name to the name in it", true
	case errors.As(err, &record):
		return "the port does not speak TLS: set tls.enabled to false, or use the brokers' TLS port", true
	case strings.Contains(err.Error(), "tls alert record"): // the client has no type for it
		return "the port speaks TLS: set tls.enabled to true, or use the brokers' plaintext port", true
	case errors.As(err, &op) && op.Op == "remote error": // crypto/tls: an alert of the other side
		return "the brokers break off TLS with us: set tls.cert_file and tls.key_file to a certificate that they trust", true
	case !is(err, io.EOF, syscall.ECONNRESET):
		return "", false
	// What remains is also what a broker that goes down, or a proxy without one, looks like.
	case c.TLS.Enabled && (strings.Contains(err.Error(), "unable to dial") || strings.Contains(err.Error(), "using TLS when the broker is not expecting it")):
		return "the port closes the connection in the TLS handshake: if it does not speak TLS, set tls.enabled to false, or use the brokers' TLS port", false
	case errors.As(err, new(*kgo.ErrFirstReadEOF)):
		return "the port closes the connection at the first request: check whether it expects TLS (tls.enabled) or a login (sasl)", false
	}
	return "", false
}

func refused(err error, remedy string) error {
	return fmt.Errorf("%w: %w; remedy: %s", publish.ErrRefused, err, remedy)
}

// lost is the error of a topic that was deleted although records were written to it.
func lost(err error) error {
	return refused(fmt.Errorf("%w: the topic was deleted, and its records with it", err),
		"restore it; or, if its records are not missed, make it with as many partitions as it had and start once with --new, after which headwater checkpoint reread brings the rows of its table; or run headwater checkpoint reset, after which the next start publishes all tables again")
}

func is(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}
