// Files of disk images: locks, holes and direct I/O, whose constants glibc declares in ways that Swift does not see.
#ifndef DAVIT_FILE_H
#define DAVIT_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

// Locks the whole file for this open file description (fcntl(2), F_OFD_SETLK): shared, or for one writer alone. Does not wait.
// 0, or -1 with errno (EAGAIN or EACCES: somebody else holds it).
int davit_file_lock(int descriptor, bool exclusive);

// 1 if another open file description holds a lock on the file, else 0; -1 with errno.
int davit_file_is_locked(int descriptor);

// The same file once more, with O_DIRECT; a descriptor, or -1 with errno (EINVAL: its file system has no direct I/O).
int davit_file_open_direct(int descriptor, bool writable);

// fallocate(2): gives the space back, or makes it read as zeros and keeps it. 0, or -1 with errno.
int davit_file_punch_hole(int descriptor, int64_t offset, int64_t count);
int davit_file_zero_range(int descriptor, int64_t offset, int64_t count);

// Where at `offset` or behind it the file has data, by lseek(2); its end if there are none. -1 with errno if that cannot be told.
int64_t davit_file_next_data(int descriptor, int64_t offset);

// preadv2(2) with RWF_NOWAIT: takes only what is in memory. Bytes, or -1 with errno (EAGAIN: nothing is).
ssize_t davit_file_read_cached(int descriptor, const struct iovec *_Nonnull pieces, int count, int64_t offset);

// A block device's size and the size of its logical blocks, in bytes (BLKGETSIZE64, BLKSSZGET); 0 if the descriptor is of none.
uint64_t davit_file_device_size(int descriptor);
uint32_t davit_file_device_block(int descriptor);

#endif
