/* Echo: many connections, so many messages on the way on each, as a client sends that pipelines.
 *
 * It begins with one write of all of them; then each read is answered by one write of as many new messages as it
 * completed. Others may be open and silent. A message's latency runs from the beginning of the write that it is in to the read that completes it. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    int fd;
    bool waits; /* for room to write */
    struct reading reading;
    size_t out_at, out_left; /* the next byte to send in frames.out, and how many from there on */
    unsigned next;           /* the kind of the first message behind those */
    unsigned oldest;         /* in sent_at */
    uint64_t *sent_at;       /* of the messages on the way, a ring */
};

static struct frames frames;
static uint8_t buffer[READ_SIZE];

static void flush(struct connection *connection, int epoll) {
    while (connection->out_left > 0) {
        ssize_t size = net_send(connection->fd, frames.out + connection->out_at, connection->out_left);
        if (size < 0 && errno == EAGAIN)
            break;
        if (size < 0)
            fail("send: %s", strerror(errno));
        connection->out_left -= (size_t)size;
        connection->out_at = (connection->out_at + (size_t)size) % frames.starts[frames.kinds];
    }
    bool waits = connection->out_left > 0;
    if (waits != connection->waits) {
        struct epoll_event event = {.events = EPOLLIN | (waits ? EPOLLOUT : 0u), .data.ptr = connection};
        epoll_ctl(epoll, EPOLL_CTL_MOD, connection->fd, &event);
        connection->waits = waits;
    }
}

static void send_more(struct connection *connection, unsigned count) {
    connection->out_left += frames_span(&frames, connection->next, count);
    connection->next = (connection->next + count) % frames.kinds;
}

/* What was read, and its answer; true when the run is over. */
static bool on_data(struct connection *connection, int epoll, int in_flight, struct window *window, ssize_t size) {
    if (size < 0 && errno == EAGAIN)
        return false;
    if (size <= 0)
        fail("receive: %s", size == 0 ? "the server has closed" : strerror(errno));
    uint64_t now = now_ns();
    if (window_over(window, now))
        return true;
    unsigned complete = frames_check(&frames, &connection->reading, buffer, (size_t)size);
    if (complete > (unsigned)in_flight)
        fail("wrong echo: more messages than were sent");
    for (unsigned i = 0; i < complete; i++) {
        uint64_t *sent_at = &connection->sent_at[connection->oldest];
        window_count(window, now - *sent_at);
        *sent_at = now;
        connection->oldest = connection->oldest + 1 == (unsigned)in_flight ? 0 : connection->oldest + 1;
    }
    send_more(connection, complete);
    if (complete > 0 && !connection->waits)
        flush(connection, epoll);
    return false;
}

static bool on_readable(struct connection *connection, int epoll, int in_flight, struct window *window) {
    ssize_t size;
    do {
        size = net_recv(connection->fd, buffer, sizeof buffer);
        if (on_data(connection, epoll, in_flight, window, size))
            return true;
    } while (size == sizeof buffer && net_pending(connection->fd)); /* what TLS has read ahead wakes nobody */
    return false;
}

void run_echo(const struct options *options) {
    struct connection *connections = calloc((size_t)options->connections, sizeof *connections);
    struct window window;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (options->messages != NULL)
        frames_make_deflated(&frames, options, "echo");
    else
        frames_make(&frames, options->size, options->in_flight, options->raw);
    for (int i = 0; i < options->connections; i++) {
        struct connection *connection = &connections[i];
        connection->fd = open_connection(options);
        fcntl(connection->fd, F_SETFL, O_NONBLOCK);
        connection->sent_at = calloc((size_t)options->in_flight, sizeof *connection->sent_at);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event) != 0)
            fail("epoll: %s", strerror(errno));
    }
    for (int i = 0; i < options->idle; i++)
        open_connection(options); /* stays open until the process ends */
    window_begin(&window, options);
    for (int i = 0; i < options->connections; i++) {
        uint64_t now = now_ns();
        for (int number = 0; number < options->in_flight; number++)
            connections[i].sent_at[number] = now;
        send_more(&connections[i], (unsigned)options->in_flight);
        flush(&connections[i], epoll);
    }
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll, events, 64, STALL_MS);
        if (count == 0)
            fail("stalled: no echo for %d ms", STALL_MS);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                flush(connection, epoll);
            if (events[i].events & ~(uint32_t)EPOLLOUT && on_readable(connection, epoll, options->in_flight, &window)) {
                answers_write(&frames, options->answers);
                window_print(&window, "");
                return; /* the process ends, and with it the connections */
            }
        }
    }
}
