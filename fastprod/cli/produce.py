"""`fastprod produce`: lines, frames or JSON envelopes from a file or standard input to a topic."""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from io import BufferedIOBase
from typing import TYPE_CHECKING, cast

from fastprod import errors
from fastprod.cli.connection import add_options, open_producer, text_of
from fastprod.cli.failure import CommandError, say
from fastprod.cli.outcomes import Outcomes
from fastprod.cli.progress import Progress, State
from fastprod.cli.records import FORMATS, InputError, Record, reader

if TYPE_CHECKING:
    from fastprod import KafkaProducer

_COMMAND = "produce"
_FAILED = 1
_USAGE = 2
_INTERRUPTED = 130
_FAILURES_SHOWN = 5

_DESCRIPTION = """\
Send the records in FILE (or standard input) to a topic. The exit status is 0 only if every record was acknowledged.
"""

_EPILOG = """\
formats:
  lines   One record a line; the line is the value. A line ends with LF or CR LF, which is not part of the record; the
          last line needs no end. An empty line is a record with an empty value. With --key-separator a line is key,
          separator (its first occurrence), value.
  frames  Each record is its length (4 bytes, big-endian) and then that many bytes, the value.
  json    One JSON object a line; lines with nothing but white space are skipped. Its fields, all optional except that
          there must be a key or a value:
            key, value                string or null; sent as UTF-8
            key_base64, value_base64  the same for bytes, in base64
            headers                   {"name": "text", ...}, or, for bytes or repeated names,
                                      [{"name": ..., "value": ...}, {"name": ..., "value_base64": ...}, ...]
            partition, timestamp_ms   integers

Input that cannot be read as records ends the command with the number of the line or frame; the records before it are
still delivered. So it is with Ctrl-C; a second Ctrl-C gives up on what is not delivered yet.

exit status: 0 every record was acknowledged (with acks=0: sent), 1 not so, 2 the arguments make no sense, 130
interrupted
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `produce` command to the program's commands."""
    parser = subparsers.add_parser(
        _COMMAND,
        help="send lines, frames or JSON envelopes to a topic",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("-t", "--topic", required=True, help="where to send them")
    parser.add_argument("--format", choices=FORMATS, default="lines", help="of the input (default: %(default)s)")
    parser.add_argument(
        "--key-separator", metavar="TEXT", help="what separates key and value of a line; \\t stands for a tab"
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bar, even on a terminal")
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="input; - is standard input (default)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Send everything and return the exit status (see the end of `fastprod produce --help`)."""
    separator = _separator(args)
    with ExitStack() as stack:
        stream = _open(args.file, stack)
        producer = open_producer(_COMMAND, args)
        # Whoever types records does not want a bar between them.
        with_progress = not args.no_progress and not stream.isatty()
        records = reader(args.format, separator, producer.config["max_request_size"])
        transfer = _Transfer(producer, args.topic, stream, "frame" if args.format == "frames" else "line")
        try:
            status = transfer.run(records(stream), with_progress=with_progress)
        finally:
            # Everything is delivered by now, or was given up by a second Ctrl-C.
            with suppress(errors.KafkaTimeoutError):
                producer.close(0)
        # After the close, so that no warning of the producer can come behind it.
        say(_COMMAND, transfer.summary())
        return status


class _Transfer:
    """One run from the first record to the last acknowledgement."""

    def __init__(self, producer: KafkaProducer, topic: str, stream: BufferedIOBase, what: str) -> None:
        """`what`: what a place in the input is called."""
        self._producer = producer
        self._topic = topic
        self._stream = stream
        self._what = what
        self._outcomes = Outcomes(self._say_failed)
        self._bytes = 0
        self._began = time.monotonic()
        self._seconds = 0.0
        # Of an answer that nobody waits for, or sends, nothing may be said.
        self._done = "acknowledged" if producer.config["acks"] else "sent, which acks=0 lets nobody acknowledge"

    def run(self, records: Iterator[Record], *, with_progress: bool) -> int:
        """Send all of them, wait for every acknowledgement and return the exit status."""
        total = _size(self._stream)
        with (
            Progress(self._topic, total, lambda: self._state(total), wanted=with_progress),
            self._outcomes,
        ):
            status = self._send(records)
            try:
                self._producer.flush()
            except KeyboardInterrupt:
                status = _INTERRUPTED
        self._seconds = max(time.monotonic() - self._began, 1e-6)
        complete = self._outcomes.acknowledged == self._outcomes.accepted
        return status if status or complete else _FAILED

    def summary(self) -> str:
        """Return what came of it, in a line; after `run`."""
        outcomes, seconds, megabytes = self._outcomes, self._seconds, self._bytes / 1e6
        parts = [f"{outcomes.acknowledged:,} of {outcomes.accepted:,} records {self._done}"]
        if outcomes.failed:
            parts.append(f"{outcomes.failed:,} failed")
        if outcomes.waiting:
            parts.append(f"{outcomes.waiting:,} given up")
        rate = f"{outcomes.acknowledged / seconds:,.0f} records/s, {megabytes / seconds:,.1f} MB/s"
        return f"{', '.join(parts)}; {megabytes:,.1f} MB in {seconds:,.1f} s ({rate})"

    def _send(self, records: Iterator[Record]) -> int:
        """Send until the input ends or something is wrong with it; return what that means for the exit status."""
        try:
            self._send_all(records)
        except KeyboardInterrupt:
            return _INTERRUPTED
        except InputError as error:
            say(_COMMAND, f"{self._what} {error.place}: {error}")
            return _FAILED
        except OSError as error:
            say(_COMMAND, f"the input cannot be read any further: {error}")
            return _FAILED
        return 0

    def _send_all(self, records: Iterator[Record]) -> None:
        send, add, topic = self._producer.send, self._outcomes.add, self._topic
        for place, key, value, headers, partition, timestamp_ms in records:
            try:
                future = send(topic, value, key, headers, partition, timestamp_ms)
            except (errors.KafkaError, ValueError, TypeError) as error:
                raise InputError(place, f"it cannot be sent: {_named(error)}") from error
            self._bytes += len(key or b"") + len(value or b"")
            add(place, future)

    def _say_failed(self, place: int, error: BaseException) -> None:
        if self._outcomes.failed <= _FAILURES_SHOWN:
            say(_COMMAND, f"{self._what} {place} was not acknowledged: {_named(error)}")
        elif self._outcomes.failed == _FAILURES_SHOWN + 1:
            say(_COMMAND, "more records were not acknowledged; the last line will say how many")

    def _state(self, total: int | None) -> State:
        done = self._outcomes.accepted if total is None else self._stream.tell()
        return State(done, f"{self._outcomes.acknowledged:,} records {self._done.partition(',')[0]}")


def _separator(args: argparse.Namespace) -> bytes | None:
    if args.key_separator is None:
        return None
    if args.format != "lines":
        raise CommandError(f"--key-separator goes with --format lines, not {args.format}", _USAGE)
    if not args.key_separator:
        raise CommandError("--key-separator is empty: name what stands between key and value", _USAGE)
    return os.fsencode(args.key_separator.replace("\\t", "\t"))


def _open(name: str, stack: ExitStack) -> BufferedIOBase:
    if name == "-":
        if sys.stdin is None:
            raise CommandError("standard input is closed; name a FILE")
        return cast("BufferedIOBase", sys.stdin.buffer)
    try:
        return stack.enter_context(open(name, "rb"))
    except OSError as error:
        raise CommandError(f"{name}: it cannot be read ({error.strerror})") from error


def _size(stream: BufferedIOBase) -> int | None:
    """Return the size of a file, None where there is no such thing (a pipe, a terminal)."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {text_of(error)}"
