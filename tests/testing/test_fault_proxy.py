"""`FaultProxy` on its own: what it promises of every fault, with plain sockets on both sides."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from fastprod.testing import BrokerError, FaultProxy

# What is tested does not depend on the twin.
pytestmark = pytest.mark.native_only

PATIENCE_S = 60
QUIET_S = 0.3
WAYS = ["requests", "responses"]


class Target:
    """A server whose accepted connections are handed to the test."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()

    def take(self) -> socket.socket:
        self._listener.settimeout(PATIENCE_S)
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE_S)
        return connection

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


@pytest.fixture
def proxy(target: Target) -> Iterator[FaultProxy]:
    with FaultProxy(target.address) as made:
        yield made


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S)


@pytest.fixture
def pair(proxy: FaultProxy, target: Target) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's socket and the target's, at both ends of one connection."""
    with connect(proxy) as client, target.take() as server:
        yield client, server


def ends(pair: tuple[socket.socket, socket.socket], way: str) -> tuple[socket.socket, socket.socket]:
    """The one that writes and the one that reads, for that way."""
    return pair if way == "requests" else (pair[1], pair[0])


def exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, f"ended after {len(data)} of {size} bytes"
        data += part
    return bytes(data)


def is_quiet(sock: socket.socket) -> bool:
    """Say whether nothing comes, not even an end."""
    sock.settimeout(QUIET_S)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(PATIENCE_S)
    return False


def before_reset(sock: socket.socket) -> bytes:
    """Read until the connection is reset, which it must be; return what came."""
    came = bytearray()
    try:
        while part := sock.recv(65536):
            came += part
    except ConnectionResetError:
        return bytes(came)
    pytest.fail("it ended in order")


def assert_reset(sock: socket.socket) -> None:
    before_reset(sock)


def passes_round(pair: tuple[socket.socket, socket.socket]) -> bool:
    """Say whether a byte comes through and another one back."""
    client, server = pair
    client.sendall(b"?")
    asked = exactly(server, 1)
    server.sendall(b"!")
    return asked + exactly(client, 1) == b"?!"


def passes(pair: tuple[socket.socket, socket.socket]) -> bool:
    client, server = pair
    client.sendall(b"ping")
    server.sendall(b"pong")
    return (exactly(server, 4), exactly(client, 4)) == (b"ping", b"pong")


@pytest.mark.parametrize("way", WAYS)
def test_bytes_pass_unchanged_and_an_end_is_passed_on(
    pair: tuple[socket.socket, socket.socket], proxy: FaultProxy, way: str
) -> None:
    source, sink = ends(pair, way)
    data = os.urandom(5_000_000)
    writer = threading.Thread(target=lambda: (source.sendall(data), source.shutdown(socket.SHUT_WR)))
    writer.start()
    assert exactly(sink, len(data)) == data
    writer.join()
    assert sink.recv(1) == b""
    # The other way goes on.
    sink.sendall(b"still there")
    assert exactly(source, 11) == b"still there"
    sink.close()
    source.close()
    deadline = time.monotonic() + PATIENCE_S
    while proxy.connections:
        assert time.monotonic() < deadline


def test_who_is_slow_to_read_is_felt_by_who_writes(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    client.settimeout(1)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 64 << 20:
            sent += client.send(bytes(1 << 16))
    # The two kernels' buffers and the proxy's own, and no more.
    assert sent < 32 << 20
    assert exactly(server, sent) == bytes(sent)


def test_a_reset_is_passed_on_as_a_reset(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    assert_reset(client)


def test_cut_resets_all_connections_and_new_ones_pass(proxy: FaultProxy, target: Target) -> None:
    clients = [connect(proxy) for _ in range(5)]
    servers = [target.take() for _ in range(5)]
    assert proxy.connections == 5
    assert proxy.cut() == 5
    assert proxy.connections == 0
    for sock in (*clients, *servers):
        assert_reset(sock)
        sock.close()
    with connect(proxy) as client, target.take() as server:
        assert passes((client, server))
    assert proxy.opened == 6
    assert proxy.address == f"127.0.0.1:{proxy.port}"


def test_refuse_is_for_new_connections_until_accept(
    pair: tuple[socket.socket, socket.socket], proxy: FaultProxy, target: Target
) -> None:
    proxy.refuse()
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    assert passes(pair)
    proxy.accept()
    proxy.accept()
    with connect(proxy) as client, target.take() as server:
        assert passes((client, server))


def test_a_target_that_refuses_is_a_reset_and_another_one_can_be_named(proxy: FaultProxy, target: Target) -> None:
    target.close()
    # The reset may come before connect() has returned.
    with contextlib.suppress(ConnectionResetError), connect(proxy) as client:
        assert_reset(client)
    other = Target()
    host, port = other.address
    proxy.target = f"{host}:{port}"
    assert proxy.target == other.address
    with connect(proxy) as client, other.take() as server:
        assert passes((client, server))
    other.close()


@pytest.mark.parametrize("way", WAYS)
def test_delay_is_added_each_way_and_nothing_overtakes(
    pair: tuple[socket.socket, socket.socket], proxy: FaultProxy, way: str
) -> None:
    source, sink = ends(pair, way)
    proxy.delay(200, way)
    began = time.monotonic()
    source.sendall(b"one")
    assert exactly(sink, 3) == b"one"
    assert time.monotonic() - began >= 0.2
    source.sendall(b"two")
    proxy.delay(0, way)
    source.sendall(b"three")
    assert exactly(sink, 8) == b"twothree"
    assert passes(pair)


def test_a_delay_may_be_a_part_of_a_millisecond(pair: tuple[socket.socket, socket.socket], proxy: FaultProxy) -> None:
    """The fastest of many: a busy machine delays some."""
    proxy.delay(0.2)
    taken = []
    for _ in range(200):
        began = time.monotonic()
        assert passes_round(pair)
        taken.append(time.monotonic() - began)
    assert 0.0004 <= min(taken) < 0.001


def test_how_much_is_on_its_way_is_bounded_as_told(
    pair: tuple[socket.socket, socket.socket], proxy: FaultProxy
) -> None:
    """What does not fit comes a whole delay later."""
    client, server = pair
    size = 8 << 20
    taken = []
    for on_its_way in (1 << 20, size):
        proxy.delay(200, "requests", on_its_way=on_its_way)
        writer = threading.Thread(target=client.sendall, args=(bytes(size),))
        began = time.monotonic()
        writer.start()
        assert exactly(server, size) == bytes(size)
        taken.append(time.monotonic() - began)
        writer.join()
    narrow, wide = taken
    # Six or seven journeys, as the read that fills the queue may bring more than fits; then one.
    assert narrow >= 6 * 0.2
    assert 0.2 <= wide < narrow


@pytest.mark.parametrize("way", WAYS)
def test_slow_is_as_slow_as_it_says(
    pair: tuple[socket.socket, socket.socket], proxy: FaultProxy, way: str
) -> None:
    source, sink = ends(pair, way)
    proxy.slow(100_000, way)
    began = time.monotonic()
    source.sendall(bytes(50_000))
    exactly(sink, 50_000)
    # Two portions of a hundredth of a second may come at once.
    assert time.monotonic() - began >= 0.45
    proxy.heal()
    assert passes(pair)


def test_one_byte_at_a_time_is_that_and_loses_nothing(
    pair: tuple[socket.socket, socket.socket], proxy: FaultProxy
) -> None:
    client, server = pair
    proxy.one_byte_at_a_time()
    proxy.slow(50)
    data = b"0123456789"
    client.sendall(data)
    parts = [server.recv(100) for _ in data]
    assert parts == [data[at : at + 1] for at in range(10)]
    proxy.slow(float("inf"))
    data = os.urandom(100_000)
    client.sendall(data)
    server.sendall(data)
    assert exactly(server, len(data)) == exactly(client, len(data)) == data


@pytest.mark.parametrize("way", WAYS)
def test_held_bytes_come_later_and_so_does_the_end(
    pair: tuple[socket.socket, socket.socket], proxy: FaultProxy, way: str
) -> None:
    source, sink = ends(pair, way)
    proxy.hold(way)
    source.sendall(b"kept")
    sink.sendall(b"other way")
    assert exactly(source, 9) == b"other way"
    source.close()
    assert is_quiet(sink)
    proxy.release(way)
    assert exactly(sink, 4) == b"kept"
    with contextlib.suppress(ConnectionResetError):
        assert sink.recv(1) == b""


@pytest.mark.parametrize("way", WAYS)
def test_a_black_hole_swallows_and_healing_resets_who_lost_something(
    pair: tuple[socket.socket, socket.socket], proxy: FaultProxy, target: Target, way: str
) -> None:
    source, sink = ends(pair, way)
    with connect(proxy) as idle, target.take() as behind:
        proxy.black_hole(way)
        source.sendall(bytes(20_000_000))
        assert is_quiet(sink)
        with connect(proxy) as new, target.take() as behind_new:
            ends((new, behind_new), way)[0].sendall(b"lost")
            assert is_quiet(ends((new, behind_new), way)[1])
            assert proxy.connections == 3
            proxy.heal()
            for sock in (source, sink, new, behind_new):
                assert_reset(sock)
        assert passes((idle, behind))


def test_an_end_does_not_leave_a_black_hole(pair: tuple[socket.socket, socket.socket], proxy: FaultProxy) -> None:
    client, server = pair
    proxy.black_hole()
    client.close()
    assert is_quiet(server)
    proxy.heal()
    assert server.recv(1) == b""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("byte", [0, 1, 1000, 300_000])
def test_a_connection_is_cut_at_the_chosen_byte(
    pair: tuple[socket.socket, socket.socket], proxy: FaultProxy, way: str, byte: int
) -> None:
    source, sink = ends(pair, way)
    assert passes(pair)
    fault = proxy.cut_at(byte, way)
    data = os.urandom(400_000)
    # It may be reset while it still sends.
    with contextlib.suppress(ConnectionError):
        source.sendall(data)
    assert before_reset(sink) == data[:byte]
    assert fault.done
    assert_reset(source)
    assert proxy.connections == 0


def test_a_stalled_connection_is_silent_at_the_chosen_byte_and_the_others_are_not(
    pair: tuple[socket.socket, socket.socket], proxy: FaultProxy, target: Target
) -> None:
    client, server = pair
    fault = proxy.stall_at(3)
    assert not fault.done
    client.sendall(b"abcdef")
    assert exactly(server, 3) == b"abc"
    assert fault.wait(PATIENCE_S)
    server.sendall(b"answer")
    assert is_quiet(server)
    assert is_quiet(client)
    with connect(proxy) as other, target.take() as behind:
        assert passes((other, behind))
        proxy.heal()
        assert_reset(client)
        assert_reset(server)
        assert passes((other, behind))


def test_a_planned_fault_waits_for_one_connection_to_come_that_far(proxy: FaultProxy, target: Target) -> None:
    fault = proxy.cut_at(10)
    with connect(proxy) as first, target.take() as server:
        first.sendall(b"12345678")
        assert exactly(server, 8) == b"12345678"
        first.close()
        assert server.recv(1) == b""
    deadline = time.monotonic() + PATIENCE_S
    while proxy.connections:
        assert time.monotonic() < deadline
    with connect(proxy) as second, target.take() as server:
        second.sendall(b"1234567890")
        assert_reset(second)
    assert fault.done


def test_healing_forgets_what_was_planned(pair: tuple[socket.socket, socket.socket], proxy: FaultProxy) -> None:
    fault = proxy.cut_at(0)
    proxy.heal()
    assert passes(pair)
    assert not fault.wait(0)


def test_it_carries_more_than_50_mb_a_second_in_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    size = 200_000_000
    part = bytes(1_000_000)

    def write() -> None:
        for _ in range(size // len(part)):
            client.sendall(part)

    writer = threading.Thread(target=write)
    began = time.monotonic()
    writer.start()
    left = size
    while left:
        left -= len(server.recv(1 << 20))
    writer.join()
    # No limit on a busy machine: the number is for who looks at it.
    print(f"{size / (time.monotonic() - began) / 1e6:.0f} MB/s")


def test_a_closed_proxy_refuses_resets_and_says_so(target: Target) -> None:
    proxy = FaultProxy(target.address)
    with connect(proxy) as client, target.take() as server:
        proxy.close()
        assert_reset(client)
        assert_reset(server)
    proxy.close()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    with pytest.raises(BrokerError, match="closed"):
        proxy.cut()


def test_a_taken_port_is_an_error_that_leaves_nothing(target: Target) -> None:
    threads = threading.active_count()
    with pytest.raises(OSError, match="in use") as caught:
        FaultProxy(target.address, port=target.address[1])
    assert caught.value.errno == errno.EADDRINUSE
    assert threading.active_count() == threads


def test_what_makes_no_sense_is_refused(proxy: FaultProxy) -> None:
    with pytest.raises(ValueError, match="way='up': supported are 'requests', 'responses' and 'both'"):
        proxy.delay(1, "up")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ms=-1"):
        proxy.delay(-1)
    with pytest.raises(ValueError, match="on_its_way=0: must be above 0"):
        proxy.delay(1, on_its_way=0)
    with pytest.raises(ValueError, match="bytes_per_s=0"):
        proxy.slow(0)
    with pytest.raises(ValueError, match="byte=-1"):
        proxy.cut_at(-1)
    with pytest.raises(ValueError, match="way='both': supported are 'requests' and 'responses'"):
        proxy.stall_at(1, "both")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_keeps_nothing_open(proxy: FaultProxy, target: Target) -> None:
    for _ in range(20):
        there, tell = os.pipe()
        with connect(proxy) as client, target.take() as server:
            # At once: the proxy may still be at work with this connection.
            child = os.fork()
            if child == 0:
                try:
                    proxy.close()
                    os.write(tell, b"!")
                    time.sleep(2 * PATIENCE_S)
                finally:
                    os._exit(0)
            try:
                os.close(tell)
                assert os.read(there, 1) == b"!"
                # The child has copies of our ends, as any child would.
                assert passes((client, server))
                proxy.refuse()
                with pytest.raises(ConnectionRefusedError):
                    connect(proxy)
                proxy.accept()
                proxy.cut()
                assert_reset(client)
                assert_reset(server)
            finally:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                os.close(there)


@pytest.mark.parametrize("target", ["localhost", ":9092", "localhost:kafka", ""])
def test_a_target_without_a_port_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"target={target!r}: it must be")):
        FaultProxy(target)
