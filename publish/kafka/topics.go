package kafka

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headwaterdb/headwater/publish"
)

// Topics makes data topics before their first record (rule R15): a topic that appeared by
// itself in the middle of a transaction would have the brokers' settings, not ours.
type Topics struct {
	cfg  Config
	conn *kgo.Client
	log  *slog.Logger
	// passed are the ids of topics that were taken because of Config.New. Those that take
	// their place later are another matter.
	passed map[string]string
}

// NewTopics returns a Topics. It connects at the first call of Ensure.
func NewTopics(cfg Config, log *slog.Logger) (*Topics, error) {
	conn, log, err := newAdmin(&cfg, log)
	if err != nil {
		return nil, err
	}
	return &Topics{cfg: cfg, conn: conn, log: log, passed: map[string]string{}}, nil
}

func newAdmin(cfg *Config, log *slog.Logger) (*kgo.Client, *slog.Logger, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	opts, err := cfg.Options(log)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", publish.ErrRefused, err)
	}
	// What it looks at has often been made a moment ago, and whoever looks again pauses.
	cl, err := kgo.NewClient(append(opts, kgo.MetadataMinAge(10*time.Millisecond))...)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", publish.ErrRefused, err)
	}
	return cl, log, nil
}

// Ensure makes the topic unless it exists, waits until every partition has a leader and
// returns how many there are, with the id that the brokers gave the topic: "" before Kafka
// 2.8. It asks each time, since a topic may be deleted in between.
//
// A topic that is known to hold records is not made. When it stays missing, or another has
// taken the place of the one with that id, those records are gone, and the error matches
// [publish.ErrRefused]; with Config.New the one that is met first is taken. This is the
// place to tell: that a leader does not know a topic when a record comes may only mean that
// it has just become the leader. It is called from one goroutine at a time.
func (t *Topics) Ensure(ctx context.Context, topic string, known bool, id string) (int32, string, error) {
	if t.cfg.New {
		id = t.passed[topic]
	}
	d, err := ensure(ctx, t.conn, newTopic{
		name: topic, create: *t.cfg.Topics.Create && !known, known: known, id: id, partitions: t.cfg.Topics.Partitions,
		replication: t.cfg.Topics.Replication, settings: t.cfg.Topics.Settings, patience: t.cfg.patience,
	}, t.log)
	if is(err, kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed) {
		err = refused(err, fmt.Sprintf("grant Create, Describe and Write on Topic %s, or make the topic by hand", topic))
	}
	if err != nil {
		return 0, "", fmt.Errorf("topic %s: %w", topic, t.cfg.explain(err, true))
	}
	now := idText(d.ID)
	if t.cfg.New {
		t.passed[topic] = now
	}
	return int32(len(d.Partitions)), now, nil
}

