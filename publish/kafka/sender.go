package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headwaterdb/headwater/publish"
)

// A sender carries records to the leaders of their partitions, in order and once: with the
// sequence numbers of an idempotent producer and one batch of a partition under way at a
// time, an attempt can be repeated until it is answered, and nothing overtakes it.
//
// It has no loop of its own. Whoever changes something calls dispatch, which starts a
// goroutine for each request that can go; a timer calls it for batches that linger or
// wait for another attempt. Each request's goroutine compresses its batches, so that one
// is prepared while another is under way.
//
// The first failure ends it: nothing more is sent, and the way back is a new sender.
type sender struct {
	cl         *kgo.Client
	compressor kgo.Compressor
	linger     time.Duration
	maxRecord  int    // bytes, key, value and headers
	maxBytes   int    // of memory for records that are not acknowledged
	maxRecords int    // that are not acknowledged
	id         string // the transactional id, or ""
	// joins: the coordinator must be told of a partition before the first record of a
	// transaction. Brokers with transaction.version 2 do that by themselves.
	joins bool

	ctx    context.Context // of all requests; ends with close
	cancel context.CancelFunc
	work   sync.WaitGroup
	// changed holds a token when there may be room, or everything is acknowledged, or
	// something has failed. One goroutine waits at a time.
	changed chan struct{}

	mu       sync.Mutex
	producer producer
	term     uint64 // grows with a new producer: sequence numbers begin again
	txn      uint64 // counts transactions
	topics   map[string]*topicState
	latest   *topicState
	pending  []*partitionState // those with batches of which none is under way
	busy     map[int32]int     // requests under way, by broker
	batches  int               // not acknowledged
	bytes    int               // what they hold
	records  int               // what they carry
	hurry    bool              // do not linger
	failed   error
	trouble  error // why the last attempt has to be repeated
	timer    *time.Timer

	looking bool // for leaders, and whether topics are still those that they were
	lookAt  time.Time
	looked  int       // times in a row
	fresh   time.Time // when all topics were looked at
}

// A topicState is what a sender knows of a topic.
type topicState struct {
	name       string
	id         [16]byte // zero before the brokers have told
	leaders    []int32  // by partition; -1 is unknown
	partitions []*partitionState
	unknown    int // times in a row that brokers did not know it

	// The headers of the last record and their encoded form: those of a table's records
	// are one slice, which the encoder does not change.
	from        []publish.Header
	headers     []byte
	headerBytes int // keys and values
}

// A partitionState is a partition with its batches: one that is under way, those that are
// full and the one that is being filled.
type partitionState struct {
	topic   *topicState
	n       int32
	sending *batch
	full    []*batch
	open    *batch
	opened  time.Time
	retryAt time.Time
	queued  bool   // in pending
	large   bool   // the last batch was
	seq     int32  // of the next batch
	term    uint64 // that seq belongs to
	txn     uint64 // that the coordinator knows to have it
}

const (
	// requestBytes bounds the records of one request before compression, unless a single
	// batch is larger.
	requestBytes = 8 << 20
	// perBroker is how many requests are under way to a broker: one that is on its way
	// and one that is prepared.
	perBroker = 2
	// produceTimeout is for how long the leader may wait for the replicas.
	produceTimeout = 10 * time.Second

	// refresh is how often brokers are asked whether topics are still those that they
	// were: before Kafka 4.1 a request goes by the names alone.
	refresh = time.Minute

	firstPause = 5 * time.Millisecond
	maxPause   = 500 * time.Millisecond
	// unknownTries is how often in a row a topic may be unknown to brokers: for about ten
	// seconds, in which a broker that has just started, or become a leader, learns of it.
	unknownTries = 28
)

// pauseAfter is how long to wait after so many attempts in a row that failed: twice as long
// each time, less up to a quarter by chance, so that those who failed together do not all
// come back together.
func pauseAfter(tries int, first, most time.Duration) time.Duration {
	d := min(first<<min(max(tries-1, 0), 16), most)
	return d - rand.N(d/4+1)
}

