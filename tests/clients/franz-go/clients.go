package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// As librdkafka and the others have it in these tests.
	retryBackoff    = 50 * time.Millisecond
	retryBackoffMax = 300 * time.Millisecond
	requestTimeout  = 5 * time.Second
	pollTimeout     = 300 * time.Millisecond
	pollRecordsMax  = 200
	// How long a commit waits for its answer.
	commitTimeout = 40 * time.Second
)

// connected holds what all clients have in common. By default franz-go asks for metadata at most every 5 s, and would stay away for as long from partitions that have moved.
func connected(bootstrap []string) []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(bootstrap...),
		kgo.ClientID("franz-go-judged"),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(5 * time.Second),
		kgo.DialTimeout(requestTimeout),
		kgo.RequestTimeoutOverhead(requestTimeout),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(retryBackoff<<min(tries, 8), retryBackoffMax)
		}),
		kgo.WithLogger(kgo.BasicLogger(os.Stderr, kgo.LogLevelWarn, func() string {
			return time.Now().Format("15:04:05.000 ")
		})),
	}
}

type producer struct {
	kafka *kgo.Client
	out   *answers
}

func newProducer(told command, bootstrap []string, out *answers) (client, error) {
	kafka, err := kgo.NewClient(append(connected(bootstrap),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProduceRequestTimeout(requestTimeout),
		kgo.RecordDeliveryTimeout(time.Duration(told.TimeoutMs)*time.Millisecond),
	)...)
	return &producer{kafka, out}, err
}

func (p *producer) obey(told command) {
	switch told.Do {
	case "send":
		p.send(told)
	case "drop":
		// What is under way is answered as failed, its outcome unknown, and nobody waits for it.
		go p.kafka.Close()
	case "close":
		p.kafka.Close()
		p.out.give(told.ID, map[string]any{})
	default:
		p.out.failed(told.ID, "a producer does not "+told.Do)
	}
}

func (p *producer) send(told command) {
	record := &kgo.Record{Topic: told.Topic, Partition: told.Partition, Key: told.Key, Value: told.Value}
	for _, header := range told.Headers {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: header.name, Value: header.content})
	}
	p.kafka.Produce(context.Background(), record, func(done *kgo.Record, err error) {
		if err == nil {
			p.out.give(told.ID, map[string]any{"offset": done.Offset})
			return
		}
		refused := errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kgo.ErrMaxBuffered)
		p.out.give(told.ID, map[string]any{"error": nameOf(err), "refused": refused})
	})
}

type consumer struct {
	kafka *kgo.Client
	out   *answers
	// Set for a consumer that reads by assignment: it is never to lose its place.
	reader bool
	lock   sync.Mutex
	moved  []key
}

func consuming(bootstrap []string) []kgo.Opt {
	return append(connected(bootstrap),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(100*time.Millisecond),
	)
}

func newReader(told command, bootstrap []string, out *answers) (client, error) {
	partitions := map[string]map[int32]kgo.Offset{}
	for _, one := range told.Keys {
		if partitions[one.topic] == nil {
			partitions[one.topic] = map[int32]kgo.Offset{}
		}
		partitions[one.topic][one.partition] = kgo.NewOffset().At(0)
	}
	kafka, err := kgo.NewClient(append(consuming(bootstrap),
		kgo.ConsumePartitions(partitions),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)...)
	return &consumer{kafka: kafka, out: out, moved: []key{}, reader: true}, err
}

func newMember(told command, bootstrap []string, out *answers) (client, error) {
	member := &consumer{out: out, moved: []key{}}
	moved := func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) { member.note(partitions) }
	kafka, err := kgo.NewClient(append(consuming(bootstrap),
		kgo.ConsumerGroup(told.Group),
		kgo.ConsumeTopics(told.Topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(6*time.Second),
		kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.DisableAutoCommit(),
		// What was polled is still this member's when it is committed.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(moved),
		kgo.OnPartitionsRevoked(moved),
		kgo.OnPartitionsLost(moved),
	)...)
	member.kafka = kafka
	return member, err
}

