"""What a `ScriptedBroker` notes of what came, and how it begins and ends."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import in_time
from raw_client import RawClient, batch, client

from fastprod.testing import Api, Pending, ScriptedBroker, Verdict
from fastprod.testing.scripted.script import RefusalShape, Rule


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker({"t": 2}) as made:
        yield made


@pytest.fixture
def raw(broker: ScriptedBroker) -> Iterator[RawClient]:
    with client(broker.bootstrap_servers) as made:
        yield made


class TestRecordsOfWhatCame:
    def test_requests(self, broker: ScriptedBroker, raw: RawClient) -> None:
        began = time.monotonic()
        raw.metadata("t")
        raw.produce("t", 1, batch(b"a", b"b", stamp=(5, 6, 7)), 9, acks=1)
        asked, produced = broker.requests
        assert (asked.api, asked.version, asked.node, asked.client_id) == (Api.METADATA, 12, 1, "raw")
        assert asked.message.topics[0].name == "t"
        assert began <= asked.at <= produced.at <= time.monotonic()
        assert (produced.acks, produced.batches) == (1, tuple(broker.batches))
        (sent,) = broker.batches
        assert (sent.topic, sent.partition, sent.stamp, sent.count, sent.values) == ("t", 1, (5, 6, 7), 2, [b"a", b"b"])

    def test_waiting(self, broker: ScriptedBroker, raw: RawClient) -> None:
        threading.Timer(0.1, raw.metadata).start()
        assert broker.wait_for(Api.METADATA)[0].version == 12
        with pytest.raises(AssertionError, match=r"2 Metadata requests did not happen .* 1 Metadata"):
            broker.wait_for(Api.METADATA, 2, 0.05)

    def test_nonsense(self, broker: ScriptedBroker) -> None:
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(40), b"\0\0\0\x0a\0\3\0\x0c\0\0\0\0\0\0"):
            with client(broker.bootstrap_servers) as raw:
                raw.socket.sendall(nonsense)
                assert raw.ended()
        assert len(broker.complaints) == 3

    def test_an_error_in_the_script_comes_out(self) -> None:
        def judge(_: object) -> Verdict:
            raise RuntimeError("a slip in the test")

        def run() -> None:
            with ScriptedBroker({"t": 1}) as broker, client(broker.bootstrap_servers) as raw:
                broker.on_produce().answer(judge)
                raw.produce("t", 0, batch(b"a"), answered=False)
                assert raw.ended()

        with pytest.raises(RuntimeError, match="a slip in the test"):
            run()

    def test_an_error_in_the_script_comes_out_of_close(self) -> None:
        """Where it is closed by hand, and once. At the end of a block its own error comes first."""

        def judge(_: object) -> Verdict:
            raise RuntimeError("a slip in the test")

        def made() -> ScriptedBroker:
            broker = ScriptedBroker({"t": 1})
            broker.on_produce().answer(judge)
            with client(broker.bootstrap_servers) as raw:
                raw.produce("t", 0, batch(b"a"), answered=False)
                assert raw.ended()
            return broker

        broker = made()
        with pytest.raises(RuntimeError, match="a slip in the test"):
            broker.close()
        broker.close()
        with pytest.raises(ZeroDivisionError), made():
            1 / 0  # noqa: B018

    def test_a_byte_that_the_answer_has_not(self) -> None:
        broker = ScriptedBroker({"t": 1})
        broker.on_produce().answer(corrupt_at=5_000)
        with client(broker.bootstrap_servers) as raw:
            raw.produce("t", 0, batch(b"a"), answered=False)
            assert raw.ended()
        with pytest.raises(ValueError, match=r"corrupt_at=5000: the answer has \d+ bytes: .*PRODUCE"):
            broker.close()


class TestLifetime:
    def test_it_ends_at_once_whatever_is_open(self) -> None:
        broker = ScriptedBroker({"t": 1}, nodes=3)
        broker.by_hand = True
        broker.on(Api.METADATA).answer(delay_s=60)
        raw = RawClient(broker.address())
        raw.produce("t", 0, batch(b"a"), answered=False)
        raw.send(Api.METADATA, 4, topics=(), allow_auto_topic_creation=False)
        pending = broker.next_produce()
        with in_time("close() twice", 0, slack_s=1):
            broker.close()
            broker.close()
        assert not [each for each in threading.enumerate() if each.name.startswith("scripted-broker")]
        assert raw.ended()
        pending.accept()

    def test_it_waits_without_work(self, broker: ScriptedBroker, raw: RawClient) -> None:
        """An open connection and a held request cost no processor time."""
        broker.by_hand = True
        raw.produce("t", 0, batch(b"a"), answered=False)
        broker.next_produce()
        began = time.process_time()
        threading.Event().wait(0.5)
        assert time.process_time() - began < 0.1

    @pytest.mark.parametrize("wrong", [{"version": "1.0"}, {"nodes": 0}])
    def test_wrong_arguments(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match=r"2\.1, 2\.4, 3\.3, 4\.0, 4\.3|at least 1"):
            ScriptedBroker(**wrong)

    def test_without_kio(self) -> None:
        program = textwrap.dedent("""
            import sys
            sys.modules["kio"] = None
            from fastprod.testing import MissingExtraError, ScriptedBroker
            try:
                ScriptedBroker()
            except MissingExtraError as error:
                print(error)
        """)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert "pip install 'fastprod[scripted]'" in done.stdout

    def test_the_plugin_imports_nothing_of_it(self) -> None:
        program = "import sys, fastprod.testing.plugin; print(*[name for name in sys.modules if 'scripted' in name])"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == ""


@pytest.mark.scripted_broker({"orders": 3}, version="2.4")
def test_the_fixture(scripted_broker: ScriptedBroker) -> None:
    assert (scripted_broker.topics, scripted_broker.version) == ({"orders": 3}, "2.4")


def test_the_fixture_by_default(scripted_broker: ScriptedBroker) -> None:
    assert (scripted_broker.topics, scripted_broker.version) == ({}, "4.3")


README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
(SECTION,) = re.findall(r"<!-- scripted:begin -->\n(.*?)<!-- scripted:end -->", README, re.DOTALL)


def test_names_in_the_readme_exist(broker: ScriptedBroker) -> None:
    table = SECTION.partition("| | |")[2]
    named = re.findall(r"`\.?([a-z_]+)[(=` ]", table)
    assert len(named) > 40
    known = {*dir(broker), *dir(Pending), *dir(Rule), *RefusalShape.__annotations__}
    # An argument, and a word of the language.
    assert set(named) - known == {"times", "with"}
