"""Plain values that fastprod hands out: all of them tuples that can be compared and pickled."""

from array import array
from typing import NamedTuple


class TopicPartition(NamedTuple):
    """A partition of a topic: `topic` is its name, `partition` the number, from 0."""

    topic: str
    partition: int


class RecordMetadata(NamedTuple):
    """Where and when a record was written. The order of the fields is kafka-python's.

    `topic_partition` is `topic` and `partition` in one TopicPartition. `offset` is the record's
    offset, or -1 where the broker told none (acks=0, or a duplicate that it recognised).
    `timestamp` is in ms since the epoch: the broker's append time if the topic uses that, else the
    record's own. `checksum` is None: records of format v2 have none. `serialized_key_size`,
    `serialized_value_size` and `serialized_header_size` are in bytes, -1 where there is no key, no
    value or no header.
    """

    topic: str
    partition: int
    topic_partition: TopicPartition
    offset: int
    timestamp: int
    checksum: int | None
    serialized_key_size: int
    serialized_value_size: int
    serialized_header_size: int


class BatchMetadata(NamedTuple):
    """Where and when the records of one call were written; item i of each is of record i.

    `partitions` is an array of 32-bit, `offsets` and `timestamps` of 64-bit integers, -1 where the record failed;
    `memoryview` and `numpy.asarray` read them without a copy. An offset is -1, too, where the broker told none, and
    a timestamp is in ms since the epoch, as in RecordMetadata. `errors`: the error of each record that failed, by its
    index.
    """

    partitions: "array[int]"
    offsets: "array[int]"
    timestamps: "array[int]"
    errors: dict[int, BaseException]


class UndeliveredRecord(NamedTuple):
    """A record that was accepted but not acknowledged when its producer was closed.

    `topic` and `partition` say where it was to go; `key`, `value` and the values of `headers` are
    the serialized bytes; `timestamp_ms` is in ms since the epoch. `error` is what the record's
    future failed with. `maybe_written` is True if the record reached a broker's socket without a
    definite answer: it may be in the log, and sending it again may write it twice.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int
    error: BaseException
    maybe_written: bool
