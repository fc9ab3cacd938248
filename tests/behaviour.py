"""What clients rely on and no client library shows: error codes, repeats and orders, by raw requests.
BOOTSTRAP=host:port python -m tests.behaviour [CHECK ...]

Every expectation holds for Apache Kafka too: `python -m tests.server --reference -- python -m tests.behaviour`.
"""

import gzip
import struct
import time

from tests import protocol
from tests.harness import BOOTSTRAP, Suite, expect, expect_equal, unique, wait_until

INIT_PRODUCER_ID, OFFSET_FETCH, FIND_COORDINATOR, OFFSET_COMMIT, JOIN_GROUP, HEARTBEAT = 22, 9, 10, 8, 11, 12
OFFSET_FOR_LEADER_EPOCH = 23
UNKNOWN_SERVER_ERROR, INVALID_TIMESTAMP, INVALID_RECORD, UNKNOWN_TOPIC_ID = -1, 32, 87, 100
NONE, OFFSET_OUT_OF_RANGE, UNKNOWN_TOPIC, INVALID_TOPIC, REQUIRED_ACKS = 0, 1, 3, 17, 21
ILLEGAL_GENERATION, UNKNOWN_MEMBER, INVALID_SESSION_TIMEOUT, UNSUPPORTED_VERSION = 22, 25, 26, 35
OUT_OF_ORDER_SEQUENCE, INVALID_PRODUCER_EPOCH, MEMBER_ID_REQUIRED = 45, 47, 79
suite = Suite("behaviour")


def connect():
    return protocol.Connection(BOOTSTRAP, timeout_s=20)


def now_ms():
    return int(time.time() * 1000)


def new_topic():
    """A topic made by a mention in Metadata v1; ready when its partition answers."""
    topic = unique("behaviour")
    with connect() as connection:
        def there():
            connection.request(protocol.METADATA, 1, protocol.array([protocol.string(topic)]))
            return protocol.list_offsets(connection, [(topic, 0)], protocol.LATEST)[topic, 0] == (NONE, 0)
        wait_until(there, 20, "a new topic")
    return topic


def init_producer(connection):
    """InitProducerId v0 without a transactional id: (producer id, epoch)."""
    def ready():
        answer = connection.request(INIT_PRODUCER_ID, 0, protocol.string(None) + struct.pack(">i", 1000))
        answer.i32()
        return (answer.i64(), answer.i16()) if answer.i16() == NONE else None
    return wait_until(ready, 20, "a producer id")


def coordinator(connection, group):
    """Waits until the group has a coordinator (FindCoordinator v0)."""
    def ready():
        return connection.request(FIND_COORDINATOR, 0, protocol.string(group)).i16() == NONE
    wait_until(ready, 20, f"a coordinator of {group}")


def commit(connection, group, topic, offset, generation=-1, member=""):
    """OffsetCommit v2 of partition 0: its error."""
    body = protocol.string(group) + struct.pack(">i", generation) + protocol.string(member) + struct.pack(">q", -1)
    body += protocol.array([
        protocol.string(topic) + protocol.array([struct.pack(">iq", 0, offset) + protocol.string("")])
    ])
    answer = connection.request(OFFSET_COMMIT, 2, body)
    answer.i32()
    answer.string()
    answer.i32()
    answer.i32()
    return answer.i16()


def committed(connection, group, topic):
    """OffsetFetch v1 of partition 0: (offset, error)."""
    body = protocol.string(group) + protocol.array([protocol.string(topic) + protocol.array([struct.pack(">i", 0)])])
    answer = connection.request(OFFSET_FETCH, 1, body)
    answer.i32()
    answer.string()
    answer.i32()
    answer.i32()
    offset = answer.i64()
    answer.string()
    return offset, answer.i16()


