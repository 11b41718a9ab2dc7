# cython: language_level=3, boundscheck=False, wraparound=False, binding=False
"""The bytes of many frames to a socket in one system call, compiled (layer 3). Import :mod:`plumews.transport.sendmsg` instead.

Small frames are gathered on the stack: the kernel takes one piece faster than many. Large ones go as they lie. The
GIL is kept for one socket, which takes less time than handing the GIL to somebody else; a batch of many is sent
without it. Invariant: no signal comes of it (SIGPIPE), no buffer is kept.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.pythread cimport (
    WAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    PyThread_type_lock,
)
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

__all__ = ["Batch", "send"]

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
    /* What is before it. Whoever gets the batch gets it by a lock, so that there is no order to keep here. */
    static int plumews_claim(int *next, int count)
    {
        return __atomic_fetch_add(next, count, __ATOMIC_RELAXED);
    }
    /* What is after it. Whoever finishes last has seen what all the others have written. */
    static int plumews_finish(int *finished, int count)
    {
        return __atomic_add_fetch(finished, count, __ATOMIC_ACQ_REL);
    }
    """
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t plumews_send(int fd, iovec *pieces, int count) nogil
    int plumews_claim(int *next, int count) nogil
    int plumews_finish(int *finished, int count) nogil

cdef enum:
    TOGETHER = 16 * 1024  # bytes that are gathered
    PIECES = 64  # buffers that are passed on as they lie, and views that are held
    MOST = 256  # buffers of one socket in a batch
    STRIDE = 16  # sockets that a thread claims at a time: some 50 us, so that none waits long for another


cdef struct Write:
    int count
    Py_ssize_t at
    Py_ssize_t offered
    iovec pieces[PIECES]
    char gathered[TOGETHER]


cdef inline bint add(Write *write, char *start, Py_ssize_t size) noexcept nogil:
    """Offer ``size`` more bytes; false if there is no room for them."""
    cdef iovec *pieces = write.pieces
    cdef int count = write.count
    if write.at + size <= TOGETHER:
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
    """See ``_wire_py.send``."""
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
            elif held < PIECES:  # those that are gathered are held, too
                PyObject_GetBuffer(buffer, &views[held], PyBUF_SIMPLE)
                start, size = <char *>views[held].buf, views[held].len
                held += 1
            else:
                break
            if not add(&write, start, size):
                break
        else:
            total = -1  # all of it is offered
        sent = plumews_send(fd, write.pieces, write.count)
    finally:
        for i in range(held):
            PyBuffer_Release(&views[i])
    if sent < 0:
        return 0
    return -1 if sent == write.offered and total == -1 else sent


cdef struct Share:
    int fd
    bint whole  # whether the pieces are all that is to be sent
    Py_ssize_t first  # of its pieces
    Py_ssize_t count
    Py_ssize_t sent


cdef class Batch:
    """See ``_wire_py.Batch``."""

    cdef list _held  # what the pieces point to
    cdef list _sent  # made before anything is sent: then no memory may be missing
    cdef Share *_shares
    cdef iovec *_pieces
    cdef int _count
    cdef int _next  # the first that nobody has claimed
    cdef int _finished
    cdef PyThread_type_lock _done  # held until all are finished

    def __cinit__(self, list fds, list queues, /):
        cdef list queue
        cdef Py_ssize_t room = 0, at = 0, i, j
        cdef Share *share
        self._count = len(fds)
        if len(queues) != self._count:
            raise ValueError("a batch has as many queues as descriptors")
        for i in range(self._count):
            room += min(MOST, len(<list?>queues[i]))
        self._held = []
        self._sent = [-2] * self._count
        self._done = PyThread_allocate_lock()
        self._shares = <Share *>malloc(max(1, self._count) * sizeof(Share))
        self._pieces = <iovec *>malloc(max(1, room) * sizeof(iovec))
        if self._done is NULL or self._shares is NULL or self._pieces is NULL:
            raise MemoryError
        PyThread_acquire_lock(self._done, WAIT_LOCK)
        for i in range(self._count):
            queue = queues[i]
            share = &self._shares[i]
            share.fd, share.first, share.count, share.sent = fds[i], at, min(MOST, len(queue)), 0
            share.whole = share.count == len(queue)
            for j in range(share.count):
                buffer = queue[j]
                if type(buffer) is not bytes:
                    buffer = bytes(buffer)  # a note: seldom, and short
                self._held.append(buffer)
                self._pieces[at].iov_base = PyBytes_AS_STRING(buffer)
                self._pieces[at].iov_len = PyBytes_GET_SIZE(buffer)
                at += 1
        if self._count == 0:
            PyThread_release_lock(self._done)

    def __dealloc__(self):
        free(self._shares)
        free(self._pieces)
        if self._done is not NULL:
            if self._finished < self._count:  # it failed to be made, or nobody began
                PyThread_acquire_lock(self._done, 0)
                PyThread_release_lock(self._done)
            PyThread_free_lock(self._done)

    def help(self):
        """See ``_wire_py.Batch.help``."""
        with nogil:
            self._work()

    def finish(self):
        """See ``_wire_py.Batch.finish``."""
        with nogil:
            self._work()
            PyThread_acquire_lock(self._done, WAIT_LOCK)  # no signal's handler runs meanwhile
            PyThread_release_lock(self._done)

    @property
    def sent(self):
        """See ``_wire_py.Batch.sent``."""
        cdef Py_ssize_t i
        for i in range(self._count):
            try:
                self._sent[i] = self._shares[i].sent
            except MemoryError:
                pass
        return self._sent

    cdef void _work(self) noexcept nogil:
        cdef int first, i, stop
        while True:
            first = plumews_claim(&self._next, STRIDE)
            if first >= self._count:
                return
            stop = min(first + STRIDE, self._count)
            for i in range(first, stop):
                self._send(&self._shares[i])
            if plumews_finish(&self._finished, stop - first) == self._count:
                PyThread_release_lock(self._done)

    cdef void _send(self, Share *share) noexcept nogil:
        cdef Write write
        cdef iovec *piece = self._pieces + share.first
        cdef Py_ssize_t j, sent
        cdef bint whole = share.whole
        write.count = write.at = write.offered = 0
        for j in range(share.count):
            if not add(&write, <char *>piece[j].iov_base, piece[j].iov_len):
                whole = False
                break
        sent = plumews_send(share.fd, write.pieces, write.count)
        if sent >= 0:
            share.sent = -1 if whole and sent == write.offered else sent
