"""Makes and ends a hundred producers, twice, and tells after each hundred what is left of them.

    python leaks_child.py ADDRESS TOPIC KIND

One line of JSON for what there was before, and one for each hundred. In a process of its own, as nothing else may take
threads, descriptors or memory meanwhile.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from fastprod import KafkaProducer, _backend, errors

PRODUCERS = 100
# Producers that were dropped unclosed end by themselves, within a second or so.
PATIENCE_S = 30.0

process = psutil.Process()


def left() -> dict[str, Any]:
    gc.collect()
    # Windows counts handles.
    descriptors = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
    names = sorted(each.name for each in threading.enumerate())
    return {"threads": names, "tasks": process.num_threads(), "descriptors": descriptors, **_backend.live_objects()}


def tell(before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Print what is left, once it is what there was `before`, or after a while."""
    deadline = time.monotonic() + PATIENCE_S
    found = left()
    while before is not None and found != before and time.monotonic() < deadline:
        time.sleep(0.05)
        found = left()
    sizes = {"objects": len(gc.get_objects()), "resident": process.memory_info().rss}
    print(json.dumps({"left": found, **sizes}), flush=True)
    return found


def idle(address: str, topic: str) -> None:
    KafkaProducer(bootstrap_servers=address).close()


def sends(address: str, topic: str) -> None:
    """The last record waits for the close; some have callbacks, and one fails."""
    producer = KafkaProducer(bootstrap_servers=address, compression_type="gzip")
    producer.send(topic, b"x" * 1000).get(30)
    for number in range(50):
        producer.send(topic, b"%d" % number, b"key").add_both(lambda _: None)
    try:
        producer.send(topic, b"x", timestamp_ms=1).get(30)
        raise AssertionError("the topic takes records of today only")
    except errors.InvalidTimestampError:
        pass
    producer.send(topic, b"last")
    producer.close()


def dropped(address: str, topic: str) -> None:
    """Nobody closes it, and its last record has not left."""
    producer = KafkaProducer(bootstrap_servers=address, linger_ms=60_000, delivery_timeout_ms=120_000)
    producer.send(topic, b"lingers").add_both(lambda _: None)


def unreachable(address: str, topic: str) -> None:
    """The constructor fails."""
    try:
        KafkaProducer(bootstrap_servers=address, bootstrap_timeout_ms=20)
        raise AssertionError("somebody listens there")
    except errors.KafkaTimeoutError:
        pass


KINDS: dict[str, Callable[[str, str], None]] = {
    "idle": idle, "sends": sends, "dropped": dropped, "unreachable": unreachable
}


def main() -> None:
    address, topic, kind = sys.argv[1:]
    errors.KafkaError("the first one loads kafka-python, whose errors ours are")
    KINDS[kind](address, topic)
    time.sleep(1.5)  # what is dropped goes on for a second
    before = tell()
    for _ in range(2):
        for _ in range(PRODUCERS):
            KINDS[kind](address, topic)
        tell(before)


if __name__ == "__main__":
    main()
