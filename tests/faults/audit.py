"""What became of numbered records, by what the producer said and by what is in the log: the two held together.

Nothing here knows of brokers or futures. Records are known by the thread that sent them and their number in it, and
kept in columns, so that millions of them take little memory.
"""

from __future__ import annotations

import enum
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Fate(enum.IntEnum):
    """What the producer said of a record. MAYBE: it failed, and the error says that it may have been written."""

    ACKNOWLEDGED = 0
    FAILED = 1
    MAYBE = 2


class Told:
    """What was said of one thread's records, in the order of their numbers, 0 and up."""

    def __init__(self) -> None:
        self.fates = bytearray()
        self.partitions = array("i")
        self.offsets = array("q")

    def __len__(self) -> int:
        return len(self.fates)

    def add(self, fate: Fate, partition: int = -1, offset: int = -1) -> None:
        """Add the next record. Only for an acknowledged one is it said where it is."""
        self.fates.append(fate)
        self.partitions.append(partition)
        self.offsets.append(offset)


class Row:
    """The records in the log of one partition, in its order."""

    def __init__(self) -> None:
        self.threads = array("h")
        self.numbers = array("q")
        self.offsets = array("q")

    def __len__(self) -> int:
        return len(self.offsets)

    def add(self, thread: int, number: int, offset: int) -> None:
        """Add the next record."""
        self.threads.append(thread)
        self.numbers.append(number)
        self.offsets.append(offset)


class Wrong(enum.StrEnum):
    """What must not be."""

    LOST = "acknowledged, and not in the log"
    TWICE = "in the log more than once"
    ELSEWHERE = "acknowledged, and not where it was said to be"
    OUT_OF_ORDER = "behind one that the same thread sent to the same partition later"
    UNEXPLAINED = "failed without maybe_written, and in the log"
    UNKNOWN = "in the log, and never sent"


class Finding(NamedTuple):
    """One record that is wrong. `partition` and `offset` are of the log or, of what is not there, as was said."""

    wrong: Wrong
    thread: int
    number: int
    partition: int
    offset: int


def audit(told: Sequence[Told], log: Mapping[int, Row]) -> list[Finding]:
    """Return everything that is wrong; `told` by thread, `log` by partition."""
    found: list[Finding] = []
    times = [bytearray(len(each)) for each in told]
    in_place = [bytearray(len(each)) for each in told]
    for partition, row in log.items():
        last = [-1] * len(told)
        for thread, number, offset in zip(row.threads, row.numbers, row.offsets, strict=True):
            here = (thread, number, partition, offset)
            if not (0 <= thread < len(told) and 0 <= number < len(told[thread])):
                found.append(Finding(Wrong.UNKNOWN, *here))
                continue
            if times[thread][number]:
                found.append(Finding(Wrong.TWICE, *here))
            elif number < last[thread]:
                found.append(Finding(Wrong.OUT_OF_ORDER, *here))
            times[thread][number] = 1
            last[thread] = max(last[thread], number)
            said = told[thread]
            # -1: not told, of a batch whose answer was lost and that the broker no longer recognizes.
            if said.partitions[number] == partition and said.offsets[number] in (offset, -1):
                in_place[thread][number] = 1
            elif said.fates[number] == Fate.FAILED:
                found.append(Finding(Wrong.UNEXPLAINED, *here))
    for thread, said in enumerate(told):
        for number, fate in enumerate(said.fates):
            if fate == Fate.ACKNOWLEDGED and not in_place[thread][number]:
                wrong = Wrong.ELSEWHERE if times[thread][number] else Wrong.LOST
                found.append(Finding(wrong, thread, number, said.partitions[number], said.offsets[number]))
    return found


def summary(found: Sequence[Finding]) -> str:
    """Return how much is wrong of each kind, with the first few."""
    counts = Counter(each.wrong for each in found)
    lines = []
    for wrong, count in counts.items():
        few = [f"record {each.thread}:{each.number}, partition {each.partition}, offset {each.offset}"
               for each in found if each.wrong is wrong][:5]  # fmt: skip
        lines.append(f"{count} {wrong}: {'; '.join(few)}")
    return "\n".join(lines)
