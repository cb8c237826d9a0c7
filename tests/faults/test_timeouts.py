"""Every wait ends when it was said to, whatever brokers and networks do, and nothing that was accepted is forgotten."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastprod import KafkaProducer, errors
from fastprod.testing import KafkaBroker

from .conftest import MakeProducer, MakeTopic
from .fake_broker import INIT_PRODUCER_ID, PRODUCE, FakeBroker, Produced
from .ledger import read_log
from .patience import check_time, eventually, in_time
from .relay import Relay

Silence = Callable[[], None]


@pytest.fixture(params=["paused", "unreachable", "black hole"])
def silence(request: pytest.FixtureRequest, own_broker: KafkaBroker, relay: Relay) -> Silence:
    """Return what makes the broker fall silent: frozen; gone, so that connections end and new ones are refused; or
    alive behind a network that swallows everything."""

    def fall_silent() -> None:
        if request.param == "paused":
            own_broker.pause()
        elif request.param == "unreachable":
            relay.refuse()
        else:
            relay.holding = True

    return fall_silent


@pytest.fixture
def deaf_server() -> Iterator[str]:
    """The address of a socket that is listened on, and never accepted from or answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def refused_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


class Watch:
    """Notes when each future is seen to be done, without help from callbacks: monotonic seconds."""

    def __init__(self, futures: list[Any]) -> None:
        self.done_at: dict[int, float] = {}
        self._futures = futures
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while len(self.done_at) < len(self._futures):
            for number, future in enumerate(self._futures):
                if future.is_done:
                    self.done_at.setdefault(number, time.monotonic())
            time.sleep(0.005)

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)
        assert len(self.done_at) == len(self._futures), "some futures hang"


