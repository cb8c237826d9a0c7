"""Ctrl-C ends every call that waits, and leaves a producer that can be used; other signals are served meanwhile."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patience import eventually, in_time

from fastprod import KafkaProducer, errors
from fastprod.testing import Api, ScriptedBroker

from .conftest import MakeProducer
from .signals import WAYS, Way, interrupt, serve, to_another_thread

BUFFER = 50_000
NEARLY_ALL = 40_000
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGALRM") if hasattr(signal, name)]

_numbers = itertools.count(1)

ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


class Blocked:
    """A producer whose one record is in flight and takes nearly all memory: everything that waits does so, until
    `release`."""

    def __init__(self, scripted: ScriptedBroker, make: MakeProducer) -> None:
        scripted.by_hand = True
        self.scripted = scripted
        self.client_id = f"blocked-{next(_numbers)}"
        # A waiter that was left behind would ask for its topic once a second.
        self.producer = make(
            batch_size=0, buffer_memory=BUFFER, max_block_ms=60_000, retry_backoff_ms=10, client_id=self.client_id
        )
        self.future = self.producer.send("t", bytes(NEARLY_ALL), partition=0)
        self._request = scripted.next_produce()

    def calls(self) -> dict[str, Callable[[], Any]]:
        made = self.producer
        return {
            "send() to an unknown topic": functools.partial(made.send, "new", b"v"),
            "send() with a full buffer": functools.partial(made.send, "t", bytes(NEARLY_ALL), partition=1),
            "flush()": made.flush,
            "flush(60)": functools.partial(made.flush, 60),
            "get()": self.future.get,
            "get(60)": functools.partial(self.future.get, 60),
            "partitions_for()": functools.partial(made.partitions_for, "new"),
            "close()": made.close,
            "close(60)": functools.partial(made.close, 60),
        }

    def release(self) -> None:
        self.scripted.create_topic("new")
        self.scripted.by_hand = False
        self._request.accept()

    def check_stopped(self) -> None:
        eventually(lambda: not self.scripted.connections(), what="the end of its connections")
        eventually(lambda: not threads_of(self.client_id), what="the end of its threads")


WAITS = [
    "send() to an unknown topic",
    "send() with a full buffer",
    "flush()",
    "flush(60)",
    "get()",
    "get(60)",
    "partitions_for()",
]
CLOSES = ["close()", "close(60)"]


@pytest.fixture
def blocked(scripted: ScriptedBroker, scripted_producer: MakeProducer) -> Blocked:
    return Blocked(scripted, scripted_producer)


def threads_of(client_id: str) -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith(f"{client_id}-")]


class TestCtrlC:
    @ways
    @pytest.mark.parametrize("what", WAITS)
    def test_it_ends_the_call_and_nothing_else(self, blocked: Blocked, what: str, way: Way) -> None:
        for _ in range(2):
            interrupt(what, blocked.calls()[what], way)
        assert not blocked.future.is_done
        blocked.release()
        assert blocked.future.get(20).offset == 0
        # All memory is there, and nobody stands in line before us.
        large = [b"%d" % number + bytes(BUFFER - 1000) for number in range(3)]
        for number, value in enumerate(large, 1):
            with in_time("sending afterwards", 0):
                assert blocked.producer.send("t", value, partition=0).get(20).offset == number
        assert blocked.producer.partitions_for("new") == {0}
        assert blocked.producer.send("new", b"after").get(20).offset == 0
        with in_time("flush() afterwards", 0):
            blocked.producer.flush()
        with in_time("close() afterwards", 0):
            blocked.producer.close()
        # What was not accepted is not written.
        assert blocked.scripted.values("t", 0) == [bytes(NEARLY_ALL), *large]
        assert blocked.scripted.values("t", 1) == []
        assert blocked.scripted.values("new") == [b"after"]
        blocked.check_stopped()

    @pytest.mark.parametrize("what", ["send() to an unknown topic", "partitions_for()"])
    def test_nobody_asks_for_the_topic_any_more(self, blocked: Blocked, what: str) -> None:
        interrupt(what, blocked.calls()[what], to_another_thread)

        def last_asked() -> float:
            asking = blocked.scripted.requests_of(Api.METADATA)
            return max(each.at for each in asking if "new" in [topic.name for topic in each.message.topics])

        eventually(lambda: time.monotonic() - last_asked() > 1.5, what="an end of the asking")
        blocked.release()
        assert blocked.producer.send("new", b"v").get(20).offset == 0

    @ways
    def test_in_the_constructor(self, scripted: ScriptedBroker, way: Way) -> None:
        make = functools.partial(
            KafkaProducer,
            bootstrap_servers=scripted.bootstrap_servers,
            bootstrap_timeout_ms=60_000,
            client_id="interrupted",
        )
        silent = scripted.on(Api.API_VERSIONS).ignore()
        interrupt("KafkaProducer()", make, way)
        eventually(lambda: not scripted.connections(), what="the end of its connections")
        eventually(lambda: not threads_of("interrupted"), what="the end of its threads")
        silent.remove()
        with make() as made:
            assert made.send("t", b"v").get(20).offset == 0


class TestCtrlCInClose:
    """It accepts nothing more, and what it has accepted goes on: closing goes on where it was left."""

    @ways
    @pytest.mark.parametrize("what", CLOSES)
    def test_a_second_close_gives_up(self, blocked: Blocked, what: str, way: Way) -> None:
        interrupt(what, blocked.calls()[what], way)
        assert not blocked.future.is_done
        with pytest.raises(errors.IllegalStateError):
            blocked.producer.send("t", b"late")
        with in_time("close(0)", 0), pytest.raises(errors.KafkaTimeoutError, match=r"1 record\(s\)"):
            blocked.producer.close(0)
        assert isinstance(blocked.future.exception, errors.IllegalStateError)
        assert [each.value for each in blocked.producer.undelivered()] == [bytes(NEARLY_ALL)]
        blocked.check_stopped()
        with in_time("a third close", 0):
            blocked.producer.close()

    def test_a_second_close_waits_on(self, blocked: Blocked) -> None:
        interrupt("close()", blocked.producer.close, to_another_thread)
        threading.Timer(0.2, blocked.release).start()
        blocked.producer.close(20)
        assert blocked.future.get(0).offset == 0
        assert blocked.producer.undelivered() == []
        blocked.check_stopped()

    def test_flush_waits_for_the_rest(self, blocked: Blocked) -> None:
        interrupt("close()", blocked.producer.close, to_another_thread)
        with in_time("flush(0.2)", 0.2, at_least_s=0.2), pytest.raises(errors.KafkaTimeoutError):
            blocked.producer.flush(0.2)
        threading.Timer(0.2, blocked.release).start()
        blocked.producer.flush(20)
        assert blocked.future.get(0).offset == 0

    def test_dropped_it_ends_by_itself(self, scripted: ScriptedBroker) -> None:
        """Not through the fixture, which would keep it."""
        held: list[KafkaProducer] = []

        def make(**options: Any) -> KafkaProducer:
            held.append(KafkaProducer(bootstrap_servers=scripted.bootstrap_servers, **options))
            return held[0]

        blocked = Blocked(scripted, make)
        interrupt("close()", blocked.producer.close, to_another_thread)
        held.clear()
        del blocked.producer
        gc.collect()
        blocked.check_stopped()
        assert isinstance(blocked.future.exception, errors.IllegalStateError)


class TestHandlers:
    """Those of a program that raise nothing."""

    @ways
    @pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
    @pytest.mark.parametrize("what", WAITS + CLOSES)
    def test_they_run_and_the_call_goes_on(
        self, blocked: Blocked, what: str, number: signal.Signals, way: Way
    ) -> None:
        """The handler lets go of what the call waits for."""
        result = serve(what, blocked.calls()[what], number, blocked.release, way)
        if what.startswith("send"):
            assert result.get(20).offset == 0
        elif what.startswith("get"):
            assert result.offset == 0
        elif what.startswith("partitions"):
            assert result == {0}
        assert blocked.future.get(20).offset == 0

    @ways
    def test_in_the_constructor(self, scripted: ScriptedBroker, scripted_producer: MakeProducer, way: Way) -> None:
        def release() -> None:
            silent.remove()
            scripted.drop_connections()  # who asked in vain asks again

        silent = scripted.on(Api.API_VERSIONS).ignore()
        made = serve("KafkaProducer()", scripted_producer, SIGNALS[0], release, way)
        assert made.send("t", b"v").get(20).offset == 0

    @pytest.mark.parametrize("what", WAITS + CLOSES)
    def test_one_that_closes_the_producer(self, blocked: Blocked, what: str) -> None:
        """As programs do on SIGTERM: whoever waits is let go."""

        def close() -> None:
            with pytest.raises(errors.KafkaTimeoutError, match=r"1 record\(s\)"):
                blocked.producer.close(0)

        call = blocked.calls()[what]
        with in_time(f"{what}, closed by a handler", 0.3):
            if what.startswith("flush"):
                with contextlib.suppress(errors.KafkaError):
                    serve(what, call, SIGNALS[0], close, to_another_thread)
            else:
                kind = errors.KafkaTimeoutError if what in CLOSES else errors.IllegalStateError
                with pytest.raises(kind):
                    serve(what, call, SIGNALS[0], close, to_another_thread)
        assert len(blocked.producer.undelivered()) == 1
        blocked.check_stopped()


PROGRAM = """
import logging
import sys
from fastprod import KafkaProducer

