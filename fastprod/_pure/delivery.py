"""How a batch ends, and who is told: futures that look, callbacks that are run, waiters that wake.

A batch's outcome lives apart from its bytes, so a future that somebody keeps pins a few numbers and
not a buffer. An outcome passes through two states: `done` (how it ended is known) and `settled`
(its callbacks have run, too). Callbacks run a whole batch at a time, on the control thread.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from operator import attrgetter, call
from typing import Any, Final, NamedTuple, Protocol

from fastprod import errors, failures
from fastprod._pure import layout
from fastprod._pure.unread import Unread, UnreadFailures
from fastprod.types import RecordMetadata, TopicPartition
from fastprod.waiting import Gate, RLock, seconds_of

log: Final = logging.getLogger("fastprod")

_CALLBACK: Final = 0
_ERRBACK: Final = 1
_BOTH: Final = 2


class ControlThread(Protocol):
    """What delivery asks of the engine: nobody may wait for the control thread on itself."""

    def on_control_thread(self) -> bool: ...

    def pump(self, seconds: float) -> None: ...


class Memory(Protocol):
    """What delivery asks of the pool: registered callbacks take memory until they have run. `owed`
    changes under `lock`, together with the list they are in and without a call in between, at
    which a signal's handler could raise."""

    lock: threading.RLock
    owed: int

    def settle(self, size: int) -> None: ...


class Host:
    """What the outcomes of one plane share: the engine and the pool, once there are any. `forked`:
    this process is a forked child. Whoever held a lock then holds it here for good, so none is
    taken any more. `inside`: threads that hold a partition's lock or an outcome's, or may
    soon; and the I/O thread, for which nobody else does what it would wait for."""

    __slots__ = (
        "engine",
        "forked",
        "inside",
        "owned",
        "pool",
        "throttled_until",
        "troubles",
        "unread",
    )

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.owned: list[Callable[[], bool]] = []  # of each other lock: whether it is this thread's
        self.pool: Memory | None = None
        # Why brokers cannot be used just now; None: why nothing may leave.
        self.troubles: dict[int | None, str] = {}
        self.throttled_until: dict[int, float] = {}  # by broker, monotonic s
        self.unread = UnreadFailures()
        self.engine: ControlThread | None = None
        self.forked = False

    def on_control_thread(self) -> bool:
        return self.engine is not None and self.engine.on_control_thread()

    def guard(self, lock: Any) -> None:
        """Look at this RLock, too, when asked whether somebody is inside."""
        self.owned.append(lock._is_owned)

    def is_inside(self) -> bool:
        """Whether this thread holds one of our locks, so that whoever asks runs in the middle of
        what they guard: as a signal's handler, or a finalizer."""
        return threading.get_ident() in self.inside or any(map(call, self.owned))


class Registered(NamedTuple):
    """One registered callback; `number` is the record's index in the batch."""

    number: int
    kind: int
    future: FutureRecordMetadata
    function: Callable[..., object]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class BatchOutcome:
    """How one batch ended. `lock` guards the transitions; what a finished one holds is constant."""

    __slots__ = (
        "base_offset",
        "callbacks",
        "children",
        "done",
        "error",
        "first_of_child",
        "gate",
        "host",
        "lock",
        "log_append_time",
        "record_errors",
        "settled",
        "topic_partition",
        "unread",
        "value",
    )

    def __init__(self, host: Host, topic_partition: TopicPartition | None) -> None:
        self.host = host
        self.topic_partition = topic_partition
        self.lock = RLock()
        self.done = False
        self.settled = False
        self.error: BaseException | None = None
        self.record_errors: dict[int, Exception] | None = None
        self.base_offset = -1
        self.log_append_time = -1
        self.value: Any = None  # what a future was given by hand
        self.callbacks: list[Registered] = []
        self.unread: Unread | None = None  # there once it has failed
        self.gate: Gate | None = None
        self.children: list[BatchOutcome] | None = None
        self.first_of_child: list[int] = []

    def finish(self) -> bool:
        """Publish the outcome, whose fields are written. Whether callbacks are now due."""
        with self.lock:
            self.done = True
            if self.callbacks:
                return True
            self.settled = True
            gate, self.gate = self.gate, None
        if gate is not None:
            gate.open()
        return False

    def split(self, children: list[BatchOutcome], first_of_child: list[int]) -> None:
        """From now on `children` decide: child i the records from `first_of_child[i]` on. Nobody
        else knows them yet, so their locks are free."""
        with self.lock:
            for entry in self.callbacks:
                place = bisect_right(first_of_child, entry.number) - 1
                index = entry.number - first_of_child[place]
                children[place].callbacks.append(entry._replace(number=index))
            self.callbacks.clear()
            self.first_of_child = first_of_child
            self.children = children
            gate, self.gate = self.gate, None
        if gate is not None:
            gate.open()  # who waits looks again and finds the child

    def wait(self, seconds: float) -> None:
        """Until settled or split, at most `seconds`."""
        me = threading.get_ident()
        fresh = me not in self.host.inside
        try:
            self.host.inside.add(me)
            with self.lock:
                if self.settled or self.children is not None:
                    return
                if self.gate is None:
                    self.gate = Gate()
                gate = self.gate
        finally:
            if fresh:
                self.host.inside.discard(me)
        gate.wait(seconds)

    def run_callbacks(self) -> None:
        """Run all callbacks in record order, those registered meanwhile too; then wake waiters."""
        while True:
            with self.lock:
                entries, self.callbacks = self.callbacks, []
                if not entries:
                    self.settled = True
                    gate, self.gate = self.gate, None
                    break
            entries.sort(key=attrgetter("number"))
            for entry in entries:
                _call_back(entry, self)
                if self.host.forked:
                    return  # that callback forked, and this is the child
            self.forget(entries)
        if gate is not None:
            gate.open()

    def forget(self, entries: list[Registered]) -> None:
        """These callbacks have run: give back what they take."""
        if self.host.pool is not None and entries:
            self.host.pool.settle(len(entries) * layout.CALLBACK_SIZE)


