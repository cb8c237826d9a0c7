"""Processes that fork while a producer is at work: the parent goes on, the child starts anew, nothing comes twice."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import check_time, eventually, in_time

from fastprod import errors
from fastprod.testing import KafkaBroker, ScriptedBroker

from .conftest import MakeProducer, MakeTopic
from .ledger import read_log

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")


def in_child(work: Callable[[], Any], seconds: float = 60.0) -> str:
    """Run `work` in a forked child and return what it returned, as text. The child ends without any hook."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            result = str(work())
        except BaseException as error:
            result = f"raised {error!r}"
        with contextlib.suppress(OSError):
            os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)
    deadline = time.monotonic() + seconds
    try:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            if time.monotonic() > deadline:
                os.kill(child, 9)
                os.waitpid(child, 0)
                raise AssertionError(f"the child did not end within {seconds} s")
            time.sleep(0.002)
        assert status == 0, f"the child ended with status {status:#x}"
        return os.fdopen(reader, "rb", closefd=False).read().decode()
    finally:
        os.close(reader)


def values_in(broker: KafkaBroker, topic: str) -> Counter[bytes]:
    return Counter(each.value for each in read_log(broker.bootstrap_servers, topic, 1))


def sockets() -> set[str]:
    """The sockets of this process, as the system names them."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(descriptor.stat().st_mode):
                found.add(str(descriptor.readlink()))
    return found


class TestChild:
    def test_it_sends_with_the_inherited_producer(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic
    ) -> None:
        name, made = topic(), producer()
        assert made.send(name, b"before").get(10).offset == 0

        def work() -> str:
            told = made.send(name, b"child").get(20).offset
            made.close(10)
            return f"{told} {made.partitions_for(name)}"

        assert in_child(work) == "1 {0}"
        assert made.send(name, b"after").get(10).offset == 2
        assert values_in(own_broker, name) == Counter([b"before", b"child", b"after"])

    def test_it_sends_where_no_name_can_be_looked_up_any_more(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A fork while another thread looked up a name may leave glibc's resolver locked in the child, for good."""
        name, made = topic(), producer()
        made.send(name, b"before").get(10)

        def work() -> int:
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: threading.Event().wait())
            return int(made.send(name, b"child").get(40).offset)

        assert in_child(work) == "1"
        assert values_in(own_broker, name) == Counter([b"before", b"child"])

    def test_what_was_on_its_way_fails_there_at_once_and_arrives_here(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic
    ) -> None:
        name, made = topic(), producer()
        done = made.send(name, b"before")
        done.get(10)
        own_broker.pause()
        waiting = [made.send(name, b"%d" % number) for number in range(100)]
        called: list[Any] = []
        waiting[0].add_both(called.append)

        def work() -> str:
            began = time.monotonic()
            assert done.get(0).offset == 0
            for each in waiting:
                assert (each.is_done, each.failed(), each.succeeded(), each.value) == (True, True, False, None)
                with pytest.raises(errors.IllegalStateError, match="forked from") as caught:
                    each.get()
                assert caught.value.maybe_written
            assert called == []
            waiting[0].add_errback(called.append)
            assert called == [waiting[0].exception]
            made.flush()
            assert made.undelivered() == []
            made.close()
            with pytest.raises(errors.IllegalStateError, match="closed"):
                made.send(name, b"never")
            return str(time.monotonic() - began < 5)

        assert in_child(work) == "True"
        own_broker.resume()
        assert [each.get(30).offset for each in waiting] == list(range(1, 101))
        eventually(lambda: len(called) == 1)
        assert values_in(own_broker, name) == Counter([b"before", *(b"%d" % number for number in range(100))])

    def test_no_connection_is_kept_open_there(self, producer: MakeProducer, topic: MakeTopic) -> None:
        """Otherwise the broker would not see the end of a connection that the parent closes."""
        if not Path("/proc/self/fd").is_dir():
            pytest.skip("sockets can be listed on Linux only")
        before, name = sockets(), topic()
        made = producer()
        made.send(name, b"v").get(10)
        mine = sockets() - before
        assert len(mine) >= 4, "two that wake threads, two at least to the broker"
        assert in_child(lambda: sockets() & mine) == "set()"
        assert made.send(name, b"v").get(10).offset == 1

    def test_an_exit_in_order(self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic) -> None:
        """The interpreter's own end, hooks and destructors included, with and without use of the producer."""
        name, made = topic(), producer(linger_ms=60_000)
        made.send(name, b"parent")
        for used in (False, True):
            child = os.fork()
            if child == 0:
                try:
                    if used:
                        made.send(name, b"child")
                    import atexit

                    atexit._run_exitfuncs()
                    os._exit(0)
                except BaseException:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
        assert values_in(own_broker, name) == Counter([b"child"])
        made.flush(10)
        assert values_in(own_broker, name) == Counter([b"child", b"parent"])

    def test_a_child_of_multiprocessing_flushes(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic
    ) -> None:
        """Such a child ends by os._exit, without atexit's hooks."""
        name, made = topic(), producer(linger_ms=60_000)
        made.send(name, b"parent")

        def work() -> None:
            for number in range(50):
                made.send(name, b"%d" % number)

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert values_in(own_broker, name) == Counter(b"%d" % number for number in range(50))

    def test_a_child_of_a_child(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic
    ) -> None:
        name, made = topic(), producer()
        made.send(name, b"parent").get(10)

        def grandchild() -> int:
            return int(made.send(name, b"grandchild").get(20).offset)

        def work() -> str:
            mine = made.send(name, b"child")
            mine.get(20)
            return in_child(grandchild) + str(made.send(name, b"child again").get(20).offset)

        assert in_child(work) == "23"
        assert len(values_in(own_broker, name)) == 4

    def test_threads_of_a_child_make_one_new_start(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic
    ) -> None:
        name, made = topic(), producer(client_id="together")
        made.send(name, b"parent").get(10)

        def work() -> str:
            futures: list[Any] = []
            gate = threading.Barrier(8)

            def send(number: int) -> None:
                gate.wait()
                futures.append(made.send(name, b"%d" % number))

            threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            offsets = sorted(each.get(20).offset for each in futures)
            running = [thread for thread in threading.enumerate() if thread.name == "together-network-thread"]
            return f"{offsets} {len(running)}"

        assert in_child(work) == f"{list(range(1, 9))} 1"


