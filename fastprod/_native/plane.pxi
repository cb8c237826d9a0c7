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
    cdef dict known            # every route ever made, by topic
    cdef list retired          # routes' partitions that are gone
    cdef object compress
    cdef bint aborted
    cdef dict troubles         # why brokers cannot be used just now, by node id; None: why nothing may leave
    cdef readonly dict routes
    cdef public object engine

    def __cinit__(self, options, event_fd: int):
        cdef Core* core = new Core()
        core.wake_read = core.wake_write = -1
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
        lock_detached(&self.core.compress_gate)
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
        self.core.closing.store(1)
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
        self._set_partitions(route)
        for at in range(known.partitions.size()):
            known.partitions[at].leader.store(route.leaders[at])
        i = known.sticky.load()
        if i >= 0 and (i >= <int32_t>known.partitions.size() or known.partitions[i].leader.load() < 0):
            move_sticky(known, i)
        known.leaderless_told.store(0)
        self.core.routes_changed.store(1)
        self.routes[topic] = route
        wake(self.core)
        return route

    cdef int _set_partitions(self, TopicRoute route) except -1:
        cdef Topic* topic = route.topic_
        cdef size_t count = len(route.leaders)
        cdef Partition* partition
        cdef object number, pair_   # objects: the structs borrow them from the route's list
        cdef vector[Partition*] gone
        cdef size_t i
        while topic.partitions.size() < count:
            i = 0
            while i < topic.retired.size() and topic.retired[i].index != <int32_t>topic.partitions.size():
                i += 1
            if i < topic.retired.size():
                # Back again, as after the answer of a broker that lagged behind. The broker has not forgotten us: a
                # partition that began anew at sequence 0 would have its records taken for known ones, and dropped.
                partition = topic.retired[i]
                lock_detached(&partition.gate)
                partition.vanished = False
                partition.gate.unlock()
                topic.retired.erase(topic.retired.begin() + i)
                topic.partitions.push_back(partition)
                continue
            number = <int>topic.partitions.size()
            pair_ = TopicPartition(route.topic, number)
            route.partitions.append((pair_, number))
            topic.partitions.push_back(
                new_partition(topic, number, <PyObject*>route.topic, <PyObject*>pair_, <PyObject*>number))
        while topic.partitions.size() > count:
            partition = topic.partitions.back()
            topic.partitions.pop_back()
            topic.retired.push_back(partition)
            gone.push_back(partition)
        while not gone.empty():
            partition = gone.back()
            gone.pop_back()
            partition.leader.store(-1)
            lock_detached(&partition.gate)
            partition.vanished = True
            partition.gate.unlock()
            self._fail_queue(partition, VANISHED, None, False)
        return 0

    cdef int _fail_queue(self, Partition* partition, int outcome, error, bint unsent_only) except -1:
        """End what is in the queue of a partition: all of it, or only what was never sent."""
        cdef vector[Batch*] gone
        cdef vector[Batch*] behind
        cdef Batch* batch
        cdef size_t i, kept = 0
        lock_detached(&partition.gate)
        while kept < partition.queue.size():
            batch = partition.queue[kept]
            if unsent_only and batch.attempts:
                kept += 1
                continue
            batch.accepts = False
            batch.ended = True
            batch.maybe_written = batch.unknown
            gone.push_back(batch)
            partition.queue.erase(partition.queue.begin() + kept)
            if batch.producer_id >= 0:
                lose_stamped(self.core, partition, batch, batch.unknown, behind)
        partition.queue_length.store(<int>partition.queue.size())
        partition.gate.unlock()
        topic, number = <object>partition.topic_partition
        for i in range(gone.size()):
            batch = gone[i]
            mine = None
            if error is not None:
                batch.leader = partition.leader.load()
                batch.elapsed_ms = (now_ns() - batch.created) / 1e6
                mine = failures.with_history(error, topic, number, history_of(batch, batch.elapsed_ms))
                mine = failures.flagged(mine, batch.maybe_written)
            self._end(batch, outcome, mine, None)
        for i in range(behind.size()):
            self._end(behind[i], OUT_OF_ORDER, None, None)
        return 0

    cdef int _end(self, Batch* batch, int outcome, error, record_errors) except -1:
        """Publish the end of a batch that was claimed, and drop the accumulator's hold on it."""
        if error is not None:
            Py_INCREF(error)
            batch.error = <PyObject*>error
        if record_errors:
            Py_INCREF(record_errors)
            batch.record_errors = <PyObject*>record_errors
        end_batch(batch, outcome)
        free_body(batch)
        release_held(batch)
        return 0

    def forget_topic(self, topic: str) -> None:
        """Take an idle topic out of `routes`; `set_topic` brings it back as it was."""
        self.routes.pop(topic, None)

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
            partition.gate.unlock()
        wake(self.core)

    def set_leader_limit(self, topic: str, limit: int) -> None:
        """New batches of the topic stay at or below `limit` bytes on the wire; 0: no limit of its own."""
        cdef TopicRoute route = self.known.get(topic)
        if route is not None:
            route.topic_.wire_limit = limit

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

    def run_callbacks(self) -> int:
        """Run the due callbacks of one batch; how many batches still wait for theirs."""
        cdef Batch* batch = NULL
        cdef size_t left = 0
        self.core.gate.lock()
        if not self.core.due.empty():
            batch = self.core.due.front()
            self.core.due.pop_front()
            left = self.core.due.size()
        self.core.gate.unlock()
        if batch != NULL:
            run_due(batch)
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
        cdef Partition* partition
        cdef size_t at = 0
        cdef int outcome = PENDING
        if batch == NULL:
            return
        partition = batch.partition
        lock_detached(&partition.gate)
        if batch.ended or partition.vanished:
            outcome = VANISHED
        elif batch.producer_id >= 0 and batch.ordinal > partition.fail_after:
            outcome = OUT_OF_ORDER
        if outcome == PENDING:
            remove_from(partition.parked, batch)
            batch.unknown = unknown
            batch.reached = False   # `unknown` says all there is to say about the attempts so far
            partition.retry_at = max(partition.retry_at, now_ns() + <int64_t>(delay_ms * 1e6))
            while at < partition.queue.size() and partition.queue[at].ordinal \
                    and partition.queue[at].ordinal < batch.ordinal:
                at += 1
            partition.queue.insert(partition.queue.begin() + at, batch)
            partition.queue_length.store(<int>partition.queue.size())
            if renumber:
                partition.broken = True
                partition.forgetful = parked.node_id if unknown else partition.forgetful
            activate(partition)
        partition.gate.unlock()
        if outcome != PENDING:
            self._finish(batch, outcome, None, None, unknown)
        parked.let_go()
        wake(self.core)

    def fail(self, ParkedBatch parked not None, error: BaseException, *, unknown: bool, record_errors=None) -> None:
        """It has failed for good with `error`; records in `record_errors` (a dict by index) with theirs."""
        cdef Batch* batch = self._undecided(parked)
        if batch == NULL:
            return
        self._finish(batch, FAILED, failures.flagged(error, unknown), record_errors, unknown)
        parked.let_go()
        wake(self.core)

    cdef int _finish(self, Batch* batch, int outcome, error, record_errors, bint unknown) except -1:
        """End a parked batch; when its futures ended before (it expired) only the bookkeeping is left."""
        cdef Partition* partition = batch.partition
        cdef vector[Batch*] behind
        cdef size_t i
        cdef bint claimed
        lock_detached(&partition.gate)
        remove_from(partition.parked, batch)
        claimed = not batch.ended
        batch.ended = True
        if claimed:
            batch.maybe_written = unknown
        if batch.producer_id >= 0:
            lose_stamped(self.core, partition, batch, unknown, behind)
        activate(partition)
        partition.gate.unlock()
        if claimed:
            self._end(batch, outcome, error, record_errors)
        else:
            free_body(batch)
            release_held(batch)
        for i in range(behind.size()):
            self._end(behind[i], OUT_OF_ORDER, None, None)
        return 0

    def succeed(self, ParkedBatch parked not None, base_offset: int, log_append_time: int) -> None:
        """It is in the log after all."""
        cdef Batch* batch = self._undecided(parked)
        if batch != NULL:
            acknowledge(self.core, batch, base_offset, log_append_time, now_ns())
            parked.let_go()
            wake(self.core)

    def split(self, ParkedBatch parked not None, groups: list) -> None:
        """Replace it by one batch a group of decoded records, in order, in its old place."""
        cdef Batch* batch = self._undecided(parked)
        cdef Partition* partition
        cdef vector[Child] children
        cdef size_t i, at = 0
        cdef bint claimed
        if batch == NULL:
            return
        partition = batch.partition
        # Claimed before anything else: from now on the clock lets it be.
        lock_detached(&partition.gate)
        claimed = not batch.ended
        batch.ended = True
        partition.gate.unlock()
        if not claimed:
            self._finish(batch, FAILED, None, None, batch.unknown)
            parked.let_go()
            return
        try:
            self._make_children(batch, groups, children)
        except BaseException:
            for i in range(children.size()):
                release_held(children[i].batch)
            lock_detached(&partition.gate)
            batch.ended = False
            partition.gate.unlock()
            parked.decided = False
            raise
        self._hand_down(batch, children)
        lock_detached(&partition.gate)
        # Only now: while it is parked nothing that belongs behind it can leave.
        remove_from(partition.parked, batch)
        partition.stamps += children.size() - 1   # the broker will remember each of them
        while at < partition.queue.size() and partition.queue[at].ordinal \
                and partition.queue[at].ordinal < batch.ordinal:
            at += 1
        for i in range(children.size()):
            partition.queue.insert(partition.queue.begin() + at + i, children[i].batch)
        partition.queue_length.store(<int>partition.queue.size())
        activate(partition)
        # The clock let the parent be: its children may be overdue.
        self.core.old_arrived.store(1)
        partition.gate.unlock()
        free_body(batch)
        release_held(batch)
        parked.let_go()
        wake(self.core)

    cdef int _make_children(self, Batch* parent, list groups, vector[Child]& children) except -1:
        """Encode each group anew. Memory is charged past the budget if need be: the parent's is about to be freed."""
        cdef RecordBatchBuilder builder
        cdef Batch* batch
        cdef Child child
        cdef unsigned char* memory
        cdef int32_t first = 0
        cdef size_t size, n = len(groups), i = 0
        if not all(groups) or sum(map(len, groups)) != parent.count:
            raise ValueError(f"a batch of {parent.count} records cannot be split into {list(map(len, groups))}")
        for group in groups:
            builder = RecordBatchBuilder(INT32_MAX)
            for timestamp, key, value, headers in group:
                builder.append(timestamp, key, value, headers)
            size = builder.body.size()
            memory = <unsigned char*>malloc(max(size, <size_t>1))
            if memory == NULL:
                raise MemoryError
            live_buffers.fetch_add(1, memory_order_relaxed)
            batch = new_batch()
            batch.core = self.core
            batch.partition = parent.partition
            Py_INCREF(self)
            batch.plane = <PyObject*>self
            batch.data = memory
            memcpy(batch.data, builder.body.data(), size)
            batch.capacity = batch.charge = batch.used = size
            self.core.pool_gate.lock()
            self.core.charged += size
            self.core.pool_gate.unlock()
            batch.count = builder.records
            batch.base_timestamp = builder.base_timestamp
            batch.max_timestamp = builder.max_timestamp
            batch.created = parent.created
            batch.flush_epoch = parent.flush_epoch
            batch.codec = self.core.codec
            batch.split_product = True
            batch.unknown = parent.unknown
            batch.span = max(parent.span // n, <uint64_t>1)
            batch.ordinal = parent.ordinal + i * batch.span
            batch.producer_id = parent.producer_id
            batch.producer_epoch = parent.producer_epoch
            batch.place = parent.place
            if parent.producer_id >= 0:
                batch.base_sequence = <int32_t>((<uint32_t>parent.base_sequence + <uint32_t>first) & 0x7FFFFFFFU)
            child.first = first
            child.batch = batch
            children.push_back(child)
            first += batch.count
            i += 1
        return 0

    cdef void _hand_down(self, Batch* parent, vector[Child]& children) noexcept:
        """Let futures, callbacks and waiters of the parent look at the children. They are in no queue yet, so none
        can end before everything is in place."""
        cdef CallbackEntry entry
        cdef Batch* batch
        cdef size_t i, encoded = 0
        self.core.done_gate.lock()
        self.core.incomplete[parent.flush_epoch] += children.size()
        self.core.done_gate.unlock()
        for i in range(children.size()):
            encoded += children[i].batch.used
        self.core.gate.lock()
        # Encoded anew they take another number of bytes, which will be counted as ended.
        self.core.totals.bytes_ended += <double>parent.raw_size - <double>encoded
        self.core.gate.unlock()
        parent.gate.lock()
        for i in range(children.size()):
            retain(children[i].batch)
            parent.children.push_back(children[i])
        parent.outcome.store(SPLIT)
        parent.callback_state.store(CALLBACKS_FINISHED)
        for i in range(parent.callbacks.size()):
            entry = parent.callbacks[i]
            batch = leaf_of(parent, &entry.facts.index)
            batch.callbacks.push_back(entry)
            charge_entries(batch)
        parent.callbacks.clear()
        parent.gate.unlock()
        pay_back(parent, 0)
        settle(parent)

    def fail_queued(self, error: BaseException, *, bint sent=False) -> None:
        """End every batch that was never sent, each with an `error` of its own that says what was tried with it;
        `sent`: those that wait to be sent again, too."""
        cdef TopicRoute route
        cdef vector[Partition*] partitions
        cdef size_t i
        for route in list(self.known.values()):
            partitions = ever_of(route.topic_)
            for i in range(partitions.size()):
                self._fail_queue(partitions[i], FAILED, error, not sent)

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
                self._abort_partition(partitions[i], error, left)
        self.take_events()   # nobody will decide any more; they hold batches
        drop_all_spare(self.core)
        return left

    cdef int _abort_partition(self, Partition* partition, error, list left) except -1:
        cdef vector[Batch*] gone
        cdef Batch* batch
        cdef size_t i
        cdef bint claimed
        lock_detached(&partition.gate)
        gone.insert(gone.end(), partition.in_flight.begin(), partition.in_flight.end())
        gone.insert(gone.end(), partition.parked.begin(), partition.parked.end())
        stable_sort(gone.begin(), gone.end(), &by_ordinal)
        for i in range(partition.queue.size()):
            partition.queue[i].accepts = False
            gone.push_back(partition.queue[i])
        partition.in_flight.clear()
        partition.parked.clear()
        partition.queue.clear()
        partition.queue_length.store(0)
        partition.gate.unlock()
        topic, number = <object>partition.topic_partition
        for i in range(gone.size()):
            batch = gone[i]
            claimed = not batch.ended
            batch.ended = True
            if claimed:
                batch.maybe_written = batch.unknown or (batch.reached and batch.attempts > 0)
                batch.leader = partition.leader.load()
                batch.elapsed_ms = (now_ns() - batch.created) / 1e6
                mine = failures.with_history(error(), topic, number, history_of(batch, batch.elapsed_ms))
                mine.maybe_written = batch.maybe_written
                left.append((topic, number, batch.codec if batch.sealed else 0,
                             PyBytes_FromStringAndSize(<char*>batch.data, batch.used), batch.base_timestamp,
                             batch.count, batch.maybe_written))
                self._end(batch, FAILED, mine, None)
            else:
                free_body(batch)
                release_held(batch)
        return 0

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
        core.done_gate.unlock()
        core.flush_target.store(max(epoch, core.flush_target.load()))
        wake(core)
        core.flush_waiters.fetch_add(1)
        try:
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
        cdef Core* core = self.core
        cdef Totals totals
        cdef size_t due, memory
        result = self._append_counters()
        core.gate.lock()
        totals = core.totals
        due = core.due.size()
        core.totals.batch_size_max = core.totals.queue_time_max = 0
        core.totals.request_size_max = core.totals.latency_max = core.totals.throttle_max = 0
        core.gate.unlock()
        core.pool_gate.lock()
        memory = core.charged
        core.pool_gate.unlock()
        result.update({
            "batches_sent": totals.batches_sent, "batch_bytes": totals.batch_bytes,
            "batch_size_max": totals.batch_size_max, "uncompressed_bytes": totals.uncompressed_bytes,
            "compressed_bytes": totals.compressed_bytes, "records_sent": totals.records_sent,
            "records_acked": totals.records_acked, "records_failed": totals.records_failed,
            "records_retried": totals.records_retried, "queue_time_ms": totals.queue_time,
            "queue_time_max_ms": totals.queue_time_max, "connections_opened": totals.connections_opened,
            "connections_closed": totals.connections_closed, "callbacks_waiting": <double>due,
            "memory_used": <double>memory, "request_size_max": totals.request_size_max,
            "latency_max_ms": totals.latency_max, "throttle_max_ms": totals.throttle_max,
            "connections": totals.connections_opened - totals.connections_closed,
        })
        result["records_queued"] = result["records_appended"] - totals.records_ended
        result["bytes_queued"] = result["record_bytes"] - totals.bytes_ended
        nodes = self._node_counters(False)
        for name in ("requests", "responses", "request_bytes", "response_bytes", "latency_ms", "throttle_ms"):
            result[name] = sum(node[name] for node in nodes.values())
        result["requests_in_flight"] = sum(node["in_flight"] for node in nodes.values())
        return result

    cdef dict _append_counters(self):
        """What senders count, in their partitions."""
        cdef TopicRoute route
        cdef vector[Partition*] partitions
        cdef Partition* partition
        cdef size_t i
        cdef double records = 0, size = 0, largest = 0
        for route in list(self.known.values()):
            partitions = ever_of(route.topic_)
            for i in range(partitions.size()):
                partition = partitions[i]
                lock_detached(&partition.gate)
                records += partition.records_appended
                size += partition.record_bytes
                largest = max(largest, <double>partition.record_size_max)
                partition.record_size_max = 0
                partition.gate.unlock()
        return {"records_appended": records, "record_bytes": size, "record_size_max": largest}

    def stats(self) -> tuple:
        """All of it at one moment, and no maximum begins anew: see DESIGN.md."""
        return stats_of(self)

    def take_unread(self) -> tuple:
        """How many failures were dropped unseen since the last call, and one of them (None: none)."""
        empty_trash(self.core)
        return unread_of(self.core)

    def topic_counters(self) -> dict:
        """Totals by topic; the names are in DESIGN.md."""
        cdef TopicRoute route
        cdef TopicTotals totals
        result = {}
        for name, route in list(self.known.items()):
            self.core.gate.lock()
            totals = route.topic_.totals
            self.core.gate.unlock()
            result[name] = {
                "records_sent": totals.records_sent, "batch_bytes": totals.batch_bytes,
                "uncompressed_bytes": totals.uncompressed_bytes, "compressed_bytes": totals.compressed_bytes,
                "records_retried": totals.records_retried, "records_failed": totals.records_failed,
                "batches_sent": totals.batches_sent, "largest_batch": totals.largest_batch,
            }
        return result

    def node_counters(self) -> dict:
        """Totals by broker; the names are in DESIGN.md."""
        return self._node_counters(True)

    cdef dict _node_counters(self, bint reset):
        cdef vector[Outbox*] outboxes
        cdef NodeTotals totals
        cdef Outbox* outbox
        cdef size_t i
        cdef dict result = {}
        self.core.gate.lock()
        outboxes = self.core.outbox_list
        self.core.gate.unlock()
        for i in range(outboxes.size()):
            outbox = outboxes[i]
            self.core.gate.lock()
            totals = outbox.totals
            if reset:
                outbox.totals.request_size_max = outbox.totals.latency_max = outbox.totals.throttle_max = 0
            self.core.gate.unlock()
            result[outbox.node] = {
                "requests": totals.requests, "responses": totals.responses, "request_bytes": totals.request_bytes,
                "request_size_max": totals.request_size_max, "response_bytes": totals.response_bytes,
                "latency_ms": totals.latency, "latency_max_ms": totals.latency_max,
                "throttle_ms": totals.throttle, "throttle_max_ms": totals.throttle_max,
                "in_flight": <double>outbox.unanswered.load(),
            }
        return result


cdef vector[Partition*] ever_of(Topic* topic) noexcept nogil:
    """A copy of the topic's partitions, vanished ones included: a loop over them may let the interpreter go, and then
    they change. None of them is freed as long as the plane lives."""
    cdef vector[Partition*] partitions = topic.partitions
    partitions.insert(partitions.end(), topic.retired.begin(), topic.retired.end())
    return partitions


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