class TestClose:
    def test_it_keeps_its_time_and_what_it_could_not_deliver(
        self, producer: MakeProducer, topic: MakeTopic, silence: Silence
    ) -> None:
        name, made = topic(2), producer(client_id="closing")
        made.send(name, b"before", partition=0).get(10)
        made.send(name, b"before", partition=1).get(10)
        silence()
        headers = [("h", b"1"), ("empty", b"")]
        in_flight = made.send(name, b"value", b"key", headers, partition=0, timestamp_ms=1000)
        waiting = [made.send(name, b"%d" % number, partition=number % 2) for number in range(20)]
        tombstone = made.send(name, None, b"gone", partition=1)
        with in_time("close(0.5)", 0.5), pytest.raises(errors.KafkaTimeoutError) as caught:
            made.close(0.5)
        assert "22 record(s)" in str(caught.value)
        assert "undelivered()" in str(caught.value)
        for future in [in_flight, *waiting, tombstone]:
            assert isinstance(future.exception, errors.IllegalStateError)
        left = made.undelivered()
        assert len(left) == 22
        (first,) = [each for each in left if each.key == b"key"]
        assert (first.topic, first.partition, first.value) == (name, 0, b"value")
        assert (first.headers, first.timestamp_ms) == (headers, 1000)
        assert isinstance(first.error, errors.IllegalStateError)
        assert [each.value for each in left if each.key == b"gone"] == [None]
        for partition in range(2):
            values = [each.value for each in left if each.partition == partition and each.key is None]
            assert values == [b"%d" % number for number in range(20) if number % 2 == partition]
        assert made.undelivered() == left
        with in_time("a second close()", 0):
            made.close()
        with pytest.raises(errors.IllegalStateError):
            made.send(name, b"late")
        eventually(lambda: not [each for each in threading.enumerate() if each.name.startswith("closing-")])

    @pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
    def test_undelivered_are_readable_whatever_the_codec(
        self, fake: FakeBroker, fake_producer: MakeProducer, codec: str
    ) -> None:
        """One batch was compressed when it left, the other has not been yet."""
        made = fake_producer(compression_type=codec, linger_ms=50)
        fake.by_hand = True
        values = [b"%d %s" % (number, bytes(50)) for number in range(20)]
        for value in values[:10]:
            made.send("t", value, partition=0)
        fake.next()
        for value in values[10:]:
            made.send("t", value, partition=0)
        with pytest.raises(errors.KafkaTimeoutError, match=r"20 record\(s\)"):
            made.close(0)
        left = made.undelivered()
        assert [each.value for each in left] == values
        assert [each.maybe_written for each in left] == [True] * 10 + [False] * 10

    def test_nothing_waits_nothing_to_wait_for(
        self, producer: MakeProducer, topic: MakeTopic, silence: Silence
    ) -> None:
        made = producer()
        made.send(topic(), b"v").get(10)
        silence()
        with in_time("close() with nothing to deliver", 0):
            made.close()
        assert made.undelivered() == []

    def test_unbounded_it_takes_as_long_as_delivery(
        self, producer: MakeProducer, topic: MakeTopic, silence: Silence
    ) -> None:
        name, made = topic(), producer(request_timeout_ms=500, delivery_timeout_ms=1000)
        made.send(name, b"before").get(10)
        silence()
        futures = [made.send(name, b"v") for _ in range(3)]
        with in_time("close() for delivery_timeout_ms=1000", 1.0):
            made.close()
        assert all(isinstance(each.exception, errors.KafkaTimeoutError) for each in futures)
        assert made.undelivered() == []  # their futures have ended, so somebody was told

    def test_a_broker_that_never_was(self) -> None:
        made = KafkaProducer(bootstrap_servers=refused_address(), api_version=(2, 6), max_block_ms=100)
        with pytest.raises(errors.KafkaTimeoutError):
            made.send("t", b"v")
        with in_time("close()", 0):
            made.close()

    def test_everybody_who_waits_is_let_go(
        self, fake: FakeBroker, fake_producer: MakeProducer
    ) -> None:
        made = fake_producer(batch_size=0, buffer_memory=50_000, max_block_ms=60_000)
        fake.by_hand = True
        future = made.send("t", bytes(40_000), partition=0)
        fake.next()
        outcome: dict[str, Any] = {}

        def wait(name: str, call: Callable[[], Any]) -> threading.Thread:
            def run() -> None:
                try:
                    outcome[name] = call()
                except Exception as error:
                    outcome[name] = error

            thread = threading.Thread(target=run)
            thread.start()
            return thread

        threads = [
            wait("full buffer", lambda: made.send("t", bytes(40_000), partition=0)),
            wait("unknown topic", lambda: made.send("unknown", b"v")),
            wait("partitions_for", lambda: made.partitions_for("unknown-too")),
            wait("get", lambda: future.get(60)),
            wait("flush", lambda: made.flush(60)),
        ]
        time.sleep(0.3)
        assert not outcome
        with in_time("close(0.2)", 0.2), pytest.raises(errors.KafkaTimeoutError, match=r"1 record\(s\)"):
            made.close(0.2)
        with in_time("letting go of who waits", 0):
            for thread in threads:
                thread.join(20)
        for name in ("full buffer", "unknown topic", "get"):
            assert isinstance(outcome[name], errors.IllegalStateError), (name, outcome[name])
        assert isinstance(outcome["partitions_for"], Exception)
        assert outcome["flush"] is None or isinstance(outcome["flush"], errors.KafkaError)

    def test_two_at_once(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        made = fake_producer()
        fake.by_hand = True
        made.send("t", b"v")
        fake.next()
        raised: list[Exception] = []

        def close() -> None:
            try:
                made.close(0.3)
            except errors.KafkaTimeoutError as error:
                raised.append(error)

        threads = [threading.Thread(target=close) for _ in range(3)]
        with in_time("close(0.3) by three threads", 0.3):
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        assert raised, "nobody was told"
        assert len(made.undelivered()) == 1

    def test_a_callback_that_sleeps_does_not_hold_it_up(
        self, fake: FakeBroker, fake_producer: MakeProducer
    ) -> None:
        made = fake_producer()
        entered, go_on = threading.Event(), threading.Event()
        made.send("t", b"v").add_callback(lambda _: (entered.set(), go_on.wait(30)))
        assert entered.wait(10)
        began = time.monotonic()
        try:
            made.close(0.5)
        except errors.KafkaTimeoutError as error:
            print(error)
        check_time("close(0.5) while a callback sleeps", time.monotonic() - began, 0.5)
        go_on.set()


class Hasty(KafkaProducer):
    """Its `with` block does not wait for delivery."""

    def close(self, timeout: float | None = 0.2, null_logger: bool = False) -> None:
        super().close(timeout, null_logger)


class TestWith:
    def test_an_exception_on_its_way_goes_on(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        fake.silent.add(PRODUCE)
        made = fake_producer(Hasty)

        def program() -> None:
            with made:
                made.send("t", b"v")
                raise KeyError("mine")

        with in_time("with", 0.2), pytest.raises(KeyError, match="mine") as caught:
            program()
        assert "1 record(s) could not be delivered" in "".join(caught.value.__notes__)
        assert len(made.undelivered()) == 1

    def test_without_one_it_is_told(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        fake.silent.add(PRODUCE)

        def program() -> None:
            with fake_producer(Hasty) as made:
                made.send("t", b"v")

        with in_time("with", 0.2), pytest.raises(errors.KafkaTimeoutError, match=r"1 record\(s\)"):
            program()

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_nor_does_it_mask_one_that_is_no_error(
        self, fake: FakeBroker, fake_producer: MakeProducer, kind: type[BaseException]
    ) -> None:
        fake.silent.add(PRODUCE)
        made = fake_producer(Hasty)

        def program() -> None:
            with made:
                made.send("t", b"v")
                raise kind("mine")

        with pytest.raises(kind, match="mine"):
            program()
        assert len(made.undelivered()) == 1


class TestFlushAndGet:
    def test_flush(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        """The time is for all of it, not for each batch; what was not done by then still gets done."""
        name, made = topic(4), producer(batch_size=0)
        for partition in range(4):
            made.send(name, b"before", partition=partition).get(10)
        own_broker.pause()
        futures = [made.send(name, b"v", partition=number % 4) for number in range(40)]
        with in_time("flush(0.4)", 0.4, at_least_s=0.4), pytest.raises(errors.KafkaTimeoutError, match="flush"):
            made.flush(0.4)
        with in_time("flush(0)", 0), pytest.raises(errors.KafkaTimeoutError):
            made.flush(0)
        own_broker.resume()
        made.flush(20)
        assert all(each.succeeded() for each in futures)
        assert len(read_log(own_broker.bootstrap_servers, name, 4)) == 44

    def test_get(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        name, made = topic(), producer()
        made.send(name, b"before").get(10)
        relay.holding = True
        future = made.send(name, b"v")
        with in_time("get(0.3)", 0.3, at_least_s=0.3), pytest.raises(errors.KafkaTimeoutError):
            future.get(0.3)
        for timeout in (0, 0.0, 1e-9):
            with in_time(f"get({timeout})", 0), pytest.raises(errors.KafkaTimeoutError):
                future.get(timeout)
        assert not future.is_done
        relay.holding = False
        assert future.get(20).offset == 1
        with in_time("get(0) when it is done", 0):
            assert future.get(0).offset == 1


class TestMaxBlock:
    @pytest.mark.parametrize("limit_ms", [0, 400])
    def test_a_topic_that_is_not_there(
        self, own_broker: KafkaBroker, producer: MakeProducer, limit_ms: int
    ) -> None:
        made = producer(max_block_ms=limit_ms, allow_auto_create_topics=False)
        limit_s = limit_ms / 1000
        for call in (lambda: made.send("never-made", b"v"), lambda: made.partitions_for("never-made")):
            with (
                in_time(f"max_block_ms={limit_ms}", limit_s, at_least_s=limit_s),
                pytest.raises(errors.KafkaTimeoutError, match="never-made"),
            ):
                call()

    def test_it_says_why(self, producer: MakeProducer) -> None:
        made = producer(max_block_ms=500, allow_auto_create_topics=False)
        with pytest.raises(errors.KafkaTimeoutError) as caught:
            made.send("never-made", b"v")
        assert "Create it" in str(caught.value)
        assert isinstance(caught.value.__cause__, errors.UnknownTopicOrPartitionError)

    def test_a_topic_that_nobody_tells_about(
        self, producer: MakeProducer, topic: MakeTopic, silence: Silence
    ) -> None:
        known, name = topic(), topic()
        made = producer(max_block_ms=500)
        made.send(known, b"v").get(10)
        silence()
        with in_time("max_block_ms=500", 0.5, at_least_s=0.5), pytest.raises(errors.KafkaTimeoutError, match=name):
            made.send(name, b"v")

    def test_a_full_buffer(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic, silence: Silence, relay: Relay
    ) -> None:
        """A sender waits its time and is refused; nothing that was accepted is lost, nothing refused is written."""
        name, made = topic(2), producer(buffer_memory=1_000_000, max_block_ms=400, reconnect_backoff_max_ms=300)
        accepted = [made.send(name, b"before", partition=0)]
        accepted[0].get(10)
        silence()

        def fill() -> bytes:
            while True:
                value = b"%d " % len(accepted) + bytes(10_000)
                began = time.monotonic()
                try:
                    accepted.append(made.send(name, value, partition=len(accepted) % 2))
                except errors.KafkaTimeoutError as error:
                    check_time("a full buffer, max_block_ms=400", time.monotonic() - began, 0.4, at_least_s=0.4)
                    assert "buffer_memory=1000000" in str(error)
                    assert "not accepted" in str(error)
                    return value

        refused = fill()
        assert 20 < len(accepted) <= 101
        relay.reset()
        own_broker.resume()
        for future in accepted:
            future.get(60)
        last = made.send(name, b"after", partition=0)
        last.get(10)
        written = {each.value for each in read_log(own_broker.bootstrap_servers, name, 2)}
        assert len(written) == len(accepted) + 1
        assert refused not in written

    def test_memory_is_had_in_the_order_of_asking(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """A small record does not slip in before a large one that waits, though there is room for it."""
        made = fake_producer(batch_size=0, buffer_memory=100_000, max_block_ms=60_000)
        fake.by_hand = True
        made.send("t", bytes(40_000), partition=0)
        first = fake.next()
        made.send("t", bytes(40_000), partition=1)
        second = fake.next()
        accepted: list[str] = []
        large = Sender(made, accepted, "large", bytes(70_000), partition=0)
        small = Sender(made, accepted, "small", bytes(5_000), partition=1)
        time.sleep(0.3)
        assert accepted == []
        first.accept()
        time.sleep(0.3)
        assert accepted == [], "60,000 bytes are free, the first in line needs 70,000"
        second.accept()
        for each in (large, small):
            each.join()
        assert sorted(accepted) == ["large", "small"]
        batches = list(fake.next().batches)
        if len(batches) == 1:  # they may leave in one request as well
            batches += fake.next().batches
        assert sorted(len(each.data) // 10_000 for each in batches) == [0, 7]

    def test_one_at_a_time_in_order(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        made = fake_producer(batch_size=0, buffer_memory=10_000, max_block_ms=60_000)
        fake.by_hand = True
        made.send("t", b"first" + bytes(9_000), partition=0)
        accepted: list[str] = []
        senders = [Sender(made, accepted, str(n), b"%d" % n + bytes(9_000), partition=0) for n in range(6)]
        for _ in range(7):
            fake.next().accept()
        for each in senders:
            each.join()
        written = [(value or b"").rstrip(b"\0") for value in fake.log["t", 0]]
        assert written == [b"first"] + [b"%d" % n for n in range(6)]

    def test_who_gives_up_leaves_the_line(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        made = fake_producer(batch_size=0, buffer_memory=10_000, max_block_ms=3_000)
        fake.by_hand = True
        made.send("t", b"first" + bytes(9_000), partition=0)
        request = fake.next()
        accepted: list[str] = []
        impatient = Sender(made, accepted, "impatient", bytes(9_000), partition=0)
        time.sleep(1.5)
        patient = Sender(made, accepted, "patient", b"patient" + bytes(8_000), partition=0)
        impatient.join()
        assert isinstance(impatient.error, errors.KafkaTimeoutError)
        request.accept()
        patient.join()
        assert patient.error is None
        fake.next().accept()
        assert accepted == ["patient"]


class Sender:
    """A thread that sends one record; it is on its way into `send` when the constructor returns."""

    def __init__(self, made: KafkaProducer, accepted: list[str], name: str, value: bytes, partition: int) -> None:
        self.error: Exception | None = None

        def run() -> None:
            try:
                made.send("t", value, partition=partition)
                accepted.append(name)
            except Exception as error:
                self.error = error

        self._thread = threading.Thread(target=run)
        self._thread.start()
        # Its line in the queue for memory is not to be seen from outside; that it has got to `send` is.
        eventually(lambda: not self._thread.is_alive() or self._is_sending(run.__code__))
        time.sleep(0.05)

    def _is_sending(self, code: Any) -> bool:
        frame = sys._current_frames().get(self._thread.ident or 0)
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        return frame is not None

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


class TestBootstrap:
    def test_refused(self) -> None:
        address = refused_address()
        self._fails(address, "refused")

    def test_silent(self, deaf_server: str) -> None:
        self._fails(deaf_server, "waiting")

    def test_unknown_host(self) -> None:
        self._fails("no-such-host.invalid:9092", "no-such-host.invalid")

    def test_several(self, deaf_server: str) -> None:
        # One that may still answer is given a second before the next is tried beside it.
        self._fails(f"{deaf_server},{refused_address()}", "refused", limit_ms=1600)

    def _fails(self, servers: str, word: str, limit_ms: int = 600) -> None:
        before = threading.active_count()
        with (
            in_time(f"bootstrap_timeout_ms={limit_ms}", limit_ms / 1000, at_least_s=limit_ms / 1000),
            pytest.raises(errors.KafkaTimeoutError) as caught,
        ):
            KafkaProducer(bootstrap_servers=servers, bootstrap_timeout_ms=limit_ms)
        text = str(caught.value)
        print(text)
        assert "Unable to bootstrap" in text
        assert f"{limit_ms} ms" in text
        assert word in text
        assert all(each in text for each in servers.split(","))
        eventually(lambda: threading.active_count() <= before, what="the end of its threads")

    def test_one_that_answers_will_do(self, deaf_server: str, fake: FakeBroker) -> None:
        servers = [deaf_server, refused_address(), fake.address]
        with in_time("two bad servers of three", 2.5), KafkaProducer(bootstrap_servers=servers) as made:
            assert made.send("t", b"v").get(10).offset == 0


class TestDeliveryTimeout:
    OPTIONS = {"request_timeout_ms": 400, "delivery_timeout_ms": 1200, "retry_backoff_ms": 20}

    def test_in_flight_and_queued(self, producer: MakeProducer, topic: MakeTopic, silence: Silence) -> None:
        name, made = topic(2), producer(batch_size=0, **self.OPTIONS)
        for partition in range(2):
            made.send(name, b"before", partition=partition).get(10)
        silence()
        began = time.monotonic()
        futures = [made.send(name, b"v", partition=number % 2) for number in range(30)]
        watch = Watch(futures)
        watch.wait(20)
        for number in range(30):
            assert isinstance(futures[number].exception, errors.KafkaTimeoutError)
            check_time("delivery_timeout_ms=1200", watch.done_at[number] - began, 1.2, at_least_s=1.2)
        assert "delivery_timeout_ms=1200" in str(futures[0].exception)
        assert isinstance(futures[-1].exception.maybe_written, bool)
        assert futures[-1].exception.maybe_written is False  # 15 a partition, 5 of them in flight
        with in_time("close() after all has expired", 0):
            made.close()

    def test_a_killed_broker(self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic) -> None:
        name, made = topic(), producer(**self.OPTIONS)
        made.send(name, b"before").get(10)
        own_broker.kill()
        self._expires(made, name, written=None)
        made.send(name, b"v")
        with in_time("close(0.3)", 0.3), pytest.raises(errors.KafkaTimeoutError, match=r"1 record\(s\)"):
            made.close(0.3)

    def test_longer_than_a_request(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """In flight when it expires: the request goes on waiting, the future does not."""
        made = fake_producer(batch_size=0, request_timeout_ms=1000, delivery_timeout_ms=1000)
        made.send("t", b"before", partition=0).get(10)
        fake.by_hand = True
        began = time.monotonic()
        future = made.send("t", b"v", partition=0)
        fake.next()
        with pytest.raises(errors.KafkaTimeoutError) as caught:
            future.get(20)
        check_time("delivery_timeout_ms=1000", time.monotonic() - began, 1.0, at_least_s=1.0)
        assert caught.value.maybe_written is True

    def test_while_it_waits_to_be_sent_again(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        made = fake_producer(batch_size=0, **{**self.OPTIONS, "retry_backoff_ms": 60_000})
        fake.judge = lambda produced: produced.refuse(19)
        began = time.monotonic()
        future = made.send("t", b"v", partition=0)
        with pytest.raises(errors.KafkaTimeoutError, match="NotEnoughReplicas") as caught:
            future.get(20)
        check_time("delivery_timeout_ms=1200", time.monotonic() - began, 1.2, at_least_s=1.2)
        assert caught.value.maybe_written is False

    def test_while_it_waits_for_a_verdict(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """Parked: a callback holds up the thread that would decide. The clock does not wait for it."""
        made = fake_producer(batch_size=0, **self.OPTIONS)
        entered, go_on = threading.Event(), threading.Event()
        made.send("t", b"1", partition=0).add_callback(lambda _: (entered.set(), go_on.wait(30)))
        assert entered.wait(10)
        fake.judge = lambda produced: produced.refuse(19)
        began = time.monotonic()
        futures = [made.send("t", b"2", partition=0) for _ in range(3)]
        watch = Watch(futures)
        watch.wait(20)
        assert not go_on.is_set()
        for number in range(3):
            check_time("delivery_timeout_ms=1200, parked", watch.done_at[number] - began, 1.2, at_least_s=1.2)
            with pytest.raises(errors.KafkaTimeoutError):
                futures[number].get(10)
        fake.judge = Produced.accept
        go_on.set()
        assert made.send("t", b"3", partition=0).get(10).offset >= 1

    def test_a_callback_that_sleeps_delays_no_expiry(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        name, made = topic(), producer(batch_size=0, **self.OPTIONS)
        entered, go_on = threading.Event(), threading.Event()
        made.send(name, b"1").add_callback(lambda _: (entered.set(), go_on.wait(30)))
        assert entered.wait(10)
        relay.holding = True
        began = time.monotonic()
        futures = [made.send(name, b"2") for _ in range(10)]
        for future in futures:
            with pytest.raises(errors.KafkaTimeoutError):
                future.get(20)
        check_time("delivery_timeout_ms=1200 beside a callback", time.monotonic() - began, 1.2, at_least_s=1.2)
        go_on.set()

    def test_without_a_producer_id(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        fake.silent.add(INIT_PRODUCER_ID)
        self._expires(fake_producer(**self.OPTIONS), written=False)

    def test_without_a_leader(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        fake.leaders["t", 1] = -1
        self._expires(fake_producer(**self.OPTIONS), partition=1, written=False)

    def test_with_a_leader_that_nobody_knows(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        fake.leaders["t", 1] = 9
        self._expires(fake_producer(**self.OPTIONS), partition=1, written=False)

    @pytest.mark.parametrize("linger_ms", [0, 700])
    def test_lingering(self, fake: FakeBroker, fake_producer: MakeProducer, linger_ms: int) -> None:
        fake.silent.add(PRODUCE)
        self._expires(fake_producer(linger_ms=linger_ms, **self.OPTIONS), written=True)

    def _expires(
        self, made: KafkaProducer, topic: str = "t", partition: int = 0, written: bool | None = None
    ) -> None:
        """`written`: what the errors say of it, None for either."""
        began = time.monotonic()
        futures = [made.send(topic, b"v", partition=partition) for _ in range(5)]
        for future in futures:
            with pytest.raises(errors.KafkaTimeoutError) as caught:
                future.get(20)
            assert written is None or caught.value.maybe_written is written
        check_time("delivery_timeout_ms=1200", time.monotonic() - began, 1.2, at_least_s=1.2)

    def test_many_partitions_and_ages(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """Each batch by its own age."""
        fake.topics["wide"] = 20
        fake.silent.add(PRODUCE)
        made = fake_producer(batch_size=0, **self.OPTIONS)
        made.partitions_for("wide")
        futures, began = [], []
        watch_from = time.monotonic()
        for number in range(60):
            began.append(time.monotonic())
            futures.append(made.send("wide", b"v", partition=number % 20))
            time.sleep(0.02)
        watch = Watch(futures)
        watch.wait(20)
        late = [watch.done_at[number] - began[number] - 1.2 for number in range(60)]
        print(f"from {watch_from:.1f}: {min(late):+.3f} to {max(late):+.3f} s")
        check_time("the latest of 60 expiries", 1.2 + max(late), 1.2)
        check_time("the earliest of 60 expiries", 1.2 + min(late), 1.2, at_least_s=1.2)


class TestRequestTimeout:
    def test_a_leader_that_does_not_answer(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic
    ) -> None:
        name, made = topic(), producer(request_timeout_ms=600, retries=0, enable_idempotence=False)
        made.send(name, b"before").get(10)
        own_broker.pause()
        began = time.monotonic()
        future = made.send(name, b"v")
        with pytest.raises(errors.RequestTimedOutError, match="600") as caught:
            future.get(20)
        check_time("request_timeout_ms=600", time.monotonic() - began, 0.6, at_least_s=0.6)
        assert caught.value.maybe_written is True

    def test_the_oldest_request_counts(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """Requests that follow do not put it off; the connection ends and all on it goes again on another."""
        made = fake_producer(batch_size=0, request_timeout_ms=600, retry_backoff_ms=1)
        made.send("t", b"before", partition=0).get(10)
        fake.by_hand = True
        futures, requests = [], []
        for _ in range(4):
            futures.append(made.send("t", b"v", partition=0))
            requests.append(fake.next())
            time.sleep(0.1)
        again = fake.next()
        check_time("request_timeout_ms=600", again.at - requests[0].at, 0.6, at_least_s=0.6)
        assert requests[0].abandoned
        again.accept()
        for _ in range(3):
            fake.next().accept()
        assert [each.get(10).offset for each in futures] == [1, 2, 3, 4]

    def test_metadata_and_bootstrap(self, fake: FakeBroker, fake_producer: MakeProducer) -> None:
        """A control request that is not answered ends its connection and is asked on another."""
        fake.silent.add(INIT_PRODUCER_ID)
        made = fake_producer(request_timeout_ms=400)
        future = made.send("t", b"v")
        eventually(lambda: fake.requests[INIT_PRODUCER_ID] >= 2)
        fake.silent.clear()
        assert future.get(10).offset == 0


def test_the_wall_clock_does_not_matter(
    fake: FakeBroker, fake_producer: MakeProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It jumps by hours, back and forth, while everything waits."""
    real, real_ns = time.time, time.time_ns
    jump = iter(range(10**9))

    def jumping_s() -> int:
        return (-1) ** next(jump) * 7200

    monkeypatch.setattr(time, "time", lambda: real() + jumping_s())
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + jumping_s() * 10**9)
    made = fake_producer(
        max_block_ms=300, request_timeout_ms=300, delivery_timeout_ms=700, linger_ms=100, metadata_max_age_ms=1000
    )
    assert made.send("t", b"v").get(10).offset == 0
    fake.by_hand = True
    began = time.monotonic()
    future = made.send("t", b"v")
    with in_time("flush(0.2)", 0.2, at_least_s=0.2), pytest.raises(errors.KafkaTimeoutError):
        made.flush(0.2)
    with in_time("get(0.2)", 0.2, at_least_s=0.2), pytest.raises(errors.KafkaTimeoutError):
        future.get(0.2)
    with pytest.raises(errors.KafkaTimeoutError, match="delivery_timeout_ms"):
        future.get(20)
    check_time("delivery_timeout_ms=700", time.monotonic() - began, 0.7, at_least_s=0.7)
    with in_time("max_block_ms=300", 0.3, at_least_s=0.3), pytest.raises(errors.KafkaTimeoutError):
        made.send("unknown", b"v")
