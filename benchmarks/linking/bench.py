"""Measurements over the links of one broker: fresh topics and a fresh process each, the broker's count as judge."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from comparing.servers import BrokerServer

from fastprod.testing import KafkaBroker
from linking import java
from linking.job import CONTENDERS, PARTITIONS, Job, Link, Outcome, Run

_LINKS = Path(__file__).resolve().parent.parent / "links.py"
_LIMIT_S = 300
_TAIL_CHARS = 600
_PRODUCE = 0
# What a link may carry at once must not be what limits anybody: five requests of a megabyte, and more.
_ON_ITS_WAY = 64 << 20


class Bench:
    """Measures on a running broker with a proxy."""

    def __init__(self, broker: KafkaBroker, burst_ms: float) -> None:
        self._broker = broker
        self._server = BrokerServer(broker)
        self._burst_ms = burst_ms
        self._topics = 0

    def measure(self, link: Link, contender: str, records: int, warm_up: int, rate: float | None) -> Run:
        """In a process of its own, with the clock there."""
        proxy = self._broker.proxy()
        # A journey is half of a round trip.
        proxy.delay((link.delay_ms or 0) / 2, on_its_way=_ON_ITS_WAY)
        servers = self._broker.direct_servers if link.delay_ms is None else self._broker.bootstrap_servers
        self._topics += 1
        topic = f"{contender}-{self._topics}"
        with self._server.place((topic,), PARTITIONS) as place:
            job = Job(contender, servers, topic, records, warm_up, rate, self._burst_ms)
            command = java.command(self._broker, job) if CONTENDERS[contender].java else _ours(job)
            requests, cpu, began = proxy.requests(_PRODUCE), time.process_time(), time.perf_counter()
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
            except subprocess.TimeoutExpired:
                return Run(contender, void=f"it took more than {_LIMIT_S} s")
            share = (time.process_time() - cpu) / (time.perf_counter() - began)
            requests = proxy.requests(_PRODUCE) - requests
            found, sent = place.records(), records + warm_up
        outcome = _outcome(contender, done.stdout) if done.returncode == 0 else None
        if outcome is None:
            said = (done.stdout + done.stderr)[-_TAIL_CHARS:]
            return Run(contender, void=f"it failed with exit status {done.returncode}: {said}")
        if found != sent:
            return Run(contender, void=f"{sent} records were sent, and the broker holds {found}")
        return Run(contender, outcome, sent / requests if requests else 0.0, share)


def _ours(job: Job) -> list[str]:
    return [sys.executable, str(_LINKS), "--measure", json.dumps(asdict(job))]


def _outcome(contender: str, said: str) -> Outcome | None:
    if CONTENDERS[contender].java:
        return java.outcome(said)
    return Outcome(**json.loads(said))
