package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headwaterdb/headwater/capture"
	"github.com/headwaterdb/headwater/checkpoint"
)

// Check reports everything about the brokers that keeps the pipeline from working, and as
// warnings what makes it less safe or slower than it could be: joined findings
// ([capture.Finding]), or nil. It writes nothing and fences nobody.
func (s *Sink) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	meta, err := s.admin.BrokerMetadata(ctx)
	if err != nil {
		return errors.Join(&capture.Finding{
			What:   fmt.Sprintf("Kafka cannot be reached at %v: %v", s.cfg.Brokers, s.cfg.explain(err, false)),
			Remedy: "correct brokers, tls and sasl in the kafka section",
		})
	}
	c := &check{Sink: s}
	c.cluster(brokers(ctx, s.conn, len(meta.Brokers)))
	if s.transactional() {
		c.transactions(ctx)
	}
	c.brokers(ctx, meta)
	c.checkpointTopic(ctx)
	return errors.Join(c.findings...)
}

type check struct {
	*Sink
	findings []error
}

func (c *check) wrong(remedy, format string, args ...any) {
	c.findings = append(c.findings, &capture.Finding{What: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (c *check) warn(remedy, format string, args ...any) {
	c.findings = append(c.findings, &capture.Finding{What: fmt.Sprintf(format, args...), Remedy: remedy, Warning: true})
}

// cluster looks at the number of brokers, those that are away included.
func (c *check) cluster(n int) {
	if n < 3 {
		c.warn("run three or more brokers in production", "the cluster has %d broker(s): what it acknowledged is gone with a disk", n)
	}
	for _, set := range []struct {
		name        string
		replication int16
	}{{"topics.replication", c.cfg.Topics.Replication}, {"checkpoint_replication", c.cfg.CheckpointReplication}} {
		if int(set.replication) > n {
			c.wrong("lower it, or add brokers", "%s is %d and the cluster has %d broker(s)", set.name, set.replication, n)
		}
	}
}

// transactions looks at the protocol that the brokers have agreed on, and at our
// transactional id.
func (c *check) transactions(ctx context.Context) {
	proto, err := c.protocol(ctx)
	if err != nil {
		c.wrong("", "%v", err)
		return
	}
	if proto.transactions < 2 {
		c.warn("use Kafka 4.0 or later, or raise the level: kafka-features upgrade --feature transaction.version=2",
			"the cluster is at transaction.version %d: a request that the network delivers very late could still hit a later transaction (KIP-890), which headwater makes unlikely but cannot exclude", proto.transactions)
	}
	if !proto.describes {
		return
	}
	if _, _, err := c.history(ctx); err != nil {
		remedy := ""
		if is(err, kerr.TransactionalIDAuthorizationFailed) {
			remedy = c.rights()
		}
		c.wrong(remedy, "the transactional id %s cannot be described: %v", c.id, err)
	}
}

// A brokerSetting is one that every broker should have. bad says what is wrong with a
// value, or "".
type brokerSetting struct {
	name   string
	bad    func(value string, brokers int) string
	remedy string
}

// brokerSettings are those of section "What the brokers must be" of publish/DESIGN.md.
func (c *check) brokerSettings() []brokerSetting {
	atLeast := func(want int64) func(string, int) string {
		return func(value string, brokers int) string {
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n < min(want, int64(brokers)) {
				return fmt.Sprintf("should be %d or more", min(want, int64(brokers)))
			}
			return ""
		}
	}
	return []brokerSetting{
		{name: "transaction.state.log.replication.factor", bad: atLeast(3), remedy: "the commits of transactions are lost with fewer replicas; set it before the first transaction of the cluster"},
		{name: "transaction.state.log.min.isr", bad: atLeast(2), remedy: "set it to 2"},
		{name: "unclean.leader.election.enable", bad: func(v string, _ int) string {
			if v == "true" {
				return "should be false: it lets a replica that has missed records become the leader"
			}
			return ""
		}, remedy: "set it to false"},
		{name: "transaction.max.timeout.ms", bad: func(v string, _ int) string {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil && time.Duration(n)*time.Millisecond < c.cfg.TransactionTimeout {
				return fmt.Sprintf("is below our transaction_timeout, %v", c.cfg.TransactionTimeout)
			}
			return ""
		}, remedy: "raise it, or lower transaction_timeout"},
		{name: "add.partitions.to.txn.retry.backoff.ms", bad: func(v string, _ int) string {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil && n > 5 {
				return "makes the first record of a transaction wait that long when it follows the last one closely"
			}
			return ""
		}, remedy: "set it to 1 for lower latency"},
	}
}

// brokers looks at the brokers' settings, and names each bad one once.
func (c *check) brokers(ctx context.Context, meta kadm.Metadata) {
	described, err := c.admin.DescribeBrokerConfigs(ctx, meta.Brokers.NodeIDs()...)
	if err != nil {
		c.warn("grant DescribeConfigs on the Cluster, or check them by hand", "the brokers' settings cannot be read: %v", err)
		return
	}
	seen := map[string]bool{}
	for _, broker := range described {
		if broker.Err != nil {
			if !seen["error"] {
				c.warn("grant DescribeConfigs on the Cluster, or check them by hand", "the settings of broker %s cannot be read: %v", broker.Name, broker.Err)
			}
			seen["error"] = true
			continue
		}
		for _, want := range c.brokerSettings() {
			for _, have := range broker.Configs {
				if have.Key != want.name || have.Value == nil || seen[want.name] {
					continue
				}
				bad := want.bad(*have.Value, len(meta.Brokers))
				if bad == "" {
					continue
				}
				seen[want.name] = true
				report := c.warn
				if want.name == "transaction.max.timeout.ms" && c.transactional() {
					report = c.wrong
				}
				report(want.remedy, "broker %s: %s = %s %s", broker.Name, want.name, *have.Value, bad)
			}
		}
	}
}

// checkpointTopic looks at the checkpoint topic, if it exists, and at what we may do with it.
func (c *check) checkpointTopic(ctx context.Context) {
	topic := checkpoint.TopicName(c.name)
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &topic
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, c.conn)
	if err == nil && len(resp.Topics) == 1 {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition): // made at the first start
		return
	case is(err, kerr.TopicAuthorizationFailed):
		c.wrong(c.rights(), "topic %s may not be described", topic)
		return
	case err != nil:
		c.wrong("", "topic %s cannot be described: %v", topic, err)
		return
	}
	for _, op := range []kmsg.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationWrite} {
		// math.MinInt32 says that the broker does not tell.
		if allowed := resp.Topics[0].AuthorizedOperations; allowed > 0 && allowed&(1<<op) == 0 {
			c.wrong(c.rights(), "topic %s: %s is not allowed", topic, op)
		}
	}
	if n := len(resp.Topics[0].Partitions); n != 1 {
		c.wrong("make it with one partition", "topic %s has %d partitions", topic, n)
	}
	configs, err := c.admin.DescribeTopicConfigs(ctx, topic)
	if err != nil || len(configs) != 1 || configs[0].Err != nil {
		return // a matter of rights that nothing here depends on
	}
	for _, have := range configs[0].Configs {
		if have.Key == "cleanup.policy" && have.Value != nil && *have.Value != "compact" {
			c.wrong(fmt.Sprintf("kafka-configs --alter --entity-type topics --entity-name %s --add-config cleanup.policy=compact", topic),
				"topic %s: cleanup.policy = %s; the checkpoint would be deleted with age", topic, *have.Value)
		}
	}
}
