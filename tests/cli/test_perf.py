"""`fastprod perf` against a real broker: its figures add up to what another client reads."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from shell import PATIENCE_S, MakeTopic, run, start
from shell import read as read_topic

from fastprod.cli import perf_load, perf_payload, perf_run
from fastprod.cli.perf_report import Result
from fastprod.testing import KafkaBroker


def perf(broker: KafkaBroker, topic: str, *options: str) -> tuple[int, dict[str, Any], str]:
    """The exit status, the result and what was said."""
    done = run("perf", "-b", broker.bootstrap_servers, "-t", topic, "--json", *options)
    assert "Traceback" not in done.said
    return done.status, json.loads(done.out), done.said


# Numbers


def test_every_acknowledged_record_is_in_the_topic(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic(6)
    options = ("--num-records", "20007", "--record-size", "50", "--keys", "40", "--key-size", "6", "--threads", "3")
    status, result, said = perf(kafka_broker, topic, *options, "--warmup-records", "500")
    assert (status, said) == (0, "")
    assert (result["acknowledged"], result["failed"], result["bytes"]) == (20_007, 0, 20_007 * 56)
    found = read_topic(kafka_broker.bootstrap_servers, topic)
    assert len(found) == 20_007 + 500
    assert {each.key for each in found} == {b"%06d" % number for number in range(40)}
    assert {len(each.value or b"") for each in found} == {50}
    assert all((each.value or b"").isupper() for each in found)
    assert len({each.value for each in found}) > 1000
    assert result["records_per_s"] * result["seconds"] == pytest.approx(20_007)
    assert result["megabytes_per_s"] * result["seconds"] == pytest.approx(20_007 * 56 / 1e6)


def test_latency_of_few_records_is_that_of_all(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    _, result, _ = perf(kafka_broker, make_topic(), "--num-records", "1500", "--record-size", "10")
    latency = result["latency_ms"]
    assert latency["sampled"] == 1500
    ordered = [latency[name] for name in ("p50", "p95", "p99", "p99.9", "max")]
    assert ordered == sorted(ordered)
    assert latency["p50"] > 0
    assert 0 < latency["average"] < latency["max"] <= result["seconds"] * 1000
    assert result["cpu_us_per_record"] > 0


def test_a_sample_of_many(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    _, result, _ = perf(kafka_broker, make_topic(), "--num-records", "50000", "--record-size", "10")
    # One of each 25, and the last record ends the last 25.
    assert result["latency_ms"]["sampled"] == 2000


def test_lines_of_a_file_over_and_over(kafka_broker: KafkaBroker, make_topic: MakeTopic, tmp_path: Path) -> None:
    topic = make_topic()
    path = tmp_path / "lines.txt"
    path.write_bytes(b"one\nthree\n\n")
    _, result, _ = perf(kafka_broker, topic, "--num-records", "10", "--payload-file", str(path))
    assert [each.value for each in read_topic(kafka_broker.bootstrap_servers, topic)] == [
        *[b"one", b"three", b""] * 3,
        b"one",
    ]
    assert result["bytes"] == 3 * 8 + 3


def test_a_rate_is_kept(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic()
    options = ("--num-records", "1500", "--record-size", "10", "--throughput", "500", "--threads", "2")
    _, result, said = perf(kafka_broker, topic, *options, "--reporting-interval", "500")
    # A busy machine may fall behind; nothing may run ahead, but for the last of each thread's bursts.
    assert result["records_per_s"] <= 505
    lines = said.splitlines()
    assert len(lines) >= 4
    assert all("records acknowledged in" in line and "latency in ms: average" in line for line in lines)
    times = [each.timestamp_ms for each in read_topic(kafka_broker.bootstrap_servers, topic)]
    # Three seconds of records, less what a busy machine bunches together.
    assert len({(moment - min(times)) // 100 for moment in times}) >= 15


def test_options_reach_the_producer(kafka_broker: KafkaBroker, make_topic: MakeTopic, tmp_path: Path) -> None:
    topic = make_topic()
    path = tmp_path / "producer.properties"
    path.write_text("compression.type=gzip\n")
    perf(kafka_broker, topic, "--num-records", "100", "--record-size", "500", "--config", str(path))
    assert kafka_broker.read_log(topic)[22] & 7 == 1


def test_it_makes_the_topic_once(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = f"{make_topic()}-made"
    options = ("--create-topic", "5", "--num-records", "50", "--record-size", "10", "-X", "partitioner=round_robin")
    assert perf(kafka_broker, topic, *options)[0] == 0
    assert {each.partition for each in read_topic(kafka_broker.bootstrap_servers, topic)} == set(range(5))
    done = run("perf", "-b", kafka_broker.bootstrap_servers, "-t", topic, *options)
    assert (done.status, done.out) == (1, "")
    assert "already exists" in done.said


def test_lines_for_people(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    options = ("-t", make_topic(), "--num-records", "300", "--record-size", "10")
    done = run("perf", "-b", kafka_broker.bootstrap_servers, *options)
    assert (done.status, done.said) == (0, "")
    (line,) = done.out.splitlines()
    assert line.startswith("300 records acknowledged in ")
    for figure in (
        "records/s",
        "MB/s",
        "average",
        "p50",
        "p95",
        "p99",
        "p99.9",
        "max",
        "300 records in the sample",
        "CPU",
    ):
        assert figure in line


# What goes wrong


def test_failed_records_are_named_and_not_counted(
    kafka_broker: KafkaBroker, make_topic: MakeTopic, tmp_path: Path
) -> None:
    topic = make_topic(max_message_bytes=500)
    path = tmp_path / "lines.txt"
    path.write_bytes(b"short\n" + b"x" * 1000 + b"\nshorter\n")
    # A round trip for each record, or good ones would fail with the bad one in their batch.
    options = ("--num-records", "9", "--payload-file", str(path), "--throughput", "20")
    status, result, said = perf(kafka_broker, topic, *options)
    assert status == 1
    assert result["failures"] == {"MessageSizeTooLargeError": result["failed"]}
    found = [each.value for each in read_topic(kafka_broker.bootstrap_servers, topic)]
    assert result["acknowledged"] == len(found) == 9 - result["failed"] == result["latency_ms"]["sampled"]
    assert result["bytes"] == sum(map(len, filter(None, found)))
    assert 3 <= result["failed"] < 9
    assert "records failed: MessageSizeTooLargeError: " in said


def test_refused_records_are_named_and_not_counted(
    kafka_broker: KafkaBroker, make_topic: MakeTopic, tmp_path: Path
) -> None:
    topic = make_topic()
    path = tmp_path / "lines.txt"
    path.write_bytes(b"short\n" + b"x" * 1000 + b"\nshorter\n")
    options = ("--num-records", "8", "--payload-file", str(path), "-X", "max_request_size=1010")
    status, result, said = perf(kafka_broker, topic, *options)
    assert status == 1
    assert (result["acknowledged"], result["failures"]) == (5, {"MessageSizeTooLargeError": 3})
    assert result["bytes"] == 3 * 5 + 2 * 7
    assert [each.value for each in read_topic(kafka_broker.bootstrap_servers, topic)] == [
        *[b"short", b"shorter"] * 2,
        b"short",
    ]
    assert "3 records failed: MessageSizeTooLargeError: The record for topic" in said


def test_a_warm_up_that_fails(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic(max_message_bytes=500)
    options = ("-t", topic, "--num-records", "1", "--record-size", "1000", "--warmup-records", "1")
    done = run("perf", "-b", kafka_broker.bootstrap_servers, *options)
    assert (done.status, done.out) == (1, "")
    assert "1 of 1 warm-up records failed: MessageSizeTooLargeError: " in done.said


@pytest.mark.parametrize(("content", "named"), [(b"", "it has no line"), (None, "it cannot be read")])
def test_a_file_without_records(
    kafka_broker: KafkaBroker, make_topic: MakeTopic, tmp_path: Path, content: bytes | None, named: str
) -> None:
    path = tmp_path / "lines.txt"
    if content is not None:
        path.write_bytes(content)
    options = ("-t", make_topic(), "--num-records", "1", "--payload-file", str(path))
    done = run("perf", "-b", kafka_broker.bootstrap_servers, *options)
    assert (done.status, done.out) == (2, "")
    assert str(path) in done.said
    assert named in done.said


def test_a_topic_that_does_not_exist(kafka_broker: KafkaBroker) -> None:
    options = ("-t", "nobody-made-this", "--num-records", "1", "--record-size", "1")
    quick = ("-X", "allow_auto_create_topics=false", "-X", "max_block_ms=300")
    done = run("perf", "-b", kafka_broker.bootstrap_servers, *options, *quick)
    assert (done.status, done.out) == (1, "")
    assert "'nobody-made-this'" in done.said


def test_nobody_there_to_create_a_topic() -> None:
    options = ("-t", "x", "--num-records", "1", "--record-size", "1", "--create-topic", "1")
    done = run("perf", "-b", "127.0.0.1:1", *options)
    assert (done.status, done.out) == (1, "")
    assert "no broker answers" in done.said


# Ctrl-C


def endless(broker: KafkaBroker, topic: str) -> subprocess.Popen[bytes]:
    options = ("--num-records", "1000000000", "--record-size", "10", "--throughput", "1000")
    return start("perf", "-b", broker.bootstrap_servers, "-t", topic, "--json", *options)


def test_ctrl_c_prints_what_was_reached(kafka_broker: KafkaBroker, make_topic: MakeTopic) -> None:
    topic = make_topic()
    process = endless(kafka_broker, topic)
    read_topic(kafka_broker.bootstrap_servers, topic, 50)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    result = json.loads(out)
    assert result["acknowledged"] == len(read_topic(kafka_broker.bootstrap_servers, topic)) >= 50
    assert result["failed"] == 0


def test_a_second_ctrl_c_gives_up() -> None:
    # A broker of its own: one that was paused for long is left out by its cluster for a while.
    with KafkaBroker() as broker:
        broker.create_topic("x")
        process = endless(broker, "x")
        # Many requests: what was read may not have been acknowledged yet.
        read_topic(broker.bootstrap_servers, "x", 1_000)
        broker.pause()
        process.send_signal(signal.SIGINT)
        # The first leaves it waiting for the broker.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        process.send_signal(signal.SIGINT)
        try:
            out, said = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 130
    result = json.loads(out)
    assert result["acknowledged"] >= 50
    assert set(result["failures"]) == {"IllegalStateError"}
    assert b"Traceback" not in said


# Pieces


def test_sizes_of_any_stretch() -> None:
    payload = perf_payload.Payload([b"a", b"bbb", b""], [b"key", b"yek"])
    pairs = payload.pairs()
    sizes = [len(value) + len(key or b"") for value, key in (next(pairs) for _ in range(12))]
    for first in range(8):
        for count in range(5):
            assert payload.size(first, count) == sum(sizes[first : first + count])


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    failures = perf_load.Failures()
    found = json.loads(Result(1, 1, 1.0, 1.0, [float(n) for n in range(1000, 0, -1)], failures).to_json())
    expected = {"average": 500.5, "p50": 500, "p95": 950, "p99": 990, "p99.9": 999, "max": 1000, "sampled": 1000}
    assert found["latency_ms"] == expected


@pytest.mark.parametrize(
    ("records", "rate", "every"),
    [(1, None, 1), (2_000, None, 1), (100_000, None, 50), (10**7, None, 500), (100_000, 1e4, 10), (100_000, 2e4, 50)],
)
def test_how_large_the_sample_is(records: int, rate: float | None, every: int) -> None:
    plans = perf_run._shares(perf_run.Wanted(records, rate, 3, 0, 1.0))
    assert sum(plan.records for plan in plans) == records
    assert {plan.every for plan in plans} == {every}
