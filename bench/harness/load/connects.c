/* Connects per second: connect, upgrade, closing handshake, end of the TCP connection; and the next one.
 *
 * The server closes first, as RFC 6455 section 7.1.1 asks; we then reset what is left, so that no port stays in
 * TIME_WAIT. A raw server gets the request as its first message, and our FIN instead of the closing handshake. */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_CONNECTS = 2000000 };
enum state { CONNECTING, UPGRADING, CLOSING, ENDING };

struct attempt {
    int fd;
    enum state state;
    uint64_t began_at;
    size_t got;
    char answer[4096];
};

static const struct options *options;
static char request[512];
static size_t request_size;
static int epoll;

/* A close frame with code 1000, masked with 1 2 3 4; and what answers it. */
static const uint8_t OUR_CLOSE[] = {0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xE8 ^ 2};
static const uint8_t THEIR_CLOSE[] = {0x88, 2, 0x03, 0xE8};

static void send_all(int fd, const void *data, size_t size) {
    if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        fail("connects, sending: %s", strerror(errno));
}

static void begin(struct attempt *attempt) {
    attempt->fd = new_socket(false);
    attempt->state = CONNECTING;
    attempt->got = 0;
    attempt->began_at = now_ns();
    start_connect(attempt->fd, options->port);
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = attempt};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, attempt->fd, &event) != 0)
        fail("epoll: %s", strerror(errno));
}

static void on_connected(struct attempt *attempt) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(attempt->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0)
        fail("connects: %s", strerror(error));
    send_all(attempt->fd, request, request_size);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = attempt};
    epoll_ctl(epoll, EPOLL_CTL_MOD, attempt->fd, &event);
    attempt->state = UPGRADING;
}

/* What was received brings the attempt on; true at its end. */
static bool on_readable(struct attempt *attempt) {
    ssize_t size = recv(attempt->fd, attempt->answer + attempt->got, sizeof attempt->answer - attempt->got, 0);
    if (size < 0 && errno == EAGAIN)
        return false;
    if (size <= 0 && attempt->state != ENDING)
        fail("connects, receiving: %s", size == 0 ? "the server has closed" : strerror(errno));
    if (size <= 0)
        return true;
    attempt->got += (size_t)size;
    if (attempt->got == sizeof attempt->answer || attempt->state == ENDING)
        fail("connects: more bytes than there should be");
    if (attempt->state == UPGRADING) {
        size_t used = answer_in(attempt->answer, attempt->got, request, request_size, options->raw);
        if (used == 0)
            return false;
        if (!options->raw)
            note_agreed(options, attempt->answer, used);
        attempt->got -= used; /* nothing can have come yet behind it: the server was not spoken to */
        attempt->state = options->raw ? ENDING : CLOSING;
        if (options->raw)
            shutdown(attempt->fd, SHUT_WR);
        else
            send_all(attempt->fd, OUR_CLOSE, sizeof OUR_CLOSE);
    } else if (attempt->got >= sizeof THEIR_CLOSE) {
        if (attempt->got != sizeof THEIR_CLOSE || memcmp(attempt->answer, THEIR_CLOSE, sizeof THEIR_CLOSE) != 0)
            fail("connects: a wrong close frame");
        attempt->state = ENDING;
    }
    return false;
}

void run_connects(const struct options *given) {
    options = given;
    struct attempt *attempts = calloc((size_t)options->connections, sizeof *attempts);
    struct window window;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    request_size = request_for(options, request, sizeof request);
    window_begin(&window, options);
    for (int i = 0; i < options->connections; i++)
        begin(&attempts[i]);
    for (long total = 0; total < MAX_CONNECTS;) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll, events, 64, STALL_MS);
        if (count == 0)
            fail("stalled: nothing for %d ms", STALL_MS);
        for (int i = 0; i < count; i++) {
            struct attempt *attempt = events[i].data.ptr;
            if (attempt->state == CONNECTING) {
                on_connected(attempt);
                continue;
            }
            if (!on_readable(attempt))
                continue;
            uint64_t now = now_ns();
            struct linger reset = {.l_onoff = 1};
            setsockopt(attempt->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            close(attempt->fd);
            if (window_over(&window, now)) {
                window_print(&window, "");
                return;
            }
            window_count(&window, now - attempt->began_at);
            total++;
            begin(attempt);
        }
    }
    fail("too many connects");
}
