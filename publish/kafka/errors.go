package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

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
	return refusedConnection(err)
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

// refusedConnection marks the errors of connecting and of settings that do not pass.
func refusedConnection(err error) error {
	var (
		unknownCA x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		alert     tls.AlertError
		eof       *kgo.ErrFirstReadEOF
	)
	switch {
	case err == nil:
		return nil
	case is(err, kerr.SaslAuthenticationFailed):
		return refused(err, "correct sasl.username and sasl.password")
	case is(err, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState):
		return refused(err, "set sasl.mechanism to one that the brokers offer on this port")
	case is(err, kerr.UnsupportedVersion):
		return refused(err, "the brokers are too old; use Kafka 2.5 or later, or delivery: at-least-once")
	case is(err, kerr.InvalidReplicationFactor):
		return refused(err, "set topics.replication and checkpoint_replication to at most the number of brokers")
	case is(err, kerr.InvalidPartitions, kerr.InvalidTopicException, kerr.InvalidConfig, kerr.PolicyViolation):
		return refused(err, "correct the topics section, or make the topic by hand")
	case errors.As(err, &unknownCA), errors.As(err, &hostname), errors.As(err, &invalid):
		return refused(err, "set tls.ca_file to the certificate that signs the brokers', and tls.server_name to the name in it")
	case errors.As(err, &record):
		return refused(err, "the port does not speak TLS: set tls.enabled to false, or use the brokers' TLS port")
	case errors.As(err, &alert):
		return refused(err, "the brokers do not take our certificate: set tls.cert_file and tls.key_file to one that they trust")
	case errors.As(err, &eof), errors.Is(err, io.EOF):
		// Also what a broker that is going down looks like, so it is worth a retry.
		return fmt.Errorf("%w (check tls and sasl in the configuration)", err)
	}
	return err
}

func refused(err error, remedy string) error {
	return fmt.Errorf("%w: %w; remedy: %s", publish.ErrRefused, err, remedy)
}

func is(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}
