# Memory: a hard budget, handed out in size classes.

cdef class Call   # of send_many() or send_arrow()

cdef void prepare_classes(Core* core) noexcept:
    cdef size_t size = SIZE_CLASS_MIN
    cdef size_t top = max(core.batch_size, <size_t>(BATCH_HEADER + 1)) - BATCH_HEADER
    while size < top:
        core.classes.push_back(size)
        size *= 2
    core.classes.push_back(max(top, <size_t>16))
    core.spare.resize(core.classes.size())


cdef inline int class_for(Core* core, size_t size) noexcept nogil:
    """The smallest class that holds `size` bytes; past the last one, -1: memory of exactly that size."""
    cdef size_t i
    for i in range(core.classes.size()):
        if core.classes[i] >= size:
            return <int>i
    return -1


cdef void drop_spare(Core* core, size_t wanted) noexcept nogil:
    """Give unused buffers back to the system until `wanted` more bytes fit the budget. pool_gate is held."""
    cdef size_t i
    for i in range(core.spare.size()):
        while core.charged + core.cached + wanted > core.memory_limit and not core.spare[i].empty():
            free(core.spare[i].back())
            core.spare[i].pop_back()
            core.cached -= core.classes[i]


cdef unsigned char* try_memory(Core* core, size_t need, size_t want, size_t* capacity,
                               cbool ignore_owed) noexcept nogil:
    """Memory for at least `need` bytes, for `want` if there is room; NULL when not even `need` fits.

    pool_gate is held. What ended batches owe until their callbacks ran counts too, but not for the thread that runs
    them: it must not wait for itself."""
    cdef size_t owed = 0 if ignore_owed else core.owed
    cdef size_t size
    cdef void* memory
    cdef int i = class_for(core, max(need, want))
    while i > 0 and core.charged + owed + core.classes[i] > core.memory_limit and core.classes[i - 1] >= need:
        i -= 1
    size = core.classes[i] if i >= 0 else max(need, want)
    if core.charged + owed + size > core.memory_limit:
        size = need   # the last of the budget, exactly
        i = -1
        if core.charged + owed + size > core.memory_limit:
            return NULL
    if i >= 0 and not core.spare[i].empty():
        memory = core.spare[i].back()
        core.spare[i].pop_back()
        core.cached -= size
    else:
        if core.charged + core.cached + size > core.memory_limit:
            drop_spare(core, size)
        memory = malloc(size)
        if memory == NULL:
            return NULL
    core.charged += size
    capacity[0] = size
    live_buffers.fetch_add(1, memory_order_relaxed)
    return <unsigned char*>memory


cdef void return_memory(Core* core, void* memory, size_t size) noexcept nogil:
    cdef cbool kept
    core.pool_gate.lock()
    kept = keep_spare(core, memory, size)
    core.pool_changes += 1
    core.pool_gate.unlock()
    if not kept:
        free(memory)
    if core.memory_waiters.load():
        core.pool_freed.notify_all()


cdef cbool keep_spare(Core* core, void* memory, size_t size) noexcept nogil:
    """Take returned memory off the budget, and keep it for the next who asks; False: it is to be freed. pool_gate is
    held."""
    cdef int i = class_for(core, size)
    live_buffers.fetch_sub(1, memory_order_relaxed)
    core.charged -= size
    if i < 0 or core.classes[i] != size or core.charged + core.cached + size > core.memory_limit:
        return False
    core.spare[i].push_back(memory)
    core.cached += size
    return True


cdef void* taken_body(Batch* batch) noexcept nogil:
    """The batch's bytes, to be returned; NULL: there are none, or the thread that compresses them returns them."""
    cdef void* memory
    if batch.compressing.load() == BUSY and batch.compressing.exchange(DROPPED) == BUSY:
        return NULL
    memory = batch.data
    batch.data = NULL
    return memory


cdef void free_body(Batch* batch) noexcept nogil:
    """Return the batch's bytes. Nothing may read them any more: no request holds them, no split will."""
    cdef void* memory = taken_body(batch)
    if memory != NULL:
        return_memory(batch.core, memory, batch.capacity)


