"""A long storm, by command: `python -m chaos --minutes 60` in `tests/`, or `--seed N` to see one round again.

It goes in rounds of a minute, each with a seed, a topic and a producer of its own; what is wrong ends it and names the
seed. Every second round gives records so little time that some fail, to see that those are told apart which may be in
the log.
"""

from __future__ import annotations

import argparse
import random
import time

import fastprod
from fastprod.testing import KafkaBroker
from fastprod.testing._release import DEFAULT_VERSION

from .plan import Plan
from .storm import PARTITIONS, PROPERTIES, Traffic, ride_out

_ROUND_S = 60.0
_IMPATIENT = {"request_timeout_ms": 700, "delivery_timeout_ms": 1_500}
_TRAFFIC = {
    "native": Traffic(threads=6, burst=100, pause_s=0.024),
    "pure": Traffic(threads=3, burst=10, pause_s=0.015),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to begin further rounds (default 1)")
    parser.add_argument("--seed", type=int, help="of the first round; even ones are impatient (default: any)")
    parser.add_argument("--version", default=DEFAULT_VERSION, help="release of Kafka (default %(default)s)")
    arguments = parser.parse_args()
    seed = random.randrange(2**31) if arguments.seed is None else arguments.seed
    ends = time.monotonic() + 60 * arguments.minutes
    sent, rounds = 0, 0
    with KafkaBroker(3, arguments.version, proxied=True, properties=PROPERTIES, in_memory=True) as cluster:
        while rounds == 0 or time.monotonic() < ends:
            impatient = seed % 2 == 0
            print(f"round {rounds + 1}, --seed {seed}{' (impatient)' if impatient else ''}", flush=True)
            topic = f"storm-{seed}"
            sent += ride_out(
                cluster,
                topic,
                Plan(seed, {}, PARTITIONS, longest_s=6.0),
                _TRAFFIC[fastprod.backend],
                min(_ROUND_S, 60 * arguments.minutes),
                may_fail=impatient,
                say=lambda text: print("  ", text, flush=True),
                **(_IMPATIENT if impatient else {}),
            ).sent
            # The log of a round lies in memory, three times.
            cluster.delete_topic(topic)
            rounds, seed = rounds + 1, seed + 1
    print(f"{rounds} rounds, {sent:,} records on {fastprod.backend}: nothing lost, twice, misplaced or out of order")


if __name__ == "__main__":
    main()
