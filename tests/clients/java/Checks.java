// The Java client against any cluster: BOOTSTRAP=host:port java Checks [CHECK ...]; `Checks member ...` is a consumer
// group's member for groups.py, with the options of members.py.

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Checks {
    static final String BOOTSTRAP = Objects.requireNonNull(System.getenv("BOOTSTRAP"), "set BOOTSTRAP=host:port");
    /** The value of a lone record without key and headers in a batch of 1,048,588 bytes; see harness.py. */
    static final int VALUE_BYTES_MAX = 1_048_588 - 72;

    interface Check {
        void run() throws Exception;
    }

    static void expect(boolean condition, String message) {
        if (!condition) {
            throw new AssertionError(message);
        }
    }

    static void expectEqual(Object got, Object wanted, String what) {
        expect(Objects.equals(got, wanted), what + ": got " + got + ", wanted " + wanted);
    }

    static String unique(String stem) {
        return "java-" + stem + "-" + UUID.randomUUID().toString().substring(0, 13);
    }

    static void until(Callable<Boolean> condition, String what) throws Exception {
        long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
        while (!condition.call()) {
            expect(System.nanoTime() < deadline, "not within 30 s: " + what);
            Thread.sleep(50);
        }
    }

    static Admin admin() {
        return Admin.create(Map.of("bootstrap.servers", BOOTSTRAP));
    }

    static String createTopic(String stem, int partitions) throws Exception {
        String topic = unique(stem);
        try (Admin admin = admin()) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
            until(() -> partitionCount(admin, topic) == partitions, topic + " in Metadata");
        }
        return topic;
    }

    static int partitionCount(Admin admin, String topic) throws Exception {
        try {
            return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
        } catch (ExecutionException failure) {
            if (failure.getCause() instanceof UnknownTopicOrPartitionException) {
                return 0;
            }
            throw failure;
        }
    }

    static Properties properties(Map<String, ?> settings) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", BOOTSTRAP);
        properties.putAll(settings);
        return properties;
    }

    static KafkaProducer<byte[], byte[]> producer(Map<String, ?> settings) {
        return new KafkaProducer<>(properties(settings), new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(Map<String, ?> settings) {
        Properties properties = properties(Map.of("auto.offset.reset", "earliest", "enable.auto.commit", "false"));
        properties.putAll(settings);
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<Long> produce(List<ProducerRecord<byte[], byte[]>> records, Map<String, ?> settings) throws Exception {
        List<Future<RecordMetadata>> answers = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = producer(settings)) {
            for (ProducerRecord<byte[], byte[]> record : records) {
                answers.add(producer.send(record));
            }
        }
        List<Long> offsets = new ArrayList<>();
        for (Future<RecordMetadata> answer : answers) {
            offsets.add(answer.get().offset());
        }
        return offsets;
    }

    static List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> consumer, int count) throws Exception {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        until(() -> {
            consumer.poll(Duration.ofMillis(200)).forEach(records::add);
            return records.size() >= count;
        }, count + " records");
        return records;
    }

    static List<ConsumerRecord<byte[], byte[]>> readFrom(TopicPartition partition, int count) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            return read(consumer, count);
        }
    }

    static List<ProducerRecord<byte[], byte[]>> mixedRecords(String topic, int partition, long seed) {
        Random random = new Random(seed);
        int[] sizes = {1, 10, 100, 1_000, 10_000, 40_000};
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int index = 0; index < 60; index++) {
            byte[] value = new byte[sizes[index % sizes.length]];
            if (index % 2 == 0) {
                random.nextBytes(value);
            } else {
                Arrays.fill(value, (byte) ('a' + random.nextInt(26)));
            }
            byte[] key = index % 3 == 0 ? null : bytes("key-" + random.nextInt(10));
            ProducerRecord<byte[], byte[]> record =
                new ProducerRecord<>(topic, partition, key, index % 10 == 7 ? null : value);
            if (index % 4 == 1) {
                record.headers().add("again", bytes("1")).add("again", bytes("2")).add("again", bytes("1"));
                record.headers().add("nothing", null).add("ключ", new byte[] {0, -1, 16});
            }
            records.add(record);
        }
        return records;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static void digest(MessageDigest state, byte[] key, byte[] value, Iterable<Header> headers) {
        List<byte[]> fields = new ArrayList<>(Arrays.asList(key, value));
        for (Header header : headers) {
            fields.add(bytes(header.key()));
            fields.add(header.value());
        }
        for (byte[] field : fields) {
            state.update(bytes(field == null ? "null;" : field.length + ";"));
            state.update(field == null ? new byte[0] : field);
        }
    }

    static void expectSame(
            List<ConsumerRecord<byte[], byte[]>> got, List<ProducerRecord<byte[], byte[]>> wanted, String what)
            throws Exception {
        MessageDigest one = MessageDigest.getInstance("SHA-256");
        MessageDigest other = MessageDigest.getInstance("SHA-256");
        got.forEach(record -> digest(one, record.key(), record.value(), record.headers()));
        wanted.forEach(record -> digest(other, record.key(), record.value(), record.headers()));
        HexFormat hex = HexFormat.of();
        expectEqual(hex.formatHex(one.digest()), hex.formatHex(other.digest()), what + ": hash of the contents");
    }

    static void topicsAreCreatedGrownDescribedAndDeleted() throws Exception {
        String topic = createTopic("admin", 2);
        try (Admin admin = admin()) {
            expectFailure(TopicExistsException.class,
                () -> admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1))).all().get());
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
            until(() -> partitionCount(admin, topic) == 4, "four partitions");
            expect(admin.listTopics().names().get().contains(topic), "the topic in the list");
            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            String largest = admin.describeConfigs(List.of(resource)).all().get().get(resource)
                .get("max.message.bytes").value();
            expectEqual(largest, "1048588", "max.message.bytes");
            expect(!admin.describeCluster().nodes().get().isEmpty(), "nodes of the cluster");
            expect(!admin.describeCluster().clusterId().get().isEmpty(), "the cluster's id");
            admin.deleteTopics(List.of(topic)).all().get();
            until(() -> !admin.listTopics().names().get().contains(topic), "the topic leaves Metadata");
            expectFailure(UnknownTopicOrPartitionException.class, () -> admin.deleteTopics(List.of(topic)).all().get());
        }
    }

    static void expectFailure(Class<? extends Exception> kind, Callable<?> call) throws Exception {
        try {
            call.call();
        } catch (ExecutionException failure) {
            expect(kind.isInstance(failure.getCause()), "wanted " + kind.getSimpleName() + ", got " + failure.getCause());
            return;
        }
        expect(false, "wanted " + kind.getSimpleName() + ", got no error");
    }

    static void everyCodecBringsBackWhatWasSent() throws Exception {
        List<String> codecs = List.of("none", "gzip", "snappy", "lz4", "zstd");
        String topic = createTopic("codecs", codecs.size() * 2);
        for (int partition = 0; partition < codecs.size() * 2; partition++) {
            String codec = codecs.get(partition / 2);
            boolean idempotent = partition % 2 == 1;
            List<ProducerRecord<byte[], byte[]>> records = mixedRecords(topic, partition, partition);
            List<Long> offsets = produce(records, Map.of(
                "compression.type", codec, "enable.idempotence", String.valueOf(idempotent), "acks", "all",
                "linger.ms", "5"));
            expectEqual(offsets, LongStream.range(0, 60).boxed().toList(), codec + ": offsets");
            expectSame(readFrom(new TopicPartition(topic, partition), 60), records, codec);
        }
    }

    static void acks01AndAllStoreAlike() throws Exception {
        String topic = createTopic("acks", 3);
        List<String> levels = List.of("all", "1", "0");
        for (int partition = 0; partition < levels.size(); partition++) {
            List<ProducerRecord<byte[], byte[]>> records = mixedRecords(topic, partition, partition);
            produce(records.subList(0, 1), Map.of());
            produce(records.subList(1, 60), Map.of("acks", levels.get(partition), "enable.idempotence", "false"));
            expectSame(readFrom(new TopicPartition(topic, partition), 60), records, "acks=" + levels.get(partition));
        }
    }

    static void recordsUpToTheLimitPassAndOneByteMoreDoesNot() throws Exception {
        String topic = createTopic("sizes", 1);
        Map<String, String> settings = Map.of("max.request.size", "8000000", "batch.size", "0");
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int size : new int[] {1, 65_536, 1_000_000, VALUE_BYTES_MAX}) {
            byte[] value = new byte[size];
            new Random(size).nextBytes(value);
            records.add(new ProducerRecord<>(topic, 0, null, value));
            produce(records.subList(records.size() - 1, records.size()), settings);
        }
        expectSame(readFrom(new TopicPartition(topic, 0), records.size()), records, "sizes");
        ProducerRecord<byte[], byte[]> over = new ProducerRecord<>(topic, 0, null, new byte[VALUE_BYTES_MAX + 1]);
        expectFailure(RecordTooLargeException.class, () -> produce(List.of(over), settings));
    }

    /**
     * The producer splits a batch on exactly MESSAGE_TOO_LARGE and sends the halves. All records are in one batch, sent as the
     * producer is closed: of two in flight the second would be taken, as the first of a producer that is not known yet, and the
     * halves of the first refused as out of order, by Kafka too.
     */
    static void aBatchOverTheLimitIsSplitByTheProducer() throws Exception {
        String topic = createTopic("split", 1);
        List<ProducerRecord<byte[], byte[]>> records = IntStream.range(0, 40).mapToObj(index -> {
            byte[] value = new byte[50_000];
            new Random(index).nextBytes(value);
            return new ProducerRecord<byte[], byte[]>(topic, 0, null, value);
        }).toList();
        produce(records, Map.of("max.request.size", "8000000", "batch.size", "3000000", "linger.ms", "60000",
            "compression.type", "gzip", "acks", "all"));
        expectSame(readFrom(new TopicPartition(topic, 0), 40), records, "after splitting");
    }

    static void seekAndOffsetsByTime() throws Exception {
        TopicPartition partition = new TopicPartition(createTopic("seek", 1), 0);
        long base = System.currentTimeMillis() - 3_600_000;
        List<ProducerRecord<byte[], byte[]>> records = IntStream.range(0, 200).mapToObj(index ->
            new ProducerRecord<byte[], byte[]>(partition.topic(), 0, base + index * 10L, null, bytes("value-" + index)))
            .toList();
        produce(records, Map.of("batch.size", "600"));
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of()); Admin admin = admin()) {
            consumer.assign(List.of(partition));
            for (long target : new long[] {150, 7, 199, 0}) {
                consumer.seek(partition, target);
                expectEqual(read(consumer, 1).get(0).offset(), target, "the offset after a seek");
            }
            Map<Long, Long> wanted = new LinkedHashMap<>(Map.of(base, 0L, base + 1234, 124L, base + 1990, 199L, base - 5, 0L));
            for (Map.Entry<Long, Long> entry : wanted.entrySet()) {
                long found = consumer.offsetsForTimes(Map.of(partition, entry.getKey())).get(partition).offset();
                expectEqual(found, entry.getValue(), "the offset for " + (entry.getKey() - base) + " ms");
            }
            expectEqual(consumer.offsetsForTimes(Map.of(partition, base + 10_000_000)).get(partition), null, "too late");
            expectEqual(consumer.endOffsets(List.of(partition)), Map.of(partition, 200L), "the end");
            long latest = admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp())).all().get().get(partition).offset();
            expectEqual(latest, 199L, "the offset of the largest timestamp");
        }
    }

    static void committedOffsetsOutliveTheConsumer() throws Exception {
        TopicPartition partition = new TopicPartition(createTopic("commit", 1), 0);
        produce(IntStream.range(0, 20).mapToObj(index ->
            new ProducerRecord<byte[], byte[]>(partition.topic(), 0, null, bytes("" + index))).toList(), Map.of());
        Map<String, String> group = Map.of("group.id", unique("commit"));
        try (KafkaConsumer<byte[], byte[]> first = consumer(group)) {
            first.subscribe(List.of(partition.topic()));
            read(first, 20);
            first.commitSync(Map.of(partition, new OffsetAndMetadata(7, "seven")));
        }
        try (KafkaConsumer<byte[], byte[]> second = consumer(group); Admin admin = admin()) {
            OffsetAndMetadata committed = second.committed(Set.of(partition)).get(partition);
            expectEqual(committed.offset() + committed.metadata(), "7seven", "the committed offset");
            second.subscribe(List.of(partition.topic()));
            expectEqual(read(second, 13).get(0).offset(), 7L, "where the second consumer starts");
            String groupId = group.get("group.id");
            expectEqual(admin.listConsumerGroupOffsets(groupId).partitionsToOffsetAndMetadata().get().get(partition).offset(),
                7L, "the offset that an administrator sees");
            String state = admin.describeConsumerGroups(List.of(groupId)).all().get().get(groupId).groupState().toString();
            expectEqual(state, "Stable", "the group's state");
            boolean listed = admin.listGroups().all().get().stream().anyMatch(entry -> entry.groupId().equals(groupId));
            expect(listed, "the group in the list");
        }
    }

    static String option(List<String> arguments, String name, String otherwise) {
        int index = arguments.indexOf(name);
        return index < 0 ? otherwise : arguments.get(index + 1);
    }

    static void beMember(List<String> arguments) {
        String topic = option(arguments, "--topic", null);
        Map<String, String> settings = new LinkedHashMap<>();
        settings.put("group.id", option(arguments, "--group", null));
        settings.put("session.timeout.ms", option(arguments, "--session-timeout-ms", "6000"));
        settings.put("heartbeat.interval.ms", "500");
        String instance = option(arguments, "--instance", null);
        if (instance != null) {
            settings.put("group.instance.id", instance);
        }
        boolean cooperative = option(arguments, "--strategy", "range").equals("cooperative-sticky");
        settings.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer."
            + (cooperative ? "CooperativeStickyAssignor" : "RangeAssignor"));
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(settings)) {
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    report("assigned", partitions);
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    report("revoked", partitions);
                }
            });
            while (!ended) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(200));
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    System.out.printf("{\"event\": \"record\", \"partition\": %d, \"offset\": %d, \"value\": \"%s\"}%n",
                        record.partition(), record.offset(), new String(record.value(), StandardCharsets.UTF_8));
                }
                System.out.flush();
                if (!records.isEmpty()) {
                    commit(consumer);
                }
            }
        }
    }

    static void commit(KafkaConsumer<byte[], byte[]> consumer) {
        try {
            consumer.commitSync();
        } catch (CommitFailedException
                | RebalanceInProgressException failure) {
            System.out.println("{\"event\": \"commit-failed\", \"detail\": \"" + failure.getClass().getSimpleName() + "\"}");
        }
    }

    /** Set when standard input has ended: the member is asked to leave. */
    static volatile boolean ended = false;

    static void watchInput() {
        Thread watcher = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    // only the end of the input says anything
                }
            } catch (IOException failure) {
                // an input that cannot be read has ended
            }
            ended = true;
        });
        watcher.setDaemon(true);
        watcher.start();
    }

    static void report(String event, Collection<TopicPartition> partitions) {
        String numbers = partitions.stream().map(partition -> "" + partition.partition()).collect(Collectors.joining(", "));
        System.out.printf("{\"event\": \"%s\", \"partitions\": [%s]}%n", event, numbers);
        System.out.flush();
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length > 0 && arguments[0].equals("member")) {
            watchInput();
            beMember(Arrays.asList(arguments));
            return;
        }
        Map<String, Check> checks = new LinkedHashMap<>();
        checks.put("topicsAreCreatedGrownDescribedAndDeleted", Checks::topicsAreCreatedGrownDescribedAndDeleted);
        checks.put("everyCodecBringsBackWhatWasSent", Checks::everyCodecBringsBackWhatWasSent);
        checks.put("acks01AndAllStoreAlike", Checks::acks01AndAllStoreAlike);
        checks.put("recordsUpToTheLimitPassAndOneByteMoreDoesNot", Checks::recordsUpToTheLimitPassAndOneByteMoreDoesNot);
        checks.put("aBatchOverTheLimitIsSplitByTheProducer", Checks::aBatchOverTheLimitIsSplitByTheProducer);
        checks.put("seekAndOffsetsByTime", Checks::seekAndOffsetsByTime);
        checks.put("committedOffsetsOutliveTheConsumer", Checks::committedOffsetsOutliveTheConsumer);
        if (arguments.length > 0) {
            checks.keySet().retainAll(Arrays.asList(arguments));
        }
        boolean failed = checks.isEmpty();
        for (Map.Entry<String, Check> check : checks.entrySet()) {
            long started = System.nanoTime();
            String verdict = "ok";
            try {
                check.getValue().run();
            } catch (Exception | AssertionError failure) {
                failed = true;
                verdict = "FAILED: " + failure;
                failure.printStackTrace();
            }
            System.out.printf("java %s %.1f s %s%n", check.getKey(), (System.nanoTime() - started) / 1e9, verdict);
        }
        System.exit(failed ? 1 : 0);
    }
}
