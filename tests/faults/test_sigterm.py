"""A service gets SIGTERM: what it has accepted is in the log, once, and it ends as such a process does."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from patience import check_time, eventually

import fastprod
from fastprod.testing import KafkaBroker

from .conftest import MakeProducer, MakeTopic
from .ledger import read_log

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nobody can send SIGTERM to a process there")

# Two threads send, and tell what was accepted: one line a record, in one write each. `main` is the main thread's part.
PROGRAM = """
    import gc, logging, os, signal, sys, threading, time, weakref
    import fastprod
    from fastprod import KafkaProducer, close_on_sigterm, errors

    logging.basicConfig()
    address, topic = sys.argv[1:]
    closing = threading.Event()
    def tell(*words): os.write(1, " ".join(map(str, words)).encode() + b"\\n")
    def produce(name, producer, wait=False):
        number = 0
        try:
            while True:
                value = f"{name}-{number}"
                future = producer.send(topic, value.encode(), partition=0)
                tell("accepted", value)
                if wait:
                    future.get()
                number += 1
        except errors.IllegalStateError:
            closing.set()
    def sleep():
        # In pieces: a signal that comes while time.sleep() is on its way into the system's call does not end that.
        for _ in range(600):
            time.sleep(0.1)
    def rest():
        tell("resting")
        sleep()
        tell("nobody ended it")
    def background(producer):
        for name in "ab":
            threading.Thread(target=produce, args=(name, producer), daemon=True).start()
    producer = KafkaProducer(bootstrap_servers=address, buffer_memory=200_000, batch_size=20_000)
    producer.partitions_for(topic)
"""


class Program:
    """Runs it; files take what it says, so that it never waits for a reader."""

    def __init__(self, broker: KafkaBroker, topic: str, folder: Path, main: str) -> None:
        text = textwrap.dedent(PROGRAM) + textwrap.dedent(main)
        self._said, self._complained = folder / "stdout", folder / "stderr"
        with self._said.open("wb") as said, self._complained.open("wb") as complained:
            command = [sys.executable, "-c", text, broker.bootstrap_servers, topic]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=complained)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def lines(self) -> list[str]:
        return self._said.read_text(encoding="ascii").splitlines()

    def complaints(self) -> str:
        return self._complained.read_text(encoding="ascii")

    def until(self, line: str) -> None:
        """Wait until it says this."""

        def there() -> bool:
            assert self.process.poll() is None, self.complaints()
            return line in self.lines()

        eventually(there, f"{line!r}", 60)

    def terminated(self) -> int:
        """Send it SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


MakeProgram = Callable[[str], Program]


@pytest.fixture
def name(topic: MakeTopic) -> str:
    """The topic that the program is told of."""
    return topic()


@pytest.fixture
def program(own_broker: KafkaBroker, name: str, tmp_path: Path) -> MakeProgram:
    return lambda main: Program(own_broker, name, tmp_path, main)


def accepted_in(said: list[str]) -> set[str]:
    return {each.split()[1] for each in said if each.startswith("accepted ")}


def values_in(broker: KafkaBroker, topic: str) -> Counter[str]:
    return Counter(each.value.decode() for each in read_log(broker.bootstrap_servers, topic, 1))


def check_log(broker: KafkaBroker, topic: str, said: list[str], threads: int) -> None:
    """All that was accepted is there, once; a thread may not have come to tell of its last record."""
    accepted, written = accepted_in(said), values_in(broker, topic)
    assert accepted - set(written) == set()
    assert [each for each, count in written.items() if count > 1] == []
    assert len(written) - len(accepted) <= threads
    assert len(accepted) > 100


# Where the main thread is when the signal comes.
PLACES = {
    "send": "produce('main', producer)",
    "get": "produce('main', producer, wait=True)",
    "flush": "while not closing.is_set(): producer.flush()",
    "sleep": "pass",
}


@pytest.mark.parametrize("place", list(PLACES))
def test_every_accepted_record_is_written_once(
    own_broker: KafkaBroker, name: str, program: MakeProgram, place: str
) -> None:
    main = f"""
        close_on_sigterm(producer)
        background(producer)
        threading.Timer(0.5, tell, ["ready"]).start()
        {PLACES[place]}
        rest()
    """
    with program(main) as made:
        made.until("ready")
        assert (made.terminated(), made.complaints()) == (-signal.SIGTERM, "")
    check_log(own_broker, name, made.lines(), threads=3)


def test_the_handler_before_is_called_with_the_producers_closed(
    own_broker: KafkaBroker, name: str, program: MakeProgram
) -> None:
    """One of two producers lingers for a minute, and the other one is added later."""
    main = """
        def before(number, frame):
            try:
                producer.send(topic, b"late")
            except errors.IllegalStateError:
                tell("before", number == signal.SIGTERM, future.succeeded(), frame is not None)
            sys.exit(7)
        signal.signal(signal.SIGTERM, before)
        close_on_sigterm(producer, timeout=0)
        other = KafkaProducer(bootstrap_servers=address, linger_ms=60_000, delivery_timeout_ms=120_000)
        close_on_sigterm(other, timeout=20)
        close_on_sigterm(other, producer, timeout=20)
        future = other.send(topic, b"lingers", partition=0)
        tell("accepted lingers")
        background(producer)
        rest()
    """
    with program(main) as made:
        made.until("resting")
        time.sleep(0.3)
        assert (made.terminated(), made.complaints()) == (7, "")
    assert [each for each in made.lines() if each.startswith("before")] == ["before True True True"]
    check_log(own_broker, name, made.lines(), threads=2)


