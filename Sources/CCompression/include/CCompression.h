// The host's zlib and zstd, as much of them as disk images and kernels use.
#ifndef CCOMPRESSION_H
#define CCOMPRESSION_H

#include <stdbool.h>
#include <stddef.h>

// Unpacks to exactly `room` bytes of `to`; what follows in `from` is ignored. False if it does not make so many, or is damaged.
// `raw` is a deflate stream without header (RFC 1951), else it has zlib's (RFC 1950).
bool davit_inflate(const void *_Nonnull from, size_t count, void *_Nonnull to, size_t room, bool raw);
// Unpacks a gzip file (RFC 1952) of one member to `to`, which it must fill. False if it does not, or is damaged.
bool davit_gunzip(const void *_Nonnull from, size_t count, void *_Nonnull to, size_t room);
// Packs as a raw deflate stream with a window of 4 KiB, which qcow2 asks for. Bytes, or 0 if `room` does not hold it.
size_t davit_deflate(const void *_Nonnull from, size_t count, void *_Nonnull to, size_t room);

// The same for zstd (RFC 8878).
bool davit_zstd_unpack(const void *_Nonnull from, size_t count, void *_Nonnull to, size_t room);
size_t davit_zstd_pack(const void *_Nonnull from, size_t count, void *_Nonnull to, size_t room);

#endif
