/* TLS, where the load generator was compiled with OpenSSL: a session for each descriptor that has one.
 *
 * The certificate is not checked: it is the benchmark's own. Without a session a descriptor is read and written as it
 * is. */
#include "load.h"

#include <errno.h>
#include <sys/socket.h>

#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL *sessions[MAX_DESCRIPTORS];

void tls_connect(int fd) {
    static SSL_CTX *context;
    if (context == NULL) {
        context = SSL_CTX_new(TLS_client_method());
        if (context == NULL)
            fail("no TLS: %s", ERR_error_string(ERR_get_error(), NULL));
        SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(context, 1);
    }
    if (fd >= MAX_DESCRIPTORS)
        fail("too many descriptors for TLS");
    SSL *session = sessions[fd] = SSL_new(context);
    if (session == NULL || SSL_set_fd(session, fd) != 1 || SSL_connect(session) != 1)
        fail("no TLS: %s", ERR_error_string(ERR_get_error(), NULL));
}

static SSL *session_of(int fd) { return fd < MAX_DESCRIPTORS ? sessions[fd] : NULL; }

/* As recv() and send() return it: -1 with EAGAIN where the socket has to be waited for. */
static ssize_t result_of(SSL *session, int result) {
    int error = SSL_get_error(session, result);
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        errno = EAGAIN;
    else if (error != SSL_ERROR_SYSCALL || errno == 0)
        errno = EPROTO;
    ERR_clear_error();
    return -1;
}

ssize_t net_recv(int fd, void *into, size_t size) {
    SSL *session = session_of(fd);
    if (session == NULL)
        return recv(fd, into, size, 0);
    size_t got = 0;
    do { /* SSL_read() returns a record at most: take all that has been read ahead */
        int result = SSL_read(session, (uint8_t *)into + got, (int)(size - got));
        if (result <= 0)
            return got > 0 ? (ssize_t)got : result_of(session, result);
        got += (size_t)result;
    } while (got < size && SSL_has_pending(session));
    return (ssize_t)got;
}

ssize_t net_send(int fd, const void *data, size_t size) {
    SSL *session = session_of(fd);
    if (session == NULL)
        return send(fd, data, size, MSG_NOSIGNAL);
    int result = SSL_write(session, data, (int)size);
    return result > 0 ? result : result_of(session, result);
}

bool net_pending(int fd) {
    SSL *session = session_of(fd);
    return session != NULL && SSL_has_pending(session);
}
#else
void tls_connect(int fd) {
    (void)fd;
    fail("this load generator was compiled without OpenSSL");
}

ssize_t net_recv(int fd, void *into, size_t size) { return recv(fd, into, size, 0); }
ssize_t net_send(int fd, const void *data, size_t size) { return send(fd, data, size, MSG_NOSIGNAL); }
bool net_pending(int fd) {
    (void)fd;
    return false;
}
#endif
