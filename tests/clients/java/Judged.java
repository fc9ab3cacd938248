// The Java client as a client library of judged tests: BOOTSTRAP=host:port,... java Judged, which is told what to do by judged_programs.py,
// where the commands are described. `Judged version` prints the client's version.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

public final class Judged {
    static final Duration POLL_TIMEOUT = Duration.ofMillis(300);
    /** How long a commit, or the end of a client, waits for its answer. */
    static final Duration ANSWER_TIMEOUT = Duration.ofSeconds(40);
    static final int RECORD_VALUE_END = '|';

    static final ObjectMapper JSON = new ObjectMapper();

    static ObjectNode object() {
        return JSON.createObjectNode();
    }

    static synchronized void answer(long id, ObjectNode content) {
        System.out.println(content.put("id", id));
        System.out.flush();
    }

    static void failed(long id, Throwable why) {
        why.printStackTrace();
        answer(id, object().put("failed", why.toString()));
    }

    /** A client obeys its commands one by one, in a thread of its own. */
    interface Client {
        void obey(String command, long id, JsonNode arguments) throws Exception;
    }

    /** As librdkafka and the others have it in these tests. */
    static Properties connected() {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", Objects.requireNonNull(System.getenv("BOOTSTRAP"), "set BOOTSTRAP=host:port"));
        settings.put("client.id", "java-judged");
        settings.put("reconnect.backoff.ms", "50");
        settings.put("reconnect.backoff.max.ms", "300");
        settings.put("retry.backoff.ms", "50");
        settings.put("retry.backoff.max.ms", "300");
        settings.put("metadata.max.age.ms", "5000");
        settings.put("request.timeout.ms", "5000");
        return settings;
    }

    static final class Producer implements Client {
        private final KafkaProducer<byte[], byte[]> kafka;

        Producer(int timeoutMs) {
            Properties settings = connected();
            settings.put("acks", "all");
            settings.put("enable.idempotence", "true");
            settings.put("linger.ms", "5");
            settings.put("delivery.timeout.ms", Integer.toString(timeoutMs));
            settings.put("max.block.ms", Integer.toString(timeoutMs));
            settings.put("buffer.memory", Integer.toString(16 << 20));
            kafka = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
        }

        @Override
        public void obey(String command, long id, JsonNode arguments) throws IOException {
            switch (command) {
                case "send" -> send(id, arguments);
                case "drop" -> kafka.close(Duration.ZERO);
                case "close" -> {
                    kafka.close(ANSWER_TIMEOUT);
                    answer(id, object());
                }
                default -> throw new IllegalArgumentException("a producer does not " + command);
            }
        }

        private void send(long id, JsonNode arguments) throws IOException {
            byte[] key = arguments.get("key").isNull() ? null : arguments.get("key").binaryValue();
            int partition = arguments.get("partition").asInt();
            ProducerRecord<byte[], byte[]> record =
                    new ProducerRecord<>(arguments.get("topic").asText(), partition, key, arguments.get("value").binaryValue());
            for (JsonNode header : arguments.get("headers")) {
                record.headers().add(header.get(0).asText(), header.get(1).binaryValue());
            }
            try {
                kafka.send(record, (metadata, failure) -> sent(id, metadata == null ? -1 : metadata.offset(), failure));
            } catch (KafkaException | IllegalStateException failure) {
                sent(id, -1, failure);
            }
        }

        private static void sent(long id, long offset, Exception failure) {
            if (failure == null) {
                answer(id, offset < 0 ? object().putNull("offset") : object().put("offset", offset));
                return;
            }
            boolean refused = failure instanceof RecordTooLargeException;
            answer(id, object().put("error", failure.getClass().getSimpleName()).put("refused", refused));
        }
    }

    static final class Consumer implements Client, ConsumerRebalanceListener {
        private final KafkaConsumer<byte[], byte[]> kafka;
        /** What was assigned or revoked since the last poll. */
        private final List<TopicPartition> moved = new ArrayList<>();

        private Consumer(Properties settings) {
            settings.put("enable.auto.commit", "false");
            settings.put("isolation.level", "read_committed");
            settings.put("fetch.max.wait.ms", "100");
            settings.put("max.poll.records", "200");
            kafka = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        }

        static Consumer reader(JsonNode keys) {
            Properties settings = connected();
            settings.put("auto.offset.reset", "none");
            Consumer consumer = new Consumer(settings);
            List<TopicPartition> partitions = new ArrayList<>();
            keys.forEach(key -> partitions.add(partition(key)));
            consumer.kafka.assign(partitions);
            partitions.forEach(partition -> consumer.kafka.seek(partition, 0));
            return consumer;
        }

