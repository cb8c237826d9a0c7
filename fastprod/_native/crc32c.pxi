# CRC-32C (Castagnoli, RFC 3720): the checksum of a record batch.
#
# A CRC is the remainder of a polynomial, so the CRC of two stretches of bytes can be had from the CRCs of each: the
# first is multiplied by x to the power of the second's length in bits, and the two are added. That is how the three
# streams of crc32c_hw.h are folded, and how a new batch header is joined to a body whose CRC is known.

cdef extern from "crc32c_hw.h" nogil:
    const char* FP_CRC_NAME
    bint fp_crc_available() noexcept
    uint32_t fp_crc_one(uint32_t crc, const unsigned char* data, size_t size) noexcept
    void fp_crc_three(uint32_t* crc, const unsigned char* data, size_t size) noexcept

cdef enum:
    LONG_STRETCH = 8192
    SHORT_STRETCH = 256

cdef uint32_t POLYNOMIAL = 0x82F63B78U
cdef uint32_t crc_tables[8][256]
cdef uint32_t crc_powers[64]          # x^(8 * 2^k) modulo the polynomial
cdef uint32_t long_shift[4][256]
cdef uint32_t short_shift[4][256]
cdef bint crc_in_hardware = False
# Bytes from which on joining two CRCs costs less than going over the second stretch again.
cdef size_t join_from = 512


cdef uint32_t polynomial_product(uint32_t a, uint32_t b) noexcept nogil:
    """a * b modulo the polynomial; bit 31 is the coefficient of x^0."""
    cdef uint32_t result = 0
    while a:
        if a & 0x80000000U:
            result ^= b
        a <<= 1
        b = (b >> 1) ^ (POLYNOMIAL & (~(b & 1) + 1))
    return result


cdef uint32_t power_of_bytes(uint64_t size) noexcept nogil:
    """x^(8 * size) modulo the polynomial."""
    cdef uint32_t result = 0x80000000U
    cdef int k = 0
    while size:
        if size & 1:
            result = polynomial_product(result, crc_powers[k])
        size >>= 1
        k += 1
    return result


cdef void fill_shift(uint32_t (*table)[256], size_t size) noexcept nogil:
    cdef uint32_t power = power_of_bytes(size), n
    cdef int byte
    for byte in range(4):
        for n in range(256):
            table[byte][n] = polynomial_product(n << (8 * byte), power)


cdef inline uint32_t shifted(uint32_t (*table)[256], uint32_t crc) noexcept nogil:
    return (table[0][crc & 0xFF] ^ table[1][(crc >> 8) & 0xFF]
            ^ table[2][(crc >> 16) & 0xFF] ^ table[3][crc >> 24])


cdef void prepare_crc32c() noexcept:
    global crc_in_hardware, join_from
    cdef uint32_t n, crc
    cdef int k
    for n in range(256):
        crc = n
        for k in range(8):
            crc = (crc >> 1) ^ (POLYNOMIAL & (~(crc & 1) + 1))
        crc_tables[0][n] = crc
    for n in range(256):
        for k in range(1, 8):
            crc = crc_tables[k - 1][n]
            crc_tables[k][n] = (crc >> 8) ^ crc_tables[0][crc & 0xFF]
    crc_powers[0] = 0x00800000U  # x^8
    for k in range(1, 64):
        crc_powers[k] = polynomial_product(crc_powers[k - 1], crc_powers[k - 1])
    fill_shift(long_shift, LONG_STRETCH)
    fill_shift(short_shift, SHORT_STRETCH)
    crc_in_hardware = fp_crc_available()
    if crc_in_hardware:
        join_from = 4096


cdef uint32_t crc_by_tables(uint32_t crc, const unsigned char* data, size_t size) noexcept nogil:
    while size >= 8:
        crc ^= (data[0] | (<uint32_t>data[1] << 8) | (<uint32_t>data[2] << 16) | (<uint32_t>data[3] << 24))
        crc = (crc_tables[7][crc & 0xFF] ^ crc_tables[6][(crc >> 8) & 0xFF]
               ^ crc_tables[5][(crc >> 16) & 0xFF] ^ crc_tables[4][crc >> 24]
               ^ crc_tables[3][data[4]] ^ crc_tables[2][data[5]]
               ^ crc_tables[1][data[6]] ^ crc_tables[0][data[7]])
        data += 8
        size -= 8
    while size:
        crc = (crc >> 8) ^ crc_tables[0][(crc ^ data[0]) & 0xFF]
        data += 1
        size -= 1
    return crc


cdef inline uint32_t three_streams(uint32_t crc, const unsigned char* data, size_t stretch,
                                   uint32_t (*shift)[256]) noexcept nogil:
    cdef uint32_t streams[3]
    streams[0] = crc
    fp_crc_three(streams, data, stretch)
    crc = shifted(shift, streams[0]) ^ streams[1]
    return shifted(shift, crc) ^ streams[2]


cdef uint32_t crc_of(uint32_t value, const unsigned char* data, size_t size) noexcept nogil:
    """The CRC-32C of what `value` covers followed by `data`; `value` 0 to begin."""
    cdef uint32_t crc = ~value
    if not crc_in_hardware:
        return ~crc_by_tables(crc, data, size)
    while size >= 3 * LONG_STRETCH:
        crc = three_streams(crc, data, LONG_STRETCH, long_shift)
        data += 3 * LONG_STRETCH
        size -= 3 * LONG_STRETCH
    while size >= 3 * SHORT_STRETCH:
        crc = three_streams(crc, data, SHORT_STRETCH, short_shift)
        data += 3 * SHORT_STRETCH
        size -= 3 * SHORT_STRETCH
    return ~fp_crc_one(crc, data, size)


cdef inline uint32_t crc_joined(uint32_t first, uint32_t second, uint64_t second_size) noexcept nogil:
    return polynomial_product(first, power_of_bytes(second_size)) ^ second


cdef inline uint32_t body_crc_of(const unsigned char* body, size_t size) noexcept nogil:
    """What is kept of a body so that each header it goes out with costs the same: its CRC; nothing of a short one."""
    return 0 if size < join_from else crc_of(0, body, size)


cdef inline uint32_t crc_with_body(uint32_t header, const unsigned char* body, size_t size,
                                   uint32_t kept) noexcept nogil:
    """The CRC of a header, whose own is given, and the body behind it; `kept`: what `body_crc_of` said."""
    return crc_of(header, body, size) if size < join_from else crc_joined(header, kept, size)


prepare_crc32c()


def crc32c(data, value: int = 0) -> int:
    """CRC-32C of `data` (bytes-like), continuing `value`, the CRC-32C of what came before it."""
    cdef const unsigned char[::1] view = data
    cdef size_t size = view.shape[0]
    cdef uint32_t crc = value
    if size == 0:
        return crc
    with nogil:
        crc = crc_of(crc, &view[0], size)
    return crc


def crc32c_combine(first: int, second: int, second_length: int) -> int:
    """CRC-32C of two stretches of bytes from the CRC of each and the length of the second in bytes."""
    if second_length < 0:
        raise ValueError(f"second_length must not be negative: {second_length}")
    return crc_joined(first, second, second_length)


def crc32c_implementation() -> str:
    """What computes the CRC here: "sse4.2", "armv8" or "tables"."""
    return FP_CRC_NAME.decode() if crc_in_hardware else "tables"
