# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, freethreading_compatible=True
"""The bytes of many frames to a socket in one system call, compiled (layer 3). Import :mod:`plumews.wire` instead.

Small frames are gathered on the stack: the kernel takes one piece faster than many. Large ones go as they lie. The
GIL is kept: a socket that does not block takes less time than handing the GIL to somebody else. Invariant: no signal
comes of it (SIGPIPE), no buffer is kept.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

__all__ = ["send"]

cdef extern from *:
    """
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <string.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0 /* Python ignores SIGPIPE in any case */
    #endif
    static ssize_t plumews_send(int fd, struct iovec *pieces, int count)
    {
        if (count == 1)
            return send(fd, pieces[0].iov_base, pieces[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        struct msghdr message;
        memset(&message, 0, sizeof message);
        message.msg_iov = pieces;
        message.msg_iovlen = count;
        return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    """
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t plumews_send(int fd, iovec *pieces, int count) nogil

cdef enum:
    TOGETHER = 16 * 1024  # bytes that are gathered
    PIECES = 64  # buffers that are passed on as they lie, and views that are held


def send(int fd, list buffers, /):
    """See ``_wire_py.send``."""
    cdef char gathered[TOGETHER]
    cdef iovec pieces[PIECES]
    cdef Py_buffer views[PIECES]
    cdef int count = 0, held = 0, i
    cdef Py_ssize_t at = 0, offered = 0, size, total = len(buffers)
    cdef Py_ssize_t sent
    cdef char *start
    try:
        for i in range(total):
            buffer = buffers[i]
            if type(buffer) is bytes:
                start, size = PyBytes_AS_STRING(buffer), PyBytes_GET_SIZE(buffer)
            elif held < PIECES:  # those that are gathered are held, too
                PyObject_GetBuffer(buffer, &views[held], PyBUF_SIMPLE)
                start, size = <char *>views[held].buf, views[held].len
                held += 1
            else:
                break
            if at + size <= TOGETHER:
                memcpy(gathered + at, start, size)
                if count and pieces[count - 1].iov_base == gathered + at - pieces[count - 1].iov_len:
                    pieces[count - 1].iov_len += size
                elif count < PIECES:
                    pieces[count].iov_base = gathered + at
                    pieces[count].iov_len = size
                    count += 1
                else:
                    break
                at += size
            elif count < PIECES:
                pieces[count].iov_base = start
                pieces[count].iov_len = size
                count += 1
            else:
                break
            offered += size
        else:
            total = -1  # all of it is offered
        sent = plumews_send(fd, pieces, count)
    finally:
        for i in range(held):
            PyBuffer_Release(&views[i])
    if sent < 0:
        return 0
    return -1 if sent == offered and total == -1 else sent
