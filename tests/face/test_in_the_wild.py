"""KafkaProducer as other libraries and old programs treat it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path
from typing import Any

import kafka  # type: ignore[import-untyped]
import pytest
from conftest import MakeProducer, MakeTopic
from patience import eventually
from reading import read_topic
from recording import Relay

import fastprod
from fastprod import KafkaProducer, errors
from fastprod.partitioners import DefaultPartitioner, RoundRobinPartitioner
from fastprod.testing import KafkaBroker

ROOT = Path(fastprod.__file__).parents[1]


class TestSubclassesAndPatches:
    def test_a_subclass(
        self, producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker
    ) -> None:
        class Shouting(KafkaProducer):
            def __init__(self, suffix: bytes, **configs: Any) -> None:
                super().__init__(**configs)
                self.suffix = suffix

            def send(self, topic: str, value: Any = None, *args: Any, **kwargs: Any) -> Any:
                return super().send(topic, value + self.suffix, *args, **kwargs)

        name = topic()
        made = producer(Shouting, suffix=b"!")
        assert made.send(name, b"v", key=b"k").get(10).serialized_value_size == 2
        assert read_topic(own_broker, name, 1)[0].value == b"v!"
        assert str(made).startswith("<KafkaProducer client_id=")

    def test_send_is_patched_on_the_class_and_on_the_object(
        self, producer: MakeProducer, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[str] = []
        original = KafkaProducer.send

        def patched(self: KafkaProducer, *args: Any, **kwargs: Any) -> Any:
            calls.append("class")
            return original(self, *args, **kwargs)

        monkeypatch.setattr(KafkaProducer, "send", patched)
        made, name = producer(), topic()
        made.send(name, b"v").get(10)
        monkeypatch.setattr(made, "send", lambda *args: calls.append("object"))
        made.send(name, b"v")
        assert calls == ["class", "object"]
        monkeypatch.undo()
        assert KafkaProducer.send is original

    def test_attributes_can_be_added(self, producer: MakeProducer) -> None:
        made: Any = producer()
        made.anything = 5
        assert made.anything == 5


class TestTracing:
    """What OpenTelemetry's kafka instrumentation asks, in its two styles."""

    @pytest.mark.parametrize("style", [2, 3])
    def test_where_a_record_will_go(
        self, producer: MakeProducer, topic: MakeTopic, style: int
    ) -> None:
        name = topic(7)
        made = producer(value_serializer=str.encode)
        made.partitions_for(name)
        config = made.config
        extra: tuple[Any, ...] = () if style == 2 else ([],)
        key = made._serialize(config["key_serializer"], name, *extra, b"key")
        value = made._serialize(config["value_serializer"], name, *extra, "v")
        assert (key, value) == (b"key", b"v")
        assert made._metadata.partitions_for_topic(name) == set(range(7))
        guess = made._partition(name, None, b"key", "v", key, value)
        assert guess == made.send(name, "v", b"key").get(10).partition
        assert made._partition(name, 3, b"key", "v", key, value) == 3
        assert made._partition(name, None, None, "v", None, value) is None
        assert made._partition("unknown", None, b"key", "v", key, value) is None

    def test_with_a_partitioner_of_the_program(
        self, producer: MakeProducer, topic: MakeTopic
    ) -> None:
        name = topic(3)
        made = producer(partitioner=lambda key, every, available: every[-1])
        made.partitions_for(name)
        assert made._partition(name, None, None, None, None, b"v") == 2
        for given in (RoundRobinPartitioner(), "sticky", "crc32"):
            other = producer(partitioner=given)
            other.partitions_for(name)
            assert other._partition(name, None, None, None, b"k", b"v") is None
        mine = producer(partitioner=DefaultPartitioner())
        mine.partitions_for(name)
        assert mine._partition(name, None, None, None, b"k", b"v") in (0, 1, 2)

    def test_bootstrap_servers_can_be_read(self, producer: MakeProducer, relay: Relay) -> None:
        assert producer().config["bootstrap_servers"] == relay.address


