/* Where no small file system can be mounted: every write under NO_SPACE_FOLDER fails with ENOSPC while NO_SPACE_FLAG exists.
   Loaded into the server with LD_PRELOAD by disk_full.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is_full(int fd) {
    const char *flag = getenv("NO_SPACE_FLAG"), *folder = getenv("NO_SPACE_FOLDER");
    char link[64], target[PATH_MAX];
    ssize_t length;
    if (!flag || !folder || access(flag, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, target, sizeof target - 1);
    if (length <= 0) return 0;
    target[length] = 0;
    return strncmp(target, folder, strlen(folder)) == 0;
}

#define REFUSE_IF_FULL(fd) do { if (is_full(fd)) { errno = ENOSPC; return -1; } } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    REFUSE_IF_FULL(fd);
    return ((ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REFUSE_IF_FULL(fd);
    return ((ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite"))(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REFUSE_IF_FULL(fd);
    return ((ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64"))(fd, data, size, at);
}
