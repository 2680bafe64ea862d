/* A disk that is full, or whose fsync fails, for the files of one folder: loaded in front of the C library (LD_PRELOAD).
 *
 * CRM_FAULTY_FOLDER names the folder. While the file `full` lies in CRM_FAULTY_SWITCHES, a write there takes half of what it was given,
 * and a short one fails with ENOSPC. While `fsync` lies there, fsync and fdatasync fail with EIO; what was written to the log's files since
 * they were last made durable is then gone, and what stood there before is back, as on a machine that forgets the pages it could not write.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* From so few bytes on nothing of a write is taken. */
#define SHORT_BYTES 512

/* What a write covered, until it is durable. */
struct covered {
    dev_t device;
    ino_t file;
    off_t at;
    size_t count;
    char *before;
    struct covered *older;
};

static struct covered *newest;
static pthread_mutex_t covering = PTHREAD_MUTEX_INITIALIZER;

static int is_of_the_log(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(fd) && strstr(path, "/log.db") != NULL;
}

/* Remembers what stands where a write goes. */
static void cover(int fd, size_t count, off_t at) {
    int saved = errno;
    struct stat file;
    if (is_of_the_log(fd) && fstat(fd, &file) == 0) {
        struct covered *covered = malloc(sizeof *covered);
        *covered = (struct covered){file.st_dev, file.st_ino, at, count, calloc(count, 1), NULL};
        ssize_t stood = pread(fd, covered->before, count, at);
        if (stood < 0) abort();
        pthread_mutex_lock(&covering);
        covered->older = newest;
        newest = covered;
        pthread_mutex_unlock(&covering);
    }
    errno = saved;
}

/* Forgets what was covered in this file: it is durable, or (`lost`) what stood there is put back, the newest first. */
static void settle(int fd, int lost) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    int saved = errno;
    struct stat file;
    if (is_of_the_log(fd) && fstat(fd, &file) == 0) {
        pthread_mutex_lock(&covering);
        for (struct covered **place = &newest; *place;) {
            struct covered *covered = *place;
            if (covered->device != file.st_dev || covered->file != file.st_ino) {
                place = &covered->older;
                continue;
            }
            /* Not where the file was cut back since. */
            if (lost && covered->at + (off_t)covered->count <= file.st_size)
                if (real(fd, covered->before, covered->count, covered->at) < 0) abort();
            *place = covered->older;
            free(covered->before);
            free(covered);
        }
        pthread_mutex_unlock(&covering);
    }
    errno = saved;
}

/* How much of a write is taken. */
static size_t taken(int fd, size_t count) {
    if (!fails(fd, "full", ENOSPC)) return count;
    return count > SHORT_BYTES ? count / 2 : 0;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t count) {
    REAL(ssize_t, "write", int, const void *, size_t);
    size_t taking = taken(fd, count);
    return count > 0 && taking == 0 ? -1 : real(fd, data, taking);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    size_t taking = taken(fd, count);
    if (count > 0 && taking == 0) return -1;
    cover(fd, taking, offset);
    return real(fd, data, taking, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
    return pwrite(fd, data, count, offset);
}

static int sync_with(int (*real)(int), int fd) {
    if (fails(fd, "fsync", EIO)) {
        settle(fd, 1);
        errno = EIO;
        return -1;
    }
    int outcome = real(fd);
    if (outcome == 0) settle(fd, 0);
    return outcome;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return sync_with(real, fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return sync_with(real, fd);
}
