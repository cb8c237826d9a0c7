# A topic's partitions: they come, vanish, and come back.

cdef vector[Partition*] ever_of(Topic* topic) noexcept nogil:
    """A copy of the topic's partitions, vanished ones included: a loop over them may let the interpreter go, and then
    they change. None of them is freed as long as the plane lives."""
    cdef vector[Partition*] partitions
    cdef size_t i
    for i in range(topic.partitions.made()):
        partitions.push_back(topic.partitions[i])
    return partitions


cdef int set_partitions(TopicRoute route) except -1:
    """Have as many as the route has leaders. What waits for one that has vanished fails."""
    cdef Topic* topic = route.topic_
    cdef size_t before = topic.partitions.size(), count = len(route.leaders), i
    cdef Partition* partition
    cdef object number, pair_   # objects: the structs borrow them from the route's list
    for i in range(before, min(count, topic.partitions.made())):
        # Back again, as after the answer of a broker that lagged behind. The broker has not forgotten us: a
        # partition that began anew at sequence 0 would have its records taken for known ones, and dropped.
        partition = topic.partitions[i]
        lock_detached(&partition.gate)
        partition.vanished = False
        partition.gate.unlock()
    while topic.partitions.made() < count:
        number = <int>topic.partitions.made()
        pair_ = TopicPartition(route.topic, number)
        route.partitions.append((pair_, number))
        topic.partitions.add(
            new_partition(topic, number, <PyObject*>route.topic, <PyObject*>pair_, <PyObject*>number))
    topic.partitions.show(count)
    for i in range(count, before):
        partition = topic.partitions[i]
        partition.leader.store(-1)
        lock_detached(&partition.gate)
        partition.vanished = True
        partition.gate.unlock()
        fail_queue(partition, VANISHED, None, False)
    return 0
