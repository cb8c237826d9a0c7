# The data plane as Python sees it: what the control plane tells it, and what it hears back (DESIGN.md, "The seam").

import copy
import socket


cdef class ParkedBatch:
    """A batch that waits for a verdict: what happened to it, and what its partition knows."""
    cdef Batch* batch
    cdef bint decided
    cdef readonly str topic
    cdef readonly int partition, node_id, error_code, attempts, record_count, size, codec
    cdef readonly object error_message, record_errors, leader_hint
    cdef readonly long long log_start_offset, base_timestamp, producer_id, last_acked_offset
    cdef readonly double created
    cdef readonly bint done, reached, unknown
    cdef readonly int producer_epoch, base_sequence, last_acked_sequence, unresolved_sequence

    def __cinit__(self):
        self.batch = NULL

    def __dealloc__(self):
        if self.batch != NULL:
            release_held(self.batch)

    def body(self) -> bytes:
        """The records as they were sealed: compressed when `codec` is not 0."""
        if self.batch.data == NULL:
            raise errors.IllegalStateError("the batch has been decided upon; its bytes are gone")
        return PyBytes_FromStringAndSize(<char*>self.batch.data, self.batch.used)


cdef ParkedBatch parked_from(Event* event):
    cdef ParkedBatch parked = ParkedBatch.__new__(ParkedBatch)
    cdef Batch* batch = event.batch
    cdef Partition* partition = batch.partition
    cdef size_t i
    parked.batch = batch   # the event's reference becomes the object's
    parked.decided = False
    parked.topic, parked.partition = <object>partition.topic_partition
    parked.node_id = event.node
    parked.error_code = event.code
    parked.error_message = event.text.decode("utf-8", "replace") if event.has_text else None
    parked.record_errors = []
    for i in range(event.record_errors.size()):
        message = event.record_errors[i].second.decode("utf-8", "replace")
        parked.record_errors.append((event.record_errors[i].first, message or None))
    parked.leader_hint = None
    if event.has_hint:
        parked.leader_hint = (event.hint_node, event.hint_epoch,
                              event.hint_host.decode("utf-8", "replace") or None, event.hint_port)
    parked.log_start_offset = event.log_start_offset
    lock_detached(&partition.gate)
    parked.attempts = batch.attempts
    parked.record_count = batch.count
    parked.size = BATCH_HEADER + batch.used
    parked.codec = batch.codec
    parked.base_timestamp = batch.base_timestamp
    parked.created = batch.created / 1e9
    parked.done = batch.ended
    parked.reached = batch.reached
    parked.unknown = batch.unknown
    parked.producer_id = batch.producer_id
    parked.producer_epoch = batch.producer_epoch
    parked.base_sequence = batch.base_sequence
    parked.last_acked_sequence = partition.last_acked_sequence
    parked.last_acked_offset = partition.last_acked_offset
    parked.unresolved_sequence = partition.unresolved
    partition.gate.unlock()
    return parked


