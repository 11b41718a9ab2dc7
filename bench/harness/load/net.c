/* Sockets on 127.0.0.1 and the opening handshake (RFC 6455 section 4), with the key of the RFC's own example: its
 * answer is known, so that no SHA-1 is needed here. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define EXTENSIONS "Sec-WebSocket-Extensions"
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
static const char KEY[] = "dGhlIHNhbXBsZSBub25jZQ==";
const char UPGRADED[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n";

static char extensions[256];

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

int new_socket(bool blocking) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0), one = 1;
    if (fd < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

int start_connect(int fd, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return 0;
    if (errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    return EINPROGRESS;
}

size_t request_for(const struct options *options, char *into, size_t room) {
    int size = snprintf(into, room,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                        options->path, options->port, KEY, options->offer ? EXTENSIONS ": " : "",
                        options->offer ? options->offer : "", options->offer ? "\r\n" : "");
    if (size < 0 || (size_t)size >= room)
        fail("the request does not fit");
    return (size_t)size;
}

size_t answer_in(const char *data, size_t size, const char *request, size_t request_size, bool raw) {
    if (raw) {
        if (memcmp(data, request, size < request_size ? size : request_size) != 0)
            fail("wrong echo: of the first bytes");
        return size >= request_size ? request_size : 0;
    }
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    if (size < 12 || memcmp(data, "HTTP/1.1 101", 12) != 0)
        fail("no upgrade: %.*s", (int)(size < 60 ? size : 60), data);
    if (memmem(data, (size_t)(end - data), ACCEPT, sizeof ACCEPT - 1) == NULL)
        fail("no upgrade: wrong Sec-WebSocket-Accept");
    return (size_t)(end - data) + 4;
}

const char *agreed(void) { return extensions; }

void note_agreed(const struct options *options, const char *answer, size_t size) {
    static bool noted;
    char found[sizeof extensions] = "";
    for (const char *line = answer, *end; (end = memmem(line, size - (size_t)(line - answer), "\r\n", 2)) != NULL;
         line = end + 2) {
        size_t name = sizeof EXTENSIONS; /* with its colon */
        if (strncasecmp(line, EXTENSIONS ":", name) != 0)
            continue;
        line += name + strspn(line + name, " ");
        for (size_t i = 0; line + i < end && i < sizeof found - 1; i++)
            found[i] = line[i] < ' ' || line[i] == '"' || line[i] == '\\' ? '?' : line[i];
    }
    if (options->offer != NULL && *found == '\0')
        fail("no upgrade: nothing agreed of %s", options->offer);
    if (noted && strcmp(found, extensions) != 0)
        fail("agreed differently: %s, and %s", extensions, found);
    memcpy(extensions, found, sizeof found);
    noted = true;
}

void send_request(const struct options *options, int fd) {
    char request[512];
    size_t size = request_for(options, request, sizeof request);
    start_connect(fd, options->port);
    if (options->tls)
        tls_connect(fd);
    if (net_send(fd, request, size) != (ssize_t)size)
        fail("handshake, sending: %s", strerror(errno));
}

void upgrade(const struct options *options, int fd) {
    char request[512], answer[4096];
    size_t request_size = request_for(options, request, sizeof request), got = 0, used = 0;
    struct timeval limit = {.tv_sec = STALL_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    send_request(options, fd);
    while (used == 0) {
        ssize_t size = net_recv(fd, answer + got, sizeof answer - got);
        if (size <= 0)
            fail("handshake, receiving: %s", size == 0 ? "the server has closed" : strerror(errno));
        got += (size_t)size;
        used = answer_in(answer, got, request, request_size, options->raw);
        if (used == 0 && got == sizeof answer)
            fail("handshake: the answer does not end");
    }
    if (!options->raw)
        note_agreed(options, answer, used);
    if (used != got)
        fail("the server speaks before it is spoken to");
}

int open_connection(const struct options *options) {
    int fd = new_socket(true);
    upgrade(options, fd);
    return fd;
}
