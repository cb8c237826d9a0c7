"""What every command that talks to a cluster has in common: its options, and a producer made from them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastprod.cli.failure import CommandError, show_log

if TYPE_CHECKING:
    from fastprod import KafkaProducer

_USAGE = 2


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `-b`, `-X` and `--config`."""
    parser.add_argument(
        "-b", "--bootstrap-servers", metavar="HOSTS", help="brokers to begin with: host[:port], comma-separated"
    )
    parser.add_argument(
        "-X",
        action="append",
        default=[],
        dest="assignments",
        metavar="NAME=VALUE",
        help="an option of KafkaProducer, such as -X linger_ms=100 or -X compression_type=zstd; may be repeated",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a file of such options: TOML if its name ends in .toml, else lines of name=value; -X goes before it",
    )


def open_producer(command: str, args: argparse.Namespace) -> KafkaProducer:
    """Return a connected producer with the options of the command line.

    CommandError where the options make no sense, a package is missing or no broker answers.
    """
    chosen = chosen_options(args)
    show_log(command)
    return make_producer(chosen)


def chosen_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of KafkaProducer that the command line names; CommandError where there are no brokers."""
    from fastprod.cli import options

    chosen = options.from_file(args.config) if args.config is not None else {}
    chosen |= options.from_assignments(args.assignments)
    if args.bootstrap_servers is not None:
        chosen["bootstrap_servers"] = args.bootstrap_servers
    if "bootstrap_servers" not in chosen:
        raise CommandError("no brokers given: add -b HOST:PORT (or bootstrap_servers in --config)", _USAGE)
    return chosen


def make_producer(options: dict[str, Any]) -> KafkaProducer:
    """Return `KafkaProducer(**options)`, its expected failures as CommandError."""
    try:
        from fastprod import KafkaProducer, errors
    except ImportError as error:
        raise CommandError(str(error)) from error
    try:
        return KafkaProducer(**options)
    except errors.KafkaTimeoutError as error:
        raise CommandError(text_of(error)) from error
    except ValueError as error:
        raise CommandError(text_of(error), _USAGE) from error
    except (errors.KafkaError, RuntimeError) as error:
        raise CommandError(text_of(error)) from error


def text_of(error: BaseException) -> str:
    """Return an error's sentence without the name of its class in front, in one line."""
    text = str(error.args[0]) if error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
