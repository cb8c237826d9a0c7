"""The command line: `fastprod` and `python -m fastprod`. One module a command, loaded when it is asked for.

A command's module has `add_parser(subparsers)`, which sets `run`, a function from the parsed arguments to the exit
status. Exit statuses: 0 done, 1 it did not work out, 2 the arguments make no sense, 130 interrupted (Ctrl-C).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from fastprod.cli.failure import CommandError, say

_COMMANDS = ("demo", "broker", "produce", "perf", "diagnose")
_FAILED = 1
_USAGE = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    `argv`: the arguments without the program's name; None takes the process's own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(arguments)
        # Now, where a reader that has gone can be dealt with; the interpreter flushes when it is too late for that.
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED


def _run(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    command = first if first in _COMMANDS else None
    # A named command needs its own module alone; without one, all of them say what they are for.
    needed = (command,) if command else () if first == "--version" else _COMMANDS
    try:
        args = _parser(needed).parse_args(arguments)
        if args.version_wanted:
            return _print_version()
        if "run" not in args:
            raise CommandError(f"no command given; there are {', '.join(_COMMANDS)} (see fastprod --help)", _USAGE)
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except SystemExit as end:
        # argparse ends the program by itself: 0 after --help, 2 after a usage error.
        return end.code if isinstance(end.code, int) else _FAILED
    except CommandError as error:
        say(command, str(error))
        return error.status
    except KeyboardInterrupt:
        return _INTERRUPTED


def _print_version() -> int:
    from fastprod.cli.version import version_text

    print(version_text())
    return 0


def _parser(commands: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastprod", description="A Kafka producer for Python.")
    parser.add_argument(
        "--version",
        action="store_true",
        dest="version_wanted",
        help="print the version, what runs underneath and with which codecs",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in commands:
        import_module(f"fastprod.cli.{command}").add_parser(subparsers)
    return parser
