# Linked codecs: what compresses without the interpreter. setup.py decides which there are.

from fastprod.codecs import CODECS

cdef extern from "codec.h" nogil:
    const char* fp_codec_version(int codec) noexcept
    size_t fp_compress_room(int codec, int level, size_t size) noexcept
    size_t fp_compress(int codec, int level, void** state, const unsigned char* data, size_t size,
                       unsigned char* out, size_t room) noexcept
    void fp_compress_end(int codec, void* state) noexcept


def linked_codecs() -> dict:
    """The codecs that need no package, and the library that does each, with its version."""
    cdef const char* version
    libraries = {"gzip": "zlib", "lz4": "liblz4", "zstd": "libzstd"}
    linked = {}
    for name, library in libraries.items():
        version = fp_codec_version(CODECS[name].number)
        if version != NULL:
            linked[name] = f"{library} {version.decode()}"
    return linked


cdef size_t compressed_into(Core* core, Compressor* own, const unsigned char* data, size_t size) noexcept nogil:
    """The size of what is in `own.out` now, or 0: the data is better left as it is."""
    cdef size_t room = fp_compress_room(core.codec, core.level, size)
    if own.room < room:
        free(own.out)
        own.out = <unsigned char*>malloc(room)
        own.room = room if own.out != NULL else 0
        if own.out == NULL:
            return 0
    return fp_compress(core.codec, core.level, &own.state, data, size, own.out, own.room)


cdef Sealed sealed_body(Core* core, Compressor* own, Batch* batch) noexcept nogil:
    """Replace the body by its compressed form where that is smaller, and say what it is now. Nobody else may look at
    the bytes meanwhile, and nothing but them is changed."""
    cdef Sealed sealed
    sealed.size = compressed_into(core, own, batch.data, batch.used)
    sealed.codec = batch.codec if sealed.size else 0
    if sealed.size:
        memcpy(batch.data, own.out, sealed.size)
    else:
        sealed.size = batch.used
    sealed.crc = body_crc_of(batch.data, sealed.size)
    return sealed


cdef void note_sealed(Batch* batch, Sealed sealed) noexcept nogil:
    batch.raw_size = batch.used
    batch.used = sealed.size
    batch.codec = sealed.codec
    batch.body_crc = sealed.crc
    batch.sealed = True


cdef void end_compressor(Core* core, Compressor* own) noexcept nogil:
    fp_compress_end(core.codec, own.state)
    free(own.out)
    own.state = NULL
    own.out = NULL
    own.room = 0
