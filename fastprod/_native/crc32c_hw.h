// CRC-32C by the CPU's own instructions, where the CPU that runs this has them: SSE4.2 on x86-64, the CRC extension
// on ARMv8. The instruction takes three cycles and one can start each cycle, so three streams run side by side; the
// caller folds them together (crc32c.pxi).
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <nmmintrin.h>
#if defined(_MSC_VER)
#include <intrin.h>
#define FP_TARGET
#elif defined(__clang__) && __clang_major__ >= 14
// It knows the instruction apart from the others, and may have been told that there is none (as zig tells it).
#define FP_TARGET __attribute__((target("sse4.2,crc32")))
#else
#define FP_TARGET __attribute__((target("sse4.2")))
#endif
#define FP_CRC64(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#define FP_CRC8(crc, byte) _mm_crc32_u8((crc), (byte))
#define FP_CRC_NAME "sse4.2"
static inline int fp_crc_available(void) {
#if defined(_MSC_VER)
    int registers[4];
    __cpuid(registers, 1);
    return (registers[2] >> 20) & 1;
#else
    return __builtin_cpu_supports("sse4.2") != 0;
#endif
}
#elif defined(__aarch64__) || defined(_M_ARM64)
#if defined(_WIN32)
#include <winsock2.h>   // before windows.h, which would bring in its forerunner
#include <windows.h>
#endif
#if defined(_MSC_VER)
#include <intrin.h>
#define FP_TARGET
#else
#if defined(__clang__)
#define FP_TARGET __attribute__((target("crc")))
#else
#define FP_TARGET __attribute__((target("+crc")))
#endif
#include <arm_acle.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#endif
#define FP_CRC64(crc, word) __crc32cd((crc), (word))
#define FP_CRC8(crc, byte) __crc32cb((crc), (byte))
#define FP_CRC_NAME "armv8"
static inline int fp_crc_available(void) {
#if defined(_WIN32)
    return IsProcessorFeaturePresent(PF_ARM_V8_CRC32_INSTRUCTIONS_AVAILABLE);
#elif defined(__APPLE__)
    return 1;
#elif defined(__linux__)
    return (getauxval(AT_HWCAP) >> 7) & 1;  // HWCAP_CRC32
#else
    return 0;
#endif
}
#endif

#if defined(FP_TARGET)
FP_TARGET static uint32_t fp_crc_one(uint32_t crc, const unsigned char* data, size_t size) {
    uint64_t word;
    for (; size >= 8; size -= 8, data += 8) {
        memcpy(&word, data, 8);
        crc = FP_CRC64(crc, word);
    }
    for (; size; size--, data++) crc = FP_CRC8(crc, *data);
    return crc;
}

// Three neighbouring stretches of `size` bytes (a multiple of 8) at once; crc[0] continues, the others start at 0.
FP_TARGET static void fp_crc_three(uint32_t* crc, const unsigned char* data, size_t size) {
    uint32_t a = crc[0], b = 0, c = 0;
    uint64_t word;
    for (size_t at = 0; at < size; at += 8) {
        memcpy(&word, data + at, 8);
        a = FP_CRC64(a, word);
        memcpy(&word, data + size + at, 8);
        b = FP_CRC64(b, word);
        memcpy(&word, data + 2 * size + at, 8);
        c = FP_CRC64(c, word);
    }
    crc[0] = a;
    crc[1] = b;
    crc[2] = c;
}
#else
#define FP_CRC_NAME "tables"
static inline int fp_crc_available(void) { return 0; }
static uint32_t fp_crc_one(uint32_t crc, const unsigned char* data, size_t size) { (void)data; (void)size; return crc; }
static void fp_crc_three(uint32_t* crc, const unsigned char* data, size_t size) { (void)crc; (void)data; (void)size; }
#endif
