"""What becomes of a parked batch: a table from the broker's answer to a verdict.

Theory of operation. A batch is parked because its request was answered with an error or because
its connection was lost (13, or 7 for an answer that did not come in time). `judge` looks only at
values, changes nothing and does no I/O; the engine carries the verdict out.

1. The code's row says what kind of error it is (`_TABLE`; a code without a row FAILs).
2. Every verdict carries `unknown`: may the batch be in the log although no success was seen? Only
   a batch that is certainly not there may be given another sequence; one that may be there is
   first resent under its old one, where the broker recognizes it.
3. RETRY needs all of: not done (futures still open), sends so far <= retries, still within
   `delivery_timeout_ms`. Otherwise the batch FAILs with what it was answered.
4. A batch whose futures have already ended is judged for its bookkeeping alone: it is never
   resent and never split.
5. 45 and 59 are about sequences. A batch behind a hole is only early (plain retry, the hole is
   filled first). One that directly follows the last acknowledged batch, and is refused all the
   same, meets a broker with another idea of our sequences: the partition is renumbered under a
   new epoch (KIP-360).

Sources: the Java producer's Sender and TransactionManager (4.2), KIP-98, KIP-360, KIP-951.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

_SEQUENCES: Final = 2**31
# From the first time that a leader denies what may be in its log to when it is asked again, and believed.
SETTLE_MS: Final = 1000.0


class Action(enum.Enum):
    """What the engine does with the batch."""

    RETRY = "retry"
    FAIL = "fail"
    SPLIT = "split"
    SUCCEED = "succeed"
    FATAL = "fatal"


class _Kind(enum.Enum):
    RETRY = enum.auto()
    FAIL = enum.auto()
    TOO_LARGE = enum.auto()
    DUPLICATE = enum.auto()
    OUT_OF_ORDER = enum.auto()
    NO_STATE = enum.auto()
    FATAL = enum.auto()


class _Row(NamedTuple):
    kind: _Kind
    refresh: bool = False
    hint: bool = False


_RETRY: Final = _Row(_Kind.RETRY)
_REFRESH: Final = _Row(_Kind.RETRY, refresh=True)
_MOVED: Final = _Row(_Kind.RETRY, refresh=True, hint=True)
_FAIL: Final = _Row(_Kind.FAIL)
_FATAL: Final = _Row(_Kind.FATAL)

_TABLE: Final[dict[int, _Row]] = {
    2: _RETRY,  # CORRUPT_MESSAGE
    3: _REFRESH,  # UNKNOWN_TOPIC_OR_PARTITION
    5: _REFRESH,  # LEADER_NOT_AVAILABLE
    6: _MOVED,  # NOT_LEADER_OR_FOLLOWER
    7: _RETRY,  # REQUEST_TIMED_OUT; the lost connection asks for its refresh itself
    9: _REFRESH,  # REPLICA_NOT_AVAILABLE
    10: _Row(_Kind.TOO_LARGE),  # MESSAGE_TOO_LARGE
    13: _REFRESH,  # NETWORK_EXCEPTION, a lost connection
    14: _RETRY,  # COORDINATOR_LOAD_IN_PROGRESS
    15: _RETRY,  # COORDINATOR_NOT_AVAILABLE
    16: _RETRY,  # NOT_COORDINATOR
    19: _RETRY,  # NOT_ENOUGH_REPLICAS
    20: _RETRY,  # NOT_ENOUGH_REPLICAS_AFTER_APPEND
    31: _FATAL,  # CLUSTER_AUTHORIZATION_FAILED
    35: _FATAL,  # UNSUPPORTED_VERSION
    45: _Row(_Kind.OUT_OF_ORDER),  # OUT_OF_ORDER_SEQUENCE_NUMBER
    46: _Row(_Kind.DUPLICATE),  # DUPLICATE_SEQUENCE_NUMBER
    49: _FATAL,  # INVALID_PRODUCER_ID_MAPPING
    51: _RETRY,  # CONCURRENT_TRANSACTIONS
    53: _FATAL,  # TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    56: _REFRESH,  # KAFKA_STORAGE_ERROR
    59: _Row(_Kind.NO_STATE),  # UNKNOWN_PRODUCER_ID, brokers up to 2.4
    72: _REFRESH,  # LISTENER_NOT_FOUND
    74: _MOVED,  # FENCED_LEADER_EPOCH
    75: _RETRY,  # UNKNOWN_LEADER_EPOCH: the broker lags behind us, newer metadata tells nothing
    89: _RETRY,  # THROTTLING_QUOTA_EXCEEDED
    90: _FATAL,  # PRODUCER_FENCED
    100: _REFRESH,  # UNKNOWN_TOPIC_ID
    103: _REFRESH,  # INCONSISTENT_TOPIC_ID
}

_MAY_BE_WRITTEN: Final = frozenset(
    {
        -1,  # an unexpected exception: it may have come after the append
        3,  # the partition was deleted or moved away while the leader waited for its followers
        5,  # the same wait, ended because the leader went
        6,  # the leader appended, then lost leadership before the followers had the batch
        7,  # appended, but acks=all was not reached in time; or no answer came at all
        9,  # as 5
        13,  # the connection went after the request was written: nobody knows
        20,  # says so itself: not enough replicas after the append
        56,  # the disk failed while or after the batch was written
    }
)


class BatchFacts(NamedTuple):
    """What a verdict depends on. Times are monotonic seconds; sequences are -1 for none. `split`: it
    is a part of a batch that was split. `settled`: it was sent a while after its leader had denied
    what may be in the log."""

    error_code: int
    record_count: int
    attempts: int
    created: float
    done: bool = False
    reached: bool = True
    unknown: bool = False
    overtaken: bool = False
    later_unknown: bool = False
    later_lost: bool = False
    settled: bool = False
    base_sequence: int = -1
    last_acked_sequence: int = -1
    last_acked_offset: int = -1
    unresolved_sequence: int = -1
    log_start_offset: int = -1
    has_record_errors: bool = False
    split: bool = False


class Rules(NamedTuple):
    """The options a verdict depends on."""

    retries: int
    delivery_timeout_s: float
    idempotent: bool


class Verdict(NamedTuple):
    """What to do: `unknown` may be in the log, `refresh` ask for metadata, `hint` use the leader
    hint, `renumber` the partition needs a newer epoch, `expired` failed because time ran out."""

    action: Action
    unknown: bool = False
    refresh: bool = False
    hint: bool = False
    renumber: bool = False
    expired: bool = False


def judge(facts: BatchFacts, rules: Rules, now: float) -> Verdict:
    """Return the verdict on a batch answered with `facts.error_code` at monotonic time `now`."""
    row = _TABLE.get(facts.error_code, _FAIL)
    unknown = facts.unknown or (facts.reached and facts.error_code in _MAY_BE_WRITTEN)
    kind = row.kind
    if facts.has_record_errors and kind is _Kind.RETRY:
        # The broker names records that it will never take: sending them again changes nothing.
        kind = _Kind.FAIL
    if kind is _Kind.DUPLICATE:
        return Verdict(Action.SUCCEED)
    if kind is _Kind.FATAL:
        return Verdict(Action.FATAL if rules.idempotent else Action.FAIL, unknown)
    if kind is _Kind.FAIL:
        return Verdict(Action.FAIL, unknown)
    if kind is _Kind.TOO_LARGE:
        return _judge_too_large(facts, unknown)
    if kind in (_Kind.OUT_OF_ORDER, _Kind.NO_STATE):
        return _judge_sequence(kind, facts, rules, now)
    return _retry_or_fail(facts, rules, now, Verdict(Action.RETRY, unknown, row.refresh, row.hint))


def _judge_too_large(facts: BatchFacts, unknown: bool) -> Verdict:
    """10: more than one record is split. One that may be in the log all the same (its answer was
    lost, and the topic's limit lowered since) only where it follows what is acknowledged: there
    the answer to its first part tells (`_judge_sequence`)."""
    if facts.record_count > 1 and not facts.done:
        told = not facts.unknown or facts.base_sequence < 0 or _meets_other_state(facts)
        if told:
            return Verdict(Action.SPLIT)
    return Verdict(Action.FAIL, unknown)


def _judge_sequence(kind: _Kind, facts: BatchFacts, rules: Rules, now: float) -> Verdict:
    """45 and 59. Both mostly prove that the batch is not in the leader's log, whatever happened to
    earlier attempts: a batch there among the producer's last five is recognized as a duplicate, and
    with at most five in flight none is older than that. There are three exceptions.

    A broker that was started again, or cut its log back, remembers of each producer the last batch
    and those that it has replayed since. Before such a one, 45 proves nothing about a batch with
    others behind it that may be there, too: they are asked about first, from the last on. One of
    them that is there says that all before it are, because none is taken out of order. Where one has
    ended without an answer there is nobody left to ask about.

    An earlier attempt may lie unread in a connection that was lost, and be written when its
    predecessor is, which may lie there as well. So what may be in the log is asked about once more
    when the leader, which has shown that it reads, has had the time to read that (`SETTLE_MS`).

    A part of a batch that may be in the log is not recognized: the broker remembers the whole. So
    45 where the part should fit says that the whole may be there, and under a new epoch it would be
    written twice. What such parts are answered says nothing about others either.
    """
    if not rules.idempotent or facts.base_sequence < 0:
        return Verdict(Action.FAIL)
    if kind is _Kind.OUT_OF_ORDER and facts.overtaken:
        return Verdict(Action.SUCCEED)
    if kind is _Kind.OUT_OF_ORDER and facts.unknown and facts.later_lost:
        return Verdict(Action.FAIL, unknown=True)
    # Log start -1 means that the broker does not know either; trying again may tell.
    known = facts.log_start_offset != -1
    doubtful = not facts.settled or (facts.later_unknown and kind is _Kind.OUT_OF_ORDER)
    if facts.unknown and not facts.split and doubtful:
        renumber = kind is _Kind.OUT_OF_ORDER or known
        doubted = Verdict(Action.RETRY, unknown=True, renumber=renumber)
        return _retry_or_fail(facts, rules, now, doubted)
    renumber = _meets_other_state(facts) if kind is _Kind.OUT_OF_ORDER else known
    unknown = facts.unknown and facts.split
    if unknown and renumber:
        return Verdict(Action.FAIL, unknown)
    return _retry_or_fail(facts, rules, now, Verdict(Action.RETRY, unknown, renumber=renumber))


def _meets_other_state(facts: BatchFacts) -> bool:
    """Return whether 45 means more than "early": the batch is the very next one, or the first
    after a batch of unknown fate, which therefore is not in the log."""
    if facts.unresolved_sequence != -1:
        return facts.base_sequence == facts.unresolved_sequence
    return facts.base_sequence == (facts.last_acked_sequence + 1) % _SEQUENCES


def _retry_or_fail(facts: BatchFacts, rules: Rules, now: float, wanted: Verdict) -> Verdict:
    if facts.done:
        return wanted._replace(action=Action.FAIL, renumber=False)
    if now - facts.created >= rules.delivery_timeout_s:
        return wanted._replace(action=Action.FAIL, renumber=False, expired=True)
    if facts.attempts > rules.retries:
        return wanted._replace(action=Action.FAIL, renumber=False)
    return wanted
