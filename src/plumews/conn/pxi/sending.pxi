# Part of _core.pyx: a frame goes straight to a plain socket, or into the send queue that leaves soon.
#
# Functions that take the connection. They are included, not imported: a call of another module costs up to ten
# instructions, and a delivery of a broadcast has three hundred. A short way writes to the descriptor only while the event
# loop runs a read or a flush of ours: then no transport of the loop has closed its socket without a call of
# `connection_lost`.

cdef extern from *:
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    void *PyUnicode_DATA(object text)
    object PyUnicode_AsUTF8String(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef enum:
    ON_STACK = 4096  # bytes of a frame that is built without an object
    FRAMES = 16  # of a long message in one write
    CORKED = 128 * 1024  # bytes that wait for the end of a read: less costs more writes, up to 40 % with 16 KiB
    LEAST_STEP = 4096  # bytes of a fragment, so that there are not many of them

cdef Py_ssize_t FREE = limits.QUEUED_FREE
cdef Py_ssize_t WRITE_SIZE = send_queue.WRITE_SIZE


cdef inline bint is_clear(ConnCore conn) noexcept:
    """Return True if a frame can go straight to the socket, behind nothing else."""
    return (
        conn._fd >= 0
        and not conn._handed
        and not conn._paused
        and not conn._waits_for_event
        and not conn._in_pieces
        and not conn._finished
        and conn._waiters is None
        and conn._compressor is None
        and conn._flow is None
    )


cdef inline bint encrypts_now(ConnCore conn) noexcept:
    """Return True if a frame leaves at once through our TLS transport, under the conditions of :func:`goes_now`."""
    return (
        conn._state.ends_read
        and conn._turn != conn._state.turn
        and type(conn._out) is TLSTransport
        and not conn._paused
        and not conn._waits_for_event
        and not conn._in_pieces
        and not conn._finished
        and conn._waiters is None
        and conn._compressor is None
        and conn._flow is None
    )


cdef inline bint goes_now(ConnCore conn) noexcept:
    """Return True if a frame leaves at once: the first in this read, with nothing before it or after it."""
    return conn._state.ends_read and conn._turn != conn._state.turn and is_clear(conn)


cdef inline bint has_space(SendQueue queue, Py_ssize_t size) except -1:
    """Return :meth:`SendQueue.has_space`, without a call for a short queue."""
    cdef Py_ssize_t count = PyList_GET_SIZE(queue.messages)
    if 0 < count < FREE:
        return count < queue.most_messages and queue.bytes + size <= queue.most_bytes
    return queue.has_space(size)


cdef inline object plain_frame(int opcode, message):
    """Return :func:`short_frame` without a mask, without calls for bytes and for a str in ASCII."""
    cdef Py_ssize_t size
    cdef const void *payload
    cdef byte *out
    if type(message) is bytes:
        size, payload = PyBytes_GET_SIZE(message), PyBytes_AS_STRING(message)
    elif PyUnicode_IS_COMPACT_ASCII(message):
        size, payload = PyUnicode_GET_LENGTH(message), PyUnicode_DATA(message)
    else:
        return short_frame(opcode, message, False)
    data = PyBytes_FromStringAndSize(NULL, header_size(size, False) + size)
    out = <byte *>PyBytes_AS_STRING(data)
    memcpy(out + write_header(out, opcode | 0x80, size, False, 0), payload, size)
    return data


cdef bint queue_now(ConnCore conn, message) except -1:
    """Send a plain message, or queue it if it is short and there is space, as :meth:`ConnCore._queue_now` does."""
    cdef Py_ssize_t size
    cdef int opcode
    cdef SendQueue queue
    if not conn._open or conn._catch_up_hooks is not None or PyThread_get_thread_ident() != conn._thread:
        return ConnCore._queue_now(conn, message)
    if type(message) is str:
        opcode, size = TEXT, PyUnicode_GET_LENGTH(message)
        if not PyUnicode_IS_COMPACT_ASCII(message):
            size <<= 2  # a character has up to four bytes
    elif type(message) is bytes:
        opcode, size = BINARY, PyBytes_GET_SIZE(message)
    else:
        return ConnCore._queue_now(conn, message)
    if size > conn._quick_size:
        return send_long(conn, opcode, message) or ConnCore._queue_now(conn, message)
    if conn._waiters is not None or conn._in_pieces:
        return ConnCore._queue_now(conn, message)
    queue = conn._queue
    if queue is None and conn._in_batch:
        if conn._fd < 0:
            if encrypts_now(conn):
                encrypt_now(conn, plain_frame(opcode, message))
                return True
        elif goes_now(conn) and send_now(conn, opcode, message):
            return True
    data = plain_frame(opcode, message)
    if queue is None:
        queue = conn._queue = conn._state.lend_queue(conn._most_messages, conn._most_bytes)
    elif not has_space(queue, PyBytes_GET_SIZE(data)):
        if not Channel._try_queue(conn, data):
            return False
        ConnCore._kick(conn)
        return True
    queue.messages.append(data)
    queue.bytes += PyBytes_GET_SIZE(data)
    if conn._paused:
        queue.date()
    if not conn._in_batch:
        ConnCore._kick(conn)
    elif queue.bytes >= CORKED and is_clear(conn):
        write_out(conn)
    return True


cdef bint send_now(ConnCore conn, int opcode, message) except -1:
    """Send a message without an object for its frame. Return False if it is too long for that."""
    cdef unsigned char frame[ON_STACK]
    cdef Py_ssize_t size = write_frame(frame, ON_STACK, opcode, message, False)
    cdef Py_ssize_t sent
    if size <= 0:
        return False
    conn._turn = conn._state.turn
    sent = send_memory(conn._fd, frame, size)
    if sent == size:
        conn._written += size
    else:
        queue_rest(conn, None, <char *>frame, size, sent)
    return True


cdef encrypt_now(ConnCore conn, bytes frame):
    """Write a frame to our TLS transport."""
    conn._turn = conn._state.turn
    conn._handed = True
    conn._written += PyBytes_GET_SIZE(frame)
    try:
        (<TLSCore>conn._out).write(frame)
    except BaseException as exc:
        conn._fail_output(exc)
        if not isinstance(exc, Exception):
            raise


cdef bint send_long(ConnCore conn, int opcode, message) except -1:
    """Send a message whose payload is not copied, and queue what the socket does not take. Return False if not.

    It leaves at once if nothing is queued: its bytes are still in the cache. Its frames are those of
    :func:`plumews.protocol.message.encode`.
    """
    cdef byte heads[FRAMES * LONGEST_HEADER]
    cdef iovec pieces[2 * FRAMES]
    cdef iovec *piece
    cdef Py_ssize_t step, size, take, offered, sent, at = 0, total = 0
    cdef char *data
    cdef int count, first
    if not conn._in_batch or conn._deflate is not None or not is_clear(conn):
        return False
    if type(message) is str:
        size = PyUnicode_GET_LENGTH(message)
        if size > COPY_SIZE and not PyUnicode_IS_COMPACT_ASCII(message):
            message = PyUnicode_AsUTF8String(message)
    else:
        size = PyBytes_GET_SIZE(message)
    if size <= COPY_SIZE:
        return False
    if type(message) is bytes:
        data, size = PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message)
    else:
        data = <char *>PyUnicode_DATA(message)
    step = conn._config.fragment_size
    if step < LEAST_STEP:
        return False
    if conn._queue is not None:
        write_out(conn)  # as the general way does: a long message is a write of its own
        if conn._queue is not None or not is_clear(conn):
            return False
    while at < size:
        count = 0
        offered = 0
        while at < size and count < 2 * FRAMES and offered < WRITE_SIZE:
            take = min(step, size - at)
            first = (0 if at else opcode) | (0x80 if at + take == size else 0)
            piece = pieces + count
            piece.iov_base = heads + count // 2 * LONGEST_HEADER
            piece.iov_len = frame_header(<byte *>piece.iov_base, first, take)
            offered += piece.iov_len + take
            piece += 1
            piece.iov_base = data + at
            piece.iov_len = take
            at += take
            count += 2
        sent = send_pieces(conn._fd, pieces, count)
        total += sent
        if total == 0:
            return False
        if sent < offered:
            queue_long(conn, opcode, message, step, total)
            return True
    conn._written += total
    return True


