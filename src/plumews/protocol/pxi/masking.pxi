# Part of _codec.pyx: masks (section 5.3), and where keys come from (section 10.3).
# A key is held as the four bytes that apply to the next byte of payload on, in memory order; 0 is no mask.


cdef inline void xor(byte *out, cbyte *data, Py_ssize_t size, uint32_t key) noexcept nogil:
    """Mask ``size`` bytes of ``data`` with ``key`` into ``out``: ``data`` itself, or memory apart from it."""
    if key:
        plumews_now.mask(out, data, size, key)
    elif out != data:
        memcpy(out, data, size)


cdef inline object binary_of(cbyte *data, Py_ssize_t size, uint32_t key):
    """Return the bytes of ``data`` unmasked with ``key``."""
    payload = new_bytes(size)
    plumews_now.mask(start_of(payload), data, size, key)
    return payload


cdef inline uint32_t key_of(object key) except? 0:
    """A mask key as a caller gave it, checked."""
    cdef uint32_t value
    if type(key) is not bytes:
        raise TypeError(violations.KEY_TYPE.format(type=type(key).__name__))
    if PyBytes_GET_SIZE(key) != 4:
        raise ValueError(violations.KEY_LENGTH.format(length=len(key)))
    memcpy(&value, PyBytes_AS_STRING(key), 4)
    return value


cdef inline int offset_of(object offset) except -1:
    """A place in a payload as a caller gave it, as far as a key cares."""
    if type(offset) is not int:
        offset = PyNumber_Index(offset)
    return offset & 3


def mask(data, key, offset=0):
    """``data`` masked or unmasked with the 4 bytes of ``key``, a copy; see :mod:`plumews.codec`."""
    cdef Py_buffer view
    cdef uint32_t word = plumews_rotated(key_of(key), offset_of(offset))
    if type(data) is bytes:
        result = new_bytes(PyBytes_GET_SIZE(data))
        xor(start_of(result), start_of(data), PyBytes_GET_SIZE(data), word)
        return result
    fetch(data, &view)
    try:
        result = new_bytes(view.len)
        xor(start_of(result), <cbyte *>view.buf, view.len, word)
        return result
    finally:
        PyBuffer_Release(&view)


def mask_inplace(data, key, offset=0):
    """Mask or unmask ``data``, a writable contiguous buffer, in place."""
    cdef Py_buffer view
    cdef uint32_t word = plumews_rotated(key_of(key), offset_of(offset))
    fetch(data, &view, PyBUF_WRITABLE)
    xor(<byte *>view.buf, <cbyte *>view.buf, view.len, word)
    PyBuffer_Release(&view)


cdef enum:
    POOL = 4096  # a call of the system for each key would cost forty times as much


@cython.final
@cython.no_gc
cdef class Pool:
    """Keys from the system's random source, each used once."""

    cdef byte keys[POOL]
    cdef int left

    cdef uint32_t take(self) except? 0:
        cdef uint32_t key
        with cython.critical_section(self):
            if self.left == 0:
                fresh = os.urandom(POOL)
                memcpy(self.keys, start_of(fresh), POOL)
                self.left = POOL
            self.left -= sizeof(key)
            memcpy(&key, self.keys + self.left, sizeof(key))
        return key

    def drop(self):
        """Forget the keys: after a fork parent and child must not both use them."""
        self.left = 0


cdef Pool pool = Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.drop)


def new_mask():
    """A mask key for one frame."""
    cdef uint32_t key = pool.take()
    return PyBytes_FromStringAndSize(<char *>&key, sizeof(key))
