#include "CCompression.h"

#include <zlib.h>
#include <zstd.h>

bool davit_inflate(const void *from, size_t count, void *to, size_t room, bool raw) {
    z_stream stream = {.next_in = (Bytef *)from, .avail_in = (uInt)count, .next_out = to, .avail_out = (uInt)room};
    if (inflateInit2(&stream, raw ? -MAX_WBITS : MAX_WBITS) != Z_OK) return false;
    int status = inflate(&stream, Z_FINISH);
    // A full output is good, whether or not the stream's last block has been seen.
    bool good = (status == Z_STREAM_END || status == Z_BUF_ERROR || status == Z_OK) && stream.avail_out == 0;
    inflateEnd(&stream);
    return good;
}

bool davit_gunzip(const void *from, size_t count, void *to, size_t room) {
    z_stream stream = {.next_in = (Bytef *)from, .avail_in = (uInt)count, .next_out = to, .avail_out = (uInt)room};
    if (inflateInit2(&stream, MAX_WBITS + 16) != Z_OK) return false;
    // The end is reached only if the checksum is right.
    bool good = inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_out == 0;
    inflateEnd(&stream);
    return good;
}

size_t davit_deflate(const void *from, size_t count, void *to, size_t room) {
    z_stream stream = {.next_in = (Bytef *)from, .avail_in = (uInt)count, .next_out = to, .avail_out = (uInt)room};
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK) return 0;
    int status = deflate(&stream, Z_FINISH);
    size_t size = status == Z_STREAM_END ? room - stream.avail_out : 0;
    deflateEnd(&stream);
    return size;
}

bool davit_zstd_unpack(const void *from, size_t count, void *to, size_t room) {
    ZSTD_DStream *stream = ZSTD_createDStream();
    if (!stream) return false;
    ZSTD_outBuffer output = {to, room, 0};
    ZSTD_inBuffer input = {from, count, 0};
    bool good = true;
    while (good && output.pos < output.size) {
        size_t in = input.pos, out = output.pos;
        good = !ZSTD_isError(ZSTD_decompressStream(stream, &output, &input)) && (input.pos > in || output.pos > out);
    }
    ZSTD_freeDStream(stream);
    return good;
}

size_t davit_zstd_pack(const void *from, size_t count, void *to, size_t room) {
    size_t size = ZSTD_compress(to, room, from, count, 3);
    return ZSTD_isError(size) ? 0 : size;
}