func (c *consumer) obey(told command) {
	switch told.Do {
	case "poll":
		c.poll(told)
	case "commit":
		c.commit(told)
	case "close":
		c.kafka.CloseAllowingRebalance()
		c.out.give(told.ID, map[string]any{})
	default:
		c.out.failed(told.ID, "a consumer does not "+told.Do)
	}
}

func (c *consumer) poll(told command) {
	c.kafka.AllowRebalance()
	ctx, cancel := context.WithTimeout(context.Background(), pollTimeout)
	defer cancel()
	fetches := c.kafka.PollRecords(ctx, pollRecordsMax)
	failures := []string{}
	for _, failure := range fetches.Errors() {
		if errors.Is(failure.Err, context.DeadlineExceeded) && ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "poll of %s/%d: %v\n", failure.Topic, failure.Partition, failure.Err)
		var loss *kgo.ErrDataLoss
		if errors.As(failure.Err, &loss) || c.reader && errors.Is(failure.Err, kerr.OffsetOutOfRange) {
			c.out.failed(told.ID, failure.Err)
			return
		}
		failures = append(failures, nameOf(failure.Err))
	}
	records := [][]any{}
	fetches.EachRecord(func(record *kgo.Record) {
		value, _, _ := bytes.Cut(record.Value, []byte("|"))
		records = append(records, []any{record.Topic, record.Partition, record.Offset, string(value), payloadHash(record)})
	})
	c.out.give(told.ID, map[string]any{"records": records, "moved": c.movedSince(), "errors": failures})
}

func (c *consumer) note(partitions map[string][]int32) {
	c.lock.Lock()
	defer c.lock.Unlock()
	for topic, numbers := range partitions {
		for _, number := range numbers {
			c.moved = append(c.moved, key{topic, number})
		}
	}
}

// movedSince gives what was assigned or revoked since it was asked last.
func (c *consumer) movedSince() []key {
	c.lock.Lock()
	defer c.lock.Unlock()
	moved := c.moved
	c.moved = []key{}
	return moved
}

func (c *consumer) commit(told command) {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for _, one := range told.Offsets {
		if offsets[one.topic] == nil {
			offsets[one.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[one.topic][one.partition] = kgo.EpochOffset{Epoch: -1, Offset: one.offset}
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	var failure error
	c.kafka.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
		failure = err
		if err == nil {
			failure = refusal(answer)
		}
	})
	content := map[string]any{}
	if failure != nil {
		content["error"] = nameOf(failure)
	}
	c.out.give(told.ID, content)
}

func refusal(answer *kmsg.OffsetCommitResponse) error {
	for _, topic := range answer.Topics {
		for _, partition := range topic.Partitions {
			if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}

// nameOf gives Kafka's name of an error, or the type of another one: what it says differs from case to case.
func nameOf(err error) string {
	var told *kerr.Error
	if errors.As(err, &told) {
		return told.Message
	}
	return fmt.Sprintf("%T", err)
}

// payloadHash is the hash of docs/formats/history.md; the application sets no timestamps.
func payloadHash(record *kgo.Record) string {
	state := sha256.New()
	field := func(content []byte) {
		length := uint32(len(content))
		if content == nil {
			length = ^uint32(0)
		}
		state.Write(binary.BigEndian.AppendUint32(nil, length))
		state.Write(content)
	}
	field(record.Key)
	field(record.Value)
	state.Write(binary.BigEndian.AppendUint32(nil, uint32(len(record.Headers))))
	for _, header := range record.Headers {
		field([]byte(header.Key))
		field(header.Value)
	}
	state.Write(bytes.Repeat([]byte{0xff}, 8))
	return hex.EncodeToString(state.Sum(nil))[:16]
}