def join(connection, group, session_ms=10_000, member="", version=4):
    """JoinGroup v4: (error, generation, member id)."""
    body = protocol.string(group) + struct.pack(">ii", session_ms, 10_000) + protocol.string(member)
    body += protocol.string("consumer") + protocol.array([protocol.string("range") + struct.pack(">i", 2) + b"\0\0"])
    answer = connection.request(JOIN_GROUP, version, body)
    answer.i32()
    error, generation = answer.i16(), answer.i32()
    answer.string()
    answer.string()
    return error, generation, answer.string()


@suite.check
def an_unknown_version_of_api_versions_gets_the_oldest_form():
    with connect() as connection:
        answer = connection.request(protocol.API_VERSIONS, 99, b"\0\x02x\x02y\0")
        expect_equal(answer.i16(), UNSUPPORTED_VERSION, "the error")
        versions = {key: (low, high) for key, low, high in answer.array(lambda: (answer.i16(), answer.i16(), answer.i16()))}
        expect(protocol.API_VERSIONS in versions, f"ApiVersions' own range in {versions}")
        expect_equal(protocol.api_versions(connection)[protocol.PRODUCE][0], 0, "Produce's lowest version, for old librdkafka")


@suite.check
def a_repeated_batch_gets_its_first_offset():
    topic = new_topic()
    with connect() as connection:
        pid, epoch = init_producer(connection)
        batches = [
            protocol.batch([b"a", b"b"], now_ms(), pid=pid, epoch=epoch, sequence=sequence) for sequence in range(0, 12, 2)
        ]
        offsets = [protocol.produce(connection, topic, 0, data) for data in batches]
        expect_equal(offsets, [(NONE, offset) for offset in range(0, 12, 2)], "first answers")
        for number in range(1, 6):
            expect_equal(protocol.produce(connection, topic, 0, batches[number]), (NONE, 2 * number), f"repeat of {number}")
        expect_equal(protocol.list_offsets(connection, [(topic, 0)], protocol.LATEST)[topic, 0], (NONE, 12), "the end")


@suite.check
def sequences_with_a_gap_and_old_epochs_are_refused():
    topic = new_topic()
    with connect() as connection:
        pid, epoch = init_producer(connection)

        def send(sequence, at_epoch):
            data = protocol.batch([b"x"], now_ms(), pid=pid, epoch=at_epoch, sequence=sequence)
            return protocol.produce(connection, topic, 0, data)

        expect_equal(send(0, epoch), (NONE, 0), "the first")
        expect_equal(send(2, epoch), (OUT_OF_ORDER_SEQUENCE, -1), "a gap")
        expect_equal(send(1, epoch), (NONE, 1), "the one that was missing")
        expect_equal(send(5, epoch + 1), (OUT_OF_ORDER_SEQUENCE, -1), "a new epoch that does not start at 0")
        expect_equal(send(0, epoch + 1), (NONE, 2), "a new epoch")
        expect_equal(send(2, epoch), (INVALID_PRODUCER_EPOCH, -1), "the old epoch")


@suite.check
def answers_come_in_the_order_of_the_requests():
    topic = new_topic()
    with connect() as connection:
        data = protocol.batch([b"v" * 1000], now_ms())
        # A fetch that waits half a second, then produces, then metadata: nothing overtakes.
        waits = struct.pack(">iiiib", -1, 500, 1, 1 << 20, 0) + protocol.by_topic(
            {(topic, 0): 0}, lambda name, number: struct.pack(">iqi", number, 0, 1 << 20)
        )
        stores = protocol.string(None) + struct.pack(">hi", -1, 10_000) + protocol.array([
            protocol.string(topic) + protocol.array([struct.pack(">ii", 0, len(data)) + data])
        ])
        requests = [(protocol.FETCH, 4, waits)] + [(protocol.PRODUCE, 3, stores)] * 5 + [
            (protocol.METADATA, 1, protocol.array([protocol.string(topic)]))
        ]
        pipelined = b""
        for number, (api, version, body) in enumerate(requests):
            frame = struct.pack(">hhi", api, version, 100 + number) + protocol.string("pipeline") + body
            pipelined += struct.pack(">i", len(frame)) + frame
        connection.send_raw(pipelined)
        order = [connection.read_frame().i32() for _ in requests]
        expect_equal(order, list(range(100, 100 + len(requests))), "correlation ids of the answers")