// idText is a topic's id as Kafka's own tools write it, "" for none.
func idText(id kadm.TopicID) string {
	if id == (kadm.TopicID{}) {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// Close ends the connections.
func (t *Topics) Close() { t.conn.Close() }

// A newTopic is what a topic should be if it has to be made.
type newTopic struct {
	name        string
	create      bool
	known       bool   // it has held records
	id          string // that it had then, "" when that is not known
	partitions  int32
	replication int16 // 0: 3, or as many as there are brokers
	settings    map[string]string
	patience    time.Duration // with a missing topic that is not to be made, and with missing brokers
}

// pause is between two attempts at what brokers are often not ready for yet.
const pause = 20 * time.Millisecond

// ensure is Ensure for any topic.
func ensure(ctx context.Context, conn *kgo.Client, want newTopic, log *slog.Logger) (kadm.TopicDetail, error) {
	admin, began := kadm.NewClient(conn), time.Now()
	created, short, gone := false, 0, missing{topic: want.name, patience: want.patience, log: log}
	warned := false
	for looks := 1; ; looks++ {
		wait := pauseAfter(looks, firstPause, maxPause)
		if !warned && time.Since(began) > want.patience {
			warned = true
			log.Warn("a topic is waited for: the brokers do not show it with a leader for each partition", "topic", want.name)
		}
		meta, err := admin.Metadata(ctx, want.name)
		if err != nil {
			return kadm.TopicDetail{}, err
		}
		d := meta.Topics[want.name]
		id := idText(d.ID)
		switch {
		case d.Err == nil && want.id != "" && id != "" && id != want.id:
			if gone.certain() {
				return d, lost(fmt.Errorf("%w: its id was %s and is %s", kerr.UnknownTopicID, want.id, id))
			}
		case d.Err == nil && len(d.Partitions) > 0 && led(d):
			return d, nil
		case d.Err == nil, kerr.IsRetriable(d.Err) && !errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			gone.since = time.Time{} // there, but not ready
		case !errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			return d, d.Err
		case !want.create && !gone.certain():
		case want.known:
			return d, lost(d.Err)
		case !want.create:
			return d, refused(d.Err, "make the topic, or set topics.create to true")
		case !created:
			err := create(ctx, admin, want, brokers(ctx, conn, len(meta.Brokers)), log)
			switch {
			case err == nil:
				created = true
				continue
			case !errors.Is(err, kerr.InvalidReplicationFactor) || time.Since(began) >= want.patience:
				return d, err
			}
			// A broker that is just being restarted is not counted.
			if short++; short == 1 {
				log.Warn("a topic cannot be made with as many replicas; this is tried again, because a broker may be restarting", "topic", want.name, "for", want.patience, "err", err)
			}
			wait = pauseAfter(short, pause, maxPause)
		}
		if err := sleep(ctx, wait); err != nil {
			return d, err
		}
	}
}

// A missing topic is looked for again until patience has passed.
type missing struct {
	topic    string
	patience time.Duration
	log      *slog.Logger
	since    time.Time // zero: it has not been missed yet
}

// certain is called when the topic was not found, and reports whether that is certain.
func (m *missing) certain() bool {
	if m.since.IsZero() {
		m.since = time.Now()
		m.log.Warn("a topic is missing, or another has its name; it is looked for again, because a broker that has just started may not know it yet", "topic", m.topic, "for", m.patience)
	}
	return time.Since(m.since) >= m.patience
}

// led reports whether every partition has a leader.
func led(d kadm.TopicDetail) bool {
	for _, p := range d.Partitions {
		if p.Err != nil || p.Leader < 0 {
			return false
		}
	}
	return true
}

// brokers is how many brokers the cluster has. From Kafka 4.0 on it tells also of those
// that are away at present, so that a topic which is made meanwhile does not have fewer
// replicas for good; before, only those count that are alive.
func brokers(ctx context.Context, conn *kgo.Client, alive int) int {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.IncludeFencedBrokers = true
	resp, err := req.RequestWith(ctx, conn)
	if err != nil || resp.ErrorCode != 0 {
		return alive
	}
	return max(len(resp.Brokers), alive)
}

func create(ctx context.Context, admin *kadm.Client, want newTopic, brokers int, log *slog.Logger) error {
	replication := want.replication
	if replication == 0 {
		replication = int16(min(3, brokers))
	}
	settings := make(map[string]*string, len(want.settings)+1)
	for k, v := range maps.All(want.settings) {
		settings[k] = &v
	}
	if _, given := settings["min.insync.replicas"]; !given && replication >= 3 {
		settings["min.insync.replicas"] = new("2")
	}
	resp, err := admin.CreateTopic(ctx, want.partitions, replication, settings, want.name)
	if err == nil {
		err = resp.Err
	}
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		if resp.ErrMessage != "" {
			err = fmt.Errorf("%w (%s)", err, resp.ErrMessage)
		}
		return fmt.Errorf("create with %d partitions and %d replicas: %w", want.partitions, replication, err)
	}
	if err == nil {
		log.Info("made a topic", "topic", want.name, "partitions", want.partitions, "replication", replication)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