def _call_back(entry: Registered, outcome: BatchOutcome) -> BaseException | None:
    """Call a registered function, if it is for this outcome. What it raises is logged; the
    KeyboardInterrupt or the like is returned for those who called on a thread of the user's."""
    if entry.kind == (_ERRBACK if failure_of(outcome, entry.number) is None else _CALLBACK):
        return None
    error = entry.future._own_failure(outcome, entry.number)
    try:
        result = error if error is not None else metadata_of(outcome, entry.number, entry.future)
        entry.function(*entry.args, result, **entry.kwargs)
    except BaseException as raised:
        # A callback must not take the producer with it, not even by SystemExit.
        interrupted = _log_raised()
        return interrupted if isinstance(raised, Exception) else raised
    return None


def _log_raised() -> BaseException | None:
    """Tell of what a callback raised. A logging filter of the user's may raise as well; a
    KeyboardInterrupt or the like is returned."""
    try:
        log.exception("a delivery callback raised; the record's outcome stands")
    except BaseException as raised:
        return None if isinstance(raised, Exception) else raised
    return None


def failure_of(outcome: BatchOutcome, index: int) -> BaseException | None:
    """The error of a record of a finished batch. Futures hand out copies (`_own_failure`)."""
    if outcome.record_errors:
        return outcome.record_errors.get(index, outcome.error)
    return outcome.error


def metadata_of(outcome: BatchOutcome, index: int, future: FutureRecordMetadata) -> Any:
    """The RecordMetadata of a record of an acknowledged batch."""
    place = outcome.topic_partition
    if place is None:
        return outcome.value
    return RecordMetadata(
        place.topic,
        place.partition,
        place,
        outcome.base_offset + index if outcome.base_offset >= 0 else -1,
        outcome.log_append_time if outcome.log_append_time >= 0 else future._timestamp,
        None,
        future._key_size,
        future._value_size,
        future._header_size,
    )


def _inherited(outcome: BatchOutcome, place: TopicPartition) -> BatchOutcome:
    """What it is in a forked child: what was known of it, and no more will be."""
    mine = BatchOutcome(Host(), place)
    if outcome.done:
        mine.base_offset, mine.log_append_time = outcome.base_offset, outcome.log_append_time
        mine.error, mine.record_errors = outcome.error, outcome.record_errors
    else:
        mine.error = failures.inherited(*place)
    mine.done = mine.settled = True
    return mine


def _detached(value: Any, error: BaseException | None) -> BatchOutcome:
    """A finished outcome of its own, for a future that no batch decides."""
    outcome = BatchOutcome(Host(), None)
    outcome.value = value
    outcome.error = error
    outcome.done = outcome.settled = True
    return outcome


