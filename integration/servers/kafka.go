package servers

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed" // for the checksums
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// KafkaConfig says what Kafka cluster to start.
type KafkaConfig struct {
	// Nodes is the number of brokers, each a controller too; default 1. Three need
	// about 0.8 GB of memory.
	Nodes int
	// Auth adds a listener with SASL and one with TLS, and ACLs for who uses them.
	// There are the users alice, bob and admin, each with the password NAME-secret,
	// by SCRAM-SHA-256, SCRAM-SHA-512 and PLAIN; admin may do everything, the
	// others what ACLs allow. Whoever uses the plain listener may do everything.
	Auth bool
	// Heap is the size of each node's heap, as Java writes it; default 512m.
	Heap string
	// Settings are added to ours in server.properties, or replace them.
	Settings map[string]string
}

// Kafka is a running cluster. Nodes are numbered from 1.
type Kafka struct {
	Bootstrap []string // addresses of the plain listeners

	// These are set with Auth only.
	SASL     []string // addresses of the SASL_PLAINTEXT listeners
	TLS      []string // addresses of the SSL listeners
	CAFile   string   // PEM: the authority that signed the certificates of brokers and client
	CertFile string   // PEM: a client certificate, principal User:CN=client
	KeyFile  string   // PEM: its key

	external bool // named in the environment; nothing below is set then
	run      *runDir
	java     string
	options  []string
	nodes    []*kafkaNode
}

type kafkaNode struct {
	id     int
	config string // server.properties
	data   string
	log    string

	mu   sync.Mutex // guards proc
	proc *process
}

const (
	kafkaVersion = "4.3.1"
	log4jVersion = "2.25.3"

	kafkaStartLimit = 90 * time.Second
	kafkaStopGrace  = 15 * time.Second
)

// kafkaSums lists every jar of the version above, in the form of sha256sum.
//
//go:embed kafka.sha256
var kafkaSums string

// StartKafka starts a cluster and returns once every broker serves clients.
func StartKafka(ctx context.Context, c KafkaConfig) (*Kafka, error) {
	if c.Nodes == 0 {
		c.Nodes = 1
	}
	if c.Heap == "" {
		c.Heap = "512m"
	}
	java, err := findJava(ctx, 17)
	if err != nil {
		return nil, err
	}
	home, err := kafkaHome(ctx)
	if err != nil {
		return nil, err
	}
	classes, err := kafkaClasses(ctx, java, home)
	if err != nil {
		return nil, err
	}
	return startKafka(ctx, c, java, home, classes)
}

// startKafka is StartKafka with options for Java.
func startKafka(ctx context.Context, c KafkaConfig, java, home string, options []string) (*Kafka, error) {
	format, err := kafkaFormat(ctx, java, home, c.Auth)
	if err != nil {
		return nil, err
	}
	run, err := newRunDir(ctx, "kafka")
	if err != nil {
		return nil, err
	}
	k := &Kafka{run: run, java: java}
	logging := filepath.Join(run.path, "log4j2.properties")
	k.options = slices.Concat(
		[]string{"-Xms64m", "-Xmx" + c.Heap, "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Djava.net.preferIPv4Stack=true"},
		options,
		[]string{"-Dlog4j2.configurationFile=" + logging, "-cp", filepath.Join(home, "*"), "kafka.Kafka"})
	if err := k.create(ctx, c, format, logging); err != nil {
		return nil, errors.Join(err, run.remove())
	}
	return k, nil
}

func (k *Kafka) create(ctx context.Context, c KafkaConfig, format, logging string) error {
	if err := os.WriteFile(logging, []byte(kafkaLogging), 0o644); err != nil {
		return fmt.Errorf("configure Kafka's log: %w", err)
	}
	if c.Auth {
		if err := makeCertificates(k.run.path); err != nil {
			return err
		}
		k.CAFile = filepath.Join(k.run.path, caFile)
		k.CertFile = filepath.Join(k.run.path, clientCert)
		k.KeyFile = filepath.Join(k.run.path, clientKey)
	}
	for try := 1; ; try++ {
		if err := k.configure(ctx, c, format); err != nil {
			return err
		}
		err := k.start(ctx, k.nodes)
		if err == nil {
			return nil
		}
		taken := slices.ContainsFunc(k.nodes, func(n *kafkaNode) bool { return n.proc != nil && n.proc.portTaken() })
		_ = k.Kill()
		if try == startTries || !taken {
			return err
		}
	}
}

