"""`fastprod diagnose`: why a cluster cannot be used, step by step."""

from __future__ import annotations

import argparse
import math

from fastprod.cli import connection
from fastprod.cli.failure import CommandError

_USAGE = 2


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `diagnose` command to the program's commands."""
    parser = subparsers.add_parser(
        "diagnose",
        help="find out why a cluster cannot be used, and what to change",
        description="Try every bootstrap server and every address that the brokers advertise, step by step: resolve, "
        "connect, is it Kafka, which release, metadata, leaders, producer id. Writes nothing to any topic. Exit "
        "status 0 only if all is well.",
    )
    connection.add_options(parser)
    parser.add_argument(
        "-t",
        "--topic",
        action="append",
        default=[],
        dest="topics",
        metavar="TOPIC",
        help="a topic that must exist; may be repeated. Leaders are looked at for all topics in any case",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="seconds for all of it (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis to standard output; 0 if all is well, 1 if not, 2 for options that make no sense."""
    from fastprod import config
    from fastprod.control.diagnosis import diagnose

    try:
        settings = config.load(connection.chosen_options(args))
    except ValueError as error:
        raise CommandError(connection.text_of(error), _USAGE) from error
    diagnosis = diagnose(settings, args.timeout * 1000, args.topics)
    print(diagnosis)
    return 0 if diagnosis.ok else 1


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return seconds
