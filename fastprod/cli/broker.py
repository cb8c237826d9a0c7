"""`fastprod broker`: a throwaway local Apache Kafka, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_S = 0.2
_INTERRUPTED = 130


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `broker` command to the program's commands."""
    parser = subparsers.add_parser(
        "broker",
        help="start a throwaway local Apache Kafka",
        description="Start an Apache Kafka on 127.0.0.1 and print its bootstrap servers. Ctrl-C ends it and removes "
        "its data. Needs no Docker, and no Java or Maven on the machine; the first start downloads Kafka (once).",
    )
    parser.add_argument(
        "--nodes",
        type=int,
        default=1,
        metavar="N",
        help="number of brokers; from 3 on, topics have three replicas (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=0,
        metavar="P",
        help="port of the broker; further brokers have the next ones (default: any free ones)",
    )
    parser.add_argument(
        "--version",
        default=None,
        metavar="V",
        help="Apache Kafka version: 4.x.y, 3.9.x, or 2.8.x with a ZooKeeper (default: the one tested with)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run a broker until Ctrl-C or SIGTERM; the addresses go to standard output, everything else to standard error.

    Returns:
        0 when it was ended after it had started, 1 when it did not start or ended by itself, 2 for an option that is
        not supported, 130 when it was interrupted before it had started.
    """
    from fastprod.testing import BrokerError, KafkaBroker
    from fastprod.testing._release import DEFAULT_VERSION

    restore = _terminate_as_interrupt()
    started = False
    try:
        with KafkaBroker(args.nodes, args.version or DEFAULT_VERSION, port=args.port, progress=_say) as broker:
            print(broker.bootstrap_servers, flush=True)
            started = True
            _say("Apache Kafka is ready; Ctrl-C ends it and removes its data")
            while all(map(broker.is_running, broker.nodes)):
                time.sleep(_LOOK_S)
            ended = next(node for node in broker.nodes if not broker.is_running(node))
            which = f" (node {ended})" if len(broker.nodes) > 1 else ""
            _say(f"Apache Kafka{which} ended by itself; the end of its log:\n{broker.broker_log(ended)}")
        return 1
    except KeyboardInterrupt:
        return 0 if started else _INTERRUPTED
    except ValueError as error:
        _say(str(error))
        return 2
    except BrokerError as error:
        _say(str(error))
        return 1
    finally:
        restore()


def _say(text: str) -> None:
    print(f"fastprod broker: {text}", file=sys.stderr, flush=True)


def _terminate_as_interrupt() -> Callable[[], None]:
    """Make SIGTERM and SIGINT raise KeyboardInterrupt; return what undoes it.

    SIGINT too: a shell starts background commands with it ignored, and `kill -INT` of such a one should still work.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore
