// Codecs without the interpreter: liblz4, libzstd and zlib, where setup.py found them. What is not linked has no
// version here, and Python's packages do it. What the bytes must look like is said in fastprod/compression.py.
#pragma once
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#ifdef FASTPROD_ZLIB
#include <zlib.h>
// One member with the header and trailer of RFC 1952: 16 + 15 window bits. The state is worth keeping.
static inline size_t fp_gzip(void** state, int level, const unsigned char* data, size_t size, unsigned char* out) {
    z_stream* stream = (z_stream*)*state;
    if (size > 0xffffffffu) return 0;
    if (stream == NULL) {
        *state = stream = (z_stream*)calloc(1, sizeof *stream);
        if (stream == NULL) return 0;
        if (deflateInit2(stream, level, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
            free(stream);
            *state = NULL;
            return 0;
        }
    }
    deflateReset(stream);
    stream->next_in = (Bytef*)data;
    stream->next_out = out;
    stream->avail_in = stream->avail_out = (uInt)size;
    return deflate(stream, Z_FINISH) == Z_STREAM_END ? size - stream->avail_out : 0;
}
#endif

#ifdef FASTPROD_LZ4
#include <lz4.h>
#include <lz4frame.h>
// One frame of independent blocks, without checksums and content size. As large as in fastprod/compression.py.
static inline LZ4F_preferences_t fp_lz4_frame(int level) {
    LZ4F_preferences_t how;
    memset(&how, 0, sizeof how);
    how.frameInfo.blockSizeID = level < 3 ? LZ4F_max64KB : LZ4F_max1MB;
    how.frameInfo.blockMode = LZ4F_blockIndependent;
    how.compressionLevel = level;
    return how;
}
#endif

#ifdef FASTPROD_ZSTD
#include <zstd.h>
#endif

enum { FP_GZIP = 1, FP_LZ4 = 3, FP_ZSTD = 4 };

// The library's version, or NULL where it is not linked.
static inline const char* fp_codec_version(int codec) {
    switch (codec) {
#ifdef FASTPROD_ZLIB
    case FP_GZIP: return zlibVersion();
#endif
#ifdef FASTPROD_LZ4
    case FP_LZ4: return LZ4_versionString();
#endif
#ifdef FASTPROD_ZSTD
    case FP_ZSTD: return ZSTD_versionString();
#endif
    default: return NULL;
    }
}

// How large `out` must be. Only lz4 asks for more than what is compressed.
static inline size_t fp_compress_room(int codec, int level, size_t size) {
#ifdef FASTPROD_LZ4
    LZ4F_preferences_t how = fp_lz4_frame(level);
    if (codec == FP_LZ4) return LZ4F_compressFrameBound(size, &how);
#endif
    return size;
}

// The size of the result, or 0: it is not smaller, or there was no memory. `state` begins as NULL, is one thread's and
// of one codec and level.
static inline size_t fp_compress(int codec, int level, void** state, const unsigned char* data, size_t size,
                                 unsigned char* out, size_t room) {
    size_t got = 0;
#ifdef FASTPROD_ZLIB
    if (codec == FP_GZIP) got = fp_gzip(state, level, data, size, out);
#endif
#ifdef FASTPROD_LZ4
    LZ4F_preferences_t how = fp_lz4_frame(level);
    if (codec == FP_LZ4) got = LZ4F_compressFrame(out, room, data, size, &how);
#endif
#ifdef FASTPROD_ZSTD
    if (codec == FP_ZSTD && *state == NULL) *state = ZSTD_createCCtx();
    if (codec == FP_ZSTD && *state) got = ZSTD_compressCCtx((ZSTD_CCtx*)*state, out, room, data, size, level);
#endif
    return got < size ? got : 0;   // an error is a number above any size
}

static inline void fp_compress_end(int codec, void* state) {
#ifdef FASTPROD_ZLIB
    if (codec == FP_GZIP && state) deflateEnd((z_stream*)state);
    if (codec == FP_GZIP) free(state);
#endif
#ifdef FASTPROD_ZSTD
    if (codec == FP_ZSTD) ZSTD_freeCCtx((ZSTD_CCtx*)state);
#endif
}
