# Part of _codec.pyx: the memory in which a parser collects the arriving message.

# How a buffer grows. What no header has announced: to no more than twice what has arrived, and 64 KiB. What one has:
# once it is much, to AHEAD times as much. A page that nothing was written to is not resident, and every move of a large
# message costs as much as unmasking it.
cdef enum:
    MUCH = 32 * 1024
    SOME_MORE = 56 * 1024
    AHEAD = 16


cdef int reserve(Parser parser, Py_ssize_t size) except -1:
    """Make room for ``size`` more bytes, and for some later ones, so that they move seldom."""
    cdef Py_ssize_t needed = parser.held + size
    cdef Py_ssize_t more = needed
    cdef int64_t spare
    if needed <= parser.capacity:
        return 0
    if parser.fin:
        spare = parser.remaining - size
    else:
        spare = max(parser.size_limit - needed, 0)
    if needed >= MUCH:
        more = AHEAD * needed if parser.fin else needed + SOME_MORE
    return grow(parser, needed + <Py_ssize_t>min(spare, <int64_t>more))


cdef int grow(Parser parser, Py_ssize_t capacity) except -1:
    """Move the held bytes to a buffer of this capacity."""
    if parser.buffer == NULL:
        adopt(parser, new_buffer(parser, capacity, not parser.fin))
        parser.capacity = capacity if parser.as_text else PyBytes_GET_SIZE(<object>parser.buffer)
    else:
        own_buffer(parser)
        resize(parser, capacity)
    return 0


cdef object new_buffer(Parser parser, Py_ssize_t capacity, bint or_more):
    """Return a buffer of this capacity: the object that the message will be, a str for text.

    With ``or_more`` it may have a larger capacity.
    """
    if parser.as_text:
        return PyUnicode_New(capacity, 127)
    spare = None if parser.spare is None else parser.spare.take(capacity, or_more)
    return new_bytes(capacity) if spare is None else spare


cdef void adopt(Parser parser, object fresh) noexcept:
    """Use ``fresh`` as the buffer."""
    Py_INCREF(fresh)
    parser.buffer = <PyObject *>fresh
    parser.memory = <byte *>PyUnicode_DATA(fresh) if parser.as_text else start_of(fresh)


cdef int resize(Parser parser, Py_ssize_t capacity) except -1:
    """Change the capacity of the buffer, which is lost if there is no memory for it."""
    cdef Py_ssize_t held = parser.held
    try:
        if parser.as_text:
            PyUnicode_Resize(&parser.buffer, capacity)
            parser.memory = <byte *>PyUnicode_DATA(<object>parser.buffer)
        else:
            _PyBytes_Resize(&parser.buffer, capacity)
            parser.memory = start_of(<object>parser.buffer)
    except MemoryError:
        drop_buffer(parser)
        raise
    parser.held = held
    parser.capacity = capacity
    return 0


cdef object take_buffer(Parser parser):
    """Return the collected bytes of the message without a copy, and forget them."""
    if parser.held == 0:
        drop_buffer(parser)
        return "" if parser.as_text else b""
    own_buffer(parser)
    if parser.capacity != parser.held:
        resize(parser, parser.held)
    result = <object>parser.buffer
    drop_buffer(parser)
    return result


cdef void drop_buffer(Parser parser) noexcept:
    """Forget the buffer and the bytes in it."""
    Py_XDECREF(parser.buffer)
    parser.buffer = parser.memory = NULL
    parser.held = parser.capacity = 0
    parser.loan = None  # which keeps what is still viewed


cdef void take_back(Parser parser) noexcept:
    """Release the view that receive_buffer() returned."""
    if parser.view is not None:
        view, parser.view = parser.view, None
        parser.loan.size = 0
        try:
            view.release()
        except BufferError:
            pass  # an event loop may hold it until buffer_updated() returns: uvloop does


cdef int own_buffer(Parser parser) except -1:
    """Make sure that no view refers to memory that is delivered or moved.

    A kept view keeps the old memory, and the message goes on in a copy.
    """
    if parser.loan is None:
        return 0
    if parser.loan.views:
        parser.shy = True
        fresh = new_buffer(parser, parser.capacity, False)
        memory = parser.memory
        Py_DECREF(<object>parser.buffer)  # the loan has it, too
        adopt(parser, fresh)
        memcpy(parser.memory, memory, parser.held)
    else:
        parser.loan.owner = None
    parser.loan = None
    return 0
