"""From a frame to its answer: what a node's thread does with each request."""

from __future__ import annotations

import dataclasses
import struct
import time
from typing import TYPE_CHECKING, Any, Final

from fastprod.testing.scripted.connection import Connection
from fastprod.testing.scripted.honest import UNSUPPORTED_VERSION
from fastprod.testing.scripted.log import Verdict
from fastprod.testing.scripted.records import UNKNOWN_SERVER_ERROR, Batch, Problem, read_batch
from fastprod.testing.scripted.releases import Api
from fastprod.testing.scripted.requests import Pending, Request
from fastprod.testing.scripted.script import Act, Rule, Shape
from fastprod.testing.scripted.wire import NoSuchMessageError, api_name, read_request, write_response

if TYPE_CHECKING:
    from fastprod.testing.scripted.broker import ScriptedBroker

_INVALID_REQUIRED_ACKS: Final = 21
_NO_TRANSACTIONAL_ID: Final = 53
_UNSUPPORTED_COMPRESSION_TYPE: Final = 76
_ZSTD: Final = 4
_FIRST_WITH_ZSTD: Final = 7
# Behind the API key, the version and the correlation id.
_CLIENT_ID_AT: Final = 8


class Worker:
    """Deals with the requests of one node, on that node's thread."""

    def __init__(self, broker: ScriptedBroker, node: int) -> None:
        self._broker = broker
        self._node = node

    def handle(self, connection: Connection, frame: bytes) -> None:
        """Note a request and do with it what the script says, or what an honest broker does."""
        request = self._read(connection, frame)
        if request is None:
            connection.close()
            return
        self._broker.came(request)
        if not self._offers(request.api, request.version):
            self._out_of_range(connection, request)
        elif request.message is None:
            self._give_up(connection, request)
        else:
            turn = None if request.api == Api.PRODUCE and request.acks == 0 else connection.turn()
            self._act(connection, Pending(self._broker, request, connection, turn))
        self._broker.happened()

    def cuts(self, api: int, size: int) -> bool:
        """Say whether a request of which so many bytes have come is to be cut off now."""
        return self._broker.script.cut_for(api, self._node, size)

    def malformed(self, what: str) -> None:
        """Note bytes that are no request."""
        self._broker.complain(f"node {self._node}: {what}")

    def failed(self, error: BaseException) -> None:
        """Note an error that the script raised."""
        self._broker.failed(error)

    def _offers(self, api: int, version: int) -> bool:
        low, high = self._broker.offered.get(api, (0, -1))
        return low <= version <= high

    def _read(self, connection: Connection, frame: bytes) -> Request | None:
        api, version, correlation_id = struct.unpack_from(">hhi", frame)
        at = time.monotonic()
        message: Any = None
        client_id = None
        try:
            client_id = _client_id(frame)
            _, message = read_request(frame)
        except NoSuchMessageError:
            pass
        except ValueError as error:
            if self._offers(api, version):
                self.malformed(str(error))
                return None
            # What is not offered is not read either.
        acks = message.acks if api == Api.PRODUCE and message is not None else -1
        return Request(
            api=Api(api) if api in Api.__members__.values() else api,
            version=version,
            correlation_id=correlation_id,
            client_id=client_id,
            node=self._node,
            connection=connection.number,
            at=at,
            message=message,
            acks=acks,
            batches=self._batches(message, version, acks) if api == Api.PRODUCE and message is not None else (),
        )

    def _batches(self, message: Any, version: int, acks: int) -> tuple[Batch, ...]:
        found = []
        for topic in message.topic_data:
            topic_id = getattr(topic, "topic_id", None)
            name = topic.name if hasattr(topic, "name") else self._broker.topic_name(topic_id)
            for part in topic.partition_data:
                batch = read_batch(name, part.index, part.records, topic_id)
                if acks not in (-1, 0, 1):
                    problem: Problem | None = Problem(_INVALID_REQUIRED_ACKS, f"acks={acks}", early=True)
                elif batch.codec == _ZSTD and version < _FIRST_WITH_ZSTD:
                    problem = Problem(_UNSUPPORTED_COMPRESSION_TYPE, f"zstd in Produce {version}", early=True)
                elif batch.codec > _ZSTD and version < _FIRST_WITH_ZSTD:
                    problem = Problem(UNKNOWN_SERVER_ERROR, f"codec {batch.codec}", early=True)
                elif batch.transactional and message.transactional_id is None:
                    problem = Problem(_NO_TRANSACTIONAL_ID, "transactional, and no id", early=True)
                else:
                    problem = batch.problem
                if problem is not None:
                    self._broker.complain(f"node {self._node}: batch for {name}-{part.index}: {problem.why}")
                found.append(dataclasses.replace(batch, problem=problem))
        return tuple(found)

    def _out_of_range(self, connection: Connection, request: Request) -> None:
        if request.api != Api.API_VERSIONS:
            self._give_up(connection, request)
            return
        # The one request that may be too new: it is answered in the oldest layout, which everybody reads.
        oldest = dataclasses.replace(request, version=0)
        response = self._broker.response(oldest, [], UNSUPPORTED_VERSION)
        connection.answer(connection.turn(), write_response(response, request.correlation_id), False, False, 0.0)

    def _give_up(self, connection: Connection, request: Request) -> None:
        self._broker.complain(
            f"node {self._node}: no answer to {api_name(request.api)} {request.version} of {request.client_id!r}"
        )
        connection.close()

    def _act(self, connection: Connection, pending: Pending) -> None:
        rules, batches = self._broker.script.for_request(pending.request)
        chosen = next((rule for rule in rules if rule.act is not Act.ANSWER), None)
        act = Act.ANSWER if chosen is None else chosen.act
        if chosen is not None and act is Act.HOLD:
            if not self._broker.held(pending, chosen):
                pending.answer()
        elif chosen is not None and chosen.decider is not None and act is Act.DECIDE:
            chosen.decider(pending)
        elif act is Act.DROP:
            pending.drop()
        elif act is Act.LOSE:
            pending.lose()
        elif act is Act.IGNORE:
            pending.ignore(applied=any(rule.applied for rule in rules))
        elif not self._broker.answers(pending.request.api):
            self._give_up(connection, pending.request)
        else:
            _answer(pending, rules, batches)


def _answer(pending: Pending, rules: list[Rule], batches: list[tuple[Batch, Rule | None]]) -> None:
    shape: Shape = {}
    for rule in reversed(rules):
        shape.update(rule.shape)
    if not pending.batches:
        if rules and rules[0].code:
            pending.refuse(rules[0].code, **shape)
        else:
            pending.answer(**shape)
        return
    rule_of = {id(batch): rule for batch, rule in batches}

    def judge(batch: Batch) -> Verdict:
        rule = rule_of[id(batch)]
        return pending.honest(batch) if rule is None else rule.verdict(batch, pending.honest)

    pending.answer(judge, **shape)


def _client_id(frame: bytes) -> str | None:
    (size,) = struct.unpack_from(">h", frame, _CLIENT_ID_AT)
    if size < 0:
        return None
    return frame[_CLIENT_ID_AT + 2 : _CLIENT_ID_AT + 2 + size].decode()
