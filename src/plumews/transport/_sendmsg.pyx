# cython: language_level=3, boundscheck=False, wraparound=False, binding=False
"""Compiled body of :mod:`plumews.transport.sendmsg`: many buffers to a socket in one system call.

Small frames are gathered on the stack: the kernel takes one piece faster than many. Large frames are passed in place.
The GIL is kept, which takes less time than handing it to another thread. Invariants: no SIGPIPE is raised, and no
buffer is kept.
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
    static ssize_t plumews_send_bytes(int fd, const void *start, size_t size)
    {
        return send(fd, start, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
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
    ssize_t plumews_send_bytes(int fd, const void *start, size_t size) nogil
    ssize_t plumews_send(int fd, iovec *pieces, int count) nogil

cdef enum:
    GATHERED = 16 * 1024  # bytes that are copied together
    PIECES = 64  # buffers that are passed in place, and views that are held


cdef struct Write:
    int count
    Py_ssize_t at
    Py_ssize_t offered
    iovec pieces[PIECES]
    char gathered[GATHERED]


cdef inline bint add(Write *write, char *start, Py_ssize_t size) noexcept nogil:
    """Add ``size`` bytes to the write. Return False if there is no space for them."""
    cdef iovec *pieces = write.pieces
    cdef int count = write.count
    if write.at + size <= GATHERED:
        if count and pieces[count - 1].iov_base == write.gathered + write.at - pieces[count - 1].iov_len:
            pieces[count - 1].iov_len += size
        elif count < PIECES:
            pieces[count].iov_base = write.gathered + write.at
            pieces[count].iov_len = size
            write.count += 1
        else:
            return False
        memcpy(write.gathered + write.at, start, size)
        write.at += size
    elif count < PIECES:
        pieces[count].iov_base = start
        pieces[count].iov_len = size
        write.count += 1
    else:
        return False
    write.offered += size
    return True


def send(int fd, list buffers, /):
    """See ``_sendmsg_py.send``."""
    return send_buffers(fd, buffers)


cdef Py_ssize_t send_memory(int fd, const void *start, Py_ssize_t size) noexcept:
    """Write ``size`` bytes at ``start``. Return how many the socket took: 0 after an error."""
    cdef Py_ssize_t sent = plumews_send_bytes(fd, start, <size_t>size)
    return sent if sent > 0 else 0


cdef Py_ssize_t send_pieces(int fd, iovec *pieces, int count) noexcept:
    """Write ``count`` pieces of memory. Return the number of bytes that the socket took: 0 after an error."""
    cdef Py_ssize_t sent = plumews_send(fd, pieces, count)
    return sent if sent > 0 else 0


cdef Py_ssize_t send_buffers(int fd, list buffers) except -2:
    """Do what :func:`send` does."""
    cdef Write write
    cdef Py_buffer views[PIECES]
    cdef int held = 0, i
    cdef Py_ssize_t size, sent, total = len(buffers)
    cdef char *start
    write.count = write.at = write.offered = 0
    try:
        for i in range(total):
            buffer = buffers[i]
            if type(buffer) is bytes:
                start, size = PyBytes_AS_STRING(buffer), PyBytes_GET_SIZE(buffer)
            elif held < PIECES:  # also the views of gathered bytes
                PyObject_GetBuffer(buffer, &views[held], PyBUF_SIMPLE)
                start, size = <char *>views[held].buf, views[held].len
                held += 1
            else:
                break
            if not add(&write, start, size):
                break
        else:
            total = -1  # all buffers are part of the write
        sent = plumews_send(fd, write.pieces, write.count)
    finally:
        for i in range(held):
            PyBuffer_Release(&views[i])
    if sent < 0:
        return 0
    return -1 if sent == write.offered and total == -1 else sent
