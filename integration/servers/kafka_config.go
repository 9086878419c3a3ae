package servers

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// kafkaUsers each have the password NAME-secret.
var kafkaUsers = []string{"alice", "bob", "admin"}

// kafkaLogging sends the log to standard output.
const kafkaLogging = `status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %-5p %c{1} %m%n
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
`

// configure chooses ports and writes what each node needs, over that of an earlier
// try.
func (k *Kafka) configure(ctx context.Context, c KafkaConfig, format string) error {
	const listeners = 4 // plain, controller, SASL, TLS
	ports, err := k.run.ports(ctx, listeners*c.Nodes)
	if err != nil {
		return err
	}
	cluster, err := kafkaID()
	if err != nil {
		return err
	}
	begin, err := os.ReadFile(format)
	if err != nil {
		return fmt.Errorf("read Kafka's format: %w", err)
	}
	k.nodes, k.Bootstrap, k.SASL, k.TLS = nil, nil, nil, nil
	var voters []string
	for i := range c.Nodes {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", i+1, ports[listeners*i+1]))
	}
	for i := range c.Nodes {
		id := i + 1
		name := filepath.Join(k.run.path, fmt.Sprintf("node-%d", id))
		n := &kafkaNode{id: id, config: name + ".properties", data: name, log: name + ".log"}
		k.nodes = append(k.nodes, n)

		addr := func(listener int) string {
			return fmt.Sprintf("127.0.0.1:%d", ports[listeners*i+listener])
		}
		s := kafkaSettings(c.Nodes)
		s["node.id"] = strconv.Itoa(id)
		s["log.dirs"] = n.data
		s["controller.quorum.voters"] = strings.Join(voters, ",")
		s["listeners"] = fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://%s", addr(0), addr(1))
		k.Bootstrap = append(k.Bootstrap, addr(0))
		if c.Auth {
			maps.Copy(s, k.authSettings())
			s["listeners"] += fmt.Sprintf(",SASL_PLAINTEXT://%s,SSL://%s", addr(2), addr(3))
			k.SASL = append(k.SASL, addr(2))
			k.TLS = append(k.TLS, addr(3))
		}
		maps.Copy(s, c.Settings)

		directory, err := kafkaID()
		if err != nil {
			return err
		}
		if err := os.RemoveAll(n.data); err != nil {
			return fmt.Errorf("make the storage of Kafka node %d: %w", id, err)
		}
		if err := os.Mkdir(n.data, 0o755); err != nil {
			return fmt.Errorf("make the storage of Kafka node %d: %w", id, err)
		}
		for file, text := range map[string]string{
			n.config: kafkaProperties(s),
			filepath.Join(n.data, "bootstrap.checkpoint"): string(begin),
			filepath.Join(n.data, "meta.properties"): kafkaProperties(map[string]string{
				"version": "1", "cluster.id": cluster, "node.id": strconv.Itoa(id), "directory.id": directory,
			}),
		} {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				return fmt.Errorf("make the storage of Kafka node %d: %w", id, err)
			}
		}
	}
	return nil
}

// kafkaSettings returns what all nodes have in common.
func kafkaSettings(nodes int) map[string]string {
	replicas, inSync := strconv.Itoa(min(nodes, 3)), "1"
	// A broker that restarts after SIGKILL waits for its old session to end.
	session := "3000"
	if nodes > 1 {
		session = "9000"
	}
	if nodes >= 3 {
		inSync = "2"
	}
	return map[string]string{
		"process.roles":                  "broker,controller",
		"controller.listener.names":      "CONTROLLER",
		"inter.broker.listener.name":     "PLAINTEXT",
		"listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL",
		"auto.create.topics.enable":      "false",
		"broker.session.timeout.ms":      session,
		"broker.heartbeat.interval.ms":   "500",

		"default.replication.factor":                       replicas,
		"min.insync.replicas":                              inSync,
		"offsets.topic.replication.factor":                 replicas,
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    inSync,
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            inSync,

		// Tests wait for transactions that nobody ends, and for groups that form.
		"transaction.max.timeout.ms":                                  "900000",
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
		"group.initial.rebalance.delay.ms":                            "0",

		// Small, for machines that run many servers.
		"offsets.topic.num.partitions":                 "4",
		"transaction.state.log.num.partitions":         "4",
		"share.coordinator.state.topic.num.partitions": "1",
		"log.cleaner.dedupe.buffer.size":               "2097152",
		"log.index.size.max.bytes":                     "1048576",
		"log.segment.bytes":                            "67108864",
		"offsets.topic.segment.bytes":                  "8388608",
		"transaction.state.log.segment.bytes":          "8388608",
		"num.network.threads":                          "2",
		"num.io.threads":                               "4",
		"background.threads":                           "2",
	}
}

// authSettings returns what KafkaConfig.Auth adds.
func (k *Kafka) authSettings() map[string]string {
	var plain strings.Builder
	plain.WriteString("org.apache.kafka.common.security.plain.PlainLoginModule required")
	for _, user := range kafkaUsers {
		fmt.Fprintf(&plain, ` user_%s="%s-secret"`, user, user)
	}
	plain.WriteString(";")
	const scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
	return map[string]string{
		"sasl.enabled.mechanisms":                                     "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
		"listener.name.sasl_plaintext.plain.sasl.jaas.config":         plain.String(),
		"listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": scram,
		"listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": scram,

		"ssl.keystore.type":       "PEM",
		"ssl.keystore.location":   filepath.Join(k.run.path, serverFile),
		"ssl.truststore.type":     "PEM",
		"ssl.truststore.location": filepath.Join(k.run.path, "ca.pem"),
		"ssl.client.auth":         "requested",

		"authorizer.class.name":          "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":                    "User:ANONYMOUS;User:admin", // ANONYMOUS uses the plain listener
		"allow.everyone.if.no.acl.found": "false",
	}
}

func kafkaProperties(settings map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s=%s\n", key, settings[key])
	}
	return b.String()
}