// start starts these nodes together, because one alone may have no quorum.
func (k *Kafka) start(ctx context.Context, nodes []*kafkaNode) error {
	for _, n := range nodes {
		proc, err := start(fmt.Sprintf("Kafka node %d", n.id), n.log, command{
			path: k.java,
			args: append(slices.Clone(k.options), n.config),
			dir:  k.run.path,
		})
		if err != nil {
			return err
		}
		n.mu.Lock()
		n.proc = proc
		n.mu.Unlock()
	}
	for _, n := range nodes {
		err := n.proc.ready(ctx, kafkaStartLimit, func(context.Context) error {
			// It prints this once the controller lets it serve clients.
			if !strings.Contains(n.proc.output(), "Kafka Server started") {
				return errors.New("it has not printed that it started")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// choose returns the nodes of these numbers, all of them for none.
func (k *Kafka) choose(ids []int) ([]*kafkaNode, error) {
	if k.external {
		return nil, ErrExternal
	}
	if len(ids) == 0 {
		return k.nodes, nil
	}
	var nodes []*kafkaNode
	for _, id := range ids {
		if id < 1 || id > len(k.nodes) {
			return nil, fmt.Errorf("there is no Kafka node %d: they are numbered from 1 to %d", id, len(k.nodes))
		}
		nodes = append(nodes, k.nodes[id-1])
	}
	return nodes, nil
}

func (n *kafkaNode) process() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc
}

// end ends these nodes at once: the last one of a cluster waits for a quorum when
// the others have ended before it.
func end(ctx context.Context, nodes []*kafkaNode, signals ...syscall.Signal) {
	var wg sync.WaitGroup
	for _, n := range nodes {
		if proc := n.process(); proc.running() {
			wg.Go(func() { proc.end(ctx, kafkaStopGrace, signals...) })
		}
	}
	wg.Wait()
}

// Stop shuts the nodes down, all for none named. Their data stays, so that Restart
// may follow.
func (k *Kafka) Stop(ctx context.Context, nodes ...int) error {
	chosen, err := k.choose(nodes)
	if err != nil {
		return err
	}
	end(ctx, chosen, syscall.SIGTERM)
	return nil
}

// Kill ends the nodes by SIGKILL, all for none named.
func (k *Kafka) Kill(nodes ...int) error {
	chosen, err := k.choose(nodes)
	if err != nil {
		return err
	}
	end(context.Background(), chosen)
	return nil
}

// Restart starts the nodes again, all for none named, on their ports and data.
// Those that still run are stopped first. After a Kill a broker waits until the
// controller has given up the session of its predecessor.
func (k *Kafka) Restart(ctx context.Context, nodes ...int) error {
	chosen, err := k.choose(nodes)
	if err != nil {
		return err
	}
	end(ctx, chosen, syscall.SIGTERM)
	return k.start(ctx, chosen)
}

// PID returns the process id of a node, 0 if there is none or it is not ours.
func (k *Kafka) PID(node int) int {
	nodes, err := k.choose([]int{node})
	if err != nil {
		return 0
	}
	if proc := nodes[0].process(); proc != nil {
		return proc.os.Pid
	}
	return 0
}

// LogTail returns the last n lines of every node's log.
func (k *Kafka) LogTail(n int) string {
	if k.external {
		return "no log: " + ErrExternal.Error()
	}
	var b strings.Builder
	for _, node := range k.nodes {
		fmt.Fprintf(&b, "node %d:\n%s\n", node.id, logTail(node.log, n))
	}
	return b.String()
}

// Close ends the cluster and removes its data.
func (k *Kafka) Close() error {
	if k.external {
		return nil
	}
	if err := k.Kill(); err != nil {
		return err
	}
	return k.run.remove()
}

// kafkaHome returns a folder with Kafka's jars: the broker and its tools.
func kafkaHome(ctx context.Context) (string, error) {
	return cached(ctx, "kafka-"+kafkaVersion, func(dir string) error {
		var deps strings.Builder
		for _, d := range [][3]string{
			{"org.apache.kafka", "kafka_2.13", kafkaVersion},
			{"org.apache.kafka", "kafka-tools", kafkaVersion},
			{"org.apache.logging.log4j", "log4j-slf4j-impl", log4jVersion},
			{"org.apache.logging.log4j", "log4j-core", log4jVersion},
		} {
			fmt.Fprintf(&deps, "<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>", d[0], d[1], d[2])
		}
		pom := filepath.Join(dir, "pom.xml")
		text := "<project><modelVersion>4.0.0</modelVersion><groupId>headwater</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>" +
			deps.String() + "</dependencies></project>"
		if err := os.WriteFile(pom, []byte(text), 0o644); err != nil {
			return fmt.Errorf("list Kafka's jars: %w", err)
		}
		if err := maven(ctx, dir, "copy-dependencies", "-f", pom, "-DincludeScope=runtime"); err != nil {
			return err
		}
		return verifyJars(dir)
	})
}

// verifyJars checks that the folder holds exactly the jars we know.
func verifyJars(dir string) error {
	known := make(map[string]bool)
	for line := range strings.Lines(kafkaSums) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		known[name] = true
		jar, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("fetch Kafka: %w", err)
		}
		if err := verify(jar, sum); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	jars, err := filepath.Glob(filepath.Join(dir, "*.jar"))
	if err != nil {
		return fmt.Errorf("fetch Kafka: %w", err)
	}
	for _, jar := range jars {
		if !known[filepath.Base(jar)] {
			return fmt.Errorf("fetch Kafka: got %s, which is not in the list of its jars", filepath.Base(jar))
		}
	}
	return nil
}

// kafkaClasses returns the options that make this Java load Kafka's classes from
// an archive, which brings a start from about 5 s to 2 s. The archive is made by a
// first broker that starts and stops.
func kafkaClasses(ctx context.Context, java, home string) ([]string, error) {
	key := sha256.Sum256([]byte(java + javaRelease(java) + home))
	dir, err := cached(ctx, fmt.Sprintf("kafka-%s-classes-%x", kafkaVersion, key[:4]), func(dir string) error {
		k, err := startKafka(ctx, KafkaConfig{Nodes: 1, Heap: "512m"}, java, home,
			[]string{"-XX:ArchiveClassesAtExit=" + filepath.Join(dir, "classes.jsa")})
		if err != nil {
			return err
		}
		defer k.Close()
		k.nodes[0].proc.end(ctx, time.Minute, syscall.SIGTERM) // it writes the archive now
		return nil
	})
	if err != nil {
		return nil, err
	}
	archive := filepath.Join(dir, "classes.jsa")
	if _, err := os.Stat(archive); err != nil {
		return nil, nil // this Java makes none, and does without it
	}
	return []string{"-XX:SharedArchiveFile=" + archive, "-Xshare:auto"}, nil
}

// kafkaFormat returns the file that begins the metadata of a new cluster, with its
// feature levels and users. It is the same for all clusters and nodes.
func kafkaFormat(ctx context.Context, java, home string, auth bool) (string, error) {
	name := "kafka-" + kafkaVersion + "-format"
	if auth {
		name += "-auth"
	}
	dir, err := cached(ctx, name, func(dir string) error {
		config := filepath.Join(dir, "server.properties")
		text := kafkaProperties(map[string]string{
			"process.roles":                  "broker,controller",
			"node.id":                        "1",
			"controller.quorum.voters":       "1@127.0.0.1:1",
			"controller.listener.names":      "CONTROLLER",
			"listeners":                      "PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1",
			"listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
			"log.dirs":                       dir,
		})
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			return fmt.Errorf("configure Kafka's format: %w", err)
		}
		id, err := kafkaID()
		if err != nil {
			return err
		}
		args := []string{
			"-XX:TieredStopAtLevel=1", "-cp", filepath.Join(home, "*"), "kafka.tools.StorageTool",
			"format", "-t", id, "-c", config, "--feature", "transaction.version=2",
		}
		if auth {
			for _, user := range kafkaUsers {
				for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
					args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s-secret]", mechanism, user, user))
				}
			}
		}
		if _, err := (command{path: java, args: args}).run(ctx); err != nil {
			return fmt.Errorf("format Kafka's storage: %w", err)
		}
		return nil
	})
	return filepath.Join(dir, "bootstrap.checkpoint"), err
}

// kafkaID returns a random id in Kafka's form of a UUID. One that begins with a
// dash would be taken for an option on a command line.
func kafkaID() (string, error) {
	for {
		var id [16]byte
		if _, err := rand.Read(id[:]); err != nil {
			return "", fmt.Errorf("make an id for Kafka: %w", err)
		}
		if s := base64.RawURLEncoding.EncodeToString(id[:]); s[0] != '-' {
			return s, nil
		}
	}
}
