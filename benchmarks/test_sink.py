"""The sink's checking mode finds what is wrong with a batch, and what contenders send passes it."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka.errors import CorruptRecordException
from comparing import arrival, climit, compiled, report, rounds
from comparing.checking import check, problems
from comparing.contenders import C_LIMIT, CEILING, CONFLUENT_BATCH, FUTURES, MEMORY_LIMIT
from comparing.job import THROUGHPUT, Case
from comparing.kept import difference, read
from comparing.sink import Sink, arrived
from comparing.workload import page

from fastprod import KafkaProducer
from fastprod._backend import RecordBatchBuilder, crc32c, encode_produce_request, partition_for_key
from fastprod.compression import compressor

TOPIC, PARTITIONS, SIZE = "checked", 3, 100
COUNT_AT, LAST_DELTA_AT, CRC_AT, ATTRIBUTES_AT = 57, 23, 17, 21
# Less than one stretch of the interleaved CRC, and several of them with a rest.
RECORDS = (1, 7, 3_000)
Record = tuple[bytes, bytes]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where the sink keeps batches."""
    return tmp_path / "kept"


@pytest.fixture
def sink(kept: Path) -> Iterator[Sink]:
    """In its checking mode."""
    with Sink(PARTITIONS, kept) as started:
        yield started


def stream(count: int) -> list[Record]:
    """The first records that every contender sends."""
    values, keys = page(SIZE)
    return list(zip(values[:count], keys[:count], strict=True))


def by_partition(records: list[Record]) -> dict[int, list[Record]]:
    """Each on that of its key."""
    found: dict[int, list[Record]] = {}
    for value, key in records:
        found.setdefault(partition_for_key(key, PARTITIONS), []).append((value, key))
    return found


def batch(records: list[Record], sequence: int = 0, codec: str | None = None) -> bytes:
    """Of producer 1, epoch 0."""
    builder = RecordBatchBuilder(10_000_000)
    for value, key in records:
        assert builder.append(1_000, key, value, []) is not None
    packed = (4, compressor(codec)) if codec else (0, None)
    return builder.build(*packed, producer_id=1, producer_epoch=0, base_sequence=sequence)


def with_crc(changed: bytearray) -> bytes:
    """With the CRC-32C that the changed bytes have."""
    struct.pack_into(">I", changed, CRC_AT, crc32c(bytes(changed[ATTRIBUTES_AT:])))
    return bytes(changed)


def produce(sink: Sink, partitions: dict[int, bytes]) -> None:
    """Send a batch a partition in one request and read the answer."""
    host, port = sink.address.split(":")
    request = encode_produce_request(7, 5, "test", -1, 1_000, [(TOPIC, None, list(partitions.items()))])
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(request)
        answer = connection.makefile("rb")
        (size,) = struct.unpack(">i", answer.read(4))
        assert struct.unpack_from(">i", answer.read(size)) == (5,)


@pytest.mark.parametrize("count", RECORDS)
def test_right_batches_have_no_problem(sink: Sink, kept: Path, count: int) -> None:
    parts = by_partition(stream(count))
    produce(sink, {partition: batch(records) for partition, records in parts.items()})
    counted = sink.counted()
    assert (counted.records, counted.batches, problems(counted, count)) == (count, len(parts), "")
    assert difference(read(kept), SIZE, [count], PARTITIONS, hashes=True) == ""


def test_it_tells_when_each_record_came(tmp_path: Path) -> None:
    """Not when it was read: the sink stands still meanwhile."""
    came = tmp_path / "came"
    with Sink(1, arrivals=came) as sink, KafkaProducer(bootstrap_servers=sink.address) as producer:
        producer.send(TOPIC, bytes(8)).get(30)
        sink.pause()
        began = time.time_ns()
        futures = [producer.send(TOPIC, began.to_bytes(8, "big") + b"more", b"key") for _ in range(3)]
        time.sleep(1)   # of which nothing may be in the times below
        assert not any(future.is_done for future in futures)
        sink.resume()
        for future in futures:
            future.get(30)
        first, *others = arrived(came)
    assert first > 1e9  # since 1970, of a value without a time
    assert len(others) == 3
    assert 0 < others[0] < 0.9


@pytest.mark.parametrize("value", [b"short", None])
def test_a_value_without_a_time_is_a_problem(tmp_path: Path, value: bytes | None) -> None:
    with Sink(PARTITIONS, arrivals=tmp_path / "came") as sink:
        produce(sink, {0: batch([(value, b"key")])})  # type: ignore[list-item]
        assert sink.counted().first_problem == "value without a time: checked, partition 0: 0, not -1"


