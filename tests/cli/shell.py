"""Commands as a shell runs them, and topics as another client reads them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, TopicPartition

PATIENCE_S = 120
MakeTopic = Callable[..., str]
PROGRAM = (sys.executable, "-m", "fastprod")
_WITHOUT = """
import sys
for name in {names!r}:
    sys.modules[name] = None
from fastprod.cli import main
sys.exit(main(sys.argv[1:]))
"""


class Done(NamedTuple):
    """What a command said and how it ended."""

    status: int
    out: str
    said: str


class Read(NamedTuple):
    """A record as another client read it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] | None
    timestamp_ms: int


def without(*names: str) -> tuple[str, ...]:
    """The program, as where these packages are not installed."""
    return (sys.executable, "-c", _WITHOUT.format(names=names))


def run(*arguments: str, data: bytes = b"", program: Sequence[str] = PROGRAM, **variables: str | None) -> Done:
    """Run a command to its end; a variable that is None is taken out of the environment."""
    process = subprocess.run(
        [*program, *arguments], input=data, capture_output=True, timeout=PATIENCE_S, env=environment(variables)
    )
    return Done(process.returncode, process.stdout.decode(), process.stderr.decode())


def environment(variables: dict[str, str | None]) -> dict[str, str]:
    merged: dict[str, str | None] = {**os.environ, **variables}
    return {name: value for name, value in merged.items() if value is not None}


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """Start a command whose input is given bit by bit."""
    return subprocess.Popen(
        [*PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )


def run_on_terminal(*arguments: str, program: Sequence[str] = PROGRAM) -> Done:
    """Run a command whose standard error is a terminal; `said` is all that was written there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment({"TERM": "xterm", "COLUMNS": "100"}),
    )
    os.close(theirs)
    said = b""
    try:
        while select.select([ours], [], [], PATIENCE_S)[0]:
            said += os.read(ours, 65536)
    except OSError:
        # How Linux says that the other end of a terminal is closed.
        pass
    finally:
        os.close(ours)
    out, _ = process.communicate(timeout=PATIENCE_S)
    return Done(process.returncode, out.decode(), said.decode())


def read(servers: str, topic: str, count: int | None = None) -> list[Read]:
    """Return all records of a topic, by partition and offset; with `count` wait until there are that many."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "tests", "enable.auto.commit": False})
    try:
        known = consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions
        places = [TopicPartition(topic, number, 0) for number in known]
        if count is None:
            count = sum(consumer.get_watermark_offsets(place, timeout=PATIENCE_S)[1] for place in places)
        consumer.assign(places)
        found: list[Read] = []
        for _ in range(PATIENCE_S):
            if len(found) >= count:
                break
            found += [_read(message) for message in consumer.consume(count - len(found), timeout=1.0)]
        assert len(found) == count
        return sorted(found, key=lambda each: each[:2])
    finally:
        consumer.close()


def values(servers: str, topic: str, count: int | None = None) -> list[bytes | None]:
    return [each.value for each in read(servers, topic, count)]


def _read(message: Any) -> Read:
    assert message.error() is None
    return Read(
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        message.headers(),
        message.timestamp()[1],
    )
