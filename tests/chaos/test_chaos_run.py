"""Traffic on three nodes while they are killed, paused and cut off: nothing lost, twice, out of order or failed.

`FASTPROD_CHAOS_SEED` replays a seed. A long run: `python -m chaos --minutes 60`, in `tests/`.
"""

from __future__ import annotations

import itertools
import os

import pytest

import fastprod
from fastprod.testing import KafkaBroker
from fastprod.testing._release import DEFAULT_VERSION

from .plan import Fault, NetworkFault, NodeFault, Plan
from .storm import PARTITIONS, PROPERTIES, Traffic, ride_out

SEED = int(os.environ.get("FASTPROD_CHAOS_SEED", "1"))
NATIVE = fastprod.backend == "native"
# The interpreted twin shares two cores with three brokers: one fault of each kind, and what it can send.
EACH = 3 if NATIVE else 1
SECONDS = 40 if NATIVE else 10
TRAFFIC = Traffic(threads=3, burst=100, pause_s=0.012) if NATIVE else Traffic(threads=3, burst=10, pause_s=0.015)


@pytest.mark.timeout(600)
def test_nothing_comes_of_a_storm_by_default(request: pytest.FixtureRequest) -> None:
    print("FASTPROD_CHAOS_SEED", SEED)
    counts = dict.fromkeys([NodeFault.KILL, NodeFault.PAUSE, NetworkFault.BLACK_HOLE], EACH)
    plan = Plan(SEED, counts | {NetworkFault.CUT: EACH, NetworkFault.DELAY: EACH}, PARTITIONS, longest_s=4.0)
    version = request.config.getini("fastprod_kafka_version") or DEFAULT_VERSION
    with KafkaBroker(3, version, proxied=True, properties=PROPERTIES, in_memory=True) as cluster:
        outcome = ride_out(cluster, "storm", plan, TRAFFIC, SECONDS)
    assert not outcome.failures
    assert all(outcome.happened[kind] >= count for kind, count in counts.items())
    assert outcome.leaders_moved >= EACH
    if NATIVE:
        assert outcome.rate >= 20_000


class TestPlan:
    pytestmark = pytest.mark.native_only

    def first(self, seed: int, count: int = 60) -> list[list[Fault]]:
        plan = Plan(seed, {NodeFault.KILL: 3, NetworkFault.CUT: 2}, PARTITIONS, 4.0)
        return [list(itertools.islice(track, count)) for track in (plan.nodes(), plan.network())]

    def test_a_seed_is_a_storm(self) -> None:
        assert self.first(7) == self.first(7)
        assert self.first(7) != self.first(8)

    def test_what_was_asked_for_comes_first_and_then_anything(self) -> None:
        nodes, network = self.first(7)
        assert [each.kind for each in nodes[:3]] == [NodeFault.KILL] * 3
        assert [each.kind for each in network[:2]] == [NetworkFault.CUT] * 2
        assert {each.kind for each in nodes} == set(NodeFault)
        assert {each.kind for each in network} == set(NetworkFault)
        assert all(0 <= each.target < PARTITIONS for each in nodes)
        assert {each.target for each in network} == {1, 2, 3}
