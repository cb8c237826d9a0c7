"""What a test has told a `ScriptedBroker` to do: rules, and how an answer is to look on its way."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from fastprod.testing.scripted.log import Judge, Verdict

if TYPE_CHECKING:
    from fastprod.testing.scripted.records import Batch
    from fastprod.testing.scripted.requests import Pending, Request


class Shape(TypedDict, total=False):
    """How an answer leaves. Every verb that answers takes these, and any of them together.

    `delay_s`: it leaves this many seconds later (what it says was decided, and written to the log, at once).
    `throttle_ms`: the throttle time that it names. `edit`: is given the response (kio's message) and returns the one to
    send. `correlation_id`: instead of the request's. `corrupt_at`: the byte of its frame (length field included) that
    is inverted. `mangle`: is given the whole frame and returns the bytes to send instead, the length field its own
    affair. `cut_at`: only so many bytes of the frame are sent, then the connection is closed; negative numbers count
    from the end. `stall_at`: only so many bytes are sent, and the connection stays open and silent.
    `close`: the connection is closed behind the answer.
    """

    delay_s: float
    throttle_ms: int
    edit: Callable[[Any], Any]
    correlation_id: int
    corrupt_at: int
    mangle: Callable[[bytes], bytes]
    cut_at: int
    stall_at: int
    close: bool


class Refusal(TypedDict, total=False):
    """What a refusal may say besides its error code (see `Verdict`)."""

    message: str
    record_errors: tuple[tuple[int, str | None], ...]
    leader: int
    leader_epoch: int
    log_start_offset: int


class RefusalShape(Refusal, Shape, total=False):
    """Both."""


def split(details: RefusalShape) -> tuple[dict[str, Any], Shape]:
    """Return what belongs to the verdict, and the shape."""
    said = {name: value for name, value in details.items() if name in Refusal.__annotations__}
    shape: Any = {name: value for name, value in details.items() if name not in said}
    check(shape, *Refusal.__annotations__)
    return said, shape


def check(shape: Shape, *others: str) -> None:
    """TypeError for a name that is none of `Shape`: passed over, a slip of the pen would leave a test that tests
    nothing. `others`: what could have been meant besides."""
    for name in shape:
        if name not in Shape.__annotations__:
            known = ", ".join((*others, *Shape.__annotations__))
            raise TypeError(f"{name!r} is nothing that can be told here; that is {known}")


class Act(enum.Enum):
    """What becomes of a request."""

    ANSWER = enum.auto()
    HOLD = enum.auto()
    DECIDE = enum.auto()
    DROP = enum.auto()
    LOSE = enum.auto()
    IGNORE = enum.auto()
    CUT = enum.auto()


@dataclass(frozen=True)
class Target:
    """Which requests a rule is about; None is any. `request`, `batch`: further conditions."""

    api: int | None = None
    node: int | None = None
    topic: str | None = None
    partition: int | None = None
    request: Callable[[Request], bool] | None = None
    batch: Callable[[Batch], bool] | None = None

    def fits(self, request: Request) -> bool:
        """Say whether the rule is about the request, its batches apart."""
        return (
            self.api in (None, request.api)
            and self.node in (None, request.node)
            and (self.request is None or self.request(request))
        )

    def fits_batch(self, batch: Batch) -> bool:
        """Say whether the rule is about a batch of a request that fits."""
        return (
            self.topic in (None, batch.topic)
            and self.partition in (None, batch.partition)
            and (self.batch is None or self.batch(batch))
        )


class Rule:
    """Something the broker was told: `broker.on_produce("orders", times=2).refuse(19)`.

    The last verb that is called holds; without one the rule does nothing. It ends after `times` requests, with
    `remove()`, or at the end of a `with` block.
    """

    def __init__(self, script: Script, target: Target, times: int | None) -> None:
        self.target = target
        self.act: Act | None = None
        self.judge: Judge | None = None
        self.decider: Callable[[Pending], object] | None = None
        self.code = 0
        self.said: dict[str, Any] = {}
        self.shape: Shape = {}
        self.applied = False
        self.cut_at = 0
        self.left = times
        self.used = 0
        self._script = script

    def answer(self, judge: Judge | None = None, **shape: Unpack[Shape]) -> Self:
        """Answer honestly or, for Produce, each batch with what `judge` says, in this shape."""
        check(shape)
        return self._do(Act.ANSWER, judge=judge, shape=shape)

    def refuse(self, code: int, **details: Unpack[RefusalShape]) -> Self:
        """Answer with an error: the batches it is about, and nothing of them is written. Metadata: every topic."""
        said, shape = split(details)
        return self._do(Act.ANSWER, code=code, said=said, shape=shape)

    def hold(self) -> Self:
        """Leave requests to the test: they wait in `broker.next_produce()` or `broker.next(api)`."""
        return self._do(Act.HOLD)

    def decide(self, decider: Callable[[Pending], object]) -> Self:
        """Call a function with each request, for what only a program can decide: it ends the request with one of its
        verbs, at once or from another thread later. It runs on the node's thread, which does nothing else meanwhile."""
        return self._do(Act.DECIDE, decider=decider)

    def drop(self) -> Self:
        """Do nothing with the request and close its connection."""
        return self._do(Act.DROP)

    def lose(self) -> Self:
        """Do what is asked and close the connection without an answer."""
        return self._do(Act.LOSE)

    def ignore(self, *, applied: bool = False) -> Self:
        """Never answer; the connection stays open. `applied`: do what is asked all the same."""
        return self._do(Act.IGNORE, applied=applied)

    def cut_request(self, at: int) -> Self:
        """Close the connection as soon as so many bytes of the request (length field included) have come.

        Rules about topics, partitions or batches, and conditions, have no say here: only the API and the node.
        """
        return self._do(Act.CUT, cut_at=at)

    def remove(self) -> None:
        """End it."""
        self._script.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def verdict(self, batch: Batch, honest: Judge) -> Verdict:
        """Return what a batch that this rule is about is answered."""
        if self.code:
            return Verdict(self.code, **self.said)
        return (self.judge or honest)(batch)

    def _do(self, act: Act, **values: Any) -> Self:
        with self._script.lock:
            self.judge, self.code, self.said, self.shape = None, 0, {}, {}
            for name, value in values.items():
                setattr(self, name, value)
            self.act = act
        return self


class Script:
    """All rules. Those with a number of times come first, in the order they were given; of the others the newest."""

    def __init__(self, lock: threading.RLock) -> None:
        self.lock = lock
        self._counted: list[Rule] = []
        self._lasting: list[Rule] = []

    def add(self, target: Target, times: int | None) -> Rule:
        """Add a rule without a verb."""
        if times is not None and times < 1:
            raise ValueError(f"times={times!r}: at least 1, or None for every time")
        rule = Rule(self, target, times)
        with self.lock:
            if times is None:
                self._lasting.insert(0, rule)
            else:
                self._counted.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Remove a rule, if it is there."""
        with self.lock:
            self._counted = [each for each in self._counted if each is not rule]
            self._lasting = [each for each in self._lasting if each is not rule]

    def for_request(self, request: Request) -> tuple[list[Rule], list[tuple[Batch, Rule | None]]]:
        """Return the rules that a request falls under, counted, and the one of each of its batches."""
        with self.lock:
            fitting = [rule for rule in self._active() if rule.act is not Act.CUT and rule.target.fits(request)]
            batches: list[tuple[Batch, Rule | None]] = []
            for batch in request.batches:
                batches.append((batch, next((rule for rule in fitting if rule.target.fits_batch(batch)), None)))
            if request.batches:
                used = list(dict.fromkeys(rule for _, rule in batches if rule is not None))
            else:
                used = fitting[:1]
            for rule in used:
                self._count(rule)
            return used, batches

    def cut_for(self, api: int, node: int, size: int) -> bool:
        """Say whether a request of which `size` bytes have come is to be cut off now."""
        with self.lock:
            for rule in self._active():
                target = rule.target
                if rule.act is Act.CUT and target.api in (None, api) and target.node in (None, node):
                    if size < rule.cut_at:
                        return False
                    self._count(rule)
                    return True
            return False

    def ended(self, rule: Rule) -> bool:
        """Say whether a rule without a number of times has been removed."""
        with self.lock:
            return rule.left is None and all(each is not rule for each in self._lasting)

    def holds(self, api: int) -> bool:
        """Say whether there is a rule that leaves requests of this API to the test."""
        with self.lock:
            return any(rule.act is Act.HOLD and rule.target.api in (None, api) for rule in self._active())

    def _active(self) -> list[Rule]:
        return [rule for rule in (*self._counted, *self._lasting) if rule.act is not None]

    def _count(self, rule: Rule) -> None:
        rule.used += 1
        if rule.left is not None:
            rule.left -= 1
            if rule.left == 0:
                self.remove(rule)
