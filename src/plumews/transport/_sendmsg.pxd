# Functions of _sendmsg.pyx for the compiled short ways.

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef Py_ssize_t send_buffers(int fd, list buffers) except -2
cdef Py_ssize_t send_memory(int fd, const void *start, Py_ssize_t size) noexcept
cdef Py_ssize_t send_pieces(int fd, iovec *pieces, int count) noexcept