def test_a_fork_in_a_callback(own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic) -> None:
    name, made = topic(), producer()
    told: list[str] = []

    def fork(_: Any) -> None:
        told.append(in_child(lambda: made.send(name, b"child").get(20).offset))

    first = made.send(name, b"first")
    first.add_callback(fork)
    made.flush(60)
    assert told == ["1"]
    assert made.send(name, b"last").get(10).offset == 2


def test_a_callback_that_returns_in_the_child(scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
    """The child is the callback's thread: it runs no further callbacks, and ends."""
    made = scripted_producer(linger_ms=50)
    children: list[int] = []
    reader, writer = os.pipe()
    futures = [made.send("t", b"%d" % number, partition=0) for number in range(3)]

    def fork(_: Any) -> None:
        children.append(os.fork())

    futures[0].add_callback(fork)
    for each in futures:
        each.add_callback(lambda _: children == [0] and os.write(writer, b"!"))
    made.flush(20)
    os.close(writer)
    (child,) = children
    assert child > 0
    os.waitpid(child, 0)
    assert os.read(reader, 10) == b"", "the parent has run them"
    os.close(reader)


class Talkative(logging.Handler):
    """Writes to a stream that is locked meanwhile, as those of the standard library are."""

    def __init__(self, lasts: Callable[[], Any]) -> None:
        super().__init__()
        self.stream = threading.Lock()
        self.began = threading.Event()
        self._lasts = lasts

    def emit(self, record: logging.LogRecord) -> None:
        with self.stream:
            self.began.set()
            self._lasts()

    def is_free(self) -> bool:
        return self.stream.acquire(blocking=False)


@contextlib.contextmanager
def told(handler: logging.Handler) -> Iterator[None]:
    """Have it hear all that the control thread has to say."""
    logger = logging.getLogger("fastprod.control")
    level, propagates = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates


def test_forks_beside_what_is_logged(scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
    """A child that found its stream locked would stop at its first message."""
    handler = Talkative(lambda: time.sleep(0.01))
    with told(handler):
        made = scripted_producer(reconnect_backoff_ms=1, reconnect_backoff_max_ms=1)
        for _ in range(30):
            scripted.drop_connections()   # which is told
            made.send("t", b"x")
            time.sleep(0.005)
            assert in_child(handler.is_free) == "True"
        assert handler.began.is_set()
        made.close(20)


def test_a_fork_beside_a_handler_that_hangs(scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
    go_on = threading.Event()
    made = scripted_producer()
    made.send("t", b"x").get(20)
    handler = Talkative(lambda: go_on.wait(60))
    with told(handler):
        with in_time("a fork's patience", 1.0, at_least_s=1.0):
            scripted.drop_connections()   # which is told
            future = made.send("t", b"x")
            assert handler.began.wait(20)
            assert in_child(lambda: "forked") == "forked"
        go_on.set()
        assert future.get(20).offset == 1


def test_a_handler_that_forks(scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
    """It waits for nobody, least of all for itself."""
    took: list[float] = []

    def fork() -> None:
        began = time.monotonic()
        assert in_child(lambda: "forked") == "forked"
        took.append(time.monotonic() - began)

    made = scripted_producer()
    made.send("t", b"x").get(20)
    with told(Talkative(fork)):
        scripted.drop_connections()   # which is told
        eventually(lambda: took)
        assert made.send("t", b"x").get(20).offset == 1
    check_time("a fork in a handler", min(took), 0.0, slack_s=0.9)


@pytest.mark.timeout(600)
def test_a_thousand_forks_under_load(
    own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic
) -> None:
    """Forks at any moment of other threads' sends and of the I/O thread's writes; every twentieth child sends."""
    name, made = topic(), producer()
    made.send(name, b"0 first").get(10)
    forks = int(os.environ.get("FASTPROD_TEST_FORKS", "1000"))
    stop = threading.Event()
    futures: dict[bytes, Any] = {}

    def load(thread: int) -> None:
        number = 0
        while not stop.is_set():
            value = b"%d:%d" % (thread, number)
            futures[value] = made.send(name, value)
            number += 1
            if number % 100 == 0:
                time.sleep(0.01)   # what is kept of each record is copied, page by page, beneath each child

    threads = [threading.Thread(target=load, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    by_children = []
    try:
        for number in range(forks):
            if number % 20:
                assert in_child(lambda: made.metrics()) == "{}"
            else:
                value = b"child %d" % number
                by_children.append(value)
                assert in_child(lambda: made.send(name, value).get(30).topic) == name  # noqa: B023
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    made.flush(60)
    written = values_in(own_broker, name)
    assert all(each.succeeded() for each in futures.values())
    assert written == Counter([b"0 first", *by_children, *futures])


def of_the_readme(name: str) -> str:
    """A program of the README, by its marks."""
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    return readme.partition(f"<!-- {name}:begin -->\n```python\n")[2].partition("```")[0]


def serve(folder: Path, work: Callable[[Path], Any]) -> tuple[Any, str]:
    """Run gunicorn on app.py, with three workers, while `work` works with its socket; what that returned, and what
    gunicorn said until SIGTERM had ended it."""
    address = folder / "socket"
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--bind", f"unix:{address}", "app:app"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        try:
            eventually(lambda: listens(address), what="the server")
            result = work(address)
        finally:
            server.terminate()
            said = server.communicate(timeout=60)[1]
            print(said)
    assert "Traceback" not in said
    return result, said


def test_workers_of_a_server_that_preloads(own_broker: KafkaBroker, topic: MakeTopic, tmp_path: Path) -> None:
    """The README's program for gunicorn: the producer is made in the master and used in the workers."""
    name = topic()
    program = of_the_readme("gunicorn")
    program = program.replace("localhost:9092", own_broker.bootstrap_servers).replace('"visits"', repr(name))
    (tmp_path / "app.py").write_text(program, encoding="ascii")
    told, said = serve(tmp_path, lambda address: [ask(address, f"/visit/{number}") for number in range(60)])
    assert sorted(told) == sorted(range(60)), said
    assert values_in(own_broker, name) == Counter(b"/visit/%d" % number for number in range(60))


def test_workers_that_deliver_when_they_are_told_to_end(
    own_broker: KafkaBroker, topic: MakeTopic, tmp_path: Path
) -> None:
    """The README's hook for gunicorn. Nothing would leave for a minute, and the broker answers later than the end of
    a program would wait."""
    name = topic()
    options = "linger_ms=60_000, delivery_timeout_ms=120_000"
    program = f"""
import faulthandler
from fastprod import KafkaProducer
producer = KafkaProducer(bootstrap_servers={own_broker.bootstrap_servers!r}, {options})
def app(environ, start_response):
    faulthandler.dump_traceback_later(15)   # gunicorn ends a worker that is busy for 30 s
    producer.send({name!r}, environ["PATH_INFO"].encode())
    faulthandler.cancel_dump_traceback_later()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"0"]
"""
    (tmp_path / "app.py").write_text(program, encoding="ascii")
    (tmp_path / "gunicorn.conf.py").write_text(of_the_readme("worker-exit"), encoding="ascii")

    def visit(address: Path) -> None:
        for number in range(30):
            ask(address, f"/visit/{number}")
        own_broker.pause()
        threading.Timer(3, own_broker.resume).start()

    serve(tmp_path, visit)
    assert values_in(own_broker, name) == Counter(b"/visit/%d" % number for number in range(30))


def listens(address: Path) -> bool:
    """Whether a server takes connections there; the socket's file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(address)) == 0


def ask(address: Path, path: str) -> int:
    """The body of the server's answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(address))
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            return int(answer.read().rpartition(b"\r\n\r\n")[2])