class TestConfigAttribute:
    def test_it_is_in_normal_form(self, producer: MakeProducer) -> None:
        made = producer(acks="all", compression_type="gzip", api_version=(3, 9))
        assert type(made.config) is dict
        assert made.config["acks"] == -1
        assert made.config["compression_attrs"] == 1
        assert made.config["api_version"] == (3, 9)
        assert set(kafka.KafkaProducer.DEFAULT_CONFIG) <= set(made.config)

    def test_it_names_the_release_that_answered(self, producer: MakeProducer, relay: Relay) -> None:
        theirs = kafka.KafkaProducer(bootstrap_servers=relay.address)
        try:
            assert producer().config["api_version"] == theirs.config["api_version"]
        finally:
            theirs.close()

    def test_no_warning_with_what_programs_usually_give(self, producer: MakeProducer) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            producer(
                value_serializer=lambda value: value,
                key_serializer=str.encode,
                partitioner=lambda key, every, available: 0,
            )

    def test_older_names_warn_at_the_program_s_line(
        self, producer: MakeProducer, relay: Relay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fastprod.option_rules._warned", set())
        with pytest.warns(DeprecationWarning, match="api_version_auto_timeout_ms") as caught:
            KafkaProducer(bootstrap_servers=relay.address, api_version_auto_timeout_ms=9000).close(
                5
            )
        assert caught[0].filename == __file__

    def test_an_older_partitioner_warns_at_the_program_s_line(
        self, relay: Relay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Three:
            def partition(self, topic: str, serialized_key: bytes, cluster: object) -> int:
                return 0

        monkeypatch.setattr("fastprod.partitioners._warned", threading.Event())
        with pytest.warns(DeprecationWarning, match="takes six") as caught:
            KafkaProducer(bootstrap_servers=relay.address, partitioner=Three()).close(5)
        assert [each.filename for each in caught] == [__file__]


class TestMetrics:
    def test_names_are_kafka_python_s(
        self, producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker
    ) -> None:
        """The same groups and names, asked of kafka-python on the same broker."""
        name = topic()
        made = producer()
        made.send(name, b"v").get(10)
        theirs = kafka.KafkaProducer(bootstrap_servers=own_broker.bootstrap_servers)
        theirs.send(name, b"v").get(10)
        ours_now, theirs_now = made.metrics() or {}, theirs.metrics()
        theirs.close()
        for group, metrics in theirs_now.items():
            if "bootstrap" in group:
                continue
            assert set(ours_now[group]) == set(metrics), group
        topics = ours_now[f"producer-topic-metrics.{name}"]
        assert topics["record-send-rate"] > 0

    def test_raw(self, producer: MakeProducer, topic: MakeTopic) -> None:
        made = producer(client_id="measured")
        made.send(topic(), b"v").get(10)
        raw = made.metrics(raw=True) or {}
        (rate,) = [
            name
            for name in raw
            if name.name == "record-send-rate" and name.group == "producer-metrics"
        ]
        assert rate.tags == {"client-id": "measured"}
        assert raw[rate].value() > 0

    def test_after_close(self, producer: MakeProducer) -> None:
        made = producer()
        made.close(5)
        assert made.metrics() == {}
        assert made.metrics(raw=True) == {}


class TestTransactions:
    def test_only_the_call_is_refused(self, producer: MakeProducer) -> None:
        made = producer()
        for call in (
            made.init_transactions,
            made.begin_transaction,
            made.commit_transaction,
            made.abort_transaction,
            lambda: made.send_offsets_to_transaction({}, "group"),
        ):
            with pytest.raises(errors.IllegalStateError, match="not supported yet"):
                call()


class TestSmallThings:
    def test_poll_does_nothing(self, producer: MakeProducer) -> None:
        assert producer().poll() == 0
        assert producer().poll(timeout=5) == 0

    def test_a_healthy_producer_is_not_bootstrapping(self, producer: MakeProducer) -> None:
        assert not producer().bootstrap_connected()

    def test_str(self, producer: MakeProducer) -> None:
        expected = "<KafkaProducer client_id=me transactional_id=None>"
        assert str(producer(client_id="me")) == expected

    def test_no_logger_is_replaced(self, producer: MakeProducer) -> None:
        made = producer()
        before = logging.getLogger("fastprod.faces.kafka_python")
        made.close(5, null_logger=True)
        assert fastprod.faces.kafka_python.log is before  # type: ignore[attr-defined]

    def test_a_serializer_that_cannot_close_is_logged(
        self, producer: MakeProducer, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken:
            def serialize(self, topic: str, headers: Any, data: Any) -> Any:
                return data

            def close(self) -> None:
                raise RuntimeError("no")

        producer(key_serializer=Broken()).close(5)
        assert "no" in caplog.text

    @pytest.mark.parametrize("end", ["", "del producer; time.sleep(2)", "del producer"])
    def test_serializers_are_closed_where_nobody_closes(
        self, relay: Relay, topic: MakeTopic, own_broker: KafkaBroker, end: str
    ) -> None:
        """When the program ends and when the producer is dropped, once, and after what was sent was delivered; one
        that refers to its producer does not keep it from being dropped."""
        name = topic()
        done = run(
            f"""
            import gc, sys, time
            from fastprod import KafkaProducer

            class Mine:
                def serialize(self, topic, headers, data):
                    return data

                def close(self):
                    print("closed", future.value is not None, flush=True)

            mine = Mine()
            producer = KafkaProducer(bootstrap_servers=sys.argv[1], value_serializer=mine)
            mine.producer, mine = producer, None
            future = producer.send(sys.argv[2], b"v")
            {end}
            """,
            relay.address,
            name,
        )
        assert (done.stdout, done.stderr) == ("closed True\n", "")

    def test_flush_takes_as_long_as_it_takes(self, producer: MakeProducer, topic: MakeTopic) -> None:
        made = producer()
        future = made.send(topic(), b"v")
        made.flush(float("inf"))
        assert future.is_done

    def test_one_that_was_never_made(self) -> None:
        with pytest.raises(errors.IllegalStateError):
            KafkaProducer.__new__(KafkaProducer).send("t", b"v")


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own with the same twin."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FASTPROD_BACKEND": fastprod.backend}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )


class TestPrograms:
    def test_the_end_of_a_program_delivers(
        self, relay: Relay, topic: MakeTopic, own_broker: KafkaBroker
    ) -> None:
        name = topic()
        done = run(
            """
            import sys
            from fastprod import KafkaProducer
            producer = KafkaProducer(bootstrap_servers=sys.argv[1], linger_ms=60_000)
            for number in range(50):
                producer.send(sys.argv[2], b"v").add_callback(lambda data: print(data.offset))
            """,
            relay.address,
            name,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == [str(number) for number in range(50)]
        assert own_broker.end_offset(name) == 50

    def test_an_exception_ends_a_program_all_the_same(
        self, relay: Relay, topic: MakeTopic, own_broker: KafkaBroker
    ) -> None:
        name = topic()
        done = run(
            """
            import sys
            from fastprod import KafkaProducer
            producer = KafkaProducer(bootstrap_servers=sys.argv[1])
            producer.send(sys.argv[2], b"v")
            raise SystemExit(3)
            """,
            relay.address,
            name,
        )
        assert done.returncode == 3
        assert done.stderr == ""
        eventually(lambda: own_broker.end_offset(name) == 1)

    def test_success_never_imports_kafka_python(self, relay: Relay, topic: MakeTopic) -> None:
        """That takes a quarter of a second, and is only needed to give errors their kin."""
        done = run(
            """
            import sys
            from fastprod import KafkaProducer
            with KafkaProducer(bootstrap_servers=sys.argv[1]) as producer:
                print(producer.send(sys.argv[2], b"v").get(10).offset)
                producer.flush()
                producer.metrics()
                producer.partitions_for(sys.argv[2])
            print(producer.undelivered(), "kafka" in sys.modules)
            """,
            relay.address,
            topic(),
        )
        assert (done.stdout.split(), done.stderr) == (["0", "[]", "False"], "")

    def test_it_works_without_kafka_python(self, relay: Relay, topic: MakeTopic) -> None:
        done = run(
            """
            import sys
            sys.modules["kafka"] = None
            from fastprod import KafkaProducer, errors
            from fastprod.serializers import JsonSerializer
            json = JsonSerializer()
            with KafkaProducer(bootstrap_servers=sys.argv[1], value_serializer=json) as producer:
                print(producer.send(sys.argv[2], {"a": 1}).get(10).offset)
            try:
                KafkaProducer(acks=5)
            except errors.KafkaConfigurationError as error:
                print(isinstance(error, ValueError))
            """,
            relay.address,
            topic(),
        )
        assert (done.stdout.split(), done.stderr) == (["0", "True"], "")
