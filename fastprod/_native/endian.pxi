# Big-endian numbers, byte by byte: compilers turn these into one load or store and a swap on every platform.


cdef inline void put16(unsigned char* at, uint16_t value) noexcept nogil:
    at[0] = <unsigned char>(value >> 8)
    at[1] = <unsigned char>value


cdef inline void put32(unsigned char* at, uint32_t value) noexcept nogil:
    at[0] = <unsigned char>(value >> 24)
    at[1] = <unsigned char>(value >> 16)
    at[2] = <unsigned char>(value >> 8)
    at[3] = <unsigned char>value


cdef inline void put64(unsigned char* at, uint64_t value) noexcept nogil:
    put32(at, <uint32_t>(value >> 32))
    put32(at + 4, <uint32_t>value)


cdef inline uint16_t get16(const unsigned char* at) noexcept nogil:
    return <uint16_t>((<uint16_t>at[0] << 8) | at[1])


cdef inline uint32_t get32(const unsigned char* at) noexcept nogil:
    return (<uint32_t>at[0] << 24) | (<uint32_t>at[1] << 16) | (<uint32_t>at[2] << 8) | at[3]


cdef inline uint64_t get64(const unsigned char* at) noexcept nogil:
    return (<uint64_t>get32(at) << 32) | get32(at + 4)
