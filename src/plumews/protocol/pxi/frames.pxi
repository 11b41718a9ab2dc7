# Part of _codec.pyx: frames going out (sections 5.2 and 5.4), and the headers of the simplest ones coming in.


cdef inline long long saturated(object number) except? -1:
    """Return an int, clamped to the range of 64 bits."""
    cdef int overflow = 0
    cdef long long value = PyLong_AsLongLongAndOverflow(number, &overflow)
    if overflow:
        value = INT64_MAX if overflow > 0 else -INT64_MAX
    return value


cdef inline int opcode_of(object opcode) except -1:
    """Return the opcode that a caller gave, checked."""
    cdef long long value = saturated(opcode)
    if not 0 <= value <= 15:
        raise ValueError(violations.OPCODE.format(opcode=opcode))
    return <int>value


cdef inline Py_ssize_t plain_header(
    cbyte *data, Py_ssize_t size, bint client, int64_t limit, Py_ssize_t *length
) noexcept nogil:
    """Return the size of the header of a complete message in one frame, uncompressed and within ``limit``.

    Set ``length`` to the size of its payload. Return 0 for any other frame, and for any violation.
    """
    cdef Py_ssize_t start = 2 if client else 6
    cdef uint64_t long_length = 0
    cdef int short_length, i
    if size < start or (data[0] != 0x82 and data[0] != 0x81):
        return 0
    short_length = data[1] if client else data[1] ^ 0x80
    if short_length <= 125:
        length[0] = short_length
    elif short_length == 126 and size >= start + 2:
        length[0] = data[2] << 8 | data[3]
        start += 2
        if length[0] < 126:
            return 0
    elif short_length == 127 and size >= start + 8:
        for i in range(2, 10):
            long_length = long_length << 8 | data[i]
        if not 0x10000 <= long_length <= <uint64_t>size:
            return 0
        length[0] = <Py_ssize_t>long_length
        start += 8
    else:
        return 0
    return start if length[0] <= size - start and length[0] <= limit else 0


cdef inline uint32_t plain_key(cbyte *data, Py_ssize_t start, bint client) noexcept nogil:
    """Return the key at the end of such a header, which is of ``start`` bytes."""
    cdef uint32_t key = 0
    if not client:
        memcpy(&key, data + start - 4, 4)
    return key


cdef Py_ssize_t frame_header(byte *out, int first, Py_ssize_t length) noexcept nogil:
    """Write the header of an unmasked frame to ``out``, as :func:`write_header` does. Return its size."""
    return write_header(out, first, length, False, 0)


cdef object frame(int first, cbyte *data, Py_ssize_t size, bint masked, uint32_t key):
    """Build a frame as one bytes object."""
    result = new_bytes(header_size(size, masked) + size)
    cdef byte *out = start_of(result)
    xor(out + write_header(out, first, size, masked, key), data, size, key)
    return result


cdef object short_frame(int opcode, object message, bint masked):
    """Build the frame that :func:`build_frame` builds of a whole message, for a valid opcode.

    A str or bytes is copied once, or encoded and copied; any other buffer is copied twice.
    """
    cdef Py_ssize_t size = 0
    cdef cbyte *data
    if not is_plain(message):
        message = as_bytes(message)
    data = bytes_of(message, &size)
    return frame(opcode | 0x80, data, size, masked, pool.take() if masked else 0)


cdef Py_ssize_t write_frame(byte *out, Py_ssize_t room, int opcode, object message, bint masked) except -2:
    """Write the frame of a whole message to ``out``. Return its size.

    Return -1, with nothing written, if it is longer than ``room``, or if ``message`` is neither bytes nor a str in
    ASCII. Those :func:`short_frame` takes.
    """
    cdef Py_ssize_t size = 0
    cdef cbyte *data
    cdef uint32_t key
    if not is_plain(message):
        return -1
    data = bytes_of(message, &size)
    if size > room - header_size(size, masked):
        return -1
    key = pool.take() if masked else 0
    out += write_header(out, opcode | 0x80, size, masked, key)
    xor(out, data, size, key)
    return header_size(size, masked) + size


