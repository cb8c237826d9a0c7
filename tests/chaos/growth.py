"""Whether a producer's memory grows with the number of its records: `python growth.py --records 60000000`.

Sends small records as fast as they are taken, keeps nothing, and prints as JSON the most resident memory in each of
sixty parts of the run, in bytes. Without `--servers` it starts a Kafka of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json

import psutil

from fastprod import KafkaProducer
from fastprod.testing import KafkaBroker

PARTS = 60
_LOOK_EVERY = 2_000
# What was read is of no use: a run of 60 million leaves no gigabytes behind.
RETENTION = {"retention.bytes": 40 << 20, "segment.bytes": 20 << 20}
PROPERTIES = {"log.retention.check.interval.ms": 2_000, "log.segment.delete.delay.ms": 0}


def growth(peaks: list[int], first: int) -> float:
    """Return by which share the most memory after the first parts is above the most in them."""
    return max(peaks[first:]) / max(peaks[:first]) - 1


def peaks(servers: str, topic: str, records: int) -> list[int]:
    """Send that many records and return the most resident memory in each part, in bytes."""
    process = psutil.Process()
    most = [0] * PARTS
    with KafkaProducer(bootstrap_servers=servers, buffer_memory=8 << 20) as producer:
        send, value = producer.send, b"0123456789"
        for number in range(records):
            send(topic, value)
            if number % _LOOK_EVERY == 0:
                part = number * PARTS // records
                most[part] = max(most[part], process.memory_info().rss)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=60_000_000)
    parser.add_argument("--servers", help="of a Kafka that runs, with --topic")
    parser.add_argument("--topic", default="growth")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        servers = arguments.servers
        if servers is None:
            broker = stack.enter_context(KafkaBroker(properties=PROPERTIES))
            broker.create_topic(arguments.topic, 4, RETENTION)
            servers = broker.bootstrap_servers
        most = peaks(servers, arguments.topic, arguments.records)
    ten = PARTS // 6
    shares = {"last five sixths": growth(most, ten), "last half": growth(most, PARTS // 2)}
    print(json.dumps({"peaks": most, **shares}))


if __name__ == "__main__":
    main()
