#define _GNU_SOURCE
#include "davit_share.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(DAVIT_O_PATH == O_PATH && DAVIT_O_TMPFILE == O_TMPFILE && DAVIT_O_NOATIME == O_NOATIME, "open(2)");
_Static_assert(DAVIT_AT_EMPTY_PATH == AT_EMPTY_PATH, "fchownat(2)");

int davit_share_rename(int from, const char *name, int to, const char *new_name, unsigned flags) {
    return renameat2(from, name, to, new_name, flags);
}

ssize_t davit_share_getdents(int descriptor, void *buffer, size_t size) {
    return syscall(SYS_getdents64, descriptor, buffer, size);
}

ssize_t davit_share_append(int descriptor, const struct iovec *pieces, int count) {
    return pwritev2(descriptor, pieces, count, 0, RWF_APPEND);
}

ssize_t davit_share_copy_range(int from, int64_t from_offset, int to, int64_t to_offset, size_t count) {
    return copy_file_range(from, &from_offset, to, &to_offset, count, 0);
}

int davit_share_fallocate(int descriptor, int mode, int64_t offset, int64_t count) {
    return fallocate(descriptor, mode, offset, count);
}

int davit_share_syncfs(int descriptor) { return syncfs(descriptor); }

uint64_t davit_share_raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    struct rlimit raised = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
    return setrlimit(RLIMIT_NOFILE, &raised) == 0 ? raised.rlim_cur : limit.rlim_cur;
}
