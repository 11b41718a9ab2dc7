/*
 * The server of libwebsockets, as an echo server for a test: it prints its port.
 *
 * A text that begins with "!" is a command, as `servers.py` lists them. The end of stdin ends the process.
 */

#include <libwebsockets.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUBPROTOCOL "chat.v2"
#define PING "are you there?"

/* A frame to send, behind the room that libwebsockets needs for its header. With a close code it is no frame. */
struct frame {
    struct frame *next;
    int kind;
    int close_code;
    size_t size;
    unsigned char room[LWS_PRE];
    unsigned char payload[];
};

struct session {
    struct frame *first, *last;
    unsigned char *message;
    size_t size;
};

static struct frame *queue(struct lws *wsi, struct session *session, int kind, const void *payload, size_t size)
{
    struct frame *frame = calloc(1, sizeof *frame + size + 1);
    if (frame == NULL)
        abort();
    frame->kind = kind;
    frame->size = size;
    if (size)
        memcpy(frame->payload, payload, size);
    if (session->last != NULL)
        session->last->next = frame;
    else
        session->first = frame;
    session->last = frame;
    lws_callback_on_writable(wsi);
    return frame;
}

static void queue_fragments(struct lws *wsi, struct session *session)
{
    char text[4000];
    for (size_t at = 0; at < sizeof text; at += 4)
        memcpy(text + at, "abc ", 4);
    queue(wsi, session, LWS_WRITE_TEXT | LWS_WRITE_NO_FIN, text, sizeof text);
    queue(wsi, session, LWS_WRITE_CONTINUATION | LWS_WRITE_NO_FIN, "", 0);
    queue(wsi, session, LWS_WRITE_CONTINUATION, "\xe2\x82\xac", 3);
}

/* Handle the whole message that has arrived. */
static void handle(struct lws *wsi, struct session *session, int binary)
{
    char *text = (char *)session->message;
    if (!binary && session->size > 12 && memcmp(text, "!close ", 7) == 0) {
        queue(wsi, session, 0, text + 12, session->size - 12)->close_code = atoi(text + 7);
    } else if (!binary && session->size == 12 && memcmp(text, "!close ", 7) == 0) {
        queue(wsi, session, 0, "", 0)->close_code = atoi(text + 7);
    } else if (!binary && session->size == 5 && memcmp(text, "!ping", 5) == 0) {
        queue(wsi, session, LWS_WRITE_PING, PING, strlen(PING));
    } else if (!binary && session->size == 10 && memcmp(text, "!fragments", 10) == 0) {
        queue_fragments(wsi, session);
    } else {
        queue(wsi, session, binary ? LWS_WRITE_BINARY : LWS_WRITE_TEXT, text, session->size);
    }
    session->size = 0;
}

static int send_first(struct lws *wsi, struct session *session)
{
    struct frame *frame = session->first;
    int result = 0;
    if (frame == NULL)
        return 0;
    if (frame->close_code) {
        lws_close_reason(wsi, (enum lws_close_status)frame->close_code, frame->payload, frame->size);
        result = -1;
    } else if (lws_write(wsi, frame->payload, frame->size, (enum lws_write_protocol)frame->kind) < 0) {
        result = -1;
    }
    session->first = frame->next;
    if (session->first == NULL)
        session->last = NULL;
    else
        lws_callback_on_writable(wsi);
    free(frame);
    return result;
}

static int callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t size)
{
    struct session *session = user;
    char answer[5 + 125];

    switch (reason) {
    case LWS_CALLBACK_RECEIVE:
        session->message = realloc(session->message, session->size + size + 1);
        if (session->message == NULL)
            abort();
        memcpy(session->message + session->size, in, size);
        session->size += size;
        session->message[session->size] = 0;
        if (lws_is_final_fragment(wsi) && lws_remaining_packet_payload(wsi) == 0)
            handle(wsi, session, lws_frame_is_binary(wsi));
        return 0;
    case LWS_CALLBACK_RECEIVE_PONG:
        memcpy(answer, "pong ", 5);
        memcpy(answer + 5, in, size);
        queue(wsi, session, LWS_WRITE_TEXT, answer, 5 + size);
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return send_first(wsi, session);
    case LWS_CALLBACK_CLOSED:
        while (session->first != NULL) {
            struct frame *frame = session->first;
            session->first = frame->next;
            free(frame);
        }
        free(session->message);
        return 0;
    default:
        return lws_callback_http_dummy(wsi, reason, user, in, size);
    }
}

static void *end_with_stdin(void *nothing)
{
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    _exit(0);
}

int main(void)
{
    static const struct lws_protocols protocols[] = {
        {.name = SUBPROTOCOL, .callback = callback, .per_session_data_size = sizeof(struct session)},
        {.name = NULL},
    };
    static const struct lws_extension extensions[] = {
        {"permessage-deflate", lws_extension_callback_pm_deflate, "permessage-deflate"},
        {NULL, NULL, NULL},
    };
    struct lws_context_creation_info info = {
        .iface = "127.0.0.1",
        .protocols = protocols,
        .extensions = extensions,
        .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS,
        .gid = -1,
        .uid = -1,
    };
    struct lws_context *context;
    struct lws_vhost *vhost;
    pthread_t thread;

    lws_set_log_level(LLL_ERR, NULL);
    context = lws_create_context(&info);
    vhost = context == NULL ? NULL : lws_create_vhost(context, &info);
    if (vhost == NULL || pthread_create(&thread, NULL, end_with_stdin, NULL) != 0)
        return 1;
    printf("%d\n", lws_get_vhost_listen_port(vhost));
    fflush(stdout);
    while (lws_service(context, 0) >= 0)
        ;
    return 1;
}
