"""The I/O thread: it drains, writes, reads, and does everything that is due by the clock.

One pass: carry out commands, look at what arrived, end what has expired, let batches leave, then
sleep in select until a socket, another thread or the clock has something. Nothing of it waits for
Python callbacks or for the control plane.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from typing import Final

from fastprod._pure import drain, layout
from fastprod._pure.batch import Batch
from fastprod._pure.core import Core
from fastprod._pure.counters import latency_bucket
from fastprod._pure.expiry import expire
from fastprod._pure.outbox import NEVER, Connection, ConnectionLost, Outbox, Request
from fastprod._pure.produce import THROTTLE_BY_CLIENT_FROM, PartitionAnswer

log: Final = logging.getLogger("fastprod")

_LONGEST_SLEEP: Final = 60.0
_PAUSE_AFTER_BUG: Final = 0.05

ATTACH: Final = 1
DETACH: Final = 2
FAILED: Final = 3


class IoLoop:
    """The thread and its connections. `command` is for any thread, the rest is its own."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._commands: deque[tuple[int, int, int, int, str]] = deque()
        # poll() where there is one: an epoll or kqueue descriptor is shared with a forked child,
        # which would change what the parent waits for.
        poll = getattr(selectors, "PollSelector", selectors.SelectSelector)
        self._selector: selectors.BaseSelector = poll()
        self._selector.register(core.wake_read, selectors.EVENT_READ, None)
        self._stopping = False
        self._abandoned = False
        self._thread: threading.Thread | None = None
        # Written by the I/O thread under the core's lock, read by who counts.
        self.outboxes: dict[int, Outbox] = {}

    # --- Start and end --------------------------------------------------------------------------

    def start(self) -> None:
        if self._thread is None:
            self._stopping = False
            name = f"{self._core.options.client_id}-io-thread"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            thread.start()  # raises when there can be no more threads
            self._thread = thread

    def stop(self) -> None:
        thread = self._thread
        if thread is None:
            return
        self._stopping = True
        self._core.wake()
        if thread is not threading.current_thread():
            # Whoever stops it as well waits as well, also when a signal has ended our own wait.
            thread.join()
            self._thread = None

    def abandon(self) -> None:
        """Nobody will stop it: let it end by itself, and close everything after it."""
        thread, self._thread = self._thread, None
        self._abandoned = self._stopping = True
        if thread is None or not thread.is_alive():
            self._close()
        else:
            self._core.wake()

    def inherited(self) -> None:
        """In a forked child: while it holds a copy of a connection, closing the parent's does not
        end it."""
        for outbox in list(self.outboxes.values()):
            if outbox.connection is not None:
                outbox.connection.sock.close()

    def _close(self) -> None:
        self._selector.close()
        self._core.close()

    def command(self, kind: int, node: int, fd: int = -1, version: int = 0, why: str = "") -> None:
        self._commands.append((kind, node, fd, version, why))
        if self._stopping:
            self._drop_commands()
        self._core.wake()

    def _run(self) -> None:
        self._core.io_thread = threading.get_ident()
        self._core.host.inside.add(self._core.io_thread)
        try:
            while not self._stopping:
                try:
                    self._pass()
                except Exception:
                    # A bug of ours must not end delivery for good; nor may it spin.
                    log.exception("the I/O thread goes on after an unexpected error")
                    time.sleep(_PAUSE_AFTER_BUG)
        finally:
            self._drop_commands()
            for outbox in self.outboxes.values():
                self._lose(outbox, ConnectionLost("the producer is closing", 0))
            self._core.host.inside.discard(self._core.io_thread)
            self._core.io_thread = 0
            if self._abandoned:
                self._close()

    # --- One pass -------------------------------------------------------------------------------

    def _pass(self) -> None:
        now = time.monotonic()
        core = self._core
        self._carry_out_commands(now)
        urged = core.take_urge()
        with core.lock:
            now = time.monotonic()  # waiting for the lock may have taken a while
            core.place_late()
            self._sort_arrivals()
            due = expire(core, now)
        for outbox in list(self.outboxes.values()):
            if urged:
                outbox.look_now()
            due = min(due, self._attend(outbox, now))
        self._sleep(due)

    def _sleep(self, due: float) -> None:
        core = self._core
        rest = min(due - time.monotonic(), _LONGEST_SLEEP)
        if core.arrivals or core.late or core.urged or self._commands or self._stopping:
            rest = 0
        for key, mask in self._selector.select(max(rest, 0)):
            if key.data is None:
                core.woken()
            else:
                self._serve(key.data, mask)

    def _carry_out_commands(self, now: float) -> None:
        while self._commands:
            kind, node_id, fd, version, why = self._commands.popleft()
            outbox = self._outbox(node_id)
            if kind == ATTACH:
                self._lose(outbox, ConnectionLost("replaced by a new connection", 0))
                self._attach(outbox, fd, version, now)
            elif kind == DETACH:
                self._lose(outbox, ConnectionLost(why, 0))
            outbox.asked = False
            outbox.look_now()

    def _drop_commands(self) -> None:
        """Close the connections that were handed over too late. The I/O thread does so at its end,
        and whoever still commands afterwards does so himself."""
        with contextlib.suppress(IndexError):  # another thread may take them, too
            while True:
                kind, _, fd, _, _ = self._commands.popleft()
                if kind == ATTACH:
                    socket.socket(fileno=fd).close()

    def _outbox(self, node_id: int) -> Outbox:
        outbox = self.outboxes.get(node_id)
        if outbox is None:
            outbox = Outbox(node_id)
            with self._core.lock:
                self.outboxes[node_id] = outbox
        return outbox

    def _sort_arrivals(self) -> None:
        """Each partition that has something to send goes to its leader's outbox. The core's lock
        is held."""
        core = self._core
        while core.arrivals:
            partition = core.arrivals.popleft()
            leader = partition.leader
            if leader >= 0:
                outbox = self.outboxes.get(leader) or self.outboxes.setdefault(
                    leader, Outbox(leader)
                )
                outbox.partitions.setdefault(partition)
                outbox.look_now()
                continue
            route = core.topics[partition.topic]
            if partition.queue and not route.waiting_told:
                route.waiting_told = True
                core.emit((layout.EVENT_NO_LEADER, partition.topic))

    def _attend(self, outbox: Outbox, now: float) -> float:
        """What is due for one broker; when the next thing will be."""
        try:
            return self._attend_guarded(outbox, now)
        except ConnectionLost as lost:
            self._lose(outbox, lost)
        except Exception as error:
            log.exception("unexpected error while sending to node %s", outbox.node_id)
            self._lose(outbox, ConnectionLost(f"unexpected error while sending: {error!r}"))
        return time.monotonic()

    def _attend_guarded(self, outbox: Outbox, now: float) -> float:
        core = self._core
        connection = outbox.connection
        if connection is None:
            if outbox.partitions and not outbox.asked and self._anything_waits(outbox):
                outbox.asked = True
                core.emit((layout.EVENT_NEED_CONNECTION, outbox.node_id))
            return NEVER
        if now >= connection.next_deadline():
            reason = "no answer within request_timeout_ms"
            raise ConnectionLost(reason, layout.REQUEST_TIMED_OUT)
        idle_at = NEVER
        if not connection.in_flight and core.options.connections_max_idle_ms > 0:
            idle_at = connection.last_use + core.options.connections_max_idle_ms / 1000
            if now >= idle_at:
                raise ConnectionLost("idle for connections_max_idle_ms", 0)
        if now >= outbox.look_at:
            self._send_what_may_leave(outbox, connection, now)
        return min(connection.next_deadline(), idle_at, outbox.look_at)

    def _anything_waits(self, outbox: Outbox) -> bool:
        """Partitions whose queue became empty meanwhile need no connection."""
        for partition in list(outbox.partitions):
            if partition.queue and partition.leader == outbox.node_id:
                return True
            if not partition.queue:
                del outbox.partitions[partition]
        return False

    def _send_what_may_leave(self, outbox: Outbox, connection: Connection, now: float) -> None:
        core = self._core
        outbox.look_at = NEVER
        while outbox.can_send(now, core.options.max_in_flight):
            request = drain.next_request(core, outbox, now)
            if request is None:
                break
            self._write(outbox, connection)
            now = time.monotonic()
        outbox.answered = False
        if now < connection.throttled_until and outbox.partitions:
            outbox.look_at = connection.throttled_until

    # --- Bytes ----------------------------------------------------------------------------------

    def _attach(self, outbox: Outbox, fd: int, version: int, now: float) -> None:
        core = self._core
        connection = Connection(fd, version, core.options.receive_message_max_bytes, now)
        outbox.connection = connection
        self._selector.register(connection.sock, selectors.EVENT_READ, outbox)
        with core.lock:
            core.counters.add("connections_opened", 1)

    def _serve(self, outbox: Outbox, mask: int) -> None:
        """A socket is ready."""
        connection = outbox.connection
        if connection is None:
            return
        try:
            if mask & selectors.EVENT_WRITE:
                self._write(outbox, connection)
            if mask & selectors.EVENT_READ:
                for frame in connection.read():
                    self._answer(outbox, connection, frame)
        except ConnectionLost as lost:
            self._lose(outbox, lost)
        except Exception as error:
            log.exception("unexpected error while talking to node %s", outbox.node_id)
            self._lose(outbox, ConnectionLost(f"unexpected error while talking: {error!r}"))

    def _write(self, outbox: Outbox, connection: Connection) -> None:
        request = connection.writing
        done = connection.write(time.monotonic())
        if done and request is not None:
            for batch in request.batches:
                batch.reached = True
            if self._core.options.acks == 0:
                self._complete_unanswered(connection, request)
            outbox.look_now()
        if done == connection.watches_writing:
            connection.watches_writing = not done
            wanted = selectors.EVENT_READ | (0 if done else selectors.EVENT_WRITE)
            self._selector.modify(connection.sock, wanted, outbox)

    def _complete_unanswered(self, connection: Connection, request: Request) -> None:
        """acks=0: the broker answers nothing; all there is to know is that the bytes are out."""
        connection.in_flight.remove(request)
        with self._core.lock:
            for batch in request.batches:
                self._core.acknowledge(batch, -1, -1)

    def _answer(self, outbox: Outbox, connection: Connection, frame: bytes) -> None:
        request, throttle_ms, answers = connection.answer(frame)
        now = time.monotonic()
        latency = now - request.sent_at
        connection.last_use = now
        connection.measure(latency)
        outbox.answered = True
        outbox.look_now()
        with self._core.lock:
            for counters in (self._core.counters, outbox.counters):
                counters.add("responses", 1)
                counters.add("response_bytes", len(frame) + 4)
                counters.add("latency_ms", latency * 1000)
                counters.top("latency_max_ms", latency * 1000)
                counters.add("throttle_ms", throttle_ms)
                counters.top("throttle_max_ms", throttle_ms)
            outbox.latency_buckets[latency_bucket(int(latency * 1e6))] += 1
            for batch, answer in answers:
                self._settle_batch(outbox, batch, answer)
        if throttle_ms > 0 and request.version >= THROTTLE_BY_CLIENT_FROM:
            # Not longer than anything that waits could wait: a broken number must not silence a
            # broker for weeks.
            pause_s = min(throttle_ms, self._core.options.delivery_timeout_ms) / 1000
            connection.throttle(now + pause_s, pause_s)
            self._core.host.throttled_until[outbox.node_id] = connection.throttled_until

    def _settle_batch(self, outbox: Outbox, batch: Batch, answer: PartitionAnswer) -> None:
        if answer[3] == 0:
            self._core.acknowledge(batch, answer[4], answer[5])
        else:
            self._core.park(batch, outbox.node_id, answer[3], answer)

    def _lose(self, outbox: Outbox, lost: ConnectionLost) -> None:
        """Close the connection. What was on it is parked, oldest first, then the loss is told."""
        connection, outbox.connection = outbox.connection, None
        if connection is None:
            return
        core = self._core
        self._selector.unregister(connection.sock)
        connection.sock.close()
        outbox.look_now()
        with core.lock:
            core.counters.add("connections_closed", 1)
            for request in connection.in_flight:
                request.pieces.clear()
                for batch in request.batches:
                    core.park(batch, outbox.node_id, lost.code or layout.NETWORK_EXCEPTION, None)
            connection.in_flight.clear()
        core.emit((layout.EVENT_CONNECTION_LOST, outbox.node_id, lost.reason, lost.code))
        outbox.asked = False
