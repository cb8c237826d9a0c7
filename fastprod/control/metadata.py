"""When metadata is asked for, and what its answers change in the data plane.

Rules (Java's Metadata and NetworkClient, KIP-526, KIP-899, KIP-1102):
* One request at a time. A topic nobody asked about before gets a request of its own at once;
  everything else waits for the backoff, which grows while requests fail and while answers tell
  nothing new to somebody who saw a stale leader.
* A full request names all live topics: those sent to within the last 300 s.
* Unknown and leaderless topics are asked for again as long as somebody waits for them.
* No success for 300 s of trying, or error 129: start over from the bootstrap servers.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Final, NamedTuple

from fastprod import errors
from fastprod.control import wire
from fastprod.control.backoff import backoff_ms, retry_cap_ms
from fastprod.control.channel import Channel
from fastprod.control.cluster import Changes, Cluster, MetadataAnswer, TopicInfo
from fastprod.control.journal import Journal
from fastprod.control.loop import Loop, Timer
from fastprod.control.seam import Plane

MAX_IDLE_S: Final = 300.0
REBOOTSTRAP_AFTER_S: Final = 300.0
_REBOOTSTRAP_REQUIRED: Final = 129
# Somebody may send to made-up names all day long.
_MOST_TROUBLES: Final = 1000


class MetadataSettings(NamedTuple):
    retry_backoff_ms: float
    max_age_ms: float
    allow_auto_create: bool


class TopicTrouble(NamedTuple):
    """Why a topic could not be resolved: broker's code, and when (monotonic seconds)."""

    error_code: int
    at: float

    @property
    def is_final(self) -> bool:
        """Whether asking again is of no use."""
        return self.error_code != 0 and not errors.is_retriable(self.error_code)


