"""The first contact: versions, peers that are no Kafka brokers, and what is said about them."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from patience import in_time

from fastprod import errors

from .conftest import MakeSender
from .scripted import (
    API_VERSIONS,
    INIT_PRODUCER_ID,
    METADATA,
    Hang,
    HangUp,
    RawServer,
    Request,
    ScriptedBroker,
)


def refused(sender: MakeSender, address: str, seconds: float = 0.6, **options: object) -> str:
    """Return what the failed bootstrap says; it must keep its timeout."""
    with in_time("bootstrap", seconds, slack_s=2):
        with pytest.raises(errors.KafkaTimeoutError, match="Unable to bootstrap from") as caught:
            sender(address, bootstrap=seconds, **options)
    assert address.split(",")[0] in str(caught.value)
    return str(caught.value)


def test_an_ipv6_address_is_in_brackets(sender: MakeSender) -> None:
    assert "cannot connect to [::1]:1: " in refused(sender, "[::1]:1")


def test_an_address_that_is_no_name_is_said_once(sender: MakeSender) -> None:
    assert "cannot connect to 127.0.0.1:1: Connection refused." in refused(sender, "127.0.0.1:1")


class TestVersions:
    @pytest.mark.parametrize("newest", [0, 1, 2])
    def test_an_older_broker_is_asked_again_with_its_version(
        self, sender: MakeSender, newest: int
    ) -> None:
        with ScriptedBroker() as broker:
            broker.offered[API_VERSIONS] = newest
            sender(broker.address)
            asked = [each.version for each in broker.requests if each.api_key == API_VERSIONS]
            assert asked[:2] == [4, newest]

    def test_a_refusal_without_ranges_means_version_0(self, sender: MakeSender) -> None:
        with ScriptedBroker() as broker:
            whole = broker._versions
            broker._versions = lambda version, error_code=0: (  # type: ignore[method-assign]
                b"\x00\x23\x00\x00\x00\x00" if error_code else whole(version)
            )
            sender(broker.address)
            asked = [each.version for each in broker.requests if each.api_key == API_VERSIONS]
            assert asked[:2] == [4, 0]

    def test_no_common_version_of_metadata(self, sender: MakeSender) -> None:
        with ScriptedBroker() as broker:
            broker.offered[METADATA] = 3
            text = refused(sender, broker.address)
            assert "Metadata" in text
            assert "2.1" in text

    def test_client_id_and_software_name(self, sender: MakeSender) -> None:
        with ScriptedBroker() as broker:
            sender(broker.address, client_id="me")
            assert {each.client_id for each in broker.requests} == {"me"}
            assert b"fastprod" in broker.requests[0].body


class TestStrangers:
    def test_nobody_listens(self, sender: MakeSender) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        text = refused(sender, f"127.0.0.1:{port}")
        assert "Connection refused" in text

    def test_every_address_is_named(self, sender: MakeSender) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
            ports = one.getsockname()[1], two.getsockname()[1]
        text = refused(sender, f"127.0.0.1:{ports[0]},localhost:{ports[1]}")
        assert all(str(port) in text for port in ports)

    def test_unresolvable_name(self, sender: MakeSender) -> None:
        assert "cannot resolve" in refused(sender, "no.such.host.invalid:9092", 2)

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP server"),
            (b"\x15\x03\x03\x00\x02\x02\x46", "TLS server"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH server"),
            (b"-ERR unknown command\r\n", "Redis"),
            (b"\xff\xff\xff\xff", "size field says -1"),
            (b"\x7f\xff\xff\xff", "size field says 2147483647"),
            (b"\x00\x00\x00\x00", "a frame of 0 bytes"),
            (b"\x00\x00\x00\x05\x00\x00\x00\x00\x00", "ApiVersions"),
            (b"\x00\x00\x00\x05\x00\x00\x00\x63\x00", "got one to 99"),
        ],
    )
    def test_garbage_is_named(self, sender: MakeSender, answer: bytes, words: str) -> None:
        def talk(sock: socket.socket) -> None:
            sock.recv(1000)
            sock.sendall(answer)
            sock.recv(1000)

        with RawServer(talk) as server:
            assert words in refused(sender, server.address)

    @pytest.mark.parametrize("pieces", [1, 3])
    def test_garbage_in_pieces(self, sender: MakeSender, pieces: int) -> None:
        def talk(sock: socket.socket) -> None:
            sock.recv(1000)
            text = b"HTTP/1.1 400 Bad Request\r\n\r\n"
            for start in range(0, len(text), pieces):
                sock.sendall(text[start : start + pieces])
                time.sleep(0.002)

        with RawServer(talk) as server:
            assert "HTTP" in refused(sender, server.address)

    def test_a_listener_that_hangs_up(self, sender: MakeSender) -> None:
        with RawServer(lambda sock: sock.recv(1000)) as server:
            assert "instead of answering ApiVersions" in refused(sender, server.address)

    def test_a_listener_that_wants_sasl(self, sender: MakeSender) -> None:
        def hang_up(_: Request) -> bytes:
            raise HangUp

        with ScriptedBroker() as broker:
            broker.answers[METADATA] = broker.answers[INIT_PRODUCER_ID] = hang_up
            assert "SASL" in refused(sender, broker.address)

    def test_a_listener_that_says_nothing(self, sender: MakeSender) -> None:
        over = threading.Event()
        with RawServer(lambda sock: over.wait(20)) as server:
            text = refused(sender, server.address, 1.0, request_timeout_ms=400)
            assert "did not answer ApiVersions within 400 ms" in text
            over.set()

    def test_an_oversized_response_is_refused(self, sender: MakeSender) -> None:
        with ScriptedBroker() as broker:
            text = refused(sender, broker.address, receive_message_max_bytes=20)
            assert "receive_message_max_bytes" in text


class TestWaiting:
    def test_a_deaf_server_does_not_hold_up_the_others(self, sender: MakeSender) -> None:
        over = threading.Event()
        with ScriptedBroker() as broker, RawServer(lambda sock: over.wait(20)) as deaf:
            for _ in range(3):
                with in_time("bootstrap", 0, slack_s=8):
                    sender(f"{deaf.address},{broker.address}")
            over.set()

    def test_a_broker_that_comes_later_is_found(self, sender: MakeSender) -> None:
        with ScriptedBroker() as broker:
            broker.answers[METADATA] = lambda request: _raise(Hang())
            engine = sender(broker.address, bootstrap=None, request_timeout_ms=300).engine
            time.sleep(0.5)
            del broker.answers[METADATA]
            engine.bootstrap(10)

    def test_failed_bootstrap_leaves_no_thread(self, sender: MakeSender) -> None:
        refused(sender, "127.0.0.1:1", client_id="gone")
        time.sleep(0.5)
        assert not [each for each in threading.enumerate() if each.name == "gone-network-thread"]

    def test_no_waiting_without_bootstrap(self, sender: MakeSender) -> None:
        with in_time("no bootstrap", 0, slack_s=1):
            sender("127.0.0.1:1", bootstrap=None)

    def test_bootstrap_connected_is_false_afterwards(self, sender: MakeSender) -> None:
        with ScriptedBroker() as broker:
            assert sender(broker.address).engine.bootstrap_connected() is False


def _raise(error: Exception) -> bytes:
    raise error
