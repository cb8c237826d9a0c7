"""Stand-ins for units that only decide: they record what they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastprod.control.journal import Journal
from fastprod.control.loop import Timer


class RecordingPlane:
    """Notes every call as (name, arguments)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.keywords: list[dict[str, Any]] = []
        self.routes: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        def note(*args: Any, **keywords: Any) -> None:
            self.calls.append((name, args))
            self.keywords.append(keywords)
            if name == "set_topic":
                self.routes[args[0]] = Route()
            elif name == "forget_topic":
                self.routes.pop(args[0], None)

        return note

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """Return the arguments of each call of that name."""
        return [args for called, args in self.calls if called == name]


class Route:
    """A TopicRoute as far as metadata looks at it."""

    used = False

    def take_used(self) -> bool:
        used, self.used = self.used, False
        return used


class ManualLoop:
    """A loop whose time passes when the test says so."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.timers: list[Timer] = []

    def now(self) -> float:
        return self.time

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Timer:
        timer = Timer(self.time + max(0.0, delay_s), action)
        self.timers.append(timer)
        return timer

    def guard(self, action: Callable[..., None], *args: Any) -> None:
        action(*args)

    def advance(self, seconds: float) -> None:
        """Let time pass, running what becomes due in order."""
        end = self.time + seconds
        while True:
            due = [each for each in self.timers if each.pending and each.when <= end]
            if not due:
                break
            first = min(due, key=lambda each: each.when)
            self.timers.remove(first)
            self.time = max(self.time, first.when)
            first.run()
        self.time = end


class ManualChannel:
    """Holds requests until the test answers them."""

    def __init__(self) -> None:
        self.open: list[tuple[Any, Callable[[Any, Exception | None], None]]] = []
        self.asked: list[Any] = []
        self.restarts: list[str] = []

    def submit(self, call: Any, receiver: Callable[[Any, Exception | None], None]) -> None:
        self.open.append((call, receiver))
        self.asked.append(call.message)

    def answer(self, value: Any = None, error: Exception | None = None) -> None:
        """Answer the oldest open request."""
        _, receiver = self.open.pop(0)
        receiver(value, error)

    def brokers_known(self) -> None: ...

    def rebootstrap(self, reason: str) -> None:
        self.restarts.append(reason)


def quiet() -> Journal:
    """Return a journal for tests that do not look at it."""
    return Journal("fastprod.control.test")
