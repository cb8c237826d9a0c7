"""fastprod, in a process of its own: the load of `fastprod perf`, in bursts of a chosen length."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

from fastprod import KafkaProducer
from fastprod.cli.perf_load import Load, Plan, Stop
from fastprod.cli.perf_payload import Payload, made_up
from linking.job import CONTENDERS, VALUE_SIZE, Job, Outcome

# One record of so many is in the sample where they come as fast as they can; then callbacks cost next to nothing.
_ONE_OF = 500
# And so many a second otherwise, at most.
_SAMPLED_PER_S = 20_000


def measure(job: Job) -> None:
    """Run `job` and print its outcome."""
    linger_ms = CONTENDERS[job.contender].linger_ms
    producer = KafkaProducer(bootstrap_servers=job.bootstrap_servers, linger_ms=linger_ms)
    producer.partitions_for(job.topic)
    payload = Payload(made_up(VALUE_SIZE), [])

    def load(records: int) -> Load:
        every = _ONE_OF if job.rate is None else max(1, round(job.rate / _SAMPLED_PER_S))
        plan = Plan(records, job.rate, every, job.burst_ms / 1000)
        return Load(producer, job.topic, payload, plan, Stop())

    load(job.warm_up).run()
    measured, began = load(job.records), time.perf_counter()
    measured.run()
    producer.close()
    taken = sorted(measured.latencies.found)
    outcome = Outcome(
        measured.acknowledged / (measured.ended - began),
        sum(taken) / len(taken),
        taken[len(taken) // 2],
        taken[len(taken) * 99 // 100],
    )
    print(json.dumps(asdict(outcome)), flush=True)