cdef class DataPlane:
    """Accumulator and sender: accepts records, delivers batches, reports what it cannot decide.

    `options`: a config.PlaneOptions; `event_fd`: a non-blocking socket that gets one byte when events or callbacks are
    due. It must stay open as long as this object lives.
    """
    cdef Core* core
    cdef thread* io
    cdef dict known            # every route ever made, by topic
    cdef list retired          # routes' partitions that are gone
    cdef object compress
    cdef bint aborted
    cdef readonly dict routes
    cdef public object engine

    def __cinit__(self, options, event_fd: int):
        cdef Core* core = new Core()
        self.core = core
        self.io = NULL
        self.aborted = False
        self.known = {}
        self.routes = {}
        self.engine = None
        self.compress = options.compress
        core.client_id = options.client_id.encode()
        core.acks = options.acks
        core.idempotent = options.idempotent
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
        core.codec = options.codec if options.compress is not None else 0
        core.compress = <PyObject*>self.compress
        core.event_fd = event_fd
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        core.wake_read = reader.detach()
        core.wake_write = writer.detach()
        core.charged = core.cached = core.owed = 0
        core.memory_ticket = 0
        core.memory_waiters.store(0)
        core.work.store(0)
        core.sleeping.store(0)
        core.told.store(0)
        core.stopping.store(0)
        core.closing.store(0)
        core.routes_changed.store(0)
        core.flush_target.store(-1)
        core.flush_waiters.store(0)
        core.flush_epoch = 0
        core.producer_id = -1
        core.producer_epoch = -1
        core.next_expiry = NEVER
        core.next_ordinal = 0
        core.records_ended = core.bytes_ended = 0
        core.batches_sent = core.batch_bytes = core.batch_size_max = 0
        core.uncompressed_bytes = core.compressed_bytes = core.records_sent = core.records_acked = 0
        core.records_failed = core.records_retried = core.queue_time = core.queue_time_max = 0
        core.connections_opened = core.connections_closed = 0
        core.request_size_max = core.latency_max = core.throttle_max = 0
        prepare_classes(core)

    def __dealloc__(self):
        cdef pair[int, Outbox*] entry
        cdef size_t i, j
        if self.core == NULL:
            return
        fp_close(self.core.wake_read)
        fp_close(self.core.wake_write)
        for entry in self.core.outboxes:
            del entry.second
        for i in range(self.core.spare.size()):
            for j in range(self.core.spare[i].size()):
                free(self.core.spare[i][j])
        del self.core

    cdef bint on_control_thread(self) except -1:
        return self.engine is not None and self.engine.on_control_thread()

    # --- Start and end ---

    def start(self) -> None:
        """Start the I/O thread."""
        if self.io == NULL:
            self.core.stopping.store(0)
            Py_INCREF(self)   # the thread's, until it is joined
            self.io = new thread(run_io, self.core)

    def stop(self) -> None:
        """End the I/O thread and close its connections. What is unfinished stays; `abort` ends it."""
        cdef thread* io = self.io
        if io == NULL:
            return
        self.io = NULL
        self.core.stopping.store(1)
        wake(self.core)
        with nogil:
            io.join()
        del io
        self._drop_commands()
        Py_DECREF(self)

    cdef void _drop_commands(self) noexcept:
        """Close the connections that were handed over too late for the I/O thread to take them."""
        cdef vector[Command] commands
        cdef size_t i
        self.core.gate.lock()
        commands.swap(self.core.commands)
        self.core.gate.unlock()
        for i in range(commands.size()):
            if commands[i].kind == COMMAND_ATTACH:
                fp_close(commands[i].fd)

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
        for i in range(known.partitions.size()):
            known.partitions[i].leader.store(route.leaders[i])
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
        while topic.partitions.size() < count:
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
            if batch.producer_id >= 0:
                lose_stamped(partition, batch, batch.unknown)
            gone.push_back(batch)
            partition.queue.erase(partition.queue.begin() + kept)
        partition.queue_length.store(<int>partition.queue.size())
        partition.gate.unlock()
        for i in range(gone.size()):
            self._end(gone[i], outcome, error, None)
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
        """The topic was deleted and created again: sequences start anew once nothing of the old is in flight."""
        cdef TopicRoute route = self.known.get(topic)
        cdef Partition* partition
        cdef size_t i
        if route is None or not self.core.idempotent:
            return
        for i in range(route.topic_.partitions.size()):
            partition = route.topic_.partitions[i]
            lock_detached(&partition.gate)
            partition.reset_asked = True
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
            self._drop_commands()
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

    def set_identity(self, producer_id: int, epoch: int) -> None:
        """The producer id and epoch for new batches; -1, -1: none, and nothing idempotent leaves."""
        self.core.gate.lock()
        self.core.producer_epoch = epoch
        self.core.producer_id = producer_id
        self.core.gate.unlock()
        wake(self.core)

    def set_idempotent(self, idempotent: bool) -> None:
        """Before the first batch has left: whether batches carry a producer id and sequence."""
        self.core.idempotent = idempotent
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
            return NULL
        return parked.batch

    def retry(self, ParkedBatch parked, delay_ms: float, *, unknown: bool, renumber: bool = False) -> None:
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
        elif batch.producer_id >= 0 and batch.ordinal <= partition.fail_until:
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
            activate(partition)
        partition.gate.unlock()
        if outcome != PENDING:
            self._finish(batch, outcome, None, None, unknown)
        wake(self.core)

    def fail(self, ParkedBatch parked, error: BaseException, *, unknown: bool, record_errors=None) -> None:
        """It has failed for good with `error`; records in `record_errors` (a dict by index) with theirs."""
        cdef Batch* batch = self._undecided(parked)
        cdef Partition* partition
        cdef vector[Batch*] behind
        cdef size_t i
        if batch == NULL:
            return
        partition = batch.partition
        if self.core.strict_order and batch.producer_id >= 0 and not unknown:
            lock_detached(&partition.gate)
            partition.fail_until = partition.last_ordinal
            while not partition.queue.empty() and partition.queue.front().producer_id >= 0:
                partition.queue.front().ended = True
                partition.queue.front().maybe_written = partition.queue.front().unknown
                behind.push_back(partition.queue.front())
                partition.queue.pop_front()
            partition.queue_length.store(<int>partition.queue.size())
            partition.gate.unlock()
        self._finish(batch, FAILED, error, record_errors, unknown)
        for i in range(behind.size()):
            self._end(behind[i], OUT_OF_ORDER, None, None)
        wake(self.core)

    cdef int _finish(self, Batch* batch, int outcome, error, record_errors, bint unknown) except -1:
        """End a parked batch; when its futures ended before (it expired) only the bookkeeping is left."""
        cdef Partition* partition = batch.partition
        cdef bint claimed
        lock_detached(&partition.gate)
        remove_from(partition.parked, batch)
        claimed = not batch.ended
        batch.ended = True
        if claimed:
            batch.maybe_written = unknown
        if batch.producer_id >= 0:
            lose_stamped(partition, batch, unknown)
        activate(partition)
        partition.gate.unlock()
        if claimed:
            self._end(batch, outcome, error, record_errors)
        else:
            free_body(batch)
            release_held(batch)
        return 0

    def succeed(self, ParkedBatch parked, base_offset: int, log_append_time: int) -> None:
        """It is in the log after all."""
        cdef Batch* batch = self._undecided(parked)
        if batch != NULL:
            acknowledge(self.core, batch, base_offset, log_append_time, now_ns())
            wake(self.core)

    def split(self, ParkedBatch parked, groups: list) -> None:
        """Replace it by one batch a group of decoded records, in order, in its old place."""
        cdef Batch* batch = self._undecided(parked)
        cdef Partition* partition
        cdef vector[Child] children
        cdef size_t i, at = 0
        if batch == NULL:
            return
        partition = batch.partition
        if parked.done or batch.ended:
            self._finish(batch, FAILED, None, None, False)
            return
        self._make_children(batch, groups, children)
        lock_detached(&partition.gate)
        remove_from(partition.parked, batch)
        batch.ended = True
        partition.stamps += children.size() - 1   # the broker will remember each of them
        partition.gate.unlock()
        self._hand_down(batch, children)
        lock_detached(&partition.gate)
        while at < partition.queue.size() and partition.queue[at].ordinal \
                and partition.queue[at].ordinal < batch.ordinal:
            at += 1
        for i in range(children.size()):
            partition.queue.insert(partition.queue.begin() + at + i, children[i].batch)
        partition.queue_length.store(<int>partition.queue.size())
        activate(partition)
        partition.gate.unlock()
        free_body(batch)
        release_held(batch)
        wake(self.core)

    cdef int _make_children(self, Batch* parent, list groups, vector[Child]& children) except -1:
        """Encode each group anew. Memory is charged past the budget if need be: the parent's is about to be freed."""
        cdef RecordBatchBuilder builder
        cdef Batch* batch
        cdef Child child
        cdef int32_t first = 0
        cdef size_t size, n = len(groups), i = 0
        for group in groups:
            builder = RecordBatchBuilder(INT32_MAX)
            for timestamp, key, value, headers in group:
                builder.append(timestamp, key, value, headers)
            size = builder.body.size()
            batch = new_batch()
            batch.core = self.core
            batch.partition = parent.partition
            Py_INCREF(self)
            batch.plane = <PyObject*>self
            batch.data = <unsigned char*>malloc(max(size, <size_t>1))
            if batch.data == NULL:
                raise MemoryError
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
        cdef size_t i
        self.core.done_gate.lock()
        self.core.incomplete[parent.flush_epoch] += children.size()
        self.core.done_gate.unlock()
        parent.gate.lock()
        for i in range(children.size()):
            retain(children[i].batch)
            parent.children.push_back(children[i])
        parent.outcome.store(SPLIT)
        parent.callback_state.store(CALLBACKS_FINISHED)
        for i in range(parent.callbacks.size()):
            entry = parent.callbacks[i]
            batch = leaf_of(parent, &entry.index)
            batch.callbacks.push_back(entry)
        parent.callbacks.clear()
        parent.gate.unlock()
        settle(parent)

    def fail_queued(self, error: BaseException) -> None:
        """End every batch that was never sent with `error`."""
        cdef TopicRoute route
        cdef size_t i
        for route in list(self.known.values()):
            for i in range(route.topic_.partitions.size()):
                self._fail_queue(route.topic_.partitions[i], FAILED, error, True)

    def abort(self, error: BaseException) -> list:
        """After `stop`: end all that is left with (a copy of) `error`; a tuple for each batch, see DESIGN.md."""
        cdef TopicRoute route
        cdef size_t i
        cdef list left = []
        self.stop()   # its requests point to the batches that end here
        self.aborted = True
        for route in self.known.values():
            for i in range(route.topic_.partitions.size()):
                self._abort_partition(route.topic_.partitions[i], error, left)
            for i in range(route.topic_.retired.size()):
                self._abort_partition(route.topic_.retired[i], error, left)
        self.take_events()   # nobody will decide any more; they hold batches
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
                mine = copy.copy(error)
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
        if self.on_control_thread():
            raise failures.flush_in_callback()
        core.done_gate.lock()
        epoch = core.flush_epoch
        core.flush_epoch += 1
        core.done_gate.unlock()
        core.flush_target.store(max(epoch, core.flush_target.load()))
        wake(core)
        core.flush_waiters.fetch_add(1)
        try:
            while incomplete_until(core, epoch):
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
        cdef TopicRoute route
        cdef Partition* partition
        cdef pair[int, Outbox*] entry
        cdef size_t i
        cdef double records = 0, payload = 0, encoded = 0, largest = 0
        cdef dict result
        for route in list(self.known.values()):
            for i in range(route.topic_.partitions.size()):
                partition = route.topic_.partitions[i]
                lock_detached(&partition.gate)
                records += partition.records_appended
                payload += partition.record_bytes
                encoded += partition.encoded_bytes
                largest = max(largest, <double>partition.record_size_max)
                partition.record_size_max = 0
                partition.gate.unlock()
        core.gate.lock()
        result = {
            "records_appended": records, "record_bytes": payload, "record_size_max": largest,
            "batches_sent": core.batches_sent, "batch_bytes": core.batch_bytes,
            "batch_size_max": core.batch_size_max, "uncompressed_bytes": core.uncompressed_bytes,
            "compressed_bytes": core.compressed_bytes, "records_sent": core.records_sent,
            "records_acked": core.records_acked, "records_failed": core.records_failed,
            "records_retried": core.records_retried, "queue_time_ms": core.queue_time,
            "queue_time_max_ms": core.queue_time_max, "connections_opened": core.connections_opened,
            "connections_closed": core.connections_closed, "records_queued": records - core.records_ended,
            "bytes_queued": encoded - core.bytes_ended, "callbacks_waiting": <double>core.due.size(),
        }
        core.batch_size_max = core.queue_time_max = 0
        core.gate.unlock()
        core.pool_gate.lock()
        result["memory_used"] = <double>core.charged
        core.pool_gate.unlock()
        nodes = self._node_counters(False)
        for name in ("requests", "responses", "request_bytes", "response_bytes", "latency_ms", "throttle_ms"):
            result[name] = sum(node[name] for node in nodes.values())
        result["request_size_max"] = core.request_size_max
        result["latency_max_ms"] = core.latency_max
        result["throttle_max_ms"] = core.throttle_max
        core.request_size_max = core.latency_max = core.throttle_max = 0
        result["requests_in_flight"] = sum(node["in_flight"] for node in nodes.values())
        result["connections"] = core.connections_opened - core.connections_closed
        return result

    def topic_counters(self) -> dict:
        """Totals by topic; the names are in DESIGN.md."""
        cdef TopicRoute route
        cdef Topic* topic
        result = {}
        for name, route in list(self.known.items()):
            topic = route.topic_
            self.core.gate.lock()
            result[name] = {
                "records_sent": topic.records_sent, "batch_bytes": topic.batch_bytes,
                "uncompressed_bytes": topic.uncompressed_bytes, "compressed_bytes": topic.compressed_bytes,
                "records_retried": topic.records_retried, "records_failed": topic.records_failed,
            }
            self.core.gate.unlock()
        return result

    def node_counters(self) -> dict:
        """Totals by broker; the names are in DESIGN.md."""
        return self._node_counters(True)

    cdef dict _node_counters(self, bint reset):
        cdef Outbox* outbox
        cdef vector[Outbox*] outboxes
        cdef size_t i
        cdef dict result = {}
        self.core.gate.lock()
        outboxes = self.core.outbox_list
        self.core.gate.unlock()
        for i in range(outboxes.size()):
            outbox = outboxes[i]
            result[outbox.node] = {
                "requests": outbox.requests, "responses": outbox.responses, "request_bytes": outbox.request_bytes,
                "request_size_max": outbox.request_size_max, "response_bytes": outbox.response_bytes,
                "latency_ms": outbox.latency, "latency_max_ms": outbox.latency_max,
                "throttle_ms": outbox.throttle, "throttle_max_ms": outbox.throttle_max,
                "in_flight": <double>outbox.unanswered.load(),
            }
            if reset:
                outbox.request_size_max = outbox.latency_max = outbox.throttle_max = 0
        return result


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