@suite.check
def produce_errors_have_kafkas_codes():
    topic = new_topic()
    data = protocol.batch([b"x"], now_ms())
    with connect() as connection:
        expect_equal(protocol.produce(connection, topic, 0, data, acks=5)[0], REQUIRED_ACKS, "acks=5")
        expect_equal(protocol.produce(connection, topic, 77, data)[0], UNKNOWN_TOPIC, "a partition that is not there")
        expect_equal(protocol.produce(connection, unique("absent"), 0, data)[0], UNKNOWN_TOPIC, "a topic that is not there")
        # Without an answer on success, an error of acks=0 closes the connection.
        body = protocol.string(None) + struct.pack(">hi", 0, 1000) + protocol.array([
            protocol.string(topic) + protocol.array([struct.pack(">ii", 77, len(data)) + data])
        ])
        frame = struct.pack(">hhi", protocol.PRODUCE, 3, 9) + protocol.string("acks0") + body
        connection.send_raw(struct.pack(">i", len(frame)) + frame)
        try:
            connection.read_frame()
            expect(False, "an answer to acks=0")
        except ConnectionError:
            pass


@suite.check
def fetches_at_and_beyond_the_ends():
    topic = new_topic()
    with connect() as connection:
        protocol.produce(connection, topic, 0, protocol.batch([b"one", b"two", b"three"], now_ms()))
        for offset, wanted in ((3, NONE), (4, OFFSET_OUT_OF_RANGE), (-1, OFFSET_OUT_OF_RANGE)):
            error, _, data = protocol.fetch(connection, {(topic, 0): offset}, max_wait_ms=50)[topic, 0]
            expect_equal((error, protocol.records(data)), (wanted, []), f"a fetch at {offset}")
        error, high, data = protocol.fetch(connection, {(topic, 0): 1})[topic, 0]
        found = [entry[2] for entry in protocol.records(data) if entry[0] >= 1]
        expect_equal((error, high, found), (NONE, 3, [b"two", b"three"]), "a fetch into a batch")
        absent = unique("absent")
        expect_equal(protocol.fetch(connection, {(absent, 0): 0}, max_wait_ms=50)[absent, 0][0], UNKNOWN_TOPIC, "no topic")


@suite.check
def offsets_of_unknown_groups_and_strangers():
    topic, group = new_topic(), unique("behaviour")
    with connect() as connection:
        coordinator(connection, group)
        loading = (14, 15, 16)  # where the coordinator has just been made
        wait_until(lambda: committed(connection, group, topic)[1] not in loading, 10, "a coordinator that has loaded")
        expect_equal(committed(connection, group, topic), (-1, NONE), "an unknown group")
        # Without members a group is a place to keep offsets.
        expect_equal(commit(connection, group, topic, 5), NONE, "a commit without a member")
        expect_equal(committed(connection, group, topic), (5, NONE), "the offset")
        fresh = unique("behaviour")
        coordinator(connection, fresh)
        expect_equal(commit(connection, fresh, topic, 5, 3, "someone"), ILLEGAL_GENERATION, "a commit to no group as its member")


@suite.check
def joining_a_group_step_by_step():
    topic, group = new_topic(), unique("behaviour")
    with connect() as connection:
        coordinator(connection, group)
        expect_equal(join(connection, group, session_ms=10)[0], INVALID_SESSION_TIMEOUT, "a session of 10 ms")
        error, _, member = join(connection, group)
        expect_equal(error, MEMBER_ID_REQUIRED, "the first join")
        expect(member, "the member id to join with")
        error, generation, again = join(connection, group, member=member)
        expect_equal((error, again), (NONE, member), "the second join")
        expect_equal(commit(connection, group, topic, 1, generation + 7, member), ILLEGAL_GENERATION, "another generation")
        expect_equal(commit(connection, group, topic, 1, generation, "stranger"), UNKNOWN_MEMBER, "a stranger's commit")
        expect_equal(commit(connection, group, topic, 1), UNKNOWN_MEMBER, "a commit without a member to a group with members")
        body = protocol.string(group) + struct.pack(">i", generation) + protocol.string("stranger")
        expect_equal(connection.request(HEARTBEAT, 0, body).i16(), UNKNOWN_MEMBER, "a stranger's heartbeat")


