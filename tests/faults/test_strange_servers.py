"""Servers that are no Kafka brokers, and brokers whose first words are broken: the constructor says what is odd.

What the control plane makes of single bytes is tested in tests/control/test_bootstrap.py; here are whole servers, met
as a program meets them, and answers that were whole once.
"""

from __future__ import annotations

import contextlib
import http.server
import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from patience import eventually, in_time

from fastprod import KafkaProducer, errors
from fastprod.testing import Api, ScriptedBroker

from .conftest import MakeProducer
from .mangling import HALF, MANGLERS, Mangler

TIMEOUT_MS = 900
Talk = Callable[[socket.socket], Any]


@contextlib.contextmanager
def server(talk: Talk) -> Iterator[str]:
    """Do `talk` with whoever connects, and close."""

    def converse(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            talk(sock)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=converse, args=(sock,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def refused(address: str, **options: Any) -> str:
    """Return what the constructor says, in time, with no thread left behind."""
    before = threading.active_count()
    options.setdefault("request_timeout_ms", TIMEOUT_MS // 3)
    with (
        in_time(f"bootstrap_timeout_ms={TIMEOUT_MS}", TIMEOUT_MS / 1000, at_least_s=TIMEOUT_MS / 1000),
        pytest.raises(errors.KafkaTimeoutError) as caught,
    ):
        KafkaProducer(bootstrap_servers=address, bootstrap_timeout_ms=TIMEOUT_MS, **options)
    eventually(lambda: threading.active_count() <= before, what="the end of its threads")
    text = str(caught.value)
    print(text)
    told = text.partition(f"Unable to bootstrap from {address} within {TIMEOUT_MS} ms: ")[2]
    assert address in told
    assert text.endswith(".")
    assert not text.endswith("..")
    return text


def says_at_once(data: bytes) -> Talk:
    def talk(sock: socket.socket) -> None:
        sock.sendall(data)
        while sock.recv(1000):
            pass

    return talk


def resets(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def resets_when_asked(sock: socket.socket) -> None:
    sock.recv(1, socket.MSG_PEEK)
    resets(sock)


class TestServers:
    def test_http(self) -> None:
        """Python's waits for the end of a line that never comes."""
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as web:
            thread = threading.Thread(target=web.serve_forever)
            thread.start()
            text = refused(f"127.0.0.1:{web.server_port}")
            web.shutdown()
            thread.join()
        assert "did not answer ApiVersions within 300 ms" in text
        assert "is that a Kafka broker" in text
        assert "?." not in text

    def test_tls(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

        def talk(sock: socket.socket) -> None:
            context.wrap_socket(sock, server_side=True)

        with server(talk) as address:
            text = refused(address)
        assert "without TLS" in text or "TLS server" in text

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"HTTP/1.1 408 Request Timeout\r\n\r\n", "HTTP server"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH server"),
            (b"220 mail.example ESMTP\r\n", "mail or FTP server"),
            (bytes(100), "a frame of 0 bytes"),
            (bytes(range(200, 256)) * 1000, "its size field says"),
            (b"\x7f\xff\xff\xff", "its size field says 2147483647"),
            (b"\x00\x00\x00\x04\x00\x00\x00\x05", "got one to 5"),
        ],
    )
    def test_one_that_speaks_first(self, data: bytes, words: str) -> None:
        with server(says_at_once(data)) as address:
            assert words in refused(address)

    @pytest.mark.parametrize("talk", [lambda sock: None, resets_when_asked], ids=["closes", "resets"])
    def test_one_that_hangs_up(self, talk: Talk) -> None:
        with server(talk) as address:
            text = refused(address)
        assert "instead of answering ApiVersions" in text
        assert "without TLS" in text

    def test_one_that_resets_at_once(self) -> None:
        """Which may be before the connection is known to have been made."""
        with server(resets) as address:
            text = refused(address)
        assert f"cannot connect to {address}" in text or "instead of answering ApiVersions" in text

    def test_a_good_one_beside_it_will_do(self, scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
        with server(says_at_once(bytes(100))) as zeros, server(resets) as resetting:
            made = scripted_producer(bootstrap_servers=[zeros, resetting, scripted.bootstrap_servers])
            assert made.send("t", b"v").get(20).offset == 0


class TestBrokenAnswers:
    @pytest.mark.parametrize(
        ("api_key", "mangler"),
        [*itertools.product((Api.API_VERSIONS, Api.METADATA), MANGLERS), (Api.API_VERSIONS, HALF)],
        ids=lambda value: value.name if isinstance(value, Mangler) else f"api {value}",
    )
    def test_to_the_constructor(self, scripted: ScriptedBroker, api_key: int, mangler: Mangler) -> None:
        scripted.on(api_key).answer(mangle=mangler.mangle)
        api = "ApiVersions" if api_key == Api.API_VERSIONS else "Metadata"
        text = refused(scripted.bootstrap_servers)
        assert any(words in text for words in (api, *mangler.words)), text

    @pytest.mark.parametrize("mangler", MANGLERS, ids=lambda mangler: mangler.name)
    @pytest.mark.parametrize("api_key", [Api.API_VERSIONS, Api.METADATA, Api.INIT_PRODUCER_ID])
    def test_until_it_behaves(
        self, scripted: ScriptedBroker, scripted_producer: MakeProducer, api_key: int, mangler: Mangler
    ) -> None:
        mangled = scripted.on(api_key, times=3).answer(mangle=mangler.mangle)
        made = scripted_producer(request_timeout_ms=300, reconnect_backoff_ms=5, retry_backoff_ms=5)
        assert made.send("t", b"v", partition=0).get(20).offset == 0
        assert mangled.used == 3
        assert scripted.count(api_key) > 3

    @pytest.mark.parametrize("mangler", MANGLERS, ids=lambda mangler: mangler.name)
    def test_about_a_topic(self, scripted: ScriptedBroker, scripted_producer: MakeProducer, mangler: Mangler) -> None:
        """A running producer says why it cannot find the topic, and goes on with those it knows."""
        made = scripted_producer(
            request_timeout_ms=300, reconnect_backoff_ms=5, retry_backoff_ms=5, max_block_ms=1000, linger_ms=20_000
        )
        accepted = made.send("t", b"before", partition=0)
        mangled = scripted.on(Api.METADATA).answer(mangle=mangler.mangle)
        with in_time("max_block_ms=1000", 1.0, at_least_s=1.0), pytest.raises(errors.KafkaTimeoutError) as caught:
            made.send("other", b"v")
        assert "'other'" in str(caught.value)
        assert scripted.bootstrap_servers in str(caught.value)
        made.flush(20)
        assert accepted.get(0).offset == 0
        mangled.remove()
        after = made.send("other", b"after")
        made.flush(20)
        assert after.get(0).offset == 0


def test_a_broker_that_takes_no_records(scripted: ScriptedBroker, scripted_producer: MakeProducer) -> None:
    del scripted.offered[Api.PRODUCE]
    made = scripted_producer(request_timeout_ms=500, delivery_timeout_ms=1000)
    with pytest.raises(errors.KafkaError, match=r"Produce|delivery_timeout_ms") as caught:
        made.send("t", b"v", partition=0).get(20)
    assert caught.value.maybe_written is False
