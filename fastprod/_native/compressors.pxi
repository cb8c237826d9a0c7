# Threads that compress with a linked codec, so that several cores do when they are idle, and the I/O thread writes.
#
# A batch that takes no more records is given to them: by who filled it, long before it may leave, or by the I/O thread
# when it may leave partly filled. It stays where it is in its partition's queue, and leaves once it is compressed. What
# is stamped into it lies in its header, so its body may be ready before.


cdef void give_to_compressors(Core* core, Batch* batch) noexcept nogil:
    """Have the batch compressed; once. It takes no more records, and its partition's lock is held."""
    if batch.compressing.load(memory_order_relaxed) != NOT_GIVEN:
        return
    core.compress_gate.lock()
    if not core.stopping.load():   # else nobody takes it any more
        batch.compressing.store(GIVEN)
        retain(batch)
        core.compressing.fetch_add(1)
        core.to_compress.push_back(batch)
    core.compress_gate.unlock()
    core.compress_more.notify_one()


cdef Batch* next_to_compress(Core* core) noexcept nogil:
    """Wait for a batch; NULL: the producer stops."""
    cdef unique_lock[mutex]* held = new unique_lock[mutex](core.compress_gate)
    cdef Batch* batch = NULL
    while core.to_compress.empty() and not core.stopping.load():
        core.compress_more.wait(held[0])
    if not core.stopping.load():
        batch = core.to_compress.front()
        core.to_compress.pop_front()
    del held
    return batch


cdef void run_compressor(void* argument) noexcept nogil:
    cdef Core* core = <Core*>argument
    cdef Compressor own
    cdef Batch* batch
    own.state = own.out = NULL
    own.room = 0
    while True:
        batch = next_to_compress(core)
        if batch == NULL:
            break
        compress_ahead(core, &own, batch)
        core.compressing.fetch_sub(1)
        release(batch)
        wake(core)
    end_compressor(core, &own)


cdef void compress_ahead(Core* core, Compressor* own, Batch* batch) noexcept nogil:
    """Seal a batch that lies in its queue. It may end meanwhile; then its bytes are given back here, for whoever ended
    it has left them to us (`free_body`)."""
    cdef Partition* partition = batch.partition
    cdef Sealed sealed
    partition.gate.lock()
    if not batch.ended:
        batch.compressing.store(BUSY)
    partition.gate.unlock()
    if batch.compressing.load() != BUSY:
        return   # ended, and its bytes are gone
    sealed = sealed_body(core, own, batch)
    partition.gate.lock()
    if not batch.ended:
        note_sealed(batch, sealed)
    partition.gate.unlock()
    if batch.compressing.exchange(COMPRESSED) == DROPPED:
        free_body(batch)


cdef cbool waits_for_compressor(Core* core, Batch* batch) noexcept nogil:
    """Whether a batch that may leave must be compressed by another thread first; if so it is given to one. The
    partition's lock is held."""
    if batch.sealed or batch.codec == 0 or core.compress != NULL:
        return False
    if batch.compressing.load(memory_order_relaxed) == NOT_GIVEN and core.compressed_here + batch.used <= COMPRESS_HERE:
        core.compressed_here += batch.used
        return False
    refuse_records(batch)
    give_to_compressors(core, batch)
    return True
