"""Apache Kafka's own Java producer, under Kafka's own `ProducerPerformance`."""

from __future__ import annotations

import re

from fastprod.testing import KafkaBroker
from linking.job import CONTENDERS, VALUE_SIZE, Job, Outcome

_TOOL = "org.apache.kafka.tools.ProducerPerformance"
# It tells of the time after the warm-up in a line of its own.
_LINE = re.compile(
    r"^(\d+) steady state records sent, ([\d.]+) records/sec .*?, ([\d.]+) ms avg latency, [\d.]+ ms max latency, "
    r"(\d+) ms 50th, \d+ ms 95th, (\d+) ms 99th",
    re.MULTILINE,
)


def command(broker: KafkaBroker, job: Job) -> list[str]:
    """The command line of a job. acks=all, idempotence and five in flight are the producer's defaults, as ours."""
    contender = CONTENDERS[job.contender]
    properties = [f"bootstrap.servers={job.bootstrap_servers}", f"linger.ms={contender.linger_ms}"]
    if contender.batch_size is not None:
        properties.append(f"batch.size={contender.batch_size}")
    return broker.tool_command(
        _TOOL,
        *("--topic", job.topic, "--record-size", str(VALUE_SIZE)),
        *("--num-records", str(job.records + job.warm_up), "--warmup-records", str(job.warm_up)),
        *("--throughput", "-1" if job.rate is None else str(round(job.rate))),
        *("--command-property", *properties),
    )


def outcome(said: str) -> Outcome | None:
    """What the tool says of the time after the warm-up: whole milliseconds, but for the average."""
    found = _LINE.search(said)
    if found is None:
        return None
    _records, rate, average, p50, p99 = map(float, found.groups())
    return Outcome(rate, average, p50, p99)
