"""How user threads come by a topic: they wait here while the control thread asks for metadata."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final

from fastprod import errors
from fastprod.control.channel import Channel
from fastprod.control.loop import Loop
from fastprod.control.metadata import Metadata, TopicTrouble
from fastprod.control.refusals import marked
from fastprod.control.seam import Plane
from fastprod.waiting import Gate, Lock

# Every wait of a user thread ends this often, so that Ctrl-C and other signals are served.
SIGNAL_SLICE_S: Final = 0.05
_STALE_AFTER_S: Final = 1.0
_LONGEST_NAME: Final = 249
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_ADVICE: Final[dict[int, str]] = {
    0: "The brokers name no partition of it yet.",
    3: "Create it, check its spelling, or check that auto.create.topics.enable is on at the "
    "brokers and allow_auto_create_topics here.",
    5: "It was just created, or the brokers that hold it are down.",
    17: "Kafka's own topics, and names that differ from another topic's only in '.' and '_', "
    "cannot be written to.",
    29: "The principal needs the ACL operations Describe and Write on the topic.",
}


class Topics:
    """Resolves topic names; any thread. On the control thread it runs the loop instead of waiting.

    `pump(seconds)` runs one pass of the loop; `ended()` returns why nothing can be sent any more,
    None while it can.
    """

    def __init__(
        self,
        loop: Loop,
        plane: Plane,
        metadata: Metadata,
        channel: Channel,
        on_control_thread: Callable[[], bool],
        pump: Callable[[float], None],
        ended: Callable[[], BaseException | None],
        retry_backoff_s: float,
    ) -> None:
        self._loop = loop
        self._plane = plane
        self._metadata = metadata
        self._channel = channel
        self._on_control_thread = on_control_thread
        self._pump = pump
        self._ended = ended
        self._retry_backoff_s = retry_backoff_s
        self._lock = Lock()
        self._news = Gate()

    def changed(self) -> None:
        """Metadata has news: whoever waits looks again."""
        with self._lock:
            gate, self._news = self._news, Gate()
            gate.open()

    def wait_until(self, condition: Callable[[], Any], timeout_s: float) -> Any:
        """Return what `condition` returns once it is true, or its last false value after
        `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        inside = self._on_control_thread()
        while True:
            gate = self._news
            result = condition()
            left = deadline - time.monotonic()
            if result or left <= 0:
                return result
            if inside:
                self._pump(min(left, SIGNAL_SLICE_S))
            else:
                gate.wait(min(left, SIGNAL_SLICE_S))

    def resolve(self, topic: Any, timeout_s: float) -> Any:
        """Return the plane's route of a topic, or the error that its future is to fail with.

        Raises TypeError or ValueError for a name that no topic has, ValueError for an internal
        topic, KafkaTimeoutError after `timeout_s` seconds.
        """
        route = self._plane.routes.get(topic) if isinstance(topic, str) else None
        if route is not None:
            return route
        check_name(topic)
        began = time.monotonic()
        found = self._ask(topic, lambda: self._look_up(topic, began), timeout_s)
        if found is None:
            raise self._timed_out(topic, timeout_s, began)
        if isinstance(found, ValueError):
            raise found
        return found

    def refresh(self, topic: str, timeout_s: float) -> Any:
        """Return the topic's route after asking for it again, unless what we know is fresh."""
        info = self._metadata.cluster.snapshot.topics.get(topic)
        began = time.monotonic()
        if info is not None and began - info.fetched_at < _STALE_AFTER_S:
            return self._plane.routes.get(topic) or self.resolve(topic, timeout_s)
        self._ask(topic, lambda: self._is_newer(topic, began), timeout_s)
        left = max(0.0, began + timeout_s - time.monotonic())
        return self._plane.routes.get(topic) or self.resolve(topic, left)

    def partitions(self, topic: Any, timeout_s: float) -> set[int]:
        """Return the topic's partition numbers; raises what `resolve` raises or returns."""
        info = self._metadata.cluster.snapshot.topics.get(topic) if isinstance(topic, str) else None
        if info is None:
            try:
                found = self.resolve(topic, timeout_s)
            except ValueError:
                info = self._metadata.cluster.snapshot.topics.get(topic)
                if info is None or not info.internal:
                    raise
                return set(range(len(info.leaders)))
            if isinstance(found, BaseException):
                raise found
            return set(range(found.partition_count))
        return set(range(len(info.leaders)))

    def _ask(self, topic: str, condition: Callable[[], Any], timeout_s: float) -> Any:
        """As `wait_until`, while metadata is asked for the topic."""
        entered = False

        def enter() -> None:
            nonlocal entered
            entered = True
            self._metadata.enter(topic)

        def leave() -> None:
            nonlocal entered
            if entered:
                entered = False
                self._metadata.leave(topic)

        try:
            self._loop.call_threadsafe(enter)
            found = self.wait_until(condition, timeout_s)
            self._loop.call_threadsafe(leave)
        except BaseException:
            # A signal's as well, which may come before or behind any of these calls.
            self._loop.call_threadsafe(leave)
            raise
        return found

    def _look_up(self, topic: str, began: float) -> Any:
        ended = self._ended()
        if ended is not None:
            return ended
        route = self._plane.routes.get(topic)
        if route is not None:
            return route
        info = self._metadata.cluster.snapshot.topics.get(topic)
        if info is not None and info.internal:
            return ValueError(
                f"Unrecognized partition: {topic!r} is one of Kafka's own topics, which a producer "
                "does not write to."
            )
        trouble = self._metadata.trouble(topic)
        # A refusal from just before serves, too: not every send of a loop shall ask.
        if trouble is not None and trouble.is_final and trouble.at >= began - self._retry_backoff_s:
            return _topic_error(topic, trouble)
        return None

    def _is_newer(self, topic: str, began: float) -> bool:
        info = self._metadata.cluster.snapshot.topics.get(topic)
        trouble = self._metadata.trouble(topic)
        return (
            self._ended() is not None
            or (info is not None and info.fetched_at >= began)
            or (trouble is not None and trouble.at >= began)
        )

    def _timed_out(self, topic: str, timeout_s: float, began: float) -> Exception:
        text = f"Failed to update metadata of topic {topic!r} after {timeout_s:.1f} secs."
        trouble = self._metadata.trouble(topic)
        cause: Exception | None = None
        if trouble is not None and trouble.at >= began - self._retry_backoff_s:
            cause = _topic_error(topic, trouble)
            text += f" The brokers say: {cause.args[0]}"
        else:
            troubles = self._channel.troubles()
            cause = self._metadata.failure
            if troubles:
                text += f" No broker answered: {'; '.join(troubles)}."
            elif cause is not None:
                text += f" {cause}"
        error = errors.KafkaTimeoutError(text)
        error.__cause__ = cause
        error.maybe_written = False
        return error


def check_name(topic: Any) -> None:
    """Raise TypeError or ValueError for what cannot be a topic's name."""
    if not isinstance(topic, str):
        raise TypeError(f"topic must be a str, not {type(topic).__name__}: {topic!r:.80}")
    if not topic:
        raise ValueError("The topic's name is empty.")
    if topic in (".", ".."):
        raise ValueError(f"A topic cannot be named {topic!r}.")
    if len(topic) > _LONGEST_NAME:
        raise ValueError(
            f"A topic's name has at most {_LONGEST_NAME} characters, this one {len(topic)}: "
            f"{topic[:40]!r}..."
        )
    if not _NAME.fullmatch(topic):
        raise ValueError(
            f"Topic {topic!r}: only ASCII letters, digits, '.', '_' and '-' can be in a name."
        )


def _topic_error(topic: str, trouble: TopicTrouble) -> Exception:
    code = trouble.error_code
    kind = errors.for_code(code) if code else errors.LeaderNotAvailableError
    advice = _ADVICE.get(code, "")
    return marked(kind(f"Topic {topic!r}: {kind.description} {advice}".rstrip()), False)
