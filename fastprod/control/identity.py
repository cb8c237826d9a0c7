"""The producer id and its epoch (KIP-98, KIP-360).

    NONE --InitProducerId asked--> ASKED --answered--> HELD --epochs used up--> ASKED
                                     |  ^                |        or another cluster
                                 refused: wait        bump: epoch + 1, nobody is asked

While there is none the data plane lets nothing idempotent leave. What is refused for good (a
missing permission) fails what is queued and is asked again all the same: permissions change.

A broker answers a connection's requests in turn, so one that never answers this one answers nothing
behind it either. When that has ended the connection, metadata is asked for first on the next one,
and this again only after that was answered: whoever waits for a topic waits for one request
timeout, and not as long as there is no producer id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastprod import errors
from fastprod.control import wire
from fastprod.control.backoff import backoff_ms, retry_cap_ms
from fastprod.control.channel import Channel
from fastprod.control.journal import Journal
from fastprod.control.loop import Loop, Timer
from fastprod.control.seam import Plane

LAST_EPOCH: Final = 32767
_NONE: Final = (-1, -1)
_CLUSTER_DENIED: Final = 31
_MISSING: Final = "there is no producer id, InitProducerId"


class Identity:
    """Control thread only. Does nothing until `start`."""

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        plane: Plane,
        journal: Journal,
        retry_backoff_ms: float,
        on_unsupported: Callable[[Exception], None],
        on_unanswered: Callable[[], None],
    ) -> None:
        """`on_unsupported`: the broker has no InitProducerId that we could use. `on_unanswered`:
        the connection ended instead; `metadata_came` is waited for."""
        self.current: tuple[int, int] = _NONE
        # Ids that another cluster gave, with the last epoch that was used under each there.
        self._elsewhere: dict[int, int] = {}
        self._loop = loop
        self._channel = channel
        self._plane = plane
        self._journal = journal
        self._retry_backoff_ms = retry_backoff_ms
        self._on_unsupported = on_unsupported
        self._on_unanswered = on_unanswered
        self._asking = False
        self._unanswered = False
        self._stopped = False
        self._failures = 0
        self._retry: Timer | None = None

    def start(self) -> None:
        """Ask for a producer id."""
        if self._asking or self._stopped:
            return
        self._asking = True
        if not self._failures:
            self._plane.set_trouble(None, f"{_MISSING} is not answered yet")
        self._channel.submit(wire.init_producer_id(), self._answered)

    def metadata_came(self) -> None:
        """A broker has answered Metadata, and may be asked for a producer id behind it."""
        if self._unanswered:
            self._unanswered = False
            self.start()

    def other_cluster(self) -> None:
        """Metadata came from another cluster than before. The id is somebody else's there, or will
        be: two producers under one id are refused as old epochs, or taken for each other's
        duplicates."""
        if self.current == _NONE or self._stopped:
            return
        self._elsewhere[self.current[0]] = self.current[1]
        self._journal.info(
            "Producer id %s is of another cluster; asking for another", self.current[0]
        )
        self._adopt(*_NONE)
        self.start()

    def stop(self) -> None:
        """Ask no more (closing, or no idempotence after all)."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()

    def need_epoch(self, topic: str, partition: int, producer_id: int, epoch: int) -> None:
        """A partition is blocked under (producer_id, epoch) and needs a newer identity."""
        if (producer_id, epoch) != self.current or self._stopped:
            # Another partition asked first; the newer identity serves both.
            return
        if epoch < LAST_EPOCH:
            self._adopt(producer_id, epoch + 1)
            why = f"{topic!r} partition {partition} could not go on under epoch {epoch}"
            self._journal.debug("Producer id %s: epoch %s, because %s", *self.current, why)
            return
        self._journal.info("Producer id %s has used up its epochs; asking for another", producer_id)
        self._adopt(*_NONE)
        self.start()

    def _adopt(self, producer_id: int, epoch: int) -> None:
        self.current = (producer_id, epoch)
        self._plane.set_trouble(None, "")
        self._plane.set_identity(producer_id, epoch)

    def _answered(self, answer: wire.NewIdentity | None, error: Exception | None) -> None:
        self._asking = False
        if self._stopped:
            return
        if answer is not None and answer.error_code == 0:
            # Partitions are blocked under what they were stamped with: a cluster that gives the same
            # id as the one before must not make that valid again.
            epoch = max(answer.epoch, self._elsewhere.get(answer.producer_id, -1) + 1)
            if epoch > LAST_EPOCH:
                self._try_again()
                return
            self._failures = 0
            self._adopt(answer.producer_id, epoch)
            self._journal.debug("Producer id %s, epoch %s", *self.current)
            return
        if error is not None:
            if isinstance(error, errors.UnsupportedVersionError):
                self._plane.set_trouble(None, "")
                self._on_unsupported(error)
            else:
                self._plane.set_trouble(None, f"{_MISSING} was not answered: {error.args[0]}")
                self._unanswered = True
                self._on_unanswered()
            return
        if answer is not None:
            kind = errors.for_code(answer.error_code)
            told = f"{_MISSING} was refused with {kind.__name__}: {kind.description}"
            if not errors.is_retriable(answer.error_code):
                self._refused(answer.error_code)
            self._plane.set_trouble(None, told)
        self._try_again()

    def _refused(self, code: int) -> None:
        error = refused_error(code)
        if self._failures == 0:
            self._journal.error("%s", error)
        # The error says it all. What was sent before, too: it waits for an epoch to go on under.
        self._plane.set_trouble(None, "")
        self._plane.fail_queued(error, sent=True)

    def _try_again(self) -> None:
        self._failures += 1
        base = self._retry_backoff_ms
        delay_ms = backoff_ms(base, retry_cap_ms(base), self._failures)
        self._retry = self._loop.call_later(delay_ms / 1000, self.start)


def refused_error(code: int) -> Exception:
    """Return the error of records that cannot leave because there is no producer id."""
    kind = errors.for_code(code)
    remedy = "Set enable_idempotence=False to do without the guarantee against duplicates."
    if code == _CLUSTER_DENIED:
        remedy = (
            "Grant the principal the ACL operation IdempotentWrite on the cluster, or Write on a "
            "topic, or set enable_idempotence=False and do without the guarantee against "
            "duplicates."
        )
    error = kind(f"The brokers refuse a producer id (InitProducerId): {kind.description} {remedy}")
    error.maybe_written = False
    return error