def test_a_program_that_leaves_meanwhile(own_broker: KafkaBroker, name: str, program: MakeProgram) -> None:
    """The main thread does not expect that its producer is closed. It waits, and the signal is what it ends by."""
    main = """
        producer.close()
        producer = KafkaProducer(bootstrap_servers=address, buffer_memory=2_000_000, linger_ms=20)
        close_on_sigterm(producer)
        number = 0
        while True:
            producer.send(topic, b"main-%d" % number, partition=0).add_both(lambda _: time.sleep(0.002))
            tell(f"accepted main-{number}")
            number += 1
            if number == 1000:
                tell("ready")
    """
    with program(main) as made:
        made.until("ready")
        assert made.terminated() == -signal.SIGTERM
    assert "IllegalStateError" in made.complaints()
    check_log(own_broker, name, made.lines(), threads=1)


def test_a_broker_that_is_frozen(own_broker: KafkaBroker, name: str, program: MakeProgram) -> None:
    """It ends in time, and says what it could not deliver; both producers have all of the time."""
    main = """
        other = KafkaProducer(bootstrap_servers=address, client_id="other")
        other.send(topic, b"first", partition=0).get()
        close_on_sigterm(producer, other, timeout=2)
        tell("ready")
        os.read(0, 1)
        for each in producer, other:
            for number in range(3):
                each.send(topic, b"%d" % number, partition=0)
        rest()
    """
    with program(main) as made:
        made.until("ready")
        own_broker.pause()
        assert made.process.stdin is not None
        made.process.stdin.write(b"x")
        made.process.stdin.flush()
        made.until("resting")
        began = time.monotonic()
        assert made.terminated() == -signal.SIGTERM
        check_time("SIGTERM", time.monotonic() - began, 2, at_least_s=2)
    told = sorted(each for each in made.complaints().splitlines() if "SIGTERM" in each)
    assert len(told) == 2
    for line, client in zip(told, ("fastprod-producer-1", "other"), strict=True):
        assert client in line
        assert f"3 record(s) could not be delivered within 2 s: 3 of {name}-0." in line
        assert "of them may have been written" in line


def test_where_sigterm_was_ignored_it_is_again(program: MakeProgram) -> None:
    main = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        close_on_sigterm(producer)
        background(producer)
        tell("resting")
        while True:
            try:
                producer.send(topic, b"main", partition=0).get()
            except errors.IllegalStateError:
                break
        for number in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        sys.exit(3)
    """
    with program(main) as made:
        made.until("resting")
        assert (made.terminated(), made.complaints()) == (3, "")


def test_process_1_of_a_container(own_broker: KafkaBroker, name: str, program: MakeProgram) -> None:
    """The system spares it the signal: as here, where the main thread blocks it and another one takes it."""
    main = """
        close_on_sigterm(producer)
        background(producer)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        tell("resting")
        while True:
            time.sleep(0.01)
    """
    with program(main) as made:
        made.until("resting")
        time.sleep(0.5)
        assert (made.terminated(), made.complaints()) == (128 + signal.SIGTERM, "")
    check_log(own_broker, name, made.lines(), threads=2)


def test_a_forked_child(own_broker: KafkaBroker, name: str, program: MakeProgram) -> None:
    """It delivers what it has accepted itself; its parent goes on, and keeps what it has."""
    main = """
        close_on_sigterm(producer)
        future = producer.send(topic, b"parent", partition=0)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            for number in range(100):
                producer.send(topic, b"child-%d" % number, partition=0)
            os.write(writer, b"x")
            sleep()
            os._exit(1)
        os.read(reader, 1)
        os.kill(child, signal.SIGTERM)
        tell("child", os.waitpid(child, 0)[1])
        future.get()
        producer.send(topic, b"parent goes on", partition=0).get()
        rest()
    """
    with program(main) as made:
        made.until("resting")
        assert (made.terminated(), made.complaints()) == (-signal.SIGTERM, "")
    assert made.lines() == [f"child {signal.SIGTERM.value}", "resting"]
    expected = Counter(["parent", "parent goes on", *(f"child-{number}" for number in range(100))])
    assert values_in(own_broker, name) == expected


def test_it_keeps_no_producer_alive(program: MakeProgram) -> None:
    main = """
        close_on_sigterm(producer)
        seen = weakref.ref(producer)
        producer.close()
        del producer
        gc.collect()
        tell("gone", seen() is None)
        rest()
    """
    with program(main) as made:
        made.until("resting")
        assert (made.terminated(), made.complaints()) == (-signal.SIGTERM, "")
    assert made.lines()[0] == "gone True"


class TestRefused:
    """Nothing is changed where it cannot do its work."""

    @pytest.fixture(autouse=True)
    def _the_handler_stays(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGTERM)
        yield
        assert signal.getsignal(signal.SIGTERM) is before

    def test_outside_the_main_thread(self, producer: MakeProducer) -> None:
        made = producer()
        raised: list[BaseException] = []

        def call() -> None:
            try:
                fastprod.close_on_sigterm(made)
            except RuntimeError as error:
                raised.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert "the main thread" in str(raised[0])

    def test_without_producers(self) -> None:
        with pytest.raises(ValueError, match="producers"):
            fastprod.close_on_sigterm()

    @pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("3", TypeError)])
    def test_a_timeout_that_is_none(self, producer: MakeProducer, timeout: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="timeout"):
            fastprod.close_on_sigterm(producer(), timeout=timeout)