cdef void free_bodies(Core* core, vector[Acknowledged]& batches) noexcept nogil:
    """Return the bytes of all these batches. Those whose callbacks are due are owed from now on."""
    cdef vector[void*] unwanted
    cdef void* memory
    cdef size_t i
    core.pool_gate.lock()
    for i in range(batches.size()):
        if batches[i].due:
            core.owed += batches[i].batch.charge
        memory = taken_body(batches[i].batch)
        if memory != NULL and not keep_spare(core, memory, batches[i].batch.capacity):
            unwanted.push_back(memory)
    core.pool_changes += 1
    core.pool_gate.unlock()
    for i in range(unwanted.size()):
        free(unwanted[i])
    if core.memory_waiters.load():
        core.pool_freed.notify_all()


cdef void drop_all_spare(Core* core) noexcept nogil:
    """Give every unused buffer back: nobody will ask for one, and a future that is kept must not pin them."""
    cdef size_t i
    core.pool_gate.lock()
    for i in range(core.spare.size()):
        while not core.spare[i].empty():
            free(core.spare[i].back())
            core.spare[i].pop_back()
    core.cached = 0
    core.pool_gate.unlock()


cdef void wait_for_memory(Core* core, uint64_t seen, int64_t nanos) noexcept nogil:
    """Wait until memory was returned, unless that has happened since `pool_changes` was `seen`."""
    cdef unique_lock[mutex]* held = new unique_lock[mutex](core.pool_gate)
    if core.pool_changes == seen:
        core.pool_freed.wait_for(held[0], nanoseconds(nanos))
    del held


cdef unsigned char* memory_in_turn(Core* core, size_t need, size_t want, size_t* capacity, int64_t* budget,
                                   Call call) except? NULL:
    """Memory for a new batch, waited for in arrival order for `budget` ns, of which what the wait took is taken off;
    NULL once the producer is closing. `call`: whose records it is for; None: of `send()`."""
    cdef DataPlane plane
    cdef unsigned char* memory = NULL
    cdef uint64_t ticket, seen
    cdef int64_t left, began, deadline
    cdef size_t i
    cdef bint inside
    core.pool_gate.lock()
    if core.memory_queue.empty():
        memory = try_memory(core, need, want, capacity, False)
    if memory != NULL:
        core.pool_gate.unlock()
        return memory
    core.memory_ticket += 1
    ticket = core.memory_ticket
    core.memory_queue.push_back(ticket)
    core.memory_waiters.fetch_add(1)
    core.pool_gate.unlock()
    began = now_ns()
    deadline = began + budget[0]
    plane = <DataPlane>core.plane
    try:
        if call is not None:
            call.keep()
        inside = plane.on_control_thread()
        wake(core)   # partial batches leave while somebody waits for memory
        while True:
            core.pool_gate.lock()
            # The control thread passes the queue: everybody in it may be waiting for what it decides.
            if inside or core.memory_queue.front() == ticket:
                memory = try_memory(core, need, want, capacity, inside)
            seen = core.pool_changes
            core.pool_gate.unlock()
            if memory != NULL or core.closing.load():
                budget[0] = max(deadline - now_ns(), <int64_t>0)
                return memory
            left = min(deadline - now_ns(), SIGNAL_SLICE)
            if left <= 0:
                raise failures.buffer_full(need, core.memory_limit, (now_ns() - began) / 1e6, dict(plane.troubles))
            if inside:
                plane.engine.pump(min(left, 5 * MILLISECOND) / 1e9)
            else:
                with nogil:
                    wait_for_memory(core, seen, left)
                PyErr_CheckSignals()
            if core.forked.load():   # by the signal's handler, or by what a pass of the control loop ran
                raise failures.closed()
    finally:
        if core.forked.load():
            return NULL
        core.pool_gate.lock()
        for i in range(core.memory_queue.size()):
            if core.memory_queue[i] == ticket:
                core.memory_queue.erase(core.memory_queue.begin() + i)
                break
        core.pool_changes += 1   # the next in line may be served
        core.pool_gate.unlock()
        core.memory_waiters.fetch_sub(1)
        core.pool_freed.notify_all()
