"""`ScriptedBroker`: a broker double that answers honestly until it is told otherwise."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from fastprod.testing.scripted.cluster import Cluster
from fastprod.testing.scripted.honest import Honest
from fastprod.testing.scripted.log import Verdict
from fastprod.testing.scripted.node import HOST, Node
from fastprod.testing.scripted.records import Batch
from fastprod.testing.scripted.releases import Api, release
from fastprod.testing.scripted.requests import Pending, Request
from fastprod.testing.scripted.script import Rule, Script, Target
from fastprod.testing.scripted.serving import Worker
from fastprod.testing.scripted.wire import api_name, require_packages

_WAIT_S: Final = 20.0
_QUIET_S: Final = 0.3


class ScriptedBroker(Cluster):
    """A cluster in memory behind real sockets on 127.0.0.1, as a context manager. It listens from the start.

    Without a script it does what Apache Kafka does with a producer's requests: it checks batches, leaders, sequences
    and epochs, assigns offsets and producer ids, and keeps a log. With one it does what the test says: see `on`,
    `on_produce` and `next_produce`, and for the cluster `move_leader`, `down`, `add_partitions` and the like. Messages
    are read and written by the package kio, batches by a reader of its own. Groups, fetching and transactions are not
    played: such a request ends its connection.

    Args:
        topics: names and how many partitions each has.
        version: the release whose API versions and ways are imitated: "2.1", "2.4", "3.3", "4.0" or "4.3".
        nodes: how many there are, 1, 2 and so on; each has a port.
        auto_create: partitions of a topic that a client asks for and nobody has made; 0: it stays unknown.

    Raises:
        MissingExtraError: a package of the extra `scripted` is missing.
        ValueError: no such version.

    Attributes:
        requests: every request that came, in order.
        offered: the API versions that are told and taken, key -> (lowest, highest). Change it at will.
        next_identity: producer id and epoch that InitProducerId gives from now on; None: new ids from 1000 on.
        auto_create: as above.
        complaints: what came and was no sound request, or is none that this double can answer.
    """

    def __init__(
        self,
        topics: Mapping[str, int] | None = None,
        *,
        version: str = "4.3",
        nodes: int = 1,
        auto_create: int = 1,
    ) -> None:
        require_packages()
        if nodes < 1:
            raise ValueError(f"nodes={nodes!r}: at least 1")
        imitated = release(version)
        super().__init__(imitated, nodes, topics or {})
        self.version = version
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        self._changed = threading.Condition(self.lock)
        self.script = Script(self.lock)
        self._waiting: list[Pending] = []
        self._hand: Rule | None = None
        self._unlisted: set[int] = set()
        self._errors: list[BaseException] = []
        self._closed = False
        self._honest = Honest(self, imitated, self._addresses, auto_create)
        self._nodes = {number: Node(number, Worker(self, number)) for number in self._node_ids}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, as `close` does; an error of the block's own comes before those of the script."""
        if error is None:
            self.close()
        else:
            self._end()

    def close(self) -> None:
        """Close every port and connection and end the threads, and raise the first error that a `judge`, `edit` or
        condition of the script raised. A second call does nothing."""
        self._end()
        if self._errors:
            error = self._errors[0]
            self._errors.clear()
            raise error

    def _end(self) -> None:
        with self.lock:
            self._closed = True
            self._changed.notify_all()
        for node in self._nodes.values():
            node.end()

    # ---- where it is

    @property
    def bootstrap_servers(self) -> str:
        """The address to give to clients: "127.0.0.1:port", comma-separated if there are several nodes."""
        return ",".join(self.address(node) for node in self._nodes)

    def address(self, node: int = 1) -> str:
        """Return one node's address, "127.0.0.1:port"."""
        return f"{HOST}:{self._node(node).port}"

    # ---- what it is told

    def on(
        self,
        api: int | None = None,
        *,
        node: int | None = None,
        when: Callable[[Request], bool] | None = None,
        times: int | None = None,
    ) -> Rule:
        """Begin a rule about requests of an API (None: any), to one node or any, for which `when` is true.

        The verb that follows says what becomes of them: `broker.on(Api.METADATA, times=2).refuse(5)`. `times`: how
        many requests it is about; None: all, until it is removed or a newer such rule fits. Rules with a number are
        used up first, in the order they were given. ValueError for a node that is not there.
        """
        return self._rule(Target(api=api, node=node, request=when), times)

    def on_produce(
        self,
        topic: str | None = None,
        partition: int | None = None,
        *,
        node: int | None = None,
        when: Callable[[Batch], bool] | None = None,
        times: int | None = None,
    ) -> Rule:
        """Begin a rule about Produce requests with a batch for that topic and partition (None: any) for which `when`
        is true. Its verdict is about such batches; others in the same request are judged apart."""
        return self._rule(Target(Api.PRODUCE, node, topic, partition, batch=when), times)

    @property
    def by_hand(self) -> bool:
        """Whether Produce requests wait for the test (`next_produce`), unless another rule is about them. When it is
        switched off those that still wait are answered honestly."""
        return self._hand is not None

    @by_hand.setter
    def by_hand(self, wanted: bool) -> None:
        with self.lock:
            if self._hand is not None:
                self._hand.remove()
            self._hand = self.on_produce().hold() if wanted else None
            left = [] if wanted else self._held(Api.PRODUCE)
            self._waiting = [each for each in self._waiting if each not in left]
        for pending in left:
            pending.answer()

    def next_produce(self, timeout_s: float = _WAIT_S) -> Pending:
        """Return the next Produce request that waits for the test, waiting for it up to `timeout_s`.

        Raises:
            AssertionError: none came, or none is held: that takes `by_hand = True` or a rule with `hold()`.
        """
        return self.next(Api.PRODUCE, timeout_s)

    def next(self, api: int, timeout_s: float = _WAIT_S) -> Pending:
        """Return the next request of an API that waits for the test. AssertionError as for `next_produce`."""
        with self._changed:
            if not self._held(api) and not self.script.holds(api):
                raise AssertionError(
                    f"no {api_name(api)} request is held: say broker.by_hand = True or broker.on(...).hold() first"
                )
            self._changed.wait_for(lambda: self._held(api) or self._closed, timeout_s)
            held = self._held(api)
            if not held:
                raise AssertionError(
                    f"no {api_name(api)} request came within {timeout_s} s; there were {self._summary()}"
                )
            self._waiting.remove(held[0])
            return held[0]

    def nothing_more(self, quiet_s: float = _QUIET_S, api: int = Api.PRODUCE) -> None:
        """Raise AssertionError if a request of the API waits for the test or comes within that time, in seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._held(api) or self._closed, quiet_s)
            if self._held(api):
                stamps = [[batch.stamp for batch in each.batches] for each in self._held(api)]
                raise AssertionError(f"unexpected {api_name(api)} request: {stamps}")

    # ---- what came

    @property
    def batches(self) -> list[Batch]:
        """Every batch that came, in order, whatever became of it."""
        with self.lock:
            return [batch for request in self.requests for batch in request.batches]

    def requests_of(self, api: int) -> list[Request]:
        """Return every request of an API that came."""
        with self.lock:
            return [each for each in self.requests if each.api == api]

    def count(self, api: int) -> int:
        """Return how many requests of an API came."""
        return len(self.requests_of(api))

    def wait_for(self, api: int, count: int = 1, timeout_s: float = _WAIT_S) -> list[Request]:
        """Wait until so many requests of an API have come in all, and return them; AssertionError if they do not."""
        self.wait_until(lambda: self.count(api) >= count, timeout_s, f"{count} {api_name(api)} requests")
        return self.requests_of(api)

    def wait_until(self, condition: Callable[[], object], timeout_s: float = _WAIT_S, what: str = "it") -> None:
        """Wait until a condition on this broker is true: it is looked at whenever a request has been dealt with.

        Raises:
            AssertionError: it was not within `timeout_s`; `what` names it.
        """
        with self._changed:
            if not self._changed.wait_for(condition, timeout_s):
                raise AssertionError(f"{what} did not happen within {timeout_s} s; there were {self._summary()}")

    # ---- nodes

    def down(self, node: int = 1, *, noticed: bool = False) -> None:
        """Take a node off the network: its connections end and new ones are refused. Leaders stay where they are, as
        in the first seconds after a crash. `noticed`: the others no longer name it."""
        self._node(node).refuse_connections()
        self._node(node).drop_connections()
        with self.lock:
            self._unlisted.update({node} if noticed else ())

    def up(self, node: int = 1) -> None:
        """Bring a node back, on its old port."""
        with self.lock:
            self._unlisted.discard(node)
        self._node(node).accept_connections()

    def pause(self, node: int = 1) -> None:
        """Freeze a node: connections stay open, and it reads, answers and accepts nothing."""
        self._node(node).pause()

    def resume(self, node: int = 1) -> None:
        """Let a paused node go on."""
        self._node(node).resume()

    def refuse_connections(self, node: int = 1) -> None:
        """Refuse new connections to a node; those that there are stay. `up` takes them again."""
        self._node(node).refuse_connections()

    def drop_connections(self, node: int | None = None) -> None:
        """Close every connection to a node, or to all."""
        for each in self._nodes if node is None else (node,):
            self._node(each).drop_connections()

    def connections(self, node: int = 1) -> int:
        """Return how many connections to a node are open."""
        return len(self._node(node).connections)

    # ---- what is given to InitProducerId and ApiVersions

    @property
    def offered(self) -> dict[int, tuple[int, int]]:
        """API key -> lowest and highest version."""
        return self._honest.offered

    @property
    def next_identity(self) -> tuple[int, int] | None:
        """Producer id and epoch that InitProducerId gives; None: a new id each time."""
        return self._honest.next_identity

    @next_identity.setter
    def next_identity(self, identity: tuple[int, int] | None) -> None:
        self._honest.next_identity = identity

    @property
    def auto_create(self) -> int:
        """Partitions of a topic that a client asks for and nobody has made; 0: it stays unknown."""
        return self._honest.auto_create

    @auto_create.setter
    def auto_create(self, partitions: int) -> None:
        self._honest.auto_create = partitions

    def response(self, request: Request, told: list[tuple[Batch, Verdict]], code: int) -> Any:
        """Return the response (kio's message) to a request: Produce with these verdicts, others honest or refused."""
        if request.api == Api.PRODUCE:
            return self._honest.produced(request, told)
        return self._honest.answer(request, code)

    # ---- what the nodes' threads report

    def answers(self, api: int) -> bool:
        """Say whether this double has an honest answer to an API."""
        return api == Api.PRODUCE or self._honest.answers(api)

    def came(self, request: Request) -> None:
        """Note a request."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def happened(self) -> None:
        """Let those who wait look again: a request has been dealt with."""
        with self._changed:
            self._changed.notify_all()

    def held(self, pending: Pending, rule: Rule) -> bool:
        """Leave a request to the test; False if the rule that says so has been ended meanwhile."""
        with self._changed:
            if self.script.ended(rule):
                return False
            self._waiting.append(pending)
            self._changed.notify_all()
            return True

    def complain(self, what: str) -> None:
        """Note what no sound client sends, or this double cannot answer."""
        with self._changed:
            self.complaints.append(what)

    def failed(self, error: BaseException) -> None:
        """Note an error in the script, to be raised at the end."""
        with self._changed:
            self._errors.append(error)

    def _addresses(self) -> dict[int, tuple[str, int]]:
        return {number: (HOST, node.port) for number, node in self._nodes.items() if number not in self._unlisted}

    def _rule(self, target: Target, times: int | None) -> Rule:
        if target.node is not None:
            self._node(target.node)
        return self.script.add(target, times)

    def _node(self, node: int) -> Node:
        if node not in self._nodes:
            raise ValueError(f"node={node!r}: there are {sorted(self._nodes)}")
        return self._nodes[node]

    def _held(self, api: int) -> list[Pending]:
        return [each for each in self._waiting if each.request.api == api]

    def _summary(self) -> str:
        counts = Counter(api_name(each.api) for each in self.requests)
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "no requests"
