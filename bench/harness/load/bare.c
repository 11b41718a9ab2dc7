/* The barest server of a broadcast: what comes from the publisher goes to every member as it is, one send() for each.
 *
 * It knows no frames. Who asks for /publish is the publisher, all others are members; the upgrade is always answered
 * with the same bytes, because the load always asks with the same key. A member that does not take everything at
 * once is cut: this is the limit of the machine, not a server to be used. The socket that listens is inherited. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum role { NOBODY, STRANGER, PUBLISHER, MEMBER };

static uint8_t roles[MAX_DESCRIPTORS], buffer[READ_SIZE];
static int members[MAX_DESCRIPTORS], places[MAX_DESCRIPTORS], count;

static void cut(int fd) {
    if (roles[fd] == MEMBER) {
        int last = members[--count]; /* takes its place */
        members[places[fd]] = last;
        places[last] = places[fd];
    }
    roles[fd] = NOBODY;
    close(fd);
}

static void greet(int fd, const char *request, size_t size) {
    static const char PUBLISH[] = "GET /publish ";
    bool publishes = size >= sizeof PUBLISH && memcmp(request, PUBLISH, sizeof PUBLISH - 1) == 0;
    size_t answer = strlen(UPGRADED);
    if (send(fd, UPGRADED, answer, MSG_NOSIGNAL) != (ssize_t)answer) {
        cut(fd);
        return;
    }
    roles[fd] = publishes ? PUBLISHER : MEMBER;
    if (!publishes) {
        places[fd] = count;
        members[count++] = fd;
    }
}

static void deliver(size_t size) {
    for (int i = count - 1; i >= 0; i--) /* from behind: who is cut, leaves its place to one that has been served */
        if (send(members[i], buffer, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size)
            cut(members[i]);
}

static void on_readable(int fd) {
    ssize_t size = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0)
        cut(fd);
    else if (roles[fd] == STRANGER)
        greet(fd, (const char *)buffer, (size_t)size);
    else if (roles[fd] == PUBLISHER)
        deliver((size_t)size);
}

void run_bare(const struct options *options) {
    int epoll = epoll_create1(EPOLL_CLOEXEC), listener = options->listener, one = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0)
        fail("--listener is no socket that listens: %s", strerror(errno));
    for (;;) {
        struct epoll_event events[1024];
        int ready = epoll_wait(epoll, events, 1024, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                if (roles[fd] != NOBODY) /* it may have been cut since */
                    on_readable(fd);
                continue;
            }
            fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (fd < 0 || fd >= MAX_DESCRIPTORS)
                fail("accept: %s", fd < 0 ? strerror(errno) : "too many");
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            roles[fd] = STRANGER;
            event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
            if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
                fail("epoll: %s", strerror(errno));
        }
    }
}