func newSender(cl *kgo.Client, cfg *Config, compressor kgo.Compressor, id string, joins bool, p producer) *sender {
	s := &sender{
		cl: cl, compressor: compressor, linger: *cfg.Linger, maxRecord: cfg.MaxRecordBytes,
		maxBytes: cfg.BufferBytes, maxRecords: cfg.BufferRecords, id: id, joins: joins, producer: p, term: 1,
		changed: make(chan struct{}, 1), topics: map[string]*topicState{}, busy: map[int32]int{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.timer = time.AfterFunc(time.Hour, s.wake)
	s.timer.Stop()
	return s
}

// close gives up what is under way.
func (s *sender) close() {
	s.cancel()
	s.mu.Lock()
	s.fail(context.Canceled)
	s.mu.Unlock()
	s.work.Wait()
}

// begin starts a transaction of this producer. Everything before must be acknowledged.
func (s *sender) begin(p producer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.txn++
	if p != s.producer {
		s.producer = p
		s.term++
	}
	if s.failed == nil && !s.looking && time.Since(s.fresh) > refresh {
		s.looking = true
		s.work.Go(s.look)
	}
}

// produce takes records over and blocks while the bounds are reached. It copies them, so
// their memory is the caller's again when it returns.
func (s *sender) produce(ctx context.Context, records []publish.Record) error {
	return s.take(ctx, records, s.maxRecord, min(batchBytes, s.maxRecord+batchHead-headBytes))
}

// take is produce with bounds of a record, which may have maxRecord bytes, and of a batch,
// which has batchMax unless a single record is larger.
func (s *sender) take(ctx context.Context, records []publish.Record, maxRecord, batchMax int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	moment := time.Now()
	now := moment.UnixMilli()
	for i := range records {
		r := &records[i]
		t := s.topic(r.Topic)
		t.setHeaders(r.Headers)
		size := len(r.Key) + len(r.Value)
		if n := size + t.headerBytes; n > maxRecord {
			return refused(fmt.Errorf("a record for %s has %d bytes, max_record_bytes is %d", r.Topic, n, maxRecord),
				"raise max_record_bytes and the topic's max.message.bytes, or leave the column out")
		}
		if s.bytes >= s.maxBytes || s.records >= s.maxRecords {
			if err := s.room(ctx); err != nil {
				return err
			}
		}
		if s.failed != nil {
			return s.failed
		}
		s.append(t.partition(r.Partition), r, size+recordBound+len(t.headers), batchMax, moment, now)
	}
	s.dispatch()
	return cmp.Or(s.failed, ctx.Err())
}

// append puts a record of at most size bytes into its partition's open batch.
func (s *sender) append(p *partitionState, r *publish.Record, size, batchMax int, moment time.Time, now int64) {
	b := p.open
	if b != nil && len(b.buf)+size > batchMax {
		p.full = append(p.full, b)
		p.large, p.open, b = true, nil, nil
		s.dispatch()
	}
	if b == nil {
		b = new(batch)
		p.open, p.opened = b, moment
		s.batches++
		if p.large {
			b.buf = buffer(max(size, smallBuffer+1))
		}
		if !p.queued && p.sending == nil {
			s.queue(p)
		}
	}
	b.reserve(size)
	s.bytes += cap(b.buf) - b.held
	b.held = cap(b.buf)
	b.add(r, p.topic.headers, now)
	s.records++
}

// topic returns what is known of a topic. Most records go to that of the one before.
func (s *sender) topic(name string) *topicState {
	if s.latest != nil && s.latest.name == name {
		return s.latest
	}
	t := s.topics[name]
	if t == nil {
		t = &topicState{name: name, headers: appendHeaders(nil, nil)}
		s.topics[name] = t
	}
	s.latest = t
	return t
}

// setHeaders makes headers those of the next record.
func (t *topicState) setHeaders(headers []publish.Header) {
	n := len(headers)
	if n == len(t.from) && (n == 0 || &headers[0] == &t.from[0]) {
		return
	}
	t.from, t.headers, t.headerBytes = headers, appendHeaders(t.headers[:0], headers), 0
	for i := range headers {
		t.headerBytes += len(headers[i].Key) + len(headers[i].Value)
	}
}

func (t *topicState) partition(n int32) *partitionState {
	for int(n) >= len(t.partitions) {
		t.partitions = append(t.partitions, &partitionState{topic: t, n: int32(len(t.partitions))})
	}
	return t.partitions[n]
}

// leader is the broker that takes the partition's records, or -1.
func (p *partitionState) leader() int32 {
	if int(p.n) < len(p.topic.leaders) {
		return p.topic.leaders[p.n]
	}
	return -1
}

// room waits until there is room.
func (s *sender) room(ctx context.Context) error {
	defer func() { s.hurry = false }()
	for s.failed == nil && (s.bytes >= s.maxBytes || s.records >= s.maxRecords) {
		s.hurry = true
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
	return s.failed
}

// flush waits until every record is acknowledged or one has failed.
func (s *sender) flush(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.hurry = false }()
	for s.failed == nil && s.batches > 0 {
		s.hurry = true
		if err := s.wait(ctx); err != nil {
			if s.trouble != nil {
				err = fmt.Errorf("%w; the last attempt: %w", err, s.trouble)
			}
			return fmt.Errorf("wait for the brokers to acknowledge: %w", err)
		}
	}
	return s.failed
}

// wait sends what can go and waits for a change.
func (s *sender) wait(ctx context.Context) error {
	s.dispatch()
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-s.changed:
		return nil
	case <-ctx.Done():
	}
	// What has failed says more than that the time is over.
	select {
	case <-s.changed:
		return nil
	default:
		return ctx.Err()
	}
}

func (s *sender) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// fail ends the sender.
func (s *sender) fail(err error) {
	if s.failed == nil {
		s.failed = err
	}
	s.timer.Stop()
	s.signal()
}

func (s *sender) queue(p *partitionState) {
	p.queued = true
	s.pending = append(s.pending, p)
}

// wake is the timer's.
func (s *sender) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dispatch()
}

