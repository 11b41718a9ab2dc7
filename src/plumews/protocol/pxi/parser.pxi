# Part of _codec.pyx: frames coming in (sections 5.2 to 5.5).

# What a parser does with the message that arrives, or is next to arrive.
cdef enum:
    WHOLE
    ARMED
    STREAMING


cdef tuple KINDS = tuple(range(0x80))  # the ints that events have


cdef inline int report(list events, int kind, object payload) except -1:
    """Make one event. It can be in no cycle, so the garbage collector need not track it, which saves a third here."""
    event = (KINDS[kind], payload)
    PyObject_GC_UnTrack(event)
    events.append(event)
    return 0


cdef int64_t bound_of(str name, object value, int least) except? -1:
    """Return the limit that a caller gave, checked; the largest number for ``None``."""
    cdef int overflow = 0
    cdef long long number
    if value is None:
        return INT64_MAX
    if not isinstance(value, int):
        raise TypeError(violations.BOUND_TYPE.format(name=name, type=type(value).__name__))
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or number < least:
        raise ValueError(violations.BOUND.format(name=name, least=least, value=value))
    return number


cdef inline int64_t excess_of(object text):
    """Return the memory that a str takes beyond one byte for each character."""
    return <int64_t>(PyUnicode_KIND(text) - 1) * PyUnicode_GET_LENGTH(text)


cdef inline int64_t widened(int64_t limit):
    """Return the bound of a compressed message for ``limit`` bytes: in zlib's fixed codes a byte may take nine bits."""
    cdef int64_t more = (limit >> 3) + 64
    return limit + more if limit < INT64_MAX - more else INT64_MAX


