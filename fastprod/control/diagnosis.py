"""Finds out why a cluster cannot be used, step by step, and says what to change.

It needs no producer: where the cluster is down there is none.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Final

from fastprod import errors
from fastprod.addresses import Address as Server
from fastprod.config import ProducerConfig
from fastprod.control.cluster import Broker, MetadataAnswer, TopicAnswer
from fastprod.control.probe import Conversation, Settings, Watch, closed_without_answer, probe
from fastprod.control.wire import NewIdentity, init_producer_id, metadata_of_all
from fastprod.diagnosis import AddressReport, Check, Diagnosis
from fastprod.protocol.versions import INIT_PRODUCER_ID, is_offered

_LOADING: Final = frozenset({14, 15, 16})
_LOADING_S: Final = 2.0
_LOADING_PAUSE_S: Final = 0.1
_CLUSTER_DENIED: Final = 31
_MOST_NAMED: Final = 10


def diagnose(
    config: ProducerConfig, timeout_ms: float = 10_000, topics: Iterable[str] = ()
) -> Diagnosis:
    """Try every bootstrap server and every address that the brokers advertise.

    `timeout_ms` is for all of it; an address that does not answer costs its share of what is left.
    `topics`: must exist and have leaders, beside all others that exist. Blocks, on sockets of its
    own; raises nothing but what Ctrl-C raises, and ValueError for a timeout that is not above 0.
    """
    if not timeout_ms > 0:
        raise ValueError(f"timeout_ms must be above 0, not {timeout_ms!r}")
    return _Examination(config, timeout_ms / 1000, tuple(topics)).run()


class _Examination:
    def __init__(self, config: ProducerConfig, timeout_s: float, topics: tuple[str, ...]) -> None:
        self._servers = config.servers
        self._settings = Settings(config["client_id"], config["receive_message_max_bytes"])
        self._idempotent = config.plane_options().idempotent
        self._topics = topics
        self._began = time.monotonic()
        self._deadline = self._began + timeout_s
        self._reports: list[AddressReport] = []
        self._checks: list[Check] = []
        self._answer: MetadataAnswer | None = None

    def run(self) -> Diagnosis:
        with contextlib.ExitStack() as open_ones:
            speaker = self._bootstrap(open_ones)
            if speaker is not None and self._answer is not None:
                self._advertised(self._answer)
                self._leaders(self._answer)
                if self._idempotent:
                    self._identity(speaker)
        cluster_id = None if self._answer is None else self._answer.cluster_id
        elapsed_ms = (time.monotonic() - self._began) * 1000
        return Diagnosis(tuple(self._reports), tuple(self._checks), cluster_id, elapsed_ms)

    def _share(self, of: int) -> float:
        """Return until when one of so many that still want their turn may take."""
        now = time.monotonic()
        return now + max(0.0, self._deadline - now) / of

    def _bootstrap(self, open_ones: contextlib.ExitStack) -> Conversation | None:
        """Try the bootstrap servers; return the conversation with one that told of the brokers."""
        speaker = None
        for number, server in enumerate(self._servers):
            until = self._share(len(self._servers) - number + 1)
            probed = probe(server, until, self._settings)
            checks = list(probed.checks)
            if probed.conversation is not None:
                open_ones.callback(probed.conversation.close)
                answer = _brokers(probed.conversation, Watch(until), checks)
                if answer is not None and self._answer is None:
                    self._answer, speaker = answer, probed.conversation
            report = AddressReport(str(server), "bootstrap", None, probed.release, tuple(checks))
            self._reports.append(report)
        return speaker

    def _advertised(self, answer: MetadataAnswer) -> None:
        for number, broker in enumerate(answer.brokers):
            # Two more shares: for InitProducerId, and to be done in time.
            until = self._share(len(answer.brokers) - number + 1)
            self._reports.append(self._advertised_one(broker, answer, until))

    def _advertised_one(
        self, broker: Broker, answer: MetadataAnswer, until: float
    ) -> AddressReport:
        server = Server(broker.host, broker.port)
        probed = probe(server, until, self._settings, str(broker.node_id))
        checks = list(probed.checks)
        if probed.conversation is not None:
            with contextlib.closing(probed.conversation):
                found = _brokers(probed.conversation, Watch(until), checks)
            if found is not None and found.cluster_id != answer.cluster_id:
                checks[-1] = Watch(until).failed(
                    "cluster",
                    f"another cluster answers there: {found.cluster_id}, not {answer.cluster_id}",
                    f"Broker {broker.node_id} advertises {server}, which from this machine is "
                    "somebody else. Set its advertised.listeners to an address of its own.",
                )
        return AddressReport(
            str(server), "advertised", broker.node_id, probed.release, tuple(checks)
        )

    def _leaders(self, answer: MetadataAnswer) -> None:
        watch = Watch(self._deadline)
        known = {topic.name: topic for topic in answer.topics}
        before = len(self._checks)
        for name in self._topics:
            if name not in known:
                remedy = "Create it, or check its spelling and the ACL operation Describe on it."
                self._checks.append(watch.failed("leaders", f"topic {name!r} is not there", remedy))
        nodes = {broker.node_id for broker in answer.brokers}
        for topic in answer.topics:
            self._checks.extend(_topic_checks(topic, nodes, watch))
        if len(self._checks) == before:
            count = sum(len(topic.leaders) for topic in answer.topics)
            seen = f"all {count} partitions of {len(answer.topics)} topics have a leader"
            self._checks.append(watch.passed("leaders", seen))

    def _identity(self, speaker: Conversation) -> None:
        watch = Watch(self._deadline)
        if not is_offered(INIT_PRODUCER_ID, speaker.versions):
            seen = "the broker does not offer InitProducerId, which idempotence needs"
            remedy = "Set enable_idempotence=False, and do without its guarantee against duplicates."
            self._checks.append(watch.failed("identity", seen, remedy))
            return
        try:
            identity = _identity_from(speaker, watch)
        except (OSError, errors.KafkaError) as error:
            seen, remedy = closed_without_answer("InitProducerId", error, watch)
            self._checks.append(watch.failed("identity", seen, remedy))
            return
        if identity.error_code == 0:
            seen = f"InitProducerId is allowed (producer id {identity.producer_id})"
            self._checks.append(watch.passed("identity", seen))
            return
        kind = errors.for_code(identity.error_code)
        remedy = "Look at the broker's log."
        if identity.error_code == _CLUSTER_DENIED:
            remedy = (
                "Grant the principal IdempotentWrite on the cluster (brokers before 3.0) or Write "
                "on a topic, or set enable_idempotence=False."
            )
        elif identity.error_code in _LOADING:
            remedy = "The brokers are still starting: try again in a moment."
        seen = f"InitProducerId is refused: {kind.__name__}: {kind.description}"
        self._checks.append(watch.failed("identity", seen, remedy))


def _identity_from(speaker: Conversation, watch: Watch) -> NewIdentity:
    """Ask for a producer id, for a moment again where it is refused for now.

    A broker has its ids from the controller, a block at a time (KIP-730). The first request after
    its start is what makes it ask for one, and is refused meanwhile.
    """
    while True:
        identity: NewIdentity = speaker.ask(init_producer_id(), watch)
        if identity.error_code not in _LOADING:
            return identity
        if time.monotonic() - watch.began > _LOADING_S or watch.left() <= _LOADING_PAUSE_S:
            return identity
        time.sleep(_LOADING_PAUSE_S)


def _brokers(
    conversation: Conversation, watch: Watch, checks: list[Check]
) -> MetadataAnswer | None:
    """Ask who is there; notes how it went. None: no usable answer."""
    try:
        answer: MetadataAnswer = conversation.ask(metadata_of_all(), watch)
    except (OSError, errors.KafkaError) as error:
        checks.append(watch.failed("metadata", *closed_without_answer("Metadata", error, watch)))
        return None
    if answer.error_code or not answer.brokers:
        kind = errors.for_code(answer.error_code)
        why = f"Metadata is refused: {kind.__name__}" if answer.error_code else "it names no broker"
        checks.append(watch.failed("metadata", why, "Is the broker starting? Look at its log."))
        return None
    names = ", ".join(f"{each.node_id} at {Server(each.host, each.port)}" for each in answer.brokers)
    checks.append(watch.passed("metadata", f"it names broker {names}"))
    return answer


def _topic_checks(topic: TopicAnswer, nodes: set[int], watch: Watch) -> list[Check]:
    if topic.error_code:
        kind = errors.for_code(topic.error_code)
        seen = f"topic {topic.name!r}: {kind.__name__}: {kind.description}"
        remedy = "Look at the brokers that hold it, and at the ACLs on it."
        return [watch.failed("leaders", seen, remedy)]
    lost = [number for number, leader in enumerate(topic.leaders) if leader.node_id not in nodes]
    if not lost:
        return []
    shown = ", ".join(map(str, lost[:_MOST_NAMED])) + (", ..." if len(lost) > _MOST_NAMED else "")
    seen = f"topic {topic.name!r}: no leader for {len(lost)} of {len(topic.leaders)} partitions ({shown})"
    return [watch.failed("leaders", seen, "Start the brokers that hold them.")]
