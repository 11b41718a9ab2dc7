/* `uws PORT SPINS [CERTIFICATE]`: an echo server on uWebSockets, by the C API of the library in socketify's wheel.
 *
 * If SPINS is 1, it never sleeps while a connection is open: it looks for events, and yields its core if others want
 * it. So no client pays for waking a halted core. Says "ready" on its standard output when it listens; PORT is on 127.0.0.1. The
 * declarations are those of socketify/native.py. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { SEND_LIMIT = 64 << 20, MESSAGE_LIMIT = 16 << 20 };
enum { RUN_ONCE = 1, RUN_NOWAIT = 2 };

struct tls {
    const char *key, *certificate, *passphrase, *dh_params, *ca, *ciphers;
    int low_memory;
};
struct listen {
    int port;
    const char *host;
    int options;
};
struct behavior {
    int compression;
    unsigned int max_payload;
    unsigned short idle_timeout;
    unsigned int max_backpressure;
    bool close_on_backpressure, reset_idle_on_send, automatic_pings;
    unsigned short max_lifetime;
    void *upgrade;
    void (*open)(void *ws, void *data);
    void (*message)(void *ws, const char *message, size_t length, int opcode, void *data);
    void *drain, *ping, *pong;
    void (*close)(void *ws, int code, const char *reason, size_t length, void *data);
    void *subscription;
};

void *socketify_create_loop(void);
void *socketify_get_native_loop(void *loop);
int socketify_loop_run(void *loop, int mode);
void *uws_get_loop_with_native(void *loop);
void *uws_create_app(int ssl, struct tls options);
bool uws_constructor_failed(int ssl, void *app);
void uws_ws(int ssl, void *app, const char *pattern, struct behavior behavior, void *data);
void uws_app_listen_with_config(int ssl, void *app, struct listen config,
                                void (*handler)(void *socket, struct listen config, void *data), void *data);
int uws_ws_send(int ssl, void *ws, const char *message, size_t length, int opcode);

static int ssl, connections;

static void on_open(void *ws, void *data) {
    (void)ws, (void)data;
    connections++;
}

static void on_message(void *ws, const char *message, size_t length, int opcode, void *data) {
    (void)data;
    uws_ws_send(ssl, ws, message, length, opcode);
}

static void on_close(void *ws, int code, const char *reason, size_t length, void *data) {
    (void)ws, (void)code, (void)reason, (void)length, (void)data;
    connections--;
}

static void on_listen(void *socket, struct listen config, void *data) {
    (void)config, (void)data;
    if (!socket) {
        fputs("cannot listen\n", stderr);
        exit(1);
    }
    puts("ready");
    fflush(stdout);
}

int main(int count, char **words) {
    if (count < 3)
        return 2;
    const bool spins = atoi(words[2]);
    const char *certificate = count > 3 ? words[3] : NULL;
    ssl = certificate != NULL;
    void *loop = socketify_create_loop();
    uws_get_loop_with_native(socketify_get_native_loop(loop));
    void *app = uws_create_app(ssl, (struct tls){.key = certificate, .certificate = certificate});
    if (uws_constructor_failed(ssl, app)) {
        fputs("uWebSockets does not start\n", stderr);
        return 1;
    }
    uws_ws(ssl, app, "/*",
           (struct behavior){.max_payload = MESSAGE_LIMIT, .max_backpressure = SEND_LIMIT, .open = on_open,
                             .message = on_message, .close = on_close},
           NULL);
    uws_app_listen_with_config(ssl, app, (struct listen){.port = atoi(words[1]), .host = "127.0.0.1"}, on_listen, NULL);
    for (;;) {
        const bool awake = spins && connections;
        socketify_loop_run(loop, awake ? RUN_NOWAIT : RUN_ONCE);
        if (awake)
            sched_yield();
    }
}
