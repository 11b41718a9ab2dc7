/* The load generator: what its files share. Linux, 127.0.0.1 only, bounded in time and in count. */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { READ_SIZE = 256 * 1024, MAX_CONNECTIONS = 20000, MAX_IN_FLIGHT = 4096, STALL_MS = 10000, NUMBER_SIZE = 8,
       MAX_DESCRIPTORS = 65536, LEAST_PUBLISHES = 3 }; /* that are measured, however long they take */

struct options {
    const char *mode; /* echo, connects, idle, broadcast, bare */
    const char *path; /* that is asked for */
    int port;
    const char *offer;    /* of extensions, which the server has to agree to; or NULL */
    const char *messages; /* a file of compressed ones that are sent (see deflated.c), or NULL */
    const char *answers;  /* the file that what came back is written to, to be inflated by others; or NULL */
    bool raw;           /* the server knows no frames: it sends what it got; to an echo's not even a handshake */
    size_t size;        /* of a message */
    int in_flight;      /* messages on the way, a connection */
    int connections;
    double warmup, seconds;
    bool exchange;      /* idle: one message there and back on each, before it is idle */
    bool tls;           /* echo */
    int idle;           /* echo: further connections that are silent */
    int silent;         /* broadcast: further members that never read */
    int churn;          /* broadcast: further members, each of which leaves after a while, and another one comes */
    long publishes;     /* broadcast: end after so many; 0 is not by their count */
    bool hold;          /* broadcast: say when it begins, and end when the standard input does */
    int stall_ms;       /* broadcast: nothing for so long is a failure */
    int listener;       /* bare: the descriptor that listens */
    int pid;            /* of the server: whose processor time is read; 0 is nobody's */
    const char *counts; /* where the server counts its system calls (see counter.c), or NULL */
};

/* --- net.c: sockets and the opening handshake */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
int new_socket(bool blocking);
int start_connect(int fd, int port); /* 0, or EINPROGRESS */
size_t request_for(const struct options *options, char *into, size_t room);
/* Bytes of a complete and right answer at the front of `data`, 0 if more has to come; fails on a wrong one. */
size_t answer_in(const char *data, size_t size, const char *request, size_t request_size, bool raw);
void send_request(const struct options *options, int fd); /* connect, and ask for the upgrade; `fd` is blocking */
void upgrade(const struct options *options, int fd);      /* the same, and wait for the answer */
int open_connection(const struct options *options);       /* connected and upgraded, still blocking */
/* Keep what the answer says of extensions: the same for each connection, and something if there was an offer. */
void note_agreed(const struct options *options, const char *answer, size_t size);
const char *agreed(void);                                 /* to which extensions; "" is none */
extern const char UPGRADED[];                             /* what answers such a request rightly */

/* --- tls.c: recv() and send(), over TLS where the descriptor has a session */
void tls_connect(int fd); /* `fd` is connected, and blocking */
ssize_t net_recv(int fd, void *into, size_t size);
ssize_t net_send(int fd, const void *data, size_t size);
bool net_pending(int fd); /* something was read that no descriptor shows */

/* --- window.c: what is measured, between the end of the warm-up and the end of the run */
enum { COUNTERS = 8 };
struct window {
    uint64_t warm_at, stop_at, began_at, ended_at;
    uint64_t done; /* messages, connects, or publishes */
    double server_cpu, load_cpu;   /* seconds of processor time */
    double server_held, load_held; /* seconds that they could have run, but others had their core */
    uint64_t counts[COUNTERS];
};
uint64_t now_ns(void);
void window_begin(struct window *window, const struct options *options);
/* Call with the time of each read, before what it brought is counted; true when the run is over. */
bool window_over(struct window *window, uint64_t now);
void window_count(struct window *window, uint64_t nanoseconds);
double memory_of(int pid); /* bytes that are its own: its proportional share */
/* One line of JSON; `more` is further fields, each with a comma before it. */
void window_print(const struct window *window, const char *more);

/* --- frames.c: what is sent, and whether what comes back is that */
struct frames {
    const char *what;    /* they are, in words: echo, delivery */
    bool raw, masked;
    bool numbered;       /* each payload begins with its number, NUMBER_SIZE bytes, big-endian */
    uint8_t opcode;
    unsigned kinds;      /* different messages, sent in turn */
    size_t size, stride; /* of the largest payload that is right to come, of the largest frame that is sent */
    uint8_t *out;        /* frames of all kinds in turn, long enough for a burst from any of them */
    size_t *starts;      /* where each begins, and where the last one ends */
    struct answers *answers; /* what has come back, where messages are compressed; or NULL */
    uint8_t *expected;   /* what must come back, by kind */
    size_t expected_size;
};
struct reading {
    uint8_t head[10];
    unsigned head_size;
    bool in_frame, last;
    unsigned kind;    /* of the message that comes next */
    size_t at;        /* bytes of it that have come */
    uint64_t left;    /* bytes of the frame that are to come */
    uint64_t message; /* its number */
    uint8_t *kept;    /* what has come of it, where messages are compressed */
};
void frames_make(struct frames *frames, size_t size, int in_flight, bool raw);
/* The same for payloads that are numbered as they are sent; the last `kinds` of them can be checked. */
void frames_make_numbered(struct frames *frames, unsigned kinds, size_t size, bool masked);
/* Those of the payloads that `options` name, which are compressed. */
void frames_make_deflated(struct frames *frames, const struct options *options, const char *what);
/* From payloads one behind the other, so many bytes each; those at the front once more behind, a burst. */
void frames_build(struct frames *frames, const uint8_t *payloads, const size_t *sizes, size_t burst);
/* Bytes of `count` frames from that of `kind` on: not more than a burst. */
size_t frames_span(const struct frames *frames, unsigned kind, unsigned count);
/* Put the frame of message `number`, if it is numbered in the place of an older one; its size. */
size_t frames_put(struct frames *frames, uint64_t number, uint8_t *into);
/* Begin to read at the message that is the first in `data`: false if its number has not come yet. */
bool frames_join(const struct frames *frames, struct reading *reading, const uint8_t *data, size_t size);
/* Check `data` byte by byte; how many messages it completes. */
unsigned frames_check(const struct frames *frames, struct reading *reading, const uint8_t *data, size_t size);

/* --- deflated.c: messages that are compressed, and what has come back for each */
uint8_t *deflated_read(const char *path, unsigned *kinds, size_t **sizes);
struct answers *answers_new(unsigned kinds);
void answers_part(struct reading *reading, const uint8_t *data, size_t size);
void answers_complete(const struct frames *frames, struct reading *reading);
void answers_write(const struct frames *frames, const char *path);
enum { MOST_ANSWER = 4096 }; /* bytes */

/* --- the modes */
void run_echo(const struct options *options);
void run_connects(const struct options *options);
void run_idle(const struct options *options);
void run_broadcast(const struct options *options);
void run_bare(const struct options *options);

#endif
