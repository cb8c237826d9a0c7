"""What `send_many` and `send_arrow` return: one future for all records of a call."""

from __future__ import annotations

import collections
import contextlib
import logging
import operator
from array import array
from collections.abc import Callable, Generator
from typing import Any, Final, Protocol

from fastprod import failures
from fastprod.types import BatchMetadata, RecordMetadata, TopicPartition

log: Final = logging.getLogger("fastprod")

_CALLBACK: Final = 0
_ERRBACK: Final = 1
_BOTH: Final = 2


class Placement(Protocol):
    """Where the records of one call went. Each twin has its own."""

    topic: str

    def __len__(self) -> int: ...

    def pending(self) -> Any:
        """A record that has not ended yet; None: all have."""

    def watch(self, record: Any, function: Callable[[Any], object]) -> bool:
        """Call `function` with something, on the control thread, once that record has ended. False:
        it has already, and nothing will be called."""

    def wait(self, timeout: float | None) -> None:
        """Until all have ended and their batches' callbacks have run; KafkaTimeoutError after `timeout` seconds."""

    def collect(self) -> tuple[array[int], array[int], array[int], dict[int, BaseException]]:
        """Partitions, offsets and timestamps, -1 where failed, and the errors; of what has ended."""

    def sizes(self, index: int) -> tuple[int, int, int]:
        """Of a record's key, value and headers, in bytes; -1: none."""


class BatchFuture:
    """The outcome of one `send_many` or `send_arrow` call.

    `len(future)` is the number of records, `future[i]` the RecordMetadata of record i or its error, raised. Callbacks
    get the BatchMetadata, once, when all records are done: on the producer's network thread, or at once, on the
    registering thread, if they are. `await future` is `future.get()` for asyncio.
    """

    __slots__ = ("__weakref__", "_calls", "_metadata", "_placement")

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._metadata: BatchMetadata | None = None
        self._calls: collections.deque[tuple[int, Callable[..., object], tuple[Any, ...], dict[str, Any]]]
        self._calls = collections.deque()

    def __len__(self) -> int:
        """How many records the call had."""
        return len(self._placement)

    @property
    def is_done(self) -> bool:
        """Whether each record was acknowledged or has failed."""
        return self._metadata is not None or self._placement.pending() is None

    def succeeded(self) -> bool:
        """Whether all records were acknowledged."""
        return self.is_done and not self._outcome().errors

    def failed(self) -> bool:
        """Whether all records are done and at least one has failed."""
        return self.is_done and bool(self._outcome().errors)

    def get(self, timeout: float | None = None) -> BatchMetadata:
        """The BatchMetadata; waits up to `timeout` seconds (None: without bound) until all records are done.

        Raises BatchDeliveryError when any has failed, whose `metadata` is the BatchMetadata all the same, and
        KafkaTimeoutError when they are not done in time (they are still on their way then).
        """
        self._placement.wait(timeout)
        return self._result()

    def __getitem__(self, index: int) -> RecordMetadata:
        """The RecordMetadata of record `index`, or its error, raised.

        IndexError past the end; IllegalStateError while not all records are done.
        """
        count, asked = len(self), operator.index(index)
        place = asked + count if asked < 0 else asked
        if not 0 <= place < count:
            raise IndexError(f"record {asked} of a call with {count}")
        if not self.is_done:
            raise failures.not_done_yet()
        outcome = self._outcome()
        error = outcome.errors.get(place)
        if error is not None:
            raise failures.own(error)
        partition = outcome.partitions[place]
        topic = self._placement.topic
        return RecordMetadata(
            topic,
            partition,
            TopicPartition(topic, partition),
            outcome.offsets[place],
            outcome.timestamps[place],
            None,
            *self._placement.sizes(place),
        )

    def add_callback(self, function: Callable[..., object], /, *args: Any, **kwargs: Any) -> BatchFuture:
        """Call `function(*args, batch_metadata, **kwargs)` once all records are acknowledged. Returns the future."""
        return self._register(_CALLBACK, function, args, kwargs)

    def add_errback(self, function: Callable[..., object], /, *args: Any, **kwargs: Any) -> BatchFuture:
        """Call `function(*args, batch_metadata, **kwargs)` once all records are done and at least one has failed; its
        `errors` tells which. Returns the future."""
        return self._register(_ERRBACK, function, args, kwargs)

    def add_both(self, function: Callable[..., object], /, *args: Any, **kwargs: Any) -> BatchFuture:
        """Call `function(*args, batch_metadata, **kwargs)` once all records are done. Returns the future."""
        return self._register(_BOTH, function, args, kwargs)

    def __await__(self) -> Generator[Any, None, BatchMetadata]:
        import asyncio

        loop = asyncio.get_running_loop()
        waiter = loop.create_future()

        def done() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def tell(_: BatchMetadata) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(done)

        self.add_both(tell)
        yield from waiter
        return self._result()

    def __repr__(self) -> str:
        state = "pending" if not self.is_done else "failed" if self.failed() else "succeeded"
        return f"<BatchFuture of {len(self)} records, {state}>"

    def _outcome(self) -> BatchMetadata:
        """What became of them; all are done."""
        if self._metadata is None:
            self._metadata = BatchMetadata(*self._placement.collect())
        return self._metadata

    def _result(self) -> BatchMetadata:
        outcome = self._outcome()
        if outcome.errors:
            raise failures.not_all_delivered(len(self), outcome)
        return outcome

    def _register(
        self, kind: int, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> BatchFuture:
        if not callable(function):
            raise TypeError(f"a callback must be callable, not {type(function).__name__}: {function!r:.80}")
        self._calls.append((kind, function, args, kwargs))
        self._go_on()
        return self

    def _go_on(self, _: object = None) -> None:
        """Wait for the end of one record after the other, on the control thread; then run the callbacks."""
        while (record := self._placement.pending()) is not None:
            if self._placement.watch(record, self._go_on):
                return
        raised: BaseException | None = None
        while self._calls:
            try:
                kind, function, args, kwargs = self._calls.popleft()
            except IndexError:
                break  # another thread took the last one
            if kind == (_CALLBACK if self.failed() else _ERRBACK):
                continue
            try:
                function(*args, self._outcome(), **kwargs)
            except Exception:
                with contextlib.suppress(Exception):  # so may a logging filter of the user's
                    log.exception("a delivery callback raised; the records' outcome stands")
            except BaseException as error:
                raised = error  # Ctrl-C on the registering thread; the control thread logs it and goes on
        if raised is not None:
            raise raised
