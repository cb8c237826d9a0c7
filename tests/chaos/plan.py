"""What fails, when and for how long: drawn from a seed, so that the same seed is the same storm.

There are two tracks side by side. On one the nodes fail, one after another, and each waits until all replicas are in
sync again: with `min.insync.replicas=2` of three the cluster can always write. On the other the network between the
clients and a node fails; the nodes reach each other all the while.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

NODES = 3


class NodeFault(StrEnum):
    """What may become of the leader of a partition."""

    KILL = "kill"
    PAUSE = "pause"
    RESTART = "restart in order"


class NetworkFault(StrEnum):
    """What may become of the network before a node."""

    BLACK_HOLE = "black hole"
    DELAY = "delay"
    CUT = "cut"
    REFUSE = "cut and refuse"
    HOLD = "hold"
    PIECES = "small pieces"
    CUT_AT = "cut at a byte"
    STALL_AT = "stall at a byte"


class Fault(NamedTuple):
    """One fault. `target`: the partition whose leader it is, or the node of a network fault. `way`, `amount`: of those
    network faults that have a direction, a delay in ms or a byte."""

    kind: NodeFault | NetworkFault
    target: int
    seconds: float
    way: str = "both"
    amount: int = 0


class Plan:
    """The two tracks of a seed: first `counts` faults of each kind, mixed, then any, for ever.

    `longest_s`: how long a node is away at most, besides the time that its restart takes. From some 3 s on it loses its
    leaderships.
    """

    def __init__(
        self, seed: int, counts: Mapping[NodeFault | NetworkFault, int], partitions: int, longest_s: float
    ) -> None:
        self._seed = seed
        self._counts = counts
        self._partitions = partitions
        self._longest_s = longest_s

    def nodes(self) -> Iterator[Fault]:
        """Yield the faults of nodes."""
        chance = random.Random(f"{self._seed} nodes")
        for kind in self._kinds(NodeFault, chance):
            yield Fault(kind, chance.randrange(self._partitions), chance.uniform(0.3, self._longest_s))

    def network(self) -> Iterator[Fault]:
        """Yield the faults of the network."""
        chance = random.Random(f"{self._seed} network")
        for kind in self._kinds(NetworkFault, chance):
            way = chance.choice(["requests", "responses", "both"])
            amount = 0
            if kind is NetworkFault.DELAY:
                amount = chance.randrange(5, 200)
            elif kind in (NetworkFault.CUT_AT, NetworkFault.STALL_AT):
                way = chance.choice(["requests", "responses"])
                # Anything from before the first byte to the middle of a batch, or of the second answer.
                amount = chance.randrange(20_000 if way == "requests" else 200)
            elif kind is NetworkFault.PIECES:
                amount = chance.randrange(200, 2000)
            yield Fault(kind, chance.randrange(1, NODES + 1), chance.uniform(0.2, self._longest_s), way, amount)

    def counted(self, kinds: type[NodeFault] | type[NetworkFault]) -> int:
        """Return how many faults come before those that are drawn freely."""
        return sum(self._counts.get(kind, 0) for kind in kinds)

    def _kinds(self, kinds: type, chance: random.Random) -> Iterator:
        first = [kind for kind in kinds for _ in range(self._counts.get(kind, 0))]
        chance.shuffle(first)
        yield from first
        while True:
            yield chance.choice(list(kinds))
