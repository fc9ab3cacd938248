"""Just enough of the Kafka protocol, by hand, for what no client library shows: producer ids of stored batches, raw error
codes, and requests that no sane client sends. Old, non-flexible versions only."""

import socket
import struct

import cramjam

from tests import patience

PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS = 0, 1, 2, 3, 18
EARLIEST, LATEST = -2, -1
# Codecs of a batch, in the lowest three bits of its attributes.
NOT_COMPRESSED, SNAPPY = 0, 2


class Connection:
    """One connection; requests are answered in order, one at a time, each within `timeout_s` of the patient clock."""

    def __init__(self, bootstrap, timeout_s=10):
        host, port = bootstrap.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=patience.wall_s(timeout_s))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation = 0

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send_raw(self, data):
        self.socket.sendall(data)

    def request(self, api, version, body):
        """Sends a request with a version-1 header and gives the Reader of its response's body."""
        self.ask(api, version, body)
        return self.told()

    def ask(self, api, version, body):
        """Sends a request, whose answer `told` gives."""
        self.correlation += 1
        frame = struct.pack(">hhi", api, version, self.correlation) + string("seaway-test") + body
        self.send_raw(struct.pack(">i", len(frame)) + frame)

    def told(self):
        """The Reader of the body of the answer to the last request."""
        answer = self.read_frame()
        if answer.i32() != self.correlation:
            raise ConnectionError("an answer to another request")
        return answer

    def read_frame(self):
        size = struct.unpack(">i", self.read_exactly(4))[0]
        return Reader(self.read_exactly(size))

    def read_exactly(self, count):
        chunks = []
        while count > 0:
            chunk = self.socket.recv(min(count, 1 << 20))
            if not chunk:
                raise ConnectionError("closed by the server")
            chunks.append(chunk)
            count -= len(chunk)
        return b"".join(chunks)


