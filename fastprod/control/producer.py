"""The engine room: one object that owns both planes from start to close.

A face makes an `Engine`, binds its `send` to `engine.plane`, and passes every other call on. The
engine never refers to the face, so that dropping the producer can end it.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastprod import _backend, errors, failures
from fastprod.config import ProducerConfig
from fastprod.control import forks, parts, refusals
from fastprod.control.control_thread import ControlThread
from fastprod.control.journal import Journal
from fastprod.control.loop import Loop
from fastprod.control.metrics import KafkaMetric, MetricName, Metrics
from fastprod.control.statistics import nothing_yet, producer_stats
from fastprod.control.topics import Topics
from fastprod.control.traffic import all_counters
from fastprod.control.undelivered import Undelivered
from fastprod.control.view import ClusterView
from fastprod.protocol.versions import release_of
from fastprod.stats import ProducerStats
from fastprod.waiting import Lock

_REQUEST_TIMED_OUT: Final = 7
# What close() and the exit hook allow beyond their timeout, for callbacks of what was aborted.
_JOIN_S: Final = 0.35
_EXIT_BUDGET_S: Final = 1.0
_ABANDONED_LOOK_S: Final = 0.02
# Failures that nobody looked at are logged once in so long, and at the end.
_UNREAD_S: Final = 60.0


def _nothing() -> None: ...


class Engine:
    """Both planes of one producer. Any thread, unless noted; times in seconds."""

    def __init__(self, config: ProducerConfig) -> None:
        """Make both planes and start their threads; does not wait for the network."""
        self.config = config
        self._journal = Journal("fastprod.control")
        self._loop = Loop(self._journal)
        options = config.plane_options(_backend.linked_codecs())
        self.plane = _backend.DataPlane(options, self._loop.wake_fd)
        # Set in a forked child: whoever goes on there makes a new engine, one of them, under it.
        self.succession: threading.Lock | None = None
        # What the face still has to do when it was closed by nobody.
        self.farewell: Callable[[], object] = _nothing
        self._finalizer: Any = None
        self._fatal: Exception | None = None
        self._bootstrapping = False
        self._closing = False
        self._closed = False
        self._dropped = False
        reports = parts.Reports(self._updated, self._die, self._without_idempotence)
        self._parts = parts.build(config, options, self._loop, self._journal, self.plane, reports)
        self._undelivered = Undelivered(parts.largest_body(options))
        name = f"{config['client_id']}-network-thread"
        self._thread = ControlThread(
            name,
            self._loop,
            self.plane,
            self._journal,
            self._handlers(),
            self._broken,
            self._end,
        )
        self._topics = Topics(
            self._loop,
            self.plane,
            self._parts.metadata,
            self._parts.channel,
            self.on_control_thread,
            self.pump,
            self._why_ended,
            config["retry_backoff_ms"] / 1000,
        )
        snapshot = self._parts.metadata.cluster
        self.cluster = ClusterView(lambda: snapshot.snapshot)
        self._metrics = self._make_metrics() if config["metrics_enabled"] else None
        self._start(options.idempotent)

    def _start(self, idempotent: bool) -> None:
        self._loop.call_threadsafe(self._parts.metadata.refresh)
        if idempotent:
            self._loop.call_threadsafe(self._parts.identity.start)
        if self._metrics is not None:
            self._loop.call_threadsafe(self._sample_metrics)
        self._loop.call_threadsafe(self._tell_unread)
        self.plane.start()
        try:
            self._thread.start()
        except RuntimeError:
            # No more threads: nobody would be left to stop the other one.
            self.plane.stop()
            raise
        atexit.register(self._at_exit)
        forks.watch(self)
        multiprocessing = sys.modules.get("multiprocessing")
        if multiprocessing is not None and multiprocessing.parent_process() is not None:
            # Such a process ends without atexit's hooks, but not without these.
            finalize = sys.modules["multiprocessing.util"].Finalize
            self._finalizer = finalize(None, self._at_exit, exitpriority=0)

    def inherited(self) -> None:
        """This process is a forked child: everything of this engine goes on in the parent, and its
        threads, its locks and the ends of its connections are there. Takes no lock."""
        self.succession = Lock()
        self._closing = self._closed = True
        atexit.unregister(self._at_exit)
        self._thread.inherited()
        self.plane.inherited()
        self._loop.inherited()

    # What `send` asks (the seam)

    def resolve_topic(self, topic: Any, timeout_s: float) -> Any:
        """Return the topic's route, or an exception that its future is to fail with.

        Raises KafkaTimeoutError after `timeout_s`, TypeError or ValueError for an impossible name.
        """
        return self._topics.resolve(topic, timeout_s)

    def refresh_partitions(self, topic: str, partition: int, timeout_s: float) -> Any:
        """Return the topic's route, asked for anew if what we know is older than 1 s."""
        return self._topics.refresh(topic, timeout_s)

    def on_control_thread(self) -> bool:
        """Whether the caller is a delivery callback, or something that one called."""
        return self._thread.is_current()

    def pump(self, seconds: float) -> None:
        """Run one pass of the control loop, without callbacks; control thread only."""
        self._thread.pump(seconds)

    # What the faces ask

    def bootstrap(self, timeout_s: float) -> None:
        """Wait for the first answer of a broker, and note its release as `api_version`. Without
        one the engine is closed and KafkaTimeoutError raised, naming each address and what
        happened with it."""
        self._bootstrapping = True
        brokers = self._parts.metadata.cluster
        try:
            self._topics.wait_until(lambda: self._fatal or brokers.snapshot.brokers, timeout_s)
            if self._fatal is not None:
                raise self._fatal
            if not brokers.snapshot.brokers:
                raise self._no_bootstrap(timeout_s)
            self.config.values["api_version"] = release_of(self._parts.channel.offered)
        except BaseException:
            self.close(0)
            raise
        finally:
            self._bootstrapping = False

    def bootstrap_connected(self) -> bool:
        """Whether a bootstrap is in progress and one of its servers is connected."""
        return self._bootstrapping and self._parts.channel.bootstrap_connected

    def partitions_for(self, topic: Any, timeout_s: float | None = None) -> set[int]:
        """Return the topic's partitions, waiting up to `timeout_s` (None: max_block_ms)."""
        if timeout_s is None:
            timeout_s = self.config["max_block_ms"] / 1000
        return self._topics.partitions(topic, timeout_s)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until every record sent so far is done and its callbacks have run; return whether
        they are. After close there is nothing to wait for; after one that Ctrl-C ended there is.
        IllegalStateError in a callback."""
        if self.on_control_thread():
            raise failures.flush_in_callback()
        return True if self._closed else self.plane.flush(timeout_s)

    def metrics(self) -> dict[str, dict[str, float]] | None:
        """Return {group: {name: value}}; None if metrics are off, empty after close."""
        if self._metrics is None:
            return None
        return {} if self._closed else self._metrics.snapshot()

    def stats(self) -> ProducerStats:
        """Return what was counted so far, after close as well. Any thread."""
        limit = self.config["buffer_memory"]
        if self.succession is not None:
            return nothing_yet(limit)
        return producer_stats(self.plane, limit)

    def raw_metrics(self) -> Mapping[MetricName, KafkaMetric] | None:
        """Return {MetricName: KafkaMetric}; None if metrics are off, empty after close."""
        if self._metrics is None:
            return None
        return {} if self._closed else self._metrics.raw()

    def close(self, timeout_s: float | None = None) -> Undelivered:
        """Accept nothing more, deliver what there is within `timeout_s` (None: however long it
        takes), abort what is left and stop the threads. Return what was not delivered.

        In a delivery callback it acts as close(0). Another call does nothing, unless a signal's
        exception ended this one: then it goes on where this one was.
        """
        if self._closed:
            return self._undelivered
        inside = self.on_control_thread()
        self._closing = True
        self.plane.close_appends()
        self._topics.changed()
        at_once = inside or timeout_s == 0
        # Where a close would wait for itself, in a signal's handler, flush raises, with nothing to wait for as well.
        if self.plane.incomplete() > 0 if at_once else not self.plane.flush(timeout_s):
            self._stop_plane()
        self._closed = True
        atexit.unregister(self._at_exit)
        if self._finalizer is not None:
            self._finalizer.cancel()
        self._thread.stop()
        if not inside:
            if self._thread.join(_JOIN_S):
                # What this thread has made is destroyed by this thread, where there is no GIL, and so perhaps only now.
                self._log_unread()
            else:
                # A callback does not return. The data plane need not wait for it.
                self._stop_plane()
        return self._undelivered

    def abandon(self, budget_s: float = _EXIT_BUDGET_S) -> None:
        """The producer was dropped without close: deliver for `budget_s`, then end. Only signals
        the control thread, so it may be called from a destructor on any thread."""
        # A close() that Ctrl-C ended has left it running.
        if not self._closed and not self._dropped:
            self._dropped = self._closing = True
            self._loop.call_threadsafe(lambda: self._abandoned(self._loop.now() + budget_s))

    def undelivered(self) -> Undelivered:
        """Return the records that close() gave up on."""
        return self._undelivered

    # Control thread

    def _handlers(self) -> dict[int, Callable[..., None]]:
        return {
            _backend.EVENT_NEED_CONNECTION: self._parts.links.needed,
            _backend.EVENT_CONNECTION_LOST: self._connection_lost,
            _backend.EVENT_PARKED: self._parts.arbiter.handle,
            _backend.EVENT_NO_LEADER: self._parts.metadata.leaderless,
            _backend.EVENT_NEED_EPOCH: self._parts.identity.need_epoch,
        }

    def _connection_lost(self, node_id: int, reason: str, code: int) -> None:
        if code == 0:
            return  # idle, or we asked for it
        peer = self._parts.links.lost(node_id, reason)
        self._journal.info("The connection to broker %s was lost: %s", node_id, reason)
        if code == _REQUEST_TIMED_OUT:
            self._parts.channel.distrust(peer, reason)
        self._parts.metadata.refresh()

    def _updated(self) -> None:
        if self._fatal is not None:
            self._forget_routes()
        if self._parts.metadata.failure is None:
            self._parts.identity.metadata_came()
        self._parts.links.look_again()
        self._topics.changed()

    def _die(self, error: Exception) -> None:
        """Nothing more can be sent: what waits fails now, every later send gets the same error."""
        if self._fatal is not None:
            return
        self._fatal = error
        self._parts.arbiter.fatal = error
        self._journal.error("This producer can send nothing more: %s", error)
        self._parts.identity.stop()
        self._forget_routes()
        # What was sent before and waits for its turn, too: there will be no epoch for it to go on under.
        self.plane.fail_queued(error, sent=True)
        self._topics.changed()

    def _forget_routes(self) -> None:
        """Make every send ask for its topic, where it is told why it cannot be sent."""
        for topic in list(self.plane.routes):
            self.plane.forget_topic(topic)

    def _without_idempotence(self, error: Exception) -> None:
        """The brokers have no InitProducerId: go on without where idempotence was a default."""
        if self.config.idempotence_required:
            self._die(
                errors.UnsupportedVersionError(
                    "enable_idempotence=True was asked for, but the brokers cannot do it. "
                    f"{error.args[0]}"
                )
            )
            return
        self._journal.warning(
            "%s: idempotence is off, because the brokers lack it (%s). Retries may write records "
            "twice or out of order.",
            self.config["client_id"],
            error.args[0],
        )
        self.config.values["enable_idempotence"] = False
        self._parts.identity.stop()
        self._parts.arbiter.rules = self._parts.arbiter.rules._replace(idempotent=False)
        self.plane.set_idempotent(False)

    def _broken(self, error: BaseException) -> None:
        self._die(errors.KafkaError(f"The control thread fails over and over: {error!r}"))

    def _abandoned(self, deadline: float) -> None:
        self.plane.close_appends()
        if self.plane.incomplete() > 0 and self._loop.now() < deadline:
            self._loop.call_later(_ABANDONED_LOOK_S, lambda: self._abandoned(deadline))
        else:
            self.close(0)
            self.farewell()

    def _tell_unread(self) -> None:
        self._log_unread()
        self._loop.call_later(_UNREAD_S, self._tell_unread)

    def _log_unread(self) -> None:
        count, example = self.plane.take_unread()
        if count:
            self._journal.warning(
                "%s: %s record(s) failed, and nobody looked at their futures or had an errback. "
                "One of them: %s",
                self.config["client_id"],
                count,
                example,
            )

    def _end(self) -> None:
        forks.forget(self)
        self._parts.close()
        self._stop_plane()
        self._log_unread()
        self._loop.close()

    # Smaller things

    def _stop_plane(self) -> None:
        """End the I/O thread, and give up what is not delivered. The I/O thread ends first: what it
        has in flight must be known as written or not before it is handed back. Whoever comes second
        waits until it has ended.

        When everything is done, too: a batch that expired in flight still waits for its answer.
        """
        with self._thread.deciding:
            self.plane.stop()
            left = self.plane.abort(failures.closed_forcefully)
            self._undelivered.add(left, failures.closed_forcefully)

    def _at_exit(self) -> None:
        left = len(self.close(_EXIT_BUDGET_S))
        if left:
            self._journal.warning(
                "%s: the program ended before %s records were delivered; close() waits for them.",
                self.config["client_id"],
                left,
            )
        self.farewell()

    def _why_ended(self) -> BaseException | None:
        """Return the error of every further send; raises once the producer is closed."""
        if self._fatal is not None:
            return refusals.repeated(self._fatal)
        if self._closing:
            raise failures.closed()
        return None

    def _no_bootstrap(self, timeout_s: float) -> Exception:
        servers = ", ".join(str(each) for each in self.config.servers)
        listed = servers.replace(", ", ",")
        troubles = "; ".join(each.rstrip(".") for each in self._parts.channel.troubles())
        if not troubles:
            failure = self._parts.metadata.failure
            troubles = str(failure.args[0]) if failure is not None else "no answer"
        return errors.KafkaTimeoutError(
            f"Unable to bootstrap from {servers} within {timeout_s * 1000:.0f} ms: "
            f"{failures.sentence(troubles)} "
            "Is a broker running there, and is the address right? "
            f"`fastprod diagnose -b {listed}` tries it step by step."
        )

    def _make_metrics(self) -> Metrics:
        dialer, cluster = self._parts.dialer, self._parts.metadata.cluster

        def read() -> dict[str, dict[str, float]]:
            age = self._loop.now() - cluster.snapshot.fetched_at
            return all_counters(self.plane, dialer.traffic, dialer.opened, dialer.closed, age)

        return Metrics(
            read,
            self.config["client_id"],
            self.config["metrics_num_samples"],
            self.config["metrics_sample_window_ms"],
        )

    def _sample_metrics(self) -> None:
        """Windows move on even when nobody looks."""
        if self._metrics is not None:
            self._metrics.sample()
            self._loop.call_later(self._metrics.window_s, self._sample_metrics)
