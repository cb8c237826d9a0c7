"""The sentences of local failures, stated once for both twins.

Every function returns the exception, it does not raise it. Broker errors are not here: they come from
`fastprod.errors` by their code.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

from fastprod import errors
from fastprod.types import BatchMetadata

_Error = TypeVar("_Error")
_Raised = TypeVar("_Raised", bound=BaseException)


def own(error: _Error) -> _Error:
    """A copy of an error, for one future alone; the error itself where it cannot be copied."""
    try:
        mine = copy.copy(error)
    except Exception:
        return error  # an exception class of the user's
    if type(mine) is not type(error):
        return error
    if isinstance(mine, BaseException) and isinstance(error, BaseException):
        mine.__cause__ = error.__cause__
        mine.__context__ = error.__context__
        mine.__suppress_context__ = error.__suppress_context__
        mine.__traceback__ = error.__traceback__
    return mine


def flagged(error: BaseException, maybe_written: bool) -> BaseException:
    """`error` with `maybe_written` set: on a copy, since others may share the original."""
    if not maybe_written or getattr(error, "maybe_written", False):
        return error
    try:
        error = copy.copy(error)
        error.maybe_written = True  # type: ignore[attr-defined]
    except Exception:
        pass  # an exception class of the user's that cannot be copied keeps its meaning at least
    return error


def closed() -> Exception:
    return errors.IllegalStateError("KafkaProducer already closed! Create a new one to send.")


def closed_forcefully() -> Exception:
    return errors.IllegalStateError(
        "Producer is closed forcefully. The record was accepted but not acknowledged in time: "
        "undelivered() holds it; give close() more time."
    )


def nothing_to_send() -> Exception:
    return ValueError("Need at least one: key or value; both are None.")


def sentence(words: str) -> str:
    """`words` with an end, so that another sentence can follow."""
    return words if words.endswith((".", "?")) else f"{words}."


def of_record(index: int, error: _Error) -> _Error:
    """`error`, which says of which record of a call it is."""
    if isinstance(error, BaseException) and len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"Record {index}: {sentence(error.args[0])} Nothing of the call was sent.",)
    return error


def not_a_column(name: str, value: object) -> Exception:
    return TypeError(
        f"{name} must be a sequence or an iterable, one item a record, not {type(value).__name__}: {value!r:.80}"
    )


def uneven_column(name: str, size: int, count: int) -> Exception:
    return ValueError(f"{name} has {size} items for {count} values; it must have one a record.")


def headers_not_a_list(headers: object) -> Exception:
    return TypeError(
        f"headers must be a list of (str, bytes) tuples, not {type(headers).__name__}: {headers!r:.80}"
    )


def bad_header(index: int, header: object) -> Exception:
    return TypeError(
        f"headers[{index}] must be a (str, bytes) tuple, not {header!r:.80}; encode its value to bytes."
    )


def not_an_exception(value: object) -> Exception:
    return TypeError(f"failure() takes an exception or an exception class, not {value!r:.80}")


def not_bytes(what: str, value: object) -> Exception:
    """`what`: "key" or "value"."""
    return TypeError(
        f"Type of the serialized {what} must be bytes, bytearray, memoryview or None, not "
        f"{type(value).__name__}: {value!r:.80}; set {what}_serializer to turn it into bytes."
    )


def too_long(what: str, length: int) -> Exception:
    return errors.MessageSizeTooLargeError(
        f"The {what} has {length} bytes; Kafka's record format ends at 2147483647."
    )


def bad_timestamp(value: object) -> Exception:
    return TypeError(
        f"timestamp_ms must be an int (milliseconds since 1970-01-01 UTC) or None, not {value!r:.80}"
    )


def timestamp_out_of_range(value: int) -> Exception:
    return ValueError(f"timestamp_ms {value} does not fit the record format's signed 64 bits.")


def bad_partition(value: object) -> Exception:
    return TypeError(f"partition must be an int or None, not {value!r:.80}")


def partition_out_of_range(topic: str, partition: int, partitions: int) -> Exception:
    return ValueError(
        f"Unrecognized partition {partition} of topic {topic!r}: it has {partitions} "
        f"(0 to {partitions - 1})."
    )


def bad_partitioner_result(topic: str, result: object, partitions: int) -> Exception:
    return ValueError(
        f"The partitioner returned {result!r:.80} for topic {topic!r}; it must return an int from 0 "
        f"to {partitions - 1}."
    )


def record_too_large(topic: str, size: int, max_request_size: int) -> Exception:
    return errors.MessageSizeTooLargeError(
        f"The record for topic {topic!r} takes up to {size} bytes with its batch header, more than "
        f"max_request_size={max_request_size}. Raise max_request_size (and the topic's "
        "max.message.bytes) or send less at once."
    )


def record_exceeds_buffer(topic: str, size: int, buffer_memory: int) -> Exception:
    return errors.MessageSizeTooLargeError(
        f"The record for topic {topic!r} takes up to {size} bytes, more than "
        f"buffer_memory={buffer_memory}. Raise buffer_memory."
    )


def buffer_full(
    size: int, buffer_memory: int, waited_ms: float, troubles: Mapping[int | None, str]
) -> Exception:
    """`troubles`: why brokers cannot be used just now, by node id; None: why nothing may leave."""
    why = "".join(
        f" Broker {node} cannot be used: {sentence(words)}"
        for node, words in sorted((node, words) for node, words in troubles.items() if node is not None)
    )
    if None in troubles:
        why += f" Nothing leaves: {sentence(troubles[None])}"
    return errors.KafkaTimeoutError(
        f"No room for {size} bytes within {waited_ms:.0f} ms: buffer_memory={buffer_memory} is full of "
        "records not yet acknowledged. The record was not accepted. Send slower, raise buffer_memory "
        f"or max_block_ms, or look at why the brokers do not keep up.{why}"
    )


def history(
    attempts: int,
    node_id: int,
    last_error_code: int,
    leader: int,
    trouble: str,
    maybe_written: bool,
    elapsed_ms: float | None = None,
    held_by: str = "",
) -> str:
    """What was tried with a batch, as sentences to be put behind others.

    `node_id`: the broker of the last attempt, where there was one; `last_error_code`: what that was
    answered with, 0 for no answer; `leader`: of the partition at the end, -1 for none; `trouble`:
    why that one cannot be used, "" where nothing is known against it; `held_by`: what else keeps a
    batch from being sent at all.
    """
    times = "once" if attempts == 1 else f"{attempts} times"
    to = f", to broker {node_id}" if attempts == 1 else f", last to broker {node_id}"
    text = f"Sent {times}" if attempts else "Never sent"
    text += f" in {elapsed_ms:.0f} ms" if elapsed_ms is not None else ""
    text += to if attempts else f": {held_by.rstrip('.')}" if held_by else ""
    text += "."
    if last_error_code:
        kind = errors.for_code(last_error_code)
        text += f" Last error: {kind.__name__}: {kind.description}"
    if trouble:
        text += f" Its leader, broker {leader}, cannot be used: {sentence(trouble)}"
    elif leader < 0:
        text += " The partition has no leader."
    return text + (" It may have been written." if maybe_written else "")


def throttled(node_id: int) -> str:
    return f"broker {node_id} has asked to be sent nothing for a while (throttled)"


def with_history(error: _Raised, topic: str, partition: int, told: str) -> _Raised:
    """A copy of `error` for one batch, which says what was tried with it (`history`)."""
    mine = own(error)
    if mine is not error and len(mine.args) == 1 and isinstance(mine.args[0], str):
        mine.args = (f"{mine.args[0]} Topic {topic!r} partition {partition}: {told}",)
    return mine


def expired(
    topic: str,
    partition: int,
    records: int,
    elapsed_ms: float,
    delivery_timeout_ms: float,
    told: str,
    maybe_written: bool,
) -> Exception:
    """`told`: see `history`."""
    error = errors.KafkaTimeoutError(
        f"Expiring {records} record(s) for TopicPartition(topic={topic!r}, partition={partition}): "
        f"{elapsed_ms:.0f} ms has passed since batch creation "
        f"(delivery_timeout_ms={delivery_timeout_ms:.0f}). {told}"
    )
    error.maybe_written = maybe_written
    return error


def partition_vanished(topic: str, partition: int, partitions: int, told: str) -> Exception:
    return errors.UnknownTopicOrPartitionError(
        f"Partition {partition} of topic {topic!r} is gone: the topic now has {partitions}. "
        f"It was deleted and created again with fewer; send the record again. {told}"
    )


def behind_a_failed_batch(topic: str, partition: int, told: str) -> Exception:
    return errors.OutOfOrderSequenceNumberError(
        f"A batch before this one failed for good in {topic!r} partition {partition}, and "
        f"strict_order=True lets nothing behind it be written. Send the records again, in order. {told}"
    )


def inherited(topic: str, partition: int) -> Exception:
    error = errors.IllegalStateError(
        f"This record for {topic!r} partition {partition} was sent by the process that this one was forked from, which "
        "goes on delivering it; what becomes of it is known there alone."
    )
    error.maybe_written = True
    return error


def not_done_yet() -> Exception:
    return errors.IllegalStateError("Not all records are done; wait for them with get(), or look at is_done.")


def not_all_delivered(count: int, outcome: BatchMetadata) -> Exception:
    first = min(outcome.errors)
    error = errors.BatchDeliveryError(
        f"{len(outcome.errors)} of {count} records were not delivered; the first is record {first}: "
        f"{outcome.errors[first]}",
        metadata=outcome,
    )
    error.maybe_written = any(getattr(each, "maybe_written", False) for each in outcome.errors.values())
    return error


def not_done_in_time(seconds: float) -> Exception:
    return errors.KafkaTimeoutError(f"Timeout after waiting for {seconds} secs.")


def bad_timeout(value: object) -> Exception:
    return TypeError(f"timeout must be a number of seconds or None, not {value!r:.80}")


def not_a_timeout(value: object) -> Exception:
    return ValueError(f"Invalid timeout: {value}. It is in seconds, or None for as long as it takes.")


def waits_inside(what: str) -> Exception:
    """`what`: "get()" or "flush()"."""
    return errors.IllegalStateError(
        f"{what} was called by a signal handler or a finalizer in the middle of another call of this producer on the "
        "same thread, which goes on only when that has returned: it would wait for itself. Do not wait there, or let "
        "a thread of your own do it."
    )


def flush_in_callback() -> Exception:
    return errors.IllegalStateError(
        "flush() in a delivery callback would wait for itself; call it from another thread."
    )