cdef queue_long(ConnCore conn, int opcode, message, Py_ssize_t step, Py_ssize_t sent):
    """Queue a long message in fragments of ``step`` bytes, of which the socket took ``sent`` bytes: some, and not all.

    The rest of a frame that has begun goes to the transport.
    """
    cdef EncodedMessage encoded
    cdef SendQueue queue
    cdef Py_ssize_t size
    cdef list batch
    try:
        payload = message if type(message) is bytes else PyUnicode_AsUTF8String(message)
        encoded = encode(opcode, payload, fragment_size=step)
        queue = Channel._fill(conn)
        queue.append(encoded, encoded.size)
        while sent > 0:
            batch = queue.plan(WRITE_SIZE)
            size = 0
            for buffer in batch:
                size += len(buffer)
            if sent < size:
                conn._cut(queue, batch, sent)
                return
            conn._left(queue, PyList_GET_SIZE(batch))
            sent -= size
    except BaseException as exc:
        conn._fail_output(exc)  # a part of the message may have left
        if not isinstance(exc, Exception):
            raise


cdef bint try_queue_shared(ConnCore conn, object frame, Py_ssize_t size) except -1:
    """Send one message of a broadcast, or queue it, as :meth:`Channel._try_queue_shared` does."""
    cdef LoopContext state = conn._state
    cdef SendQueue queue = conn._queue
    cdef Py_ssize_t sent
    if queue is None and type(frame) is bytes and goes_now(conn):
        conn._turn = state.turn
        size = PyBytes_GET_SIZE(frame)
        sent = send_memory(conn._fd, PyBytes_AS_STRING(frame), size)
        if sent == size:
            conn._written += size
            return True
        queue_rest(conn, frame, NULL, size, sent)
        if conn._queue is not None and not conn._dirty:
            state.mark_dirty(conn)
            conn._dirty = True
        return True
    if conn._paused or conn._in_pieces or conn._waiters is not None or conn._compressor is not None:
        return False
    if queue is None:
        queue = conn._queue = state.lend_queue(conn._most_messages, conn._most_bytes)
    elif not has_space(queue, size):
        return False
    queue.messages.append(frame)
    queue.bytes += size
    if not conn._dirty:
        state.mark_dirty(conn)
        conn._dirty = True
    return True


