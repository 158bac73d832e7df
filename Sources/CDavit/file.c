#define _GNU_SOURCE
#include "davit_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int davit_file_lock(int descriptor, bool exclusive) {
    struct flock lock = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    return fcntl(descriptor, F_OFD_SETLK, &lock);
}

int davit_file_is_locked(int descriptor) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(descriptor, F_OFD_GETLK, &lock) != 0) return -1;
    return lock.l_type != F_UNLCK;
}

int davit_file_open_direct(int descriptor, bool writable) {
    char name[32];
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    return open(name, (writable ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
}

int davit_file_punch_hole(int descriptor, int64_t offset, int64_t count) {
    return fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, count);
}

int davit_file_zero_range(int descriptor, int64_t offset, int64_t count) {
    return fallocate(descriptor, FALLOC_FL_ZERO_RANGE, offset, count);
}

int64_t davit_file_next_data(int descriptor, int64_t offset) {
    int64_t place = lseek(descriptor, offset, SEEK_DATA);
    if (place >= 0 || errno != ENXIO) return place;
    place = lseek(descriptor, 0, SEEK_END);
    return place > offset ? place : offset;
}

ssize_t davit_file_read_cached(int descriptor, const struct iovec *pieces, int count, int64_t offset) {
    return preadv2(descriptor, pieces, count, offset, RWF_NOWAIT);
}

uint64_t davit_file_device_size(int descriptor) {
    uint64_t size = 0;
    return ioctl(descriptor, BLKGETSIZE64, &size) == 0 ? size : 0;
}

uint32_t davit_file_device_block(int descriptor) {
    int size = 0;
    return ioctl(descriptor, BLKSSZGET, &size) == 0 && size > 0 ? (uint32_t)size : 0;
}
