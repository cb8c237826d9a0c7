"""Requests as they came, and requests that wait for the test's answer."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Unpack

from fastprod.testing.scripted.log import Judge, Verdict
from fastprod.testing.scripted.records import Batch
from fastprod.testing.scripted.script import RefusalShape, Shape, check, split
from fastprod.testing.scripted.wire import milliseconds, write_response

if TYPE_CHECKING:
    from fastprod.testing.scripted.connection import Connection, Turn


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request that came.

    `api`: its key (an `Api` where that has a name for it). `node`: id of the node it came to. `connection`: which one,
    counted over the whole broker. `message`: kio's, None where kio does not know the API or version. `at`:
    `time.monotonic()`. `acks`, `batches`: of a Produce request.
    """

    api: int
    version: int
    correlation_id: int
    client_id: str | None
    node: int
    connection: int
    at: float
    message: Any = field(repr=False)
    acks: int = -1
    batches: tuple[Batch, ...] = ()


class Answers(Protocol):
    """What a pending request needs of the broker."""

    lock: threading.RLock

    def judge(self, batch: Batch, node: int | None = None) -> Verdict: ...
    def response(self, request: Request, told: list[tuple[Batch, Verdict]], code: int) -> Any: ...


class Pending:
    """A request that has no answer yet. Answers leave a connection in the order of its requests, as a real broker's
    do: one that is given early waits for its turn.

    Every verb ends it: a second one is an AssertionError. What answers takes the keyword arguments of `Shape`.
    """

    def __init__(self, broker: Answers, request: Request, connection: Connection, turn: Turn | None) -> None:
        self.request = request
        self._broker = broker
        self._connection = connection
        self._turn = turn
        self._ended = False

    @property
    def batches(self) -> tuple[Batch, ...]:
        """The batches of a Produce request."""
        return self.request.batches

    @property
    def batch(self) -> Batch:
        """The only batch; ValueError if there are more, or none."""
        (batch,) = self.request.batches
        return batch

    @property
    def at(self) -> float:
        """When it came, `time.monotonic()`."""
        return self.request.at

    @property
    def abandoned(self) -> bool:
        """Whether its connection is closed, by whichever side."""
        return self._connection.closed

    def accept(self, **shape: Unpack[Shape]) -> None:
        """Do what is asked and say so; AssertionError if an honest broker would refuse a batch of it."""

        def strict(batch: Batch) -> Verdict:
            verdict = self._broker.judge(batch, self.request.node)
            if verdict.code:
                raise AssertionError(
                    f"accept(): an honest broker answers {batch.topic}-{batch.partition} {batch.stamp} with error "
                    f"{verdict.code} ({verdict.message}). answer() lets it; append() writes whatever is given"
                )
            return verdict

        self._settle(strict, 0, shape)

    def answer(self, judge: Judge | None = None, **shape: Unpack[Shape]) -> None:
        """Answer honestly, or each batch with what `judge` says."""
        self._settle(judge or self.honest, 0, shape)

    def refuse(self, code: int, **details: Unpack[RefusalShape]) -> None:
        """Answer with an error: every batch, and nothing is written."""
        said, shape = split(details)
        self._settle(lambda _: Verdict(code, **said), code, shape)

    def drop(self) -> None:
        """Do nothing and close the connection; other requests on it get no answer either."""
        self._end()
        self._connection.hang_up()

    def lose(self) -> None:
        """Do what is asked and close the connection without an answer."""
        self._end()
        self._apply()
        self._connection.hang_up()

    def ignore(self, *, applied: bool = False) -> None:
        """Never answer; nor are later requests on this connection. `applied`: do what is asked all the same."""
        self._end()
        if applied:
            self._apply()

    def send_raw(self, data: bytes) -> None:
        """Send these bytes, frame and all, in the place of the answer."""
        self._end()
        self._send(data, {})

    def frame(self, **shape: Unpack[Shape]) -> bytes:
        """Return the bytes of an answer that accepts every batch at offset 0, without sending them."""
        check(shape)
        told = [(batch, Verdict(0, 0)) for batch in self.batches]
        return self._frame(self._broker.response(self.request, told, 0), shape)

    def honest(self, batch: Batch) -> Verdict:
        """Do with one of its batches what an honest broker does, for a `judge` that only sometimes has its own mind."""
        return self._broker.judge(batch, self.request.node)

    def _apply(self) -> None:
        told = [(batch, self.honest(batch)) for batch in self.batches]
        self._broker.response(self.request, told, 0)

    def _end(self) -> None:
        with self._broker.lock:
            self._begin_end()

    def _begin_end(self) -> None:
        if self._ended:
            raise AssertionError(f"answered already: {self.request}")
        self._ended = True

    def _settle(self, judge: Callable[[Batch], Verdict], code: int, shape: Shape) -> None:
        check(shape)
        with self._broker.lock:
            self._begin_end()
            told = [(batch, judge(batch)) for batch in self.batches]
            response = self._broker.response(self.request, told, code)   # of the same moment
        if self._turn is None:
            # acks=0: there is no answer, and an error can only be told by closing the connection.
            if shape.get("close") or any(verdict.code for _, verdict in told):
                self._connection.hang_up()
            return
        self._send(self._frame(response, shape), shape)

    def _frame(self, response: Any, shape: Shape) -> bytes:
        if "throttle_ms" in shape:
            response = dataclasses.replace(response, throttle_time=milliseconds(shape["throttle_ms"]))
        if "edit" in shape:
            response = shape["edit"](response)
        frame = bytearray(write_response(response, shape.get("correlation_id", self.request.correlation_id)))
        if "corrupt_at" in shape:
            at = shape["corrupt_at"]
            if not -len(frame) <= at < len(frame):
                raise ValueError(f"corrupt_at={at}: the answer has {len(frame)} bytes: {self.request}")
            frame[at] ^= 0xFF
        return shape["mangle"](bytes(frame)) if "mangle" in shape else bytes(frame)

    def _send(self, frame: bytes, shape: Shape) -> None:
        if self._turn is None:
            return
        if "cut_at" in shape:
            frame = frame[: shape["cut_at"]]
        if "stall_at" in shape:
            frame = frame[: shape["stall_at"]]
        close = shape.get("close", False) or "cut_at" in shape
        self._connection.answer(self._turn, frame, close, "stall_at" in shape, shape.get("delay_s", 0.0))
