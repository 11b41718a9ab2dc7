/* Makes one send of a server fail or fall short, as kernels and networks do. Loaded with LD_PRELOAD.
 *
 * The file that FAULTY_SEND names is shared memory: what the test asks for, and what has been done. Sends on TCP sockets
 * are counted from 1. The send with the number `target` gets the fault `first`, and the next `more` sends on the same
 * descriptor get the fault `then`, until it is closed. A call that does not go through libc's functions is not seen.
 *
 * With FAULTY_SEND_REUSE the number of a TCP socket is given away at the moment at which it is closed: a pipe has it
 * until 64 more are closed. Writes to that number, and closes of it, are counted in `strays`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NONE, SHORT_BY_ONE, SHORT_BY_HALF, INTERRUPTED, AGAIN, NO_BUFFERS, BROKEN_PIPE, RESET };
static const int errors[] = {[INTERRUPTED] = EINTR, [AGAIN] = EAGAIN,     [NO_BUFFERS] = ENOBUFS,
                             [BROKEN_PIPE] = EPIPE, [RESET] = ECONNRESET};

struct control {
    int64_t target, first, then, more; /* asked for */
    int64_t calls, fd;                 /* sends so far, and the descriptor of the fault */
    int64_t held, strays;              /* numbers that are given away now, and what was done to such numbers */
};
static struct control nothing, *control = &nothing;

enum { HELD = 64 };
static int held[HELD], at; /* numbers that are pipes in place of sockets, and where the oldest is */
static int reuses;

static ssize_t (*real_send)(int, const void *, size_t, int);
static ssize_t (*real_sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static int (*real_close)(int);
static long (*real_syscall)(long, ...);

__attribute__((constructor)) static void begin(void) {
    *(void **)&real_send = dlsym(RTLD_NEXT, "send");
    *(void **)&real_sendto = dlsym(RTLD_NEXT, "sendto");
    *(void **)&real_sendmsg = dlsym(RTLD_NEXT, "sendmsg");
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    *(void **)&real_writev = dlsym(RTLD_NEXT, "writev");
    *(void **)&real_close = dlsym(RTLD_NEXT, "close");
    *(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");
    reuses = getenv("FAULTY_SEND_REUSE") != NULL;
    const char *path = getenv("FAULTY_SEND");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *memory = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory != MAP_FAILED)
        control = memory;
    real_close(fd);
}

/* Return 1 for the TCP socket of a connection: the loops write to other descriptors to wake themselves. */
static int is_tcp(int fd) {
    struct sockaddr_storage address;
    int listens = 0, error = errno;
    socklen_t length = sizeof address, size = sizeof listens;
    int result = getsockname(fd, (struct sockaddr *)&address, &length) == 0 && address.ss_family == AF_INET &&
                 getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && !listens;
    errno = error;
    return result;
}

/* Return 1 for a number that is given away, and count what is done to it. */
static int is_stray(int fd) {
    for (int place = 0; reuses && place < HELD; place++)
        if (held[place] == fd && fd > 0) {
            __atomic_fetch_add(&control->strays, 1, __ATOMIC_RELAXED);
            return 1;
        }
    return 0;
}

/* Return the fault of this send. */
static int fault_of(int fd) {
    is_stray(fd);
    if (control->fd == fd && control->more > 0) {
        control->more--;
        return control->then;
    }
    if (!is_tcp(fd))
        return NONE;
    if (++control->calls != control->target)
        return NONE;
    control->fd = fd;
    return control->first;
}

/* Return the bytes to send of `size`, or -1 with errno. */
static ssize_t allowed(int fd, size_t size) {
    int fault = fault_of(fd);
    if (fault == NONE || size > SSIZE_MAX)
        return size;
    if (fault == SHORT_BY_ONE)
        return size > 1 ? size - 1 : size;
    if (fault == SHORT_BY_HALF)
        return size > 1 ? size / 2 : size;
    errno = errors[fault];
    return -1;
}

/* Copy the pieces that hold the first `size` bytes. Return how many there are. */
static int cut(struct iovec *to, const struct iovec *from, int count, size_t size) {
    int used = 0;
    for (; used < count && size > 0; used++) {
        to[used] = from[used];
        if (to[used].iov_len > size)
            to[used].iov_len = size;
        size -= to[used].iov_len;
    }
    return used;
}

static size_t total(const struct iovec *pieces, size_t count) {
    size_t size = 0;
    for (size_t at = 0; at < count; at++)
        size += pieces[at].iov_len;
    return size;
}

ssize_t send(int fd, const void *from, size_t size, int flags) {
    ssize_t part = allowed(fd, size);
    return part < 0 ? -1 : real_send(fd, from, part, flags);
}

ssize_t sendto(int fd, const void *from, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
    ssize_t part = allowed(fd, size);
    return part < 0 ? -1 : real_sendto(fd, from, part, flags, to, length);
}

ssize_t write(int fd, const void *from, size_t size) {
    ssize_t part = allowed(fd, size);
    return part < 0 ? -1 : real_write(fd, from, part);
}

ssize_t writev(int fd, const struct iovec *from, int count) {
    size_t size = count > 0 && count <= IOV_MAX ? total(from, count) : 0;
    ssize_t part = allowed(fd, size);
    if (part < 0)
        return -1;
    if ((size_t)part == size)
        return real_writev(fd, from, count);
    struct iovec pieces[IOV_MAX];
    return real_writev(fd, pieces, cut(pieces, from, count, part));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    size_t size = message->msg_iovlen <= IOV_MAX ? total(message->msg_iov, message->msg_iovlen) : 0;
    ssize_t part = allowed(fd, size);
    if (part < 0)
        return -1;
    if ((size_t)part == size)
        return real_sendmsg(fd, message, flags);
    struct iovec pieces[IOV_MAX];
    struct msghdr shorter = *message;
    shorter.msg_iov = pieces;
    shorter.msg_iovlen = cut(pieces, message->msg_iov, message->msg_iovlen, part);
    return real_sendmsg(fd, &shorter, flags);
}

int close(int fd) {
    if (fd >= 0 && control->fd == fd) {
        control->more = 0;
        control->fd = -1;
    }
    if (is_stray(fd)) {
        errno = EBADF;
        return -1;
    }
    int ends[2];
    if (!reuses || !is_tcp(fd) || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return real_close(fd);
    int result = dup3(ends[1], fd, O_CLOEXEC); /* closes the socket */
    real_close(ends[0]);
    real_close(ends[1]);
    if (result < 0)
        return real_close(fd);
    if (held[at] > 0)
        real_close(held[at]);
    else
        __atomic_fetch_add(&control->held, 1, __ATOMIC_RELAXED);
    held[at] = fd;
    at = (at + 1) % HELD;
    return 0;
}

/* libuv closes descriptors by this, so that no thread is cancelled within. */
long syscall(long number, ...) {
    long arguments[6];
    va_list list;
    va_start(list, number);
    for (int at = 0; at < 6; at++)
        arguments[at] = va_arg(list, long);
    va_end(list);
    if (number == SYS_close)
        return close((int)arguments[0]);
    return real_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}