cdef queue_rest(ConnCore conn, bytes frame, char *start, Py_ssize_t size, Py_ssize_t sent):
    """Queue a frame. Give its rest to the transport if the socket took ``sent`` bytes of it.

    It is ``frame``, or the ``size`` bytes at ``start``.
    """
    try:
        if frame is None:
            frame = start[:size]
        Channel._fill(conn).append(frame, size)
        if sent > 0:
            conn._cut(conn._queue, conn._queue.plan_all(), sent)
    except BaseException as exc:
        if sent > 0:  # no frame may follow a part of one
            conn._fail_output(exc)
        if sent == 0 or not isinstance(exc, Exception):
            raise


cdef write_out(ConnCore conn):
    """Write queued messages of one buffer each straight to the socket, or all in the general way."""
    cdef SendQueue queue = conn._queue
    cdef Py_ssize_t sent
    if (
        queue is not None
        and (conn._in_batch or conn._state.flushing)
        and conn._drains is None
        and is_clear(conn)
        and queue.is_plain()
    ):
        try:
            sent = send_buffers(conn._fd, queue.messages)
            if sent < 0:
                conn._dirty = conn._hot = conn._gathered = False
                conn._written += queue.sent_all()
                conn._queue = None
                conn._state.give_back(queue)
                return
            if sent > 0:
                conn._cut(queue, queue.plan_all(), sent)
        except BaseException as exc:
            conn._fail_output(exc)
            if not isinstance(exc, Exception):
                raise
    Channel._write_out(conn)


cdef write_through(ConnCore conn, SendQueue queue):
    """Write queued messages of one buffer each with one call of a transport whose socket is not ours, as with TLS.

    It is called at the end of a read, outside the context of the connection: what the transport schedules runs in the
    context of the read, which is its own.
    """
    if (
        conn._out is None
        or conn._paused
        or conn._waits_for_event
        or conn._finished
        or conn._waiters is not None
        or conn._flow is not None
        or not queue.is_plain()
    ):
        write_out(conn)
        return
    conn._dirty = conn._hot = conn._gathered = False
    try:
        if conn._out.is_closing():
            return
        data = queue.messages[0] if PyList_GET_SIZE(queue.messages) == 1 else b"".join(queue.messages)
        conn._handed = True
        conn._written += queue.sent_all()
        conn._queue = None
        conn._state.give_back(queue)
        conn._out.write(data)
    except BaseException as exc:
        conn._fail_output(exc)
        if not isinstance(exc, Exception):
            raise
