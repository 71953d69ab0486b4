/* A disk that fails on command: while the file named by FAIL_FLAG exists, its content says what fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int fails(const char *what) {
    char text[16] = {0};
    const char *path = getenv("FAIL_FLAG");
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0) return 0;
    ssize_t got = read(fd, text, sizeof(text) - 1);
    close(fd);
    return got > 0 && strncmp(text, what, strlen(what)) == 0;
}

static int is_log(int fd) {
    char link[64], path[512] = {0};
    const char *digits = "0123456789";
    int n = 14, at = fd, len = 0;
    char number[16];
    strcpy(link, "/proc/self/fd/");
    do { number[len++] = digits[at % 10]; at /= 10; } while (at);
    while (len) link[n++] = number[--len];
    link[n] = 0;
    return readlink(link, path, sizeof(path) - 1) > 0 && strstr(path, "events.sqlite") != NULL;
}

int fsync(int fd) {
    if (is_log(fd) && fails("sync")) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    if (is_log(fd) && fails("sync")) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    if (is_log(fd) && fails("full")) { errno = ENOSPC; return -1; }
    return ((ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64"))(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
