"""Carries verdicts out: what `verdict.judge` decides about a parked batch is done to it here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from fastprod import _backend
from fastprod.control import refusals, splitting
from fastprod.control.backoff import backoff_ms, retry_cap_ms
from fastprod.control.cluster import Broker, Cluster, Leader
from fastprod.control.journal import Journal
from fastprod.control.loop import Loop
from fastprod.control.metadata import Metadata
from fastprod.control.refusals import Refusal
from fastprod.control.seam import Parked, Plane
from fastprod.control.verdict import SETTLE_MS, Action, BatchFacts, Rules, Verdict, judge

_SAME_FAILURE_S: Final = 10.0
_MOST_ANNOUNCED: Final = 1000


class ArbiterSettings(NamedTuple):
    """`largest_body`: bytes that the records of one batch can have uncompressed."""

    retry_backoff_ms: float
    request_timeout_ms: float
    largest_body: int


class Arbiter:
    """Control thread only. Whatever happens, every batch it is given gets a verdict."""

    def __init__(
        self,
        loop: Loop,
        plane: Plane,
        metadata: Metadata,
        journal: Journal,
        settings: ArbiterSettings,
        rules: Rules,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        self.rules = rules
        self.fatal: Exception | None = None
        self._loop = loop
        self._plane = plane
        self._metadata = metadata
        self._cluster: Cluster = metadata.cluster
        self._journal = journal
        self._settings = settings
        self._on_fatal = on_fatal
        self._sizes = splitting.SizeMemory()
        self._announced: dict[tuple[str, int], float] = {}

    def handle(self, parked: Parked) -> None:
        """Judge a parked batch and do what the verdict says."""
        try:
            self._carry_out(parked, judge(_facts(parked), self.rules, self._loop.now()))
        except Exception as error:
            # A batch without a verdict blocks its partition for good and never ends.
            self._journal.error("Internal error about a parked batch: %r", error, cause=error)
            failure = refusals.internal_error(parked.topic, parked.partition, error)
            self._plane.fail(parked, failure, unknown=True)

    def forget_sizes(self, topic: str) -> None:
        """The topic's limit may have been raised."""
        self._sizes.forget(topic)

    def _carry_out(self, parked: Parked, verdict: Verdict) -> None:
        self._journal.debug(
            "%r partition %s: code %s, attempt %s: %s",
            *(parked.topic, parked.partition, parked.error_code, parked.attempts, verdict),
        )
        hinted = verdict.hint and self._take_hint(parked)
        if verdict.refresh:
            self._metadata.refresh(parked.topic)
        if verdict.action is Action.SUCCEED:
            self._plane.succeed(parked, -1, -1)
        elif self.fatal is not None and verdict.action is not Action.FAIL:
            refusal = _refusal(parked, verdict, self._loop.now())
            error = refusals.ended_with(self.fatal, refusal)
            self._plane.fail(parked, error, unknown=verdict.unknown)
        elif verdict.action is Action.RETRY:
            self._retry(parked, verdict, hinted)
        elif verdict.action is Action.SPLIT:
            self._split(parked)
        else:
            self._fail(parked, verdict)

    def _retry(self, parked: Parked, verdict: Verdict, hinted: bool) -> None:
        leader = self._cluster.leader_of(parked.topic, parked.partition)
        if hinted or leader not in (-1, parked.node_id):
            # A newer leader is known: it has nothing to recover from (KIP-951).
            delay_ms = 0.0
        else:
            base = self._settings.retry_backoff_ms
            delay_ms = backoff_ms(base, retry_cap_ms(base), max(1, parked.attempts))
            if verdict.unknown and verdict.renumber and not parked.settled:
                delay_ms = max(delay_ms, SETTLE_MS)
        self._plane.retry(parked, delay_ms, unknown=verdict.unknown, renumber=verdict.renumber)

    def _take_hint(self, parked: Parked) -> bool:
        if parked.leader_hint is None:
            return False
        node_id, epoch, host, port = parked.leader_hint
        address = Broker(node_id, host, port) if host else None
        leader = Leader(node_id, epoch)
        if not self._cluster.apply_hint(parked.topic, parked.partition, leader, address):
            return False
        self._metadata.hinted(parked.topic)
        return True

    def _fail(self, parked: Parked, verdict: Verdict) -> None:
        refusal = _refusal(parked, verdict, self._loop.now())
        own: dict[int, Exception] | None = None
        if verdict.expired:
            error = refusals.expired_error(refusal, self.rules.delivery_timeout_s * 1000)
        elif parked.record_errors:
            error, own = refusals.record_errors(refusal, list(parked.record_errors))
        else:
            error = refusals.batch_error(refusal, self._settings.request_timeout_ms)
        if not parked.done:
            # Its text: a log record that somebody keeps must not keep what the error will hold once it was raised.
            told = refusals.summary(own, parked.record_count) if own else str(error)
            self._announce(parked, told)
        if verdict.action is Action.FATAL:
            # First: whoever has seen the error must find that nothing more is accepted.
            self._on_fatal(refusals.end_of_all(refusal))
        self._plane.fail(parked, error, unknown=verdict.unknown, record_errors=own)

    def _announce(self, parked: Parked, told: str) -> None:
        """Log a failure; the same one of a topic again only after a while. Futures tell of all."""
        now = self._loop.now()
        what = (parked.topic, parked.error_code)
        if now - self._announced.get(what, float("-inf")) < _SAME_FAILURE_S:
            self._journal.debug("%s", told)
            return
        self._journal.warning("%s", told)
        self._announced.pop(what, None)
        self._announced[what] = now
        while len(self._announced) > _MOST_ANNOUNCED:
            del self._announced[next(iter(self._announced))]

    def _split(self, parked: Parked) -> None:
        """10: in two or more. New batches of the topic are made smaller, too."""
        limit = self._sizes.refused(parked.topic, parked.size)
        self._plane.set_leader_limit(parked.topic, limit)
        self._metadata.limited(parked.topic)
        plain = splitting.plain_body(parked, self._settings.largest_body)
        records = _backend.decode_records(plain, parked.base_timestamp, parked.record_count)
        groups = splitting.groups(records, limit / max(1, parked.size))
        self._journal.info(
            "Topic %r refuses a batch of %s bytes; sending it in %s parts, new ones smaller",
            *(parked.topic, parked.size, len(groups)),
        )
        self._plane.split(parked, groups)


def _facts(parked: Parked) -> BatchFacts:
    return BatchFacts(
        error_code=parked.error_code,
        record_count=parked.record_count,
        attempts=parked.attempts,
        created=parked.created,
        done=parked.done,
        reached=parked.reached,
        unknown=parked.unknown,
        overtaken=parked.overtaken,
        later_unknown=parked.later_unknown,
        later_lost=parked.later_lost,
        settled=parked.settled,
        base_sequence=parked.base_sequence,
        last_acked_sequence=parked.last_acked_sequence,
        last_acked_offset=parked.last_acked_offset,
        unresolved_sequence=parked.unresolved_sequence,
        log_start_offset=parked.log_start_offset,
        has_record_errors=bool(parked.record_errors),
        split=parked.split,
    )


def _refusal(parked: Parked, verdict: Verdict, now: float) -> Refusal:
    return Refusal(
        parked.topic,
        parked.partition,
        parked.node_id,
        parked.record_count,
        parked.size,
        (now - parked.created) * 1000,
        parked.attempts,
        parked.error_code,
        parked.error_message,
        verdict.unknown,
    )