@suite.check
def records_are_found_by_time_whatever_the_header_of_their_batch_says():
    base = now_ms() - 100_000
    times = [base + 10, base + 30, base + 20]
    values = [b"a", b"b", b"c"]
    packed = gzip.compress(protocol.plain_records(values, [time_ms - base - 10 for time_ms in times]))
    # Sarama up to 1.45.0 says -1, kafkajs the largest that its user gave, kafka-go the last; and one that is too late.
    for said in (-1, base + 10, base + 20, base + 7_300_000):
        for codec, records in ((0, None), (1, packed)):
            topic = new_topic()
            with connect() as connection:
                data = protocol.batch(values, attributes=codec, times=times, max_timestamp_ms=said, records=records)
                expect_equal(protocol.produce(connection, topic, 0, data), (NONE, 0), f"a batch that says {said - base}")
                for after, offset in ((0, 0), (10, 0), (11, 1), (30, 1), (31, -1)):
                    found = protocol.list_offsets(connection, [(topic, 0)], base + after)[topic, 0]
                    expect_equal(found, (NONE, offset), f"{after} ms on, said {said - base}, codec {codec}")


@suite.check
def records_that_no_client_can_read_are_refused():
    topic = new_topic()
    # Length, attributes, timestamp delta, offset delta, key, value, number of headers.
    wrong = {
        "a negative number of headers": bytes([12, 0, 0, 0, 1, 1, 1]),
        "fewer headers than are said": bytes([12, 0, 0, 0, 1, 1, 2]),
        "a header with a null key": bytes([16, 0, 0, 0, 1, 1, 2, 1, 1]),
        "a value longer than the record": bytes([14, 0, 0, 0, 1, 8, 118, 0]),
        "an offset delta of six bytes": bytes([22, 0, 0, 128, 128, 128, 128, 128, 0, 1, 1, 0]),
        "two records in one": protocol.plain_records([b"a", b"b"], [0, 0]),
        "no record": b"",
    }
    with connect() as connection:
        for what, records in wrong.items():
            for codec, packed in ((0, records), (1, gzip.compress(records))):
                data = protocol.batch([b"a"], now_ms(), attributes=codec, records=packed)
                expect_equal(protocol.produce(connection, topic, 0, data)[0], INVALID_RECORD, f"{what}, codec {codec}")
        for codec in (1, 2, 3):
            data = protocol.batch([b"a"], now_ms(), attributes=codec, records=b"garbage" * 9)
            error = protocol.produce(connection, topic, 0, data)[0]
            # Kafka has no better name for it than an unknown error.
            expect(error in (INVALID_RECORD, UNKNOWN_SERVER_ERROR), f"garbage in codec {codec}: error {error}")
        whole = gzip.compress(protocol.plain_records([b"a"], [0]))
        for padded in (whole, whole + b"\0" * 9):
            data = protocol.batch([b"a"], now_ms(), attributes=1, records=padded)
            expect_equal(protocol.produce(connection, topic, 0, data)[0], NONE, "a sound one, padded or not")
        expect_equal(protocol.list_offsets(connection, [(topic, 0)], now_ms() - 60_000)[topic, 0], (NONE, 0), "by time")