cdef inline Py_ssize_t frame_start(cbyte *data, Py_ssize_t size, int64_t *length) except -1:
    """Return the size of the header of the unmasked frame at ``data``. Set ``length`` to that of its payload."""
    cdef Py_ssize_t head
    cdef uint64_t found
    cdef int i
    if size < 2 or data[1] & 0x80:
        raise ValueError(violations.NOT_FRAMES)
    found = data[1]
    head = 2 if found < 126 else 4 if found == 126 else 10
    if size < head:
        raise ValueError(violations.NOT_FRAMES)
    if head > 2:
        found = 0
        for i in range(2, head):
            found = found << 8 | data[i]
        if found > <uint64_t>INT64_MAX:
            raise ValueError(violations.NOT_FRAMES)
    length[0] = <int64_t>found
    return head


cdef Py_ssize_t masked_size(cbyte *data, Py_ssize_t size, int64_t *missing) except -1:
    """Return the size of the next ``size`` bytes of unmasked frames once each frame has a key.

    ``missing`` is the payload of the last frame that is not there yet: 0 before the first byte, and at the end.
    """
    cdef Py_ssize_t at = <Py_ssize_t>min(missing[0], <int64_t>size), total = size
    missing[0] -= at
    while at < size:
        at += frame_start(data + at, size - at, missing)
        total += 4
        if missing[0] > size - at:
            missing[0] -= size - at
            break
        at += <Py_ssize_t>missing[0]
        missing[0] = 0
    return total


cdef Py_ssize_t mask_next(
    FrameMask *frame, byte *out, Py_ssize_t room, cbyte *data, Py_ssize_t size, Py_ssize_t *used
) except -1:
    """Mask the next ``size`` bytes of frames, which :func:`masked_size` has checked, into ``out``.

    Each frame gets a fresh key. ``frame`` is empty before the first byte. Set ``used`` to the bytes read: less than
    ``size`` if there is no room for more. Return the bytes written.
    """
    cdef Py_ssize_t at = 0, written = 0, head, take
    cdef int64_t length
    while at < size:
        if frame.missing == 0:
            head = frame_start(data + at, size - at, &length)
            if room - written < head + 4:
                break
            frame.missing = length
            frame.key = pool.take()
            memcpy(out + written, data + at, head)
            out[written + 1] |= 0x80
            memcpy(out + written + head, &frame.key, 4)
            written += head + 4
            at += head
        take = <Py_ssize_t>min(frame.missing, <int64_t>min(size - at, room - written))
        xor(out + written, data + at, take, frame.key)
        frame.key = plumews_rotated(frame.key, take)
        frame.missing -= take
        written += take
        at += take
        if written == room:
            break
    used[0] = at
    return written


def mask_frames(data):
    """Return the whole unmasked frames in ``data``, any contiguous buffer, each masked with a fresh key."""
    cdef Py_buffer view
    cdef FrameMask frame
    cdef Py_ssize_t size, used
    frame.missing = 0
    fetch(data, &view)
    try:
        size = masked_size(<cbyte *>view.buf, view.len, &frame.missing)
        if frame.missing:
            raise ValueError(violations.NOT_FRAMES)
        result = new_bytes(size)
        mask_next(&frame, start_of(result), size, <cbyte *>view.buf, view.len, &used)
        return result
    finally:
        PyBuffer_Release(&view)


def build_header(opcode, length, *, bint fin=True, bint rsv1=False, mask_key=None):
    """Build the header of a frame with ``length`` bytes of payload, and with the key if one is given."""
    cdef byte header[LONGEST_HEADER]
    cdef int first = opcode_of(opcode) | fin << 7 | rsv1 << 6
    cdef int overflow = 0
    cdef long long size = PyLong_AsLongLongAndOverflow(length, &overflow)
    if overflow or size < 0:
        raise ValueError(violations.LENGTH.format(length=length))
    cdef uint32_t key = 0 if mask_key is None else key_of(mask_key)
    return PyBytes_FromStringAndSize(<char *>header, write_header(header, first, size, mask_key is not None, key))


cdef inline uint32_t key_for(object mask_key, bint masked) except? 0:
    """Return the key of a frame: the given one, or a fresh one."""
    return pool.take() if mask_key is None and masked else 0 if mask_key is None else key_of(mask_key)