def deadline_after(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + seconds_of(timeout)


class FutureRecordMetadata:
    """What `send` returns: the outcome of one record.

    `is_done` (bool), `value` (RecordMetadata or None) and `exception` (or None) are attributes.
    Callbacks run in record order on the producer's network thread, or at once, on the registering
    thread, when the callbacks of the record's batch have run. The future keeps the outcome of its
    batch, never its bytes.
    """

    __slots__ = (
        "_error",
        "_header_size",
        "_index",
        "_key_size",
        "_outcome",
        "_timestamp",
        "_value_size",
    )

    def __init__(
        self,
        outcome: BatchOutcome,
        index: int,
        timestamp: int,
        key_size: int,
        value_size: int,
        header_size: int,
    ) -> None:
        self._outcome = outcome
        self._index = index
        self._error: BaseException | None = None
        self._timestamp = timestamp
        self._key_size = key_size
        self._value_size = value_size
        self._header_size = header_size

    @staticmethod
    def failed_with(topic: str, partition: int, error: BaseException) -> FutureRecordMetadata:
        """A future that has already failed with `error`. `topic` and `partition` say whose record
        it was."""
        return FutureRecordMetadata(_detached(None, error), 0, -1, -1, -1, -1)

    def _leaf(self) -> tuple[BatchOutcome, int]:
        """Who decides this record now, and its index there: a child once the batch was split."""
        outcome, index = self._outcome, self._index
        while outcome.children is not None:
            place = bisect_right(outcome.first_of_child, index) - 1
            index -= outcome.first_of_child[place]
            outcome = outcome.children[place]
        if outcome.host.forked and not outcome.settled and outcome.topic_partition is not None:
            outcome = _inherited(outcome, outcome.topic_partition)
        return outcome, index

    @property
    def is_done(self) -> bool:
        """Whether the record was acknowledged or has failed."""
        return self._leaf()[0].done

    @property
    def value(self) -> Any:
        """The RecordMetadata once acknowledged, else None."""
        outcome, index = self._leaf()
        if not outcome.done or failure_of(outcome, index) is not None:
            return None
        return metadata_of(outcome, index, self)

    @property
    def exception(self) -> BaseException | None:
        """The error once failed, else None; the same object for as long as somebody holds it."""
        outcome, index = self._leaf()
        return self._own_failure(outcome, index) if outcome.done else None

    def _own_failure(self, outcome: BatchOutcome, index: int) -> BaseException | None:
        """This future's copy of the error: one that was raised by many would collect the frames
        of them all. What it was given by hand is handed out as it is."""
        if self._error is not None:
            return self._error
        error = failure_of(outcome, index)
        if error is None:
            return None
        mine = error if outcome.topic_partition is None else failures.own(error)
        if outcome.host.forked:  # the lock may be held for good
            self._error = mine
            return mine
        # Two that look at the same time get the same object, and it is counted as read once.
        with outcome.host.unread.lock:
            if self._left(outcome):
                return mine
            if self._error is None:
                self._error = mine
                if outcome.unread is not None:
                    outcome.unread.seen()
            return self._error

    def _left(self, outcome: BatchOutcome) -> bool:
        """Whether another outcome decides the record by now than this one, which did when it was
        looked up: it was split, or this future has been ended by hand."""
        now = self._outcome
        by_hand = now.topic_partition is None and now is not outcome
        return by_hand or outcome.children is not None

    def succeeded(self) -> bool:
        """Whether the record was acknowledged."""
        outcome, index = self._leaf()
        # Whoever asks has seen the failure.
        return outcome.done and self._own_failure(outcome, index) is None

    def failed(self) -> bool:
        """Whether the record has failed."""
        return self.exception is not None

    def retriable(self) -> bool:
        """Whether the record has failed with an error that sending it again may mend."""
        return bool(getattr(self.exception, "retriable", False))

    def get(self, timeout: float | None = None) -> Any:
        """The RecordMetadata; waits up to `timeout` seconds (None: without bound) for it.

        Raises the record's error, or KafkaTimeoutError when it is not done in time (it is still on
        its way then). It wakes when all callbacks of the record's batch have run.
        """
        outcome, index = self._wait(timeout, deadline_after(timeout))
        error = self._own_failure(outcome, index)
        if error is not None:
            raise error
        return metadata_of(outcome, index, self)

    def _wait(self, timeout: float | None, deadline: float | None) -> tuple[BatchOutcome, int]:
        """Until it is settled, and who decided it then. `timeout` is what an error says when the
        deadline is over."""
        outcome, index = self._leaf()
        if outcome.settled:
            return outcome, index
        host = self._outcome.host
        if host.is_inside():
            raise failures.waits_inside("get()")
        inside = host.on_control_thread()
        while True:
            outcome, index = self._leaf()
            # The control thread runs the callbacks; if it waited for them here it would wait for
            # itself. Being done is all it can ask for.
            if outcome.settled or (inside and outcome.done):
                return outcome, index
            wait = layout.SIGNAL_SLICE
            if deadline is not None:
                wait = min(wait, deadline - time.monotonic())
                if wait <= 0:
                    raise failures.not_done_in_time(timeout or 0)
            if inside and host.engine is not None:
                host.engine.pump(wait)
            else:
                outcome.wait(wait)

    def add_callback(
        self, function: Callable[..., object], /, *args: Any, **kwargs: Any
    ) -> FutureRecordMetadata:
        """Call `function(*args, record_metadata, **kwargs)` once the record is acknowledged.
        Returns the future."""
        return self._register(_CALLBACK, function, args, kwargs)

    def add_errback(
        self, function: Callable[..., object], /, *args: Any, **kwargs: Any
    ) -> FutureRecordMetadata:
        """Call `function(*args, error, **kwargs)` once the record has failed. Returns the
        future."""
        return self._register(_ERRBACK, function, args, kwargs)

    def add_both(
        self, function: Callable[..., object], /, *args: Any, **kwargs: Any
    ) -> FutureRecordMetadata:
        """Call `function(*args, metadata_or_error, **kwargs)` once the record is done. Returns the
        future."""
        return self._register(_BOTH, function, args, kwargs)

    def _register(
        self,
        kind: int,
        function: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> FutureRecordMetadata:
        if not callable(function):
            raise TypeError(
                f"a callback must be callable, not {type(function).__name__}: {function!r:.80}"
            )
        ended = self._enlist(kind, function, args, kwargs)
        raised = None if ended is None else _call_back(*ended)
        if raised is not None:
            raise raised
        return self

    def _enlist(
        self,
        kind: int,
        function: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Registered, BatchOutcome] | None:
        """Put it among the callbacks of the record's batch and return None; the entry and the batch,
        when that is done with them."""
        inside = self._outcome.host.inside
        me = threading.get_ident()
        fresh = me not in inside
        try:
            inside.add(me)
            while True:
                outcome, index = self._leaf()
                entry = Registered(index, kind, self, function, args, kwargs)
                with outcome.lock:
                    if self._left(outcome):
                        continue  # between the look and the lock
                    if outcome.settled:
                        break
                    pool = outcome.host.pool
                    if pool is not None:
                        with pool.lock:
                            outcome.callbacks += [entry]
                            pool.owed += layout.CALLBACK_SIZE
                    return None
        finally:
            if fresh:
                inside.discard(me)
        return entry, outcome

    def _watch(self, function: Callable[..., object]) -> bool:
        """Call `function` once the record is done; False: it is, and nothing will be called."""
        return self._enlist(_BOTH, function, (), {}) is None

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """Of the serialized key, value and headers, -1 for none."""
        return self._key_size, self._value_size, self._header_size

    def chain(self, future: Any) -> FutureRecordMetadata:
        """Let `future`, anything with `success` and `failure`, end as this one does. Returns this
        future."""
        self.add_callback(future.success)
        self.add_errback(future.failure)
        return self

    def success(self, value: Any) -> FutureRecordMetadata:
        """End this future by hand with `value`; whatever becomes of the record no longer touches
        it.

        Raises IllegalStateError when it is done already. Returns the future.
        """
        return self._resolve(_detached(value, None))

    def failure(self, error: BaseException | type[BaseException]) -> FutureRecordMetadata:
        """End this future by hand with `error` (an exception or an exception class).

        Raises IllegalStateError when it is done already, TypeError for what is no exception.
        Returns the future.
        """
        mine = error() if isinstance(error, type) else error
        if not isinstance(mine, BaseException):
            raise failures.not_an_exception(error)
        return self._resolve(_detached(None, mine))

    def _resolve(self, mine: BatchOutcome) -> FutureRecordMetadata:
        while True:
            outcome, _ = self._leaf()
            with outcome.lock:
                if outcome.done:
                    raise errors.IllegalStateError(
                        "This future is already complete; success() and failure() come too late."
                    )
                if self._left(outcome):
                    continue  # between the look and the lock
                due = [entry for entry in outcome.callbacks if entry.future is self]
                others = [entry for entry in outcome.callbacks if entry.future is not self]
                size = len(due) * layout.CALLBACK_SIZE
                pool = outcome.host.pool
                if pool is not None:
                    with pool.lock:
                        outcome.callbacks = others
                        # The index stays as it is: there all have the same outcome.
                        self._outcome = mine
                        pool.owed -= size
                    pool.settle(0)
            break
        for raised in [_call_back(entry, mine) for entry in due]:
            if raised is not None:
                raise raised
        return self

    def __repr__(self) -> str:
        state = "succeeded" if self.succeeded() else "failed" if self.failed() else "pending"
        return f"<FutureRecordMetadata {state}>"