@suite.check
def timestamps_far_from_now_are_refused():
    topic = new_topic()
    with connect() as connection:
        for ahead_ms, wanted in ((0, NONE), (7_200_000, INVALID_TIMESTAMP)):
            for codec in (0, 1):
                records = protocol.plain_records([b"a", b"b"], [0, ahead_ms])
                packed = gzip.compress(records) if codec else records
                data = protocol.batch([b"a", b"b"], now_ms(), attributes=codec, records=packed)
                error = protocol.produce(connection, topic, 0, data)[0]
                expect_equal(error, wanted, f"{ahead_ms} ms ahead, codec {codec}")


@suite.check
def a_produce_request_may_say_no_time():
    topic = new_topic()
    with connect() as connection:
        for offset, timeout_ms in enumerate((0, -1)):
            answer = protocol.produce(connection, topic, 0, protocol.batch([b"a"], now_ms()), timeout_ms=timeout_ms)
            expect_equal(answer, (NONE, offset), f"a timeout of {timeout_ms} ms")


@suite.check
def no_epoch_of_another_cluster_is_unknown():
    topic = new_topic()
    with connect() as connection:
        protocol.produce(connection, topic, 0, protocol.batch([b"a"] * 10, now_ms()))
        # Offsets copied from another cluster carry its epochs, mostly 0. Where the first epoch is a later one the
        # answer is the start, and a client goes there; "unknown" would send it to the end.
        for epoch, known in ((0, True), (-1, False)):
            body = protocol.by_topic({(topic, 0): 0}, lambda _, number: struct.pack(">iii", number, -1, epoch))
            answer = connection.request(OFFSET_FOR_LEADER_EPOCH, 2, body)
            answer.i32()
            answer.i32()
            answer.string()
            answer.i32()
            error, _, found, end = answer.i16(), answer.i32(), answer.i32(), answer.i64()
            expect_equal(error, NONE, "the error")
            expect(found == 0 and end in (0, 10) if known else (found, end) == (-1, -1), f"{epoch} is {found}, ends at {end}")


def metadata_12(connection, topic_id, name):
    """Metadata v12 of one topic, without creating it: (error, name, topic id)."""
    def compact(text):
        return b"\0" if text is None else bytes([len(text) + 1]) + text.encode()

    body = b"\0" + b"\2" + topic_id + compact(name) + b"\0" + b"\0\0\0"
    answer = connection.request(protocol.METADATA, 12, body)
    text = lambda: answer.take(size - 1).decode() if (size := answer.take(1)[0]) else None  # noqa: E731
    answer.take(1)
    answer.i32()
    for _ in range(answer.take(1)[0] - 1):
        answer.i32(), text(), answer.i32(), text(), answer.take(1)
    text()
    answer.i32()
    expect_equal(answer.take(1)[0] - 1, 1, "topics in the answer")
    return answer.i16(), text(), answer.take(16)


@suite.check
def an_id_decides_whatever_name_is_beside_it():
    topic, other = new_topic(), new_topic()
    with connect() as connection:
        error, name, topic_id = metadata_12(connection, bytes(16), topic)
        expect_equal((error, name), (NONE, topic), "by name")
        for beside in (None, "", other, unique("absent")):
            expect_equal(metadata_12(connection, topic_id, beside), (NONE, topic, topic_id), f"by id, beside {beside!r}")
            unknown = bytes([7] * 16)
            expect_equal(metadata_12(connection, unknown, beside), (UNKNOWN_TOPIC_ID, None, unknown), "an unknown id")


@suite.check
def names_of_topics_are_checked():
    with connect() as connection:
        for name in ("no spaces", "a/b", ".", "..", "x" * 250, ""):
            answer = connection.request(protocol.METADATA, 1, protocol.array([protocol.string(name)]))
            answer.array(lambda: (answer.i32(), answer.string(), answer.i32(), answer.string()))
            answer.i32()
            errors = answer.array(lambda: (answer.i16(), answer.string(), answer.i8(), answer.array(lambda: None))[0])
            expect_equal(errors, [INVALID_TOPIC], f"the error for {name[:20]!r}")


if __name__ == "__main__":
    suite.main()
