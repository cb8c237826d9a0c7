"""A producer in a process of its own, whose memory is looked at while it works: `memory_child.py '{...}'` prints
`{"idle": ..., "peak": ...}`, resident bytes of the idle producer and the most there were later.

The job: `servers`, `topic`, `options` of the producer, `records`, `size` of a value, `callback_s` that a callback takes
(null: no callbacks), `slow_callbacks`: how many do, from the first on (all of them), `frozen`: send until there is no
more room, instead of all records.
"""

from __future__ import annotations

import gc
import itertools
import json
import random
import sys
import threading
import time
from typing import Any

import psutil

from fastprod import KafkaProducer, errors

_LOOK_S = 0.005


class Watch(threading.Thread):
    """Looks at this process's resident memory, again and again, and keeps the most."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process()
        self._over = threading.Event()
        gc.collect()
        self.idle = self.peak = self._process.memory_info().rss
        self.start()

    def run(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.look()

    def look(self) -> int:
        now = int(self._process.memory_info().rss)
        self.peak = max(self.peak, now)
        return now

    def end(self) -> None:
        self._over.set()
        self.join()


def values(size: int) -> list[bytes]:
    """Different values that compress to about a half."""
    chance = random.Random(1)
    return [chance.randbytes(size // 2) + bytes(size - size // 2) for _ in range(16)]


def main() -> None:
    job: dict[str, Any] = json.loads(sys.argv[1])
    made = KafkaProducer(bootstrap_servers=job["servers"], **job["options"])
    topic, every = job["topic"], values(job["size"])
    made.send(topic, every[0]).get(30)
    watch = Watch()
    if job.get("frozen"):
        # The test freezes the broker once it has read this line.
        print("idle", flush=True)
        sys.stdin.readline()

    pauses = itertools.repeat(job["callback_s"], job.get("slow_callbacks", job["records"]))

    def called(_: object) -> None:
        pause = next(pauses, None)
        if pause is not None:
            time.sleep(pause)

    sent = 0
    began = time.monotonic()
    try:
        while sent < job["records"]:
            future = made.send(topic, every[sent % 16])
            if job["callback_s"] is not None:
                future.add_callback(called)
            sent += 1
    except errors.KafkaTimeoutError:
        if not job.get("frozen"):
            raise
    full_after = time.monotonic() - began
    if job.get("frozen"):
        print("full", flush=True)
        sys.stdin.readline()
    made.flush(60)
    watch.end()
    metrics = made.metrics()["producer-metrics"]
    made.close(10)
    print(json.dumps({"idle": watch.idle, "peak": watch.peak, "sent": sent, "seconds": full_after,
                      "errors": metrics["record-error-rate"]}))  # fmt: skip


if __name__ == "__main__":
    main()
