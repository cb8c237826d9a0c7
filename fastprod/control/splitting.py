"""A batch that was too large is taken apart (MESSAGE_TOO_LARGE), and its topic learns from it.

`max.message.bytes` is a topic's own and cannot be asked for without further permissions, so it is
found by trial: per topic the smallest refused wire size is remembered, and batches, parts of split
ones included, are then made half as large. A few halvings end within a factor of two below the
limit; staying just below what was refused would take many more refusals. Once metadata expires
(metadata_max_age_ms) all is forgotten: the limit may have been raised.
"""

from __future__ import annotations

from typing import Final

from fastprod import compression
from fastprod.control.seam import DecodedRecord, Parked

# Header of a batch, and per record length, attributes, timestamp and offset delta, header count.
_BATCH_OVERHEAD: Final = 61
_RECORD_OVERHEAD: Final = 21


class SizeMemory:
    """What each topic was seen to refuse, in wire bytes."""

    def __init__(self) -> None:
        self._refused: dict[str, int] = {}

    def refused(self, topic: str, size: int) -> int:
        """Note a refusal; return the size that new batches should stay at or below."""
        smallest = min(size, self._refused.get(topic, size))
        self._refused[topic] = smallest
        return max(_BATCH_OVERHEAD + _RECORD_OVERHEAD, (smallest + 1) // 2)

    def forget(self, topic: str) -> None:
        """The limit may have been raised."""
        self._refused.pop(topic, None)


def groups(records: list[DecodedRecord], share: float) -> list[list[DecodedRecord]]:
    """Return the records in order in at least two groups, each at most that share of all bytes.

    A record larger than that is a group of its own. A share above a half counts as a half: a batch
    that was refused whole must not come back whole. Shares, because limits are about wire bytes
    and records are weighed uncompressed.
    """
    sizes = [record_size(each) for each in records]
    target = sum(sizes) * min(share, 0.5)
    result: list[list[DecodedRecord]] = []
    filled = 0
    for record, size in zip(records, sizes, strict=True):
        if not result or filled + size > target:
            result.append([])
            filled = 0
        result[-1].append(record)
        filled += size
    return result


def record_size(record: DecodedRecord) -> int:
    """Return about how many bytes a record takes in a batch."""
    _, key, value, headers = record
    size = _RECORD_OVERHEAD + len(key or b"") + len(value or b"")
    return size + sum(2 + len(name.encode()) + len(content or b"") for name, content in headers)


def plain_body(parked: Parked, max_size: int) -> bytes:
    """Return a batch's records uncompressed; ValueError if they are broken or larger than that."""
    return compression.decompress(parked.codec, parked.body(), max_size)
