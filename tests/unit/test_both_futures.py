"""What the futures of both data planes must stand, each test on either twin."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from both_rig import HELD, TOO_LARGE, TWINS, MakeRig, decoded, each_twin, rig_of_twin, threaded_flush
from pure_rig import TOPIC, Answer, Broker, Rig, once, rigs, running_broker

from fastprod import errors
from fastprod.types import RecordMetadata

pytestmark = pytest.mark.native_only

broker = pytest.fixture(name="broker")(running_broker)
any_rig = pytest.fixture(name="any_rig")(rigs)
twin = pytest.fixture(params=TWINS, name="twin")(each_twin)
rig = pytest.fixture(name="rig")(rig_of_twin)


class TestFutures:
    def test_metadata_is_equal_to_its_like_in_every_way(self, rig: MakeRig) -> None:
        """Python 3.14 keeps a tuple's hash in it; callbacks get a tuple that is filled anew for each record."""
        made = rig(**HELD)
        hashes: list[tuple[int, int]] = []
        futures = [made.send(b"v", partition=0) for _ in range(3)]
        for each in futures:
            each.add_callback(lambda metadata: hashes.append((hash(metadata), hash(RecordMetadata(*metadata)))))
        assert made.plane.flush(5)
        assert len(hashes) == 3
        assert all(mine == theirs for mine, theirs in hashes)
        assert hash(futures[0].value) == hash(RecordMetadata(*futures[0].value))


    def test_callbacks_of_futures_that_nobody_kept(self, rig: MakeRig) -> None:
        made = rig(**HELD)
        seen: list[tuple[int, int, int]] = []
        for size in (3, 4, 4, 5):
            made.send(bytes(size), partition=0, timestamp_ms=size).add_callback(
                lambda metadata: seen.append((metadata.offset, metadata.timestamp, metadata.serialized_value_size))
            )
        assert made.plane.flush(5)
        assert seen == [(0, 3, 3), (1, 4, 4), (2, 4, 4), (3, 5, 5)]

    def test_sizes_are_bytes_whatever_a_memoryview_counts(self, rig: MakeRig) -> None:
        made = rig(**HELD)
        wide = memoryview(bytes(24)).cast("Q")
        future = made.send(wide, key=wide[::2], partition=0)
        many = made.producer.send_many(TOPIC, [wide], keys=[wide[:1]], partition=0)
        assert made.plane.flush(5)
        assert (future.value.serialized_key_size, future.value.serialized_value_size) == (16, 24)
        assert (many[0].serialized_key_size, many[0].serialized_value_size) == (8, 24)

    def test_callbacks_of_several_partitions(self, rig: MakeRig) -> None:
        """One call runs those of several batches, and metadata that nobody keeps goes from one to the next."""
        made = rig(**HELD, leaders=[1] * 4)
        seen: list[tuple[int, Any, int, int]] = []
        for partition in range(4):
            made.send(bytes(partition), partition=partition, timestamp_ms=partition).add_callback(
                lambda told: seen.append((told.partition, told.topic_partition, told.timestamp, told.offset))
            )
        assert made.plane.flush(5)
        assert sorted(seen) == [(number, (TOPIC, number), number, 0) for number in range(4)]

    def test_metadata_that_a_callback_keeps_stays_as_it_is(self, rig: MakeRig) -> None:
        made = rig(**HELD)
        kept: list[RecordMetadata] = []
        for _ in range(3):
            made.send(b"v", partition=0).add_callback(kept.append)
        assert made.plane.flush(5)
        assert [each.offset for each in kept] == [0, 1, 2]

    def test_errbacks_of_futures_that_nobody_kept(self, rig: MakeRig) -> None:
        made = rig(**HELD)
        made.broker.script = once(Answer(87))
        made.control.judge = lambda parked: made.plane.fail(parked, errors.InvalidRecordError("no"), unknown=False)
        seen: list[BaseException] = []
        for _ in range(3):
            made.send(b"v", partition=0).add_errback(seen.append).add_both(seen.append)
        assert made.plane.flush(5)
        assert [type(each) for each in seen] == [errors.InvalidRecordError] * 6
        assert len({id(each) for each in seen[::2]}) == 3

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, ValueError])
    def test_ctrl_c_in_one_that_runs_at_once(self, rig: MakeRig, kind: type[BaseException]) -> None:
        """It runs on the thread that registers it, and it is there that Ctrl-C arrives. The others run all the same."""
        made = rig(**HELD)
        seen: list[Any] = []

        def raises(_: Any) -> None:
            seen.append(kind)
            raise kind

        done, by_hand = (made.send(b"v", partition=0) for _ in range(2))
        by_hand.add_callback(raises).add_callback(seen.append)
        goes_on = contextlib.nullcontext() if kind is ValueError else pytest.raises(kind)
        logging.disable()
        with goes_on:
            by_hand.success("mine")
        assert made.plane.flush(5)
        with goes_on:
            done.add_callback(raises)
        logging.disable(logging.NOTSET)
        assert seen == [kind, "mine", kind]

    def test_by_hand_takes_the_callbacks_of_one_record_only(self, rig: MakeRig) -> None:
        made = rig(**HELD)
        seen: list[Any] = []
        first, second = (made.send(b"v", partition=0) for _ in range(2))
        for each in (first, second):
            each.add_callback(seen.append)
            each.add_both(seen.append)
        first.success("mine")
        assert seen == ["mine", "mine"]
        assert made.plane.flush(5)
        assert seen[2:] == [second.value] * 2
        assert made.plane.counters()["memory_used"] == 0

    def test_callbacks_follow_their_records_into_the_parts_of_a_split(self, rig: MakeRig, twin: Any) -> None:
        made = rig(**HELD)
        made.broker.script = once(Answer(TOO_LARGE))
        seen: list[tuple[int, int]] = []
        for size in range(6):
            made.send(bytes(size), partition=0).add_callback(
                lambda metadata: seen.append((metadata.offset, metadata.serialized_value_size))
            )
        threaded_flush(made)
        parked = made.parked()
        records = decoded(twin, parked)
        made.plane.split(parked, [records[:2], records[2:]])
        assert made.plane.flush(5)
        assert seen == [(number, number) for number in range(6)]


