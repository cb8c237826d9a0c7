"""Producer id and epoch: asked for, bumped, used up, refused."""

from __future__ import annotations

import pytest

from fastprod import errors
from fastprod.control.identity import LAST_EPOCH, Identity
from fastprod.control.wire import NewIdentity

from .doubles import ManualChannel, ManualLoop, RecordingPlane, quiet


class Rig:
    """An Identity with doubles all around."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.channel = ManualChannel()
        self.plane = RecordingPlane()
        self.unsupported: list[Exception] = []
        self.refreshed = 0
        self.identity = Identity(
            self.loop, self.channel, self.plane, quiet(), 100, self.unsupported.append, self.refresh
        )

    def refresh(self) -> None:
        self.refreshed += 1

    def held(self, producer_id: int = 7, epoch: int = 0) -> Rig:
        self.identity.start()
        self.channel.answer(NewIdentity(0, producer_id, epoch))
        return self


def test_it_is_asked_for_without_a_transactional_id() -> None:
    rig = Rig().held()
    assert rig.channel.asked[0].transactional_id is None
    assert rig.channel.asked[0].transaction_timeout_ms == 2**31 - 1
    assert rig.plane.named("set_identity") == [(7, 0)]


def test_only_once_at_a_time() -> None:
    rig = Rig()
    rig.identity.start()
    rig.identity.start()
    assert len(rig.channel.asked) == 1


def test_why_nothing_leaves_is_told_until_there_is_one() -> None:
    rig = Rig()
    rig.identity.start()
    assert rig.plane.named("set_trouble")[-1] == (None, "there is no producer id, InitProducerId is not answered yet")
    rig.channel.answer(None, errors.KafkaConnectionError("it was cut"))
    assert "was not answered: it was cut" in rig.plane.named("set_trouble")[-1][1]
    rig.identity.metadata_came()
    rig.channel.answer(NewIdentity(0, 7, 0))
    assert rig.plane.named("set_trouble")[-1] == (None, "")


@pytest.mark.parametrize("code", [7, 14, 15, 16, 51])
def test_retriable_errors_are_asked_again_with_backoff(code: int) -> None:
    rig = Rig()
    rig.identity.start()
    for attempt in range(5):
        rig.channel.answer(NewIdentity(code, -1, -1))
        rig.loop.advance(0.07)
        assert not rig.channel.open
        rig.loop.advance(1.3)
        assert len(rig.channel.asked) == attempt + 2
    assert {name for name, _ in rig.plane.calls} == {"set_trouble"}
    assert "InitProducerId was refused with" in rig.plane.named("set_trouble")[-1][1]


def test_it_is_asked_again_behind_metadata_when_a_connection_was_lost() -> None:
    rig = Rig()
    rig.identity.start()
    rig.channel.answer(error=errors.KafkaConnectionError("gone"))
    assert rig.refreshed == 1
    rig.loop.advance(60)
    assert len(rig.channel.asked) == 1, "before metadata came"
    rig.identity.metadata_came()
    rig.channel.answer(NewIdentity(0, 7, 0))
    assert rig.identity.current == (7, 0)
    rig.identity.metadata_came()
    assert len(rig.channel.asked) == 2


@pytest.mark.parametrize("code", [31, 53, 42, -1])
def test_refusals_fail_what_waits_and_are_asked_again(code: int) -> None:
    rig = Rig()
    rig.identity.start()
    rig.channel.answer(NewIdentity(code, -1, -1))
    (error,) = rig.plane.named("fail_queued")[0][:1]
    assert isinstance(error, errors.for_code(code))
    assert "enable_idempotence=False" in str(error)
    assert error.maybe_written is False
    rig.loop.advance(1)
    rig.channel.answer(NewIdentity(0, 7, 0))
    assert rig.identity.current == (7, 0)


def test_no_common_version() -> None:
    rig = Rig()
    rig.identity.start()
    rig.channel.answer(error=errors.UnsupportedVersionError("too old"))
    assert len(rig.unsupported) == 1
    rig.loop.advance(60)
    assert len(rig.channel.asked) == 1


class TestBump:
    def test_the_epoch_grows_without_asking(self) -> None:
        rig = Rig().held()
        rig.identity.need_epoch("t", 0, 7, 0)
        assert rig.plane.named("set_identity")[-1] == (7, 1)
        assert len(rig.channel.asked) == 1

    def test_two_partitions_share_a_bump(self) -> None:
        rig = Rig().held()
        rig.identity.need_epoch("t", 0, 7, 0)
        rig.identity.need_epoch("t", 1, 7, 0)
        assert rig.identity.current == (7, 1)
        rig.identity.need_epoch("t", 1, 7, 1)
        assert rig.identity.current == (7, 2)

    def test_another_id_is_old_news(self) -> None:
        rig = Rig().held()
        rig.identity.need_epoch("t", 0, 6, 0)
        assert rig.identity.current == (7, 0)

    def test_the_last_epoch_asks_for_another_id(self) -> None:
        rig = Rig().held(epoch=32766)
        rig.identity.need_epoch("t", 0, 7, 32766)
        assert rig.identity.current == (7, 32767)
        rig.identity.need_epoch("t", 0, 7, 32767)
        assert rig.plane.named("set_identity")[-1] == (-1, -1)
        rig.identity.need_epoch("t", 1, 7, 32767)
        assert len(rig.channel.asked) == 2
        rig.channel.answer(NewIdentity(0, 8, 0))
        assert rig.plane.named("set_identity")[-1] == (8, 0)


class TestAnotherCluster:
    def test_asks_for_another_id(self) -> None:
        rig = Rig().held(epoch=3)
        rig.identity.other_cluster()
        assert rig.plane.named("set_identity")[-1] == (-1, -1)
        rig.identity.need_epoch("t", 0, 7, 3)
        rig.channel.answer(NewIdentity(0, 0, 0))
        assert rig.plane.named("set_identity")[1:] == [(-1, -1), (0, 0)]
        assert len(rig.channel.asked) == 2

    @pytest.mark.parametrize(("given", "epoch"), [(0, 4), (3, 4), (4, 4), (9, 9)])
    def test_the_same_id_comes_with_an_epoch_that_was_not_used(self, given: int, epoch: int) -> None:
        """Throwaway clusters all begin with the same id."""
        rig = Rig().held(epoch=3)
        rig.identity.other_cluster()
        rig.channel.answer(NewIdentity(0, 7, given))
        assert rig.plane.named("set_identity")[-1] == (7, epoch)

    def test_the_same_id_is_of_no_use_with_its_last_epoch(self) -> None:
        rig = Rig().held(epoch=LAST_EPOCH)
        rig.identity.other_cluster()
        rig.channel.answer(NewIdentity(0, 7, 0))
        assert rig.plane.named("set_identity")[-1] == (-1, -1)
        rig.loop.advance(1)
        rig.channel.answer(NewIdentity(0, 8, 0))
        assert rig.plane.named("set_identity")[-1] == (8, 0)

    def test_without_an_id_there_is_nothing_to_give_up(self) -> None:
        rig = Rig()
        rig.identity.other_cluster()
        assert not rig.channel.asked
        rig.identity.start()
        rig.identity.other_cluster()
        assert len(rig.channel.asked) == 1
        assert not rig.plane.named("set_identity")


def test_stopped() -> None:
    rig = Rig().held()
    rig.identity.stop()
    rig.identity.need_epoch("t", 0, 7, 0)
    rig.identity.other_cluster()
    rig.identity.start()
    assert len(rig.channel.asked) == 1
    assert rig.identity.current == (7, 0)
