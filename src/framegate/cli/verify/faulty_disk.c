/* A disk that fails as it is told to: preloaded into a gateway (LD_PRELOAD), it stands between the store and the C library.
 *
 * FAULTY_DISK_CONTROL  file of six 64-bit numbers, shared with the experiment: fault, argument, calls that may still fail,
 *                      faults done, CLOCK_MONOTONIC of the first of them (ns), syncs asked for
 * FAULTY_DISK_PREFIX   only files whose path begins so are touched
 *
 * Faults: 1 a sync fails with EIO; 2 a sync takes `argument` ms longer; 3 a write takes only half of its bytes;
 *         4 a write fails with EROFS. A failed sync syncs nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FAULT, ARGUMENT, LEFT, DONE, FIRST_NS, SYNCS, NUMBERS };
enum { SYNC_FAILS = 1, SYNC_SLOW = 2, WRITE_SHORT = 3, WRITE_READ_ONLY = 4 };

static volatile uint64_t *control;
static const char *prefix;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("FAULTY_DISK_CONTROL");
    prefix = getenv("FAULTY_DISK_PREFIX");
    if (path == NULL || prefix == NULL)
        return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return;
    void *page = mmap(NULL, NUMBERS * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED)
        control = page;
}

static int is_ours(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return 0;
    path[size] = 0;
    return strncmp(path, prefix, strlen(prefix)) == 0;
}

/* Whether this call is to fail; books the fault. */
static int is_due(uint64_t fault, int file) {
    if (control == NULL || control[FAULT] != fault || control[LEFT] == 0 || !is_ours(file))
        return 0;
    if (__sync_sub_and_fetch(&control[LEFT], 1) == UINT64_MAX) { /* another thread took the last one */
        control[LEFT] = 0;
        return 0;
    }
    if (__sync_fetch_and_add(&control[DONE], 1) == 0) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        control[FIRST_NS] = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }
    return 1;
}

static int sync_with(int file, const char *name) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (control != NULL && is_ours(file))
        __sync_fetch_and_add(&control[SYNCS], 1);
    if (is_due(SYNC_FAILS, file)) {
        errno = EIO;
        return -1;
    }
    if (is_due(SYNC_SLOW, file)) {
        struct timespec wait = {(time_t)(control[ARGUMENT] / 1000), (long)(control[ARGUMENT] % 1000) * 1000000};
        nanosleep(&wait, NULL);
    }
    return real(file);
}

int fsync(int file) { return sync_with(file, "fsync"); }
int fdatasync(int file) { return sync_with(file, "fdatasync"); }

int sync_file_range(int file, off64_t offset, off64_t bytes, unsigned flags) {
    int (*real)(int, off64_t, off64_t, unsigned) =
        (int (*)(int, off64_t, off64_t, unsigned))dlsym(RTLD_NEXT, "sync_file_range");
    if (is_due(SYNC_FAILS, file)) {
        errno = EIO;
        return -1;
    }
    return real(file, offset, bytes, flags);
}

ssize_t write(int file, const void *data, size_t bytes) {
    static ssize_t (*real)(int, const void *, size_t);
    if (real == NULL)
        real = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (is_due(WRITE_READ_ONLY, file)) {
        errno = EROFS;
        return -1;
    }
    if (bytes > 1 && is_due(WRITE_SHORT, file))
        bytes /= 2;
    return real(file, data, bytes);
}

static ssize_t write_at(int file, const void *data, size_t bytes, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (real == NULL)
        real = (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    if (is_due(WRITE_READ_ONLY, file)) {
        errno = EROFS;
        return -1;
    }
    if (bytes > 1 && is_due(WRITE_SHORT, file))
        bytes /= 2;
    return real(file, data, bytes, offset);
}

ssize_t pwrite(int file, const void *data, size_t bytes, off_t offset) { return write_at(file, data, bytes, offset); }
ssize_t pwrite64(int file, const void *data, size_t bytes, off64_t offset) {
    return write_at(file, data, bytes, offset);
}