// dispatch starts the requests that can go, and sets the timer for the next look.
func (s *sender) dispatch() {
	if s.failed != nil || len(s.pending) == 0 {
		return
	}
	now := time.Now()
	var (
		next     time.Time
		requests []*request
		lost     bool // the leader of a partition that is due is not known
	)
	later := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	rest := s.pending[:0]
	for _, p := range s.pending {
		leader := p.leader()
		switch at := p.due(s); {
		case at.After(now):
			later(at)
		case leader < 0:
			lost = true
		case s.assign(p, leader, &requests):
			p.queued = false
			continue
		}
		rest = append(rest, p)
	}
	clear(s.pending[len(rest):])
	s.pending = rest
	for _, r := range requests {
		s.busy[r.broker]++
		s.work.Go(func() { s.send(r) })
	}
	if lost && !s.looking {
		if s.lookAt.After(now) {
			later(s.lookAt)
		} else {
			s.looking = true
			s.work.Go(s.look)
		}
	}
	if !next.IsZero() {
		s.timer.Reset(next.Sub(now))
	}
}

// assign puts the partition's next batch into a request of this round to a broker, unless
// as many are under way to it as may be.
func (s *sender) assign(p *partitionState, broker int32, requests *[]*request) bool {
	n := s.busy[broker]
	for _, r := range *requests {
		if r.broker != broker {
			continue
		}
		if r.take(s, p) {
			return true
		}
		n++
	}
	if n >= perBroker {
		return false
	}
	r := newRequest(s, broker)
	*requests = append(*requests, r)
	return r.take(s, p) // always: it is empty
}