@cython.final
cdef class Parser:
    """Parser of the bytes that a peer sent, into messages and control frames. Its fields stand in ``_codec.pxd``."""

    def __cinit__(self):
        self.buffer = NULL
        self.utf8 = DONE

    def __init__(
        self, *, bint client, max_size, max_frames=None, bint decode_text=True, bint allow_rsv1=False, slack=None
    ):
        self.client = client
        self.slack = bound_of("slack", slack, 1)
        self.decode_text = decode_text
        self.allow_rsv1 = allow_rsv1
        self.max_size = max_size
        self.max_frames = max_frames

    def __dealloc__(self):
        Py_XDECREF(self.buffer)
        PyMem_Free(self.control)

    # --- what a caller sees -----------------------------------------------------------------------

    def feed(self, data, /):
        """Return the events that ``data``, the next bytes of the connection, completes, in order."""
        return self.fed(data, False, INT64_MAX)

    def feed_messages(self, data, size=None, /):
        """Parse the first ``size`` bytes as :meth:`feed` does, with plain messages for the events of most reads."""
        return self.fed(data, True, INT64_MAX if size is None else max(saturated(size), 0))

    cdef list fed(self, object data, bint bare, int64_t most):
        cdef Py_buffer view
        if type(data) is bytes:
            return self.feed_bytes(start_of(data), <Py_ssize_t>min(PyBytes_GET_SIZE(data), most), bare)
        self.left = 0
        self.halted = self.fault is not None
        if self.ended:
            return []
        fetch(data, &view)
        try:
            return self.feed_bytes(<cbyte *>view.buf, <Py_ssize_t>min(view.len, most), bare)
        finally:
            PyBuffer_Release(&view)

    cdef list feed_bytes(self, cbyte *data, Py_ssize_t size, bint bare):
        """Return what :meth:`feed` returns for ``size`` bytes at ``data``, and :meth:`feed_messages` if ``bare``."""
        cdef bint read = False
        cdef list events = []
        with cython.critical_section(self):
            self.left = 0
            self.halted = self.fault is not None
            self.bare = bare
            self.room = self.slack if bare else INT64_MAX
            try:
                self.parse(data, size, events)
                read = True
            finally:
                if not read:
                    self.end()
        return events

    cdef object take_message(self, cbyte *data, Py_ssize_t size, Py_ssize_t *used, int *kind):
        """Return the message at the beginning of ``data`` if it is a plain one.

        Plain is one complete frame, uncompressed, between messages, without a violation. ``used`` is set to the size
        of the frame, ``kind`` to TEXT or BINARY. The result is a str or bytes.
        In every other case ``None`` is returned, ``used`` is 0 and nothing has changed: :meth:`feed_bytes` of the same
        bytes finds what is there. ``slack`` does not apply: deliver each message before the next is taken.
        """
        cdef Py_ssize_t start, length = 0
        cdef uint32_t key
        cdef int state = DONE
        used[0] = 0
        with cython.critical_section(self):
            if self.in_frame | self.head_size | self.message | self.mode | self.ended | self.halted:
                return None
            start = plain_header(data, size, self.client, self.size_limit, &length)
            if start == 0 or not self.decode_text:
                return None
            key = plain_key(data, start, self.client)
            if data[0] == 0x82:
                kind[0] = BINARY
                used[0] = start + length
                return binary_of(data + start, length, key)
            payload = text_of(data + start, length, key, &state)
            if state == DONE:
                kind[0] = TEXT
                used[0] = start + length
            return payload

    def receive_buffer(self, least=65536):
        """Return memory for the rest of the arriving frame, or ``None`` if little is missing."""
        cdef int64_t wanted = max(saturated(least), 1)
        cdef int64_t missing
        with cython.critical_section(self):
            take_back(self)
            missing = self.remaining - self.shy
            if self.ended or not self.in_frame or self.opcode & 8 or self.mode or missing < wanted:
                return None
            wanted = min(missing, max(<int64_t>max(self.held, AT_ONCE), wanted))
            try:
                if wanted > self.capacity - self.held:
                    grow(self, self.held + <Py_ssize_t>wanted)
                if self.loan is None:
                    self.loan = Loan.__new__(Loan)
                    self.loan.owner = <object>self.buffer
                self.loan.start = self.memory + self.held
                self.loan.size = <Py_ssize_t>min(missing, <int64_t>(self.capacity - self.held))
                self.view = memoryview(self.loan)
            finally:
                if self.view is None:
                    self.end()
            return self.view

    def buffer_updated(self, nbytes):
        """Return the events that ``nbytes`` more bytes in the memory of the last :meth:`receive_buffer` complete."""
        cdef list events = []
        cdef bint read = False
        cdef int64_t size = saturated(nbytes)
        with cython.critical_section(self):
            if self.view is None:
                raise ValueError(violations.NOTHING_LENT)
            if not 0 <= size <= self.loan.size:
                raise ValueError(violations.NBYTES.format(size=self.loan.size, nbytes=nbytes))
            take_back(self)
            self.bare = False
            try:
                if size:
                    self.payload(self.memory + self.held, <Py_ssize_t>size, events)
                read = True
            finally:
                if not read:
                    self.end()
        return events

    def start_streaming(self):
        """Deliver the arriving message, or the next one, while it arrives."""
        cdef bint read = False
        cdef list events = []
        with cython.critical_section(self):
            if self.mode == WHOLE:
                if self.message == 0 or self.ended:
                    self.mode = ARMED
                else:
                    take_back(self)
                    try:
                        self.begin_streaming(events)
                        if self.held and self.as_text:
                            report(events, CHUNK, PyBytes_FromStringAndSize(<char *>self.memory, self.held))
                            drop_buffer(self)
                        elif self.held:
                            report(events, CHUNK, take_buffer(self))
                        else:
                            drop_buffer(self)
                        read = True
                    finally:
                        if not read:
                            self.end()
                return events
        raise ValueError(violations.STREAMING_ALREADY)

    def stop_streaming(self):
        """Undo :meth:`start_streaming`. Return False if it is too late: BEGIN was delivered, END was not."""
        with cython.critical_section(self):
            if self.mode == STREAMING:
                return False
            self.mode = WHOLE
        return True

    def stop(self):
        """Read nothing any more, and give up the received part of a message."""
        with cython.critical_section(self):
            self.end()

    @property
    def error(self):
        """Violation by the peer, or ``None``. Its ``close_code`` is the code to close with."""
        with cython.critical_section(self):
            return self.fault

    @property
    def max_size(self):
        """Limit of payload bytes in one message; ``None`` is no limit. A change holds from the next header on."""
        return self.size_limit if self.size_bounded else None

    @max_size.setter
    def max_size(self, value):
        self.size_limit = bound_of("max_size", value, 0)
        self.size_bounded = value is not None

    @property
    def max_frames(self):
        """Limit of frames in one message; ``None`` is no limit. A change holds from the next header on."""
        return self.frame_limit if self.frames_bounded else None

    @max_frames.setter
    def max_frames(self, value):
        self.frame_limit = bound_of("max_frames", value, 1)
        self.frames_bounded = value is not None

    @property
    def buffered(self):
        """Bytes held: of an unfinished header, control frame and message."""
        return self.head_size + self.control_size + self.held

    @property
    def mid_message(self):
        """True if a frame or a message is unfinished. At the end of the connection it was cut then."""
        return self.head_size != 0 or self.in_frame != 0 or self.message != 0

    @property
    def streaming(self):
        """True if the arriving message, or the next one, is streamed."""
        return self.mode != WHOLE

    # --- frames -----------------------------------------------------------------------------------

    cdef int parse(self, cbyte *data, Py_ssize_t size, list events) except -1:
        """Parse ``data`` to its end, a violation or a close frame, or until there is no room for more events."""
        cdef cbyte *end = data + size
        cdef Py_ssize_t take, used
        if self.view is not None:
            take_back(self)
        while data < end and not self.ended:
            if self.room <= 0:
                self.left = end - data
                self.halted = True
                return 0
            if not self.in_frame:
                if not (self.head_size or self.message or self.mode):
                    data += self.plain_frames(data, end - data, events)
                    if data == end or self.ended:
                        return 0
                    if self.room <= 0:
                        continue
                if self.head_size:
                    take = min(<Py_ssize_t>(LONGEST_HEADER - self.head_size), end - data)
                    memcpy(self.head + self.head_size, data, take)
                    used = self.header(self.head, self.head_size + take)
                    if self.ended:
                        return 0
                    if used == 0:
                        self.head_size += <byte>take
                        return 0
                    data += used - self.head_size
                    self.head_size = 0
                else:
                    used = self.header(data, end - data)
                    if self.ended:
                        return 0
                    if used == 0:
                        self.head_size = <byte>(end - data)
                        memcpy(self.head, data, self.head_size)
                        return 0
                    data += used
                self.room -= RECEIVED_OVERHEAD
                if not self.opcode & 8:
                    if self.fin and self.opcode and not self.mode and self.remaining <= end - data:
                        take = <Py_ssize_t>self.remaining
                        self.single_frame(data, take, events)
                        data += take
                        continue
                    if self.opcode:
                        self.message = self.opcode
                        self.as_text = self.decode_text and self.opcode == TEXT and not self.compressed
                        self.ascii = True
                        if self.mode:
                            self.begin_streaming(events)
                    self.frames += 1
                self.in_frame = True
            take = <Py_ssize_t>min(self.remaining, <int64_t>(end - data))
            self.payload(data, take, events)
            data += take
        return 0

    cdef Py_ssize_t plain_frames(self, cbyte *data, Py_ssize_t size, list events) except -1:
        """Read the plain messages at the beginning of ``data``. Return the number of bytes read.

        Most messages are plain. Any other, and any violation, is left to :meth:`header`.
        """
        cdef cbyte *at = data
        cdef cbyte *end = data + size
        cdef Py_ssize_t start, length = 0
        cdef uint32_t key
        while self.room > 0:
            start = plain_header(at, end - at, self.client, self.size_limit, &length)
            if start == 0:
                break
            key = plain_key(at, start, self.client)
            at += start
            self.room -= RECEIVED_OVERHEAD
            if at[-start] == 0x82:
                self.deliver(events, BINARY, binary_of(at, length, key))
            else:
                self.text(at, length, key, events)
                if self.ended:
                    break
            at += length
        return at - data

    cdef int header(self, cbyte *data, Py_ssize_t size) except -1:
        """Parse a header (section 5.2). Return its size, 0 if it is incomplete, 1 after a violation."""
        cdef int first = data[0]
        cdef int opcode = first & 0x0F
        cdef int second, used = 2, i
        cdef uint64_t length
        cdef int64_t limit
        if first & 0x70:
            if first & 0x30 or not self.allow_rsv1:
                return self.refuse(ProtocolError, violations.RESERVED_BITS)
            if opcode != TEXT and opcode != BINARY:
                return self.refuse(ProtocolError, violations.RSV1_MISPLACED)
        if not KNOWN_OPCODES >> opcode & 1:
            return self.refuse(ProtocolError, violations.RESERVED_OPCODE.format(opcode=opcode))
        if opcode & 8:
            if not first & 0x80:
                return self.refuse(ProtocolError, violations.FRAGMENTED_CONTROL)
        elif opcode == CONT and self.message == 0:
            return self.refuse(ProtocolError, violations.STRAY_CONTINUATION)
        elif opcode != CONT and self.message != 0:
            return self.refuse(ProtocolError, violations.INTERLEAVED_MESSAGE)
        elif self.frames >= self.frame_limit:
            return self.refuse(TooManyFragments, violations.TOO_MANY_FRAMES.format(limit=self.frame_limit))
        if size < 2:
            return 0

        second = data[1]
        if (second & 0x80 != 0) == self.client:
            return self.refuse(ProtocolError, violations.MASKED if self.client else violations.UNMASKED)
        length = second & 0x7F
        if length > 125:
            if opcode & 8:
                return self.refuse(ProtocolError, violations.CONTROL_TOO_LARGE)
            used = 4 if length == 126 else 10
            if size < used:
                return 0
            length = 0
            for i in range(2, used):
                length = length << 8 | data[i]
            if length < (126 if used == 4 else 0x10000):
                return self.refuse(ProtocolError, violations.LENGTH_NOT_MINIMAL)
            if length > INT64_MAX:
                return self.refuse(ProtocolError, violations.LENGTH_TOP_BIT)
        limit = self.size_limit
        if first & 0x40 or (opcode == CONT and self.compressed):
            limit = widened(limit)
        if not opcode & 8 and <int64_t>length > limit - self.size:
            return self.refuse(
                PayloadTooBig, violations.TOO_BIG.format(length=length, have=self.size, limit=self.size_limit)
            )

        self.key = 0
        if not self.client:
            if size < used + 4:
                return 0
            memcpy(&self.key, data + used, 4)
            used += 4
        if TEXT <= opcode <= BINARY:
            self.compressed = first & 0x40 != 0
        self.opcode = opcode
        self.fin = first & 0x80 != 0
        self.remaining = <int64_t>length
        return used

    cdef int payload(self, cbyte *data, Py_ssize_t size, list events) except -1:
        """Take ``data`` as payload of the frame, and complete the frame if none is missing."""
        if self.opcode & 8:
            return self.control_payload(data, size, events)
        self.collect(data, size, events)
        self.key = plumews_rotated(self.key, size)
        self.remaining -= size
        if self.remaining == 0 and not self.ended:
            self.in_frame = False
            if self.fin:
                self.end_message(events)
        return 0

    cdef int control_payload(self, cbyte *data, Py_ssize_t size, list events) except -1:
        """Take ``data`` as payload of a control frame. One that comes in parts is kept until it is complete."""
        cdef byte whole[CONTROL_PAYLOAD]
        cdef byte *payload = whole
        if size < self.remaining and self.control == NULL:
            self.control = <byte *>PyMem_Malloc(CONTROL_PAYLOAD)
            if self.control == NULL:
                raise MemoryError
        if self.control != NULL:
            payload = self.control
        xor(payload + self.control_size, data, size, self.key)
        self.control_size += <byte>size
        self.key = plumews_rotated(self.key, size)
        self.remaining -= size
        if self.remaining == 0:
            self.in_frame = False
            self.end_control(<const char *>payload, events)
            self.drop_control()
        return 0

    cdef int end_control(self, const char *payload, list events) except -1:
        """Complete a control frame (section 5.5)."""
        cdef int size = self.control_size, code
        self.control_size = 0
        if self.opcode != CLOSE:
            report(events, self.opcode, PyBytes_FromStringAndSize(payload, size))
            return 0
        if size == 0:
            events.append((CLOSE, (1005, "")))
            self.end()
            return 0
        if size == 1:
            return self.refuse(ProtocolError, violations.CLOSE_ONE_BYTE)
        code = <byte>payload[0] << 8 | <byte>payload[1]
        if not is_valid_close_code(code):
            return self.refuse(ProtocolError, violations.CLOSE_CODE.format(code=code))
        try:
            reason = PyUnicode_DecodeUTF8(payload + 2, size - 2, NULL)
        except UnicodeDecodeError:
            reason = None
        if reason is None:
            return self.refuse(InvalidData, violations.CLOSE_REASON_NOT_UTF8)
        events.append((CLOSE, (code, reason)))
        self.end()
        return 0

    # --- messages ---------------------------------------------------------------------------------

    cdef int single_frame(self, cbyte *data, Py_ssize_t size, list events) except -1:
        """Deliver a complete message in one frame. Its payload goes straight into the delivered object."""
        if self.opcode == TEXT and not self.compressed:
            return self.text(data, size, self.key, events)
        payload = binary_of(data, size, self.key)
        return self.deliver(events, self.opcode | (COMPRESSED if self.compressed else 0), payload)

    cdef int text(self, cbyte *data, Py_ssize_t size, uint32_t key, list events) except -1:
        """Deliver an uncompressed text in the same way."""
        cdef int state = DONE
        cdef int ascii = True
        if self.decode_text:
            payload = text_of(data, size, key, &state)
            if state == DONE:
                self.room -= excess_of(payload)
        else:
            payload = new_bytes(size)
            plumews_mask_scan(start_of(payload), data, size, key, &state, &ascii)
        if state != DONE:
            return self.refuse(InvalidData, violations.TEXT_NOT_UTF8 if state == BAD else violations.TEXT_CUT)
        return self.deliver(events, TEXT, payload)

    cdef inline int deliver(self, list events, int kind, object payload) except -1:
        """Deliver a whole message."""
        if self.bare and (kind == BINARY or kind == TEXT and self.decode_text):
            events.append(payload)
            return 0
        return report(events, kind, payload)

    cdef int collect(self, cbyte *data, Py_ssize_t size, list events) except -1:
        """Add ``data`` to the arriving message. It may lie in the buffer already."""
        cdef Py_ssize_t good = size
        cdef byte *out
        if size == 0:
            return 0
        if self.mode:
            piece = new_bytes(size)
            out = start_of(piece)
        else:
            reserve(self, size)
            out = self.memory + self.held
        if self.message == TEXT and not self.compressed:
            good = plumews_mask_scan(out, data, size, self.key, &self.utf8, &self.ascii)
        else:
            xor(out, data, size, self.key)
        self.size += size
        if not self.mode:
            self.held += size
        elif good == size:
            report(events, CHUNK, piece)
        elif good:
            report(events, CHUNK, piece[:good])
        if good < size:
            return self.refuse(InvalidData, violations.TEXT_NOT_UTF8)
        return 0

    cdef int end_message(self, list events) except -1:
        """Complete the message after its last frame."""
        cdef int kind = self.message | (COMPRESSED if self.compressed else 0)
        if self.utf8 != DONE:
            return self.refuse(InvalidData, violations.TEXT_CUT)
        if self.mode:
            report(events, END, None)
            self.mode = WHOLE
        elif self.as_text and not self.ascii:
            payload = wide_text_of(self.memory, self.held, 0, &self.utf8)
            self.room -= excess_of(payload)
            drop_buffer(self)
            self.deliver(events, TEXT, payload)
        else:
            payload = take_buffer(self)
            if self.spare is not None:
                self.spare.keep(payload)
            self.deliver(events, kind, payload)
        self.message = 0
        self.frames = self.size = 0
        return 0

    cdef int begin_streaming(self, list events) except -1:
        self.mode = STREAMING
        report(events, BEGIN, self.message | (COMPRESSED if self.compressed else 0))
        return 0

    # --- the end ----------------------------------------------------------------------------------

    cdef void drop_control(self) noexcept:
        """Give up the payload of a control frame."""
        self.control_size = 0
        PyMem_Free(self.control)
        self.control = NULL

    cdef void end(self) noexcept:
        """Read nothing any more, and give up everything that is held."""
        self.ended = True
        self.in_frame = False
        self.head_size = 0
        self.drop_control()
        take_back(self)
        drop_buffer(self)

    cdef int refuse(self, kind, str detail) except -1:
        """Note a violation of class ``kind`` with the text ``detail``. Return 1."""
        self.end()
        self.message = 0
        self.halted = True
        self.fault = kind(detail)
        return 1
