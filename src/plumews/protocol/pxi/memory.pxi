# Part of _codec.pyx: the memory of what callers pass in, and memory that is lent to them.


# Bytes of a message whose memory is kept: shorter ones stay in the heap, and longer ones would be much for a process.
cdef enum:
    SPARE_LEAST = 256 * 1024
    SPARE_MOST = 4 * 1024 * 1024


cdef inline byte *start_of(object data) noexcept:
    """Return the address of the bytes of ``data``."""
    return <byte *>PyBytes_AS_STRING(data)


cdef inline object new_bytes(Py_ssize_t size):
    """Allocate a bytes object to be filled."""
    return PyBytes_FromStringAndSize(NULL, size)


cdef int fetch(object data, Py_buffer *view, int flags=PyBUF_SIMPLE) except -1:
    """Get the memory of ``data``, any contiguous buffer. Release it after use."""
    if not PyObject_CheckBuffer(data):
        raise TypeError(violations.NOT_A_BUFFER.format(type=type(data).__name__))
    try:
        PyObject_GetBuffer(data, view, flags)
    except (BufferError, ValueError):  # in the exporter's words, if in any
        with memoryview(data) as shape:
            if not shape.c_contiguous:
                raise BufferError(violations.NOT_CONTIGUOUS) from None
            if flags == PyBUF_WRITABLE and shape.readonly:
                raise BufferError(violations.READ_ONLY) from None
        raise
    return 0


cdef object as_bytes(object data):
    """Return ``data``, a buffer or text, as bytes. Copy it unless it is exactly that."""
    cdef Py_buffer view
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        return PyUnicode_AsUTF8String(data)
    fetch(data, &view)
    try:
        return PyBytes_FromStringAndSize(<char *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


@cython.final
@cython.no_gc
cdef class Loan:
    """Memory of ``owner``, a bytes or str object, for memoryviews.

    The owner lives for as long as such a view does. ``views`` counts them, slices and all, so that whoever lent
    the memory knows whether it is alone with it again. With ``size`` 0 no further view is given.
    """

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self.size == 0:
            raise BufferError("the loan is over")
        PyBuffer_FillInfo(view, self, self.start, self.size, self.readonly, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.views -= 1


@cython.final
@cython.no_gc
cdef class SpareMemory:
    """Memory of the last long binary message of an event loop, for the next one to arrive in.

    The allocator gives long blocks back to the system as they are freed, and each page of a fresh one costs a fault. A
    message that something else still refers to, a memoryview of it for example, is never touched.
    """

    cdef void keep(self, object message) noexcept:
        """Keep ``message`` in place of the last one, if it is of a size that is kept."""
        with cython.critical_section(self):
            if type(message) is bytes and SPARE_LEAST <= PyBytes_GET_SIZE(message) <= SPARE_MOST:
                self.message = message

    cdef object take(self, Py_ssize_t size, bint all_of_it):
        """Return the memory as ``size`` bytes to be filled, or ``None`` if it does not fit or is not ours alone.

        With ``all_of_it`` return all bytes there are, at least ``size``: the length of the message is not known.
        """
        cdef PyObject *memory
        with cython.critical_section(self):
            memory = <PyObject *>self.message
            if self.message is None or not plumews_is_alone(memory):
                return None
            if size > PyBytes_GET_SIZE(self.message):
                return None
            if all_of_it:
                size = PyBytes_GET_SIZE(self.message)
            elif PyBytes_GET_SIZE(self.message) > 2 * size:
                return None
            Py_INCREF(<object>memory)
            self.message = None
            _PyBytes_Resize(&memory, size - 1)  # a change of size forgets the hash
            _PyBytes_Resize(&memory, size)
            fresh = <object>memory
            Py_DECREF(fresh)
            return fresh


cdef object view_of(object data):
    """Return a view of ``data``, bytes or a str in ASCII, without a copy."""
    cdef Loan loan
    if type(data) is bytes:
        return memoryview(data)
    loan = Loan.__new__(Loan)
    loan.owner = data
    loan.start = <byte *>PyUnicode_DATA(data)
    loan.size = PyUnicode_GET_LENGTH(data)
    loan.readonly = True
    return memoryview(loan)


cdef inline bint is_plain(object data) noexcept:
    """Return True if ``data`` has its bytes in fixed memory: bytes, or a str that is its own UTF-8."""
    return type(data) is bytes or (isinstance(data, str) and PyUnicode_IS_COMPACT_ASCII(data))


cdef inline cbyte *bytes_of(object data, Py_ssize_t *size) noexcept:
    """Return the address and the size of the bytes of such ``data``."""
    if type(data) is bytes:
        size[0] = PyBytes_GET_SIZE(data)
        return start_of(data)
    size[0] = PyUnicode_GET_LENGTH(data)
    return <cbyte *>PyUnicode_DATA(data)