def build_frame(opcode, payload, *, bint fin=True, bint rsv1=False, mask_key=None, bint masked=False):
    """Build a frame with ``payload``: any contiguous buffer, or a str, which is encoded as UTF-8."""
    cdef Py_buffer view
    cdef Py_ssize_t size
    cdef cbyte *data
    cdef int first
    cdef uint32_t key
    masked = masked or mask_key is not None
    if isinstance(payload, str) and not PyUnicode_IS_COMPACT_ASCII(payload):
        payload = PyUnicode_AsUTF8String(payload)
    if is_plain(payload):
        first = opcode_of(opcode) | fin << 7 | rsv1 << 6
        key = key_for(mask_key, masked)
        data = bytes_of(payload, &size)
        return frame(first, data, size, masked, key)
    fetch(payload, &view)
    try:
        first = opcode_of(opcode) | fin << 7 | rsv1 << 6
        key = key_for(mask_key, masked)
        return frame(first, <cbyte *>view.buf, view.len, masked, key)
    finally:
        PyBuffer_Release(&view)


cdef object joined(list kinds, list payloads, Py_ssize_t begin, Py_ssize_t end, bint masked):
    """Build some frames as one bytes object, without the last payload if that one is not copied."""
    cdef Py_ssize_t total = 0, size = 0, i
    cdef uint32_t key = 0
    cdef byte *out
    cdef cbyte *data
    for i in range(begin, end):
        bytes_of(payloads[i], &size)
        total += header_size(size, masked) + (size if masked or size <= COPY_SIZE else 0)
    result = new_bytes(total)
    out = start_of(result)
    for i in range(begin, end):
        data = bytes_of(payloads[i], &size)
        if masked:
            key = pool.take()
        out += write_header(out, <int>kinds[i], size, masked, key)
        if masked or size <= COPY_SIZE:
            xor(out, data, size, key)
            out += size
    return result


def build_batch(messages, *, bint masked=False):
    """Build the frames of many messages, each ``(opcode, payload)``, as few buffers to write in this order."""
    cdef Py_ssize_t size = 0, i, begin = 0
    cdef list kinds = []
    cdef list payloads = []
    cdef list buffers = []
    for message in messages:
        try:
            opcode, payload = message
        except (TypeError, ValueError):
            raise TypeError(violations.PAIR.format(type=type(message).__name__)) from None
        kinds.append(opcode_of(opcode) | 0x80)
        payloads.append(payload if is_plain(payload) else as_bytes(payload))
    if not masked:
        for i in range(len(payloads)):
            bytes_of(payloads[i], &size)
            if size > COPY_SIZE:
                buffers.append(joined(kinds, payloads, begin, i + 1, False))
                buffers.append(payloads[i] if type(payloads[i]) is bytes else view_of(payloads[i]))
                begin = i + 1
    if begin < len(payloads):
        buffers.append(joined(kinds, payloads, begin, len(payloads), masked))
    return buffers


def fragment(opcode, payload, *, size=_FRAGMENT_SIZE, mask=None, bint rsv1=False):
    """Build the frames of one message, as buffers to write in this order (section 5.4)."""
    cdef byte header[LONGEST_HEADER]
    cdef Py_ssize_t start = 0, total = 0, step, take
    cdef int kind = <int>min(max(saturated(opcode), -1), 16)
    cdef long long most = saturated(size)
    cdef int first
    cdef uint32_t key = 0
    cdef bint copied, fresh = mask is new_mask
    cdef list buffers = []
    cdef cbyte *bytes_
    if kind != TEXT and kind != BINARY:
        raise ValueError(violations.DATA_OPCODE.format(opcode=opcode))
    if most < 1:
        raise ValueError(violations.SIZE.format(size=size))
    data = payload if is_plain(payload) else as_bytes(payload)
    bytes_ = bytes_of(data, &total)
    step = <Py_ssize_t>min(most, <long long>max(total, 1))
    copied = total <= COPY_SIZE
    view = None
    while True:
        take = min(step, total - start)
        first = kind | rsv1 << 6 | (0x80 if start + take == total else 0)
        if mask is not None:
            key = pool.take() if fresh else key_of(mask())
        if copied or mask is not None:
            buffers.append(frame(first, bytes_ + start, take, mask is not None, key))
        else:
            buffers.append(PyBytes_FromStringAndSize(<char *>header, write_header(header, first, take, False, 0)))
            if take == total and type(data) is bytes:
                buffers.append(data)
            else:
                if view is None:
                    view = view_of(data)
                buffers.append(view if take == total else view[start:start + take])
        start += take
        if start == total:
            break
        kind, rsv1 = CONT, False
    return [b"".join(buffers)] if copied and len(buffers) > 1 else buffers
