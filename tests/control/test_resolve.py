"""Looking up names in a process whose resolver may hang, for a while or for good."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
from patience import check_time, eventually

from fastprod.control import resolve
from fastprod.control.journal import Journal
from fastprod.control.loop import Loop
from fastprod.control.resolve import Address, Resolver

NAME = "some-host.test"


class Names:
    """What the system's resolver says; it hangs while `go_on` is not set."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.asked = 0
        self.ip = "192.0.2.1"

    def look_up(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        self.asked += 1
        self.go_on.wait()
        if host != NAME:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.ip, port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.look_up)
    monkeypatch.setattr(resolve, "_last_answers", OrderedDict())
    yield made
    made.go_on.set()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop(Journal("test"))
    yield made
    made.close()


def look_up(loop: Loop, resolver: Resolver, seconds: float = 20.0, name: str = NAME) -> Any:
    """What the resolver answers: "ip:port", an error, or None if nothing came in that time."""
    came: list[Any] = []
    resolver.resolve(name, 9092, False, came.append)
    deadline = time.monotonic() + seconds
    while not came and time.monotonic() < deadline:
        loop.run_once(0.01)
    if not came:
        return None
    (answer,) = came
    if isinstance(answer, OSError):
        return answer
    (address,) = answer
    assert isinstance(address, Address)
    return str(address)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_forks_do_not_come_into_the_middle_of_a_look_up(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    began, resolvers = threading.Event(), threading.Lock()

    def slow(*_: Any, **__: Any) -> list[Any]:
        with resolvers:
            began.set()
            time.sleep(0.1)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 9092))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    Resolver(loop).resolve(NAME, 9092, False, lambda _: None)
    assert began.wait(20)
    child = os.fork()
    if child == 0:
        os._exit(resolvers.locked())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_last_answer_serves_while_the_next_one_does_not_come(loop: Loop, names: Names) -> None:
    assert look_up(loop, Resolver(loop)) == "192.0.2.1:9092"
    names.go_on.clear()
    names.ip = "192.0.2.2"
    other = Resolver(loop)   # that of a forked child, say
    for _ in range(2):
        began = time.monotonic()
        assert look_up(loop, other) == "192.0.2.1:9092"
        check_time("the last answer", time.monotonic() - began, 2.0, at_least_s=2.0)
    assert names.asked == 2, "it hangs, and is not asked again"
    names.go_on.set()
    eventually(lambda: look_up(loop, other) == "192.0.2.2:9092")


def test_an_answer_that_comes_in_time_is_the_one_that_counts(loop: Loop, names: Names) -> None:
    resolver = Resolver(loop)
    assert look_up(loop, resolver) == "192.0.2.1:9092"
    names.ip = "192.0.2.2"
    assert look_up(loop, resolver) == "192.0.2.2:9092"
    assert look_up(loop, resolver) == "192.0.2.2:9092"


def test_nobody_knows_a_name_that_was_never_looked_up(loop: Loop, names: Names) -> None:
    resolver = Resolver(loop)
    names.go_on.clear()
    assert look_up(loop, resolver, 2.5) is None
    names.go_on.set()
    assert look_up(loop, resolver) == "192.0.2.1:9092"


def test_what_another_one_learned_serves_as_well(loop: Loop, names: Names) -> None:
    """And those who had asked before anybody knew are not forgotten."""
    resolver = Resolver(loop)
    names.go_on.clear()
    assert look_up(loop, resolver, 2.5) is None
    address = Address(socket.AF_INET, socket.SOCK_STREAM, 6, ("192.0.2.3", 9092), NAME)
    resolve._last_answers[NAME, 9092, False] = [address]
    assert look_up(loop, resolver) == "192.0.2.3:9092"
    assert resolver._waiting == {}


def test_only_so_many_are_remembered(
    loop: Loop, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "_MOST_REMEMBERED", 3)
    resolver = Resolver(loop)
    for port in (1, 2, 3, 1, 4, 5):
        came: list[Any] = []
        resolver.resolve(NAME, port, False, came.append)
        eventually(lambda: loop.run_once(0.01) or came)   # noqa: B023
    assert [port for _, port, _ in resolve._last_answers] == [1, 4, 5]


def test_a_name_that_is_gone_is_gone(loop: Loop, names: Names) -> None:
    """A failure is an answer as well."""
    resolver = Resolver(loop)
    resolve._last_answers["gone.test", 9092, False] = [
        Address(socket.AF_INET, socket.SOCK_STREAM, 6, ("192.0.2.9", 9092), "gone.test")
    ]
    assert isinstance(look_up(loop, resolver, name="gone.test"), socket.gaierror)
