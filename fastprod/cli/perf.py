"""`fastprod perf`: how many records a second a cluster takes from this machine, and how long each was on its way."""

from __future__ import annotations

import argparse
import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fastprod import errors
from fastprod.cli.connection import add_options, chosen_options, make_producer, text_of
from fastprod.cli.failure import CommandError, say, show_log
from fastprod.cli.perf_payload import Payload, lines_of, made_up, numbered
from fastprod.cli.perf_run import Run, Wanted

if TYPE_CHECKING:
    from fastprod import KafkaProducer

_COMMAND = "perf"
_FAILED = 1
_USAGE = 2
_KEYS = 1000
_KEY_SIZE = 8

_DESCRIPTION = """\
Send records to a topic and measure it: acknowledged records and bytes (keys and values) a second, the time from send()
to the acknowledgement, and the CPU time of this process a record.
"""

_EPILOG = """\
Only acknowledged records count. Failed ones are counted by the name of their error, and the exit status is then 1. The
time runs from the first send() to the last acknowledgement; warm-up records come before that, on top of --num-records.

Latency is from the call of send() to the callback, which is when a Python program knows: it includes waiting for memory
and for Python. It is taken of a sample, so that taking it costs next to nothing: one record in 500, drawn at random, or
2,000 where that is more; 10,000 with a --throughput of at most 10,000. Failed records have no latency. CPU is user and
system time of all threads, the making of the load included.

Ctrl-C ends the sending and prints what was reached; a second one gives up on what is not delivered yet.

exit status: 0 every record was acknowledged, 1 not so, 2 the arguments make no sense, 130 interrupted
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `perf` command to the program's commands."""
    parser = subparsers.add_parser(
        _COMMAND,
        help="measure how fast records get to a topic: rate, latency, CPU",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("-t", "--topic", required=True, help="where to send them; they stay there")
    parser.add_argument("--create-topic", type=_count, metavar="PARTITIONS", help="create the topic first")
    parser.add_argument("--num-records", type=_count, required=True, metavar="N", help="how many to send")
    values = parser.add_mutually_exclusive_group(required=True)
    values.add_argument("--record-size", type=_count, metavar="BYTES", help="random values of that size")
    values.add_argument("--payload-file", type=Path, metavar="FILE", help="its lines are the values, over and over")
    parser.add_argument(
        "--key-size", type=_count, metavar="BYTES", help=f"send keys (default with --keys: {_KEY_SIZE})"
    )
    parser.add_argument("--keys", type=_count, metavar="N", help=f"so many keys (default with --key-size: {_KEYS})")
    parser.add_argument(
        "--throughput", type=_rate, default=-1.0, metavar="N", help="records/s, all threads; -1: no limit (default)"
    )
    parser.add_argument("--threads", type=_count, default=1, metavar="N", help="that send (default: %(default)s)")
    parser.add_argument(
        "--warmup-records", type=_count_or_none, default=0, metavar="N", help="sent before, and not measured"
    )
    parser.add_argument(
        "--reporting-interval", type=_count, default=5000, metavar="MS", help="between lines (default: %(default)s)"
    )
    parser.add_argument(
        "--json", action="store_true", help="the result as one JSON object; other lines go to standard error"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print and return the exit status (see the end of `fastprod perf --help`)."""
    keys = numbered(args.keys or _KEYS, args.key_size or _KEY_SIZE) if args.keys or args.key_size else []
    options = chosen_options(args)
    show_log(_COMMAND)
    if args.create_topic:
        from fastprod.cli.perf_topic import create_topic

        create_topic(options, args.topic, args.create_topic)
    producer = make_producer(options)
    try:
        _find(producer, args.topic)
        limit = producer.config["max_request_size"]
        values = lines_of(args.payload_file, limit) if args.payload_file else made_up(args.record_size)
        wanted = Wanted(
            args.num_records,
            args.throughput if args.throughput > 0 else None,
            args.threads,
            args.warmup_records,
            args.reporting_interval / 1000,
        )
        tell = (lambda line: say(_COMMAND, line)) if args.json else (lambda line: print(line, flush=True))
        status, result = Run(producer, args.topic, Payload(values, keys), wanted, tell).measure()
    finally:
        # Everything is delivered by now, or was given up by a second Ctrl-C.
        with suppress(errors.KafkaTimeoutError):
            producer.close(0)
    for name, text in result.failures.examples.items():
        say(_COMMAND, f"{result.failures.counts[name]:,} records failed: {name}: {text}")
    print(result.to_json() if args.json else result, flush=True)
    return status or (0 if result.acknowledged == args.num_records else _FAILED)


def _find(producer: KafkaProducer, topic: str) -> None:
    """Have the topic's partitions known before the clock starts."""
    try:
        producer.partitions_for(topic)
    except (errors.KafkaError, ValueError) as error:
        raise CommandError(text_of(error)) from error


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return count


def _count_or_none(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return count


def _rate(text: str) -> float:
    rate = float(text)
    if rate != -1 and not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no rate; -1 is for no limit")
    return rate