// due is when the partition's next batch may go; the past for at once.
func (p *partitionState) due(s *sender) time.Time {
	if len(p.full) > 0 || s.hurry {
		return p.retryAt
	}
	return p.opened.Add(s.linger)
}

// send is the goroutine of a request.
func (s *sender) send(r *request) {
	for i := range r.items {
		if b := r.items[i].b; !b.sealed() {
			b.seal(s.compressor, r.producer, r.id != "")
		}
	}
	slices.SortStableFunc(r.items, func(a, b item) int {
		switch {
		case a.p.topic == b.p.topic:
			return int(a.p.n - b.p.n)
		case a.p.topic.name < b.p.topic.name:
			return -1
		}
		return 1
	})
	err := s.join(r)
	if err == nil {
		var resp kmsg.Response
		if resp, err = s.cl.Broker(int(r.broker)).Request(s.ctx, r); err == nil {
			r.read(resp.(*kmsg.ProduceResponse))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy[r.broker]--
	if s.ctx.Err() != nil {
		return // the client may still read the batches
	}
	for i := range r.items {
		it := &r.items[i]
		if err != nil {
			it.err = err
		} else if it.join {
			it.p.txn = s.txn
		}
		s.settle(it.p, it.b, it.err)
	}
	s.dispatch()
}

// join tells the coordinator of the partitions that are new in the transaction.
func (s *sender) join(r *request) error {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = r.id, r.producer.id, r.producer.epoch
	for i := range r.items {
		if !r.items[i].join {
			continue
		}
		name := r.items[i].p.topic.name
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != name {
			t := kmsg.NewAddPartitionsToTxnRequestTopic()
			t.Topic = name
			req.Topics = append(req.Topics, t)
		}
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, r.items[i].p.n)
	}
	if len(req.Topics) == 0 {
		return nil
	}
	resp, err := req.RequestWith(s.ctx, s.cl)
	if err != nil {
		return err
	}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for j := range t.Partitions {
			// When one is refused the others are said not to have been attempted.
			if e := kerr.ErrorForCode(t.Partitions[j].ErrorCode); e != nil && (err == nil || is(err, kerr.OperationNotAttempted)) {
				err = fmt.Errorf("add topic %s, partition %d, to the transaction: %w", t.Topic, t.Partitions[j].Partition, e)
			}
		}
	}
	return err
}

// settle takes note of how the attempt to write a batch ended.
func (s *sender) settle(p *partitionState, b *batch, err error) {
	p.sending = nil
	b.tries++
	code := new(kerr.Error)
	known := errors.As(err, &code)
	switch {
	case err == nil, known && code == kerr.DuplicateSequenceNumber && b.tries > 1: // an earlier attempt wrote it
		s.drop(b)
		p.retryAt, s.trouble = time.Time{}, nil
	case known && code == kerr.ConcurrentTransactions:
		// The markers of the last transaction are still being written (rule R24).
		b.early++
		s.retry(p, b, err, pauseAfter(b.early, time.Millisecond, pause))
	case known && (code == kerr.UnknownTopicOrPartition || code == kerr.UnknownTopicID) && b.unknown < unknownTries:
		b.unknown++
		s.retry(p, b, err, pauseAfter(b.unknown, firstPause, maxPause))
		p.lost()
	case known && (code == kerr.UnknownTopicOrPartition || code == kerr.UnknownTopicID),
		known && (code == kerr.CorruptMessage || !kerr.IsRetriable(code)):
		s.drop(b)
		s.fail(fmt.Errorf("records for topic %s, partition %d: %w", p.topic.name, p.n, err))
	default: // of the leader, or of the connection to it
		s.retry(p, b, err, pauseAfter(b.tries-b.early-b.unknown, firstPause, maxPause))
		p.lost()
	}
	if !p.queued && (len(p.full) > 0 || p.open != nil) {
		s.queue(p)
	}
}

