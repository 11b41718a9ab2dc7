# Functions of _sendmsg.pyx for the compiled short ways.

cdef Py_ssize_t send_buffers(int fd, list buffers) except -2
cdef Py_ssize_t send_memory(int fd, const void *start, Py_ssize_t size) noexcept