def test_late_records_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not come is void, and who comes is measured from the call."""
    found = arrival.measure(Case(), FUTURES, 20)
    assert not found.void
    assert 0 < found.latency_ms[0] <= found.latency_ms[1] < 1_000
    monkeypatch.setattr(arrival, "arrived", lambda path: arrived(path)[:-1])
    assert arrival.measure(Case(), FUTURES, 20).void == "20 records were to be sent, and 19 came"


def wrong_crc(right: bytearray) -> bytes:
    right[-2] ^= 1  # the end of the last value
    return bytes(right)


def wrong_count(right: bytearray) -> bytes:
    struct.pack_into(">i", right, COUNT_AT, 8)
    struct.pack_into(">i", right, LAST_DELTA_AT, 7)
    return with_crc(right)


def wrong_last_delta(right: bytearray) -> bytes:
    struct.pack_into(">i", right, LAST_DELTA_AT, 7)
    return with_crc(right)


def wrong_record_length(right: bytearray) -> bytes:
    right[61] += 2  # the first record's own length, one more in zigzag
    return with_crc(right)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (wrong_crc, "CRC-32C"),
        (wrong_count, "records"),
        (wrong_last_delta, "last offset delta"),
        (wrong_record_length, "records"),
    ],
)
def test_a_batch_that_lies_about_itself_is_found(sink: Sink, spoil: Callable[[bytearray], bytes], word: str) -> None:
    produce(sink, {0: spoil(bytearray(batch(stream(7))))})
    counted = sink.counted()
    assert counted.problems == 1
    assert counted.first_problem.startswith(f"{word}: {TOPIC}, partition 0: ")
    assert word in problems(counted, counted.records)


def test_a_sequence_that_was_skipped_is_found(sink: Sink) -> None:
    produce(sink, {0: batch(stream(7)), 1: batch(stream(3))})
    produce(sink, {0: batch(stream(7), sequence=7), 1: batch(stream(3), sequence=4)})
    assert sink.counted().first_problem == f"sequence: {TOPIC}, partition 1: 4, not 3"
    assert sink.counted().problems == 1


def test_a_partition_that_there_is_not_is_found(sink: Sink) -> None:
    produce(sink, {PARTITIONS: batch(stream(1))})
    assert sink.counted().first_problem.startswith("partition: ")


def test_a_request_that_cannot_be_read_is_found(sink: Sink) -> None:
    request = encode_produce_request(7, 5, "test", -1, 1_000, [(TOPIC, None, [(0, batch(stream(1)))])])
    cut = struct.pack(">i", len(request) - 4 - 10) + request[4:-10]
    host, port = sink.address.split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(cut)
        assert connection.recv(1) == b""
    assert sink.counted().first_problem.startswith("unreadable request: ")


def changed(records: list[Record]) -> list[Record]:
    (value, key), *others = records
    return [(value[:-1] + b"?", key), *others]


def swapped(records: list[Record]) -> list[Record]:
    first, second, *others = records
    return [second, first, *others]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (changed, "1 records are missing"),
        (swapped, f"record 0 of {TOPIC}, partition 0, is "),
        (lambda records: records[1:], "1 records are missing"),
        (lambda records: [*records, records[0]], "1 records nobody sent"),
    ],
)
def test_records_that_are_not_what_was_produced_are_found(
    sink: Sink, kept: Path, spoil: Callable[[list[Record]], list[Record]], words: str
) -> None:
    parts = by_partition(stream(40))
    parts[0] = spoil(parts[0])
    produce(sink, {partition: batch(records) for partition, records in parts.items()})
    assert sink.counted().problems == 0
    assert words in difference(read(kept), SIZE, [40], PARTITIONS, hashes=True)


def test_a_record_on_the_wrong_partition_is_found(sink: Sink, kept: Path) -> None:
    parts = by_partition(stream(40))
    parts[0], parts[1] = parts[1], parts[0]
    produce(sink, {partition: batch(records) for partition, records in parts.items()})
    assert "belongs to" in difference(read(kept), SIZE, [40], PARTITIONS, hashes=True)


def test_a_record_of_somebody_else_is_found_where_order_is_free(sink: Sink, kept: Path) -> None:
    produce(sink, {0: batch([*stream(5), (b"else", b"key")])})
    assert difference(read(kept), SIZE, [5], PARTITIONS, hashes=False).startswith(
        "a record that nobody sent: key b'key'"
    )


def test_a_count_behind_a_codec_is_found(sink: Sink, kept: Path) -> None:
    produce(sink, {0: batch(stream(7), codec="zstd")})
    assert sum(map(len, read(kept).values())) == 7
    produce(sink, {1: wrong_count(bytearray(batch(stream(7), codec="zstd")))})
    assert sink.counted().problems == 0
    with pytest.raises(CorruptRecordException):
        read(kept)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        (MEMORY_LIMIT, Case()),
        (C_LIMIT, Case(value_size=10)),
        (CEILING, Case()),
        (FUTURES, Case(value_size=100_000, partitions=50, topics=7, threads=3)),
        (CONFLUENT_BATCH, Case(compression="zstd", level=1, topics=2)),
    ],
)
def test_contenders_pass(name: str, case: Case) -> None:
    """Every contender is checked by test_compare_smoke.py; here are the limits, and what is not usual."""
    assert check(case, name) == ""


def test_who_does_not_pass_takes_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "check", lambda case, name: "a record is missing" if name == FUTURES else "")
    said: list[str] = []
    (measured,) = rounds.checked([Case()], [FUTURES, C_LIMIT], THROUGHPUT, said.append)
    assert measured.names == [C_LIMIT]
    assert said[0] == f"checking mode: VOID {FUTURES}: a record is missing"
    assert report.void_lines(measured) == [f"VOID {FUTURES} (checking mode): a record is missing"]
    assert report.table(measured, THROUGHPUT, sink=True).splitlines()[-1].split()[:2] == [FUTURES, "void"]


def test_what_was_compiled_is_kept() -> None:
    built = compiled.program("sink")
    before = built.stat().st_mtime_ns
    assert (compiled.program("sink"), built.stat().st_mtime_ns) == (built, before)


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    compiled._compiler.cache_clear()
    try:
        with pytest.raises(RuntimeError, match=r"neither no-such-compiler nor cc.*apt install gcc"):
            compiled.program("sink")
    finally:
        compiled._compiler.cache_clear()


def test_a_stream_leaves_in_few_requests() -> None:
    """However fast it is answered, a request each half millisecond; full batches would be others."""
    with Sink(1) as sink, KafkaProducer(bootstrap_servers=sink.address) as producer:
        producer.send(TOPIC, b"first").get(10)
        began = time.monotonic()
        for _ in range(5_000):
            producer.send_many(TOPIC, [b"v"] * 32, partition=0)
        producer.flush()
        elapsed = time.monotonic() - began
        requests = sum(each.requests for each in producer.stats().brokers.values())
        assert sink.counted().records == 1 + 5_000 * 32
    assert requests <= 10 + elapsed / 0.0005


def test_a_stream_over_many_partitions_fills_batches() -> None:
    """A request of so many batches is followed by a pause of 20 us for each."""
    partitions = 300
    numbers = list(range(partitions))
    with Sink(partitions) as sink, KafkaProducer(bootstrap_servers=sink.address) as producer:
        # The first batch of a partition goes alone.
        producer.send_many(TOPIC, [b"first"] * partitions, partition=numbers).get(10)
        first = sink.counted().batches
        began = time.monotonic()
        for _ in range(2_000):
            producer.send_many(TOPIC, [b"v"] * partitions, partition=numbers)
        producer.flush()
        elapsed = time.monotonic() - began
        counted = sink.counted()
    assert counted.records == 2_001 * partitions
    assert counted.batches - first <= 3 * partitions + elapsed / 0.00002


def test_what_comes_right_after_a_stream_is_not_left_behind() -> None:
    """With acks=0 nothing else wakes the I/O thread before it looks at idle partitions, once a second."""
    given = {"acks": 0, "enable_idempotence": False}
    with Sink(1) as sink, KafkaProducer(bootstrap_servers=sink.address, **given) as producer:
        producer.send(TOPIC, b"first").get(10)
        began = time.monotonic()
        for _ in range(40):
            producer.send_many(TOPIC, [b"v"] * 32, partition=0)
            producer.flush()
            producer.send(TOPIC, b"v").get(10)
        assert time.monotonic() - began < 10


def test_a_backlog_leaves_as_answers_come() -> None:
    """Pauses are for batches that could fill; what is full meets none, though nobody sends or flushes any more."""
    partitions, rounds, pause = 300, 200, 300 * 0.00002
    numbers = list(range(partitions))

    def seconds(producer: KafkaProducer, sink: Sink) -> float:
        sink.pause()
        for _ in range(rounds):
            future = producer.send_many(TOPIC, [bytes(400)] * partitions, partition=numbers)
        sink.resume()
        began = time.monotonic()
        future.get(60)
        return time.monotonic() - began

    given = {"batch_size": 450, "buffer_memory": 256 << 20}
    with Sink(partitions) as sink, KafkaProducer(bootstrap_servers=sink.address, **given) as producer:
        producer.send_many(TOPIC, [b"first"] * partitions, partition=numbers).get(10)
        # On a busy machine one or the other may take long for its own reasons.
        assert any(seconds(producer, sink) < rounds * pause / 2 for _ in range(5))


@pytest.mark.parametrize(("partitions", "count", "batches"), [(1, 95, 10), (1, 100, 10), (3, 1, 1), (3, 20, 3)])
def test_the_scattering_loop_fills_batches_by_key(partitions: int, count: int, batches: int) -> None:
    """As many as there are partitions, and again when each has had its records."""
    assert climit.scatter(Case(), partitions, 10, count) == batches


def test_the_scattering_loop_knows_the_partition_of_a_key() -> None:
    """100 of 1,000 partitions at most have a batch: those that the first 100 keys belong to."""
    keys = page(SIZE)[1][:100]
    assert climit.scatter(Case(), 1_000, 10, len(keys)) == len({partition_for_key(key, 1_000) for key in keys})
