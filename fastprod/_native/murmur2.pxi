# The hash by which Kafka's Java producer, and so everybody, maps keys to partitions.


cdef inline int32_t hash_murmur2(const unsigned char* data, size_t size) noexcept nogil:
    cdef uint32_t m = 0x5BD1E995U
    cdef uint32_t h = 0x9747B28CU ^ <uint32_t>size
    cdef uint32_t k
    cdef size_t words = size >> 2, i
    for i in range(words):
        k = data[0] | (<uint32_t>data[1] << 8) | (<uint32_t>data[2] << 16) | (<uint32_t>data[3] << 24)
        data += 4
        k *= m
        k ^= k >> 24
        k *= m
        h *= m
        h ^= k
    size &= 3
    if size == 3:
        h ^= <uint32_t>data[2] << 16
    if size >= 2:
        h ^= <uint32_t>data[1] << 8
    if size >= 1:
        h ^= data[0]
        h *= m
    h ^= h >> 13
    h *= m
    h ^= h >> 15
    return <int32_t>h


cdef inline int murmur2_partition(const unsigned char* key, size_t size, int partitions) noexcept nogil:
    return <int>((<uint32_t>hash_murmur2(key, size) & 0x7FFFFFFFU) % <uint32_t>partitions)


def murmur2(data) -> int:
    """Kafka's murmur2 of `data` (bytes-like) as the signed 32-bit number that Java gives."""
    cdef const unsigned char[::1] view = data
    return hash_murmur2(&view[0] if view.shape[0] else <const unsigned char*>b"", view.shape[0])


def partition_for_key(key, partitions: int) -> int:
    """The partition of `partitions` that Java's producer gives a record with this key (bytes-like)."""
    cdef const unsigned char[::1] view = key
    if not 1 <= partitions <= 0x7FFFFFFF:
        raise ValueError(f"partitions must be from 1 to 2147483647, not {partitions}")
    return murmur2_partition(&view[0] if view.shape[0] else <const unsigned char*>b"", view.shape[0], partitions)