        static Consumer member(String group, JsonNode topics) {
            Properties settings = connected();
            settings.put("group.id", group);
            settings.put("auto.offset.reset", "earliest");
            settings.put("session.timeout.ms", "6000");
            settings.put("heartbeat.interval.ms", "500");
            Consumer consumer = new Consumer(settings);
            List<String> names = new ArrayList<>();
            topics.forEach(topic -> names.add(topic.asText()));
            consumer.kafka.subscribe(names, consumer);
            return consumer;
        }

        private static TopicPartition partition(JsonNode key) {
            return new TopicPartition(key.get(0).asText(), key.get(1).asInt());
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            moved.addAll(partitions);
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            moved.addAll(partitions);
        }

        @Override
        public void obey(String command, long id, JsonNode arguments) {
            switch (command) {
                case "poll" -> poll(id);
                case "commit" -> commit(id, arguments.get("offsets"));
                case "close" -> {
                    kafka.close(CloseOptions.timeout(ANSWER_TIMEOUT));
                    answer(id, object());
                }
                default -> throw new IllegalArgumentException("a consumer does not " + command);
            }
        }

        private void poll(long id) {
            ObjectNode content = object();
            ArrayNode records = content.putArray("records");
            for (ConsumerRecord<byte[], byte[]> record : kafka.poll(POLL_TIMEOUT)) {
                records.addArray().add(record.topic()).add(record.partition()).add(record.offset()).add(value(record)).add(payloadHash(record));
            }
            ArrayNode keys = content.putArray("moved");
            moved.forEach(partition -> keys.addArray().add(partition.topic()).add(partition.partition()));
            moved.clear();
            answer(id, content);
        }

        private void commit(long id, JsonNode positions) {
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            positions.forEach(position -> offsets.put(partition(position), new OffsetAndMetadata(position.get(2).asLong())));
            try {
                kafka.commitSync(offsets, ANSWER_TIMEOUT);
                answer(id, object());
            } catch (KafkaException failure) {
                answer(id, object().put("error", failure.getClass().getSimpleName()));
            }
        }

        private static String value(ConsumerRecord<byte[], byte[]> record) {
            byte[] data = record.value();
            int end = 0;
            while (end < data.length && data[end] != RECORD_VALUE_END) {
                end++;
            }
            return new String(data, 0, end, StandardCharsets.UTF_8);
        }

        /** The hash of docs/formats/history.md; the application sets no timestamps. */
        private static String payloadHash(ConsumerRecord<byte[], byte[]> record) {
            MessageDigest state;
            try {
                state = MessageDigest.getInstance("SHA-256");
            } catch (NoSuchAlgorithmException failure) {
                throw new IllegalStateException(failure);
            }
            digest(state, record.key());
            digest(state, record.value());
            state.update(ByteBuffer.allocate(4).putInt(record.headers().toArray().length).array());
            for (Header header : record.headers()) {
                digest(state, header.key().getBytes(StandardCharsets.UTF_8));
                digest(state, header.value());
            }
            state.update(ByteBuffer.allocate(8).putLong(-1).array());
            return HexFormat.of().formatHex(state.digest()).substring(0, 16);
        }

        private static void digest(MessageDigest state, byte[] field) {
            state.update(ByteBuffer.allocate(4).putInt(field == null ? -1 : field.length).array());
            if (field != null) {
                state.update(field);
            }
        }
    }

    /** A client by its name, made by its first command, and the thread that it works in. */
    static final class Desk {
        private final ExecutorService thread = Executors.newSingleThreadExecutor(work -> {
            Thread worker = new Thread(work);
            worker.setDaemon(true);
            return worker;
        });
        private Client client;

        void take(JsonNode told) {
            thread.execute(() -> {
                long id = told.get("id").asLong();
                try {
                    obey(told.get("do").asText(), id, told);
                } catch (Exception | AssertionError failure) {
                    failed(id, failure);
                }
            });
        }

        private void obey(String command, long id, JsonNode told) throws Exception {
            if (client != null) {
                client.obey(command, id, told);
                return;
            }
            client = switch (command) {
                case "producer" -> new Producer(told.get("timeout_ms").asInt());
                case "reader" -> Consumer.reader(told.get("keys"));
                case "member" -> Consumer.member(told.get("group").asText(), told.get("topics"));
                default -> throw new IllegalArgumentException(command + " before its client was made");
            };
            answer(id, object());
        }
    }

    public static void main(String[] arguments) throws IOException {
        if (arguments.length > 0 && arguments[0].equals("version")) {
            System.out.println(AppInfoParser.getVersion());
            return;
        }
        Map<String, Desk> desks = new HashMap<>();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            JsonNode told = JSON.readTree(line);
            desks.computeIfAbsent(told.get("client").asText(), name -> new Desk()).take(told);
        }
        System.exit(0);
    }
}
