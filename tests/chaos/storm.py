"""Carrying a plan out on a real cluster while a producer has traffic, and judging what came of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from faults.ledger import Load

from fastprod import KafkaProducer
from fastprod.testing import BrokerError, KafkaBroker

from .plan import Fault, NetworkFault, NodeFault, Plan

PARTITIONS = 6
# Leaderships go back to where they belong while traffic goes on: that moves leaders once more after each fault.
PROPERTIES = {"leader.imbalance.check.interval.seconds": 3, "leader.imbalance.per.broker.percentage": 0}
_PATIENCE_S = 120.0


class Traffic(NamedTuple):
    """How much is sent. `burst` records in each of `threads` every `pause_s` seconds."""

    threads: int
    burst: int
    pause_s: float


class Outcome(NamedTuple):
    """What a storm was like. `failures`: how many records failed, by the name of the error."""

    sent: int
    seconds: float
    happened: Counter[str]
    leaders_moved: int
    failures: Counter[str]

    @property
    def rate(self) -> float:
        """Records a second that were sent while things failed."""
        return self.sent / self.seconds


class Storm:
    """The faults of a plan: `run` carries out both tracks, side by side."""

    def __init__(self, cluster: KafkaBroker, topic: str, plan: Plan, say: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._topic = topic
        self._plan = plan
        self._say = say
        self._over = threading.Event()
        self._errors: list[BaseException] = []
        self.happened: Counter[str] = Counter()
        self.leaders_moved = 0

    def run(self, seconds: float) -> None:
        """Let things fail for at least that long and until what the plan counts has happened; then make all whole."""
        ends = time.monotonic() + seconds
        nodes = (self._plan.nodes(), self._node_fault, self._plan.counted(NodeFault), lambda: time.monotonic() >= ends)
        network = (self._plan.network(), self._network_fault, self._plan.counted(NetworkFault), self._over.is_set)
        tracks = [threading.Thread(target=self._track, args=each) for each in (nodes, network)]
        for track in tracks:
            track.start()
        # The network goes on failing for as long as the nodes do.
        tracks[0].join()
        self._over.set()
        tracks[1].join()
        for node in self._cluster.nodes:
            self._cluster.proxy(node).heal()
        if self._errors:
            raise self._errors[0]
        self._cluster.wait_until_in_sync(_PATIENCE_S)

    def _track(
        self, faults: Iterator[Fault], carry_out: Callable[[Fault], None], counted: int, over: Callable[[], bool]
    ) -> None:
        try:
            for number, fault in enumerate(faults):
                if self._errors or (number >= counted and over()):
                    return
                self._say(f"{time.strftime('%H:%M:%S')} {fault}")
                carry_out(fault)
                self.happened[fault.kind.value] += 1
        except BaseException as error:
            self._errors.append(error)

    def _node_fault(self, fault: Fault) -> None:
        cluster = self._cluster
        cluster.wait_until_in_sync(_PATIENCE_S)
        node = cluster.wait_for_leader(self._topic, fault.target)
        if fault.kind is NodeFault.PAUSE:
            cluster.pause(node)
            time.sleep(fault.seconds)
            cluster.resume(node)
            return
        if fault.kind is NodeFault.KILL:
            cluster.kill(node)
            cluster.wait_for_leader(self._topic, fault.target, other_than=node)
            self.leaders_moved += 1
        else:
            with contextlib.suppress(BrokerError):   # it took too long, and was killed
                cluster.stop(node)
        cluster.start(node)

    def _network_fault(self, fault: Fault) -> None:
        proxy = self._cluster.proxy(fault.target)
        way: Any = fault.way
        if fault.kind is NetworkFault.BLACK_HOLE:
            proxy.black_hole(way)
        elif fault.kind is NetworkFault.DELAY:
            proxy.delay(fault.amount, way)
        elif fault.kind is NetworkFault.HOLD:
            proxy.hold(way)
        elif fault.kind is NetworkFault.PIECES:
            proxy.pieces(fault.amount, way)
        elif fault.kind is NetworkFault.CUT_AT:
            proxy.cut_at(fault.amount, way, api_key=0)
        elif fault.kind is NetworkFault.STALL_AT:
            proxy.stall_at(fault.amount, way, api_key=0)
        else:
            if fault.kind is NetworkFault.REFUSE:
                proxy.refuse()
            proxy.cut()
        # What a fault lasts is the fault: there is nothing to wait for.
        time.sleep(fault.seconds)
        proxy.heal()


def ride_out(
    cluster: KafkaBroker,
    topic: str,
    plan: Plan,
    traffic: Traffic,
    seconds: float,
    *,
    may_fail: bool = False,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Outcome:
    """Produce to a new topic during a storm and hold the log against what the producer said: AssertionError for
    anything that is lost, twice, misplaced or out of order.

    Args:
        may_fail: whether records may fail, because `options` give them little time.
        options: of the producer, besides the defaults.
    """
    cluster.create_topic(topic, PARTITIONS)
    producer = KafkaProducer(bootstrap_servers=cluster.bootstrap_servers, **options)
    try:
        load = Load(
            producer,
            topic,
            traffic.threads,
            keys=50,
            explicit=PARTITIONS,
            burst=traffic.burst,
            pause_s=traffic.pause_s,
            catch_up_s=5.0,
        )
        storm = Storm(cluster, topic, plan, say)
        began = time.monotonic()
        try:
            storm.run(seconds)
            took = time.monotonic() - began
        finally:
            load.stop()
        producer.flush(_PATIENCE_S)
    finally:
        producer.close(5)
    failures = Counter(type(error).__name__ for error in load.failures)
    outcome = Outcome(load.sent, took, storm.happened, storm.leaders_moved, failures)
    say(
        f"{outcome.sent} records in {took:.0f} s ({outcome.rate:,.0f}/s), {storm.leaders_moved} leaders moved, "
        f"{dict(failures) or 'none'} failed; {dict(storm.happened)}"
    )
    load.check(cluster, PARTITIONS, may_fail=may_fail)
    return outcome
