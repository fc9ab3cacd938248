"""librdkafka, by confluent-kafka, as a client library of judged tests (judged_load.py)."""

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition, version

from tests import patience
from tests.judged_load import KEYS, payload_hash, value_of

# Certainly without effect; everything else that is not an acknowledgement counts as unknown.
DEFINITE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._QUEUE_FULL}
CONNECTIONS = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 300, "log_level": 0}


class Librdkafka:
    """The library; it works in the test's own process."""

    name = "librdkafka"
    # Two senders wait out every fault; one gives up early, so that outcomes stay unknown.
    timeouts_ms = (30_000, 30_000, 600)
    # The longest pause of a sender between one burst and the next.
    pause_s = 0.05
    reads_by_assignment = True

    def __init__(self, bootstrap, _directory):
        self.bootstrap = bootstrap

    @staticmethod
    def is_installed():
        return True

    @staticmethod
    def version():
        return version()

    def start(self):
        pass

    def end(self):
        pass

    def producer(self, timeout_ms):
        return LibrdkafkaProducer(self.bootstrap, timeout_ms)

    def reader(self):
        consumer = LibrdkafkaConsumer(self.bootstrap, {"group.id": "judged-reader", "auto.offset.reset": "error"})
        consumer.consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in KEYS])
        return consumer

    def member(self, group):
        settings = {"group.id": group, "auto.offset.reset": "earliest", "session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
        consumer = LibrdkafkaConsumer(self.bootstrap, settings)
        consumer.subscribe(sorted({topic for topic, _ in KEYS}))
        return consumer


class LibrdkafkaProducer:
    def __init__(self, bootstrap, timeout_ms):
        self.producer = Producer(CONNECTIONS | {
            "bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 5,
            "message.timeout.ms": timeout_ms, "socket.timeout.ms": 5_000, "retry.backoff.ms": 50, "retry.backoff.max.ms": 300,
            "topic.metadata.refresh.interval.ms": 5_000,
        })

    def send(self, record, answered):
        def delivered(error, message):
            if error is None:
                # None if librdkafka was told that the server has it already, and not where.
                answered("ok", message.offset())
            else:
                answered("fail" if error.code() in DEFINITE else "info", error=error.name())

        try:
            self.producer.produce(record.topic, record.value, record.key, record.partition, on_delivery=delivered, headers=record.headers)
        except BufferError:
            answered("fail")
        except KafkaException as failure:  # a fatal error of this producer: this record was not taken
            answered("fail", error=failure.args[0].name())

    def under_way(self):
        return len(self.producer)

    def wait(self, seconds):
        self.producer.poll(seconds)

    def drop(self):
        self.producer.purge()
        self.producer.flush(2)

    def close(self):
        self.producer.flush(patience.wall_s(40))


class LibrdkafkaConsumer:
    def __init__(self, bootstrap, settings):
        self.moved = set()
        self.consumer = Consumer(CONNECTIONS | settings | {
            "bootstrap.servers": bootstrap, "enable.auto.commit": False, "isolation.level": "read_committed", "fetch.wait.max.ms": 100,
            "fetch.error.backoff.ms": 50,
        })

    def subscribe(self, topics):
        def moved(_, partitions):
            self.moved |= {(entry.topic, entry.partition) for entry in partitions}
        self.consumer.subscribe(topics, on_assign=moved, on_revoke=moved, on_lost=moved)

    def poll(self):
        self.moved.clear()
        records, errors = [], []
        for message in self.consumer.consume(200, 0.3):
            if message.error() is None:
                proof = payload_hash(message.key(), message.value(), message.headers() or [])
                records.append((message.topic(), message.partition(), message.offset(), value_of(message.value()), proof))
            elif message.error().code() == KafkaError._AUTO_OFFSET_RESET:
                raise AssertionError(f"{message.topic()}/{message.partition()}: {message.error().str()}")
            else:
                errors.append(message.error().name())
        return records, self.moved, errors

    def commit(self, positions):
        entries = [TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()]
        try:
            answers = self.consumer.commit(offsets=entries, asynchronous=False)
        except KafkaException as failure:
            return failure.args[0].name()
        return next((answer.error.name() for answer in answers if answer.error), None)

    def close(self):
        self.consumer.close()
