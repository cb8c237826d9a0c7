# The data plane as Python sees it: what the control plane tells it, and what it hears back (DESIGN.md, "The seam").

import socket
from collections.abc import Callable


cdef class DataPlane:
    """Accumulator and sender: accepts records, delivers batches, reports what it cannot decide.

    `options`: a config.PlaneOptions; `event_fd`: a non-blocking socket that gets one byte when events or callbacks are
    due. It must stay open as long as this object lives.
    """
    cdef Core* core
    cdef thread* io
    cdef vector[thread*] compressors
    cdef dict known            # every route ever made, by topic; none ever leaves it, so `send` may borrow them
    cdef list retired          # routes' partitions that are gone
    cdef object compress
    cdef bint aborted
    cdef dict troubles         # why brokers cannot be used just now, by node id; None: why nothing may leave
    cdef readonly dict routes
    cdef public object engine

    def __cinit__(self, options, event_fd: int):
        cdef Core* core = new Core()
        core.plane = <PyObject*>self
        core.wake_read = core.wake_write = -1
        for i in range(RECENT_TOPICS):
            core.recent[i].store(NULL)
        core.compressor.state = core.compressor.out = NULL
        core.compressor.room = 0
        self.core = core
        self.io = NULL
        self.aborted = False
        self.known = {}
        self.troubles = {}
        self.routes = {}
        self.engine = None
        self.compress = options.compress
        core.client_id = options.client_id.encode()
        core.acks = options.acks
        core.idempotent.store(<bint>options.idempotent)
        core.strict_order = options.strict_order
        core.batch_size = options.batch_size
        core.memory_limit = options.buffer_memory
        core.max_request_size = options.max_request_size
        core.record_limit = min(core.max_request_size, core.memory_limit)
        core.receive_max = options.receive_message_max_bytes
        core.linger = <int64_t>(options.linger_ms * 1e6)
        core.max_block = <int64_t>(options.max_block_ms * 1e6)
        core.request_timeout = <int64_t>(options.request_timeout_ms * 1e6)
        core.delivery_timeout = <int64_t>(options.delivery_timeout_ms * 1e6)
        core.max_idle = <int64_t>(options.connections_max_idle_ms * 1e6)
        core.retries = options.retries
        core.max_in_flight = options.max_in_flight
        linked = options.compress is None and fp_codec_version(options.codec) != NULL
        core.codec = options.codec if linked or options.compress is not None else 0
        core.compress = <PyObject*>NULL if linked else <PyObject*>self.compress
        core.level = options.level
        core.event_fd = event_fd
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        core.wake_read = reader.detach()
        core.wake_write = writer.detach()
        core.charged = core.cached = core.owed = 0
        core.memory_ticket = core.pool_changes = 0
        core.memory_waiters.store(0)
        core.compressing.store(0)
        core.work.store(0)
        core.sleeping.store(0)
        core.told.store(0)
        core.stopping.store(0)
        core.closing.store(0)
        core.forked.store(0)
        core.trashed.store(0)
        for i in range(SOCKETS_SHOWN):
            core.sockets[i].store(-1)
        core.routes_changed.store(0)
        core.old_arrived.store(0)
        core.flush_target.store(-1)
        core.flush_waiters.store(0)
        core.flush_epoch = 0
        core.producer_id = core.told_id = -1
        core.producer_epoch = core.told_epoch = -1
        core.next_expiry = NEVER
        core.next_ordinal = 0
        core.unread.store(0)
        core.unread_dropped.store(0)
        core.unread_example = NULL
        prepare_classes(core)

    def __dealloc__(self):
        cdef pair[int, Outbox*] entry
        if self.core == NULL or self.core.forked.load():
            return   # forked: what others wait for in the parent cannot be destroyed here, nor need it be
        drop_commands(self.core)
        if self.core.wake_read >= 0:   # -1: the options were refused
            fp_close(self.core.wake_read)
            fp_close(self.core.wake_write)
        for entry in self.core.outboxes:
            del entry.second
        drop_all_spare(self.core)
        end_compressor(self.core, &self.core.compressor)
        Py_XDECREF(self.core.unread_example)
        del self.core

    cdef bint on_control_thread(self) except -1:
        return self.engine is not None and self.engine.on_control_thread()

    # --- Start and end ---

    def start(self) -> None:
        """Start the I/O thread."""
        if self.io == NULL:
            self.core.stopping.store(0)
            self.io = new thread(run_io, self.core)
            Py_INCREF(self)   # the threads', until they are joined
            if self.core.codec and self.core.compress == NULL:
                # One core is the senders'. More would wait for the broker, not for each other.
                for _ in range(min(max(<int>hardware_threads() - 1, 1), <int>COMPRESSORS_MOST)):
                    self.compressors.push_back(new thread(run_compressor, self.core))

    def stop(self) -> None:
        """End the I/O thread and close its connections. What is unfinished stays; `abort` ends it.

        On the I/O thread itself (in a compressor, or a destructor that ran inside it) this only signals.
        """
        cdef thread* io = self.io
        cdef thread* each
        if io == NULL or self.core.forked.load():
            return
        self.core.stopping.store(1)
        wake(self.core)
        if self.on_io_thread():
            return
        self.io = NULL
        # Who looked at `stopping` before waits now, or has given its batch; and nobody gives one any more.
        with nogil:
            self.core.compress_gate.lock()
            self.core.compress_gate.unlock()
        self.core.compress_more.notify_all()
        with nogil:
            io.join()
            for each in self.compressors:
                each.join()
        del io
        for each in self.compressors:
            del each
        self.compressors.clear()
        while not self.core.to_compress.empty():
            release_held(self.core.to_compress.front())
            self.core.to_compress.pop_front()
        self.core.compressing.store(0)
        drop_commands(self.core)
        empty_trash(self.core)   # what the thread let go of after the last look; each holds this plane
        Py_DECREF(self)

    def inherited(self) -> None:
        """This process is a forked child: what belongs to this plane goes on in the parent, and ends here.

        Whoever held a lock when the process was forked holds it here for good, so only what is atomic is touched.
        """
        cdef int i, fd
        self.core.closing.store(1)
        self.core.forked.store(1)
        for i in range(SOCKETS_SHOWN):
            fd = self.core.sockets[i].exchange(-1)
            if fd >= 0:
                fp_close(fd)
        fp_close(self.core.wake_read)
        fp_close(self.core.wake_write)

    cdef bint on_io_thread(self) noexcept:
        return fp_io_core == <void*>self.core

    def close_appends(self) -> None:
        """From now on `send` raises IllegalStateError, and partial batches leave at once."""
        cdef TopicRoute route
        cdef vector[Partition*] partitions
        cdef size_t i
        self.core.closing.store(1)
        for route in list(self.known.values()):
            partitions = ever_of(route.topic_)
            for i in range(partitions.size()):
                # Without a GIL somebody may have found the producer open, and still append.
                lock_detached(&partitions[i].gate)
                partitions[i].gate.unlock()
        self.core.pool_freed.notify_all()
        wake(self.core)

    # --- Topics and connections ---

    def set_topic(self, topic: str, topic_id, leaders) -> TopicRoute:
        """Create or update a topic: `topic_id` 16 bytes or None, `leaders[partition]` a node id or -1."""
        cdef TopicRoute route = self.known.get(topic)
        cdef Topic* known
        cdef int32_t i
        cdef size_t at
        if not leaders:
            raise ValueError(f"topic {topic!r} must have a partition")
        if route is None:
            route = TopicRoute.__new__(TopicRoute)
            route.topic = topic
            route.plane = self
            route.partitions = []
            route.topic_ = new_topic(self.core, topic.encode())
            route.topic_.route = <PyObject*>route
            self.known[topic] = route
        known = route.topic_
        route.topic_id = topic_id
        route.leaders = list(leaders)
        self.core.gate.lock()
        if topic_id is not None and len(topic_id) == 16:
            known.id = string(PyBytes_AS_STRING(topic_id), 16)
        else:
            known.id.clear()
        self.core.gate.unlock()
        set_partitions(route)
        for at in range(known.partitions.size()):
            known.partitions[at].leader.store(route.leaders[at])
        i = known.sticky.load()
        if i >= 0 and (i >= <int32_t>known.partitions.size() or known.partitions[i].leader.load() < 0):
            move_sticky(known, i)
        known.leaderless_told.store(0)
        self.core.routes_changed.store(1)
        self.routes[topic] = route
        known.in_use.store(1)
        wake(self.core)
        return route

    def forget_topic(self, topic: str) -> None:
        """Take an idle topic out of `routes`; `set_topic` brings it back as it was."""
        self.routes.pop(topic, None)
        if topic in self.known:
            (<TopicRoute>self.known[topic]).topic_.in_use.store(0)

    def reset_topic(self, topic: str) -> None:
        """The topic was deleted and created again: its partitions go on under a newer epoch, in which sequences
        start anew. Not under the old one: batches may have come to the new topic before we knew of it, and what has
        their sequences would be taken for them."""
        cdef TopicRoute route = self.known.get(topic)
        cdef vector[Partition*] partitions
        cdef Partition* partition
        cdef size_t i
        if route is None or not self.core.idempotent.load():
            return
        partitions = ever_of(route.topic_)
        for i in range(partitions.size()):
            partition = partitions[i]
            lock_detached(&partition.gate)
            partition.broken = partition.broken or partition.producer_id >= 0
            partition.forgetful = -1   # the new topic takes whatever comes first
            partition.gate.unlock()
        wake(self.core)

    def set_leader_limit(self, topic: str, limit: int) -> None:
        """New batches of the topic stay at or below `limit` bytes on the wire; 0: no limit of its own."""
        cdef TopicRoute route = self.known.get(topic)
        if route is not None:
            route.topic_.wire_limit.store(limit)

    cdef int _command(self, int kind, int node, int fd, int version, str reason) except -1:
        cdef Command command
        command.kind = kind
        command.node = node
        command.fd = fd
        command.version = version
        command.reason = reason.encode()
        self.core.gate.lock()
        self.core.commands.push_back(command)
        self.core.gate.unlock()
        if self.core.stopping.load():
            drop_commands(self.core)
        wake(self.core)
        return 0

    def attach(self, node_id: int, fd: int, produce_version: int) -> None:
        """Hand over a connected, non-blocking socket, which the I/O thread owns and closes from now on."""
        self._command(COMMAND_ATTACH, node_id, fd, produce_version, "")

    def detach(self, node_id: int, reason: str) -> None:
        """Close the connection to a broker; what was in flight on it is parked as lost."""
        self._command(COMMAND_DETACH, node_id, -1, 0, reason)

    def connection_failed(self, node_id: int) -> None:
        """No connection could be made: ask again when batches wait."""
        self._command(COMMAND_FAILED, node_id, -1, 0, "")

    def set_trouble(self, node_id: int | None, words: str) -> None:
        """Why a broker cannot be used just now, for the errors that come of it; "": it can. None: why nothing may
        leave."""
        if words:
            self.troubles[node_id] = words
        else:
            self.troubles.pop(node_id, None)

    def set_identity(self, producer_id: int, epoch: int) -> None:
        """The producer id and epoch for new batches; -1, -1: none, and nothing idempotent leaves."""
        cdef int64_t new_id = producer_id   # outside the lock: these may raise
        cdef int16_t new_epoch = epoch
        self.core.gate.lock()
        self.core.told_epoch = new_epoch
        self.core.told_id = new_id
        self.core.gate.unlock()
        wake(self.core)

    def set_idempotent(self, idempotent: bool) -> None:
        """Before the first batch has left: whether batches carry a producer id and sequence."""
        self.core.idempotent.store(<bint>idempotent)
        wake(self.core)

    # --- Events and verdicts ---

    def take_events(self) -> list:
        """The events since the last call; see DESIGN.md."""
        cdef vector[Event] taken_
        cdef Event* event
        cdef size_t i
        cdef list result = []
        empty_trash(self.core)
        self.core.told.store(0)
        self.core.gate.lock()
        taken_.swap(self.core.events)
        self.core.gate.unlock()
        for i in range(taken_.size()):
            event = &taken_[i]
            if event.kind == C_PARKED:
                result.append((C_PARKED, parked_from(event)))
            elif event.kind == C_NEED_CONNECTION:
                result.append((C_NEED_CONNECTION, event.node))
            elif event.kind == C_CONNECTION_LOST:
                result.append((C_CONNECTION_LOST, event.node, event.text.decode("utf-8", "replace"), event.code))
            elif event.kind == C_NO_LEADER:
                result.append((C_NO_LEADER, event.topic.name.decode()))
            else:
                result.append((C_NEED_EPOCH, event.topic.name.decode(), event.partition.index, event.producer_id,
                               event.producer_epoch))
        return result

    def run_callbacks(self, double seconds=0.0) -> int:
        """Run the due callbacks of one batch, and of more until `seconds` have passed; how many batches still wait for
        theirs."""
        cdef Spare spare
        cdef Batch* batch
        cdef size_t left
        cdef int64_t enough = now_ns() + <int64_t>(seconds * 1e9)
        memset(&spare, 0, sizeof(Spare))
        while True:
            batch = NULL
            left = 0
            self.core.gate.lock()
            if not self.core.due.empty():
                batch = self.core.due.front()
                self.core.due.pop_front()
                left = self.core.due.size()
            self.core.gate.unlock()
            if batch != NULL:
                run_due(batch, &spare)
            if not left or now_ns() >= enough or self.core.forked.load():
                break
        Py_XDECREF(spare.metadata)
        return left

    cdef Batch* _undecided(self, ParkedBatch parked) except? NULL:
        """The batch to carry a verdict out on; NULL when `abort` has ended it and the verdict comes too late."""
        if parked.decided:
            raise errors.IllegalStateError("this batch has been decided upon before")
        parked.decided = True
        if self.aborted:
            parked.let_go()
        return parked.batch

    def retry(self, ParkedBatch parked not None, delay_ms: float, *, unknown: bool, renumber: bool = False) -> None:
        """Send it again, in its old place, not before `delay_ms` from now."""
        cdef Batch* batch = self._undecided(parked)
        if batch != NULL:
            send_again(batch, <int64_t>(delay_ms * 1e6), unknown, renumber, parked.node_id)
            parked.let_go()
            wake(self.core)

    def fail(self, ParkedBatch parked not None, error: BaseException, *, unknown: bool, record_errors=None) -> None:
        """It has failed for good with `error`; records in `record_errors` (a dict by index) with theirs."""
        cdef Batch* batch = self._undecided(parked)
        if batch != NULL:
            end_parked(batch, FAILED, failures.flagged(error, unknown or batch.doubted), record_errors, unknown)
            parked.let_go()
            wake(self.core)

    def succeed(self, ParkedBatch parked not None, base_offset: int, log_append_time: int) -> None:
        """It is in the log after all."""
        cdef Batch* batch = self._undecided(parked)
        cdef vector[Acknowledged] acknowledged
        if batch != NULL:
            add_acknowledged(acknowledged, batch, base_offset, log_append_time)
            acknowledge(self.core, acknowledged, now_ns())
            parked.let_go()
            wake(self.core)

    def split(self, ParkedBatch parked not None, groups: list) -> None:
        """Replace it by one batch a group of decoded records, in order, in its old place."""
        cdef Batch* batch = self._undecided(parked)
        if batch == NULL:
            return
        try:
            split_up(batch, groups)
        except BaseException:
            parked.decided = False
            raise
        parked.let_go()
        wake(self.core)

    def fail_queued(self, error: BaseException, *, bint sent=False) -> None:
        """End every batch that was never sent, each with an `error` of its own that says what was tried with it;
        `sent`: those that wait to be sent again, too."""
        cdef TopicRoute route
        cdef vector[Partition*] partitions
        cdef size_t i
        for route in list(self.known.values()):
            partitions = ever_of(route.topic_)
            for i in range(partitions.size()):
                fail_queue(partitions[i], FAILED, error, not sent)

    def abort(self, error: Callable[[], BaseException]) -> list:
        """After `stop`: end each batch that is left with an `error()`; a tuple for each, see DESIGN.md."""
        cdef TopicRoute route
        cdef vector[Partition*] partitions
        cdef size_t i
        cdef list left = []
        if self.on_io_thread():
            raise errors.IllegalStateError("abort() on the I/O thread would wait for itself")
        self.stop()   # its requests point to the batches that end here
        self.aborted = True
        for route in list(self.known.values()):   # the control thread may still learn of topics
            partitions = ever_of(route.topic_)
            for i in range(partitions.size()):
                abort_partition(partitions[i], error, left)
        self.take_events()   # nobody will decide any more; they hold batches
        drop_all_spare(self.core)
        return left

    # --- Waiting ---

    def flush(self, timeout_s) -> bool:
        """Let every batch that exists leave, and wait up to `timeout_s` seconds (None: without bound) until each is
        done and its callbacks have run. False: not in time."""
        cdef Core* core = self.core
        cdef int64_t epoch, left
        cdef int64_t deadline = NEVER if timeout_s is None else now_ns() + <int64_t>(min(timeout_s, 1e9) * 1e9)
        if self.on_control_thread() or self.on_io_thread():
            raise failures.flush_in_callback()
        core.done_gate.lock()
        epoch = core.flush_epoch
        core.flush_epoch += 1
        core.flush_target.store(epoch)
        core.done_gate.unlock()
        core.flush_waiters.fetch_add(1)
        try:
            wake(core)
            while not core.forked.load() and incomplete_until(core, epoch):
                left = min(deadline - now_ns(), SIGNAL_SLICE)
                if left <= 0:
                    return False
                with nogil:
                    wait_for_epoch(core, epoch, left)
                PyErr_CheckSignals()
            return True
        finally:
            core.flush_waiters.fetch_sub(1)

    def incomplete(self) -> int:
        """Batches that are not done, or whose callbacks have not run."""
        return incomplete_until(self.core, INT64_MAX)

    # --- Counters ---

    def counters(self) -> dict:
        """Totals of the whole producer; the names are in DESIGN.md."""
        return counters_of(self.core, self.known)

    def stats(self) -> tuple:
        """All of it at one moment, and no maximum begins anew: see DESIGN.md."""
        return stats_of(self)

    def take_unread(self) -> tuple:
        """How many failures were dropped unseen since the last call, and one of them (None: none)."""
        empty_trash(self.core)
        return unread_of(self.core)

    def topic_counters(self) -> dict:
        """Totals by topic; the names are in DESIGN.md."""
        return topic_counters_of(self.core, self.known)

    def node_counters(self) -> dict:
        """Totals by broker; the names are in DESIGN.md."""
        return node_counters_of(self.core, True)

cdef void drop_commands(Core* core) noexcept nogil:
    """Close the connections that were handed over too late for the I/O thread to take them."""
    cdef vector[Command] commands
    cdef size_t i
    core.gate.lock()
    commands.swap(core.commands)
    core.gate.unlock()
    for i in range(commands.size()):
        if commands[i].kind == COMMAND_ATTACH:
            fp_close(commands[i].fd)


cdef int64_t incomplete_until(Core* core, int64_t epoch) noexcept nogil:
    cdef pair[int64_t, int64_t] entry
    cdef int64_t total = 0
    core.done_gate.lock()
    for entry in core.incomplete:
        if entry.first <= epoch:
            total += entry.second
    core.done_gate.unlock()
    return total


cdef void wait_for_epoch(Core* core, int64_t epoch, int64_t nanos) noexcept nogil:
    cdef unique_lock[mutex]* held = new unique_lock[mutex](core.done_gate)
    cdef pair[int64_t, int64_t] entry
    cdef int64_t total = 0
    for entry in core.incomplete:
        if entry.first <= epoch:
            total += entry.second
    if total:
        core.done.wait_for(held[0], nanoseconds(nanos))
    del held
