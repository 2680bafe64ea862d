/* A disk that is full, or whose fsync fails, for the files of one folder: loaded in front of the C library (LD_PRELOAD).
 *
 * CRM_FAULTY_FOLDER names the folder. While the file `full` lies in CRM_FAULTY_SWITCHES, writes there fail with ENOSPC; while `fsync` lies
 * there, fsync and fdatasync fail with EIO, and what was written stays unsynced.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_on(const char *name) {
    const char *switches = getenv("CRM_FAULTY_SWITCHES");
    char path[PATH_MAX];
    if (!switches) return 0;
    snprintf(path, sizeof path, "%s/%s", switches, name);
    return access(path, F_OK) == 0;
}

static int is_ours(int fd) {
    const char *folder = getenv("CRM_FAULTY_FOLDER");
    char link[64], path[PATH_MAX];
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(int fd, const char *name, int error) {
    int saved = errno;
    if (is_ours(fd) && is_on(name)) {
        errno = error;
        return 1;
    }
    errno = saved;
    return 0;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t count) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return fails(fd, "full", ENOSPC) ? -1 : real(fd, data, count);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    return fails(fd, "full", ENOSPC) ? -1 : real(fd, data, count, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return fails(fd, "full", ENOSPC) ? -1 : real(fd, data, count, offset);
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return fails(fd, "fsync", EIO) ? -1 : real(fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return fails(fd, "fsync", EIO) ? -1 : real(fd);
}
