/* Counts the system calls of a server that matter to messages. Loaded with LD_PRELOAD; nothing has to be installed.
 *
 * The counts are in the file that BENCH_COUNTS names, shared memory that the load generator reads at the edges of its
 * window: receives, sends, waits of the event loop, changes of what it waits for. A call that does not go through
 * libc's functions is not seen. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { RECEIVES, SENDS, WAITS, CHANGES, COUNTERS = 8 };
static uint64_t elsewhere[COUNTERS], *counts = elsewhere;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("BENCH_COUNTS");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *memory = mmap(NULL, sizeof elsewhere, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory != MAP_FAILED)
        counts = memory;
    close(fd);
}

/* Define a function of libc anew: count it, then call libc's. */
#define COUNTED(kind, result, name, parameters, arguments)                        \
    result name parameters {                                                      \
        static result(*real) parameters;                                          \
        if (real == NULL)                                                         \
            real = (result(*) parameters)dlsym(RTLD_NEXT, #name);                 \
        __atomic_fetch_add(&counts[kind], 1, __ATOMIC_RELAXED);                   \
        return real arguments;                                                    \
    }

COUNTED(RECEIVES, ssize_t, read, (int fd, void *to, size_t size), (fd, to, size))
COUNTED(RECEIVES, ssize_t, readv, (int fd, const struct iovec *to, int count), (fd, to, count))
COUNTED(RECEIVES, ssize_t, recv, (int fd, void *to, size_t size, int flags), (fd, to, size, flags))
COUNTED(RECEIVES, ssize_t, recvfrom,
        (int fd, void *restrict to, size_t size, int flags, struct sockaddr *restrict from, socklen_t *restrict length),
        (fd, to, size, flags, from, length))
COUNTED(RECEIVES, ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags))
COUNTED(SENDS, ssize_t, write, (int fd, const void *from, size_t size), (fd, from, size))
COUNTED(SENDS, ssize_t, writev, (int fd, const struct iovec *from, int count), (fd, from, count))
COUNTED(SENDS, ssize_t, send, (int fd, const void *from, size_t size, int flags), (fd, from, size, flags))
COUNTED(SENDS, ssize_t, sendto,
        (int fd, const void *from, size_t size, int flags, const struct sockaddr *to, socklen_t length),
        (fd, from, size, flags, to, length))
COUNTED(SENDS, ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
COUNTED(WAITS, int, epoll_wait, (int fd, struct epoll_event *events, int count, int timeout),
        (fd, events, count, timeout))
COUNTED(WAITS, int, epoll_pwait, (int fd, struct epoll_event *events, int count, int timeout, const sigset_t *signals),
        (fd, events, count, timeout, signals))
COUNTED(CHANGES, int, epoll_ctl, (int fd, int operation, int other, struct epoll_event *event),
        (fd, operation, other, event))