// retry puts the batch back before all others of its partition.
func (s *sender) retry(p *partitionState, b *batch, err error, pause time.Duration) {
	s.trouble = err
	p.full = slices.Insert(p.full, 0, b)
	p.retryAt = time.Now().Add(pause)
}

// lost says that the partition's leader has to be looked for.
func (p *partitionState) lost() {
	if int(p.n) < len(p.topic.leaders) {
		p.topic.leaders[p.n] = -1
	}
}

// drop forgets a batch that was answered for good.
func (s *sender) drop(b *batch) {
	s.batches--
	s.bytes -= b.held
	s.records -= int(b.records)
	b.release()
	s.signal()
}

// look asks for the leaders of the partitions that wait for one, and from time to time
// for all topics.
func (s *sender) look() {
	req := kmsg.NewPtrMetadataRequest()
	asked := map[*topicState]bool{}
	s.mu.Lock()
	ask := func(t *topicState) {
		if !asked[t] {
			asked[t] = true
			m := kmsg.NewMetadataRequestTopic()
			m.Topic = &t.name
			req.Topics = append(req.Topics, m)
		}
	}
	for _, p := range s.pending {
		if p.leader() < 0 {
			ask(p.topic)
		}
	}
	if all := time.Since(s.fresh) > refresh; all {
		for _, t := range s.topics {
			ask(t)
		}
		s.fresh = time.Now()
	}
	if len(req.Topics) == 0 { // which would ask for all of the cluster's
		s.looking = false
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	resp, err := req.RequestWith(s.ctx, s.cl)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looking = false
	s.looked++
	if err != nil {
		s.trouble = err
	} else {
		for i := range resp.Topics {
			s.learn(&resp.Topics[i])
		}
	}
	if !slices.ContainsFunc(s.pending, func(p *partitionState) bool { return p.leader() < 0 }) {
		s.looked = 0
	}
	s.lookAt = time.Now().Add(pauseAfter(s.looked, firstPause, maxPause))
	s.dispatch()
}

// learn takes up what a broker says of a topic.
func (s *sender) learn(m *kmsg.MetadataResponseTopic) {
	if m.Topic == nil || s.topics[*m.Topic] == nil {
		return
	}
	t := s.topics[*m.Topic]
	err := kerr.ErrorForCode(m.ErrorCode)
	switch {
	case err == nil && t.id != [16]byte{} && m.TopicID != [16]byte{} && t.id != m.TopicID:
		// Records for the one before do not belong into this one.
		err = fmt.Errorf("%w: it has another id now", kerr.UnknownTopicID)
	case err == nil:
		if m.TopicID != [16]byte{} {
			t.id = m.TopicID
		}
		for len(t.leaders) < len(m.Partitions) {
			t.leaders = append(t.leaders, -1)
		}
		for i := range m.Partitions {
			if p := &m.Partitions[i]; int(p.Partition) < len(t.leaders) {
				t.leaders[p.Partition] = p.Leader
				if kerr.ErrorForCode(p.ErrorCode) == kerr.LeaderNotAvailable {
					t.leaders[p.Partition] = -1
				}
			}
		}
		if len(t.partitions) <= len(t.leaders) {
			t.unknown = 0
			return
		}
		err = kerr.UnknownTopicOrPartition // a partition that is used is not there
	}
	for i := range t.leaders {
		t.leaders[i] = -1 // nothing is sent before it is looked at again
	}
	if !slices.ContainsFunc(s.pending, func(p *partitionState) bool { return p.topic == t }) {
		return // a topic that nobody writes to may go, with its table
	}
	s.trouble = err
	if t.unknown++; !kerr.IsRetriable(err) || is(err, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID) && t.unknown > unknownTries {
		s.fail(fmt.Errorf("topic %s: %w", t.name, err))
	}
}
