# A topic's partitions: they come, vanish, and come back.

cdef vector[Partition*] ever_of(Topic* topic) noexcept nogil:
    """A copy of the topic's partitions, vanished ones included: a loop over them may let the interpreter go, and then
    they change. None of them is freed as long as the plane lives."""
    cdef vector[Partition*] partitions = topic.partitions
    partitions.insert(partitions.end(), topic.retired.begin(), topic.retired.end())
    return partitions


cdef int set_partitions(TopicRoute route) except -1:
    """Have as many as the route has leaders. What waits for one that has vanished fails."""
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
        fail_queue(partition, VANISHED, None, False)
    return 0