class Reader:
    """Reads the protocol's primitive types."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise ValueError(f"{count} bytes wanted at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(form)))[0]

    def i8(self):
        return self.number("b")

    def i16(self):
        return self.number("h")

    def i32(self):
        return self.number("i")

    def i64(self):
        return self.number("q")

    def string(self):
        size = self.i16()
        return None if size < 0 else self.take(size).decode()

    def bytes(self):
        size = self.i32()
        return b"" if size < 0 else self.take(size)

    def array(self, element):
        return [element() for _ in range(max(self.i32(), 0))]

    def varint(self):
        shift = result = 0
        while True:
            byte = self.take(1)[0]
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (result >> 1) ^ -(result & 1)

    def varbytes(self):
        size = self.varint()
        return None if size < 0 else self.take(size)


def string(text):
    if text is None:
        return struct.pack(">h", -1)
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


def varint(number):
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while True:
        byte = number & 0x7F
        number >>= 7
        if number == 0:
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = crc_table()


def batch(values, timestamp_ms=0, attributes=0, pid=-1, epoch=-1, sequence=-1, base_offset=0, count=None, delta=None,
          checked=True, times=None, max_timestamp_ms=None, records=None):
    """A record batch, format 2, of values without keys; `count`, the last offset `delta` and the largest timestamp may
    lie. Its records have `timestamp_ms`, or each its own of `times`; or they are the bytes of `records`. Without a checksum
    if it is not `checked`."""
    times = times or [timestamp_ms] * len(values)
    base_ms = times[0] if times else timestamp_ms
    if records is None:
        records = plain_records(values, [time_ms - base_ms for time_ms in times])
    count = len(values) if count is None else count
    delta = len(values) - 1 if delta is None else delta
    max_ms = max(times, default=timestamp_ms) if max_timestamp_ms is None else max_timestamp_ms
    fields = struct.pack(">hiqqqhii", attributes, delta, base_ms, max_ms, pid, epoch, sequence, count)
    whole = struct.pack(">qiibI", base_offset, 0, 0, 2, 0) + fields + records
    return sealed(whole) if checked else whole


def plain_records(values, time_deltas):
    """Records without keys and headers, as they lie in a batch that is not compressed."""
    records = b""
    for index, (value, time_delta) in enumerate(zip(values, time_deltas)):
        body = b"\0" + varint(time_delta) + varint(index) + varint(-1) + varint(len(value)) + value + varint(0)
        records += varint(len(body)) + body
    return records


def sealed(batch):
    """A batch with its length and checksum as its other bytes are."""
    checksum = struct.pack(">I", crc32c(batch[21:]))
    return batch[:8] + struct.pack(">i", len(batch) - 12) + batch[12:17] + checksum + batch[21:]


def records(data):
    """(offset, key, value, headers, producer id, epoch, sequence) of every record in a Fetch response's bytes; a batch
    that is cut off at the end is left out, as the protocol has it."""
    found = []
    at = 0
    while at + 61 <= len(data):
        base, size = struct.unpack_from(">qi", data, at)
        if at + 12 + size > len(data):
            break
        _, magic, crc, attributes, _, _, _, pid, epoch, sequence, count = struct.unpack_from(">ibIhiqqqhii", data, at + 12)
        if magic != 2 or attributes & 7 not in (NOT_COMPRESSED, SNAPPY):
            raise ValueError(f"batch at {base}: magic {magic}, attributes {attributes}: only format 2 here, not compressed or by Snappy")
        if attributes & 32 == 0:
            content = data[at + 61:at + 12 + size]
            # As franz-go and librdkafka compress: one block, without the frames around it that the Java client makes.
            reader = Reader(bytes(cramjam.snappy.decompress_raw(content)) if attributes & 7 == SNAPPY else content)
            for _ in range(count):
                found.append(record(reader, base, pid, epoch, sequence))
        at += 12 + size
    return found


def record(reader, base, pid, epoch, sequence):
    reader.varint()
    reader.i8()
    reader.varint()
    delta = reader.varint()
    key, value = reader.varbytes(), reader.varbytes()
    headers = [(reader.varbytes().decode(), reader.varbytes()) for _ in range(reader.varint())]
    return base + delta, key, value, headers, pid, epoch, sequence + delta if sequence >= 0 else -1


def by_topic(keys, element):
    """An array of topics with an array of partitions each; `keys` are (topic, partition)."""
    topics = {}
    for topic, partition in keys:
        topics.setdefault(topic, []).append(partition)
    return array([string(topic) + array([element(topic, number) for number in numbers]) for topic, numbers in topics.items()])


def fetch(connection, positions, max_wait_ms=500, partition_bytes=1 << 20):
    """Fetch v4: {(topic, partition): offset} -> {(topic, partition): (error, high watermark, bytes)}."""
    body = struct.pack(">iiiib", -1, max_wait_ms, 1, 50 << 20, 0) + by_topic(
        positions, lambda topic, number: struct.pack(">iqi", number, positions[topic, number], partition_bytes)
    )
    answer = connection.request(FETCH, 4, body)
    answer.i32()
    found = {}

    def partition(topic):
        number, error, high, _ = answer.i32(), answer.i16(), answer.i64(), answer.i64()
        answer.array(lambda: (answer.i64(), answer.i64()))
        found[topic, number] = (error, high, answer.bytes())

    def of_topic():
        topic = answer.string()
        answer.array(lambda: partition(topic))

    answer.array(of_topic)
    return found


def list_offsets(connection, keys, timestamp):
    """ListOffsets v1: {(topic, partition): (error, offset)}."""
    body = struct.pack(">i", -1) + by_topic(keys, lambda _, number: struct.pack(">iq", number, timestamp))
    answer = connection.request(LIST_OFFSETS, 1, body)
    found = {}

    def partition(topic):
        number, error, _, offset = answer.i32(), answer.i16(), answer.i64(), answer.i64()
        found[topic, number] = (error, offset)

    def of_topic():
        topic = answer.string()
        answer.array(lambda: partition(topic))

    answer.array(of_topic)
    return found


def produce(connection, topic, partition, data, acks=-1, timeout_ms=10_000):
    """Produce v3 of one partition: (error, base offset)."""
    body = string(None) + struct.pack(">hi", acks, timeout_ms) + array([
        string(topic) + array([struct.pack(">ii", partition, len(data)) + data])
    ])
    answer = connection.request(PRODUCE, 3, body)
    answer.i32()
    answer.string()
    answer.i32()
    answer.i32()
    return answer.i16(), answer.i64()


def api_versions(connection):
    """ApiVersions v0: {key: (lowest, highest)}."""
    ask_api_versions(connection)
    return told_api_versions(connection)


def ask_api_versions(connection):
    connection.ask(API_VERSIONS, 0, b"")


def told_api_versions(connection):
    answer = connection.told()
    error = answer.i16()
    if error:
        raise ValueError(f"ApiVersions answers error {error}")
    return {key: (low, high) for key, low, high in answer.array(lambda: (answer.i16(), answer.i16(), answer.i16()))}
