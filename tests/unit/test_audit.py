"""The judge of the fault tests finds what is wrong, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent))
from faults.audit import Fate, Finding, Row, Told, Wrong, audit, summary

pytestmark = pytest.mark.native_only

THREADS, PARTITIONS, RECORDS = 2, 2, 40


def sound() -> tuple[list[Told], dict[int, Row]]:
    """Two threads whose records lie in two partitions, in turn, all acknowledged."""
    told = [Told() for _ in range(THREADS)]
    log = {partition: Row() for partition in range(PARTITIONS)}
    for number in range(RECORDS):
        for thread in range(THREADS):
            row = log[number % PARTITIONS]
            told[thread].add(Fate.ACKNOWLEDGED, number % PARTITIONS, len(row))
            row.add(thread, number, len(row))
    return told, log


def without(row: Row, place: int) -> Row:
    """The row as it would be had one record never come."""
    made = Row()
    for at in range(len(row)):
        if at != place:
            made.add(row.threads[at], row.numbers[at], len(made))
    return made


def kinds(found: list[Finding]) -> set[Wrong]:
    return {each.wrong for each in found}


def test_nothing_is_wrong() -> None:
    assert audit(*sound()) == []
    assert audit([], {}) == []
    assert summary([]) == ""


def test_a_lost_record_in_the_middle() -> None:
    told, log = sound()
    log[1] = without(log[1], 7)
    found = audit(told, log)
    # Number 7 of partition 1, and everything behind it is not where it was said to be.
    assert [each for each in found if each.wrong is Wrong.LOST] == [Finding(Wrong.LOST, 1, 7, 1, 7)]
    assert kinds(found) == {Wrong.LOST, Wrong.ELSEWHERE}


def test_a_lost_record_at_the_end() -> None:
    told, log = sound()
    log[0] = without(log[0], len(log[0]) - 1)
    assert audit(told, log) == [Finding(Wrong.LOST, 1, RECORDS - 2, 0, RECORDS - 1)]


def test_a_partition_that_is_not_there() -> None:
    told, log = sound()
    del log[0]
    assert len(audit(told, log)) == RECORDS
    assert kinds(audit(told, log)) == {Wrong.LOST}


@pytest.mark.parametrize("partition", range(PARTITIONS))
def test_a_doubled_record(partition: int) -> None:
    """At the end of its own partition, or of the other one."""
    told, log = sound()
    log[partition].add(0, 2, len(log[partition]))
    assert audit(told, log) == [Finding(Wrong.TWICE, 0, 2, partition, RECORDS)]


def test_a_doubled_record_that_failed() -> None:
    told, log = sound()
    told[0].add(Fate.MAYBE)
    for row in log.values():
        row.add(0, RECORDS, len(row))
    assert audit(told, log) == [Finding(Wrong.TWICE, 0, RECORDS, 1, RECORDS)]


def test_two_swapped_records() -> None:
    """They lie in the wrong order, exactly where they were said to lie."""
    told, log = sound()
    row = log[0]
    row.numbers[4], row.numbers[6] = row.numbers[6], row.numbers[4]
    assert (row.threads[4], row.threads[6]) == (0, 0)
    first, second = row.numbers[4], row.numbers[6]
    told[0].offsets[first], told[0].offsets[second] = 4, 6
    assert audit(told, log) == [Finding(Wrong.OUT_OF_ORDER, 0, second, 0, 6)]


def test_records_of_two_threads_have_no_order() -> None:
    told, log = sound()
    row = log[0]
    row.threads[4], row.threads[5] = row.threads[5], row.threads[4]
    for place in (4, 5):
        told[row.threads[place]].offsets[row.numbers[place]] = place
    assert audit(told, log) == []


@pytest.mark.parametrize(("partition", "offset"), [(0, 5), (1, 4), (1, -1), (-1, -1)])
def test_a_misreported_record(partition: int, offset: int) -> None:
    told, log = sound()
    told[0].partitions[4], told[0].offsets[4] = partition, offset
    assert (log[0].threads[4], log[0].numbers[4]) == (0, 4)
    assert audit(told, log) == [Finding(Wrong.ELSEWHERE, 0, 4, partition, offset)]


def test_an_offset_that_nobody_told() -> None:
    told, log = sound()
    told[0].offsets[4] = -1
    assert audit(told, log) == []


@pytest.mark.parametrize(
    ("fate", "written", "expected"),
    [
        (Fate.FAILED, False, set()),
        (Fate.MAYBE, False, set()),
        (Fate.MAYBE, True, set()),
        (Fate.FAILED, True, {Wrong.UNEXPLAINED}),
    ],
)
def test_a_failed_record(fate: Fate, written: bool, expected: set[Wrong]) -> None:
    told, log = sound()
    told[1].add(fate)
    if written:
        log[0].add(1, RECORDS, len(log[0]))
    assert kinds(audit(told, log)) == expected


@pytest.mark.parametrize(("thread", "number"), [(0, RECORDS), (THREADS, 0), (-1, 0), (0, -1)])
def test_a_record_that_nobody_sent(thread: int, number: int) -> None:
    told, log = sound()
    log[0].add(thread, number, len(log[0]))
    assert audit(told, log) == [Finding(Wrong.UNKNOWN, thread, number, 0, RECORDS)]


def test_the_summary_names_kinds_and_places() -> None:
    told, log = sound()
    log[0].add(0, 2, len(log[0]))
    del log[1]
    lines = summary(audit(told, log)).splitlines()
    assert lines[0] == "1 in the log more than once: record 0:2, partition 0, offset 40"
    assert lines[1].startswith("40 acknowledged, and not in the log: record 0:1, partition 1, offset 0; ")
