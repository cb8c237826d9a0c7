"""Every other wait ends when it was said to, whatever brokers and networks do."""

from __future__ import annotations

import threading
import time

import pytest
from patience import check_time, eventually, in_time

from fastprod import KafkaProducer, errors
from fastprod.testing import Api, FaultProxy, KafkaBroker, ScriptedBroker

from .conftest import MakeProducer, MakeTopic, refused_address
from .ledger import read_log


class TestFlushAndGet:
    def test_flush(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic, proxy: FaultProxy
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
        assert len(read_log(own_broker.direct_servers, name, 4)) == 44

    def test_get(
        self, own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic, proxy: FaultProxy
    ) -> None:
        name, made = topic(), producer()
        made.send(name, b"before").get(10)
        proxy.hold()
        future = made.send(name, b"v")
        with in_time("get(0.3)", 0.3, at_least_s=0.3), pytest.raises(errors.KafkaTimeoutError):
            future.get(0.3)
        for timeout in (0, 0.0, 1e-9):
            with in_time(f"get({timeout})", 0), pytest.raises(errors.KafkaTimeoutError):
                future.get(timeout)
        assert not future.is_done
        proxy.release()
        assert future.get(20).offset == 1
        with in_time("get(0) when it is done", 0):
            assert future.get(0).offset == 1


class TestBootstrap:
    def test_refused(self) -> None:
        address = refused_address()
        self._fails(address, "refused")

    def test_silent(self, deaf_server: str) -> None:
        self._fails(deaf_server, "does not answer ApiVersions")

    def test_unknown_host(self) -> None:
        self._fails("no-such-host.invalid:9092", "no-such-host.invalid")

    def test_several(self, deaf_server: str) -> None:
        # One that may still answer is given a second before the next is tried beside it.
        self._fails(f"{deaf_server},{refused_address()}", "refused", limit_ms=2500)

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
        assert f"fastprod diagnose -b {servers}` tries" in text
        eventually(lambda: threading.active_count() <= before, what="the end of its threads")

    def test_one_that_answers_will_do(self, deaf_server: str, scripted: ScriptedBroker) -> None:
        servers = [deaf_server, refused_address(), scripted.bootstrap_servers]
        with in_time("two bad servers of three", 2.5), KafkaProducer(bootstrap_servers=servers) as made:
            assert made.send("t", b"v").get(10).offset == 0


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

    def test_the_oldest_request_counts(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """Requests that follow do not put it off; the connection ends and all on it goes again on another."""
        made = scripted_producer(batch_size=0, request_timeout_ms=600, retry_backoff_ms=1)
        made.send("t", b"before", partition=0).get(10)
        scripted.by_hand = True
        futures, requests = [], []
        for _ in range(4):
            futures.append(made.send("t", b"v", partition=0))
            requests.append(scripted.next_produce())
            time.sleep(0.1)
        again = scripted.next_produce()
        check_time("request_timeout_ms=600", again.at - requests[0].at, 0.6, at_least_s=0.6)
        assert requests[0].abandoned
        again.accept()
        for _ in range(3):
            scripted.next_produce().accept()
        assert [each.get(10).offset for each in futures] == [1, 2, 3, 4]

    def test_metadata_and_bootstrap(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        """A control request that is not answered ends its connection and is asked on another."""
        silent = scripted.on(Api.INIT_PRODUCER_ID).ignore()
        made = scripted_producer(request_timeout_ms=400)
        future = made.send("t", b"v")
        eventually(lambda: scripted.count(Api.INIT_PRODUCER_ID) >= 2)
        silent.remove()
        assert future.get(10).offset == 0


def test_the_wall_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """It jumps by hours, back and forth, while everything waits."""
    real, real_ns = time.time, time.time_ns
    jump = iter(range(10**9))

    def jumping_s() -> int:
        return (-1) ** next(jump) * 7200

    monkeypatch.setattr(time, "time", lambda: real() + jumping_s())
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + jumping_s() * 10**9)
    # The double has the same clock, and imitates a release that takes records from any time.
    with ScriptedBroker({"t": 2}, version="3.3", auto_create=0) as broker:
        made = KafkaProducer(
            bootstrap_servers=broker.bootstrap_servers, max_block_ms=300, request_timeout_ms=300,
            delivery_timeout_ms=700, linger_ms=100, metadata_max_age_ms=1000,
        )
        assert made.send("t", b"v").get(10).offset == 0
        broker.by_hand = True
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
        made.close(0)
