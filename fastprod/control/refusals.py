"""The errors that failed batches end with: what happened, to which partition, what to change."""

from __future__ import annotations

from typing import Final, NamedTuple

from fastprod import errors, failures

_DISCONNECTED: Final = 13
_TIMED_OUT: Final = 7
_CLUSTER_DENIED: Final = 31

_ADVICE: Final[dict[int, str]] = {
    10: "One record alone exceeds the topic's max.message.bytes: raise it, compress, or send less.",
    18: "The batch exceeds the topic's segment.bytes: lower batch_size or raise segment.bytes.",
    19: "Fewer replicas are in sync than the topic's min.insync.replicas: look at the brokers.",
    20: "Fewer replicas are in sync than the topic's min.insync.replicas: look at the brokers.",
    29: "The principal needs the ACL operation Write on the topic.",
    31: "An idempotent producer needs the ACL operation IdempotentWrite on the cluster (brokers "
    "before 3.0) or Write on a topic. Grant it, or set enable_idempotence=False and do without "
    "the guarantee against duplicates.",
    32: "The topic's message.timestamp.before.max.ms and after.max.ms bound what it accepts.",
    76: "The broker cannot store this compression_type: choose another.",
    87: "On a compacted topic every record needs a key.",
}


class Refusal(NamedTuple):
    """The batch that broker `node_id` refused and what it answered. `size`: wire bytes;
    `elapsed_ms`: since the batch was opened; `attempts`: sends so far."""

    topic: str
    partition: int
    node_id: int
    record_count: int
    size: int
    elapsed_ms: float
    attempts: int
    error_code: int
    error_message: str | None
    maybe_written: bool


def batch_error(refusal: Refusal, request_timeout_ms: float) -> Exception:
    """Return the error of a batch that failed for good.

    A lost connection gives KafkaConnectionError and a request without an answer
    RequestTimedOutError, as in kafka-python; everything else the class of its code.
    """
    where = _where(refusal)
    if refusal.error_code == _DISCONNECTED:
        reason = refusal.error_message or "the connection was lost before the answer came"
        error: Exception = errors.KafkaConnectionError(f"{where}: {reason}.{_tries(refusal)}")
    elif refusal.error_code == _TIMED_OUT:
        reason = refusal.error_message or f"no answer within {request_timeout_ms:.0f} ms"
        error = errors.RequestTimedOutError(
            f"{where}: request timed out, {reason}.{_tries(refusal)}"
        )
    else:
        error = errors.for_code(refusal.error_code)(_refused(refusal, refusal.error_message))
    return marked(error, refusal.maybe_written)


def expired_error(refusal: Refusal, delivery_timeout_ms: float) -> Exception:
    """Return the error of a batch whose time ran out while it was judged."""
    return failures.expired(
        refusal.topic,
        refusal.partition,
        refusal.record_count,
        refusal.elapsed_ms,
        delivery_timeout_ms,
        _history(refusal),
        refusal.maybe_written,
    )


def record_errors(
    refusal: Refusal, listed: list[tuple[int, str | None]]
) -> tuple[Exception, dict[int, Exception]]:
    """Return (error of the records that are not listed, errors of the listed ones by index).

    The former says what the first of the latter was refused for.

    KIP-467: a listed record gets its own message, else the batch's, else the code's. Its class is
    the code's where it is the only one; of several the code cannot tell which it is meant for, and
    they get InvalidRecordError.
    """
    kind = errors.for_code(refusal.error_code) if len(listed) == 1 else errors.InvalidRecordError
    own: dict[int, Exception] = {}
    for index, message in listed:
        text = _refused(refusal, message or refusal.error_message)
        own[index] = marked(kind(f"Record {index} of the batch: {text}"), refusal.maybe_written)
    culprits = ", ".join(str(index) for index in sorted(own)[:10])
    said = _said(refusal, dict(listed)[min(own)] or refusal.error_message)
    rest = errors.KafkaError(
        f"{_where(refusal)}: nothing is wrong with this record, but the broker refused the whole "
        f"batch because of record {culprits} of it: {said}.{_tries(refusal)} Send it again without "
        "that one."
    )
    return marked(rest, refusal.maybe_written), own


def summary(own: dict[int, Exception], record_count: int) -> str:
    """Return what to log about a batch that failed because of some of its records: the first
    one's error, and how many there are."""
    others = max(0, record_count - len(own))
    return (
        f"{own[min(own)]} Of the batch, {len(own)} record(s) were at fault and {others} failed "
        "only in their company."
    )


def internal_error(topic: str, partition: int, cause: BaseException) -> Exception:
    """Return the error of a batch that our own code failed on."""
    error = errors.KafkaError(
        f"Topic {topic!r} partition {partition}: an internal error of fastprod's control thread "
        f"({cause!r}); please report it with the traceback in the log."
    )
    return marked(error, True)


def end_of_all(refusal: Refusal) -> Exception:
    """Return the error of everything else where this refusal ends the producer: it is not about
    that batch. `maybe_written` is False."""
    kind = errors.for_code(refusal.error_code)
    advice = _ADVICE.get(refusal.error_code, "Close it and make another.")
    return marked(
        kind(
            f"This producer can send nothing more, because broker {refusal.node_id} refused an "
            f"earlier batch: {_said(refusal, refusal.error_message)}. {advice}"
        ),
        False,
    )


def ended_with(fatal: Exception, refusal: Refusal) -> Exception:
    """Return the error of a batch that could go on, were the producer not at its end."""
    told = _history(refusal, refusal.elapsed_ms)
    error = failures.with_history(fatal, refusal.topic, refusal.partition, told)
    return marked(error, refusal.maybe_written)


def _history(refusal: Refusal, elapsed_ms: float | None = None) -> str:
    return failures.history(
        refusal.attempts,
        refusal.node_id,
        refusal.error_code,
        refusal.node_id,
        "",
        refusal.maybe_written,
        elapsed_ms,
    )


def repeated(error: Exception) -> Exception:
    """Return another instance of an error, so that what is set on one is not seen in the other."""
    return type(error)(*error.args)


def marked(error: Exception, maybe_written: bool) -> Exception:
    """Set `maybe_written` on an error and return it."""
    error.maybe_written = maybe_written  # type: ignore[attr-defined]
    return error


def _where(refusal: Refusal) -> str:
    plural = "record" if refusal.record_count == 1 else "records"
    return (
        f"Topic {refusal.topic!r} partition {refusal.partition}, batch of {refusal.record_count} "
        f"{plural} ({refusal.size} bytes), broker {refusal.node_id}"
    )


def _refused(refusal: Refusal, message: str | None) -> str:
    said = _said(refusal, message)
    advice = _ADVICE.get(refusal.error_code, "")
    return f"{_where(refusal)}: {said}.{_tries(refusal)}{' ' + advice if advice else ''}"


def _said(refusal: Refusal, message: str | None) -> str:
    return (message or str(errors.for_code(refusal.error_code).description)).rstrip(".")


def _tries(refusal: Refusal) -> str:
    times = "once" if refusal.attempts == 1 else f"{refusal.attempts} times"
    sent = f" Sent {times} in {refusal.elapsed_ms:.0f} ms."
    written = " It may have been written." if refusal.maybe_written else ""
    return sent + written
