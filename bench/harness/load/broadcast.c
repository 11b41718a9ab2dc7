/* Broadcast: one connection publishes, the members get it, so many publishes in flight.
 *
 * A publish is in flight from the beginning of the write that it is in until the read that completes its last delivery;
 * as many as a read completes, so many new ones leave in one write. Members are of three kinds: those that every
 * publish has to reach, those that never read (`silent`), and those that come and go (`churn`): nobody waits for them,
 * but what they get has to be without a gap, too. Every delivery is compared byte by byte. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    REMEMBERED = 1024,   /* publishes that a delivery can be compared with */
    FILLER_SIZE = 4096,  /* the silent are filled with: more than their sockets hold, before anything is measured */
    FILLERS = 64,
    SILENT_RECEIVE = 4096, SILENT_SEGMENT = 1400, /* as of a client far away: loopback's 64 KiB make sockets hold MiB */
    ROLL_CALLS = 100, ROLL_MS = 100, /* until every member gets what is published */
    LONGEST_STAY = 64, /* publishes until one that comes and goes does go */
    QUIET_MS = 20,     /* nothing more may come at the end */
};

enum state { UPGRADING, NEW, IN };
struct member {
    int fd;
    enum state state;
    bool passing; /* one of those that come and go */
    unsigned stay;
    struct reading reading;
};

static const struct options *options;
static struct frames frames;
static struct window window;
static struct member *members;
static int epoll, publisher;
static uint64_t published, awaited_from; /* the next number; the first one that members are waited for */
static uint64_t sent_at[REMEMBERED];
static unsigned awaited[REMEMBERED], flying; /* members that a publish has not reached; publishes in flight */
static unsigned long long deliveries, complete, joined; /* complete: publishes that all members have got */
static bool measuring, ending;
static uint8_t buffer[READ_SIZE];

static void watch(int fd, void *what) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        fail("epoll: %s", strerror(errno));
}

static void publish(unsigned count) {
    static uint8_t *out;
    static size_t room;
    if (room < count * frames.stride && (out = realloc(out, room = count * frames.stride)) == NULL)
        fail("no memory");
    uint64_t now = now_ns();
    size_t all = 0;
    for (unsigned i = 0; i < count; i++, published++) {
        all += frames_put(&frames, published, out + all);
        awaited[published % REMEMBERED] = (unsigned)options->connections;
        sent_at[published % REMEMBERED] = now;
    }
    flying += count;
    for (size_t at = 0; at < all;) { /* blocks: the server reads it, or is stalled */
        ssize_t size = send(publisher, out + at, all - at, MSG_NOSIGNAL);
        if (size < 0)
            fail("publishing: %s", strerror(errno));
        at += (size_t)size;
    }
}

/* As many as may be in flight. */
static void publish_more(void) {
    unsigned count = (unsigned)options->in_flight - flying;
    if (options->publishes != 0 && count > (uint64_t)options->publishes - (published - awaited_from))
        count = (unsigned)((uint64_t)options->publishes - (published - awaited_from));
    if (count > 0 && !ending)
        publish(count);
}

static void come(struct member *member) {
    member->fd = new_socket(true);
    send_request(options, member->fd);
    fcntl(member->fd, F_SETFL, O_NONBLOCK);
    member->state = UPGRADING;
    member->stay = (unsigned)(joined++ * 7 % LONGEST_STAY) + 1;
    watch(member->fd, member);
}

/* Every other one tells so; all are cut. */
static void go(struct member *member) {
    static const uint8_t CLOSE[] = {0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xE9 ^ 2};
    struct linger reset = {.l_onoff = 1};
    if (member->stay % 2 == 0)
        send(member->fd, CLOSE, sizeof CLOSE, MSG_NOSIGNAL);
    setsockopt(member->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(member->fd);
}

/* Whether `size` bytes, which are only looked at, let a member begin to count. */
static bool begins(struct member *member, size_t size) {
    if (member->state == UPGRADING) {
        size_t used = answer_in((const char *)buffer, size, NULL, 0, false);
        if (used > 0 && recv(member->fd, buffer, used, 0) == (ssize_t)used)
            member->state = NEW;
        return false; /* what is behind the answer makes the descriptor ready again */
    }
    if (frames.answers != NULL) { /* has no number; but it is the only one in flight now */
        member->reading = (struct reading){.message = published - 1, .kind = (unsigned)((published - 1) % frames.kinds)};
        member->state = IN;
        return true;
    }
    if (!frames_join(&frames, &member->reading, buffer, size))
        return false;
    if (member->reading.message >= published || member->reading.message + REMEMBERED < published)
        fail("wrong delivery: the first one of a member is none that was sent of late");
    member->state = IN;
    return true;
}

static void on_readable(struct member *member) {
    ssize_t size = recv(member->fd, buffer, sizeof buffer, member->state == IN ? 0 : MSG_PEEK);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0)
        fail("a member is cut: %s", size == 0 ? "the server has closed" : strerror(errno));
    if (member->state != IN) {
        if (!begins(member, (size_t)size))
            return;
        size = recv(member->fd, buffer, (size_t)size, 0);
    }
    uint64_t number = member->reading.message;
    if (number + REMEMBERED < published)
        fail("a member is more than %d publishes behind", REMEMBERED);
    unsigned count = frames_check(&frames, &member->reading, buffer, (size_t)size);
    if (member->reading.message > published)
        fail("wrong delivery: more than was published");
    if (measuring && window.began_at != 0)
        deliveries += count;
    if (member->passing) {
        member->stay -= count < member->stay ? count : member->stay;
        if (member->stay == 0 && !ending) {
            go(member);
            come(member);
        }
        return;
    }
    for (; number < member->reading.message; number++) {
        if (number < awaited_from || --awaited[number % REMEMBERED] > 0)
            continue;
        flying--;
        complete++;
        if (measuring)
            window_count(&window, now_ns() - sent_at[number % REMEMBERED]);
    }
}

