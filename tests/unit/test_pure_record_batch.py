"""The pure twin's bytes: golden vectors of the format, and round trips against other people's code
(kafka-python's encoder and decoder, kio, which is generated from Kafka's definitions, crc32c)."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import io
import uuid
import zlib
from typing import Any

import crc32c as reference_crc32c
import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer

from fastprod import _pure
from fastprod._pure import layout, record_batch
from fastprod._pure.crc32c import FOLDS

pytestmark = pytest.mark.pure_only

GOLDEN_A = bytes.fromhex(
    "00000000000000000000003affffffff02e99b8dd80000000000000000018bcfe568000000018bcfe56800"
    "ffffffffffffffffffffffffffff0000000110000000026b027600"
)
GOLDEN_B = bytes.fromhex(
    "000000000000000000000045ffffffff021382789d0010000000010000018bcfe568000000018bcfe56800"
    "00000000000010920007000000640000000218000000026b027602026802780c000902010100"
)
BASE = 1_700_000_000_000

NULLABLE = st.none() | st.binary(max_size=60)
HEADERS = st.lists(st.tuples(st.text(max_size=8), NULLABLE), max_size=3)
TIMESTAMPS = st.integers(0, 2**53)
RECORDS = st.lists(st.tuples(TIMESTAMPS, NULLABLE, NULLABLE, HEADERS), min_size=1, max_size=20)
VERSIONS = st.integers(3, 13)


def built(records: list[Any], **how: Any) -> bytes:
    builder = _pure.RecordBatchBuilder()
    for record in records:
        assert builder.append(*record) is not None
    return builder.build(**how)


class TestGoldenVectors:
    def test_one_plain_record(self) -> None:
        assert built([(BASE, b"k", b"v", [])]) == GOLDEN_A

    def test_header_null_fields_and_earlier_timestamp(self) -> None:
        batch = built(
            [(BASE, b"k", b"v", [("h", b"x")]), (BASE - 5, None, None, [])],
            producer_id=4242,
            producer_epoch=7,
            base_sequence=100,
        )
        # The vector is transactional; nothing else differs, and the CRC covers that bit.
        assert batch[: layout.CRC_AT] == GOLDEN_B[: layout.CRC_AT]
        assert batch[layout.LAST_OFFSET_DELTA_AT :] == GOLDEN_B[layout.LAST_OFFSET_DELTA_AT :]
        covered = GOLDEN_B[layout.ATTRIBUTES_AT :]
        assert _pure.crc32c(covered) == int.from_bytes(GOLDEN_B[17:21], "big")

    def test_decoding(self) -> None:
        body = GOLDEN_B[layout.BATCH_HEADER :]
        assert _pure.decode_records(body, BASE, 2) == [
            (BASE, b"k", b"v", [("h", b"x")]),
            (BASE - 5, None, None, []),
        ]

    @pytest.mark.parametrize("cut", range(1, 20))
    def test_cut_short(self, cut: int) -> None:
        body = GOLDEN_B[layout.BATCH_HEADER :]
        with pytest.raises(ValueError):  # noqa: PT011
            _pure.decode_records(body[:-cut], BASE, 2)
        with pytest.raises(ValueError, match="follow"):
            _pure.decode_records(body + b"\0" * cut, BASE, 2)

    def test_room(self) -> None:
        builder = _pure.RecordBatchBuilder(limit=70)
        assert builder.append(BASE, None, b"x" * 500, []) == 0
        assert builder.append(BASE, None, b"x", []) is None
        builder = _pure.RecordBatchBuilder(limit=61 + 2 * 9)
        assert [builder.append(BASE, b"k", b"v", []) for _ in range(3)] == [0, 1, None]
        assert builder.size == 61 + 2 * 9


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "encoded"),
        [
            (0, "00"),
            (-1, "01"),
            (1, "02"),
            (63, "7e"),
            (64, "8001"),
            (-64, "7f"),
            (-65, "8101"),
            (300, "d804"),
            (2**31 - 1, "feffffff0f"),
            (-(2**31), "ffffffff0f"),
            (8191, "fe7f"),
            (8192, "808001"),
        ],
    )
    def test_varint(self, value: int, encoded: str) -> None:
        raw = bytes.fromhex(encoded)
        assert _pure.encode_varint(value) == _pure.encode_varlong(value) == raw
        assert _pure.decode_varint(b"?" + raw, 1) == (value, 1 + len(raw))
        assert _pure.decode_varlong(raw, 0) == (value, len(raw))

    @given(st.integers(-(2**63), 2**63 - 1))
    def test_varlong_round_trip(self, value: int) -> None:
        raw = _pure.encode_varlong(value)
        assert len(raw) <= 10
        assert _pure.decode_varlong(raw, 0) == (value, len(raw))

    @given(st.integers(0, 2**32 - 1))
    def test_uvarint_round_trip(self, value: int) -> None:
        raw = _pure.encode_uvarint(value)
        assert len(raw) <= 5
        assert _pure.decode_uvarint(raw, 0) == (value, len(raw))

    def test_out_of_range_and_cut_short(self) -> None:
        for refused in (2**31, -(2**31) - 1):
            with pytest.raises(ValueError, match="fit"):
                _pure.encode_varint(refused)
        with pytest.raises(ValueError, match="fit"):
            _pure.encode_varlong(2**63)
        for refused in (-1, 2**32):
            with pytest.raises(ValueError, match="fit"):
                _pure.encode_uvarint(refused)
        for broken in (b"", b"\x80", b"\xff\xff\xff\xff\x1f", b"\x80\x80\x80\x80\x80\x01"):
            with pytest.raises(ValueError, match="cut short"):
                _pure.decode_varint(broken, 0)
        with pytest.raises(ValueError, match="cut short"):
            _pure.decode_varlong(b"\xff" * 9 + b"\x02", 0)
        with pytest.raises(ValueError, match="cut short"):
            _pure.decode_uvarint(b"\0", 1)

    @pytest.mark.parametrize(
        ("key", "expected", "of_three", "of_ten", "of_hundred"),
        [
            (b"", 275646681, 0, 1, 81),
            (b"abc", 479470107, 0, 7, 7),
            (b"abcd", -1323649548, 2, 0, 0),
            (b"21", -973932308, 0, 0, 40),
            (b"foobar", -790332482, 0, 6, 66),
            (b"a-little-bit-long-string", -985981536, 2, 2, 12),
            (b"key-000042", -856527934, 1, 4, 14),
            (bytes.fromhex("fffe80007f"), -1602569320, 1, 8, 28),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971, 2, 7, 77),
        ],
    )
    def test_murmur2(
        self, key: bytes, expected: int, of_three: int, of_ten: int, of_hundred: int
    ) -> None:
        assert _pure.murmur2(key) == _pure.murmur2(memoryview(key)) == expected
        chosen = [_pure.partition_for_key(bytearray(key), n) for n in (3, 10, 100)]
        assert chosen == [of_three, of_ten, of_hundred]

    @given(st.binary(max_size=300))
    def test_murmur2_is_kafka_pythons(self, key: bytes) -> None:
        from kafka.partitioner.default import murmur2 as reference

        assert _pure.murmur2(key) & 0xFFFFFFFF == reference(key) & 0xFFFFFFFF


class TestCrc:
    def test_check_value(self) -> None:
        assert _pure.crc32c(b"123456789") == 0xE3069283

    @given(st.binary(max_size=3000), st.integers(0, 2**32 - 1))
    def test_short(self, data: bytes, value: int) -> None:
        assert _pure.crc32c(data, value) == reference_crc32c.crc32c(data, value)

    @pytest.mark.parametrize("size", [79, 80, 4095, 70_001, 262_143, 262_145, 1_000_000])
    def test_long(self, size: int) -> None:
        data = zlib.compress(bytes(range(256)) * 9)[:255] * (size // 255 + 1)
        data = bytes(i * 31 & 0xFF for i in range(97)) + data
        view = memoryview(data)[:size]
        assert _pure.crc32c(view, 7) == reference_crc32c.crc32c(view, 7)

    @given(st.binary(max_size=400), st.binary(max_size=400))
    def test_combine(self, first: bytes, second: bytes) -> None:
        joined = _pure.crc32c_combine(_pure.crc32c(first), _pure.crc32c(second), len(second))
        assert joined == _pure.crc32c(first + second)

    @pytest.mark.parametrize("fold", FOLDS)
    def test_every_fold_is_a_multiple_of_the_generator(
        self, fold: tuple[int, tuple[int, ...]]
    ) -> None:
        generator = 0x11EDC6F41
        remainder = {}
        power = 1
        for exponent in range(fold[0] + 1):
            remainder[exponent] = power
            power <<= 1
            if power >> 32:
                power ^= generator
        total = 1
        for exponent in (fold[0], *fold[1]):
            total ^= remainder[exponent]
        assert total == 0


class TestAgainstKafkaPython:
    @given(RECORDS)
    def test_its_decoder_reads_ours(self, records: list[Any]) -> None:
        batch = DefaultRecordBatch(built(records))
        assert batch.validate_crc()
        read = [(each.timestamp, each.key, each.value, list(each.headers)) for each in batch]
        assert read == [(ts, key, value, headers) for ts, key, value, headers in records]

    @given(RECORDS)
    def test_same_bytes(self, records: list[Any]) -> None:
        theirs = DefaultRecordBatchBuilder(2, 0, False, 9, 1, 5, 10**6)
        for offset, (timestamp, key, value, headers) in enumerate(records):
            theirs.append(offset, timestamp, key, value, headers)
        # Its builder leaves the leader epoch at 0, which is outside the CRC.
        expected = bytearray(theirs.build())
        expected[layout.LEADER_EPOCH_AT : layout.MAGIC_AT] = b"\xff" * 4
        assert built(records, producer_id=9, producer_epoch=1, base_sequence=5) == expected

    @given(RECORDS)
    def test_our_decoder_reads_ours(self, records: list[Any]) -> None:
        body = built(records)[layout.BATCH_HEADER :]
        assert _pure.decode_records(body, records[0][0], len(records)) == records

    def test_compressed_only_when_smaller(self) -> None:
        def compress(data: Any) -> bytes:
            return lz4.frame.compress(bytes(data), block_linked=False)

        batch = built([(BASE, None, b"a" * 1000, [])], codec=3, compress=compress)
        assert batch[layout.ATTRIBUTES_AT + 1] == 3
        assert [each.value for each in DefaultRecordBatch(batch)] == [b"a" * 1000]
        assert built([(BASE, None, b"a", [])], codec=3, compress=compress)[22] == 0

    def test_memoryview_of_wide_items(self) -> None:
        wide = memoryview(b"abcdefgh").cast("I")
        assert built([(BASE, wide, wide[::2], [])]) == built([(BASE, b"abcdefgh", b"abcd", [])])

    @given(NULLABLE, NULLABLE, HEADERS)
    def test_upper_bound(self, key: Any, value: Any, headers: Any) -> None:
        framed = record_batch.frame_record(key, value, record_batch.frame_headers(headers))
        expected = DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, headers)
        assert record_batch.record_upper_bound(len(framed)) == expected


def kio_module(version: int, kind: str) -> Any:
    return importlib.import_module(f"kio.schema.produce.v{version}.{kind}")


TOPICS = st.lists(
    st.tuples(
        st.text("abc", min_size=1, max_size=9),
        st.binary(min_size=16, max_size=16).filter(any),
        st.lists(
            st.tuples(st.integers(0, 2**31 - 1), st.binary(min_size=61, max_size=99)), max_size=3
        ),
    ),
    max_size=3,
)


class TestAgainstKio:
    @given(VERSIONS, TOPICS, st.sampled_from([-1, 0, 1]), st.integers(0, 2**31 - 1))
    def test_request(self, version: int, topics: Any, acks: int, correlation_id: int) -> None:
        frame = _pure.encode_produce_request(version, correlation_id, "me", acks, 500, topics)
        assert int.from_bytes(frame[:4], "big") == len(frame) - 4
        schema = kio_module(version, "request").ProduceRequest
        header, size = entity_reader(schema.__header_schema__)(frame, 4)
        assert (header.request_api_key, header.request_api_version) == (0, version)
        assert (header.correlation_id, header.client_id) == (correlation_id, "me")
        body, rest = entity_reader(schema)(frame[4 + size :], 0)
        assert 4 + size + rest == len(frame)
        assert (body.transactional_id, body.acks) == (None, acks)
        assert body.timeout == datetime.timedelta(milliseconds=500)
        for sent, (name, topic_id, parts) in zip(body.topic_data, topics, strict=True):
            wanted = uuid.UUID(bytes=topic_id) if version >= 13 else name
            assert (sent.topic_id if version >= 13 else sent.name) == wanted
            assert [(part.index, part.records) for part in sent.partition_data] == parts

    @settings(max_examples=200)
    @given(VERSIONS, st.data())
    def test_response(self, version: int, data: st.DataObject) -> None:
        frame, expected = data.draw(responses(version))
        assert _pure.decode_produce_response(version, frame) == expected
        for cut in range(1, len(frame), 7):
            with pytest.raises(ValueError, match="not a Produce response"):
                _pure.decode_produce_response(version, frame[:-cut])
        with pytest.raises(ValueError, match="not a Produce response"):
            _pure.decode_produce_response(version, frame + b"\0")

    @given(VERSIONS, st.binary(max_size=200))
    def test_garbage(self, version: int, garbage: bytes) -> None:
        # Anything but ValueError would end the I/O thread's pass instead of the connection.
        with contextlib.suppress(ValueError):
            _pure.decode_produce_response(version, garbage)

    @pytest.mark.parametrize("version", [2, 14])
    def test_other_versions(self, version: int) -> None:
        with pytest.raises(ValueError, match="3 to 13"):
            _pure.encode_produce_request(version, 0, "me", 1, 1, [])
        with pytest.raises(ValueError, match="3 to 13"):
            _pure.decode_produce_response(version, b"")

    def test_refused_requests(self) -> None:
        with pytest.raises(ValueError, match="topic id"):
            _pure.encode_produce_request(13, 0, "me", 1, 1, [("t", None, [])])
        with pytest.raises(ValueError, match="shorter"):
            _pure.encode_produce_request(9, 0, "me", 1, 1, [("t", None, [(0, b"x" * 60)])])


@st.composite
def responses(draw: st.DrawFn, version: int) -> tuple[bytes, Any]:
    """A response as kio writes it, and what our reader must make of it."""
    schema = kio_module(version, "response")
    texts = st.none() | st.text(max_size=5)
    answers, topics = [], []
    endpoint = (7, "host", 9092) if version >= 10 else (7, None, -1)
    for number in range(draw(st.integers(0, 3))):
        topic, topic_id = f"topic{number}", bytes([number + 1] * 16)
        parts = []
        for partition in range(draw(st.integers(0, 3))):
            code = draw(st.sampled_from([0, 6, 45]))
            offset = draw(st.integers(-1, 2**60))
            extra: dict[str, Any] = {}
            start, record_errors, message, hint = -1, [], None, None
            if version >= 5:
                extra["log_start_offset"] = start = draw(st.integers(-1, 9))
            if version >= 8:
                record_errors = draw(st.lists(st.tuples(st.integers(0, 9), texts), max_size=2))
                extra["record_errors"] = tuple(
                    schema.BatchIndexAndErrorMessage(
                        batch_index=index, batch_index_error_message=text
                    )
                    for index, text in record_errors
                )
                extra["error_message"] = message = draw(texts)
            if version >= 10 and draw(st.booleans()):
                extra["current_leader"] = schema.LeaderIdAndEpoch(leader_id=7, leader_epoch=3)
                hint = (7, 3, *endpoint[1:])
            parts.append(
                schema.PartitionProduceResponse(
                    index=partition,
                    error_code=ErrorCode(code),
                    base_offset=offset,
                    log_append_time=None,
                    **extra,
                )
            )
            name = (None, topic_id) if version >= 13 else (topic, None)
            answers.append(
                (*name, partition, code, offset, -1, start, record_errors, message, hint)
            )
        which = {"topic_id": uuid.UUID(bytes=topic_id)} if version >= 13 else {"name": topic}
        topics.append(schema.TopicProduceResponse(partition_responses=tuple(parts), **which))
    nodes = {}
    if version >= 10:
        nodes["node_endpoints"] = (schema.NodeEndpoint(node_id=7, host="host", port=9092),)
    throttle_ms = draw(st.integers(0, 5000))
    response = schema.ProduceResponse(
        responses=tuple(topics), throttle_time=datetime.timedelta(milliseconds=throttle_ms), **nodes
    )
    correlation_id = draw(st.integers(0, 2**31 - 1))
    buffer = io.BytesIO()
    header = schema.ProduceResponse.__header_schema__(correlation_id=correlation_id)
    entity_writer(type(header))(buffer, header)
    entity_writer(schema.ProduceResponse)(buffer, response)
    return buffer.getvalue(), (correlation_id, throttle_ms, answers)
