"""Host names to addresses, without ever blocking the control loop.

`getaddrinfo` cannot be interrupted or given a timeout, so it runs in a daemon thread that lives
for one question. A host that is being asked for is not asked for again: a resolver that hangs
costs one thread a host, not one an attempt. Where it takes longer than two seconds, the last
answer serves, whoever got it.

glibc's resolver has locks, and one that another thread holds at a fork stays locked in the child: a
fork waits for a question that is being asked, though not long.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  # else a look-up's thread imports it, perhaps beside a fork
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fastprod.control.loop import Loop, Timer
from fastprod.unforked import Unforked

_PATIENCE_S: Final = 2.0
_QUESTION_S: Final = 1.0
_MOST_REMEMBERED: Final = 1000


class Address(NamedTuple):
    """One way to reach a host: what `socket.socket` and `connect` take. `host` is the name a
    certificate is checked against."""

    family: int
    kind: int
    protocol: int
    sockaddr: tuple[Any, ...]
    host: str

    def __str__(self) -> str:
        ip, port = self.sockaddr[0], self.sockaddr[1]
        return f"[{ip}]:{port}" if self.family == socket.AF_INET6 else f"{ip}:{port}"


Answer = list[Address] | OSError
Receiver = Callable[[Answer], None]
Question = tuple[str, int, bool]

# Of this process, and of the one it was forked from.
_last_answers: OrderedDict[Question, list[Address]] = OrderedDict()


class Resolver:
    """Resolves for one loop; answers arrive on its thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._asking: set[Question] = set()
        self._waiting: dict[Question, list[Receiver]] = {}
        self._patience: dict[Question, Timer] = {}

    def resolve(self, host: str, port: int, canonical: bool, receiver: Receiver) -> None:
        """Have `receiver` called with the addresses of a host, or with the OSError it gave.

        `canonical`: name each address by its reverse look-up
        (client_dns_lookup='resolve_canonical_bootstrap_servers_only').
        """
        question = (host, port, canonical)
        self._waiting.setdefault(question, []).append(receiver)
        if question not in self._patience:
            self._patience[question] = self._loop.call_later(
                _PATIENCE_S, lambda: self._serve_the_last(question)
            )
        if question in self._asking:
            return
        self._asking.add(question)
        thread = threading.Thread(
            target=self._ask, args=question, name=f"fastprod-resolve-{host}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            # No more threads, or the interpreter is on its way out.
            failure = OSError(f"no thread to resolve it with: {error}")
            self._loop.call_threadsafe(lambda: self._answer(question, failure))

    def _ask(self, host: str, port: int, canonical: bool) -> None:
        answer: Answer
        try:
            answer = look_up(host, port, canonical)
        except OSError as error:
            answer = error
        except Exception as error:
            # A name that no resolver takes, such as one with an empty label (UnicodeError).
            answer = OSError(f"not a host name: {error}")
        self._loop.call_threadsafe(lambda: self._answer((host, port, canonical), answer))

    def _answer(self, question: Question, answer: Answer) -> None:
        self._asking.discard(question)
        if not isinstance(answer, OSError):
            _last_answers.pop(question, None)
            _last_answers[question] = answer
            if len(_last_answers) > _MOST_REMEMBERED:
                _last_answers.popitem(last=False)
        self._serve(question, answer)

    def _serve_the_last(self, question: Question) -> None:
        del self._patience[question]
        known = _last_answers.get(question)
        if known is not None:
            self._serve(question, known)

    def _serve(self, question: Question, answer: Answer) -> None:
        patience = self._patience.pop(question, None)
        if patience is not None:
            patience.cancel()
        for receiver in self._waiting.pop(question, []):
            receiver(answer)


def look_up(host: str, port: int, canonical: bool) -> list[Address]:
    """Return the addresses of a host in the resolver's order; blocks. Raises OSError."""
    with Unforked(_QUESTION_S):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [
        Address(family, kind, protocol, sockaddr, host)
        for family, kind, protocol, _, sockaddr in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
    addresses = list(dict.fromkeys(addresses))
    if canonical:
        addresses = [each._replace(host=_canonical_name(each, host)) for each in addresses]
    if not addresses:
        raise OSError("the name has no IPv4 or IPv6 address")
    return addresses


def _canonical_name(address: Address, fallback: str) -> str:
    try:
        with Unforked(_QUESTION_S):
            return socket.gethostbyaddr(str(address.sockaddr[0]))[0]
    except OSError:
        return fallback
