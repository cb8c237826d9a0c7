"""`KafkaProducer`, with the names, arguments and errors of kafka-python's."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from fastprod import _backend, config, errors, failures, partitioners, serializers, waiting
from fastprod.types import UndeliveredRecord

if TYPE_CHECKING:
    from fastprod.control.producer import Engine
    from fastprod.diagnosis import Diagnosis
    from fastprod.stats import ProducerStats

log = logging.getLogger(__name__)
# What a program that has not set logging up does not want to see on its standard error.
logging.getLogger("fastprod").addHandler(logging.NullHandler())

_NO_TRANSACTIONS: Final = (
    "Transactions are not supported yet. Records of this producer are visible as soon as they are "
    "written, each for itself; for transactions use another client for now."
)
_HASHING: Final = frozenset(partitioners.MODES[name] for name in ("default", "random", "murmur2"))


class KafkaProducer(_backend.ProducerBase):
    """Sends records to Kafka. Safe to use from any thread; one for a program is the fastest.

    The options are keyword arguments (see `fastprod.config` or the README's table). Without
    `api_version` the constructor waits for a broker, up to `bootstrap_timeout_ms`.

    Raises KafkaConfigurationError (a ValueError as well) for options that cannot be,
    RuntimeError where the package for `compression_type` is missing, and KafkaTimeoutError where
    no broker answers.

    In a `with` block it is closed at the end, and everything sent is delivered before. Without
    `with` call `close`; a producer that is dropped, and the end of the program, leave 1 s for
    what is still to be sent.
    """

    DEFAULT_CONFIG: Final[dict[str, Any]] = config.default_config()
    """Every option and its default."""

    DEPRECATED_CONFIGS: Final[tuple[str, ...]] = ()

    _engine: Engine | None = None  # type: ignore[assignment]
    _closed = True

    def __init__(self, **configs: Any) -> None:
        """See the class."""
        settings = config.load(configs, stacklevel=3)
        self.config: dict[str, Any] = settings.values
        """The options in use, in their normal forms (`acks` is an int, and so on)."""
        self._key_function = serializers.function_of("key_serializer", settings["key_serializer"])
        self._value_function = serializers.function_of(
            "value_serializer", settings["value_serializer"]
        )
        self._to_close = [settings["key_serializer"]]
        if settings["value_serializer"] is not settings["key_serializer"]:
            self._to_close.append(settings["value_serializer"])
        self._plan = partitioners.plan(settings["partitioner"], stacklevel=3)
        self._hashes_keys = self._plan.mode in _HASHING
        engine = self._start(settings)
        if settings["api_version"] is None:
            engine.bootstrap(settings["bootstrap_timeout_ms"] / 1000)

    def _start(self, settings: config.ProducerConfig) -> Engine:
        # Half of what fastprod consists of; a program that only imports it need not load that.
        from fastprod.control.producer import Engine

        engine = Engine(settings)
        self._choose_partition = self._plan.bind(engine.cluster)
        self._bind(
            engine.plane,
            engine,
            self._key_function,
            self._value_function,
            getattr(_backend, self._plan.mode),
            self._choose_partition,
            settings["compression_type"],
        )
        # Weakly: the engine must not keep what keeps the producer, as a serializer may.
        mine = weakref.ref(self)
        engine.farewell = lambda: _close_serializers_of(mine())
        self._engine = engine
        self._closed = False
        return engine

    def _begin_again(self) -> None:
        """In a forked child: start anew, with the same options and nothing to deliver."""
        engine = self._engine
        if engine is None or self._closed or engine.succession is None:
            raise failures.closed()
        with engine.succession:
            if self._engine is engine:
                self._start(engine.config)

    def flush(self, timeout: float | None = None) -> None:
        """Send what waits at once and wait until all records sent so far are done.

        Done is acknowledged or failed, its callbacks included; a failed record raises nothing
        here. `timeout`: seconds for all of it, None for as long as it takes (no record takes
        longer than `delivery_timeout_ms`). After `close` there is nothing to wait for.

        Raises KafkaTimeoutError when the time is over, ValueError for a timeout that is none, and
        IllegalStateError where it would wait for itself: in a delivery callback and, on the Python
        twin, in a signal's handler or a finalizer that interrupts another call of this producer.
        """
        seconds = None if timeout == float("inf") else _seconds(timeout)
        engine = self._engine
        if engine is not None and not engine.flush(seconds):
            raise errors.KafkaTimeoutError(
                f"flush() did not get done within {timeout} s: {engine.plane.incomplete()} "
                "batch(es) are still on their way. Nothing is lost; call it again or give it more "
                "time."
            )

    def close(self, timeout: float | None = None, null_logger: bool = False) -> None:
        """Deliver what was sent, then stop for good.

        `timeout`: seconds, None for as long as delivery takes (`delivery_timeout_ms` at most).
        What is not delivered by then fails with IllegalStateError, and after everything was
        stopped and closed KafkaTimeoutError says how many records `undelivered()` holds. Another
        call does nothing, unless Ctrl-C ended this one: records go on being delivered then, and
        `close` can be called again, with or without patience. In a delivery callback it acts as
        `close(0)`. Serializers that have a `close` are closed as well, also where the producer is
        dropped or the program ends without this call. `null_logger` is there for
        kafka-python's sake.

        Raises KafkaTimeoutError as said, ValueError for a timeout that is none and, on the Python
        twin, IllegalStateError in a signal's handler or a finalizer that interrupts another call of
        this producer: it would wait for itself. Call it again, or use `close_on_sigterm`.
        """
        seconds = _seconds(timeout)
        engine = self._engine
        if engine is None or self._closed:
            return
        if engine.succession is not None:
            # Inherited over a fork and not used since: what there is to deliver is the parent's.
            self._closed = True
            _close_all(self._to_close)
            return
        undelivered = engine.close(seconds)
        self._closed = True
        _close_all(self._to_close)
        count = len(undelivered)
        if count:
            raise errors.KafkaTimeoutError(
                f"Closed, but {count} record(s) could not be delivered within {timeout} s: "
                "undelivered() holds them."
            )

    def undelivered(self) -> list[UndeliveredRecord]:
        """Return the records that were accepted but not delivered when `close` ran out of time.

        Empty before that, and in a forked child that has sent nothing itself.
        """
        if self._engine is None or self._engine.succession is not None:
            return []
        return self._engine.undelivered().records()

    def partitions_for(self, topic: str) -> set[int]:
        """Return the numbers of the topic's partitions; a fresh set each time.

        Waits up to `max_block_ms` for a topic that is not known yet. Raises KafkaTimeoutError
        when that is over, the broker's error where waiting is of no use, TypeError or ValueError
        for a name that no topic can have, and IllegalStateError after `close` for a topic that
        was never asked for.
        """
        return self._alive().partitions_for(topic)

    def bootstrap_connected(self) -> bool:
        """Whether a bootstrap server is connected right now, which is so during start only."""
        return self._engine is not None and self._engine.bootstrap_connected()

    def metrics(self, raw: bool = False) -> Mapping[Any, Any] | None:
        """Return `{group: {name: float}}`, with `raw` `{MetricName: KafkaMetric}`.

        None with `metrics_enabled=False`; empty after `close`. Averages and rates are over the
        last `metrics_num_samples` windows; -inf stands for a maximum of nothing.
        """
        if self._engine is None:
            return None
        return self._engine.raw_metrics() if raw else self._engine.metrics()

    def stats(self) -> ProducerStats:
        """Return how many records are where, and what it took: a snapshot, as exact as can be.

        Cheap enough to be called each second; waits for no network. After `close` it says how it
        ended; in a forked child it begins at nothing. See `fastprod.stats` for the fields and
        their units.
        """
        return self._alive().stats()

    def diagnose(self, timeout_ms: float = 10_000) -> Diagnosis:
        """Try every bootstrap and advertised address step by step and say what fails and why.

        `timeout_ms`, milliseconds, is for all of it. Takes sockets of its own and the calling thread, so it works
        while the cluster is down, and after `close`. `print` it, or look at its fields (see
        `fastprod.diagnosis`). The topics that were sent to must have leaders as well.

        Raises ValueError for a timeout that is not above 0, and IllegalStateError where the
        constructor did not get far enough to know the options.
        """
        from fastprod.control import diagnosis  # ssl and all: only who asks pays for it

        if self._engine is None:
            raise errors.IllegalStateError("This producer was never started.")
        return diagnosis.diagnose(self._engine.config, timeout_ms, list(self._engine.plane.routes))

    def poll(self, timeout: float = 0) -> int:
        """Do nothing and return 0: callbacks run by themselves. For users of other clients.

        `timeout` (seconds there) is not looked at.
        """
        return 0

    @classmethod
    def max_usable_produce_magic(cls, api_version: tuple[int, ...]) -> int:
        """Return the newest message format of brokers of `api_version`, such as (2, 8): 0, 1 or 2.

        We always write 2, which every supported broker takes.
        """
        if api_version >= (0, 11):
            return 2
        return 1 if api_version >= (0, 10, 0) else 0

    def init_transactions(self) -> None:
        """Not supported yet: raises IllegalStateError."""
        raise errors.IllegalStateError(_NO_TRANSACTIONS)

    def begin_transaction(self) -> None:
        """Not supported yet: raises IllegalStateError."""
        raise errors.IllegalStateError(_NO_TRANSACTIONS)

    def send_offsets_to_transaction(self, offsets: Any, group_metadata: Any) -> None:
        """Not supported yet: raises IllegalStateError, whatever `offsets` and `group_metadata` are."""
        raise errors.IllegalStateError(_NO_TRANSACTIONS)

    def commit_transaction(self) -> None:
        """Not supported yet: raises IllegalStateError."""
        raise errors.IllegalStateError(_NO_TRANSACTIONS)

    def abort_transaction(self) -> None:
        """Not supported yet: raises IllegalStateError."""
        raise errors.IllegalStateError(_NO_TRANSACTIONS)

    def __enter__(self) -> Self:
        """Return the producer itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Close. An exception that ends the block goes on, whatever `close` has to say."""
        if exc_val is None:
            self.close()
            return
        try:
            self.close()
        except Exception as error:
            exc_val.add_note(f"Closing the producer on the way out: {error}")

    def __del__(self) -> None:
        """Have the engine end by itself. May run on any thread, so it only signals."""
        if self._engine is not None and not self._closed:
            self._engine.farewell = functools.partial(_close_all, self._to_close)
            self._engine.abandon()

    def __str__(self) -> str:
        values: dict[str, Any] = getattr(self, "config", {})
        client_id, transactional_id = values.get("client_id"), values.get("transactional_id")
        return f"<KafkaProducer client_id={client_id} transactional_id={transactional_id}>"

    # What tracing libraries reach for. They patch `send` and ask where a record will go.

    @property
    def _metadata(self) -> Any:
        """The picture of the cluster, in kafka-python's terms."""
        return self._alive().cluster

    def _serialize(self, serializer: Any, topic: str, *headers_and_data: Any) -> Any:
        """Return what a serializer of `config` makes of data.

        Called with (serializer, topic, data) by those who know kafka-python 2, and with
        (serializer, topic, headers, data) by those who know 3.
        """
        *headers, data = headers_and_data
        function = serializers.function_of("serializer", serializer)
        return data if function is None else function(topic, headers[0] if headers else [], data)

    def _partition(
        self,
        topic: str,
        partition: int | None,
        key: Any,
        value: Any,
        serialized_key: bytes | None,
        serialized_value: bytes | None,
    ) -> int | None:
        """Return where a record will go, None where only `send` finds out."""
        if partition is not None:
            return partition
        known = self._metadata.partitions_for_topic(topic)
        if not known:
            return None
        if self._choose_partition is not None:
            return self._choose_partition(topic, key, serialized_key, value, serialized_value)
        if serialized_key is None or not self._hashes_keys:
            return None
        return _backend.partition_for_key(serialized_key, len(known))

    def _alive(self) -> Engine:
        """Return the engine; IllegalStateError where the constructor did not get that far."""
        if self._engine is None:
            raise errors.IllegalStateError("This producer was never started.")
        if self._engine.succession is not None and not self._closed:
            self._begin_again()
        return self._engine


def _close_serializers_of(producer: KafkaProducer | None) -> None:
    """At the end of the program; one that was dropped before has left them to its engine."""
    if producer is not None:
        _close_all(producer._to_close)


def _close_all(left: list[Any]) -> None:
    """Close serializers, and leave none of them to others who do the same."""
    while True:
        try:
            each = left.pop()
        except IndexError:
            return  # by this close(), or by one on another thread
        for error in serializers.close(each):
            log.warning("A serializer's close() failed: %r", error)


def _seconds(timeout: float | None) -> float | None:
    """Return the timeout if it is one: None, or 0 to threading.TIMEOUT_MAX seconds."""
    if timeout is not None and not 0 <= waiting.seconds_of(timeout) <= threading.TIMEOUT_MAX:
        raise ValueError(
            f"Invalid timeout: {timeout}. It is in seconds, from 0 to {threading.TIMEOUT_MAX:.0f}, "
            "or None for none."
        )
    return timeout
