# Part of _codec.pyx: UTF-8 (section 8.1), checked, and made into a str of exactly one allocation.

cdef enum:
    PROBE = 64  # bytes that show what a longer text is like


cdef inline object text_of(cbyte *data, Py_ssize_t size, uint32_t key, int *state):
    """Return the str of ``data`` under ``key``, or ``None`` if ``state`` ends BAD or inside a character."""
    cdef byte probe[PROBE]
    if size > PROBE and plumews_now.mask(probe, data, PROBE, key):
        return wide_text_of(data, size, key, state)
    text = PyUnicode_New(size, 127)
    if not plumews_now.mask(<byte *>PyUnicode_DATA(text), data, size, key):
        return text
    if size <= PROBE:
        return wide_text_of(<cbyte *>PyUnicode_DATA(text), size, 0, state)
    text = None  # before there is another as large
    return wide_text_of(data, size, key, state)


cdef object wide_text_of(cbyte *data, Py_ssize_t size, uint32_t key, int *state):
    """Decode text that is not ASCII: count its characters first, then widen them into their place."""
    cdef size_t count = 0
    cdef byte highest = 0
    cdef Py_UCS4 most = 0x7F
    if plumews_survey(data, size, key, state, &count, &highest) < <size_t>size or state[0] != DONE:
        return None
    # By the first byte of the highest character: of 4 bytes, or of 2 and more above Latin-1.
    if highest >= 0x80:
        most = 0x10FFFF if highest >= 0xF0 else 0xFFFF if highest >= 0xC4 else 0xFF
    text = PyUnicode_New(<Py_ssize_t>count, most)
    plumews_decode(PyUnicode_DATA(text), PyUnicode_KIND(text), count, data, size, key)
    return text


@cython.final
cdef class Utf8Validator:
    """Validator of UTF-8 that arrives in pieces (RFC 3629)."""

    cdef int state

    def __init__(self):
        self.state = DONE

    def feed(self, data, /):
        """Return False from the first byte on that no continuation could make valid, until :meth:`reset`."""
        cdef Py_buffer view
        if type(data) is bytes:
            with cython.critical_section(self):
                if self.state != BAD:
                    plumews_scan(start_of(data), PyBytes_GET_SIZE(data), &self.state)
                return self.state != BAD
        fetch(data, &view)
        with cython.critical_section(self):
            if self.state != BAD:
                plumews_scan(<cbyte *>view.buf, view.len, &self.state)
            good = self.state != BAD
        PyBuffer_Release(&view)
        return good

    @property
    def complete(self):
        """True if the fed bytes are valid UTF-8 and end at the end of a character."""
        return self.state == DONE

    def reset(self):
        """Forget all fed bytes."""
        self.state = DONE
