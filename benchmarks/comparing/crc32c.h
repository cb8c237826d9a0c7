// CRC-32C (RFC 3720) for the C programs beside this file. Where the CPU has an instruction for it, three stretches run
// side by side: the instruction takes three cycles and one starts each cycle. Their remainders are joined by tables
// that multiply by x^(8 * STRETCH): appending that many zero bytes is linear, so a table a byte of the remainder does.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#define CRC_WORD(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#define CRC_WORD(crc, word) __crc32cd((crc), (word))
#endif

enum { CRC_STRETCH = 4096 };
static uint32_t crc_byte[256];
static uint32_t crc_over_stretch[4][256];

static uint32_t crc_bytes(uint32_t crc, const unsigned char* data, size_t size) {
    for (; size; size--, data++) crc = (crc >> 8) ^ crc_byte[(crc ^ *data) & 0xFF];
    return crc;
}

// Call it once, before any thread is started.
static void crc32c_prepare(void) {
    static const unsigned char zeros[CRC_STRETCH];
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t crc = n;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
        crc_byte[n] = crc;
    }
    uint32_t images[32];
    for (int bit = 0; bit < 32; bit++) images[bit] = crc_bytes(1u << bit, zeros, CRC_STRETCH);
    for (int place = 0; place < 4; place++)
        for (uint32_t n = 0; n < 256; n++) {
            uint32_t image = 0;
            for (int bit = 0; bit < 8; bit++)
                if (n >> bit & 1) image ^= images[8 * place + bit];
            crc_over_stretch[place][n] = image;
        }
}

#if defined(CRC_WORD)
static inline uint32_t crc_pushed(uint32_t crc) {
    return crc_over_stretch[0][crc & 0xFF] ^ crc_over_stretch[1][crc >> 8 & 0xFF] ^
           crc_over_stretch[2][crc >> 16 & 0xFF] ^ crc_over_stretch[3][crc >> 24];
}

static inline uint64_t crc_load(const unsigned char* at) {
    uint64_t word;
    memcpy(&word, at, 8);
    return word;
}
#endif

// The CRC-32C of `size` bytes.
static uint32_t crc32c(const unsigned char* data, size_t size) {
    uint32_t crc = ~0u;
#if defined(CRC_WORD)
    for (; size >= 3 * CRC_STRETCH; data += 3 * CRC_STRETCH, size -= 3 * CRC_STRETCH) {
        uint32_t second = 0, third = 0;
        for (size_t at = 0; at < CRC_STRETCH; at += 8) {
            crc = CRC_WORD(crc, crc_load(data + at));
            second = CRC_WORD(second, crc_load(data + CRC_STRETCH + at));
            third = CRC_WORD(third, crc_load(data + 2 * CRC_STRETCH + at));
        }
        crc = crc_pushed(crc_pushed(crc) ^ second) ^ third;
    }
    for (; size >= 8; data += 8, size -= 8) crc = CRC_WORD(crc, crc_load(data));
#endif
    return ~crc_bytes(crc, data, size);
}
