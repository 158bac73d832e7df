// Shared folders: FUSE's structures from the kernel's own header, and system calls that glibc declares for GNU programs only.
#ifndef DAVIT_SHARE_H
#define DAVIT_SHARE_H

#include <linux/fuse.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/xattr.h>

enum davit_share_flags {
    DAVIT_O_PATH = 010000000,
    DAVIT_O_TMPFILE = 020200000,
    DAVIT_O_NOATIME = 01000000,
    DAVIT_AT_EMPTY_PATH = 0x1000,
};

// Each is 0 or a count, or -1 with errno, as the system call that it is named after.
int davit_share_rename(int from, const char *_Nonnull name, int to, const char *_Nonnull new_name, unsigned flags);
ssize_t davit_share_getdents(int descriptor, void *_Nonnull buffer, size_t size);
// pwritev2 with RWF_APPEND.
ssize_t davit_share_append(int descriptor, const struct iovec *_Nonnull pieces, int count);
ssize_t davit_share_copy_range(int from, int64_t from_offset, int to, int64_t to_offset, size_t count);
int davit_share_fallocate(int descriptor, int mode, int64_t offset, int64_t count);
int davit_share_syncfs(int descriptor);

// As many descriptors as this process may come to have: its limit is raised to that.
uint64_t davit_share_raise_descriptor_limit(void);

#endif