logging.basicConfig()

class Telling(KafkaProducer):
    def close(self, timeout=None):
        print("closing", flush=True)
        super().close(timeout)

with Telling(bootstrap_servers=sys.argv[1]) as producer:
    producer.send("t", b"v", partition=0)
    print("blocked", flush=True)
    producer.flush()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for another process there")
@pytest.mark.parametrize("answered", [True, False])
def test_a_program(scripted: ScriptedBroker, tmp_path: Path, answered: bool) -> None:
    """The first Ctrl-C ends what it does, and `with` still delivers; the second ends that, too."""
    scripted.by_hand = True
    command = [sys.executable, "-c", PROGRAM, scripted.bootstrap_servers]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "blocked\n"
        request = scripted.next_produce()
        program.send_signal(signal.SIGINT)
        with in_time("Ctrl-C in a program", 0):
            assert program.stdout.readline() == "closing\n"
        if answered:
            request.accept()
        else:
            os.kill(program.pid, signal.SIGINT)
        with in_time("its end", 0 if answered else 1.0):
            _, told = program.communicate(timeout=60)
    finally:
        program.kill()
        program.wait()
    # Python forgets that it was Ctrl-C when modules are imported on the way out.
    assert program.returncode in (-signal.SIGINT, 1)
    assert "KeyboardInterrupt" in told
    assert "Fatal" not in told
    assert ("before 1 records were delivered" in told) is not answered
