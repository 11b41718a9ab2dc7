# cython: language_level=3, binding=False, auto_pickle=False
"""``websocket_key.py`` in C. Invariant: the same result for all texts.

A key has 24 characters. With the GUID it is 60 bytes, of which SHA-1 (FIPS 180-4 section 6.1) makes two blocks. The
objects and calls of ``hashlib`` and ``binascii`` would cost more than both blocks.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_GET_LENGTH

__all__ = ["accept_value", "is_key"]

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    static uint32_t plumews_rotated(uint32_t word, int bits)
    {
        return word << bits | word >> (32 - bits);
    }

    /* Expand the 16 words of a block to the 80 of its schedule. */
    static void plumews_sha1_schedule(uint32_t *w)
    {
        for (int i = 16; i < 80; i++)
            w[i] = plumews_rotated(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    }

    #define PLUMEWS_STEP(a, b, c, d, e, f, k, i) \\
        e += plumews_rotated(a, 5) + (f) + (k) + w[i]; b = plumews_rotated(b, 30)
    #define PLUMEWS_STEPS(f, k, from) \\
        for (int i = from; i < from + 20; i += 5) { \\
            PLUMEWS_STEP(a, b, c, d, e, f(b, c, d), k, i); \\
            PLUMEWS_STEP(e, a, b, c, d, f(a, b, c), k, i + 1); \\
            PLUMEWS_STEP(d, e, a, b, c, f(e, a, b), k, i + 2); \\
            PLUMEWS_STEP(c, d, e, a, b, f(d, e, a), k, i + 3); \\
            PLUMEWS_STEP(b, c, d, e, a, f(c, d, e), k, i + 4); \\
        }
    #define PLUMEWS_CHOICE(x, y, z) (z ^ (x & (y ^ z)))
    #define PLUMEWS_PARITY(x, y, z) (x ^ y ^ z)
    #define PLUMEWS_MAJORITY(x, y, z) ((x & y) | (z & (x | y)))

    /* The 80 steps for one block with the schedule `w`. */
    static void plumews_sha1_block(uint32_t *state, const uint32_t *w)
    {
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
        PLUMEWS_STEPS(PLUMEWS_CHOICE, 0x5a827999, 0)
        PLUMEWS_STEPS(PLUMEWS_PARITY, 0x6ed9eba1, 20)
        PLUMEWS_STEPS(PLUMEWS_MAJORITY, 0x8f1bbcdc, 40)
        PLUMEWS_STEPS(PLUMEWS_PARITY, 0xca62c1d6, 60)
        state[0] += a;
        state[1] += b;
        state[2] += c;
        state[3] += d;
        state[4] += e;
    }

    static const char PLUMEWS_BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    /* Schedule of the second block, which is the same for all keys: zeros, and the size in bits. */
    static uint32_t plumews_second[80];

    static void plumews_prepare(void)
    {
        plumews_second[15] = 60 * 8;
        plumews_sha1_schedule(plumews_second);
    }

    /* The value for a key of 24 bytes: base64 of the SHA-1 of the key and the GUID, 28 bytes. */
    static void plumews_accept_value(const unsigned char *key, char *value)
    {
        uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
        uint32_t w[80];
        unsigned char block[64];
        unsigned char digest[21];
        int i;
        memcpy(block, key, 24);
        memcpy(block + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11\\x80\\0\\0", 40);
        for (i = 0; i < 16; i++)
            w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8
                | block[4 * i + 3];
        plumews_sha1_schedule(w);
        plumews_sha1_block(state, w);
        plumews_sha1_block(state, plumews_second);
        for (i = 0; i < 20; i++)
            digest[i] = (unsigned char)(state[i >> 2] >> (24 - 8 * (i & 3)));
        digest[20] = 0; /* fills the last group of three */
        for (i = 0; i < 21; i += 3) {
            uint32_t group = (uint32_t)digest[i] << 16 | (uint32_t)digest[i + 1] << 8 | digest[i + 2];
            *value++ = PLUMEWS_BASE64[group >> 18];
            *value++ = PLUMEWS_BASE64[group >> 12 & 63];
            *value++ = PLUMEWS_BASE64[group >> 6 & 63];
            *value++ = PLUMEWS_BASE64[group & 63];
        }
        value[-1] = '=';
    }

    static int plumews_is_base64(unsigned char c)
    {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
    }
    """
    void plumews_prepare() noexcept nogil
    void plumews_accept_value(const unsigned char *key, char *value) noexcept nogil
    bint plumews_is_base64(unsigned char c) noexcept nogil

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)

plumews_prepare()


cpdef bint is_key(str text) except -1:
    cdef const unsigned char *key
    cdef int i
    if text is None or PyUnicode_GET_LENGTH(text) != 24 or not PyUnicode_IS_ASCII(text):
        return False
    key = <const unsigned char *>PyUnicode_1BYTE_DATA(text)
    for i in range(22):
        if not plumews_is_base64(key[i]):
            return False
    return key[22] == 0x3D and key[23] == 0x3D


cpdef bytes accept_value(str key):
    cdef bytes value
    if not is_key(key):
        raise ValueError("invalid websocket key")
    value = PyBytes_FromStringAndSize(NULL, 28)
    plumews_accept_value(<const unsigned char *>PyUnicode_1BYTE_DATA(key), PyBytes_AS_STRING(value))
    return value