/* Events until the time is over, if there are any; false if there were none. */
static bool turn(int milliseconds) {
    struct epoll_event events[1024];
    int count = epoll_wait(epoll, events, 1024, milliseconds);
    if (measuring && (window.done >= LEAST_PUBLISHES || now_ns() < window.stop_at) && window_over(&window, now_ns())) {
        measuring = false;
        ending = true;
    }
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == &publisher) {
            if (recv(publisher, buffer, sizeof buffer, MSG_DONTWAIT) == 0)
                fail("the publisher is cut");
        } else if (events[i].data.ptr == &options) {
            window.stop_at = 0; /* the standard input has ended */
            epoll_ctl(epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
        } else {
            on_readable(events[i].data.ptr);
            if (measuring)
                publish_more();
        }
    }
    return count > 0;
}

/* Publish one after the other until there was one that every member has got: the upgrade's answer does not say that the
 * server has made it a member. */
static void call_the_roll(void) {
    published = awaited_from = complete = 0;
    for (int i = 0; i < options->connections; i++)
        members[i].state = NEW;
    for (int call = 0; call < ROLL_CALLS; call++) {
        publish(1);
        uint64_t until = now_ns() + (uint64_t)(ROLL_MS + options->connections / 10) * 1000000u;
        while (flying > 0 && now_ns() < until)
            turn(ROLL_MS);
        while (flying > 0 && turn(ROLL_MS)) { /* whoever is late gets no more to be late with */
        }
        awaited_from = published;
        complete = 0;
        if (flying == 0)
            return;
        flying = 0;
    }
    fail("%d publishes, and not one of them has reached all members", ROLL_CALLS);
}

static void finish(const char *when) {
    while (flying > 0)
        if (!turn(options->stall_ms))
            fail("stalled %s: no delivery for %d ms, %u publishes in flight", when, options->stall_ms, flying);
}

/* What the server has in memory before. */
static double fill_the_silent(void) {
    frames_make_numbered(&frames, REMEMBERED, FILLER_SIZE, !options->raw);
    call_the_roll(); /* what the first message to each brings into memory is no price of those that do not read */
    double before = memory_of(options->pid);
    for (int i = 0; i < FILLERS; i++) {
        publish(1);
        finish("before the measuring");
    }
    return before;
}

static void open_all(struct options *given) {
    struct options how = *given;
    struct timeval limit = {.tv_sec = given->stall_ms / 1000, .tv_usec = given->stall_ms % 1000 * 1000};
    how.raw = false; /* a raw server of broadcasts answers as it ought to */
    members = calloc((size_t)(given->connections + given->churn), sizeof *members);
    for (int i = 0; i < given->connections; i++) {
        members[i].fd = open_connection(&how);
        fcntl(members[i].fd, F_SETFL, O_NONBLOCK);
        watch(members[i].fd, &members[i]);
    }
    for (int i = 0; i < given->silent; i++) {
        int fd = new_socket(true), size = SILENT_RECEIVE, segment = SILENT_SEGMENT;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
        setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
        upgrade(&how, fd); /* it stays open until the process ends */
    }
    how.path = "/publish";
    publisher = open_connection(&how);
    setsockopt(publisher, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    watch(publisher, &publisher);
}

void run_broadcast(const struct options *given) {
    struct options usual = *given;
    options = &usual;
    if (options->in_flight > REMEMBERED / 4)
        fail("--in-flight is at most %d in a broadcast", REMEMBERED / 4);
    if (options->messages != NULL && (options->silent > 0 || options->churn > 0))
        fail("--messages goes neither with --silent nor with --churn: they need numbers that can be read");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    open_all(&usual);
    double before = options->silent > 0 ? fill_the_silent() : 0;
    if (options->messages != NULL)
        frames_make_deflated(&frames, options, "delivery");
    else
        frames_make_numbered(&frames, REMEMBERED, options->size, !options->raw);
    call_the_roll();
    for (int i = 0; i < options->churn; i++) {
        members[options->connections + i].passing = true;
        come(&members[options->connections + i]);
    }
    window_begin(&window, options);
    if (options->hold) {
        window.stop_at = UINT64_MAX;
        watch(STDIN_FILENO, &options);
        printf("{\"open\": %d}\n", options->connections);
        fflush(stdout);
    }
    if (options->publishes != 0)
        window.warm_at = 0; /* all of them are measured */
    measuring = true;
    publish_more();
    while (!ending) {
        if (options->publishes != 0 && flying == 0)
            window.stop_at = 0; /* all were published, and came */
        if (!turn(flying > 0 ? options->stall_ms : 0) && flying > 0)
            fail("stalled: no delivery for %d ms, %u publishes in flight", options->stall_ms, flying);
    }
    double grown = options->silent == 0 ? 0 : memory_of(options->pid) - before;
    finish("at the end");
    while (turn(QUIET_MS)) { /* what comes twice, may come last */
    }
    char more[200];
    snprintf(more, sizeof more,
             ", \"deliveries\": %llu, \"published\": %llu, \"complete\": %llu, \"joined\": %llu, \"grown\": %.0f",
             deliveries, (unsigned long long)(published - awaited_from), complete, joined, grown);
    answers_write(&frames, options->answers);
    window_print(&window, more);
}