class TestTimeouts:
    @pytest.mark.parametrize("wrong", ["3", b"3", [3], "soon"])
    def test_what_is_no_number_is_refused(self, rig: MakeRig, wrong: Any) -> None:
        future = rig(**HELD).send(b"v")
        with pytest.raises(TypeError, match="timeout must be a number of seconds"):
            future.get(wrong)
        with pytest.raises(errors.KafkaTimeoutError):
            future.get(True - 1)


class TestRings:
    """What refers to itself is found by the garbage collector, batches in C included."""

    @pytest.fixture(autouse=True)
    def _nothing_is_left(self, twin: Any) -> Iterator[None]:
        gc.collect()
        before = twin.live_objects()
        yield
        gc.collect()
        assert twin.live_objects() == before

    def made(self, twin: Any, broker: Broker) -> Rig:
        made = Rig(broker, twin=twin)
        made.control.judge = lambda parked: made.plane.fail(parked, errors.InvalidRecordError("no"), unknown=False)
        return made

    def test_an_error_that_was_raised_where_its_future_is_held(self, twin: Any, broker: Broker) -> None:
        broker.script = lambda sent: Answer(87)
        made = self.made(twin, broker)
        future = made.send(b"v")
        with contextlib.suppress(errors.InvalidRecordError):
            future.get(5)
        with contextlib.suppress(errors.InvalidRecordError):
            raise future.exception
        made.close()

    def test_an_errback_that_raises_it_again(self, twin: Any, broker: Broker) -> None:
        broker.script = lambda sent: Answer(87)
        made = self.made(twin, broker)
        future = made.send(b"v")

        def raises(error: BaseException) -> None:
            assert future.failed()
            raise error

        logging.disable()
        future.add_errback(raises)
        assert made.plane.flush(5)
        logging.disable(logging.NOTSET)
        made.close()

    def test_a_future_that_failed_by_hand(self, twin: Any, broker: Broker) -> None:
        made = self.made(twin, broker)
        future = made.send(b"v")
        mine = twin.FutureRecordMetadata.failed_with("t", 0, KeyError("x"))
        for each in (future, mine):
            with contextlib.suppress(errors.IllegalStateError):
                each.failure(KeyError("y"))
            with contextlib.suppress(KeyError):
                each.get(5)
        made.close()


class TestErrors:
    def test_each_future_has_its_own(self, rig: MakeRig, broker: Broker) -> None:
        broker.script = lambda sent: Answer(87)
        made = rig(**HELD)
        error = errors.InvalidRecordError("no")
        own = errors.CorruptRecordError("this record")
        futures = [made.send(b"v", partition=0) for _ in range(3)]
        told: list[BaseException] = []
        futures[0].add_errback(told.append)
        threaded_flush(made)
        made.plane.fail(made.parked(), error, unknown=True, record_errors={1: own})
        assert made.plane.flush(5)
        seen = [each.exception for each in futures]
        assert [type(each) for each in seen] == [type(error), type(own), type(error)]
        assert [str(each) for each in seen] == [str(error), str(own), str(error)]
        assert seen == [each.exception for each in futures], "always the same object"
        assert told == seen[:1]
        assert seen[0].maybe_written is True
        assert len({id(each) for each in [*seen, error, own]}) == 5
        by_hand = KeyError("x")
        assert made.send(b"v").failure(by_hand).exception is by_hand

    @pytest.mark.parametrize("wrong", [None, "boom", str], ids=repr)
    def test_what_is_no_exception_ends_nothing(self, rig: MakeRig, wrong: Any) -> None:
        told: list[BaseException] = []
        future = rig(**HELD).send(b"v").add_errback(told.append)
        with pytest.raises(TypeError, match=f"exception class, not {wrong!r}"):
            future.failure(wrong)
        assert (future.is_done, told) == (False, [])