class Metadata:
    """Control thread only, except for `cluster.snapshot`, `trouble` and `failure`."""

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        cluster: Cluster,
        plane: Plane,
        journal: Journal,
        settings: MetadataSettings,
        on_update: Callable[[], None],
    ) -> None:
        self.cluster = cluster
        self.failure: Exception | None = None
        self._waiting: collections.Counter[str] = collections.Counter()
        self._loop = loop
        self._channel = channel
        self._plane = plane
        self._journal = journal
        self._settings = settings
        self._on_update = on_update
        self._live: dict[str, float] = {}
        self._fresh: set[str] = set()
        self._unresolved: set[str] = set()
        self._queued_leaderless: dict[str, TopicInfo] = {}
        self._limited: dict[str, float] = {}
        self._troubles: dict[str, TopicTrouble] = {}
        # Whoever learned a topic's size limit is told to forget it here.
        self.forget_size: Callable[[str], None] = lambda topic: None
        # Whoever holds what only the cluster before can have given is told here.
        self.other_cluster: Callable[[], None] = lambda: None
        self._stale = True
        self._asking = False
        self._failures = 0
        self._not_before = 0.0
        self._trying_since: float | None = None
        self._timer: Timer | None = None

    # What others ask for

    def trouble(self, topic: str) -> TopicTrouble | None:
        """Return why the topic could not be resolved last time. Any thread."""
        return self._troubles.get(topic)

    def enter(self, topic: str) -> None:
        """Somebody waits for this topic, until `leave`: ask for it, at once if it is new."""
        self._waiting[topic] += 1
        self._live[topic] = self._loop.now()
        if topic not in self._unresolved:
            self._fresh.add(topic)
        self._poke()

    def leave(self, topic: str) -> None:
        """One fewer waits for this topic."""
        self._waiting[topic] -= 1
        if self._waiting[topic] <= 0:
            del self._waiting[topic]

    def refresh(self, topic: str | None = None) -> None:
        """What we know is stale; `topic` is the one that showed it and must be asked for."""
        if topic is not None:
            self._live[topic] = self._loop.now()
        self._stale = True
        self._poke()

    def leaderless(self, topic: str) -> None:
        """Batches of the topic wait for a leader (EVENT_NO_LEADER)."""
        info = self.cluster.snapshot.topics.get(topic) or self.cluster.past(topic)
        if info is not None:
            self._queued_leaderless[topic] = info
        self.refresh(topic)

    def limited(self, topic: str) -> None:
        """The topic's batches are kept small from now on, until metadata_max_age_ms have passed."""
        self._limited.setdefault(topic, self._loop.now())

    def hinted(self, topic: str) -> None:
        """The cluster took a leader hint: tell the plane."""
        info = self.cluster.snapshot.topics.get(topic)
        if info is not None and topic in self._plane.routes:
            self._plane.set_topic(topic, info.topic_id, self.cluster.routable_leaders(info))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._asking = True

    # Asking

    def _poke(self) -> None:
        """Send what is due, or see to it that we come back when it is."""
        if self._asking:
            return
        if self._timer is not None:
            self._timer.cancel()
        now = self._loop.now()
        expires = self.cluster.snapshot.fetched_at + self._settings.max_age_ms / 1000
        if now >= expires:
            self._stale = True
        if now >= self._not_before and (self._stale or self._unresolved):
            self._ask_all(now) if self._stale else self._ask(set(self._unresolved), full=False)
        elif self._fresh:
            self._ask(set(self._fresh), full=False)
        else:
            due = self._not_before if self._stale or self._unresolved else expires
            self._timer = self._loop.call_later(due - now, self._poke)

    def _ask_all(self, now: float) -> None:
        self._drop_idle(now)
        self._lift_limits(now)
        self._ask(set(self._live), full=True)

    def _ask(self, topics: set[str], *, full: bool) -> None:
        topics |= self._fresh
        self._asking = True
        self._fresh.clear()
        was_stale = self._stale and full
        if full:
            self._stale = False
        if self._trying_since is None:
            self._trying_since = self._loop.now()
        call = wire.metadata(sorted(topics), self._settings.allow_auto_create)
        self._channel.submit(
            call, lambda answer, error: self._answered(topics, was_stale, answer, error)
        )

    def _answered(
        self,
        topics: set[str],
        was_stale: bool,
        answer: MetadataAnswer | None,
        error: Exception | None,
    ) -> None:
        self._asking = False
        if answer is not None and answer.error_code == _REBOOTSTRAP_REQUIRED:
            self._start_over("a broker asked for it (REBOOTSTRAP_REQUIRED)")
            error = errors.RebootstrapRequiredError("A broker asked us to start over.")
        elif answer is not None and answer.error_code:
            kind = errors.for_code(answer.error_code)
            error = kind(f"A broker refused Metadata: {kind.description}")
        elif answer is not None and not answer.brokers:
            error = errors.MetadataEmptyBrokerList("A metadata response names no broker.")
        if answer is None or error is not None:
            self._failed(topics, was_stale, error)
        else:
            self._succeeded(topics, was_stale, answer)
        # What is still to be asked goes ahead of what others ask now.
        self._poke()
        self._on_update()

    def _failed(self, topics: set[str], was_stale: bool, error: Exception | None) -> None:
        now = self._loop.now()
        self.failure = error
        self._journal.debug("A metadata request failed: %s", error)
        self._stale = self._stale or was_stale
        self._unresolved |= {each for each in topics if self._waiting[each] > 0}
        self._back_off(self._failures + 1)
        if self._trying_since is not None and now - self._trying_since >= REBOOTSTRAP_AFTER_S:
            self._start_over(f"no metadata for {REBOOTSTRAP_AFTER_S:.0f} s")

    def _succeeded(self, topics: set[str], was_stale: bool, answer: MetadataAnswer) -> None:
        now = self._loop.now()
        self.failure = None
        self._trying_since = None
        before = self.cluster.snapshot.cluster_id
        if before is not None and answer.cluster_id not in (None, before):
            self._journal.warning("This is another cluster: %s, was %s", answer.cluster_id, before)
            self.other_cluster()
        changes = self.cluster.apply(answer, now)
        self._channel.brokers_known()
        self._tell_plane(changes)
        for topic in topics:
            self._settle(topic, changes.refused.get(topic), now)
        unsatisfied = (was_stale and not changes.newer) or bool(self._unresolved)
        self._back_off(self._failures + 1 if unsatisfied else 0)

    def _settle(self, topic: str, refused: int | None, now: float) -> None:
        """Decide whether a topic that was asked for needs to be asked for again."""
        self._unresolved.discard(topic)
        if refused is None:
            self._troubles.pop(topic, None)
            return
        trouble = TopicTrouble(refused, now)
        self._troubles.pop(topic, None)
        self._troubles[topic] = trouble
        while len(self._troubles) > _MOST_TROUBLES:
            del self._troubles[next(iter(self._troubles))]
        queued = self._queued_leaderless.pop(topic, None)
        if trouble.is_final:
            # Sends must ask again, and be told. What is queued goes on to the leaders we know:
            # there it gets a definite answer.
            self._live.pop(topic, None)
            self._plane.forget_topic(topic)
            self.cluster.drop(topic)
        elif self._waiting[topic] > 0 or topic in self.cluster.snapshot.topics:
            self._unresolved.add(topic)
        elif queued is None:
            self._live.pop(topic, None)
        if queued is not None:
            self._without_leaders(queued)

    def _back_off(self, failures: int) -> None:
        self._failures = failures
        base = self._settings.retry_backoff_ms
        delay_ms = backoff_ms(base, retry_cap_ms(base), max(1, failures))
        self._not_before = self._loop.now() + delay_ms / 1000

    def _start_over(self, reason: str) -> None:
        self._trying_since = self._loop.now()
        self._stale = True
        for node_id in self.cluster.snapshot.brokers:
            self._plane.detach(node_id, "starting over from the bootstrap servers")
        self._channel.rebootstrap(reason)

    # What changes in the plane

    def _tell_plane(self, changes: Changes) -> None:
        for node_id in changes.moved:
            self._plane.detach(node_id, "the broker has another address now")
        for info in changes.lost:
            self._without_leaders(info)
        for info in changes.current:
            if info.internal:
                continue
            if info.name in changes.recreated:
                self._journal.warning("Topic %r was deleted and created again", info.name)
                self._plane.reset_topic(info.name)
            self._queued_leaderless.pop(info.name, None)
            self._plane.set_topic(info.name, info.topic_id, self.cluster.routable_leaders(info))

    def _without_leaders(self, info: TopicInfo) -> None:
        """The topic is not there at the moment: what is queued waits, and new sends ask for it.
        Setting it also arms EVENT_NO_LEADER again, so we hear about what still waits."""
        self._plane.set_topic(info.name, info.topic_id, [-1] * len(info.leaders))
        self._plane.forget_topic(info.name)

    def _drop_idle(self, now: float) -> None:
        for topic, route in list(self._plane.routes.items()):
            if route.take_used():
                self._live[topic] = now
        for topic, used in list(self._live.items()):
            if now - used > MAX_IDLE_S and self._waiting[topic] <= 0:
                del self._live[topic]
                self._troubles.pop(topic, None)
                self._plane.forget_topic(topic)
                self.cluster.drop(topic)

    def _lift_limits(self, now: float) -> None:
        for topic, since in list(self._limited.items()):
            if now - since >= self._settings.max_age_ms / 1000:
                del self._limited[topic]
                self._plane.set_leader_limit(topic, 0)
                self.forget_size(topic)
