/* The load generator of bench.echo, bench.broadcast, bench.door and bench.deflate: `load MODE --port N ...` prints one
 * line of JSON, or fails and says why.
 *
 * echo: messages back and forth. connects: connections that are opened and closed. idle: opens connections, says so,
 * and keeps them until its standard input ends. broadcast: one publisher and many members. bare: no load at all, but
 * the barest server of a broadcast. */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* Message `number` there and back. */
static void exchange(struct frames *frames, int fd, unsigned number) {
    static uint8_t buffer[READ_SIZE];
    struct reading reading = {.message = number, .kind = number % frames->kinds};
    size_t size = frames_put(frames, number, buffer);
    if (send(fd, buffer, size, MSG_NOSIGNAL) != (ssize_t)size)
        fail("sending before it is idle: %s", strerror(errno));
    for (unsigned complete = 0; complete == 0;) {
        ssize_t got = recv(fd, buffer, sizeof buffer, 0);
        if (got <= 0)
            fail("receiving before it is idle: %s", got == 0 ? "the server has closed" : strerror(errno));
        complete = frames_check(frames, &reading, buffer, (size_t)got);
    }
    free(reading.kept);
}

void run_idle(const struct options *options) {
    struct frames frames = {0};
    if (options->messages != NULL)
        frames_make_deflated(&frames, options, "echo");
    else
        frames_make(&frames, options->size, options->in_flight, options->raw);
    for (int i = 0; i < options->connections; i++) {
        int fd = open_connection(options); /* stays open until the process ends */
        if (options->exchange)
            exchange(&frames, fd, (unsigned)i);
    }
    printf("{\"open\": %d, \"agreed\": \"%s\"}\n", options->connections, agreed());
    fflush(stdout);
    while (getchar() != EOF) {
    }
    answers_write(&frames, options->answers);
}

/* As many descriptors as we may have: the usual 1,024 are fewer than the connections. */
static void raise_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static double number(const char *name, const char *text, double low, double high) {
    char *end = NULL;
    double value = text == NULL ? 0 : strtod(text, &end);
    if (text == NULL || *end != '\0' || !(value >= low && value <= high))
        fail("%s wants a number from %g to %g", name, low, high);
    return value;
}

int main(int count, char **words) {
    struct options options = {.path = "/", .size = 32, .in_flight = 1, .connections = 1, .warmup = 0.1, .seconds = 1};
    options.stall_ms = STALL_MS;
    if (count < 2)
        fail("usage: load echo|connects|idle|broadcast|bare --port N [options]");
    options.mode = words[1];
    for (int i = 2; i < count; i++) {
        const char *name = words[i], *value = i + 1 < count ? words[i + 1] : NULL;
        bool *flag = strcmp(name, "--raw") == 0        ? &options.raw
                     : strcmp(name, "--hold") == 0     ? &options.hold
                     : strcmp(name, "--tls") == 0      ? &options.tls
                     : strcmp(name, "--exchange") == 0 ? &options.exchange
                                                       : NULL;
        if (flag != NULL) {
            *flag = true;
            continue;
        }
        i++;
        if (strcmp(name, "--port") == 0)
            options.port = (int)number(name, value, 1, 65535);
        else if (strcmp(name, "--size") == 0)
            options.size = (size_t)number(name, value, 1, 64 << 20);
        else if (strcmp(name, "--in-flight") == 0)
            options.in_flight = (int)number(name, value, 1, MAX_IN_FLIGHT);
        else if (strcmp(name, "--connections") == 0)
            options.connections = (int)number(name, value, 1, MAX_CONNECTIONS);
        else if (strcmp(name, "--warmup") == 0)
            options.warmup = number(name, value, 0, 60);
        else if (strcmp(name, "--seconds") == 0)
            options.seconds = number(name, value, 0.001, 600);
        else if (strcmp(name, "--pid") == 0)
            options.pid = (int)number(name, value, 1, 1 << 30);
        else if (strcmp(name, "--idle") == 0)
            options.idle = (int)number(name, value, 0, MAX_CONNECTIONS);
        else if (strcmp(name, "--silent") == 0)
            options.silent = (int)number(name, value, 0, MAX_CONNECTIONS);
        else if (strcmp(name, "--churn") == 0)
            options.churn = (int)number(name, value, 0, MAX_CONNECTIONS);
        else if (strcmp(name, "--publishes") == 0)
            options.publishes = (long)number(name, value, LEAST_PUBLISHES, 1 << 30);
        else if (strcmp(name, "--stall-ms") == 0)
            options.stall_ms = (int)number(name, value, 1, 60000);
        else if (strcmp(name, "--listener") == 0)
            options.listener = (int)number(name, value, 3, MAX_CONNECTIONS);
        else if (strcmp(name, "--path") == 0 && value != NULL)
            options.path = value;
        else if (strcmp(name, "--offer") == 0 && value != NULL)
            options.offer = value;
        else if (strcmp(name, "--messages") == 0 && value != NULL)
            options.messages = value;
        else if (strcmp(name, "--answers") == 0 && value != NULL)
            options.answers = value;
        else if (strcmp(name, "--counts") == 0 && value != NULL)
            options.counts = value;
        else
            fail("unknown option %s", name);
    }
    raise_limit();
    if (strcmp(options.mode, "bare") == 0)
        run_bare(&options); /* until it is killed */
    if (options.port == 0)
        fail("--port is missing");
    if (options.tls && strcmp(options.mode, "echo") != 0)
        fail("--tls goes with echo only");
    alarm((unsigned)(options.warmup + options.seconds) + 60); /* whatever happens, it ends */
    if (strcmp(options.mode, "echo") == 0)
        run_echo(&options);
    else if (strcmp(options.mode, "connects") == 0)
        run_connects(&options);
    else if (strcmp(options.mode, "idle") == 0)
        run_idle(&options);
    else if (strcmp(options.mode, "broadcast") == 0)
        run_broadcast(&options);
    else
        fail("unknown mode %s", options.mode);
    return 0;
}
